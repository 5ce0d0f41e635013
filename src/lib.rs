//! flowgate: an inbound OAuth gateway. Its rooms, each importing only what stands left of it:
//!
//! `crypto < domain < config < { store | net } < gateway < http < serve < cli < main`
//!
//! ARCHITECTURE.md tells the journeys of a token request and of a proxied request through them.
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod crypto;
pub mod domain;
pub mod gateway;
pub mod http;
pub mod net;
pub mod serve;
pub mod store;
