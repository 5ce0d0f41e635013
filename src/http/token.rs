//! The token server at the root of the origin: issue, introspect, revoke, keys, metadata.

use super::reply::{self, Door, Short};
use super::{Inbound, Lane, Outcome, ReplyBody, Told};
use crate::domain::authorization::{Callback, Ended};
use crate::domain::reason::Reason;
use crate::domain::trail::Refusal;
use crate::gateway::{Gateway, Introspection, Issued, Sender};
use crate::net::body::{BodyError, Upload};
use crate::net::peer::Peer;
use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::{self, HeaderMap, HeaderValue};
use http::{StatusCode, request};
use serde_json::{Value, json};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use tower::ServiceExt;

/// Everything the token server answers, in one list.
pub fn router(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route("/oauth/token", post(issue))
        .route("/introspect", post(introspect))
        .route("/oauth/introspect", post(introspect))
        .route("/oauth/revoke", post(revoke))
        .route("/oauth/callback", get(callback))
        .route("/token_keys", get(token_keys))
        .route("/token_key", get(token_key))
        .route("/.well-known/openid-configuration", get(metadata))
        .route("/oauth/token/.well-known/openid-configuration", get(metadata))
        .route("/.well-known/oauth-authorization-server/oauth/token", get(metadata))
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .with_state(gateway)
}

/// What a handler tells the log; shared with the request so that it outlives a refusal.
type Shared = Arc<Mutex<Told>>;

#[derive(Clone)]
struct Context {
    peer: Peer,
    request_id: HeaderValue,
    told: Shared,
    /// The body, read on the lane within size and time, or why it was not.
    body: Result<Arc<[u8]>, Refusal>,
}

pub async fn serve(lane: &Lane, peer: &Peer, inbound: Inbound) -> Outcome {
    let told = Shared::default();
    let (parts, body) = inbound.request.into_parts();
    let upload = Upload::of(body);
    let body = match &upload {
        Some(upload) => read(lane, upload).await,
        None => Ok(Arc::default()),
    };
    let mut request = Request::from_parts(parts, Body::empty());
    let context = Context { peer: peer.clone(), request_id: inbound.request_id, told: told.clone(), body };
    request.extensions_mut().insert(context);
    let response = match lane.router.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let told = std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner));
    Outcome { response: response.map(ReplyBody::Product), told, upload }
}

async fn read(lane: &Lane, upload: &Upload) -> Result<Arc<[u8]>, Refusal> {
    let limits = lane.gateway.state.limits.load_full();
    match tokio::time::timeout(limits.header_time, upload.read(limits.token_request)).await {
        Ok(Ok(bytes)) => Ok(bytes.into()),
        Ok(Err(BodyError::TooLarge)) => Err(Reason::RequestTooLarge.into()),
        Ok(Err(error)) => Err(Refusal::because(Reason::ClientAborted, error.to_string())),
        Err(_) => Err(Reason::RequestTooSlow.into()),
    }
}

/// A request to an endpoint for authenticated clients.
struct Read {
    parts: request::Parts,
    context: Context,
    body: String,
}

impl Read {
    /// Of the one content type that has parameters.
    fn new(request: Request) -> Result<Self, Box<(Context, Refusal)>> {
        let (mut parts, _) = request.into_parts();
        let context = parts.extensions.remove::<Context>().expect("every request to the router carries its context");
        let bytes = match &context.body {
            Ok(bytes) => bytes.to_vec(),
            Err(refusal) => return Err(Box::new((context.clone(), refusal.clone()))),
        };
        if !bytes.is_empty() && !is_form(&parts.headers) {
            return Err(Box::new((context, Reason::ContentType.into())));
        }
        match String::from_utf8(bytes) {
            Ok(body) => Ok(Self { parts, context, body }),
            Err(_) => Err(Box::new((context, Reason::ParameterMalformed.into()))),
        }
    }

