//! The token server: every form of request that real clients send, every answer that they need.

use crate::world::{Sender, World, basic, until};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

const GRANT: &str = "grant_type=client_credentials";

fn claims(token: &str) -> (Value, Value) {
    let part = |at| {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(at).expect("a part")).expect("base64url"))
            .expect("JSON")
    };
    (part(0), part(1))
}

fn encoded(text: &str, strict: bool) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || (!strict && byte == b'-');
    text.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_way_in_which_clients_ask_gets_a_token() {
    let world = World::new();
    let sender = world.sender("s", "ESBMessaging.send");
    let Sender { id, secret } = &sender;
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let credentials = format!("client_id={}&client_secret={}", encoded(id, false), encoded(secret, false));
    let ask = |query: &str, headers: &str, body: &str| {
        let request = format!(
            "POST /oauth/token{query} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        world.raw(request.as_bytes())
    };
    let basic_raw = sender.basic();
    for (what, query, headers, body) in [
        ("query and Basic, empty body", format!("?{GRANT}"), basic_raw.clone(), String::new()),
        (
            "the same with a JSON content type",
            format!("?{GRANT}"),
            format!("{basic_raw}Content-Type: application/json\r\n"),
            String::new(),
        ),
        ("form and Basic", String::new(), format!("{basic_raw}{form}"), GRANT.into()),
        ("query and form agree", format!("?{GRANT}"), format!("{basic_raw}{form}"), GRANT.into()),
        (
            "credentials in the form",
            String::new(),
            "Content-Type: application/x-www-form-urlencoded;charset=UTF-8\r\n".into(),
            format!("{GRANT}&{credentials}"),
        ),
        ("form-encoded Basic", format!("?{GRANT}"), basic(&encoded(id, false), &encoded(secret, false)), String::new()),
        (
            "strictly encoded Basic",
            format!("?{GRANT}"),
            basic(&encoded(id, true), &encoded(secret, true)),
            String::new(),
        ),
        ("basic in lower case", format!("?{GRANT}"), basic_raw.replace("Basic", "basic"), String::new()),
        (
            "client_id repeated in the form",
            String::new(),
            format!("{basic_raw}{form}"),
            format!("{GRANT}&client_id={}", encoded(id, false)),
        ),
        (
            "client_id in the query",
            format!("?{GRANT}&client_id={}", encoded(id, false)),
            basic_raw.clone(),
            String::new(),
        ),
        (
            "unknown parameters",
            format!("?{GRANT}&x=1&x=2"),
            format!("{basic_raw}{form}"),
            "token_format=jwt&response_type=token".into(),
        ),
    ] {
        let reply = ask(&query, &headers, &body);
        assert_eq!(reply.status, 200, "{what}: {}", reply.text());
    }
    // curl -X POST -u sends neither a length nor a type
    let bare = format!("POST /oauth/token?{GRANT} HTTP/1.1\r\nHost: x\r\n{basic_raw}Connection: close\r\n\r\n");
    assert_eq!(world.raw(bare.as_bytes()).status, 200);
}

#[test]
fn the_answer_has_what_every_client_needs() {
    let world = World::new();
    world.done(&["role", "create", "b"]);
    let sender = world.sender("s", "ESBMessaging.send,b");
    world.done(&["instance", "update", "s", "--token-validity", "7200"]);
    until("the update holds", || world.post("/oauth/token", &sender.basic(), GRANT).json()["expires_in"] == 7200);
    let reply = world.post("/oauth/token", &sender.basic(), GRANT);
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("pragma"), Some("no-cache"));
    assert_eq!(reply.header("content-type"), Some("application/json;charset=UTF-8"));
    assert!(reply.header("set-cookie").is_none() && reply.header("x-request-id").is_some());
    let body = reply.json();
    assert_eq!(body["token_type"], "bearer");
    assert_eq!(body["scope"], "it-rt-test!b1.ESBMessaging.send it-rt-test!b1.b");
    assert!(body.get("refresh_token").is_none());
    let (header, claims) = claims(body["access_token"].as_str().expect("a token"));
    assert_eq!(header["alg"], "RS256");
    assert_eq!(header["typ"], "JWT");
    assert_eq!(header["jku"], "https://localhost:8443/token_keys");
    assert_eq!(claims["scope"], json!(["it-rt-test!b1.ESBMessaging.send", "it-rt-test!b1.b"]));
    for name in ["sub", "client_id", "cid", "azp"] {
        assert_eq!(claims[name], sender.id.as_str(), "{name}");
    }
    assert_eq!(claims["iss"], "https://localhost:8443/oauth/token");
    assert_eq!(claims["aud"], json!(["it-rt-test!b1", sender.id]));
    assert_eq!(claims["ext_attr"]["enhancer"], "XSUAA");
    assert_eq!(claims["exp"].as_i64().expect("exp") - claims["iat"].as_i64().expect("iat"), 7200);
    assert_eq!(claims["jti"], body["jti"]);
}

