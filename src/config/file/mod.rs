//! config.yaml as said: every key, its meaning and default. The JSON Schema for editors and the
//! check of a file both come from here.

mod limits;
mod routing;

use crate::crypto::keyring::Algorithm;
pub use limits::LimitsSection;
pub use routing::*;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// flowgate's configuration. Relative paths start at the file's folder; values may hold `${ENV}`,
/// `${ENV:-default}` and `${file:PATH}`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["backends", "routes"]))]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "flowgate configuration")]
pub struct File {
    /// The origin that service keys and tokens name; tokenurl is this with /oauth/token.
    pub public_url: String,
    /// Who this gateway is to its clients.
    pub tenant: TenantSection,
    /// Where clients connect.
    pub listeners: Vec<ListenerSection>,
    /// Health and metrics; never reachable through a route.
    pub admin: AdminSection,
    /// Where state is kept.
    pub store: StoreSection,
    /// The origin at which clients with certificates connect, if that is another one.
    pub mtls_url: Option<String>,
    /// Files and folders of CA certificates (PEM) that may vouch for client certificates, and of
    /// revocation lists (*.crl or in the same files).
    pub trusted_cas: Vec<String>,
    /// What revocation lists decide besides who is on them.
    pub revocation: RevocationSection,
    /// Access tokens.
    pub tokens: TokensSection,
    /// Token servers besides our own, taken by the routes that list them.
    pub issuers: Vec<IssuerSection>,
    /// Bounds on what outbound credentials may call.
    pub outbound: OutboundSection,
    /// One line for each request.
    pub access_log: AccessLogSection,
    /// Numbers that bound what a client can cost.
    pub limits: LimitsSection,
    /// HTTP servers that take forwarded calls, by name.
    pub backends: BTreeMap<String, BackendSection>,
    /// Published paths.
    pub routes: Vec<RouteSection>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            public_url: "https://localhost:8443".into(),
            mtls_url: None,
            tenant: TenantSection::default(),
            listeners: vec![ListenerSection { tls: Some(TlsSection::default()), ..ListenerSection::default() }],
            admin: AdminSection::default(),
            store: StoreSection::default(),
            trusted_cas: Vec::new(),
            revocation: RevocationSection::default(),
            tokens: TokensSection::default(),
            issuers: Vec::new(),
            outbound: OutboundSection::default(),
            access_log: AccessLogSection::default(),
            limits: LimitsSection::default(),
            backends: BTreeMap::new(),
            routes: Vec::new(),
        }
    }
}

/// Made at the first start unless given, then kept in the store.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TenantSection {
    /// The tenant's subdomain, `zdn` in tokens.
    pub subdomain: String,
    /// The identity zone, a UUID.
    pub zid: Option<String>,
    /// Prefix of every scope, such as `it-rt-demo!b1`.
    pub xsappname: Option<String>,
}

impl Default for TenantSection {
    fn default() -> Self {
        Self { subdomain: "demo".into(), zid: None, xsappname: None }
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["address"]))]
#[serde(default, deny_unknown_fields)]
pub struct ListenerSection {
    /// Address and port, such as 0.0.0.0:8443.
    pub address: String,
    /// Connections at once (default: as many as limits.connections leaves).
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: Option<usize>,
    /// Without it the listener is plain HTTP.
    pub tls: Option<TlsSection>,
    /// Networks whose X-Request-Id and X-Forwarded-* headers are believed, and their certificate
    /// header and PROXY protocol if those are set.
    pub trusted_proxies: Vec<String>,
    /// The header in which the trusted proxies, and nobody else, send their callers' certificates:
    /// x-forwarded-client-cert (Envoy), client-cert (RFC 9440), or any other name with PEM or
    /// base64 (nginx, HAProxy, Traefik). The proxies must replace what callers send in it.
    pub certificate_header: Option<String>,
    /// Connections of the trusted proxies begin with a PROXY header (version 1 or 2). Their callers'
    /// HTTP headers are believed only if certificate_header is set too, which says that the proxies
    /// speak HTTP and do not just pass bytes on.
    pub proxy_protocol: bool,
}

impl Default for ListenerSection {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:8443".into(),
            connections: None,
            tls: None,
            trusted_proxies: Vec::new(),
            certificate_header: None,
            proxy_protocol: false,
        }
    }
}

