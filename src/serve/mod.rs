//! The composition root: configuration in, a running gateway out. Each part is put together once;
//! what changes later changes in `control`.

mod bound;
mod control;
pub mod handover;
mod lanes;
mod manager;
mod site;
mod watch;

use crate::config::{self, Config, Loaded};
use crate::gateway::administer::{AdminError, signing, tenant};
use crate::gateway::control::Control;
use crate::gateway::exchanger::Exchanger;
use crate::gateway::outward::Outward;
use crate::gateway::signer::Signer;
use crate::gateway::{Clock, Gateway, Mirror};
use crate::http::access_log::LogWriter;
use crate::http::admin::{Admin, Health, router};
use crate::http::metrics::Registry;
use crate::net::outbound::Policy;
use crate::store::{Store, StoreError};
use handover::Handed;
use lanes::Lanes;
use site::Site;
use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Mirror(#[from] crate::gateway::MirrorError),
    #[error("{address} cannot be listened on: {error}; another process may use it (ss -ltnp shows which)")]
    Bind { address: SocketAddr, error: std::io::Error },
    #[error("the server certificate cannot be used: {0}")]
    Tls(#[from] rustls::Error),
    #[error("a thread or runtime cannot be started: {0}")]
    Start(#[from] std::io::Error),
    #[error("the metrics registry cannot be made")]
    Metrics,
}

/// What a gateway is started with besides its configuration.
pub struct Options {
    /// Read again when it changes.
    pub config_path: PathBuf,
    pub env: fn(&str) -> Option<String>,
    pub clock: Arc<dyn Clock>,
    /// Where access log lines go.
    pub log: Box<dyn Write + Send>,
    /// Threads that serve requests.
    pub lanes: usize,
    /// Sockets that were given to the process.
    pub handed: Handed,
}

/// The system's clock: the one place that reads it for decisions.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> i64 {
        jiff::Timestamp::now().as_second()
    }
}

/// A gateway that is up: every address is bound.
pub struct Running {
    pub listeners: Vec<SocketAddr>,
    pub admin: SocketAddr,
    stop: CancellationToken,
    control: tokio::task::JoinHandle<()>,
}

impl Running {
    /// A handle that ends the gateway gracefully.
    pub fn stopper(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Waits until the gateway has ended.
    pub async fn ended(self) {
        let _ = self.control.await;
    }
}

/// Starts everything and returns once it serves.
pub async fn start(loaded: Loaded, options: Options) -> Result<Running, ServeError> {
    let Loaded { config, warnings } = loaded;
    if !warnings.list().is_empty() {
        tracing::warn!("{}", warnings.to_string().trim_end());
    }
    let now = options.clock.now();
    let seen = config.seen;

    // state: locked, opened, complete
    let lock = Store::lock(&config.store)?;
    let store = Store::open(&config.store).await?;
    tenant::ensure(&store, &config.tenant).await?;
    signing::keep(&store, config.tokens, now).await?;
    let (mirror, state) = Mirror::load(store.clone(), &config).await?;

    // the gateway over it
    let (control, inbox) = Control::new();
    let exchanger = Exchanger::new(Policy::new(&config.outbound), options.clock.clone());
    let (outward, behind) = Outward::new(store.clone(), &state, &exchanger, "serve".into());
    let signer = Signer::start(options.lanes)?;
    let gateway = Arc::new(Gateway::new(state, options.clock.clone(), signer, control, outward));
    let registry = Registry::new().ok_or(ServeError::Metrics)?;
    let log = LogWriter::start(&config.access_log, options.log)?;
    let health = Arc::new(Health::default());
    health.store_seen.store(now, Ordering::Relaxed);
    health.config_current.store(true, Ordering::Relaxed);

    // addresses, all of them before anything is served
    let stop = CancellationToken::new();
    let mut handed = options.handed;
    let (admin, _) = handed.bind(config.admin).map_err(|error| ServeError::Bind { address: config.admin, error })?;
    let admin_address = admin.local_addr()?;
    let lanes = Lanes::start(options.lanes, &gateway, &log, &registry)?;
    let mut site = Site::new(gateway.clone(), lanes, stop.clone(), &config.limits, handed);
    site.apply(config)?;
    site.tell_unused();
    let listeners = site.addresses();

    // and what runs beside the lanes
    let app = router(Admin { gateway: gateway.clone(), registry: registry.clone(), health: health.clone() });
    let admin = tokio::net::TcpListener::from_std(admin)?;
    // these serve the lanes and those who look on until the last lane has drained
    let drained = CancellationToken::new();
    let shutdown = drained.clone().cancelled_owned();
    tokio::spawn(async move { axum::serve(admin, app).with_graceful_shutdown(shutdown).await });
    let tasks = behind.spawn(&drained);
    let source = watch::Source { path: options.config_path, env: options.env };
    let work = control::Control {
        store,
        mirror,
        site,
        inbox,
        managing: JoinSet::new(),
        source,
        health,
        registry,
        log,
        stop: stop.clone(),
        exchanger,
        told: HashMap::new(),
        servers: HashSet::new(),
        tasks,
        drained,
        seen,
        lock,
    };
    let control = tokio::spawn(work.run());
    Ok(Running { listeners, admin: admin_address, stop, control })
}

/// Loads a configuration from where it will be watched.
pub fn load(options: &Options) -> Result<Loaded, config::fault::Faults> {
    config::load(&options.config_path, &options.env)
}

/// Lanes for this machine, as far as the process may use it.
pub fn default_lanes() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// What only a restart changes.
fn needs_restart(before: &Config, after: &Config) -> Vec<&'static str> {
    let changed = [
        ("admin.address", before.admin != after.admin),
        ("store.url", before.store.path != after.store.path),
        ("tenant", before.tenant != after.tenant),
        ("access_log", before.access_log != after.access_log),
        ("limits.token_cache", before.limits.token_cache != after.limits.token_cache),
        (
            "limits.idle_backend_connections",
            before.limits.idle_backend_connections != after.limits.idle_backend_connections,
        ),
    ];
    changed.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
}
