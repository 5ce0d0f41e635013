//! A lane's connections to backends. Kept here and not in a client library because a lane needs to
//! know whether a request was sent at all: only then may it be tried again.

use super::body::Outgoing;
use super::connect::{self, LaneExecutor, Purpose, Wire};
use super::slots::{AllSlots, Slot, Slots};
use crate::domain::backend::{Backend, Bounds, InFlight, Protocol, Server};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{future, io};
use tokio::sync::Notify;
use tokio::time::timeout;

/// An idle connection is not used again after this: shorter than what common servers keep.
const IDLE: Duration = Duration::from_secs(30);
/// A connection takes no new request after this, so that calls follow a name to new addresses.
const AGE: Duration = Duration::from_secs(60);
/// Requests at once on one HTTP/2 connection, if the server allows as many.
const STREAMS: usize = 100;
/// Streams on a connection whose server has not said how many it allows, and how long to wait for that.
const UNTOLD: usize = 1;
const SETTINGS: Duration = Duration::from_millis(500);
/// The library tells of them when it is asked alone.
const PAUSE: Duration = Duration::from_millis(1);

/// By what a server is known, what the lane has to do with it.
#[derive(Debug)]
pub struct Pool {
    hosts: RefCell<HashMap<Arc<str>, Rc<Host>>>,
    /// Idle connections kept to each server.
    most: usize,
    slots: Arc<AllSlots>,
}

#[derive(Debug)]
struct Host {
    /// Idle HTTP/1.1 connections, the latest used on top.
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<Shared>>,
    /// Whether the server is known to speak HTTP/2.
    http2: Cell<bool>,
    /// While an HTTP/2 connection is being made, others wait for it.
    opening: Cell<bool>,
    opened: Notify,
    /// Where connections are bounded, over all lanes.
    slots: Option<Arc<Slots>>,
    /// Calls of this lane that wait for a connection, and what they wait for besides a slot.
    waiting: Cell<usize>,
    freed: Notify,
}

/// What a call gets that asks for an HTTP/1.1 connection.
enum Turn {
    Kept(Idle),
    New(Option<Slot>),
}

/// A call that waits for a connection, until it is dropped.
struct Waiting<'a> {
    host: &'a Host,
    slots: &'a Slots,
}

impl<'a> Waiting<'a> {
    fn begin(host: &'a Host, slots: &'a Slots) -> Self {
        host.waiting.set(host.waiting.get() + 1);
        slots.wait(true);
        Self { host, slots }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.host.waiting.set(self.host.waiting.get() - 1);
        self.slots.wait(false);
    }
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<Outgoing>,
    born: Instant,
    since: Instant,
}

/// An HTTP/2 connection, which carries many requests at once.
#[derive(Debug, Clone)]
struct Shared {
    sender: http2::SendRequest<Outgoing>,
    born: Instant,
    streams: Rc<Cell<usize>>,
    /// Streams that the server allows, as it last said.
    room: Rc<Cell<usize>>,
}

/// A connection in use, with the way back.
#[derive(Debug)]
pub struct Lent {
    sender: Sender,
    host: Rc<Host>,
    born: Instant,
    most: usize,
    /// Whether it has carried a request before.
    pub reused: bool,
    #[expect(dead_code, reason = "counts as long as it lives")]
    call: Option<InFlight>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Outgoing>),
    Http2(http2::SendRequest<Outgoing>, #[expect(dead_code, reason = "counts as long as it lives")] Stream),
}

