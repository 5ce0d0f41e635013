//! Tokens of other issuers: taken where a route lists them, and by that issuer's keys alone.

use crate::stub::{Stub, reply};
use crate::world::{World, overlaid, until};
use flowgate::crypto::jws::{finish, signing_input};
use flowgate::crypto::keyring::{Algorithm, SigningKey, generate};
use serde_json::{Value, json};
use std::sync::Arc;

const NAME: &str = "https://idp.example";

fn key(algorithm: Algorithm) -> Arc<SigningKey> {
    Arc::new(SigningKey::prepare(algorithm, &generate(algorithm).expect("made")).expect("prepared"))
}

fn key_set(keys: &[&SigningKey]) -> String {
    json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }).to_string()
}

/// A provider that publishes these keys.
fn provider(keys: &[&SigningKey]) -> Stub {
    let body = key_set(keys);
    Stub::new(move |_, _| reply("200 OK", &body))
}

fn token_of(key: &SigningKey, typ: &str, more: &Value) -> String {
    let now = jiff::Timestamp::now().as_second();
    let claims = json!({ "iss": NAME, "aud": "orders", "iat": now, "exp": now + 600, "client_id": "app", "sub": "app",
        "realm_access": { "roles": ["ESBMessaging.send"] } });
    let header = json!({ "alg": key.algorithm.name(), "kid": key.kid, "typ": typ });
    let input = signing_input(&header, &overlaid(claims, more));
    let signature = key.sign(input.as_bytes()).expect("signed");
    finish(input, &signature)
}

fn token(key: &SigningKey) -> String {
    token_of(key, "at+jwt", &json!({}))
}

