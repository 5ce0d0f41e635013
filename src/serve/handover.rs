//! Sockets that the process was given at its start, by systemd or whatever speaks its protocol
//! (LISTEN_FDS): they outlive it, so that a restart loses no connection.

use crate::net::listen::{bind, prepared};
use listenfd::ListenFd;
use std::net::{SocketAddr, TcpListener};

/// Listening sockets that wait to be taken.
#[derive(Debug, Default)]
pub struct Handed(Vec<TcpListener>);

impl Handed {
    /// Takes them from the environment. To be called before there are threads.
    pub fn from_env() -> Self {
        let mut handed = ListenFd::from_env();
        let sockets = (0..handed.len()).filter_map(|at| handed.take_tcp_listener(at).ok().flatten());
        Self(sockets.collect())
    }

    /// The socket for an address: one of our own, or the one that was handed over, which the second
    /// part of the answer says.
    pub fn bind(&mut self, address: SocketAddr) -> std::io::Result<(TcpListener, bool)> {
        let same = |socket: &TcpListener| socket.local_addr().is_ok_and(|bound| bound == address);
        match self.0.iter().position(same) {
            Some(at) => Ok((prepared(self.0.swap_remove(at)), true)),
            None => Ok((bind(address)?, false)),
        }
    }

    /// Tells of sockets that no listener is configured for: who connects to them would wait in vain.
    pub fn tell_unused(&self) {
        for address in self.0.iter().filter_map(|socket| socket.local_addr().ok()) {
            tracing::warn!(%address, "a socket was handed over, and no listener has its address; it is closed");
        }
    }
}
