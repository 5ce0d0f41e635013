//! Tunnels: a WebSocket is agreed on in HTTP and then is bytes, which nobody here reads (RFC 6455,
//! RFC 8441).

use super::body::Answer;
use super::connect::{self, Purpose};
use super::forward::{Forwarder, Journey, Tries, address, dress, late, refused};
use super::headers;
use super::pool::NoConnection;
use super::roster::Conduct;
use crate::crypto::digest::sha1;
use crate::crypto::random;
use crate::domain::backend::{Backend, InFlight, Server};
use crate::domain::decision::Permit;
use crate::domain::reason::Reason;
use crate::domain::trail::Refusal;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, request};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::ext::Protocol;
use hyper::upgrade::{self, OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::fmt;
use std::io::{Error, Result as IoResult};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

const WEBSOCKET: &str = "websocket";
/// How often a tunnel is judged again; what is withdrawn takes hold within a second.
const JUDGED: Duration = Duration::from_millis(500);
const BUFFER: usize = 8 * 1024;

/// How a client asks for a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// HTTP/1.1, RFC 6455.
    Upgrade,
    /// HTTP/2, RFC 8441.
    Connect,
}

impl Wish {
    /// Whether a request asks for a WebSocket.
    pub fn of(parts: &request::Parts) -> Option<Self> {
        if parts.method == Method::CONNECT {
            let protocol = parts.extensions.get::<Protocol>()?;
            return (protocol.as_str() == WEBSOCKET).then_some(Self::Connect);
        }
        let asks = parts.method == Method::GET
            && parts.version == Version::HTTP_11
            && lists(&parts.headers, &UPGRADE, WEBSOCKET)
            && lists(&parts.headers, &CONNECTION, "upgrade")
            && parts.headers.contains_key(SEC_WEBSOCKET_KEY);
        asks.then_some(Self::Upgrade)
    }
}

/// Whether a comma-separated field names a word.
fn lists(headers: &HeaderMap, name: &http::HeaderName, word: &str) -> bool {
    let words = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(','));
    words.map(str::trim).any(|one| one.eq_ignore_ascii_case(word))
}

/// Whether a tunnel may go on, asked again and again.
pub type Judge = Box<dyn FnMut() -> bool>;

/// What comes of the wish for a tunnel.
pub enum Opened {
    /// The head with which it begins, and what it is to carry.
    Tunnel(Response<()>, Rc<Carried>),
    /// The backend has something else to say.
    Answer(Response<Answer>),
}

/// What a tunnel has carried, and who is to know at its end.
pub struct Carried {
    to_client: Cell<u64>,
    moved: Cell<Instant>,
    cut: Cell<Option<&'static str>>,
    heir: Cell<Option<Heir>>,
}

/// Hears how many bytes the client was sent, and why it was we who ended the tunnel.
type Heir = Box<dyn FnOnce(u64, Option<&'static str>)>;

impl Carried {
    fn nothing() -> Rc<Self> {
        let moved = Cell::new(Instant::now());
        Rc::new(Self { to_client: Cell::default(), moved, cut: Cell::default(), heir: Cell::default() })
    }

    pub fn tell(&self, heir: Heir) {
        self.heir.set(Some(heir));
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        if let Some(heir) = self.heir.take() {
            heir(self.to_client.get(), self.cut.get());
        }
    }
}

impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Carried({} bytes)", self.to_client.get())
    }
}

impl Forwarder {
    /// Asks the backend for a tunnel; if it agrees, joins it to the client's.
    pub async fn tunnel(
        &self,
        permit: Permit,
        mut parts: request::Parts,
        wish: Wish,
        journey: &Journey<'_>,
        judge: Judge,
    ) -> Result<Opened, Refusal> {
        let backend = permit.backend().clone();
        let Some(client) = parts.extensions.remove::<OnUpgrade>() else {
            return Err(Refusal::because(Reason::Internal, "a connection that cannot become a tunnel"));
        };
        let own_key = prepare(&mut parts, wish, &permit, journey);
        let target = permit.target().path_and_query().clone();
        let mut request = Request::from_parts(parts, Empty::<Bytes>::new());
        let (mut sender, call, server) = self.reach(&backend).await?;
        address(&mut request, server, &target, false).map_err(|detail| refused(Reason::Internal, &backend, &detail))?;
        request.headers_mut().remove(TRANSFER_ENCODING);
        let mut response = match timeout(backend.times.answer, sender.send_request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                self.failed(&backend, server);
                return Err(refused(Reason::BackendFailed, &backend, &error.to_string()));
            }
            Err(_) => {
                self.failed(&backend, server);
                return Err(late(&backend));
            }
        };
        server.standing.succeeded();
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            headers::to_client(response.headers_mut());
            return Ok(Opened::Answer(response.map(|body| Answer::new(body, None, &backend.times, None))));
        }
        agreed(&response, own_key.as_deref()).map_err(|detail| refused(Reason::TunnelRefused, &backend, detail))?;
        if let Some(traffic) = journey.conduct.traffic() {
            traffic.end();
        }
        let far = upgrade::on(&mut response);
        let conduct = journey.conduct.tunnel();
        let carried = Carried::nothing();
        let tunnel = Tunnel { client, far, idle: backend.times.idle, judge, conduct, carried: carried.clone(), call };
        tokio::task::spawn_local(tunnel.run());
        Ok(Opened::Tunnel(begun(response, wish), carried))
    }

    /// A connection for a tunnel alone.
    async fn reach<'b>(
        &self,
        backend: &'b Backend,
    ) -> Result<(http1::SendRequest<Empty<Bytes>>, InFlight, &'b Server), Refusal> {
        let mut tries = Tries::default();
        loop {
            let (at, call) = self.choose(backend, &mut tries)?;
            let server = &backend.servers[at];
            let wire = match connect::connect(server, Purpose::Tunnel, backend.times.connect).await {
                Ok(wire) => wire,
                Err(error) => {
                    self.no_connection(backend, at, &NoConnection::Failed(error), &mut tries)?;
                    continue;
                }
            };
            let handshake = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(wire)).await;
            let (sender, connection) =
                handshake.map_err(|error| refused(Reason::BackendFailed, backend, &error.to_string()))?;
            tokio::task::spawn_local(async move {
                if let Err(error) = connection.with_upgrades().await {
                    tracing::debug!(%error, "a backend connection ended");
                }
            });
            return Ok((sender, call, server));
        }
    }
}

