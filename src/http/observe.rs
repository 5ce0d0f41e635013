//! The outermost layer: gives each request its ids, and writes log line and metrics when the last
//! byte of the answer has left (or the client has).

use super::log_format::Line;
use super::{Inbound, Lane, Outcome, Told};
use crate::net::body::{Answer, Upload};
use crate::net::headers::X_REQUEST_ID;
use crate::net::peer::{Peer, PeerCertificate};
use crate::net::roster::Conduct;
use crate::net::tunnel::Carried;
use axum::body::Body as AxumBody;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, REFERER, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Whose bytes an answer carries.
pub enum ReplyBody {
    /// A short text of our own.
    Own(Full<Bytes>),
    /// A backend's, streamed.
    Backend(Answer),
    /// The token server's.
    Product(AxumBody),
    /// None: a tunnel begins.
    Tunnel(Rc<Carried>),
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Own(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Backend(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Product(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Tunnel(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Backend(body) => body.is_end_stream(),
            Self::Product(body) => body.is_end_stream(),
            Self::Tunnel(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Backend(body) => body.size_hint(),
            Self::Product(body) => body.size_hint(),
            Self::Tunnel(_) => SizeHint::with_exact(0),
        }
    }
}

/// An answer's body that tells the log when it is done.
pub struct Watched {
    inner: ReplyBody,
    bytes: u64,
    account: Option<Box<Account>>,
    upload: Option<Rc<Upload>>,
    /// Whether the client has yet to take the last piece.
    offered: bool,
}

/// What is known of a request until its end.
struct Account {
    lane: Rc<Lane>,
    peer: Rc<Peer>,
    conduct: Rc<Conduct>,
    /// Of the request, on its connection.
    number: u32,
    start: Instant,
    method: Method,
    path: Option<PathAndQuery>,
    version: Version,
    request_id: HeaderValue,
    traceparent: HeaderValue,
    status: u16,
    told: Told,
    /// Referer and User-Agent, where the log has a place for them.
    headers: Option<Box<[Option<HeaderValue>; 2]>>,
}

impl Account {
    /// The caller's certificate: a proxy's own is not its callers'.
    fn certificate(&self) -> Option<&PeerCertificate> {
        let told = self.peer.trusted && self.peer.certificate_header.is_some();
        let shown = if told { &self.told.seen.forwarded } else { &self.peer.certificate };
        shown.as_deref()
    }

    /// Writes the line; `cut` is why it was we who ended what was under way.
    fn log(&self, bytes: u64, elapsed: Duration, whole: bool, cut: Option<&'static str>) {
        self.lane.log.write(&Line {
            now: self.lane.gateway.clock.now(),
            request_id: &self.request_id,
            traceparent: &self.traceparent,
            peer: &self.peer.text,
            certificate: self.certificate().map(|one| &one.leaf.fingerprint),
            method: self.method.as_str(),
            path: self.path.as_ref().map_or("", PathAndQuery::path),
            version: self.version,
            status: self.status,
            bytes,
            whole,
            cut,
            elapsed,
            told: &self.told,
            referer: self.headers.as_ref().and_then(|headers| headers[0].as_ref()),
            user_agent: self.headers.as_ref().and_then(|headers| headers[1].as_ref()),
        });
    }
}

impl Watched {
    /// The client is given a piece of the answer; it has taken it when the next one is asked for.
    fn offer(&mut self, offered: bool) {
        if let Some(account) = self.account.as_ref().filter(|_| offered != self.offered) {
            account.conduct.offered(account.number, offered);
            self.offered = offered;
        }
    }

    /// Its end; `cancelled` if it was the client who did not want the rest.
    fn close(&mut self, whole: bool, cancelled: bool) {
        self.offer(false);
        let Some(account) = self.account.take() else { return };
        let elapsed = account.start.elapsed();
        account.lane.gateway.under_way.fetch_sub(1, Ordering::Relaxed);
        account.conduct.finish(cancelled);
        account.lane.metrics.count(&account.told, account.status, elapsed);
        if let ReplyBody::Tunnel(carried) = &self.inner {
            let log = move |bytes, cut: Option<_>| account.log(bytes, account.start.elapsed(), cut.is_none(), cut);
            carried.tell(Box::new(log));
        } else {
            account.log(self.bytes, elapsed, whole, None);
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        this.offer(false);
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        this.offer(matches!(&frame, Some(Ok(_))));
        match &frame {
            Some(Ok(frame)) => this.bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(_)) => this.close(false, false),
            None => this.close(true, false),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Watched {
    /// A body without bytes is never polled; one that was not read to its end was given up.
    fn drop(&mut self) {
        let whole = self.inner.is_end_stream();
        self.close(whole, !whole);
        if let Some(upload) = self.upload.take() {
            upload.linger();
        }
    }
}

/// The layer.
pub struct Observe {
    lane: Rc<Lane>,
    peer: Rc<Peer>,
    conduct: Rc<Conduct>,
}

impl Observe {
    pub fn new(lane: Rc<Lane>, peer: Rc<Peer>, conduct: Rc<Conduct>) -> Self {
        Self { lane, peer, conduct }
    }
}

impl<S> tower::Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { inner, lane: self.lane.clone(), peer: self.peer.clone(), conduct: self.conduct.clone() }
    }
}

/// The layer's service.
#[derive(Clone)]
pub struct Observed<S> {
    inner: S,
    lane: Rc<Lane>,
    peer: Rc<Peer>,
    conduct: Rc<Conduct>,
}

impl<S> tower::Service<Request<Incoming>> for Observed<S>
where
    S: tower::Service<Inbound, Response = Outcome, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response<Watched>;
    type Error = Infallible;
    type Future = Watching<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let (request_id, traceparent) = self.lane.ids.of(request.headers(), self.peer.trusted);
        let number = self.conduct.begin();
        self.lane.gateway.under_way.fetch_add(1, Ordering::Relaxed);
        let account = Account {
            lane: self.lane.clone(),
            peer: self.peer.clone(),
            conduct: self.conduct.clone(),
            number,
            start: Instant::now(),
            method: request.method().clone(),
            path: request.uri().path_and_query().cloned(),
            version: request.version(),
            request_id: request_id.clone(),
            traceparent: traceparent.clone(),
            status: 0,
            told: Told::default(),
            headers: self
                .lane
                .log
                .has_headers()
                .then(|| Box::new([REFERER, USER_AGENT].map(|name| request.headers().get(name).cloned()))),
        };
        let inner = self.inner.call(Inbound { request, request_id, traceparent });
        Watching { inner, account: Some(Box::new(account)) }
    }
}

/// Waits for the head of the answer. Dropped before it, the client has gone away.
pub struct Watching<F> {
    inner: F,
    account: Option<Box<Account>>,
}

impl<F: Future<Output = Result<Outcome, Infallible>> + Unpin> Future for Watching<F> {
    type Output = Result<Response<Watched>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(Outcome { mut response, told, upload }) = ready!(Pin::new(&mut self.inner).poll(cx));
        let mut account = self.account.take();
        if let Some(account) = &mut account {
            account.status = response.status().as_u16();
            account.told = told;
            response.headers_mut().insert(X_REQUEST_ID, account.request_id.clone());
            if account.method == Method::HEAD {
                behead(&mut response);
            }
        }
        Poll::Ready(Ok(response.map(|inner| Watched { inner, bytes: 0, account, upload, offered: false })))
    }
}

/// An answer of our own to HEAD says how long it would be and sends nothing: HTTP/2 would send it
/// otherwise (RFC 9110, 9.3.2).
fn behead(response: &mut Response<ReplyBody>) {
    if let ReplyBody::Own(body) = response.body_mut() {
        let length = HeaderValue::from(body.size_hint().lower());
        *body = Full::default();
        response.headers_mut().insert(CONTENT_LENGTH, length);
    }
}

/// The status under which a request is logged whose client left before it was answered.
const GONE: u16 = 499;

impl<F> Drop for Watching<F> {
    fn drop(&mut self) {
        if let Some(mut account) = self.account.take() {
            account.status = GONE;
            let mut gone = Watched {
                inner: ReplyBody::Own(Full::default()),
                bytes: 0,
                account: Some(account),
                upload: None,
                offered: false,
            };
            gone.close(false, true);
        }
    }
}