#[test]
fn a_scope_is_granted_exactly_as_asked() {
    let world = World::new();
    let sender = world.sender("s", "ESBMessaging.send");
    let reply = world.post("/oauth/token", &sender.basic(), &format!("{GRANT}&scope=it-rt-test!b1.ESBMessaging.send"));
    assert_eq!(reply.json()["scope"], "it-rt-test!b1.ESBMessaging.send");
    let refused = world.post("/oauth/token", &sender.basic(), &format!("{GRANT}&scope=%3Cscript%3E"));
    assert_eq!((refused.status, refused.json()["error"].as_str()), (400, Some("invalid_scope")));
    assert!(!refused.text().contains("<script"));
}

#[test]
fn refusals_follow_rfc_6749() {
    let world = World::new();
    let sender = world.sender("s", "ESBMessaging.send");
    let other = world.sender("other", "ESBMessaging.send");
    let good = sender.basic();
    let pair = format!("client_id={}&client_secret={}", encoded(&sender.id, false), encoded(&sender.secret, false));
    for (what, headers, body, status, error) in [
        ("nobody", String::new(), GRANT.into(), 401, "invalid_client"),
        ("a wrong secret", basic(&sender.id, "x"), GRANT.into(), 401, "invalid_client"),
        ("another's secret", basic(&sender.id, &other.secret), GRANT.into(), 401, "invalid_client"),
        ("an unknown client", basic("nobody", "x"), GRANT.into(), 401, "invalid_client"),
        ("an empty secret", basic(&sender.id, ""), GRANT.into(), 401, "invalid_client"),
        ("an empty id", basic("", "x"), GRANT.into(), 401, "invalid_client"),
        ("no base64", "Authorization: Basic ???\r\n".into(), GRANT.into(), 401, "invalid_client"),
        ("a bearer token", "Authorization: Bearer x\r\n".into(), GRANT.into(), 401, "invalid_client"),
        (
            "client ids that disagree",
            good.clone(),
            format!("{GRANT}&client_id={}", encoded(&other.id, false)),
            401,
            "invalid_client",
        ),
        ("two secrets", good.clone(), format!("{GRANT}&{pair}"), 400, "invalid_request"),
        ("two Authorization headers", format!("{good}{good}"), GRANT.into(), 400, "invalid_request"),
        ("no grant", good.clone(), String::new(), 400, "invalid_request"),
        ("a grant twice", good.clone(), format!("{GRANT}&grant_type=password"), 400, "invalid_request"),
        ("another grant", good.clone(), "grant_type=password".into(), 400, "unauthorized_client"),
        ("an unknown grant", good.clone(), "grant_type=x".into(), 400, "unsupported_grant_type"),
        ("a grant in capitals", good.clone(), "grant_type=CLIENT_CREDENTIALS".into(), 400, "unsupported_grant_type"),
        ("bad escapes", good.clone(), format!("{GRANT}&scope=%zz"), 400, "invalid_request"),
        ("bad UTF-8", good.clone(), format!("{GRANT}&scope=%ff"), 400, "invalid_request"),
        ("20,000 parameters", good.clone(), format!("{GRANT}{}", "&a=1".repeat(15_000)), 400, "invalid_request"),
        ("a body too large", good.clone(), "a".repeat(100_000), 413, "invalid_request"),
    ] {
        let reply = world.post("/oauth/token", &headers, &body);
        assert_eq!((reply.status, reply.json()["error"].as_str()), (status, Some(error)), "{what}: {}", reply.text());
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{what}");
        assert_eq!(
            reply.header("www-authenticate").is_some_and(|value| value.starts_with("Basic ")),
            status == 401,
            "{what}"
        );
        let members: Vec<_> = reply.json().as_object().expect("an object").keys().cloned().collect();
        assert_eq!(members, ["error", "error_description"], "{what}");
    }
    let query = world.post(&format!("/oauth/token?{GRANT}&client_secret=x"), "", "");
    assert_eq!((query.status, query.json()["error"].as_str()), (400, Some("invalid_request")));
}

