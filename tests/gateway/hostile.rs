//! Tokens made to deceive: each is refused for its own reason, and none reaches the backend.

use crate::world::World;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use flowgate::config;
use flowgate::crypto::jws;
use flowgate::crypto::keyring::{Algorithm, SigningKey, generate};
use flowgate::domain::signing::SigningKeyRecord;
use flowgate::gateway::administer::signing;
use flowgate::store::Store;
use serde_json::{Value, json};
use std::collections::HashSet;

/// The gateway's own signing key: what follows from a good signature alone must not be enough.
fn own_key(world: &World) -> SigningKey {
    let path = world.file("config.yaml");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = config::load(&path, &|_| None).expect("valid").config;
        let store = Store::open(&config.store).await.expect("opens");
        let records = store.list::<SigningKeyRecord>().await.expect("lists");
        signing::open(&store, &records[0]).expect("opens")
    })
}

fn sign(key: &SigningKey, header: &Value, claims: &Value) -> String {
    let input = jws::signing_input(header, claims);
    let signature = key.sign(input.as_bytes()).expect("signs");
    jws::finish(input, &signature)
}

/// Signs parts that are no values, such as JSON with twins in it.
fn sign_text(key: &SigningKey, header: &str, claims: &str) -> String {
    let input = format!("{}.{}", B64.encode(header), B64.encode(claims));
    let signature = key.sign(input.as_bytes()).expect("signs");
    jws::finish(input, &signature)
}

fn part(token: &str, at: usize) -> Value {
    serde_json::from_slice(&B64.decode(token.split('.').nth(at).expect("a part")).expect("base64url")).expect("JSON")
}

fn with(value: &Value, name: &str, change: Value) -> Value {
    let mut out = value.clone();
    match change {
        Value::Null => drop(out.as_object_mut().expect("an object").remove(name)),
        change => out[name] = change,
    }
    out
}

