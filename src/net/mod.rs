//! The room that talks to callers and backends: accept, TLS, drain, pools. Forwards only what
//! carries a `Permit`. Knows no SQL, no roles, no OAuth words.

pub mod addresses;
pub mod body;
pub mod certificate_header;
pub mod client;
mod connect;
pub mod forward;
mod frames;
mod framing;
mod guarded;
pub mod headers;
pub mod health;
mod interim;
mod joined;
pub mod listen;
pub mod outbound;
pub mod peer;
mod pool;
pub mod probe;
mod proxy_protocol;
pub mod roster;
pub mod slots;
mod spare;
pub mod tls;
pub mod tunnel;
