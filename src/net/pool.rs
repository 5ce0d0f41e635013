//! A lane's connections to backends. Kept here and not in a client library because a lane needs to
//! know whether a request was sent at all: only then may it be tried again.

use super::body::Outgoing;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// An idle connection is not used again after this: shorter than what common servers keep.
const IDLE: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(5);

type Sender = SendRequest<Outgoing>;

/// A connection and since when it has been idle.
type Idle = (Sender, Instant);

/// Idle connections by `host:port`, the latest used on top.
#[derive(Debug)]
pub struct Pool {
    idle: RefCell<HashMap<Arc<str>, Vec<Idle>>>,
    most: usize,
}

/// A connection in use, with the way back.
#[derive(Debug)]
pub struct Lent {
    sender: Sender,
    authority: Arc<str>,
    pool: Rc<Pool>,
    /// Whether it has carried a request before.
    pub reused: bool,
}

impl Pool {
    pub fn new(most: usize) -> Rc<Self> {
        Rc::new(Self { idle: RefCell::default(), most })
    }

    /// An idle connection if there is one that still stands.
    pub fn idle(self: &Rc<Self>, authority: &Arc<str>) -> Option<Lent> {
        let mut idle = self.idle.borrow_mut();
        let stack = idle.get_mut(authority)?;
        while let Some((sender, since)) = stack.pop() {
            if sender.is_ready() && since.elapsed() < IDLE {
                return Some(Lent { sender, authority: authority.clone(), pool: self.clone(), reused: true });
            }
        }
        None
    }

    /// A new connection.
    pub async fn connect(self: &Rc<Self>, authority: &Arc<str>) -> io::Result<Lent> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no connection within 5 s");
        let stream = tokio::time::timeout(CONNECT, TcpStream::connect(&**authority)).await.map_err(|_| late())??;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::Builder::new()
            .max_headers(256)
            .handshake::<_, Outgoing>(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a backend connection ended");
            }
        });
        Ok(Lent { sender, authority: authority.clone(), pool: self.clone(), reused: false })
    }

    /// Closes what has been idle for too long.
    pub fn sweep(&self) {
        self.idle.borrow_mut().retain(|_, stack| {
            stack.retain(|(sender, since)| !sender.is_closed() && since.elapsed() < IDLE);
            !stack.is_empty()
        });
    }
}

impl Lent {
    pub fn sender(&mut self) -> &mut Sender {
        &mut self.sender
    }

    /// Back to the pool, unless it is full or the connection has ended.
    pub fn give_back(self) {
        if self.sender.is_closed() {
            return;
        }
        let mut idle = self.pool.idle.borrow_mut();
        let stack = idle.entry(self.authority).or_default();
        if stack.len() < self.pool.most {
            stack.push((self.sender, Instant::now()));
        }
    }
}
