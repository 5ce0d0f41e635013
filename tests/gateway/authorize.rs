//! Authorization code artifacts from the first consent to the last refresh, against a provider that
//! plays the kinds there are.

use crate::process::{Serving, Site};
use crate::stub::{Stub, echo, form, reply};
use crate::world::{World, overlaid, until};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A world with a route that uses the credential `mail`.
fn world(backend: &Stub) -> World {
    let routes = format!(
        "
  mail: {{ servers: [\"http://{}\"] }}
routes:
  - {{ name: mail, path: /mail, authorization: none, backend: mail, credential: mail }}
",
        backend.address
    );
    let allow = "outbound: { allow_networks: [127.0.0.0/8] }\n";
    World::changed("", |text| format!("{allow}{}{routes}", text.trim_end()))
}

/// Access tokens of so many seconds; each refresh gives another refresh token.
fn rotating(life: i64) -> Stub {
    Stub::new(move |before, _| {
        let body =
            json!({ "access_token": format!("a{before}"), "refresh_token": format!("r{before}"), "expires_in": life });
        reply("200 OK", &body.to_string())
    })
}

fn deploy(world: &World, provider: &Stub, more: &Value) {
    let members = json!({
        "type": "oauth2-authorization-code", "name": "mail", "client-id": "id", "client-secret": "s3cret", "scope": "a b",
        "authorization-url": format!("http://{}/auth?prompt=consent", provider.address),
        "token-service-url": format!("http://{}/token", provider.address),
    });
    let members = overlaid(members, more);
    std::fs::write(world.file("m.json"), members.to_string()).expect("written");
    let file = world.file("m.json");
    world.done(&["credential", "create", "--parameters", file.to_str().expect("a path")]);
}

/// The parameters with which a browser is sent to the provider.
fn begin(world: &World) -> HashMap<String, String> {
    let url = world.done(&["credential", "authorize", "mail", "--no-wait"]);
    form(url.trim().split_once('?').expect("a query").1)
}

fn come_back(world: &World, state: &str, more: &str) -> (u16, String) {
    let reply = world.get(&format!("/oauth/callback?state={state}{more}"), "");
    (reply.status, reply.text())
}

fn status(world: &World) -> Value {
    let shown = world.done(&["credential", "show", "mail", "--output", "json"]);
    serde_json::from_str(&shown).expect("JSON")
}

/// What the backend is called with.
fn bearer(world: &World) -> Option<String> {
    let reply = world.get("/mail", "");
    (reply.status == 200).then(|| reply.json()["authorization"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_consent_is_redeemed_once_and_used() {
    let (backend, provider) = (echo(), rotating(3_600));
    let world = world(&backend);
    deploy(&world, &provider, &json!({}));
    assert_eq!(status(&world)["status"], "Unauthorized");
    assert_eq!(world.get("/mail", "").status, 503);
    let asked = begin(&world);
    for (name, want) in [
        ("prompt", "consent"),
        ("client_id", "id"),
        ("response_type", "code"),
        ("redirect_uri", "https://localhost:8443/oauth/callback"),
        ("scope", "a b"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(asked[name], want, "{name}");
    }
    assert!(!asked.values().any(|value| value.contains("s3cret")));
    let (code, page) = come_back(&world, &asked["state"], "&code=the-code");
    assert!(code == 200 && page.contains("is authorised"), "{page}");
    let journal = provider.journal();
    let [exchange] = journal.as_slice() else { panic!("{journal:?}") };
    assert_eq!(exchange.line, "POST /token?scope=a+b HTTP/1.1");
    let sent = form(&exchange.body);
    assert_eq!((sent["grant_type"].as_str(), sent["code"].as_str()), ("authorization_code", "the-code"));
    let challenge = URL_SAFE_NO_PAD.encode(flowgate::crypto::digest::sha256(sent["code_verifier"].as_bytes()));
    assert_eq!(challenge, asked["code_challenge"]);
    until("the route uses it", || bearer(&world).as_deref() == Some("Bearer a0"));
    assert_eq!(status(&world)["status"], "Deployed");
    let (again, page) = come_back(&world, &asked["state"], "&code=the-code");
    assert!(again == 400 && page.contains("used already"), "{page}");
    assert_eq!(provider.journal().len(), 1, "the code was sent once");
}

#[test]
fn a_callback_that_is_not_ours_sends_no_code_anywhere() {
    let (backend, provider) = (echo(), rotating(3_600));
    let world = world(&backend);
    deploy(&world, &provider, &json!({ "issuer": "https://honest.example" }));
    for query in ["", "?code=c", "?state=wrong&code=c", "?state=a&state=b&code=c"] {
        let reply = world.get(&format!("/oauth/callback{query}"), "");
        assert_eq!(reply.status, 400, "{query}");
    }
    for more in ["&code=c", "&code=c&iss=https://evil.example", "&error=%3Cscript%3E&iss=https://honest.example"] {
        let (code, page) = come_back(&world, &begin(&world)["state"], more);
        assert!(code == 400 && !page.contains("script"), "{more}: {page}");
    }
    assert!(provider.journal().is_empty());
    let (code, _) = come_back(&world, &begin(&world)["state"], "&code=c&iss=https://honest.example");
    assert_eq!(code, 200);
}

#[test]
fn refresh_tokens_rotate_unattended_and_each_is_used_once() {
    let (backend, provider) = (echo(), rotating(2));
    let world = world(&backend);
    deploy(&world, &provider, &json!({}));
    let asked = begin(&world);
    assert_eq!(come_back(&world, &asked["state"], "&code=c").0, 200);
    until("four rotations have happened", || provider.journal().len() >= 5);
    for (at, seen) in provider.journal().iter().enumerate().skip(1) {
        let sent = form(&seen.body);
        assert_eq!(seen.line, "POST /token HTTP/1.1", "no scope with a refresh token");
        assert_eq!(sent["grant_type"], "refresh_token");
        assert_eq!(sent["refresh_token"], format!("r{}", at - 1), "each was used once, in its turn");
        assert!(!sent.contains_key("scope"));
    }
    assert!(bearer(&world).is_some());
}

#[test]
fn a_provider_that_gives_no_other_refresh_token_is_asked_with_the_first() {
    let backend = echo();
    let provider = Stub::new(|before, _| {
        let mut body = json!({ "access_token": format!("a{before}"), "expires_in": 2 });
        if before == 0 {
            body["refresh_token"] = json!("forever");
        }
        reply("200 OK", &body.to_string())
    });
    let world = world(&backend);
    deploy(&world, &provider, &json!({}));
    assert_eq!(come_back(&world, &begin(&world)["state"], "&code=c").0, 200);
    until("three refreshes have happened", || provider.journal().len() >= 4);
    assert!(provider.journal().iter().skip(1).all(|seen| form(&seen.body)["refresh_token"] == "forever"));
}

#[test]
fn microsoft_is_asked_for_offline_access_in_the_body_each_time() {
    let (backend, provider) = (echo(), rotating(2));
    let world = world(&backend);
    deploy(&world, &provider, &json!({ "provider": "microsoft-365", "scope": "https://outlook.office.com/SMTP.Send" }));
    let asked = begin(&world);
    let scope = "https://outlook.office.com/SMTP.Send offline_access";
    assert_eq!(asked["scope"], scope);
    assert_eq!(come_back(&world, &asked["state"], "&code=c").0, 200);
    until("a refresh has happened", || provider.journal().len() >= 2);
    for seen in provider.journal() {
        assert_eq!((seen.line.as_str(), form(&seen.body)["scope"].as_str()), ("POST /token HTTP/1.1", scope));
    }
    assert!(status(&world)["refresh_token_until"].as_str().is_some_and(|end| end.starts_with("202")), "90 days");
}

#[test]
fn an_answer_without_a_refresh_token_is_an_error_that_names_the_parameter() {
    let backend = echo();
    let provider = Stub::new(|_, _| reply("200 OK", "{\"access_token\":\"a\",\"expires_in\":3600}"));
    let world = world(&backend);
    deploy(&world, &provider, &json!({}));
    assert_eq!(come_back(&world, &begin(&world)["state"], "&code=c").0, 502);
    let told = status(&world);
    assert_eq!(told["status"], "Error");
    assert!(told["last_error"].as_str().is_some_and(|text| text.contains("offline_access")), "{told}");
}

#[test]
fn a_consent_goes_on_when_another_is_refused() {
    let (backend, provider) = (echo(), rotating(2));
    let world = world(&backend);
    deploy(&world, &provider, &json!({}));
    assert_eq!(come_back(&world, &begin(&world)["state"], "&code=c").0, 200);
    until("the route works", || bearer(&world).is_some());
    assert_eq!(come_back(&world, &begin(&world)["state"], "&error=access_denied").0, 400);
    assert_eq!(status(&world)["last_error"], "the provider or the user refused");
    let before = provider.journal().len();
    until("rotations go on", || provider.journal().len() >= before + 2);
    assert!(bearer(&world).is_some());
    assert_eq!(status(&world)["status"], "Deployed");
}

#[test]
fn a_dead_refresh_token_is_told_and_a_new_consent_revives_the_credential() {
    let (backend, provider) = (echo(), rotating(2));
    let world = world(&backend);
    deploy(&world, &provider, &json!({ "refresh-token-expiry": 30 }));
    assert_eq!(come_back(&world, &begin(&world)["state"], "&code=c").0, 200);
    until("the route works", || bearer(&world).is_some());
    provider
        .say(|_, _| reply("400 Bad Request", "{\"error\":\"invalid_grant\",\"error_description\":\"<b>revoked</b>\"}"));
    until("the end is known", || status(&world)["status"] == "Error");
    let told = status(&world)["last_error"].as_str().expect("told").to_owned();
    assert!(
        told.contains("invalid_grant")
            && told.contains("before a fifth of its life")
            && told.contains("authorise it again"),
        "{told}"
    );
    assert!(!told.contains("<b>"));
    until("the route says so", || world.get("/mail", "").status == 503);
    let tries = provider.journal().len();
    provider.say(|before, _| {
        reply(
            "200 OK",
            &json!({ "access_token": format!("a{before}"), "refresh_token": "r", "expires_in": 3600 }).to_string(),
        )
    });
    assert_eq!(come_back(&world, &begin(&world)["state"], "&code=c").0, 200);
    until("the route works again", || bearer(&world).is_some());
    assert_eq!(provider.journal().len(), tries + 1, "a dead token was not tried again");
}

/// A provider that takes each refresh token once and ends the consent when one comes again. What
/// happens to a refresh between the change and the answer is the test's to say.
fn single_use(between: impl Fn(usize) + Send + Sync + 'static) -> Stub {
    let valid = Mutex::new(String::new());
    Stub::new(move |before, seen| {
        let mut valid = valid.lock().expect("unpoisoned");
        let sent = form(&seen.body);
        if sent["grant_type"] == "refresh_token" && sent["refresh_token"] != *valid {
            valid.clear();
            return reply("400 Bad Request", "{\"error\":\"invalid_grant\"}");
        }
        *valid = format!("r{before}");
        let body = json!({ "access_token": format!("a{before}"), "refresh_token": *valid, "expires_in": 2 });
        drop(valid);
        if sent["grant_type"] == "refresh_token" {
            between(before);
        }
        reply("200 OK", &body.to_string())
    })
}

/// The same as a process, which can be killed.
fn site(backend: &Stub) -> Site {
    let site = Site::new();
    let text = std::fs::read_to_string(site.config()).expect("there");
    let head = text.split("routes:").next().expect("text").trim_end().to_owned();
    let routes = format!(
        "  mail: {{ servers: [\"http://{}\"] }}\nroutes:\n  - {{ name: mail, path: /mail, authorization: none, backend: mail, credential: mail }}\n",
        backend.address
    );
    std::fs::write(site.config(), format!("outbound: {{ allow_networks: [127.0.0.0/8] }}\n{head}\n{routes}"))
        .expect("written");
    site
}

fn authorise(site: &Site, serving: &Serving, provider: &Stub) {
    let members = json!({
        "type": "oauth2-authorization-code", "name": "mail", "client-id": "id", "client-secret": "s",
        "authorization-url": format!("http://{}/auth", provider.address),
        "token-service-url": format!("http://{}/token", provider.address),
    });
    let file = site.dir.path().join("m.json");
    std::fs::write(&file, members.to_string()).expect("written");
    let _ = site.cli(&["credential", "create", "--parameters", file.to_str().expect("a path")]);
    let url = site.done(&["credential", "authorize", "mail", "--no-wait"]);
    let state = form(url.trim().split_once('?').expect("a query").1)["state"].clone();
    assert_eq!(serving.get(&format!("/oauth/callback?state={state}&code=c"), "").status, 200);
}

fn told(site: &Site) -> Value {
    serde_json::from_str(&site.done(&["credential", "show", "mail", "--output", "json"])).expect("JSON")
}

#[test]
fn a_kill_before_the_provider_has_acted_costs_nothing() {
    let (backend, provider) = (echo(), single_use(|_| ()));
    let site = site(&backend);
    let mut serving = site.serve();
    authorise(&site, &serving, &provider);
    // from now on requests arrive and nothing is done about them
    let asked = Arc::new(AtomicBool::new(false));
    let arrived = asked.clone();
    let acting = provider.say(move |_, _| {
        arrived.store(true, Ordering::SeqCst);
        std::thread::park_timeout(Duration::from_secs(20));
        String::new()
    });
    until("the provider is asked", || asked.load(Ordering::SeqCst));
    serving.kill();
    provider.resume(acting);
    let serving = site.serve();
    until("it goes on by itself", || serving.get("/mail", "").status == 200);
    assert_eq!(told(&site)["last_error"], Value::Null);
}

#[test]
fn an_answer_that_was_lost_is_told_as_such() {
    let backend = echo();
    let gate = Arc::new(AtomicBool::new(true));
    let acted = Arc::new(AtomicBool::new(false));
    let (closed, happened) = (gate.clone(), acted.clone());
    let provider = single_use(move |_| {
        happened.store(true, Ordering::SeqCst);
        while closed.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    });
    let site = site(&backend);
    let mut serving = site.serve();
    authorise(&site, &serving, &provider);
    until("the provider has used the refresh token up", || acted.load(Ordering::SeqCst));
    serving.kill();
    gate.store(false, Ordering::SeqCst);
    let serving = site.serve();
    until("the loss is known", || told(&site)["status"] == "Error");
    let error = told(&site)["last_error"].as_str().expect("told").to_owned();
    assert!(error.contains("an earlier refresh was cut off") && error.contains("authorise it again"), "{error}");
    authorise(&site, &serving, &provider);
    until("a new consent revives it", || serving.get("/mail", "").status == 200);
}

#[test]
fn kills_at_any_moment_of_a_rotation_leave_a_working_or_an_honest_credential() {
    let (backend, provider) = (echo(), single_use(|_| ()));
    let site = site(&backend);
    let mut serving = site.serve();
    authorise(&site, &serving, &provider);
    // lost for good, which a call with the last token that is still good does not show
    let honest = || told(&site)["last_error"].as_str().is_some_and(|text| text.contains("cut off"));
    for round in 0..8 {
        let before = provider.journal().len();
        until("a rotation happens", || provider.journal().len() > before || honest());
        // somewhere between the answer's first byte and its being used
        (0..round * 150_000).for_each(|turn| {
            std::hint::black_box(turn);
        });
        serving.kill();
        serving = site.serve();
        until("it works or says why not", || serving.get("/mail", "").status == 200 || honest());
        if honest() {
            authorise(&site, &serving, &provider);
        }
    }
}

#[test]
fn two_credentials_of_one_client_and_user_are_warned_about() {
    let (backend, provider) = (echo(), rotating(3_600));
    let world = world(&backend);
    deploy(&world, &provider, &json!({ "user-name": "u" }));
    let members = json!({
        "type": "oauth2-authorization-code", "name": "twin", "client-id": "id", "client-secret": "s", "user-name": "u",
        "authorization-url": "https://auth.example/a", "token-service-url": "https://auth.example/t",
    });
    std::fs::write(world.file("t.json"), members.to_string()).expect("written");
    let file = world.file("t.json");
    let output = world.cli(&["credential", "create", "--parameters", file.to_str().expect("a path")]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("`mail` uses the same client and user"));
}