    fn sender(&self) -> Result<Sender<'_>, Refusal> {
        let mut fields = self.parts.headers.get_all(header::AUTHORIZATION).iter();
        let (first, second) = (fields.next(), fields.next());
        if second.is_some() {
            return Err(Reason::ClientAuthTwice.into());
        }
        let authorization = first.map(HeaderValue::to_str).transpose().map_err(|_| Reason::BasicMalformed)?;
        Ok(Sender {
            peer: &self.context.peer,
            headers: &self.parts.headers,
            authorization,
            query: self.parts.uri.query().unwrap_or_default(),
            body: &self.body,
        })
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    match (kinds.next(), kinds.next()) {
        (None, _) => true,
        (Some(kind), None) => {
            let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
            kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
        }
        _ => false,
    }
}

/// Runs a use case and turns either outcome into a response.
async fn run<T, F>(
    gateway: Arc<Gateway>,
    request: Request,
    endpoint: &'static str,
    case: impl FnOnce(Arc<Gateway>, Read, Told) -> F,
    answer: impl FnOnce(T) -> Short,
) -> Response
where
    F: Future<Output = (Told, Result<T, Refusal>)>,
{
    let read = match Read::new(request) {
        Ok(read) => read,
        Err(refused) => {
            let (context, refusal) = *refused;
            let told = Told { endpoint: Some(endpoint), ..Told::default() };
            return refuse(&context, told, refusal);
        }
    };
    let context = read.context.clone();
    let (told, outcome) = case(gateway, read, Told { endpoint: Some(endpoint), ..Told::default() }).await;
    match outcome {
        Ok(value) => {
            let mut response = answer(value);
            reply::allow(response.headers_mut(), told.allowance);
            tell(&context, told);
            response.into_response()
        }
        Err(refusal) => refuse(&context, told, refusal),
    }
}

fn refuse(context: &Context, mut told: Told, refusal: Refusal) -> Response {
    let mut response = reply::refusal(Door::TokenServer, &refusal, &context.request_id);
    reply::allow(response.headers_mut(), told.allowance);
    told.refusal = Some(refusal);
    tell(context, told);
    response.into_response()
}

fn tell(context: &Context, told: Told) {
    *context.told.lock().unwrap_or_else(PoisonError::into_inner) = told;
}

async fn issue(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let case = |gateway: Arc<Gateway>, read: Read, mut told: Told| async move {
        let outcome = match read.sender() {
            Ok(sender) => gateway.issue(&sender, &mut told.client, &mut told.allowance, &mut told.trail).await,
            Err(refusal) => Err(refusal),
        };
        (told, outcome)
    };
    run(gateway, request, "token", case, |issued: Issued| {
        let body = json!({
            "access_token": issued.access_token,
            "token_type": "bearer",
            "expires_in": issued.expires_in,
            "scope": issued.scope,
            "jti": issued.jti,
        });
        reply::no_store(StatusCode::OK, &body)
    })
    .await
}

async fn introspect(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let case = |gateway: Arc<Gateway>, read: Read, mut told: Told| async move {
        let sender = read.sender();
        let outcome = sender.and_then(|sender| gateway.introspect(&sender, &mut told.client, &mut told.trail));
        (told, outcome)
    };
    run(gateway, request, "introspect", case, |found| {
        let body = match found {
            Introspection::Active(claims) => claims,
            Introspection::Inactive => json!({ "active": false }),
        };
        reply::no_store(StatusCode::OK, &body)
    })
    .await
}

async fn revoke(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let case = |gateway: Arc<Gateway>, read: Read, mut told: Told| async move {
        let outcome = match read.sender() {
            Ok(sender) => gateway.revoke(&sender, &mut told.client, &mut told.trail).await,
            Err(refusal) => Err(refusal),
        };
        (told, outcome)
    };
    run(gateway, request, "revoke", case, |()| reply::empty(StatusCode::OK)).await
}

