//! Thin: bytes to a use case and back. One named service per connection, its layers composed in
//! `service`; one place (`reply`) turns refusals into responses. Decides nothing.

pub mod access_log;
pub mod admin;
mod destinations;
mod entries;
mod log_format;
pub mod metrics;
mod observe;
mod proxy;
mod reply;
mod token;
mod trace;

use crate::domain::rate::Allowance;
use crate::domain::reason::Reason;
use crate::domain::route::PRODUCT_PATHS;
use crate::domain::trail::{Refusal, Trail};
use crate::gateway::{Gateway, LaneTokens, Seen};
use crate::net::body::Upload;
use crate::net::forward::Forwarder;
use crate::net::peer::Peer;
use crate::net::roster::Conduct;
use crate::net::slots::AllSlots;
use access_log::AccessLog;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use metrics::Metrics;
pub use observe::ReplyBody;
use observe::{Observe, Observed};
use reply::Door;
use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use trace::Ids;

/// What one lane serves with.
pub struct Lane {
    gateway: Arc<Gateway>,
    tokens: LaneTokens,
    forwarder: Forwarder,
    router: axum::Router,
    log: AccessLog,
    metrics: Metrics,
    ids: Ids,
}

impl Lane {
    /// One of the lanes that share connection slots.
    pub fn new(gateway: Arc<Gateway>, log: AccessLog, metrics: Metrics, slots: Arc<AllSlots>) -> Rc<Self> {
        let limits = gateway.state.limits.load_full();
        Rc::new(Self {
            tokens: LaneTokens::new(limits.token_cache),
            forwarder: Forwarder::new(limits.idle_backend_connections, slots, gateway.started),
            router: token::router(gateway.clone()),
            ids: Ids::new(),
            gateway,
            log,
            metrics,
        })
    }

    /// Small work that may wait for a quiet moment: hands the log on, closes stale connections.
    pub fn tick(&self) {
        self.log.flush();
        self.forwarder.sweep();
    }
}

/// The service of one connection, outermost layer first.
pub fn service(lane: &Rc<Lane>, peer: Rc<Peer>, conduct: Rc<Conduct>) -> Observed<Dispatch> {
    let dispatch = Dispatch { lane: lane.clone(), peer: peer.clone(), conduct: conduct.clone() };
    tower::ServiceBuilder::new().layer(Observe::new(lane.clone(), peer, conduct)).service(dispatch)
}

/// A request with the ids it goes by.
pub struct Inbound {
    pub request: Request<Incoming>,
    pub request_id: HeaderValue,
    pub traceparent: HeaderValue,
}

/// An answer with what the log should know.
pub struct Outcome {
    pub response: Response<ReplyBody>,
    pub told: Told,
    /// The request's body, to be kept until the answer is sent.
    pub upload: Option<Rc<Upload>>,
}

/// What happened to a request, for log and metrics.
#[derive(Debug, Default)]
pub struct Told {
    pub seen: Seen,
    pub trail: Trail,
    pub refusal: Option<Refusal>,
    /// The client of the token server.
    pub client: Option<String>,
    /// The token server's endpoint.
    pub endpoint: Option<&'static str>,
    /// Where the caller stands with its rate.
    pub allowance: Option<Allowance>,
}

/// Splits the product's own paths from the published ones.
#[derive(Clone)]
pub struct Dispatch {
    lane: Rc<Lane>,
    peer: Rc<Peer>,
    conduct: Rc<Conduct>,
}

impl Dispatch {
    /// What is judged of every request, whomever it is for: where it ends, and whether there is room
    /// for it.
    fn judge(&self, request: &Request<Incoming>) -> Result<(), Reason> {
        self.conduct.judge(request)?;
        let gateway = &self.lane.gateway;
        let most = gateway.state.limits.load().requests;
        if gateway.under_way.load(Ordering::Relaxed) > most { Err(Reason::Overloaded) } else { Ok(()) }
    }
}

impl tower::Service<Inbound> for Dispatch {
    type Response = Outcome;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Outcome, Infallible>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        let (lane, peer) = (self.lane.clone(), self.peer.clone());
        let path = inbound.request.uri().path();
        if let Err(reason) = self.judge(&inbound.request) {
            let door = if product(path) { Door::TokenServer } else { Door::Gateway };
            return Box::pin(ready(Ok(refused(reason, door, inbound))));
        }
        if below(path, destinations::ROOT) {
            Box::pin(async move { Ok(destinations::serve(&lane, &peer, inbound).await) })
        } else if product(path) {
            Box::pin(async move { Ok(token::serve(&lane, &peer, inbound).await) })
        } else {
            let conduct = self.conduct.clone();
            Box::pin(async move { Ok(proxy::serve(&lane, &peer, &conduct, inbound).await) })
        }
    }
}

/// Answers a request that is judged no further.
fn refused(reason: Reason, door: Door, inbound: Inbound) -> Outcome {
    let refusal = Refusal::from(reason);
    let response = reply::refusal(door, &refusal, &inbound.request_id).map(ReplyBody::Own);
    let told = Told { refusal: Some(refusal), ..Told::default() };
    Outcome { response, told, upload: Upload::of(inbound.request.into_body()) }
}

/// Whether a path is the product's own. Compared as it came: a path that only normalises to one of
/// these is no published path either, since routes cannot be there.
fn product(path: &str) -> bool {
    PRODUCT_PATHS.iter().any(|own| below(path, own))
}

fn below(path: &str, own: &str) -> bool {
    path.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
