//! The sections `backends` and `routes`.

use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["servers"]))]
#[serde(default, deny_unknown_fields)]
pub struct BackendSection {
    /// `http://host:port` or `https://host:port`, with an optional base path; of two that chance
    /// picks, the one with less to do takes a call.
    pub servers: Vec<ServerEntry>,
    /// What the servers speak (default http1).
    pub protocol: ProtocolWord,
    /// How https servers are trusted, and what they are shown.
    pub tls: Option<BackendTlsSection>,
    /// Until the head of the answer, from the end of the upload (default 60s).
    pub timeout: Option<String>,
    /// Until there is a connection (default 5s).
    pub connect_timeout: Option<String>,
    /// Between two pieces of an answer, or of what a tunnel carries (default 5m).
    pub idle_timeout: Option<String>,
    /// The whole exchange (default: as long as it goes on).
    pub total_timeout: Option<String>,
    /// Connections at once to each server; calls wait for one as long as for a new one.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<usize>,
    /// Calls at once at each server; what comes above is answered 503.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_requests: Option<usize>,
    /// What becomes of its 1xx answers (default drop: some clients take the first answer for the last).
    pub interim_responses: InterimWord,
    /// When a server is left out for a while.
    pub ejection: EjectionSection,
    /// Asks each server whether it is well.
    pub health: Option<HealthSection>,
}

/// A server, or a server with its share of the calls.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ServerEntry {
    Url(String),
    Weighted(ServerSection),
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["url"]))]
#[serde(default, deny_unknown_fields)]
pub struct ServerSection {
    pub url: String,
    /// Its share beside the others' (default 1).
    #[schemars(range(min = 1, max = 1_000))]
    pub weight: u32,
}

impl Default for ServerSection {
    fn default() -> Self {
        Self { url: String::new(), weight: 1 }
    }
}

/// What a backend's servers speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProtocolWord {
    #[default]
    Http1,
    /// HTTP/2: by ALPN over https, with prior knowledge over http. For gRPC.
    Http2,
    /// What an https server prefers.
    Auto,
}

/// What becomes of a backend's interim answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InterimWord {
    #[default]
    Drop,
    /// From HTTP/1.1 to HTTP/1.1.
    Pass,
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BackendTlsSection {
    /// Files and folders of CAs (PEM) that vouch for the servers (default: the system's).
    pub trusted_cas: Option<Vec<String>>,
    /// The certificate chain that the servers are shown, PEM.
    pub certificate: Option<String>,
    /// Its private key, PEM.
    pub key: Option<String>,
    /// The name in the servers' certificates, if it is not the one that they are called by.
    pub server_name: Option<String>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EjectionSection {
    /// In a row: no connection, no answer, or with other servers 502 to 504. 0 leaves none out.
    #[schemars(range(min = 0, max = 1_000))]
    pub failures: u32,
    /// The first time; doubled each time that the server fails again at once.
    pub time: String,
}

impl Default for EjectionSection {
    fn default() -> Self {
        Self { failures: 5, time: "10s".into() }
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["path"]))]
#[serde(default, deny_unknown_fields)]
pub struct HealthSection {
    /// Asked with GET; 200 to 399 is well.
    pub path: String,
    pub interval: String,
    pub timeout: String,
    /// Bad answers in a row after which a server gets no calls.
    #[schemars(range(min = 1, max = 100))]
    pub down_after: u32,
    /// Good answers in a row after which it gets calls again.
    #[schemars(range(min = 1, max = 100))]
    pub up_after: u32,
}

impl Default for HealthSection {
    fn default() -> Self {
        Self { path: String::new(), interval: "5s".into(), timeout: "2s".into(), down_after: 2, up_after: 1 }
    }
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
    /// In place of limits.body_gap; 0s is no bound, as for streams that a client keeps open.
    pub body_gap: Option<String>,
    /// In place of limits.body_time; 0s is no bound.
    pub body_time: Option<String>,
    /// All calls of the route, such as 100/s (default: no bound).
    pub rate: Option<String>,
    /// Calls of one client on the route (default: no bound).
    pub client_rate: Option<String>,
    /// WebSockets and other tunnels (default follow_token).
    pub websocket: TunnelWord,
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

/// What becomes of a call that asks for a WebSocket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TunnelWord {
    /// It ends when the caller's token ends, is revoked or loses the role.
    #[default]
    FollowToken,
    /// It lasts as long as its two ends want.
    Stay,
    /// The call goes on as an ordinary one.
    Refuse,
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