/// Rewrites the head; the key, if it is we who ask.
fn prepare(parts: &mut request::Parts, wish: Wish, permit: &Permit, journey: &Journey<'_>) -> Option<String> {
    dress(parts, permit, journey);
    parts.method = Method::GET;
    parts.extensions.clear();
    parts.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    parts.headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
    if wish == Wish::Upgrade {
        return None;
    }
    let key = STANDARD.encode(random::bytes::<16>());
    parts.headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    parts.headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::try_from(&key).ok()?);
    Some(key)
}

/// Whether an answer begins a WebSocket (RFC 6455, 4.1); `key` is ours, if it was we who asked.
fn agreed(response: &Response<Incoming>, key: Option<&str>) -> Result<(), &'static str> {
    if !lists(response.headers(), &UPGRADE, WEBSOCKET) {
        return Err("it switches to another protocol");
    }
    let Some(key) = key else { return Ok(()) };
    let want = STANDARD.encode(sha1(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes()));
    let given = response.headers().get(SEC_WEBSOCKET_ACCEPT);
    if given.is_some_and(|given| given == &*want) { Ok(()) } else { Err("its Sec-WebSocket-Accept is wrong") }
}

/// The head with which the client's tunnel begins.
fn begun(response: Response<Incoming>, wish: Wish) -> Response<()> {
    let mut response = response.map(|_| ());
    let headers = response.headers_mut();
    headers::to_client(headers);
    match wish {
        Wish::Upgrade => {
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
        }
        Wish::Connect => {
            headers.remove(SEC_WEBSOCKET_ACCEPT);
            *response.status_mut() = StatusCode::OK;
            *response.version_mut() = Version::HTTP_2;
        }
    }
    response
}

struct Tunnel {
    client: OnUpgrade,
    far: OnUpgrade,
    idle: Duration,
    judge: Judge,
    conduct: Rc<Conduct>,
    carried: Rc<Carried>,
    #[expect(dead_code, reason = "counts as long as it lives")]
    call: InFlight,
}

impl Tunnel {
    async fn run(mut self) {
        let carried = &self.carried;
        carried.cut.set(Some("the gateway stops"));
        let joined = async {
            let (client, far) = tokio::try_join!(&mut self.client, &mut self.far).map_err(Error::other)?;
            let (mut client, mut far) = (Moving::new(client, carried, true), Moving::new(far, carried, false));
            copy_bidirectional_with_sizes(&mut client, &mut far, BUFFER, BUFFER).await
        };
        let mut ticks = interval(JUDGED);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watched = async {
            loop {
                ticks.tick().await;
                if !(self.judge)() {
                    break "its caller may not use it any longer";
                }
                if carried.moved.get().elapsed() > self.idle {
                    break "nothing moves in it";
                }
            }
        };
        tokio::select! {
            ended = joined => {
                tracing::debug!(outcome = ?ended, "a tunnel ended");
                carried.cut.set(ended.is_err().then_some("one of its ends broke off"));
            }
            why = watched => carried.cut.set(Some(why)),
            () = self.conduct.cut() => {}
        }
        self.conduct.leave();
    }
}

/// One end of a tunnel, which notes when bytes move.
struct Moving<'a> {
    io: TokioIo<Upgraded>,
    carried: &'a Carried,
    /// Whether it is the client's.
    near: bool,
}

impl<'a> Moving<'a> {
    fn new(io: Upgraded, carried: &'a Carried, near: bool) -> Self {
        Self { io: TokioIo::new(io), carried, near }
    }
}

impl AsyncRead for Moving<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<IoResult<()>> {
        let outcome = Pin::new(&mut self.io).poll_read(cx, buf);
        if outcome.is_ready() {
            self.carried.moved.set(Instant::now());
        }
        outcome
    }
}

impl AsyncWrite for Moving<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<IoResult<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(cx, bytes);
        if let (Poll::Ready(Ok(written)), true) = (&outcome, self.near) {
            self.carried.to_client.update(|before| before + *written as u64);
        }
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
