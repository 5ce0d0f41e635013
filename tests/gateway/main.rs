//! End to end over real sockets: a gateway, a backend, callers.

mod admin;
mod calls;
mod certificates;
mod cli;
mod hostile;
mod live;
mod process;
mod reload;
mod tokens;
mod world;
