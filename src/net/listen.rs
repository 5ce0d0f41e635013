//! Accepting connections on a lane: a share of the listening socket, the handshake under its own
//! deadline, HTTP/1.1 and HTTP/2 with every bound set, and the drain.

use super::addresses::{Addresses, Counted};
use super::certificate_header::CertificateHeader;
use super::connect::LaneExecutor;
use super::guarded::{Guarded, Traffic};
use super::peer::{Peer, PeerCertificate, listed};
use super::proxy_protocol;
use super::roster::{Conduct, Ending, Patience, Roster};
use crate::config::Limits;
use arc_swap::{ArcSwap, ArcSwapOption};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::{self, UpgradeableConnection};
use hyper_util::service::TowerToHyperService;
use ipnet::IpNet;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// Bytes that wait in the system to be sent.
const UNSENT: u32 = 128 * 1024;

/// The load balancers in front of a listener and how they tell of their callers.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    pub networks: Vec<IpNet>,
    pub certificate_header: Option<Arc<CertificateHeader>>,
    /// Their connections begin with a PROXY header, version 1 or 2.
    pub proxy_protocol: bool,
}

/// What all lanes share of one listener; parts that a reload replaces can be swapped.
#[derive(Debug)]
pub struct Listening {
    /// As configured.
    pub address: SocketAddr,
    /// Whether the socket goes on, in the next process or with other settings, where who is in its
    /// queue is taken.
    pub outlives: AtomicBool,
    pub tls: Option<ArcSwap<ServerConfig>>,
    pub proxies: ArcSwap<Proxies>,
    pub limits: ArcSwap<Limits>,
    /// Connections of all listeners together.
    pub connections: Arc<Semaphore>,
    /// Connections of this one alone, where they are bounded.
    pub own_connections: ArcSwapOption<Semaphore>,
    pub addresses: Arc<Addresses>,
}

/// Binds an address. One that is in use is an error, never a shared port.
pub fn bind(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // lets a restart bind while old connections linger in TIME_WAIT; it does not share the port
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(prepared(socket.into()))
}

/// Sets what the connections of a listening socket inherit from it.
pub fn prepared(socket: std::net::TcpListener) -> std::net::TcpListener {
    let socket = Socket::from(socket);
    // so that a slow reader is seen to read: the system tells of room in a large buffer only when
    // much of it has become free
    let prepared = socket.set_nonblocking(true).and_then(|()| socket.set_tcp_notsent_lowat(UNSENT));
    if let Err(error) = prepared {
        tracing::warn!(%error, "a listening socket could not be set up as it should be");
    }
    socket.into()
}

/// Accepts until `stop`, then lets what is under way finish within the drain time. `service` makes
/// the service of one connection, once its peer is known.
pub async fn serve<F, S, B>(listener: TcpListener, shared: Arc<Listening>, service: F, stop: CancellationToken)
where
    F: Fn(Rc<Peer>, Rc<Conduct>) -> S + Clone + 'static,
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + 'static,
    S::Future: 'static,
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Error>,
{
    let roster = Rc::new(Roster::default());
    let mut limits = shared.limits.load_full();
    let mut http = Rc::new(http_builder(&limits));
    let local_port = listener.local_addr().map_or(0, |address| address.port());
    let sweeping = tokio::task::spawn_local(sweep(roster.clone(), shared.clone()));
    // how many are still taken in after the stop, once it has come
    let mut rest: Option<usize> = None;
    while rest != Some(0) {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled(), if rest.is_none() => {
                rest = Some(if shared.outlives.load(Ordering::Relaxed) { 0 } else { BACKLOG as usize });
                continue;
            }
            accepted = accept(&listener, &shared) => accepted,
            // who was in the queue when the stop came is served as well
            () = std::future::ready(()), if rest.is_some() => break,
        };
        rest = rest.map(|rest| rest - 1);
        let Some((stream, address, room)) = accepted else { continue };
        if !Arc::ptr_eq(&limits, &shared.limits.load()) {
            limits = shared.limits.load_full();
            http = Rc::new(http_builder(&limits));
        }
        let (http, service, shared) = (http.clone(), service.clone(), shared.clone());
        let patience = limits.handshake_time;
        let traffic = Arc::new(Traffic::default());
        // known from now on, so that the drain waits for handshakes as well
        let room = Rc::new(room);
        let conduct = roster.enter(Some(traffic.clone()), room.clone());
        tokio::task::spawn_local(async move {
            // large and soon over: a connection would carry its size as long as it lives
            let greeting = Box::pin(greet(stream, address, local_port, &shared, &room));
            let greeting = tokio::time::timeout(patience, greeting).await;
            match greeting {
                Ok(Ok((Stream::Plain(stream), peer))) => {
                    run(&http, Guarded::new(stream, traffic), peer, &conduct, service).await;
                }
                Ok(Ok((Stream::Tls(stream), peer))) => {
                    run(&http, Guarded::new(stream, traffic), peer, &conduct, service).await;
                }
                Ok(Err(error)) => {
                    tracing::info!(target: "flowgate::handshake", peer = %address, %error, "handshake failed");
                }
                Err(_) => tracing::info!(target: "flowgate::handshake", peer = %address, "handshake took too long"),
            }
            conduct.leave();
        });
    }
    drop(listener);
    if !roster.drain(limits.drain_time).await {
        tracing::warn!("connections were still open when the drain time ended");
    }
    sweeping.abort();
}

/// Looks at all connections once a second.
async fn sweep(roster: Rc<Roster>, shared: Arc<Listening>) {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let limits = shared.limits.load();
        roster.sweep(&Patience {
            idle: limits.idle_time.as_secs(),
            head: limits.header_time.as_secs(),
            write: limits.write_gap.as_secs(),
            resets: limits.http2_resets,
        });
    }
}

