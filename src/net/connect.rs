//! Connecting to a server of a backend: its name resolved anew, then TLS where it has TLS.

use super::joined::Joined;
use crate::domain::backend::Server;
use hyper::rt::Executor;
use rustls::ClientConfig;
use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

/// A connection that is ready for HTTP.
pub type Wire = Joined<Either<TcpStream, Box<TlsStream<TcpStream>>>>;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Calls,
    /// Begins as HTTP/1.1, whatever the server speaks besides.
    Tunnel,
}

/// Runs what belongs to an HTTP/2 connection on the lane.
#[derive(Debug, Clone, Copy)]
pub struct LaneExecutor;

impl<F: Future + 'static> Executor<F> for LaneExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// Connects within a time.
pub async fn connect(server: &Server, purpose: Purpose, patience: Duration) -> Result<Wire> {
    let late = || Error::new(ErrorKind::TimedOut, format!("no connection within {patience:?}"));
    tokio::time::timeout(patience, open(server, purpose, patience)).await.map_err(|_| late())?
}

async fn open(server: &Server, purpose: Purpose, patience: Duration) -> Result<Wire> {
    let stream = reach(&server.authority, patience).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = &server.tls else { return Ok(Joined(Either::Left(stream))) };
    let config: &Arc<ClientConfig> = match purpose {
        Purpose::Calls => &tls.calls,
        Purpose::Tunnel => &tls.tunnels,
    };
    let stream = TlsConnector::from(config.clone()).connect(tls.name.clone(), stream).await?;
    Ok(Joined(Either::Right(Box::new(stream))))
}

/// Tries the addresses of a name in turn, each with its share of the time.
async fn reach(authority: &str, patience: Duration) -> Result<TcpStream> {
    let addresses: Vec<_> = tokio::net::lookup_host(authority).await?.collect();
    let share = patience / u32::try_from(addresses.len()).unwrap_or(1).max(1);
    let mut last = Error::new(ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = Error::new(ErrorKind::TimedOut, format!("{address} does not answer")),
        }
    }
    Err(last)
}

/// Whether the server has chosen HTTP/2 in ALPN.
pub fn chose_http2(wire: &Wire) -> bool {
    match &wire.0 {
        Either::Left(_) => false,
        Either::Right(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
    }
}