fn world_of(jwks: &str) -> World {
    let routes = format!(
        "
routes:
  - {{ name: own, path: /own, backend: echo }}
  - {{ name: theirs, path: /theirs, backend: echo, issuers: [\"{NAME}\"] }}
  - {{ name: both, path: /both, backend: echo, issuers: [own, \"{NAME}\"] }}
"
    );
    let issuer =
        format!("{{ issuer: \"{NAME}\", jwks: \"{jwks}\", audience: orders, roles_claim: realm_access.roles }}");
    World::with(&routes, &format!("outbound: {{ allow_networks: [127.0.0.0/8] }}\nissuers:\n  - {issuer}\n"))
}

fn world(provider: &Stub) -> World {
    world_of(&format!("http://{}/jwks", provider.address))
}

#[test]
fn a_route_takes_the_tokens_of_those_whom_it_lists() {
    let key = key(Algorithm::ES256);
    let provider = provider(&[&key]);
    let world = world(&provider);
    let (own, theirs) = (world.token(&world.sender("sender", "ESBMessaging.send")), token(&key));
    let status = |path: &str, token: &str| world.call(path, token).status;
    assert_eq!([status("/own", &own), status("/theirs", &own), status("/both", &own)], [200, 401, 200]);
    assert_eq!([status("/own", &theirs), status("/theirs", &theirs), status("/both", &theirs)], [401, 200, 200]);
    let seen = world.call("/theirs", &theirs).text().to_ascii_lowercase();
    assert!(seen.contains("x-auth-client-id: app") && seen.contains(&format!("x-auth-issuer: {NAME}")), "{seen}");
    let forged = format!("Authorization: Bearer {own}\r\nX-Auth-Issuer: {NAME}\r\nX_Auth_Issuer: {NAME}\r\n");
    assert!(!world.get("/own", &forged).text().contains(NAME));
    let line = world.logged(|line| line["route"] == "own" && line["status"] == 401);
    assert_eq!(line["reason"], "token-issuer");
}

#[test]
fn what_such_a_token_says_is_judged_as_our_own_is() {
    let (known, stranger) = (key(Algorithm::RS256), key(Algorithm::RS256));
    let provider = provider(&[&known]);
    let world = world(&provider);
    let now = jiff::Timestamp::now().as_second();
    let impostor = {
        let header = json!({ "alg": "RS256", "kid": known.kid, "typ": "at+jwt" });
        let input = signing_input(&header, &json!({ "iss": NAME, "aud": "orders", "exp": now + 600, "sub": "app" }));
        let signature = stranger.sign(input.as_bytes()).expect("signed");
        finish(input, &signature)
    };
    for (what, token, status, reason) in [
        ("good", token(&known), 200, None),
        ("a plain JWT", token_of(&known, "JWT", &json!({})), 200, None),
        ("an id token", token_of(&known, "id+jwt", &json!({})), 401, Some("token-type")),
        ("for another", token_of(&known, "JWT", &json!({ "aud": "other" })), 401, Some("token-audience")),
        ("over", token_of(&known, "JWT", &json!({ "iat": 1, "exp": now - 90 })), 401, Some("token-expired")),
        ("not yet", token_of(&known, "JWT", &json!({ "nbf": now + 90 })), 401, Some("token-not-yet-valid")),
        ("no role", token_of(&known, "JWT", &json!({ "realm_access": {} })), 403, Some("role-missing")),
        ("another's signature", impostor, 401, Some("token-signature")),
    ] {
        assert_eq!(world.call("/theirs", &token).status, status, "{what}");
        if let Some(reason) = reason {
            world.logged(|line| line["reason"] == reason);
        }
    }
    assert_eq!(world.backend.hits(), 2);
}

#[test]
fn new_keys_are_fetched_once_when_a_token_names_one_and_old_ones_end() {
    let (old, new) = (key(Algorithm::ES256), key(Algorithm::ES256));
    let provider = provider(&[&old]);
    let world = world(&provider);
    assert_eq!(world.call("/theirs", &token(&old)).status, 200);
    let first = provider.journal().len();
    let body = key_set(&[&new]);
    provider.say(move |_, _| reply("200 OK", &body));
    // not more often than every five seconds, whatever key ids callers make up: so long it waits
    assert_eq!(world.call("/theirs", &token(&new)).status, 200);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(world.call("/theirs", &token(&new)).status, 200));
        }
    });
    assert_eq!(provider.journal().len(), first + 1);
    assert_eq!(world.call("/theirs", &token(&old)).status, 401, "its key is published no more");
    // another key under the same id
    let third = key(Algorithm::ES256);
    let mut jwk = third.jwk().clone();
    jwk["kid"] = json!(new.kid);
    let body = json!({ "keys": [jwk] }).to_string();
    provider.say(move |_, _| reply("200 OK", &body));
    let stranger = token(&key(Algorithm::ES256));
    until("tokens of the key before have ended", || {
        assert_eq!(world.call("/theirs", &stranger).status, 401);
        world.call("/theirs", &token(&new)).status == 401
    });
}

#[test]
fn keys_stay_while_their_provider_is_down() {
    let known = key(Algorithm::ES256);
    let provider = provider(&[&known]);
    let world = world(&provider);
    assert_eq!(world.call("/theirs", &token(&known)).status, 200);
    provider.say(|_, _| reply("503 Service Unavailable", "{}"));
    let stranger = token(&key(Algorithm::ES256));
    until("they were asked for again", || {
        assert_eq!(world.call("/theirs", &stranger).status, 401);
        provider.journal().len() > 1
    });
    assert_eq!(world.call("/theirs", &token(&known)).status, 200);
    let asked = provider.journal().len();
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| assert_eq!(world.call("/theirs", &stranger).status, 401));
        }
    });
    assert!(provider.journal().len() <= asked + 2, "{asked}");
}

#[test]
fn a_key_set_may_be_a_file_that_is_followed() {
    let (first, second) = (key(Algorithm::ES256), key(Algorithm::RS256));
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("jwks.json");
    std::fs::write(&file, key_set(&[&first])).expect("written");
    let world = world_of(file.to_str().expect("a path"));
    assert_eq!(world.call("/theirs", &token(&first)).status, 200);
    std::fs::write(&file, key_set(&[&second])).expect("written");
    until("the new key counts", || world.call("/theirs", &token(&second)).status == 200);
    assert_eq!(world.call("/theirs", &token(&first)).status, 401);
}

#[test]
fn the_token_server_tells_nothing_of_others_tokens() {
    let known = key(Algorithm::ES256);
    let provider = provider(&[&known]);
    let world = world(&provider);
    let sender = world.sender("asks", "ESBMessaging.send");
    assert_eq!(world.call("/theirs", &token(&known)).status, 200);
    let told = world.post("/introspect", &sender.basic(), &format!("token={}", token(&known)));
    assert_eq!((told.status, told.json()), (200, json!({ "active": false })));
    let destination = "/destination-configuration/v1/destinations/x";
    assert_eq!(world.call(destination, &token(&known)).status, 401);
}
