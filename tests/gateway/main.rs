//! End to end over real sockets: a gateway, a backend, callers.

mod admin;
mod authorize;
mod calls;
mod certificates;
mod chains;
mod cli;
mod destinations;
mod grpc;
mod hostile;
mod issuers;
mod limits;
mod live;
mod outbound;
mod partner;
mod process;
mod providers;
mod proxies;
mod reload;
mod rotations;
mod senders;
mod stub;
mod tokens;
mod trust;
mod tunnels;
mod world;