/// Every hostile token with the reason that it is due.
#[expect(clippy::too_many_lines, reason = "a table")]
fn hostile(good: &str, key: &SigningKey) -> Vec<(String, &'static str)> {
    let (header, claims) = (part(good, 0), part(good, 1));
    let parts: Vec<_> = good.split('.').collect();
    let stranger = |algorithm| SigningKey::prepare(algorithm, &generate(algorithm).expect("made")).expect("prepared");
    let (rsa, ec) = (stranger(Algorithm::RS256), stranger(Algorithm::ES256));
    let now = claims["iat"].as_i64().expect("iat");
    let mut out: Vec<(String, &'static str)> = Vec::new();

    // form
    for bad in [
        "x".into(),
        "..".into(),
        "a.b".into(),
        "a.b.c".into(),
        "a.b.c.d".into(),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.x"),
        format!("{good}="),
        format!("{good}A\u{7f}"),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}..{}", parts[0], parts[2]),
        format!(".{}.{}", parts[1], parts[2]),
        good.replace('.', "%2E"),
        good.replace('.', ","),
        format!("{{\"payload\":\"{}\",\"signatures\":[]}}", parts[1]),
        parts[0].into(),
        format!("{}.{}.{}", parts[1], parts[0], parts[2]),
        format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
        format!("{}.{}.{}/", parts[0], parts[1], &parts[2][1..]),
        format!("{}.{}.{}", B64.encode("[]"), parts[1], parts[2]),
        format!("{}.{}.{}", B64.encode("null"), parts[1], parts[2]),
        format!("{}.{}.{}", B64.encode("{"), parts[1], parts[2]),
        format!("{}.{}.{}", parts[0], B64.encode("[]"), parts[2]),
        format!("{}.{}.{}", parts[0], B64.encode("\"x\""), parts[2]),
        format!("{}.{}.{}", parts[0], B64.encode(b"\xff"), parts[2]),
    ] {
        out.push((bad, "token-malformed"));
    }
    out.push(("a".repeat(17_000), "token-too-long"));
    for twins in [
        "{\"alg\":\"RS256\",\"alg\":\"RS256\",\"kid\":\"K\",\"typ\":\"JWT\"}",
        "{\"alg\":\"RS256\",\"kid\":\"K\",\"kid\":\"K\",\"typ\":\"JWT\"}",
        "{\"alg\":\"RS256\",\"kid\":\"K\",\"typ\":\"JWT\",\"x\":1,\"x\":2}",
    ] {
        out.push((sign_text(key, &twins.replace('K', &key.kid), &claims.to_string()), "token-malformed"));
    }
    for twin in [
        "\"exp\":99999999999",
        "\"scope\":[\"it-rt-test!b1.Admin.do\"]",
        "\"iss\":\"x\"",
        "\"own\":1,\"own\":2",
        "\"deep\":{\"a\":1,\"a\":2}",
    ] {
        let text = claims.to_string();
        let doubled = format!("{},{twin}}}", &text[..text.len() - 1]);
        out.push((sign_text(key, &header.to_string(), &doubled), "token-malformed"));
    }

    // header
    for name in ["crit", "b64", "jwk", "x5u", "x5c", "zip", "enc", "cty", "epk"] {
        for value in [json!(true), json!("x"), json!(["exp"])] {
            out.push((sign(key, &with(&header, name, value), &claims), "token-header-unsupported"));
        }
    }
    for value in [Value::Null, json!("at+jwt"), json!("jwt"), json!(1), json!("JWT "), json!("id_token")] {
        out.push((sign(key, &with(&header, "typ", value), &claims), "token-type"));
    }
    for value in ["none", "None", "HS256", "HS512", "RS384", "RS512", "PS256", "ES256", "EdDSA", "rs256", ""] {
        out.push((sign(key, &with(&header, "alg", json!(value)), &claims), "token-algorithm"));
    }
    for value in [Value::Null, json!(1), json!(["RS256"])] {
        out.push((sign(key, &with(&header, "alg", value.clone()), &claims), "token-malformed"));
        out.push((sign(key, &with(&header, "kid", value), &claims), "token-malformed"));
    }
    for value in ["", "../../dev/null", "' OR 1=1 --", "default-jwt-key-0000000000", "\u{0}"] {
        out.push((sign(key, &with(&header, "kid", json!(value)), &claims), "token-key-unknown"));
    }
    out.push((sign(key, &with(&header, "kid", json!(key.kid.to_uppercase())), &claims), "token-key-unknown"));

    // signature
    let flipped = |at: usize| {
        let mut bytes = B64.decode(parts[at]).expect("base64url");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        B64.encode(bytes)
    };
    out.push((format!("{}.{}.{}", parts[0], parts[1], flipped(2)), "token-signature"));
    out.push((format!("{}.{}.{}", parts[0], parts[1], B64.encode([0; 256])), "token-signature"));
    out.push((format!("{}.{}.{}", parts[0], parts[1], B64.encode([0xff; 256])), "token-signature"));
    out.push((format!("{}.{}.{}", parts[0], parts[1], B64.encode("short")), "token-signature"));
    let widened = with(&claims, "scope", json!(["it-rt-test!b1.ESBMessaging.send", "it-rt-test!b1.Admin.do"]));
    out.push((format!("{}.{}.{}", parts[0], B64.encode(widened.to_string()), parts[2]), "token-signature"));
    out.push((sign(&rsa, &header, &claims), "token-signature"));
    out.push((sign(&ec, &header, &claims), "token-signature"));
    out.push((sign(&ec, &with(&header, "alg", json!("ES256")), &claims), "token-algorithm"));
    out.push((sign(&rsa, &with(&header, "jku", json!("https://evil.example/token_keys")), &claims), "token-signature"));
    out.push((
        sign(&rsa, &with(&with(&header, "kid", json!(rsa.kid)), "jku", json!("https://evil.example")), &claims),
        "token-key-unknown",
    ));

    // claims, under a good signature
    let mut claim =
        |name: &str, value: Value, reason| out.push((sign(key, &header, &with(&claims, name, value)), reason));
    for name in ["jti", "iss", "aud", "zid", "iat", "exp", "cid", "client_id", "azp", "sub", "scope", "ext_attr"] {
        claim(name, Value::Null, "token-claims");
    }
    for value in [json!("x"), json!("https://localhost:8443/oauth/token/"), json!("https://LOCALHOST:8443/oauth/token")]
    {
        claim("iss", value, "token-issuer");
    }
    for value in [json!([]), json!(["other"]), json!(["it-rt-test!b1.x"])] {
        claim("aud", value, "token-audience");
    }
    claim("zid", json!("another"), "token-tenant");
    for value in
        [json!("9999999999"), json!(9_999_999_999.5), json!(-1), json!(u64::MAX), json!(1e300), json!([1]), json!(true)]
    {
        claim("exp", value.clone(), "token-claims");
        claim("iat", value, "token-claims");
    }
    for value in [json!("1"), json!(-1), json!(1.5)] {
        claim("nbf", value, "token-claims");
    }
    claim("exp", json!(now), "token-claims");
    for name in ["sub", "azp", "client_id"] {
        claim(name, json!("someone else"), "token-claims");
    }
    claim("scope", json!("it-rt-test!b1.ESBMessaging.send"), "token-claims");
    claim("scope", json!([1]), "token-claims");
    claim(
        "ext_attr",
        json!({"serviceinstanceid": "x", "servicekeyid": claims["ext_attr"]["servicekeyid"]}),
        "client-gone",
    );
    claim(
        "ext_attr",
        json!({"serviceinstanceid": claims["ext_attr"]["serviceinstanceid"], "servicekeyid": "x"}),
        "key-gone",
    );
    out.push((
        sign(key, &header, &with(&with(&claims, "iat", json!(now - 9_000)), "exp", json!(now - 61))),
        "token-expired",
    ));
    out.push((
        sign(key, &header, &with(&with(&claims, "iat", json!(now + 600)), "exp", json!(now + 9_000))),
        "token-not-yet-valid",
    ));
    out
}

