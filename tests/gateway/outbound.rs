//! Outbound credentials: fetched, shared, renewed, refused, and never shown to a caller.

use crate::stub::{Seen, Stub, echo, reply};
use crate::world::{HOLD, World, overlaid, time_until, until};
use flowgate::config;
use flowgate::domain::material::Parameters;
use flowgate::gateway::administer::Administration;
use flowgate::store::Store;
use serde_json::{Value, json};
use std::io::Read;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const ALLOW: &str = "outbound: { allow_networks: [127.0.0.0/8] }\n";

fn routes(backend: &Stub) -> String {
    format!(
        "
  crm: {{ servers: [\"http://{}\"] }}
routes:
  - {{ name: crm, path: /crm/*, authorization: none, backend: crm, credential: crm }}
  - {{ name: own, path: /own/*, authorization: none, backend: crm, credential: crm, credential_header: X-Token }}
  - {{ name: secured, path: /secured/*, backend: crm, credential: crm }}
",
        backend.address
    )
}

/// A world whose routes call a stub backend with a credential.
fn world(backend: &Stub) -> World {
    let routes = routes(backend);
    World::changed("", |text| format!("{ALLOW}{}{routes}", text.trim_end()))
}

/// A world of so many open routes `/r0` and on, each with a credential of its own, `c0` and on.
fn world_of(count: usize, backend: &Stub) -> World {
    let route = |n| format!("  - {{ name: r{n}, path: /r{n}, authorization: none, backend: crm, credential: c{n} }}\n");
    let routes = (0..count).map(route).collect::<Vec<_>>().concat();
    let head = format!("\n  crm: {{ servers: [\"http://{}\"] }}\nroutes:\n{routes}", backend.address);
    World::changed("", |text| format!("{ALLOW}{}{head}", text.trim_end()))
}

/// A token that is found wherever it shows.
const TOKEN: &str = "unguessable-0f3b9c";

/// Tokens `t0`, `t1` and so on.
fn provider() -> Stub {
    Stub::new(|before, _| {
        reply("200 OK", &json!({ "access_token": format!("t{before}"), "expires_in": 3600 }).to_string())
    })
}

fn parameters(provider: &Stub, more: &Value) -> Value {
    let members = json!({
        "type": "oauth2-client-credentials", "name": "crm", "client-id": "our id", "client-secret": "s3cr3t-of-ours",
        "token-service-url": format!("http://{}/token?tenant=a", provider.address),
    });
    overlaid(members, more)
}

fn put(world: &World, verb: &str, parameters: &Value) -> std::process::Output {
    std::fs::write(world.file("c.json"), parameters.to_string()).expect("written");
    let file = world.file("c.json");
    world.cli(&["credential", verb, "--parameters", file.to_str().expect("a path")])
}

fn deploy(world: &World, provider: &Stub, more: &Value) {
    let output = put(world, "create", &parameters(provider, more));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A backend that takes any token but the first.
fn refusing_the_first() -> Stub {
    Stub::new(|_, seen| {
        let good = seen.header("authorization").is_some_and(|value| value != "Bearer t0");
        if good { reply("200 OK", "{}") } else { reply("401 Unauthorized", "{}") }
    })
}

fn works(world: &World) {
    until("the route has its token", || world.get("/crm/x", "").status == 200);
}

#[test]
fn the_backend_sees_our_token_and_never_the_callers() {
    let (backend, provider) = (echo(), provider());
    let world = world(&backend);
    let refused = world.get("/crm/x", "");
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("credential_unavailable")));
    assert!(backend.journal().is_empty(), "a refusal never reaches the backend");
    deploy(&world, &provider, &json!({ "scope": "a b" }));
    works(&world);
    let forged = world.get("/crm/x", "Authorization: Bearer callers-own\r\n").json();
    assert_eq!(forged["authorization"], "Bearer t0");
    let own = world.get("/own/x", "Authorization: Bearer callers-own\r\nX-Token: forged\r\nX_Token: forged\r\n");
    assert!(!own.text().contains("forged"), "{}", own.text());
    let own = own.json();
    assert_eq!((own["x-token"].as_str(), own["authorization"].as_str()), (Some("Bearer t0"), None));
    let sender = world.sender("s", "ESBMessaging.send");
    assert_eq!(world.get("/secured/x", "").status, 401);
    assert_eq!(world.call("/secured/x", &world.token(&sender)).json()["authorization"], "Bearer t0");
    let [request]: [Seen; 1] = provider.journal().try_into().expect("one token request for all");
    assert_eq!(request.line, "POST /token?tenant=a HTTP/1.1");
    assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
    let body = "grant_type=client_credentials&scope=a+b&client_id=our+id&client_secret=s3cr3t-of-ours";
    assert_eq!(request.body, body);
}

#[test]
fn no_secret_and_no_token_is_ever_shown() {
    let backend = Stub::new(|_, _| reply("200 OK", "{}"));
    let provider = Stub::new(|_, _| reply("200 OK", &format!("{{\"access_token\":\"{TOKEN}\"}}")));
    let world = world(&backend);
    deploy(&world, &provider, &json!({}));
    works(&world);
    let shown = [
        world.done(&["credential", "list", "--output", "json"]),
        world.done(&["credential", "show", "crm", "--output", "json"]),
        world.done(&["credential", "list"]),
        world.log(),
        world.admin("/metrics").text(),
        world.admin("/readyz?verbose").text(),
    ];
    for text in &shown {
        assert!(!text.contains("s3cr3t-of-ours") && !text.contains(TOKEN), "{text}");
    }
    let status: Value = serde_json::from_str(&shown[0]).expect("JSON");
    assert_eq!(status[0]["status"], "Deployed");
    assert_eq!(world.done(&["credential", "token", "crm"]).trim(), TOKEN, "shared with this process");
    assert_eq!(provider.journal().len(), 1);
    for entry in std::fs::read_dir(world.file("data")).expect("there") {
        let bytes = std::fs::read(entry.expect("an entry").path()).unwrap_or_default();
        for secret in ["s3cr3t-of-ours", TOKEN] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
        }
    }
    let used = world.cli(&["credential", "delete", "crm"]);
    assert!(String::from_utf8_lossy(&used.stderr).contains("is used by route `crm`"));
}

#[test]
fn a_failing_fetch_leaves_the_token_that_there_is() {
    let (backend, provider) = (echo(), provider());
    let world = world(&backend);
    deploy(&world, &provider, &json!({}));
    works(&world);
    provider.say(|_, _| reply("500 Internal Server Error", "{}"));
    assert!(!world.cli(&["credential", "refresh", "crm"]).status.success());
    backend.say(|_, _| reply("401 Unauthorized", "{}"));
    assert_eq!(world.get("/crm/x", "").status, 401);
    backend.say(|_, seen| reply("200 OK", &json!({ "authorization": seen.header("authorization") }).to_string()));
    assert_eq!(world.get("/crm/x", "").json()["authorization"], "Bearer t0");
}

#[test]
fn a_refused_token_is_replaced_once_and_the_call_made_again() {
    let provider = provider();
    let backend = refusing_the_first();
    let world = world(&backend);
    deploy(&world, &provider, &json!({}));
    works(&world);
    assert_eq!(provider.journal().len(), 2, "one for the start, one for the refusal");
    backend.say(|_, _| reply("401 Unauthorized", "{}"));
    for _ in 0..5 {
        assert_eq!(world.get("/crm/x", "").status, 401, "the target's own answer");
    }
    assert!(provider.journal().len() <= 3, "a target that refuses everything causes no storm");
}

#[test]
fn a_call_with_a_body_is_not_made_again_but_the_next_has_another_token() {
    let provider = provider();
    let backend = refusing_the_first();
    let world = world(&backend);
    deploy(&world, &provider, &json!({}));
    until("the token is there", || world.done(&["credential", "list"]).contains("Deployed"));
    let post =
        || world.raw(b"POST /crm/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").status;
    until("the route has a token", || post() != 503);
    let sent = backend.journal().len();
    assert!(sent >= 1 && backend.journal().iter().all(|seen| seen.body == "ok"));
    until("the next token is used", || post() == 200);
}

#[test]
fn two_hundred_callers_at_once_cause_one_token_request() {
    let provider = provider();
    let backend = refusing_the_first();
    let world = world(&backend);
    deploy(&world, &provider, &json!({}));
    until("the token is there", || {
        provider.journal().len() == 1 && world.done(&["credential", "list"]).contains("Deployed")
    });
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..200).map(|_| scope.spawn(|| world.get("/crm/x", "").status)).collect();
        calls.into_iter().map(|call| call.join().expect("answered")).collect()
    });
    assert!(statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
    assert_eq!(provider.journal().len(), 2, "the one that was refused, and one for all");
}

#[test]
fn five_hundred_credentials_are_fetched_a_few_at_a_time_and_once_each() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (active, peak) = (now.clone(), most.clone());
    let provider = Stub::new(move |before, _| {
        peak.fetch_max(active.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::park_timeout(std::time::Duration::from_millis(10));
        active.fetch_sub(1, Ordering::SeqCst);
        reply("200 OK", &format!("{{\"access_token\":\"t{before}\",\"expires_in\":3600}}"))
    });
    let backend = echo();
    let world = world_of(500, &backend);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = config::load(&world.file("config.yaml"), &|_| None).expect("valid").config;
        let store = Store::open(&config.store).await.expect("opens");
        let admin = Administration { store: &store, origin: &config.origin, now: jiff::Timestamp::now().as_second() };
        for n in 0..500 {
            let members = parameters(&provider, &json!({ "name": format!("c{n}") }));
            admin.create_credential(&Parameters::parse(members).expect("parses")).await.expect("created");
        }
        store.close().await;
    });
    until("the last has its token", || {
        (0..500).step_by(50).chain([499]).all(|n| world.get(&format!("/r{n}"), "").status == 200)
    });
    until("all have theirs", || !world.done(&["credential", "list"]).contains("Stored"));
    assert_eq!(provider.journal().len(), 500, "once each");
    assert!(most.load(Ordering::SeqCst) <= 16, "{most:?} at once");
}

#[test]
fn a_token_service_that_is_silent_does_not_hold_up_others() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("an address");
    let url = format!("http://{}/token", silent.local_addr().expect("an address"));
    let (provider, backend) = (provider(), echo());
    let world = world_of(18, &backend);
    for n in 0..17 {
        deploy(&world, &provider, &json!({ "name": format!("c{n}"), "token-service-url": url }));
    }
    // as many as may be at once with one service wait for it
    let waiting: Vec<_> = (0..16).map(|_| silent.accept().expect("a connection").0).collect();
    deploy(&world, &provider, &json!({ "name": "c17" }));
    until("the other has its token", || world.get("/r17", "").status == 200);
    for mut stream in waiting {
        stream.set_nonblocking(true).expect("set");
        let mut request = [0; 4_096];
        let end = std::iter::from_fn(|| Some(stream.read(&mut request))).find(|read| !matches!(read, Ok(1..)));
        assert!(matches!(end, Some(Err(_))), "it was given up before");
    }
}

#[test]
fn an_outage_is_told_at_once_and_ends_by_itself() {
    let (backend, provider) =
        (echo(), Stub::new(|_, _| reply("503 Service Unavailable", "{\"error\":\"temporarily_unavailable\"}")));
    let world = world(&backend);
    deploy(&world, &provider, &json!({}));
    until("the failure is known", || world.done(&["credential", "list"]).contains("Error"));
    let listed = world.done(&["credential", "list"]);
    assert!(listed.contains("the token service answered 503: temporarily_unavailable"), "{listed}");
    let refused = world.get("/crm/x", "");
    assert_eq!(refused.status, 503);
    assert!(backend.journal().is_empty());
    let tries = provider.journal().len();
    assert!(tries < 10, "{tries} tries");
    provider.say(|before, _| reply("200 OK", &format!("{{\"access_token\":\"t{before}\"}}")));
    works(&world);
    world.logged(|line| line["reason"] == "credential-unavailable" && line["detail"] == "credential crm");
}

#[test]
fn an_edit_ends_the_token_within_a_second() {
    let (backend, provider) = (echo(), provider());
    let world = world(&backend);
    deploy(&world, &provider, &json!({}));
    works(&world);
    let moved = json!({ "type": "oauth2-client-credentials", "name": "crm", "client-id": "other" });
    let output = put(&world, "update", &moved);
    assert!(String::from_utf8_lossy(&output.stderr).contains("must be given again"));
    let edited = json!({ "type": "oauth2-client-credentials", "name": "crm", "scope": "new" });
    assert!(put(&world, "update", &edited).status.success());
    let held = time_until("the old token is gone", || {
        let reply = world.get("/crm/x", "");
        reply.status == 503 || reply.json()["authorization"] != "Bearer t0"
    });
    assert!(held < HOLD, "{held:?}");
    works(&world);
    let body = &provider.journal()[1].body;
    assert!(body.contains("scope=new") && body.contains("client_secret=s3cr3t-of-ours"), "{body}");
}

#[test]
fn a_token_is_renewed_before_it_ends_without_a_gap() {
    let provider =
        Stub::new(|before, _| reply("200 OK", &format!("{{\"access_token\":\"t{before}\",\"expires_in\":12}}")));
    let backend = echo();
    let world = world(&backend);
    deploy(&world, &provider, &json!({}));
    works(&world);
    until("three tokens have been used", || {
        assert_eq!(world.get("/crm/x", "").status, 200);
        provider.journal().len() >= 3
    });
}

#[test]
fn only_listed_networks_are_called_besides_public_ones() {
    let provider = provider();
    let world = World::new();
    deploy(&world, &provider, &json!({}));
    let refused = |name: &str| {
        let output = world.cli(&["credential", "token", name]);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused("crm").contains("127.0.0.1 is no public address; list its network in outbound.allow_networks"));
    assert!(provider.journal().is_empty());
    let metadata = json!({ "name": "meta", "token-service-url": "https://169.254.169.254/latest" });
    let disguised = json!({ "name": "disguised", "token-service-url": "https://[::ffff:a9fe:a9fe]/latest" });
    for more in [&metadata, &disguised] {
        assert!(put(&world, "create", &parameters(&provider, more)).status.success());
        assert!(refused(more["name"].as_str().expect("a name")).contains("metadata service"), "{more}");
    }
    let redirecting =
        Stub::new(|_, _| "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".to_owned());
    let text = std::fs::read_to_string(world.file("config.yaml")).expect("there");
    std::fs::write(world.file("config.yaml"), format!("{ALLOW}{text}")).expect("written");
    assert!(put(&world, "create", &parameters(&redirecting, &json!({ "name": "moved" }))).status.success());
    assert!(refused("moved").contains("redirects are not followed"));
    assert_eq!(redirecting.journal().len(), 1);
}