#[test]
fn an_unknown_client_and_a_wrong_secret_get_the_same_answer() {
    let world = World::new();
    let sender = world.sender("s", "ESBMessaging.send");
    let (unknown, wrong) = (
        world.post("/oauth/token", &basic("nobody", "x"), GRANT),
        world.post("/oauth/token", &basic(&sender.id, "x"), GRANT),
    );
    assert_eq!(unknown.body, wrong.body);
    assert_eq!(unknown.header("www-authenticate"), wrong.header("www-authenticate"));
    let reasons = ["client-unknown", "secret-wrong"];
    for reason in reasons {
        world.logged(|line| line["reason"] == reason);
    }
    assert!(!world.log().contains(&sender.secret));
}

#[test]
fn other_methods_and_other_content_types_are_refused() {
    let world = World::new();
    let sender = world.sender("s", "ESBMessaging.send");
    for method in ["GET", "PUT", "DELETE", "PATCH"] {
        let request = format!(
            "{method} /oauth/token?{GRANT} HTTP/1.1\r\nHost: x\r\n{}Content-Length: 0\r\nConnection: close\r\n\r\n",
            sender.basic()
        );
        let reply = world.raw(request.as_bytes());
        assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")), "{method}");
    }
    let json = format!(
        "POST /oauth/token HTTP/1.1\r\nHost: x\r\n{}Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}",
        sender.basic()
    );
    assert_eq!(world.raw(json.as_bytes()).status, 400);
}

#[test]
fn thirty_wrong_tries_lock_nobody_out_and_many_at_once_all_differ() {
    let world = World::new();
    let sender = world.sender("s", "ESBMessaging.send");
    for _ in 0..30 {
        assert_eq!(world.post("/oauth/token", &basic(&sender.id, "x"), GRANT).status, 401);
    }
    let ids: Vec<_> = std::thread::scope(|scope| {
        let ask = || world.post("/oauth/token", &sender.basic(), GRANT);
        let asked: Vec<_> = (0..64).map(|_| scope.spawn(ask)).collect();
        asked
            .into_iter()
            .map(|one| one.join().expect("asked"))
            .map(|reply| reply.json()["jti"].as_str().expect("a jti").to_owned())
            .collect()
    });
    let unique: std::collections::HashSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), 64);
}

#[test]
fn keys_and_metadata_are_public() {
    let world = World::new();
    let keys = world.get("/token_keys?zid=abc", "X-zid: abc\r\n").json();
    let key = &keys["keys"][0];
    for member in ["kid", "kty", "n", "e", "alg", "use", "value"] {
        assert!(key[member].is_string(), "{member}");
    }
    assert_eq!(world.get("/token_key", "").json(), *key);
    for path in [
        "/.well-known/openid-configuration",
        "/oauth/token/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server/oauth/token",
    ] {
        let metadata = world.get(path, "").json();
        assert_eq!(metadata["issuer"], "https://localhost:8443/oauth/token", "{path}");
        assert_eq!(metadata["jwks_uri"], "https://localhost:8443/token_keys", "{path}");
    }
}

#[test]
fn introspection_tells_clients_only() {
    let world = World::new();
    let sender = world.sender("s", "ESBMessaging.send");
    let token = world.token(&sender);
    let ask = |headers: &str, token: &str| world.post("/introspect", headers, &format!("token={token}"));
    assert_eq!(ask("", &token).status, 401);
    let active = ask(&sender.basic(), &token).json();
    assert_eq!((&active["active"], active["client_id"].as_str()), (&json!(true), Some(sender.id.as_str())));
    for bad in ["x", &token[..token.len() - 2]] {
        assert_eq!(ask(&sender.basic(), bad).json(), json!({"active": false}));
    }
    assert_eq!(ask(&sender.basic(), "").status, 400);
}

#[test]
fn a_client_revokes_its_own_tokens_and_with_a_role_those_of_others() {
    let world = World::new();
    let (one, two) = (world.sender("one", "ESBMessaging.send"), world.sender("two", "ESBMessaging.send"));
    let warden = world.sender("warden", "tokens.revoke");
    let (first, second) = (world.token(&one), world.token(&one));
    let revoke =
        |sender: &Sender, token: &str| world.post("/oauth/revoke", &sender.basic(), &format!("token={token}")).status;
    assert_eq!(revoke(&two, &first), 400);
    assert_eq!(world.call("/http/orders/1", &first).status, 200);
    assert_eq!(revoke(&one, &first), 200);
    assert_eq!(world.call("/http/orders/1", &first).status, 401);
    assert_eq!(revoke(&one, &first), 200);
    assert_eq!(revoke(&one, "nonsense"), 200);
    assert_eq!(world.call("/http/orders/1", &second).status, 200);
    assert_eq!(revoke(&warden, &second), 200);
    assert_eq!(world.call("/http/orders/1", &second).status, 401);
    assert_eq!(world.post("/introspect", &one.basic(), &format!("token={second}")).json(), json!({"active": false}));
}