#[test]
fn every_hostile_token_is_refused_for_its_own_reason_and_never_reaches_the_backend() {
    let world = World::new();
    let sender = world.sender("s", "ESBMessaging.send");
    let good = world.token(&sender);
    let key = own_key(&world);
    // the tools of this test can make a token that is taken
    let again = sign(&key, &part(&good, 0), &part(&good, 1));
    assert_eq!(world.call("/http/orders/1", &again).status, 200);
    let tokens = hostile(&good, &key);
    let distinct: HashSet<_> = tokens.iter().map(|(token, _)| token).collect();
    assert!(distinct.len() >= 100, "only {} hostile tokens", distinct.len());
    let before = world.backend.hits();
    let mut connection = world.connection();
    let mut due: Vec<(String, &str, String)> = Vec::new();
    for (token, reason) in &tokens {
        let reply = connection
            .send(&format!("GET /http/orders/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"));
        assert!(matches!(reply.status, 400 | 401), "{}: {reason}: {token}", reply.status);
        // a control character ends the connection before anything is judged
        match reply.header("x-request-id") {
            Some(id) => due.push((id.to_owned(), reason, token.clone())),
            None => connection = world.connection(),
        }
    }
    assert_eq!(world.backend.hits(), before, "a hostile token reached the backend");
    let last = due.last().expect("some").0.clone();
    world.logged(|line| line["request_id"] == last.as_str());
    let log = world.log();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for (id, reason, token) in &due {
        let line = lines.iter().find(|line| line["request_id"] == id.as_str()).expect("logged");
        assert_eq!(line["reason"], *reason, "{token}");
    }
    assert_eq!(connection.call("/http/orders/1", &good), 200, "and the good one still gets through");
}
