//! The demo's integration flow: a real HTTP server that answers with what arrived.

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Bytes of a body that are taken in.
const MOST: usize = 64 * 1024 * 1024;

pub async fn serve(listener: TcpListener) {
    let app = Router::new().fallback(echo);
    if let Err(error) = axum::serve(listener, app).await {
        tracing::error!(%error, "the echo flow ended");
    }
}

async fn echo(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, MOST).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    };
    let headers = parts
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), json!(String::from_utf8_lossy(value.as_bytes()))));
    let seen = json!({
        "flow": "echo",
        "method": parts.method.as_str(),
        "path": parts.uri.to_string(),
        "headers": Value::Object(headers.collect()),
        "body": String::from_utf8_lossy(&body),
    });
    ([(CONTENT_TYPE, "application/json")], format!("{seen:#}\n")).into_response()
}
