//! The gateway: judge, then forward with the permit, stream back.

use super::{Inbound, Lane, Outcome, ReplyBody, Told, reply};
use crate::domain::decision::{Decision, Permit};
use crate::domain::reason::Reason;
use crate::domain::route::Tunnels;
use crate::domain::trail::{Refusal, Step};
use crate::gateway::Call;
use crate::net::body::{Answer, Upload};
use crate::net::forward::Journey;
use crate::net::headers::is_grpc;
use crate::net::peer::Peer;
use crate::net::roster::Conduct;
use crate::net::tunnel::{Carried, Judge, Opened, Wish};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use reply::Door;
use std::rc::Rc;

pub async fn serve(lane: &Rc<Lane>, peer: &Rc<Peer>, conduct: &Conduct, inbound: Inbound) -> Outcome {
    let mut told = Told::default();
    let Inbound { request, request_id, traceparent } = inbound;
    let (parts, body) = request.into_parts();
    let upload = Upload::of(body);
    let door = if is_grpc(&parts.headers) { Door::Grpc } else { Door::Gateway };
    let journey = Journey { peer, conduct, request_id: &request_id, traceparent: &traceparent };
    let hop = Hop { lane, peer, journey: &journey };
    let mut response = match hop.answer(parts, upload.clone(), &mut told).await {
        Ok(Answered::Backend(response)) => response.map(ReplyBody::Backend),
        Ok(Answered::Tunnel(response)) => response.map(ReplyBody::Tunnel),
        Ok(Answered::Csrf(token)) => reply::csrf(token).map(ReplyBody::Own),
        Err(refusal) => {
            let response = reply::refusal(door, &refusal, &request_id).map(ReplyBody::Own);
            told.refusal = Some(refusal);
            response
        }
    };
    reply::allow(response.headers_mut(), told.allowance);
    Outcome { response, told, upload }
}

/// Whose answer it is.
enum Answered {
    Backend(Response<Answer>),
    Tunnel(Response<Rc<Carried>>),
    /// Our own: a token against forged calls.
    Csrf(HeaderValue),
}

/// One call on its way from a connection of a lane. What happens to few calls is boxed, since all of
/// them would carry its size.
struct Hop<'a> {
    lane: &'a Rc<Lane>,
    peer: &'a Rc<Peer>,
    journey: &'a Journey<'a>,
}

impl Hop<'_> {
    async fn answer(&self, parts: Parts, upload: Option<Rc<Upload>>, told: &mut Told) -> Result<Answered, Refusal> {
        // 1. judged, once more if a key was fetched meanwhile
        let mut decision = self.admit(&parts, upload.as_deref(), told);
        let unknown = matches!(&decision, Err(refusal) if refusal.reason == Reason::TokenKeyUnknown);
        if let (true, Some(route)) = (unknown, told.seen.route.clone())
            && Box::pin(self.lane.gateway.key_published(&route, &parts.headers)).await
        {
            *told = Told::default();
            decision = self.admit(&parts, upload.as_deref(), told);
        }
        let permit = match decision? {
            Decision::Permit(permit) => permit,
            Decision::Csrf(token) => return Ok(Answered::Csrf(token)),
        };

        // 2. and not too often
        let Some(route) = told.seen.route.clone() else { return Err(Reason::Internal.into()) };
        let Told { seen, allowance, trail, .. } = &mut *told;
        self.lane.gateway.spend(&route, seen.caller.as_deref(), self.peer, allowance, trail)?;

        // 3. a tunnel, where one is asked for
        let may = route.tunnels != Tunnels::Refuse && upload.is_none();
        if let Some(wish) = Wish::of(&parts).filter(|_| may) {
            return Box::pin(self.tunnel(permit, parts, wish, route.tunnels, told)).await;
        }
        if parts.method == Method::CONNECT {
            return Err(Reason::MethodUnsupported.into());
        }

        // 4. forwarded; with a credential of ours a call can be made again if it asks for nothing
        // but an answer
        let repeatable = parts.method.is_safe() && upload.is_none();
        let again = (permit.credential().is_some() && repeatable).then(|| parts.clone());
        let response = self.forward(permit, parts, upload, told).await?;
        let Some(rejected) = told.seen.credential else { return Ok(Answered::Backend(response)) };
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(Answered::Backend(response));
        }

        // 5. the target does not like our credential
        match again {
            Some(parts) if Box::pin(self.lane.gateway.another_token(&route, rejected)).await => {
                // judged again, as a call of its own: rights may have changed meanwhile
                let mut second = Told { allowance: told.allowance, ..Told::default() };
                let Ok(Decision::Permit(permit)) = self.admit(&parts, None, &mut second) else {
                    return Ok(Answered::Backend(response));
                };
                drop(response);
                *told = second;
                Box::pin(self.forward(permit, parts, None, told)).await.map(Answered::Backend)
            }
            Some(_) => Ok(Answered::Backend(response)),
            None => {
                self.lane.gateway.want_another_token(&route, rejected);
                Ok(Answered::Backend(response))
            }
        }
    }

    fn admit(&self, parts: &Parts, upload: Option<&Upload>, told: &mut Told) -> Result<Decision, Refusal> {
        judge(self.lane, self.peer, parts, upload.map_or(Some(0), Upload::length), told)
    }

    async fn forward(
        &self,
        permit: Permit,
        parts: Parts,
        upload: Option<Rc<Upload>>,
        told: &mut Told,
    ) -> Result<Response<Answer>, Refusal> {
        let outcome = self.lane.forwarder.forward(permit, parts, upload, self.journey).await;
        let step = if matches!(&outcome, Err(refusal) if refusal.reason == Reason::BodyTooLarge) {
            Step::Size
        } else {
            Step::Forward
        };
        told.trail.of(step, outcome)
    }

    async fn tunnel(
        &self,
        permit: Permit,
        parts: Parts,
        wish: Wish,
        tunnels: Tunnels,
        told: &mut Told,
    ) -> Result<Answered, Refusal> {
        let judge = match tunnels {
            Tunnels::FollowToken => self.again(&parts),
            Tunnels::Stay | Tunnels::Refuse => Box::new(|| true),
        };
        let outcome = self.lane.forwarder.tunnel(permit, parts, wish, self.journey, judge).await;
        Ok(match told.trail.of(Step::Forward, outcome)? {
            Opened::Tunnel(head, carried) => Answered::Tunnel(head.map(|()| carried)),
            Opened::Answer(response) => Answered::Backend(response),
        })
    }

    /// Judges the same call whenever it is asked to.
    fn again(&self, parts: &Parts) -> Judge {
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.method.clone_from(&parts.method);
        head.uri.clone_from(&parts.uri);
        head.version = parts.version;
        head.headers.clone_from(&parts.headers);
        let (lane, peer) = (self.lane.clone(), self.peer.clone());
        Box::new(move || judge(&lane, &peer, &head, Some(0), &mut Told::default()).is_ok())
    }
}

/// A tunnel by HTTP/2 is judged as the GET that it is by HTTP/1.1.
fn judge(lane: &Lane, peer: &Peer, parts: &Parts, length: Option<u64>, told: &mut Told) -> Result<Decision, Refusal> {
    let extended = parts.method == Method::CONNECT && parts.uri.path_and_query().is_some();
    let method = if extended { &Method::GET } else { &parts.method };
    let call = Call { peer, method, uri: &parts.uri, version: parts.version, headers: &parts.headers, length };
    lane.gateway.admit(&lane.tokens, &call, &mut told.seen, &mut told.trail)
}
