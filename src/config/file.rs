//! config.yaml as said: every key, its meaning and default. The JSON Schema for editors and the
//! check of a file both come from here.

use crate::crypto::keyring::Algorithm;
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
    /// CAs that must vouch for callers of this listener, besides what vouches for them elsewhere.
    pub trusted_cas: Option<Vec<String>>,
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
        Self { certificate: "certs/server.pem".into(), key: "certs/server-key.pem".into(), trusted_cas: None }
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

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSection {
    /// Path and query of a request, in bytes.
    #[schemars(range(min = 256, max = 65_536))]
    pub target: usize,
    /// Head of a request on HTTP/1.1 and header list on HTTP/2.
    pub header_bytes: String,
    /// Header fields of a request.
    #[schemars(range(min = 16, max = 1_000))]
    pub header_count: usize,
    /// From the first byte of a request to the end of its head.
    pub header_time: String,
    /// A TLS handshake.
    pub handshake_time: String,
    /// Connections of all listeners at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: usize,
    /// Requests at once on one HTTP/2 connection.
    #[schemars(range(min = 1, max = 1_000))]
    pub http2_streams: u32,
    /// Body of a request to the token server.
    pub token_request: String,
    /// Verified tokens remembered, per core.
    pub token_cache: String,
    /// After a stop signal, for requests that are under way.
    pub drain_time: String,
    /// Idle connections kept to each server of a backend, per core.
    #[schemars(range(min = 1, max = 10_000))]
    pub idle_backend_connections: usize,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            target: 8_192,
            header_bytes: "32KiB".into(),
            header_count: 100,
            header_time: "10s".into(),
            handshake_time: "10s".into(),
            connections: 10_000,
            http2_streams: 100,
            token_request: "64KiB".into(),
            token_cache: "32MiB".into(),
            drain_time: "30s".into(),
            idle_backend_connections: 128,
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["servers"]))]
#[serde(default, deny_unknown_fields)]
pub struct BackendSection {
    /// `http://host:port`, with an optional base path; taken in turn.
    pub servers: Vec<String>,
    /// Until the head of the answer (default 60s).
    pub timeout: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["name", "path", "backend"]))]
#[serde(default, deny_unknown_fields)]
pub struct RouteSection {
    /// For logs and metrics.
    pub name: String,
    /// Case-insensitive; a final /* takes the path and all below it; the longest match wins.
    pub path: String,
    /// Who may call. Never open by omission.
    pub authorization: AuthorizationWord,
    /// The role that a caller's token needs (default ESBMessaging.send).
    pub user_role: Option<String>,
    /// Credentials that a route with a user role takes (default: bearer and certificate).
    pub accept: Option<Vec<CredentialWord>>,
    /// With `authorization: client_certificate`: who may call, by the certificate's names.
    pub certificates: Vec<CertificateNames>,
    /// CAs that must vouch for client certificates on this route; with authorization
    /// client_certificate in place of the general list.
    pub trusted_cas: Option<Vec<String>>,
    /// The backend's name.
    pub backend: String,
    /// Bytes of a request body (default 40MiB).
    pub max_body: Option<String>,
    /// Forward the caller's token to the backend.
    pub keep_token: bool,
    /// Whose tokens are taken: names of `issuers`, and `own` (default: own alone).
    pub issuers: Option<Vec<String>>,
    /// Protection against forged calls (default pass: X-CSRF-Token is the backend's affair).
    pub csrf: CsrfWord,
    /// The name of an outbound credential whose token the backend gets in place of the caller's.
    pub credential: Option<String>,
    /// The header for it (default Authorization).
    pub credential_header: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CsrfWord {
    #[default]
    Pass,
    /// A changing call needs the token that a GET or HEAD with X-CSRF-Token: fetch has got.
    Protect,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthorizationWord {
    #[default]
    UserRole,
    ClientCertificate,
    None,
}

/// A way to prove who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialWord {
    /// An access token.
    Bearer,
    /// A client certificate that belongs to a service key, without a token.
    Certificate,
    /// Clientid and clientsecret in each call, without a token.
    Basic,
}

/// Names as `flowgate trusted-ca inspect` shows them (RFC 4514).
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["subject", "issuer"]))]
#[serde(default, deny_unknown_fields)]
pub struct CertificateNames {
    /// Such as CN=sender,O=Example,C=DE.
    pub subject: String,
    pub issuer: String,
}

/// The JSON Schema of config.yaml.
pub fn schema() -> Value {
    schemars::schema_for!(File).to_value()
}
