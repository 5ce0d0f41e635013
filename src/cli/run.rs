//! `serve` and `check`, and what commands share: configuration, environment, store.

use super::{Failure, Outcome, output};
use crate::config::{self, Config, Loaded};
use crate::gateway::administer::{Administration, tenant};
use crate::serve::handover::Handed;
use crate::serve::{self, Options, Running, SystemClock};
use crate::store::Store;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The process's environment.
#[expect(clippy::disallowed_methods, reason = "the one place that reads it")]
pub fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

pub fn load(path: &Path) -> Result<Loaded, Failure> {
    config::load(path, &env).map_err(Failure::Configuration)
}

/// A file that an operator named.
pub fn read(path: &Path) -> Result<String, Failure> {
    config::disk::text(path).map_err(|error| Failure::text(format!("{} cannot be read: {error}", path.display())))
}

/// The same, as JSON.
pub fn read_json(path: &Path) -> Result<Value, Failure> {
    serde_json::from_str(&read(path)?)
        .map_err(|error| Failure::text(format!("{} is not JSON: {error}", path.display())))
}

/// Program log on stderr; `FLOWGATE_LOG` sets the level.
pub fn install_log() {
    let filter = EnvFilter::try_from_env("FLOWGATE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init();
}

pub async fn serve(path: PathBuf, handed: Handed) -> Outcome {
    install_log();
    let running = start(path, handed).await?;
    for address in &running.listeners {
        tracing::info!(%address, "listening");
    }
    tracing::info!(address = %running.admin, "admin listening");
    until_stopped(running).await
}

pub async fn start(path: PathBuf, handed: Handed) -> Result<Running, Failure> {
    raise_descriptors();
    let options = Options {
        config_path: path,
        env,
        clock: Arc::new(SystemClock),
        log: Box::new(std::io::stdout()),
        lanes: serve::default_lanes(),
        handed,
    };
    let loaded = serve::load(&options).map_err(Failure::Configuration)?;
    Ok(serve::start(loaded, options).await?)
}

/// A connection and its hop take two descriptors; the soft limit is for programs that use `select`.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, "the number of open files stays as it is");
    }
}

/// Serves until SIGTERM or SIGINT, then drains.
pub async fn until_stopped(running: Running) -> Outcome {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = running.stopper();
    let signals = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::select! {
        () = signals => stop.cancel(),
        () = stop.cancelled() => {}
    }
    running.ended().await;
    Ok(())
}

pub fn check(path: &Path) -> Outcome {
    let loaded = load(path)?;
    let warnings = loaded.warnings.list().len();
    eprint!("{}", loaded.warnings);
    let config = &loaded.config;
    let counted = [
        (config.listeners.len(), "listener"),
        (config.routes.len(), "route"),
        (config.trusted_cas.len(), "trusted CA"),
        (warnings, "warning"),
    ];
    let counted = counted.map(|(count, name)| format!("{count} {name}{}", if count == 1 { "" } else { "s" }));
    output::print(&format!("{} is valid: {}\n", path.display(), counted.join(", ")))
}

/// An open store with the configuration that it belongs to.
pub struct Opened {
    pub config: Config,
    pub store: Store,
}

impl Opened {
    pub async fn new(path: &Path) -> Result<Self, Failure> {
        let config = load(path)?.config;
        let store = Store::open(&config.store).await?;
        tenant::ensure(&store, &config.tenant).await?;
        Ok(Self { config, store })
    }

    pub fn administration(&self) -> Administration<'_> {
        Administration { store: &self.store, origin: &self.config.origin, now: now() }
    }
}

pub fn now() -> i64 {
    use crate::gateway::Clock;
    SystemClock.now()
}
