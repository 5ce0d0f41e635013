//! The room that talks to callers and backends: accept, TLS, drain, pools. Forwards only what
//! carries a `Permit`. Knows no SQL, no roles, no OAuth words.

pub mod body;
pub mod certificate_header;
pub mod client;
pub mod forward;
pub mod headers;
pub mod listen;
pub mod outbound;
pub mod peer;
pub mod pool;
pub mod probe;
mod proxy_protocol;
pub mod tls;
