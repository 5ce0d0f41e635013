//! The gateway: judge, then forward with the permit, stream back.

use super::{Inbound, Lane, Outcome, ReplyBody, Told, reply};
use crate::domain::decision::{Decision, Permit};
use crate::domain::reason::Reason;
use crate::domain::trail::{Refusal, Step};
use crate::gateway::Call;
use crate::net::body::{Answer, Upload};
use crate::net::forward::Journey;
use crate::net::peer::Peer;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use reply::Door;
use std::rc::Rc;

pub async fn serve(lane: &Lane, peer: &Peer, inbound: Inbound) -> Outcome {
    let mut told = Told::default();
    let Inbound { request, request_id, traceparent } = inbound;
    let (parts, body) = request.into_parts();
    let upload = Upload::of(body);
    let journey = Journey { peer, request_id: &request_id, traceparent: &traceparent };
    let response = match answer(lane, parts, upload.clone(), &journey, &mut told).await {
        Ok(Answered::Backend(response)) => response.map(ReplyBody::Backend),
        Ok(Answered::Csrf(token)) => reply::csrf(token).map(ReplyBody::Own),
        Err(refusal) => {
            let response = reply::refusal(Door::Gateway, &refusal, &request_id).map(ReplyBody::Own);
            told.refusal = Some(refusal);
            response
        }
    };
    Outcome { response, told, upload }
}

/// Whose answer it is.
enum Answered {
    Backend(Response<Answer>),
    /// Our own: a token against forged calls.
    Csrf(HeaderValue),
}

async fn answer(
    lane: &Lane,
    parts: Parts,
    upload: Option<Rc<Upload>>,
    journey: &Journey<'_>,
    told: &mut Told,
) -> Result<Answered, Refusal> {
    let mut decision = admit(lane, &parts, upload.as_deref(), journey, told);
    let unknown = matches!(&decision, Err(refusal) if refusal.reason == Reason::TokenKeyUnknown);
    if let (true, Some(route)) = (unknown, told.seen.route.clone())
        && lane.gateway.key_published(&route, &parts.headers).await
    {
        *told = Told::default();
        decision = admit(lane, &parts, upload.as_deref(), journey, told);
    }
    let permit = match decision? {
        Decision::Permit(permit) => permit,
        Decision::Csrf(token) => return Ok(Answered::Csrf(token)),
    };
    // with a credential of ours a call can be made again if it asks for nothing but an answer
    let repeatable = parts.method.is_safe() && upload.is_none();
    let again = (permit.credential().is_some() && repeatable).then(|| parts.clone());
    let response = forward(lane, permit, parts, upload.clone(), journey, told).await?;
    let (Some(rejected), Some(route)) = (told.seen.credential, told.seen.route.clone()) else {
        return Ok(Answered::Backend(response));
    };
    if response.status() != StatusCode::UNAUTHORIZED {
        return Ok(Answered::Backend(response));
    }
    match again {
        Some(parts) if lane.gateway.another_token(&route, rejected).await => {
            // judged again, as a call of its own: rights may have changed meanwhile
            let mut second = Told::default();
            let Ok(Decision::Permit(permit)) = admit(lane, &parts, None, journey, &mut second) else {
                return Ok(Answered::Backend(response));
            };
            drop(response);
            *told = second;
            forward(lane, permit, parts, None, journey, told).await.map(Answered::Backend)
        }
        Some(_) => Ok(Answered::Backend(response)),
        None => {
            lane.gateway.want_another_token(&route, rejected);
            Ok(Answered::Backend(response))
        }
    }
}

fn admit(
    lane: &Lane,
    parts: &Parts,
    upload: Option<&Upload>,
    journey: &Journey<'_>,
    told: &mut Told,
) -> Result<Decision, Refusal> {
    let length = upload.map_or(Some(0), Upload::length);
    let call = Call { peer: journey.peer, method: &parts.method, uri: &parts.uri, headers: &parts.headers, length };
    lane.gateway.admit(&lane.tokens, &call, &mut told.seen, &mut told.trail)
}

async fn forward(
    lane: &Lane,
    permit: Permit,
    parts: Parts,
    upload: Option<Rc<Upload>>,
    journey: &Journey<'_>,
    told: &mut Told,
) -> Result<Response<Answer>, Refusal> {
    let outcome = lane.forwarder.forward(permit, parts, upload, journey).await;
    let step = if matches!(&outcome, Err(refusal) if refusal.reason == Reason::BodyTooLarge) {
        Step::Size
    } else {
        Step::Forward
    };
    told.trail.of(step, outcome)
}
