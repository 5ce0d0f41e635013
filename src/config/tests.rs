use super::*;

fn faults(text: &str) -> String {
    let dir = tempfile::tempdir().expect("a folder");
    let listeners = if text.contains("listeners:") { "" } else { "listeners: [{ address: '127.0.0.1:0' }]\n" };
    match parse("config.yaml", &format!("{listeners}{text}"), dir.path(), &|_| None) {
        Ok(loaded) => loaded.warnings.to_string(),
        Err(faults) => faults.to_string(),
    }
}

const MINIMAL: &str = "backends:\n  orders: { servers: ['http://127.0.0.1:9001'] }\nroutes:\n  - { name: orders, path: /http/orders/*, backend: orders }\n";

#[test]
fn backends_and_routes_are_enough() {
    let dir = tempfile::tempdir().expect("a folder");
    let text = format!("listeners: [{{ address: '127.0.0.1:0' }}]\n{MINIMAL}");
    let loaded = parse("config.yaml", &text, dir.path(), &|_| None).expect("valid");
    assert_eq!(loaded.warnings.list(), []);
    let route = &loaded.config.routes[0];
    assert_eq!(route.body.most, 40 << 20);
    assert!(
        matches!(&route.authorization, crate::domain::route::Authorization::UserRole(role) if role.as_str() == "ESBMessaging.send")
    );
    assert!(loaded.config.listeners[0].tls.is_none());
}

#[test]
fn every_fault_is_reported_at_once_with_place_and_remedy() {
    let text = "backend:\n  x: 1\nbackends:\n  orders: { servers: ['ftp://x'], timeout: 5 }\nroutes:\n  - { name: a, path: http, backend: ordres, max_body: lots }\n  - { name: a, authorization: nobody, backend: orders, path: /oauth/x }\ntokens: { leeway: 1h }\n";
    let shown = faults(text);
    for part in [
        "config.yaml:2:1",
        "unknown key `backend`; did you mean `backends`?",
        "`ftp://x` is not a server address",
        "`5` is not a duration",
        "`http` is not a route path: a route path begins with `/`",
        "there is no backend `ordres`; did you mean `orders`?",
        "`lots` is not a size",
        "there are two routes named `a`",
        "`nobody` is not possible here",
        "`/oauth` belongs to the product itself",
        "`1h` is out of bounds",
        "help: write it as /http/orders or /http/orders/*",
    ] {
        assert!(shown.contains(part), "{part}\n---\n{shown}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let shown = faults("routes:\n  - { name: a }\n");
    assert!(shown.contains("`backends` is missing"), "{shown}");
    assert!(shown.contains("`path` is missing") && shown.contains("`backend` is missing"), "{shown}");
}

#[test]
fn an_empty_file_is_not_a_configuration_of_defaults() {
    for text in ["", "# nothing yet\n", "null\n"] {
        let dir = tempfile::tempdir().expect("a folder");
        let told = parse("config.yaml", text, dir.path(), &|_| None).expect_err("refused").to_string();
        assert!(told.contains("`backends` is missing") && told.contains("`routes` is missing"), "{told}");
    }
}

#[test]
fn a_backend_that_is_this_gateway_is_refused() {
    let shown = faults(
        "listeners: [{ address: '0.0.0.0:8080' }]\nadmin: { address: '127.0.0.1:8444' }\nbackends:\n  a: { servers: ['http://localhost:8080'] }\n  b: { servers: ['http://127.0.0.1:8444'] }\nroutes: []\n",
    );
    assert!(
        shown.contains("is a listener of this gateway") && shown.contains("is the admin listener of this gateway"),
        "{shown}"
    );
}

#[test]
fn nested_and_doubled_paths_are_told() {
    let routes = "routes:\n  - { name: a, path: /x/*, backend: orders }\n  - { name: b, path: /x/y, backend: orders }\n  - { name: c, path: /X/*, backend: orders }\n";
    let shown = faults(&format!("backends:\n  orders: {{ servers: ['http://127.0.0.1:9001'] }}\n{routes}"));
    assert!(shown.contains("warning: `/x/y` lies below `/x/*` of route `a`"), "{shown}");
    assert!(shown.contains("`/x/*` is published by route `a` already"), "{shown}");
}

#[test]
fn a_secret_in_the_file_is_not_shown() {
    let shown = faults(&format!("store: {{ master_key: hunter2hunter2 }}\n{MINIMAL}"));
    assert!(shown.contains("the master key is not 32 bytes in base64"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_certificate_that_cannot_be_read_is_one_line() {
    let shown = faults(&format!(
        "listeners: [{{ address: '127.0.0.1:0', tls: {{ certificate: no.pem, key: no.key }} }}]\n{MINIMAL}"
    ));
    assert!(shown.contains("no.pem cannot be read") && shown.contains("no.key cannot be read"), "{shown}");
}

#[test]
fn a_typed_value_may_come_from_the_environment() {
    let dir = tempfile::tempdir().expect("a folder");
    let text = format!("listeners: [{{ address: '127.0.0.1:0' }}]\nlimits: {{ target: '${{T}}' }}\n{MINIMAL}");
    let loaded = parse("c", &text, dir.path(), &|name| (name == "T").then(|| "512".into())).expect("valid");
    assert_eq!(loaded.config.limits.target, 512);
}

#[test]
fn backends_and_rates_are_taken_as_meant() {
    let text = "listeners: [{ address: '127.0.0.1:0' }]
backends:
  orders:
    servers: ['http://a', { url: 'https://b:1/base/', weight: 3 }]
    protocol: auto
    max_requests: 7
    ejection: { failures: 0 }
    health: { path: /up }
routes:
  - { name: a, path: /a, backend: orders, rate: 5/m, body_gap: 0s, websocket: stay }
";
    let dir = tempfile::tempdir().expect("a folder");
    let loaded = parse("config.yaml", text, dir.path(), &|_| None).unwrap_or_else(|faults| panic!("{faults}"));
    let route = &loaded.config.routes[0];
    let backend = &route.backend;
    let shown: Vec<_> = backend.servers.iter().map(|one| (&*one.authority, one.weight, one.tls.is_some())).collect();
    assert_eq!(shown, [("a:80", 1, false), ("b:1", 3, true)]);
    assert_eq!(backend.servers[1].base_path, "/base");
    assert_eq!((backend.bounds.requests, backend.ejection.failures), (Some(7), None));
    assert_eq!(backend.health.as_ref().map(|health| health.down_after), Some(2));
    assert_eq!(route.rates.all.map(|rate| rate.to_string()).as_deref(), Some("5/m"));
    assert!(route.body.gap.is_zero() && !route.body.time.is_zero());
}

#[test]
fn what_does_not_go_together_in_a_backend_is_told() {
    let text = "backends:
  a: { servers: ['http://a'], protocol: auto, tls: { certificate: c.pem } }
  b: { servers: [{ url: 'http://b', weigth: 2 }], health: { path: up }, ejection: { time: never } }
  c: { servers: [{ weight: 2 }] }
routes:
  - { name: a, path: /a, backend: a, rate: 5, client_rate: 0/s }
";
    let shown = faults(text);
    for part in [
        "without TLS there is nothing to negotiate",
        "backend `a` has no https server",
        "`certificate` and `key` belong together",
        "unknown key `weigth`; did you mean `weight`?",
        "`up` is no path",
        "`never` is not a duration",
        "`url` is missing",
        "this is not a rate",
    ] {
        assert!(shown.contains(part), "{part}\n---\n{shown}");
    }
}