/// Client certificates are asked for and verified against trusted_cas.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSection {
    /// The server's certificate chain, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
    /// More certificates, for clients that ask for the names in them (SNI); the first one is for
    /// all others.
    pub certificates: Vec<CertificatePair>,
    /// CAs that must vouch for callers of this listener, besides what vouches for them elsewhere.
    pub trusted_cas: Option<Vec<String>>,
}

/// A certificate chain and its key, both PEM files.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["certificate", "key"]))]
#[serde(default, deny_unknown_fields)]
pub struct CertificatePair {
    pub certificate: String,
    pub key: String,
}

/// What revocation lists decide besides who is on them.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RevocationSection {
    /// When a list's next update has passed: refuse all that its CA issued, or accept.
    pub expired_crl: RefuseFirst,
    /// When a CA has no list: accept what it issued, or refuse.
    pub without_crl: AcceptFirst,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefuseFirst {
    #[default]
    Refuse,
    Accept,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AcceptFirst {
    #[default]
    Accept,
    Refuse,
}

impl Default for TlsSection {
    fn default() -> Self {
        Self {
            certificate: "certs/server.pem".into(),
            key: "certs/server-key.pem".into(),
            certificates: Vec::new(),
            trusted_cas: None,
        }
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSection {
    /// Address and port; keep it on loopback.
    pub address: String,
}

impl Default for AdminSection {
    fn default() -> Self {
        Self { address: "127.0.0.1:8444".into() }
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSection {
    /// `sqlite:PATH`.
    pub url: String,
    /// 32 random bytes in base64; with `${file:PATH}` it is made for an empty store.
    pub master_key: String,
}

impl Default for StoreSection {
    fn default() -> Self {
        Self { url: "sqlite:data/flowgate.db".into(), master_key: "file:keys/master.key".into() }
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TokensSection {
    /// RS256 is what the XSUAA libraries need; ES256 signs thirty times as fast and breaks two of them.
    pub algorithm: Algorithm,
    /// How often a new signing key takes over, at least 1d.
    pub rotate_every: String,
    /// How far clocks may differ, at most 5m.
    pub leeway: String,
}

impl Default for TokensSection {
    fn default() -> Self {
        Self { algorithm: Algorithm::RS256, rotate_every: "30d".into(), leeway: "60s".into() }
    }
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OutboundSection {
    /// Networks that outbound calls may reach besides public ones, and those that are called without
    /// TLS. Addresses of metadata services are never called.
    pub allow_networks: Vec<String>,
    /// Files and folders of CAs (PEM) that may vouch for token services besides the system's.
    pub trusted_cas: Vec<String>,
    /// The forward proxy that leads to token services of destinations with ProxyType OnPremise.
    pub connectivity_proxy: Option<ConnectivityProxySection>,
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["url"]))]
#[serde(default, deny_unknown_fields)]
pub struct ConnectivityProxySection {
    /// Such as http://127.0.0.1:20003.
    pub url: String,
    /// The name of an outbound credential whose token the proxy wants to see.
    pub credential: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLogSection {
    pub format: LogFormat,
    /// Where the lines go (default stdout). Opened again on SIGHUP.
    pub file: Option<String>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["issuer", "jwks", "audience"]))]
#[serde(default, deny_unknown_fields)]
pub struct IssuerSection {
    /// The claim `iss` of its tokens, to the letter.
    pub issuer: String,
    /// Its key set: an https URL, or a file.
    pub jwks: String,
    /// What the claim `aud` of tokens for this gateway names.
    pub audience: String,
    /// The claim that holds the roles, an array or a text with blanks; dots lead into it, as in
    /// realm_access.roles.
    pub roles_claim: String,
}

impl Default for IssuerSection {
    fn default() -> Self {
        Self { issuer: String::new(), jwks: String::new(), audience: String::new(), roles_claim: "scope".into() }
    }
}

/// How a line of the access log looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// JSON with short names.
    #[default]
    Json,
    /// JSON with the names of the Elastic Common Schema.
    Ecs,
    /// The combined format of web servers; it has no place for reasons.
    Combined,
}

/// The JSON Schema of config.yaml.
pub fn schema() -> Value {
    schemars::schema_for!(File).to_value()
}
