//! The one place that turns refusals into responses: RFC 6749 at the token server, RFC 6750 with a
//! problem body (RFC 9457) at the gateway.

use crate::domain::csrf::X_CSRF_TOKEN;
use crate::domain::rate::Allowance;
use crate::domain::reason::{Reason, public_text};
use crate::domain::trail::Refusal;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

/// Seconds after which a busy server may be asked again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const FRAMING: [Reason; 4] = [Reason::FramingLength, Reason::FramingLine, Reason::TransferCoding, Reason::BodyTooSlow];

pub type Short = Response<Full<Bytes>>;

/// Where a refusal is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    TokenServer,
    Gateway,
    /// The gateway, for a gRPC call.
    Grpc,
    /// The Destination service's interface.
    Destinations,
}

/// A page of our own words: nothing that came from outside is ever in it.
pub fn page(status: StatusCode, title: &'static str, text: &'static str) -> Short {
    let body = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><h1>{title}</h1><p>{text}</p></html>\n"
    );
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

pub fn refusal(door: Door, refusal: &Refusal, request_id: &HeaderValue) -> Short {
    let row = refusal.reason.row();
    let status = StatusCode::from_u16(row.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = match door {
        Door::TokenServer => oauth(status, row.code),
        Door::Gateway => problem(status, row.code, request_id),
        Door::Grpc => grpc(status, row.code),
        Door::Destinations => {
            // what is wrong with a request for a destination is for its caller to know
            let own = matches!(refusal.reason, Reason::LookupMalformed | Reason::EntryMalformed);
            let text = refusal.detail.as_deref().filter(|_| own).unwrap_or(public_text(row.code));
            no_store(status, &json!({ "ErrorMessage": text }))
        }
    };
    let challenge = match door {
        Door::TokenServer if row.status == 401 => {
            Some(HeaderValue::from_static("Basic realm=\"flowgate\", charset=\"UTF-8\""))
        }
        Door::TokenServer => None,
        Door::Gateway | Door::Grpc | Door::Destinations => {
            bearer_challenge(row.status, row.code, refusal.scope.as_deref())
        }
    };
    if let Some(challenge) = challenge {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    if matches!(refusal.reason, Reason::CsrfMissing | Reason::CsrfOther) {
        // by which clients know that they are to fetch one
        response.headers_mut().insert(X_CSRF_TOKEN, HeaderValue::from_static("Required"));
    }
    if let Some(wait) = refusal.wait {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait));
    } else if row.status == 503 {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    if FRAMING.contains(&refusal.reason) {
        // nobody knows where the next request would begin
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Tells a caller where it stands with its rate (draft-ietf-httpapi-ratelimit-headers-10).
pub fn allow(headers: &mut HeaderMap, allowance: Option<Allowance>) {
    let Some(Allowance { rate, left, full_in }) = allowance else { return };
    let fields = [
        (RATE_LIMIT_POLICY, format!("\"default\";q={};w={}", rate.requests, rate.window())),
        (RATE_LIMIT, format!("\"default\";r={left};t={full_in}")),
    ];
    for (name, text) in fields {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    }
}

/// RFC 6750, 3: no error code when no token was sent.
fn bearer_challenge(status: u16, code: &str, scope: Option<&str>) -> Option<HeaderValue> {
    let realm = "Bearer realm=\"flowgate\"";
    let described = || format!("{realm}, error=\"{code}\", error_description=\"{}\"", public_text(code));
    let text = match (status, scope) {
        // no error code where no token was sent (RFC 6750, 3.1)
        (401, _) if code != "invalid_token" => realm.to_owned(),
        (401, _) => described(),
        (400, _) if code == "invalid_request" => described(),
        (403, Some(scope)) => format!("{}, scope=\"{scope}\"", described()),
        _ => return None,
    };
    HeaderValue::try_from(text).ok()
}

fn oauth(status: StatusCode, code: &str) -> Short {
    no_store(status, &json!({ "error": code, "error_description": public_text(code) }))
}

fn problem(status: StatusCode, code: &str, request_id: &HeaderValue) -> Short {
    let body = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "detail": public_text(code),
        "code": code,
        "request_id": request_id.to_str().unwrap_or_default(),
    });
    let mut response = with_body(status, &body, "application/problem+json");
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A status and no message (gRPC over HTTP/2, "Trailers-Only"): a client that is given a body of
/// another kind may report that in place of what is wrong.
fn grpc(status: StatusCode, code: &str) -> Short {
    let known = match status.as_u16() {
        400 => "13",
        401 => "16",
        403 => "7",
        404 | 405 => "12",
        413 => "8",
        429 | 502..=504 => "14",
        _ => "2",
    };
    let mut response = empty(status);
    let fields = [("content-type", "application/grpc"), ("grpc-status", known), ("grpc-message", public_text(code))];
    for (name, value) in fields {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// JSON that is there as a text, with its entity tag; `life` says for how many seconds the caller may
/// keep it.
pub fn tagged(body: String, etag: &str, life: Option<i64>) -> Short {
    let mut response = Response::new(Full::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json;charset=UTF-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let kept = life.map(|seconds| format!("private, max-age={seconds}"));
    let kept = kept.and_then(|text| HeaderValue::try_from(text).ok());
    headers.insert(header::CACHE_CONTROL, kept.unwrap_or(HeaderValue::from_static("no-store")));
    if let Ok(etag) = HeaderValue::from_str(etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}

/// JSON that nobody may keep (RFC 6749, 5.1).
pub fn no_store(status: StatusCode, body: &Value) -> Short {
    let mut response = with_body(status, body, "application/json;charset=UTF-8");
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// JSON that may be kept for a while: metadata and public keys.
pub fn cacheable(body: &Value) -> Short {
    let mut response = with_body(StatusCode::OK, body, "application/json;charset=UTF-8");
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    response
}

/// A token against forged calls, for the caller that asked for it alone.
pub fn csrf(token: HeaderValue) -> Short {
    let mut response = empty(StatusCode::OK);
    response.headers_mut().insert(X_CSRF_TOKEN, token);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub fn empty(status: StatusCode) -> Short {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn with_body(status: StatusCode, body: &Value, kind: &'static str) -> Short {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::reason::Reason;

    fn told(door: Door, what: impl Into<Refusal>) -> (u16, Option<String>) {
        let response = refusal(door, &what.into(), &HeaderValue::from_static("id"));
        let challenge = response.headers().get(header::WWW_AUTHENTICATE);
        (response.status().as_u16(), challenge.map(|value| value.to_str().expect("text").to_owned()))
    }

    #[test]
    fn challenges_follow_rfc_6750() {
        assert_eq!(told(Door::Gateway, Reason::TokenMissing), (401, Some("Bearer realm=\"flowgate\"".into())));
        let (status, challenge) = told(Door::Gateway, Reason::TokenExpired);
        assert_eq!(status, 401);
        assert!(challenge.expect("a challenge").contains("error=\"invalid_token\""));
        let scope = Some("it!b1.a".to_owned());
        let (status, challenge) = told(Door::Gateway, Refusal { scope, ..Reason::RoleMissing.into() });
        let challenge = challenge.expect("a challenge");
        assert_eq!(status, 403);
        assert!(challenge.contains("error=\"insufficient_scope\"") && challenge.ends_with("scope=\"it!b1.a\""));
        assert_eq!(told(Door::Gateway, Reason::NoRoute), (404, None));
    }

    #[test]
    fn the_token_server_challenges_with_basic_on_401_only() {
        let (status, challenge) = told(Door::TokenServer, Reason::SecretWrong);
        assert_eq!(status, 401);
        assert!(challenge.expect("a challenge").starts_with("Basic "));
        assert_eq!(told(Door::TokenServer, Reason::GrantMissing), (400, None));
    }

    #[test]
    fn details_for_the_log_never_reach_the_caller() {
        for door in [Door::Gateway, Door::TokenServer] {
            let response = refusal(
                door,
                &Refusal::because(Reason::SecretWrong, "instance orders"),
                &HeaderValue::from_static("id"),
            );
            assert!(!format!("{response:?}").contains("orders"));
        }
    }
}