/// One of the streams of a connection, until it is dropped.
#[derive(Debug)]
struct Stream(Rc<Cell<usize>>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum NoConnection {
    #[error("all its connections are in use")]
    Busy,
    #[error(transparent)]
    Failed(#[from] io::Error),
}

impl Pool {
    pub fn new(most: usize, slots: Arc<AllSlots>) -> Self {
        Self { hosts: RefCell::default(), most, slots }
    }

    /// A connection to a server that is there already: an idle one that still stands, or a share of one.
    pub fn ready(&self, backend: &Backend, server: &Server) -> Option<Lent> {
        let host = self.host(server, &backend.bounds);
        if host.speaks_http2(backend) {
            let (shared, stream) = host.share()?;
            return Some(self.lent(host, Sender::Http2(shared.sender, stream), shared.born).reused());
        }
        let idle = host.idle()?;
        Some(self.lent(host, Sender::Http1(idle.sender), idle.born).reused())
    }

    /// The same, or a new one; certainly a new one if it is to be `fresh`.
    pub async fn lend(&self, backend: &Backend, server: &Server, fresh: bool) -> Result<Lent, NoConnection> {
        let host = self.host(server, &backend.bounds);
        let slot = if host.speaks_http2(backend) {
            if let Some((shared, stream)) = host.shared(backend.times.connect).await? {
                return Ok(self.lent(host, Sender::Http2(shared.sender, stream), shared.born).reused());
            }
            host.slots.as_ref().and_then(|slots| slots.try_take())
        } else {
            match host.turn(backend.times.connect, fresh).await? {
                Turn::Kept(idle) => return Ok(self.lent(host, Sender::Http1(idle.sender), idle.born).reused()),
                Turn::New(slot) => slot,
            }
        };
        let _opening = Opening::begin(&host);
        let wire = connect::connect(server, Purpose::Calls, backend.times.connect).await?;
        let born = Instant::now();
        if backend.protocol == Protocol::Http2 || connect::chose_http2(&wire) {
            let (sender, stream) = host.open_http2(wire, slot).await?;
            return Ok(self.lent(host, Sender::Http2(sender, stream), born));
        }
        Ok(self.lent(host, Sender::Http1(open_http1(wire, slot).await?), born))
    }

    fn lent(&self, host: Rc<Host>, sender: Sender, born: Instant) -> Lent {
        Lent { sender, host, born, most: self.most, reused: false, call: None }
    }

    fn host(&self, server: &Server, bounds: &Bounds) -> Rc<Host> {
        let mut hosts = self.hosts.borrow_mut();
        if let Some(host) = hosts.get(&server.key) {
            return host.clone();
        }
        let slots = bounds.connections.map(|most| self.slots.of(&server.key, most));
        let host = Rc::new(Host::new(slots));
        hosts.insert(server.key.clone(), host.clone());
        host
    }

    /// Closes what has been idle for too long, or what another lane waits for.
    pub fn sweep(&self) {
        self.hosts.borrow_mut().retain(|_, host| {
            let wanted = host.wanted_elsewhere();
            host.idle.borrow_mut().retain(|idle| !wanted && !idle.sender.is_closed() && idle.since.elapsed() < IDLE);
            host.shared.borrow_mut().retain(|one| {
                let used = one.streams.get() > 0 || one.born.elapsed() < AGE;
                !one.sender.is_closed() && used
            });
            Rc::strong_count(host) > 1 || !host.idle.borrow().is_empty() || !host.shared.borrow().is_empty()
        });
    }
}

impl Host {
    fn new(slots: Option<Arc<Slots>>) -> Self {
        Self {
            idle: RefCell::default(),
            shared: RefCell::default(),
            http2: Cell::new(false),
            opening: Cell::new(false),
            opened: Notify::new(),
            slots,
            waiting: Cell::new(0),
            freed: Notify::new(),
        }
    }

    /// An idle connection, or leave to make another, as soon as there is either.
    async fn turn(&self, patience: Duration, fresh: bool) -> Result<Turn, NoConnection> {
        if let Some(idle) = self.idle().filter(|_| !fresh) {
            return Ok(Turn::Kept(idle));
        }
        let Some(slots) = &self.slots else { return Ok(Turn::New(None)) };
        let _waiting = Waiting::begin(self, slots);
        let kept = async {
            loop {
                self.freed.notified().await;
                if let Some(idle) = self.idle() {
                    break idle;
                }
            }
        };
        let first = async {
            tokio::select! {
                slot = slots.take() => Turn::New(slot),
                idle = kept => Turn::Kept(idle),
            }
        };
        timeout(patience, first).await.map_err(|_| NoConnection::Busy)
    }

    /// Whether a call on another lane waits for a connection.
    fn wanted_elsewhere(&self) -> bool {
        self.slots.as_ref().is_some_and(|slots| slots.waiting() > self.waiting.get())
    }

    fn idle(&self) -> Option<Idle> {
        let mut stack = self.idle.borrow_mut();
        let now = Instant::now();
        while let Some(idle) = stack.pop() {
            if idle.sender.is_ready() && now - idle.since < IDLE && now - idle.born < AGE {
                return Some(idle);
            }
        }
        None
    }

    fn speaks_http2(&self, backend: &Backend) -> bool {
        backend.protocol == Protocol::Http2 || self.http2.get()
    }

    /// A share of a connection, of one that is being made if need be; none if there is to be another.
    async fn shared(&self, patience: Duration) -> Result<Option<(Shared, Stream)>, NoConnection> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(share) = self.share() {
                return Ok(Some(share));
            }
            if !self.opening.get() {
                return Ok(None);
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            timeout(rest, self.opened.notified()).await.map_err(|_| NoConnection::Busy)?;
        }
    }

    /// The connection with the fewest streams, if it has room for another or may have no other beside it.
    fn share(&self) -> Option<(Shared, Stream)> {
        let shared = self.shared.borrow();
        let all = self.slots.as_ref().is_some_and(|slots| slots.none_left());
        let usable = shared.iter().filter(|one| {
            let room = all || (one.born.elapsed() < AGE && one.streams.get() < one.room.get().min(STREAMS));
            room && !one.sender.is_closed()
        });
        let one = usable.min_by_key(|one| one.streams.get())?.clone();
        one.streams.set(one.streams.get() + 1);
        let stream = Stream(one.streams.clone());
        Some((one, stream))
    }

    async fn open_http2(&self, wire: Wire, slot: Option<Slot>) -> io::Result<(http2::SendRequest<Outgoing>, Stream)> {
        let mut builder = http2::Builder::new(LaneExecutor);
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .initial_max_send_streams(UNTOLD);
        let (sender, connection) = builder.handshake(TokioIo::new(wire)).await.map_err(io::Error::other)?;
        let mut connection = Box::pin(connection);
        // no more than one request may come before the server has said how many (RFC 9113, 3.4)
        let deadline = Instant::now() + SETTINGS;
        while connection.current_max_send_streams() == UNTOLD && Instant::now() < deadline {
            if timeout(PAUSE, connection.as_mut()).await.is_ok() {
                return Err(io::Error::other("the server has ended the connection at once"));
            }
        }
        let room = Rc::new(Cell::new(connection.current_max_send_streams()));
        let known = room.clone();
        tokio::task::spawn_local(async move {
            let _slot = slot;
            let ended = future::poll_fn(|cx| {
                let ended = Pin::new(&mut connection).poll(cx);
                known.set(connection.current_max_send_streams());
                ended
            });
            if let Err(error) = ended.await {
                tracing::debug!(%error, "a backend connection ended");
            }
        });
        let streams = Rc::new(Cell::new(1));
        let stream = Stream(streams.clone());
        self.http2.set(true);
        self.shared.borrow_mut().push(Shared { sender: sender.clone(), born: Instant::now(), streams, room });
        Ok((sender, stream))
    }
}

/// The slot is free again when the connection has ended.
async fn open_http1(wire: Wire, slot: Option<Slot>) -> io::Result<http1::SendRequest<Outgoing>> {
    let handshake = http1::handshake::<_, Outgoing>(TokioIo::new(wire));
    let (sender, connection) = handshake.await.map_err(io::Error::other)?;
    tokio::task::spawn_local(async move {
        let _slot = slot;
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a backend connection ended");
        }
    });
    Ok(sender)
}

/// Says that a connection is being made, and tells who waits when that is over, whatever came of it.
struct Opening(Rc<Host>);

impl Opening {
    fn begin(host: &Rc<Host>) -> Self {
        host.opening.set(true);
        Self(host.clone())
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.opening.set(false);
        self.0.opened.notify_waiters();
    }
}

impl Lent {
    pub fn carrying(self, call: InFlight) -> Self {
        Self { call: Some(call), ..self }
    }

    fn reused(self) -> Self {
        Self { reused: true, ..self }
    }

    pub fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(..))
    }

    pub async fn send(
        &mut self,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Outgoing>>> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(sender, _) => sender.try_send_request(request).await,
        }
    }

    /// Back to the pool, unless it is full or the connection has ended.
    pub fn give_back(self) {
        let Sender::Http1(sender) = self.sender else { return };
        let mut stack = self.host.idle.borrow_mut();
        if !sender.is_closed() && stack.len() < self.most && !self.host.wanted_elsewhere() {
            stack.push(Idle { sender, born: self.born, since: Instant::now() });
            self.host.freed.notify_one();
        }
    }
}