/// A browser comes back from a provider. The page says what happened in our own words alone.
async fn callback(State(gateway): State<Arc<Gateway>>, RawQuery(query): RawQuery) -> Response {
    let ended = match Callback::parse(query.as_deref().unwrap_or_default()) {
        Some(callback) => gateway.redeem(callback).await,
        None => Ended::Unknown,
    };
    let (status, title, text) = match ended {
        Ended::Authorised => {
            (StatusCode::OK, "Authorised", "The credential is authorised and in use. You can close this window.")
        }
        Ended::Unknown => (
            StatusCode::BAD_REQUEST,
            "Not authorised",
            "This authorization is unknown, was used already or is too old. Begin again.",
        ),
        Ended::Denied => (
            StatusCode::BAD_REQUEST,
            "Not authorised",
            "The provider or the user refused. Nothing was changed but the credential's status.",
        ),
        Ended::OtherIssuer => (
            StatusCode::BAD_REQUEST,
            "Not authorised",
            "The answer came from another provider than the credential expects, so it was not used.",
        ),
        Ended::NoToken => (
            StatusCode::BAD_GATEWAY,
            "Not authorised",
            "The provider's token service gave no usable token. The credential's status tells why.",
        ),
        Ended::Busy => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Not authorised",
            "The gateway cannot do this at the moment. Begin again shortly.",
        ),
    };
    reply::page(status, title, text).into_response()
}

async fn token_keys(State(gateway): State<Arc<Gateway>>) -> Response {
    reply::cacheable(&gateway.state.keyring.load().jwks()).into_response()
}

async fn token_key(State(gateway): State<Arc<Gateway>>) -> Response {
    let now = gateway.clock.now();
    let keyring = gateway.state.keyring.load();
    let key = keyring.signer(now).map_or(Value::Null, |key| key.jwk().clone());
    reply::cacheable(&key).into_response()
}

/// RFC 8414, with what OpenID Connect discovery adds; the issuer is the token endpoint, as XSUAA
/// has it.
async fn metadata(State(gateway): State<Arc<Gateway>>) -> Response {
    let settings = gateway.state.settings.load();
    let (origin, issuer) = (&settings.origin.url, settings.issuer());
    let methods =
        json!(["client_secret_basic", "client_secret_post", "tls_client_auth", "self_signed_tls_client_auth"]);
    let mut body = json!({
        "issuer": issuer,
        "token_endpoint": issuer,
        "token_endpoint_auth_methods_supported": methods,
        "jwks_uri": format!("{origin}/token_keys"),
        "introspection_endpoint": format!("{origin}/introspect"),
        "introspection_endpoint_auth_methods_supported": methods,
        "revocation_endpoint": format!("{origin}/oauth/revoke"),
        "revocation_endpoint_auth_methods_supported": methods,
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256", "ES256"],
        "tls_client_certificate_bound_access_tokens": true,
    });
    // RFC 8705, 5
    if let Some(mtls) = &settings.origin.mtls_url {
        body["mtls_endpoint_aliases"] = json!({
            "token_endpoint": format!("{mtls}/oauth/token"),
            "introspection_endpoint": format!("{mtls}/introspect"),
            "revocation_endpoint": format!("{mtls}/oauth/revoke"),
        });
    }
    reply::cacheable(&body).into_response()
}

async fn nothing_here(request: Request) -> Response {
    quick(&request, Door::Gateway, Reason::NoRoute)
}

async fn wrong_method(request: Request) -> Response {
    quick(&request, Door::TokenServer, Reason::MethodNotAllowed)
}

fn quick(request: &Request, door: Door, reason: Reason) -> Response {
    let refusal = Refusal::from(reason);
    let context = request.extensions().get::<Context>();
    let id = context.map_or(HeaderValue::from_static(""), |context| context.request_id.clone());
    let response = reply::refusal(door, &refusal, &id).into_response();
    if let Some(context) = context {
        tell(context, Told { refusal: Some(refusal), ..Told::default() });
    }
    response
}
