//! The admin listener, and what is seen from it.

use crate::world::{World, until};
use serde_json::json;

#[test]
fn health_and_readiness_are_told() {
    let world = World::new();
    assert_eq!(world.admin("/healthz").status, 200);
    assert_eq!(world.admin("/readyz").text(), "ready\n");
    let verbose = world.admin("/readyz?verbose").json();
    assert_eq!(verbose["ready"], json!(true));
    assert_eq!(world.get("/healthz", "").status, 404, "not on a public listener");
}

#[test]
fn metrics_count_decisions_by_reason() {
    let world = World::new();
    world.get("/http/orders/1", "");
    world.get("/open/x", "");
    let shows = |part: &str| world.admin("/metrics").text().contains(part);
    for part in [
        "flowgate_decisions_total{route=\"orders\",decision=\"refuse\",reason=\"token-missing\"} 1",
        "flowgate_decisions_total{route=\"open\",decision=\"permit\",reason=\"none\"} 1",
        "http_server_request_duration_seconds_count{http_route=\"open\",http_response_status_code=\"200\"} 1",
    ] {
        until(part, || shows(part));
    }
    world.post("/oauth/token", "", "grant_type=client_credentials");
    let part = "flowgate_token_requests_total{endpoint=\"token\",result=\"refuse\",reason=\"client-auth-missing\"} 1";
    until(part, || shows(part));
}

#[test]
fn one_log_line_tells_why_and_no_secret() {
    let world = World::new();
    let sender = world.sender("s", "Other.role");
    let token = world.token(&sender);
    let reply = world.call("/http/orders/1?password=hunter2", &token);
    let id = reply.header("x-request-id").expect("an id").to_owned();
    let line = world.logged(|line| line["request_id"] == id.as_str());
    assert_eq!(line["reason"], "role-missing");
    assert_eq!(line["step"], "role");
    assert_eq!(line["client"], sender.id.as_str());
    assert_eq!(line["path"], "/http/orders/1");
    assert!(line["remedy"].as_str().is_some_and(|text| text.contains("user role")));
    let log = world.log();
    assert!(!log.contains("hunter2") && !log.contains(&token) && !log.contains(&sender.secret));
}
