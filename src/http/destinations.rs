//! The Destination service's interface: "Find Destination" and the management of what it finds.

use super::entries;
use super::reply::{self, Door, Short};
use super::{Inbound, Lane, Outcome, ReplyBody, Told};
use crate::domain::destination::question::{Named, Question, VARY, Version};
use crate::domain::destination::{Level, Sort};
use crate::domain::reason::Reason;
use crate::domain::trail::{Refusal, Step};
use crate::gateway::Call;
use crate::gateway::administer::destinations::Condition;
use crate::gateway::finder::Unfound;
use crate::net::body::Upload;
use crate::net::peer::Peer;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};

pub const ROOT: &str = "/destination-configuration";
/// As logs and metrics name it.
pub const ENDPOINT: &str = "destinations";
/// Bytes of path and query.
const LONGEST: usize = 4_000;

/// What a path of the interface is about.
enum Resource {
    Find(Version, String),
    Entries { sort: Sort, instance: bool, name: Option<String> },
}

pub async fn serve(lane: &Lane, peer: &Peer, inbound: Inbound) -> Outcome {
    let mut told = Told::default();
    let (parts, body) = inbound.request.into_parts();
    let upload = Upload::of(body);
    let response = answer(lane, peer, &parts, upload.as_deref(), &mut told).await.unwrap_or_else(|refusal| {
        let mut response = reply::refusal(Door::Destinations, &refusal, &inbound.request_id);
        if refusal.reason == Reason::MethodUnsupported {
            let find = parts.uri.path().contains("/destinations/");
            let allowed = if find { "GET, HEAD" } else { "GET, HEAD, POST, PUT, DELETE" };
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        told.refusal = Some(refusal);
        response
    });
    Outcome { response: response.map(ReplyBody::Own), told, upload }
}

async fn answer(
    lane: &Lane,
    peer: &Peer,
    parts: &Parts,
    upload: Option<&Upload>,
    told: &mut Told,
) -> Result<Short, Refusal> {
    told.endpoint = Some(ENDPOINT);

    // 1. what is asked for
    let resource = told.trail.of(Step::Route, resource(parts))?;

    // 2. by whom
    let length = upload.map_or(Some(0), Upload::length);
    let call =
        Call { peer, method: &parts.method, uri: &parts.uri, version: parts.version, headers: &parts.headers, length };
    let program = told.trail.of(Step::Authenticate, lane.gateway.program(&lane.tokens, &call));
    let (caller, instance) = program?;
    told.client = Some(caller.client_id.clone());

    // 3. the answer
    match resource {
        Resource::Find(version, name) => {
            let outcome = find(lane, parts, version, &name, &instance).await;
            told.trail.of(Step::Request, outcome)
        }
        Resource::Entries { sort, instance: own, name } => {
            let level = if own { Level::Instance(instance) } else { Level::Subaccount };
            let outcome = entries::answer(lane, parts, upload, (sort, level), name).await;
            told.trail.of(Step::Request, outcome)
        }
    }
}

async fn find(lane: &Lane, parts: &Parts, version: Version, name: &str, instance: &str) -> Result<Short, Refusal> {
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(Reason::MethodUnsupported.into());
    }
    let malformed = |text: String| Refusal::because(Reason::LookupMalformed, text);
    let question = Question::parse(version, parts.uri.query().unwrap_or_default(), &parts.headers);
    let mut question = question.map_err(|error| malformed(error.to_string()))?;
    // a code that is exchanged for an answer without a body is lost
    question.skip_tokens |= parts.method == Method::HEAD && question.code.is_some();
    if let Some(token) = &question.user_token
        && lane.gateway.user(&lane.tokens, token).is_err()
    {
        return Err(malformed("X-user-token is no valid token of this server".to_owned()));
    }
    let name = Named::parse(version, name).ok_or(Reason::EntryUnknown)?;
    let found = lane.gateway.find(instance, &name, &question).await.map_err(|unfound| match unfound {
        Unfound::Nothing | Unfound::NoFragment => Refusal::because(Reason::EntryUnknown, unfound.to_string()),
        Unfound::Request(text) => malformed(text),
    })?;
    let verdict = if found.once { Verdict::Holds } else { verdict(&parts.headers, &found.etag) };
    let mut response = match verdict {
        Verdict::Holds => reply::tagged(found.body, &found.etag, found.life),
        Verdict::Same => unchanged(&found.etag, found.life),
        Verdict::Changed => return Err(Reason::EntryChanged.into()),
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static(VARY));
    Ok(response)
}

/// What the conditional headers make of a tag (RFC 9110, 13.2.2).
pub enum Verdict {
    Holds,
    /// If-None-Match names it.
    Same,
    /// If-Match does not.
    Changed,
}

pub fn verdict(headers: &HeaderMap, etag: &str) -> Verdict {
    // weakly compared: the state is the same, the text may not be
    let names = |field: &HeaderValue| {
        let weak = |one: &str| one.trim().trim_start_matches("W/") == etag.trim_start_matches("W/");
        field.to_str().is_ok_and(|list| list.trim() == "*" || list.split(',').any(weak))
    };
    if !unless_changed(headers).holds(Some(etag)) {
        return Verdict::Changed;
    }
    if headers.get_all(header::IF_NONE_MATCH).iter().any(names) { Verdict::Same } else { Verdict::Holds }
}

/// If-Match; what cannot be read holds for nothing.
pub fn unless_changed(headers: &HeaderMap) -> Condition {
    let mut fields = headers.get_all(header::IF_MATCH).iter().peekable();
    if fields.peek().is_none() {
        return Condition::None;
    }
    let texts: Vec<_> = fields.map(|field| field.to_str().unwrap_or_default().trim()).collect();
    if texts == ["*"] {
        return Condition::Any;
    }
    Condition::Tags(texts.iter().flat_map(|text| text.split(',')).map(|tag| tag.trim().to_owned()).collect())
}

pub fn unchanged(etag: &str, life: Option<i64>) -> Short {
    let mut response = reply::tagged(String::new(), etag, life);
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response.headers_mut().remove(header::CONTENT_TYPE);
    response
}

fn resource(parts: &Parts) -> Result<Resource, Refusal> {
    if parts.uri.path_and_query().is_some_and(|target| target.as_str().len() > LONGEST) {
        return Err(Reason::TargetTooLong.into());
    }
    let path = parts.uri.path().strip_prefix(ROOT).unwrap_or_default();
    let (first, rest) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
    let (collection, name) = rest.split_once('/').map_or((rest, None), |(collection, name)| (collection, Some(name)));
    // decoded once; what is then no name is found nowhere
    let name = name.map(|name| percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned());
    let version = match first {
        "v1" => Version::V1,
        "v2" => Version::V2,
        _ => return Err(Reason::NoRoute.into()),
    };
    if let ("destinations", Some(name)) = (collection, &name) {
        return Ok(Resource::Find(version, name.clone()));
    }
    let sorts = [
        ("Destinations", Sort::Destination),
        ("DestinationFragments", Sort::Fragment),
        ("Certificates", Sort::Certificate),
    ];
    let levels = [("instance", true), ("subaccount", false)];
    let known = levels.iter().find_map(|(level, instance)| {
        let kind = collection.strip_prefix(level)?;
        let (_, sort) = sorts.iter().find(|(word, _)| *word == kind)?;
        Some(Resource::Entries { sort: *sort, instance: *instance, name: name.clone() })
    });
    known.filter(|_| version == Version::V1).ok_or_else(|| Reason::NoRoute.into())
}
