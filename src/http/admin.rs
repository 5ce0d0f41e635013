//! The admin listener: liveness, readiness, metrics. Never reachable through a route.

use super::metrics::Registry;
use crate::gateway::Gateway;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// What readiness is judged by; kept by whoever knows.
#[derive(Debug, Default)]
pub struct Health {
    /// When the store was last read, Unix seconds.
    pub store_seen: AtomicI64,
    pub draining: AtomicBool,
    /// Whether the configuration on disk is the one in use.
    pub config_current: AtomicBool,
}

/// Seconds after which a silent store makes the gateway unready. It goes on serving what it knows.
const STORE_SILENT: i64 = 10;

#[derive(Clone)]
pub struct Admin {
    pub gateway: Arc<Gateway>,
    pub registry: Registry,
    pub health: Arc<Health>,
}

pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

async fn ready(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    let now = admin.gateway.clock.now();
    let checks = [
        ("store", now - admin.health.store_seen.load(Ordering::Relaxed) <= STORE_SILENT),
        ("signing_key", admin.gateway.state.keyring.load().signer(now).is_some()),
        ("not_draining", !admin.health.draining.load(Ordering::Relaxed)),
    ];
    let ready = checks.iter().all(|(_, good)| *good);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if query.as_deref() != Some("verbose") {
        return (status, if ready { "ready\n" } else { "not ready\n" }).into_response();
    }
    let stale = !admin.health.config_current.load(Ordering::Relaxed);
    let stale = stale.then(|| "the configuration on disk is faulty; an earlier one is in use".to_owned());
    let credentials = admin.gateway.state.credentials.load();
    let issuers = admin.gateway.state.issuers.load();
    let issuers = issuers.values().filter_map(|one| one.warning(now));
    let warnings = stale.into_iter().chain(credentials.values().filter_map(|one| one.warning(now))).chain(issuers);
    let listed: Vec<_> = checks.iter().map(|(name, good)| json!({ "check": name, "ok": good })).collect();
    let body = json!({ "ready": ready, "checks": listed, "warnings": warnings.collect::<Vec<_>>() });
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.registry.render()).into_response()
}
