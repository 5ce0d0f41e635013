//! The configuration as meant: typed, defaulted, every reference resolved. After loading nothing
//! downstream checks anything again.

mod authorities;
mod backends;
pub mod disk;
pub mod fault;
pub mod file;
mod issuers;
mod meaning;
mod routing;
mod schema;
mod source;
pub mod units;

use crate::crypto::digest::{Digest, sha256};
use crate::crypto::identity::Identity;
use crate::crypto::keyring::Algorithm;
use crate::crypto::trust::Revocation;
use crate::crypto::x509::{Certificate, Crl};
use crate::domain::issuer::Issuer;
use crate::domain::key::Origin;
use crate::domain::name::ArtifactName;
use crate::domain::rate::Rate;
use crate::domain::route::Route;
use crate::domain::target::Target;
use fault::Faults;
use http::HeaderName;
use ipnet::IpNet;
use rustls_pki_types::CertificateDer;
use secrecy::SecretString;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
pub struct Config {
    pub origin: Origin,
    pub tenant: TenantSetting,
    pub listeners: Vec<Listener>,
    pub admin: SocketAddr,
    pub store: StoreSetting,
    pub trusted_cas: Vec<Certificate>,
    /// The CAs of all routes that have lists of their own.
    pub route_cas: Vec<Certificate>,
    /// Revocation lists from beside all of them.
    pub crls: Vec<Crl>,
    pub revocation: Revocation,
    pub outbound: Outbound,
    pub issuers: Vec<Issuer>,
    pub access_log: AccessLog,
    pub tokens: Tokens,
    pub limits: Limits,
    pub routes: Vec<Route>,
    /// Files and folders whose change is a reason to load again.
    pub watch: Vec<PathBuf>,
    /// A digest of all that it was made of.
    pub seen: Digest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantSetting {
    pub subdomain: String,
    pub zid: Option<String>,
    pub xsappname: Option<String>,
}

#[derive(Debug)]
pub struct Listener {
    pub address: SocketAddr,
    /// Connections at once.
    pub connections: Option<usize>,
    pub tls: Option<TlsMaterial>,
    pub trusted_proxies: Vec<IpNet>,
    pub certificate_header: Option<HeaderName>,
    pub proxy_protocol: bool,
}

/// Where outbound calls may go, and who vouches for those who answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outbound {
    pub allow_networks: Vec<IpNet>,
    pub trusted_cas: Vec<CertificateDer<'static>>,
    pub connectivity_proxy: Option<ConnectivityProxy>,
}

/// How requests are logged, and where; to stdout without a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessLog {
    pub format: file::LogFormat,
    pub file: Option<PathBuf>,
}

/// The way to what only a forward proxy reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectivityProxy {
    pub url: Target,
    /// Whose token it wants to see.
    pub credential: Option<ArtifactName>,
}

/// A server certificate with its key, read and known to belong together.
#[derive(Debug)]
pub struct TlsMaterial {
    pub identity: Identity,
    /// For clients that ask for the names in them.
    pub others: Vec<Identity>,
    /// The CAs of this listener alone.
    pub trusted_cas: Option<Vec<Certificate>>,
}

#[derive(Debug, Clone)]
pub struct StoreSetting {
    pub path: PathBuf,
    pub master_key: MasterKeySource,
}

#[derive(Debug, Clone)]
pub enum MasterKeySource {
    Given(SecretString),
    /// A file that may not exist yet: it is made for an empty store.
    File(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokens {
    pub algorithm: Algorithm,
    /// Seconds.
    pub rotate_every: i64,
    /// Seconds.
    pub leeway: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub target: usize,
    pub header_bytes: usize,
    pub header_count: usize,
    pub header_time: Duration,
    pub body_gap: Duration,
    pub body_time: Duration,
    pub write_gap: Duration,
    pub idle_time: Duration,
    pub handshake_time: Duration,
    pub connections: usize,
    pub connections_per_address: usize,
    pub requests: usize,
    pub http2_streams: u32,
    pub http2_resets: u32,
    pub client_rate: Option<Rate>,
    pub token_rate: Option<Rate>,
    pub token_request: usize,
    pub token_cache: u64,
    pub drain_time: Duration,
    pub idle_backend_connections: usize,
}

impl Config {
    /// The CAs of all lists together, each once.
    pub fn all_cas(&self) -> Vec<Certificate> {
        let listeners = self.listeners.iter().filter_map(|one| one.tls.as_ref()?.trusted_cas.as_ref());
        let lists = std::iter::once(&self.trusted_cas).chain(listeners).chain(std::iter::once(&self.route_cas));
        let mut seen = HashSet::new();
        lists.flatten().filter(|ca| seen.insert(ca.fingerprint)).cloned().collect()
    }
}

/// A loaded configuration, with whatever deserves a warning.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Faults,
}

/// Loads and checks a file: either the whole of it is right, or every fault is reported.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Faults> {
    let shown = path.display().to_string();
    match disk::text(path) {
        Ok(text) => parse(&shown, &text, path.parent().unwrap_or(Path::new("")), env),
        Err(error) => {
            let mut faults = Faults::new(&shown, "");
            faults.error(
                fault::Place::default(),
                format!("the configuration cannot be read: {error}"),
                "name it with --config FILE, or make one with `flowgate demo`",
            );
            Err(faults)
        }
    }
}

/// The same for a text whose relative paths start at `base`.
pub fn parse(shown: &str, text: &str, base: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Faults> {
    let mut faults = Faults::new(shown, text);
    let mut places = source::Places::default();
    let schema = file::schema();
    let tree = source::parse(text, &mut faults);
    let said = tree.and_then(|tree| {
        let around = source::Surroundings { env, base };
        let mut walk = schema::Walk { schema: &schema, around, faults: &mut faults, places: &mut places };
        let value = walk.value(&tree, &schema, "").unwrap_or_else(|| source::object(Vec::new()));
        serde_json::from_value::<file::File>(value).map_err(|error| error.to_string()).ok()
    });
    let mut config = said.map(|said| meaning::Meaning::new(base, &places, &mut faults).config(&said));
    let files = config.as_ref().map_or([0; 32], |config| config.seen);
    let seen = sha256(&[sha256(text.as_bytes()), files].concat());
    faults.seen = seen;
    if let Some(config) = &mut config {
        config.seen = seen;
    }
    faults.sort();
    match config {
        Some(config) if faults.errors() == 0 => Ok(Loaded { config, warnings: faults }),
        _ => {
            if faults.errors() == 0 {
                faults.error(
                    fault::Place::default(),
                    "the file is not a configuration",
                    "begin with `backends:` and `routes:`",
                );
            }
            Err(faults)
        }
    }
}

/// Routes share backends; this names the type once.
pub type SharedBackend = Arc<crate::domain::backend::Backend>;

#[cfg(test)]
mod tests;
