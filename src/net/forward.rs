//! Forwarding one permitted request. Takes the permit by value: it is spent here and nowhere else.

use super::body::{Answer, Broken, Outgoing, Upload};
use super::guarded::Traffic;
use super::headers::{self, Introduction};
use super::interim;
use super::peer::Peer;
use super::pool::{Lent, NoConnection, Pool};
use super::roster::Conduct;
use super::slots::AllSlots;
use super::spare::{Spare, Spares};
use crate::domain::backend::{Backend, InFlight, NoServer, Protocol, Server};
use crate::domain::decision::Permit;
use crate::domain::reason::Reason;
use crate::domain::route::Arrival;
use crate::domain::trail::Refusal;
use http::header::{HOST, TE, TRANSFER_ENCODING};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, request};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use std::cell::Cell;
use std::error::Error;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tower::retry::budget::{Budget, TpsBudget};

/// How often a call finds that an idle connection has ended before it is given up.
const STALE: u32 = 3;

/// What travels with a request besides its permit.
pub struct Journey<'a> {
    pub peer: &'a Peer,
    pub conduct: &'a Conduct,
    pub request_id: &'a HeaderValue,
    pub traceparent: &'a HeaderValue,
}

/// A lane's way to the backends.
#[derive(Debug)]
pub struct Forwarder {
    started: Instant,
    pool: Pool,
    spares: Spares,
    chance: Cell<u64>,
    /// Of the calls of the last seconds, a fifth may be tried again, and ten per second in any case.
    budget: TpsBudget,
}

/// What is known of a call while servers are tried.
#[derive(Debug, Default)]
pub(super) struct Tries {
    tried: u64,
    stale: u32,
    /// Whether it was sent a second time.
    repeated: bool,
    /// Whether a kept connection will not do any longer.
    fresh: bool,
    last: Option<Refusal>,
}

impl Forwarder {
    /// Of a process that began at a time, whose lanes share connection slots.
    pub fn new(idle_connections: usize, slots: Arc<AllSlots>, started: Instant) -> Self {
        let budget = TpsBudget::new(Duration::from_secs(10), 10, 0.2);
        Self {
            started,
            pool: Pool::new(idle_connections, slots),
            spares: Spares::default(),
            chance: Cell::new(1),
            budget,
        }
    }

    pub fn sweep(&self) {
        self.pool.sweep();
    }

    /// Sends the request and returns the head of the answer with its body still under way.
    pub async fn forward(
        &self,
        permit: Permit,
        mut parts: request::Parts,
        upload: Option<Rc<Upload>>,
        journey: &Journey<'_>,
    ) -> Result<Response<Answer>, Refusal> {
        // 1. dressed for the backend
        let backend = permit.backend().clone();
        if let Some(upload) = &upload {
            // only where a stream takes up no connection of its own
            let shared = parts.version == Version::HTTP_2 && backend.protocol != Protocol::Http1;
            let still = Arrival { gap: Duration::ZERO, time: Duration::ZERO, ..*permit.body() };
            upload.bound(if shared && headers::is_grpc(&parts.headers) { &still } else { permit.body() });
        }
        let body = Outgoing::new(upload.clone(), permit.body().most);
        let heard = backend.interim && parts.version == Version::HTTP_11;
        dress(&mut parts, &permit, journey);
        let target = permit.target().path_and_query().clone();
        let client = journey.conduct.traffic().filter(|_| heard);
        let request = Request::from_parts(parts, body);

        // 2. sent to one of its servers
        let deadline = backend.times.total.map(|total| Instant::now() + total);
        let sending = self.send(&backend, &target, request, upload.as_deref(), client);
        let sent = match deadline {
            Some(deadline) => timeout_at(deadline, sending).await.unwrap_or_else(|_| Err(late(&backend))),
            None => sending.await,
        };

        // 3. answered
        let (mut response, lent) = sent.map_err(|refusal| blame(refusal, upload.as_deref()))?;
        headers::to_client(response.headers_mut());
        Ok(response.map(|body| Answer::new(body, Some(lent), &backend.times, deadline)))
    }