/// What a connection takes up of what there is, until it is dropped.
struct Room {
    _all: OwnedSemaphorePermit,
    _own: Option<OwnedSemaphorePermit>,
    /// Of the caller, who may be known only by a PROXY header.
    address: RefCell<Option<Counted>>,
}

/// The next connection, once there is room for one. Out of descriptors, it waits a little: the
/// listening socket would be ready again at once and spin.
async fn accept(listener: &TcpListener, shared: &Listening) -> Option<(TcpStream, SocketAddr, Room)> {
    // a loop that waits for a connection takes up no room
    drop(shared.connections.acquire().await.ok()?);
    if let Some(own) = shared.own_connections.load_full() {
        drop(own.acquire().await.ok()?);
    }
    let (stream, address) = match listener.accept().await {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(Duration::from_millis(50)).await;
            return None;
        }
    };
    let all = shared.connections.clone().acquire_owned().await.ok()?;
    let own = match shared.own_connections.load_full() {
        Some(own) => Some(own.acquire_owned().await.ok()?),
        None => None,
    };
    let trusted = listed(address.ip(), &shared.proxies.load().networks);
    let counted = if trusted {
        None
    } else {
        let counted = shared.addresses.enter(address.ip(), shared.limits.load().connections_per_address);
        if counted.is_none() {
            tracing::debug!(peer = %address, "the address has too many connections; this one is closed");
            return None;
        }
        counted
    };
    let _ = stream.set_nodelay(true);
    Some((stream, address, Room { _all: all, _own: own, address: RefCell::new(counted) }))
}

/// A connection that is ready for HTTP.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// All that comes before HTTP: who is there, by PROXY header and handshake.
async fn greet(
    mut stream: TcpStream,
    address: SocketAddr,
    local_port: u16,
    shared: &Listening,
    room: &Room,
) -> std::io::Result<(Stream, Peer)> {
    let proxies = shared.proxies.load_full();
    let trusted = listed(address.ip(), &proxies.networks);
    let told = if trusted && proxies.proxy_protocol { proxy_protocol::caller(&mut stream).await? } else { None };
    // behind a load balancer that only passes bytes on, it is the caller who writes the headers
    let trusted = match told {
        Some(caller) if proxies.certificate_header.is_none() => listed(caller.ip(), &proxies.networks),
        _ => trusted,
    };
    if let Some(caller) = told.filter(|caller| !listed(caller.ip(), &proxies.networks)) {
        let counted = shared.addresses.enter(caller.ip(), shared.limits.load().connections_per_address);
        let full = || std::io::Error::other(format!("{} has too many connections", caller.ip()));
        *room.address.borrow_mut() = Some(counted.ok_or_else(full)?);
    }
    let address = told.unwrap_or(address);
    let certificate_header = proxies.certificate_header.clone();
    let peer = Peer::new(address, local_port, shared.tls.is_some(), trusted, shared.address);
    let peer = Peer { certificate_header, ..peer };
    let Some(config) = shared.tls.as_ref().map(ArcSwap::load_full) else { return Ok((Stream::Plain(stream), peer)) };
    let stream = handshake(stream, config).await?;
    let certificate = certificate(&stream);
    Ok((Stream::Tls(Box::new(stream)), Peer { certificate, ..peer }))
}

async fn handshake(stream: TcpStream, config: Arc<ServerConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
    start.into_stream(config).await
}

/// The certificate that the peer proved to hold. The verifier has read it before, so it reads.
fn certificate(stream: &TlsStream<TcpStream>) -> Option<Arc<PeerCertificate>> {
    let (_, session) = stream.get_ref();
    let chain: Vec<_> = session.peer_certificates()?.iter().map(|one| one.clone().into_owned()).collect();
    PeerCertificate::new(chain).ok().map(Arc::new)
}

/// Every bound that the protocol libraries know is set here. The time for a head is not: a timer per
/// request would cost more than the sweep that finds heads that do not end.
fn http_builder(limits: &Limits) -> auto::Builder<LaneExecutor> {
    let mut builder = auto::Builder::new(LaneExecutor);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(limits.header_bytes);
    // hyper parses its own default of 100 on the stack, any set number on the heap
    if limits.header_count != 100 {
        builder.http1().max_headers(limits.header_count);
    }
    builder
        .http2()
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(limits.http2_streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(256)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

async fn run<I, F, S, B>(
    http: &auto::Builder<LaneExecutor>,
    io: Guarded<I>,
    peer: Peer,
    conduct: &Rc<Conduct>,
    service: F,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Rc<Peer>, Rc<Conduct>) -> S,
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + 'static,
    S::Future: 'static,
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Error>,
{
    let service = service(Rc::new(peer), conduct.clone());
    let connection = http.serve_connection_with_upgrades(TokioIo::new(io), TowerToHyperService::new(service));
    if let Err(error) = until_it_ends(pin!(connection), conduct).await {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Drives a connection until it ends by itself or is asked to.
async fn until_it_ends<S, B, I>(
    mut connection: Pin<&mut UpgradeableConnection<'_, TokioIo<Guarded<I>>, S, LaneExecutor>>,
    conduct: &Conduct,
) -> Result<(), Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>>,
    S::Future: 'static,
    S::Error: Into<Error>,
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Error>,
{
    let mut asked = false;
    std::future::poll_fn(|cx| {
        loop {
            if conduct.ending(cx) == Some(Ending::Now) {
                return Poll::Ready(Ok(()));
            }
            let before = connection.as_mut().poll(cx)?;
            // who has just connected may have sent a request that nobody has read yet
            if before.is_ready() || asked || !conduct.may_part() {
                return before.map(Ok);
            }
            asked = true;
            connection.as_mut().graceful_shutdown();
        }
    })
    .await
}
