//! The section `limits`: every number that bounds what a client can cost.

use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSection {
    /// Path and query of a request, in bytes.
    #[schemars(range(min = 256, max = 65_536))]
    pub target: usize,
    /// Head of a request on HTTP/1.1; header list on HTTP/2, CONTINUATION frames included.
    pub header_bytes: String,
    /// Header fields of a request.
    #[schemars(range(min = 16, max = 1_000))]
    pub header_count: usize,
    /// From the first byte of a request to the end of its head.
    pub header_time: String,
    /// Between two pieces of a request's body, unless its route says otherwise.
    pub body_gap: String,
    /// A request's whole body, unless its route says otherwise.
    pub body_time: String,
    /// How long a client may leave what is sent to it untaken.
    pub write_gap: String,
    /// A connection without a request.
    pub idle_time: String,
    /// A TLS handshake.
    pub handshake_time: String,
    /// Connections of all listeners at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: usize,
    /// Connections of one address at once (of one /64 in IPv6); trusted proxies have no such bound.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_per_address: usize,
    /// Requests at once, on all connections; what comes above is answered 503.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: usize,
    /// Requests at once on one HTTP/2 connection.
    #[schemars(range(min = 1, max = 1_000))]
    pub http2_streams: u32,
    /// Requests that one HTTP/2 connection may cancel per second before it is closed.
    #[schemars(range(min = 1, max = 100_000))]
    pub http2_resets: u32,
    /// Calls of one client, such as 100/s, 600/m or 5000/h (default: no bound).
    pub client_rate: Option<String>,
    /// Token requests of one client, and failing ones of one address (default: no bound).
    pub token_rate: Option<String>,
    /// Body of a request to the token server.
    pub token_request: String,
    /// Verified tokens remembered, per core and once more for all of them.
    pub token_cache: String,
    /// After a stop signal, for requests and tunnels that are under way.
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
            body_gap: "20s".into(),
            body_time: "15m".into(),
            write_gap: "60s".into(),
            idle_time: "75s".into(),
            handshake_time: "10s".into(),
            connections: 10_000,
            connections_per_address: 2_000,
            requests: 8_192,
            http2_streams: 100,
            http2_resets: 200,
            client_rate: None,
            token_rate: None,
            token_request: "64KiB".into(),
            token_cache: "32MiB".into(),
            drain_time: "30s".into(),
            idle_backend_connections: 128,
        }
    }
}