    async fn send(
        &self,
        backend: &Backend,
        target: &PathAndQuery,
        mut request: Request<Outgoing>,
        upload: Option<&Upload>,
        client: Option<&Arc<Traffic>>,
    ) -> Result<(Response<Incoming>, Lent), Refusal> {
        let mut tries = Tries::default();
        let repeatable = upload.is_none() && request.method().is_idempotent();
        self.budget.deposit();
        loop {
            let (at, call) = self.choose(backend, &mut tries)?;
            let server = &backend.servers[at];
            // connecting is rare and large: every call would carry its size
            let kept = if tries.fresh { None } else { self.pool.ready(backend, server) };
            let lent = match kept {
                Some(lent) => Ok(lent),
                None => Box::pin(self.pool.lend(backend, server, tries.fresh)).await,
            };
            let mut lent = match lent {
                Ok(lent) => lent.carrying(call),
                Err(error) => {
                    self.no_connection(backend, at, &error, &mut tries)?;
                    continue;
                }
            };
            address(&mut request, server, target, lent.is_http2())
                .map_err(|detail| refused(Reason::Internal, backend, &detail))?;
            if let Some(client) = client {
                interim::pass_on(&mut request, client).await;
            }
            // a new connection breaks with its server: then it is another's turn
            let repeatable = repeatable && (lent.reused || backend.servers.len() > 1);
            let spare = repeatable.then(|| self.spares.keep(&request));
            let Some(answer) = head(lent.send(request), backend.times.answer, upload).await else {
                self.failed(backend, server);
                return Err(late(backend));
            };
            let error = match answer {
                Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    self.failed(backend, server);
                    return Err(refused(
                        Reason::BackendFailed,
                        backend,
                        "it switches to a protocol that nobody asked for",
                    ));
                }
                Ok(response) => {
                    if backend.holds_against(response.status().as_u16()) {
                        self.failed(backend, server);
                    } else {
                        server.standing.succeeded();
                    }
                    if let Some(spare) = spare {
                        self.spares.reuse(spare);
                    }
                    return Ok((response, lent));
                }
                Err(error) => error,
            };
            if upload.and_then(Upload::broken).is_some() {
                return Err(refused(Reason::BackendFailed, backend, &error.error().to_string()));
            }
            request = self.again(backend, at, (error, lent.reused, spare), &mut tries)?;
        }
    }

    /// The request once more, where nothing can have happened twice. What came of it: the error, whether
    /// its connection had been used before, and a copy if it may be repeated.
    fn again(
        &self,
        backend: &Backend,
        at: usize,
        (mut error, reused, spare): (TrySendError<Request<Outgoing>>, bool, Option<Spare>),
        tries: &mut Tries,
    ) -> Result<Request<Outgoing>, Refusal> {
        let unsent = error.take_message();
        match (unsent, spare) {
            // nothing was sent: the idle connection had ended unnoticed
            (Some(unsent), _) if reused && tries.stale < STALE => {
                tries.stale += 1;
                tries.fresh = tries.stale == STALE;
                Ok(unsent)
            }
            (Some(unsent), _) if !reused && tries.another(at, backend) && self.budget.withdraw() => {
                self.failed(backend, &backend.servers[at]);
                Ok(unsent)
            }
            // the server says that it did nothing (RFC 9113, 8.7)
            (None, Some(spare)) if tries.stale < STALE && refused_stream(error.error()) => {
                tries.stale += 1;
                Ok(spare.request())
            }
            // whatever was done is done as well twice (RFC 9110, 9.2.2)
            (None, Some(spare)) if !tries.repeated && broke(error.error()) && self.budget.withdraw() => {
                (tries.repeated, tries.fresh) = (true, true);
                if backend.servers.len() > 1 {
                    self.failed(backend, &backend.servers[at]);
                    tries.another(at, backend);
                    tries.last = Some(refused(Reason::BackendFailed, backend, &error.error().to_string()));
                }
                Ok(spare.request())
            }
            _ => {
                self.failed(backend, &backend.servers[at]);
                Err(refused(Reason::BackendFailed, backend, &error.error().to_string()))
            }
        }
    }

    /// The server that is to take the call, which is counted there from now on.
    pub(super) fn choose(&self, backend: &Backend, tries: &mut Tries) -> Result<(usize, InFlight), Refusal> {
        loop {
            let chance =
                self.chance.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.chance.set(chance);
            let chosen = backend.choose(chance >> 16, tries.tried, self.now()).map_err(|why| {
                let reason = match why {
                    NoServer::Busy => Reason::BackendBusy,
                    NoServer::Out => Reason::BackendOut,
                };
                tries.last.take().unwrap_or_else(|| refused(reason, backend, "no server takes the call"))
            })?;
            match backend.servers[chosen].standing.enter(backend.bounds.requests) {
                Some(call) => return Ok((chosen, call)),
                // another lane was faster
                None => self.no_connection(backend, chosen, &NoConnection::Busy, tries)?,
            }
        }
    }

    /// Notes that a call to a server came to nothing.
    pub(super) fn failed(&self, backend: &Backend, server: &Server) {
        if server.standing.failed(&backend.ejection, self.now()) {
            tracing::warn!(backend = backend.name, server = %server.authority, "a server fails in a row and is left out for a while");
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What is to be done where a server gives no connection: another one is tried, if there is one.
    pub(super) fn no_connection(
        &self,
        backend: &Backend,
        at: usize,
        error: &NoConnection,
        tries: &mut Tries,
    ) -> Result<(), Refusal> {
        let server = &backend.servers[at];
        let detail = format!("{}: {error}", server.authority);
        let refusal = match error {
            NoConnection::Busy => refused(Reason::BackendBusy, backend, &detail),
            NoConnection::Failed(_) => {
                self.failed(backend, server);
                refused(Reason::BackendUnreachable, backend, &detail)
            }
        };
        if tries.another(at, backend) && self.budget.withdraw() {
            tries.last = Some(refusal);
            return Ok(());
        }
        Err(refusal)
    }
}

impl Tries {
    /// Passes a server over; false if there is no other.
    fn another(&mut self, at: usize, backend: &Backend) -> bool {
        self.tried |= 1 << at;
        (self.tried.count_ones() as usize) < backend.servers.len()
    }
}

/// Rewrites a request's head for any server of the backend.
pub(super) fn dress(parts: &mut request::Parts, permit: &Permit, journey: &Journey<'_>) {
    headers::to_backend(
        parts,
        &Introduction {
            peer: journey.peer,
            request_id: journey.request_id,
            traceparent: journey.traceparent,
            identity: permit.identity(),
            keep_token: permit.keep_token(),
            csrf: permit.csrf(),
            credential: permit.credential(),
        },
    );
}

/// Points the request at a server: its base path before the target, its name as Host or `:authority`.
pub(super) fn address<B: Body>(
    request: &mut Request<B>,
    server: &Server,
    target: &PathAndQuery,
    http2: bool,
) -> Result<(), String> {
    let path = if server.base_path.is_empty() {
        target.clone()
    } else {
        PathAndQuery::try_from(format!("{}{target}", server.base_path)).map_err(|error| error.to_string())?
    };
    // a length that is not known must be framed, whatever the method
    let framed = !request.body().is_end_stream() && request.body().size_hint().exact().is_none();
    if http2 {
        let scheme = if server.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        let uri = Uri::builder().scheme(scheme).authority(&*server.authority).path_and_query(path);
        *request.uri_mut() = uri.build().map_err(|error| error.to_string())?;
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(HOST);
        request.headers_mut().remove(TRANSFER_ENCODING);
        return Ok(());
    }
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    headers.insert(HOST, server.host.clone());
    headers.remove(TE);
    if framed {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    Ok(())
}

/// The head of the answer, unless it takes longer than `time` from the last piece of the upload.
async fn head<T>(sending: impl Future<Output = T>, time: Duration, upload: Option<&Upload>) -> Option<T> {
    let mut sending = pin!(sending);
    let mut start = Instant::now();
    loop {
        if let Ok(answer) = timeout_at(start + time, sending.as_mut()).await {
            return Some(answer);
        }
        start = match upload.map(Upload::moved) {
            // it is the client who is waited for
            Some(None) => Instant::now(),
            Some(Some(moved)) if moved + time > Instant::now() => moved,
            _ => return None,
        };
    }
}

/// Whether the connection broke before there was an answer.
fn broke(error: &hyper::Error) -> bool {
    match http2(error) {
        Some(error) => error.is_io() || error.is_go_away(),
        None => !error.is_parse() && !error.is_user(),
    }
}

fn refused_stream(error: &hyper::Error) -> bool {
    http2(error).is_some_and(|error| error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

fn http2(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|source| source.downcast_ref())
}

pub(super) fn refused(reason: Reason, backend: &Backend, detail: &str) -> Refusal {
    Refusal::because(reason, format!("backend {}: {detail}", backend.name))
}

pub(super) fn late(backend: &Backend) -> Refusal {
    refused(Reason::BackendTimeout, backend, "no answer in time")
}

/// A body that broke off is not the backend's fault.
fn blame(refusal: Refusal, upload: Option<&Upload>) -> Refusal {
    match upload.and_then(Upload::broken) {
        Some(Broken::TooLarge) => Reason::BodyTooLarge.into(),
        Some(Broken::TooSlow) => Reason::BodyTooSlow.into(),
        Some(Broken::Client) => Reason::ClientAborted.into(),
        None => refusal,
    }
}
