//! Client certificates on the TLS listener: who is believed, who is refused, and what the log says.

use crate::partner::{Pair, Partner, day, named};
use crate::world::tls;
use crate::world::{ROUTES, Reply, TlsConnection, World, time_until, until};
use rustls::version::{TLS12, TLS13};
use serde_json::Value;
use std::io::Write;

/// Trusted CAs in place of those that were.
pub fn write_ca(world: &World, pem: &str) {
    std::fs::write(world.file("certs/trusted-cas/partner.pem"), pem).expect("written");
}

/// A world that trusts a partner's CA.
pub fn trusting(partner: &Partner) -> World {
    let world = World::new();
    write_ca(&world, &partner.pem);
    asks(&world);
    world
}

/// Waits until certificates are asked for: only then a stranger fails the handshake.
pub fn asks(world: &World) {
    let stranger = Partner::new("stranger").client(|_| ());
    until("the CA is believed", || token_by(world, &stranger, "").is_none());
}

/// A token request over TLS; none if the handshake failed.
pub fn ask(stream: &mut (impl std::io::Read + Write), more: &str) -> Option<Reply> {
    let body = format!("grant_type=client_credentials{more}");
    let request = format!(
        "POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).ok()?;
    // a refused certificate shows at the first read; the status line parses without its first letter
    stream.read_exact(&mut [0; 1]).ok()?;
    Some(Reply::read(stream, true))
}

pub fn token_by(world: &World, pair: &Pair, more: &str) -> Option<Reply> {
    world.tls(Some(pair)).ok().and_then(|mut stream| ask(&mut stream, more))
}

/// A GET over TLS.
pub fn call_by(world: &World, pair: Option<&Pair>, path: &str, headers: &str) -> Reply {
    let mut stream = world.tls(pair).expect("connects");
    get_on(&mut stream, path, headers)
}

fn get_on(stream: &mut TlsConnection, path: &str, headers: &str) -> Reply {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").expect("sent");
    Reply::read_one(stream)
}

/// Waits until the gateway makes this of a certificate at the token endpoint.
pub fn becomes(world: &World, pair: &Pair, status: u16) {
    until(&format!("the certificate gets {status}"), || {
        token_by(world, pair, "").is_some_and(|reply| reply.status == status)
    });
}

/// Uploads a certificate as a key of instance `s`.
pub fn upload(world: &World, pair: &Pair, more: &[&str]) -> std::process::Output {
    let file = world.file("c.pem");
    std::fs::write(&file, &pair.chain).expect("written");
    let file = file.to_str().expect("a path");
    let create = ["key", "create", "s", "ext", "--key-type", "certificate_external", "--certificate", file];
    world.cli(&[&create, more].concat())
}

#[test]
fn an_issued_certificate_gets_a_token_with_and_without_client_id() {
    let world = World::new();
    let sender = world.sender("s", "ESBMessaging.send");
    let key: Value = serde_json::from_str(&world.done(&[
        "key",
        "create",
        "s",
        "cert",
        "--key-type",
        "certificate",
        "--validity",
        "30",
    ]))
    .expect("JSON");
    let text = |member: &str| key["oauth"][member].as_str().expect("a text").to_owned();
    assert_eq!(text("clientid"), sender.id);
    assert_eq!(text("certificate").matches("BEGIN CERTIFICATE").count(), 2, "leaf and CA");
    let pair = Pair { chain: text("certificate"), key: text("key") };
    until("the new CA is believed", || token_by(&world, &pair, "").is_some_and(|reply| reply.status == 200));
    let id = sender.id.replace('!', "%21").replace('|', "%7C");
    let reply = token_by(&world, &pair, &format!("&client_id={id}")).expect("answered");
    assert_eq!(reply.status, 200);
    assert_eq!(token_by(&world, &pair, "&client_id=other").expect("answered").status, 401);
    let token = reply.json()["access_token"].as_str().expect("a token").to_owned();
    assert_eq!(world.call("/http/orders/1", &token).status, 200);
}

#[test]
fn an_external_certificate_is_pinned_and_belongs_to_one_key() {
    let partner = Partner::new("partner CA");
    let world = trusting(&partner);
    world.sender("s", "ESBMessaging.send");
    world.sender("t", "ESBMessaging.send");
    let (known, stranger) = (partner.client(|_| ()), partner.client(|_| ()));
    let one_line = known.chain.replace('\n', "");
    std::fs::write(
        world.file("p.json"),
        serde_json::json!({"key-type": "certificate_external", "X.509": one_line}).to_string(),
    )
    .expect("written");
    let parameters = world.file("p.json");
    let parameters = parameters.to_str().expect("a path");
    let shown: Value =
        serde_json::from_str(&world.done(&["key", "create", "s", "ext", "--parameters", parameters])).expect("JSON");
    assert!(
        shown["oauth"].get("key").is_none() && shown["oauth"]["certificatedetails"]["subjectdn"] == "CN=partner system"
    );
    let again = world.cli(&["key", "create", "t", "ext", "--parameters", parameters]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("used already, by key `ext` of instance `s`"));
    until("the key is known", || token_by(&world, &known, "").is_some_and(|reply| reply.status == 200));
    assert_eq!(token_by(&world, &stranger, "").expect("answered").status, 401);
    world.logged(|line| line["reason"] == "certificate-unknown");
    world.done(&["key", "delete", "s", "ext"]);
    until("the deletion holds", || token_by(&world, &known, "").is_some_and(|reply| reply.status == 401));
}

#[test]
fn a_ca_that_leaves_the_list_vouches_no_longer_on_live_connections() {
    let partner = Partner::new("partner CA");
    let world = trusting(&partner);
    world.sender("s", "ESBMessaging.send");
    let pair = partner.client(|_| ());
    assert!(upload(&world, &pair, &[]).status.success());
    until("the key is known", || token_by(&world, &pair, "").is_some_and(|reply| reply.status == 200));
    let mut live = world.tls(Some(&pair)).expect("connects");
    let mut kept = || {
        let request =
            "POST /oauth/token?grant_type=client_credentials HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
        live.write_all(request.as_bytes()).expect("sent");
        Reply::read_one(&mut live).status
    };
    assert_eq!(kept(), 200);
    // clients that keep what the server gave them to resume with
    let remembering = [&TLS12, &TLS13].map(|version| world.client_config(Some(&pair), &[version]));
    let again = |config| tls(world.tls, config).ok().and_then(|mut stream| ask(&mut stream, ""));
    assert!(remembering.iter().all(|config| again(config).is_some_and(|reply| reply.status == 200)));
    std::fs::remove_file(world.file("certs/trusted-cas/partner.pem")).expect("removed");
    let start = std::time::Instant::now();
    while kept() != 401 {
        assert!(start.elapsed() < std::time::Duration::from_secs(10), "the CA still vouches");
    }
    assert!(start.elapsed() < crate::world::HOLD, "{:?}", start.elapsed());
    world.logged(|line| line["reason"] == "certificate-distrusted");
    for config in remembering.iter().chain([&world.client_config(Some(&pair), rustls::ALL_VERSIONS)]) {
        assert!(again(config).is_none_or(|reply| reply.status == 401), "a session was resumed with the old verdict");
    }
}

#[test]
fn a_secret_authenticates_even_beside_a_certificate() {
    let partner = Partner::new("partner CA");
    let world = trusting(&partner);
    let sender = world.sender("s", "ESBMessaging.send");
    let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let more = format!("&client_id={}&client_secret={}", encoded(&sender.id), encoded(&sender.secret));
    assert_eq!(token_by(&world, &partner.client(|_| ()), &more).expect("answered").status, 200);
}

#[test]
fn a_key_that_the_model_displayed_is_taken_over() {
    let world = World::new();
    let sender = world.sender("s", "ESBMessaging.send");
    let foreign = "sb-0e1c7f6a!b4711|it-rt-acme!b18631";
    let secret = "2b5ad06a-9f3c-4a38-9d9e-0f1f5ad06a2b$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    std::fs::write(world.file("k.json"), serde_json::json!({"oauth": {"clientid": foreign, "clientsecret": secret, "tokenurl": "https://x/oauth/token"}}).to_string()).expect("written");
    world.done(&["key", "import", "s", "moved", "--file", world.file("k.json").to_str().expect("a path")]);
    let moved = crate::world::Sender { id: foreign.into(), secret: secret.into() };
    until("the key is known", || {
        world.post("/oauth/token", &moved.basic(), "grant_type=client_credentials").status == 200
    });
    assert_eq!(world.call("/http/orders/1", &world.token(&moved)).status, 200);
    assert_eq!(world.call("/http/orders/1", &world.token(&sender)).status, 200, "the instance's own key goes on");
}

const UNPINNED: [&str; 2] = ["--pin-certificate", "false"];

fn issued(partner: &Partner, days_ago: i64) -> Pair {
    partner.client(|leaf| leaf.not_before = day(-days_ago))
}

#[test]
fn an_unpinned_certificate_is_renewed_by_use_and_the_old_one_ends() {
    let partner = Partner::new("partner CA");
    let world = trusting(&partner);
    world.sender("s", "ESBMessaging.send");
    let (oldest, old, new) = (issued(&partner, 3), issued(&partner, 2), issued(&partner, 1));
    assert!(upload(&world, &old, &UNPINNED).status.success());
    becomes(&world, &old, 200);
    assert_eq!(token_by(&world, &oldest, "").expect("answered").status, 401, "issued before the accepted one");
    assert_eq!(token_by(&world, &new, "").expect("answered").status, 200, "the renewed one");
    assert_eq!(token_by(&world, &old, "").expect("answered").status, 401, "superseded at once");
    world.logged(|line| line["reason"] == "certificate-superseded");
    let history: Value =
        serde_json::from_str(&world.done(&["key", "show", "s", "ext", "--output", "json"])).expect("JSON");
    let states: Vec<_> = history.as_array().expect("rows").iter().map(|row| row["certificate"].as_str()).collect();
    assert_eq!(states, [Some("accepted"), Some("superseded")]);
}

#[test]
fn a_renewal_by_a_direct_call_is_remembered_too() {
    let partner = Partner::new("partner CA");
    let world = trusting(&partner);
    world.sender("s", "ESBMessaging.send");
    let (old, new) = (issued(&partner, 2), issued(&partner, 1));
    assert!(upload(&world, &old, &UNPINNED).status.success());
    becomes(&world, &old, 200);
    assert_eq!(call_by(&world, Some(&new), "/http/orders/1", "").status, 200);
    becomes(&world, &old, 401);
}

#[test]
fn two_keys_that_could_both_be_meant_are_refused_when_the_second_is_made() {
    let partner = Partner::new("partner CA");
    let world = trusting(&partner);
    world.sender("s", "ESBMessaging.send");
    let create = |name: &str, pair: &Pair, pinned: &str| {
        std::fs::write(world.file("c.pem"), &pair.chain).expect("written");
        let file = world.file("c.pem");
        let file = file.to_str().expect("a path");
        let output = world.cli(&[
            "key",
            "create",
            "s",
            name,
            "--key-type",
            "certificate_external",
            "--certificate",
            file,
            "--pin-certificate",
            pinned,
        ]);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (one, two, three) = (issued(&partner, 3), issued(&partner, 2), issued(&partner, 1));
    assert!(create("pinned", &one, "true").0);
    assert!(create("pinned-too", &two, "true").0, "pins do not collide");
    let (made, told) = create("names", &three, "false");
    assert!(!made && told.contains("key `pinned") && told.contains("of instance `s`"), "{told}");
    for name in ["pinned", "pinned-too"] {
        world.done(&["key", "delete", "s", name]);
    }
    assert!(create("names", &three, "false").0);
    for (pinned, what) in [("false", "a second by names"), ("true", "a pin beside names")] {
        let (made, told) = create("other", &two, pinned);
        assert!(!made && told.contains("key `names` of instance `s`"), "{what}: {told}");
    }
    let elsewhere = partner.client(|leaf| leaf.distinguished_name = named("other system"));
    assert!(create("other", &elsewhere, "false").0, "other names are another client");
}

#[test]
fn a_self_signed_certificate_is_believed_by_its_pin_and_ends_with_its_key() {
    let world = World::new();
    world.sender("s", "ESBMessaging.send");
    // as `openssl req -x509` makes it: a CA, without any usage
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = named("partner");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let own = Pair { chain: params.self_signed(&key).expect("made").pem(), key: key.serialize_pem() };
    let refused = upload(&world, &own, &UNPINNED);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("would not be accepted"));
    assert!(upload(&world, &own, &[]).status.success());
    becomes(&world, &own, 200);
    assert_eq!(call_by(&world, Some(&own), "/http/orders/1", "").status, 200);
    let mut live = world.tls(Some(&own)).expect("connects");
    assert_eq!(get_on(&mut live, "/http/orders/1", "").status, 200);
    world.done(&["key", "delete", "s", "ext"]);
    let held = time_until("the key is gone", || {
        get_on(&mut world.tls(None).expect("connects"), "/http/orders/1", "").status == 401
            && token_by(&world, &own, "").is_none_or(|reply| reply.status == 401)
    });
    assert!(held < crate::world::HOLD, "{held:?}");
    assert_eq!(get_on(&mut live, "/http/orders/1", "").status, 401, "on the connection that was there before");
}

#[test]
fn what_is_no_certificate_of_a_partners_is_refused_at_upload_with_the_remedy() {
    let partner = Partner::new("partner CA");
    let world = trusting(&partner);
    world.sender("s", "ESBMessaging.send");
    let good = partner.client(|_| ());
    let expired = partner.client(|leaf| leaf.not_after = day(-1));
    let server = partner.client(|leaf| leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth]);
    let long = "x".repeat(10 << 20);
    let request = good.chain.replace("CERTIFICATE", "CERTIFICATE REQUEST");
    for (text, says) in [
        (format!("{}{}", good.chain, good.key), "consider the key exposed"),
        (good.key.clone(), "consider the key exposed"),
        (format!("{}{}", good.chain, partner.pem), "upload one certificate"),
        (long, "bytes, at most"),
        (String::new(), "no certificate between BEGIN CERTIFICATE"),
        (request, "no certificate between BEGIN CERTIFICATE"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(), "not valid X.509"),
        (expired.chain, "it has expired"),
        (server.chain, "lacks clientAuth; ask the CA"),
    ] {
        let output = upload(&world, &Pair { chain: text, key: String::new() }, &[]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && told.contains(says), "{says}: {told}");
    }
}

#[test]
fn a_key_calls_a_flow_directly_with_its_instances_roles() {
    let partner = Partner::new("partner CA");
    let world = trusting(&partner);
    let sender = world.sender("s", "ESBMessaging.send");
    let known = partner.client(|_| ());
    assert!(upload(&world, &known, &[]).status.success());
    becomes(&world, &known, 200);
    let direct = call_by(&world, Some(&known), "/http/orders/1", "X-Auth-Client-Id: evil\r\n");
    assert_eq!(direct.status, 200);
    let seen = direct.text();
    for line in [format!("x-auth-client-id: {}", sender.id), "x-auth-roles: ESBMessaging.send".into()] {
        assert!(seen.contains(&line), "{seen}");
    }
    assert!(!seen.contains("evil"));
    assert_eq!(call_by(&world, Some(&known), "/http/orders/admin/1", "").status, 403, "the instance lacks the role");
    assert_eq!(call_by(&world, Some(&partner.client(|_| ())), "/http/orders/1", "").status, 401, "no key has it");
    let bad = call_by(&world, Some(&known), "/http/orders/1", "Authorization: Bearer x.y.z\r\n");
    assert_eq!(bad.status, 401, "a bad token is not made up for by a certificate");
    assert_eq!(call_by(&world, None, "/http/orders/1", "").status, 401);
}

#[test]
fn basic_opens_a_route_only_where_it_is_allowed() {
    let routes = "
routes:
  - { name: basic, path: /basic, accept: [bearer, basic], backend: echo }
  - { name: bearer, path: /bearer, accept: [bearer], backend: echo }
";
    let partner = Partner::new("partner CA");
    let world = World::with(routes, "");
    write_ca(&world, &partner.pem);
    asks(&world);
    let sender = world.sender("s", "ESBMessaging.send");
    let known = partner.client(|_| ());
    assert!(upload(&world, &known, &[]).status.success());
    becomes(&world, &known, 200);
    assert_eq!(world.get("/basic", &sender.basic()).status, 200);
    let wrong = world.get("/basic", &crate::world::basic(&sender.id, "wrong"));
    assert_eq!((wrong.status, wrong.json()["code"].as_str()), (401, Some("invalid_client")));
    assert_eq!(world.get("/bearer", &sender.basic()).status, 401);
    assert_eq!(call_by(&world, Some(&known), "/bearer", "").status, 401, "certificates are not in its list");
    assert_eq!(world.call("/basic", &world.token(&sender)).status, 200);
    let both = world.get("/basic?access_token=x", &sender.basic());
    assert_eq!(both.status, 400, "a token in the query is refused whatever else is sent");
    world.done(&["instance", "update", "s", "--certificate-bound-access-tokens", "true"]);
    until("a secret alone is of no use to a bound client", || world.get("/basic", &sender.basic()).status == 401);
}

#[test]
fn a_route_may_list_certificates_by_their_names() {
    let routes = "
routes:
  - name: listed
    path: /listed
    authorization: client_certificate
    certificates: [{ subject: 'CN = PARTNER  system', issuer: 'cn=partner ca' }]
    backend: echo
";
    let partner = Partner::new("partner CA");
    let world = World::with(routes, "");
    write_ca(&world, &partner.pem);
    asks(&world);
    let other = partner.client(|leaf| leaf.distinguished_name = named("other system"));
    assert_eq!(call_by(&world, Some(&partner.client(|_| ())), "/listed", "").status, 200);
    let refused = call_by(&world, Some(&other), "/listed", "");
    assert_eq!((refused.status, refused.json()["code"].as_str()), (403, Some("forbidden")));
    let missing = call_by(&world, None, "/listed", "");
    assert_eq!((missing.status, missing.json()["code"].as_str()), (401, Some("certificate_required")));
    world.logged(|line| line["reason"] == "certificate-not-listed");
}

#[test]
fn another_origin_for_certificates_is_in_their_keys_and_in_the_metadata() {
    let world = World::with(ROUTES, "mtls_url: https://cert.example:8443\n");
    world.sender("s", "ESBMessaging.send");
    let keys = |kind: &str| -> Value {
        serde_json::from_str(&world.done(&["key", "create", "s", kind, "--key-type", kind])).expect("JSON")
    };
    assert_eq!(keys("certificate")["oauth"]["tokenurl"], "https://cert.example:8443/oauth/token");
    assert_eq!(keys("clientid-secret")["oauth"]["tokenurl"], "https://localhost:8443/oauth/token");
    let metadata = world.get("/.well-known/openid-configuration", "").json();
    assert_eq!(metadata["mtls_endpoint_aliases"]["token_endpoint"], "https://cert.example:8443/oauth/token");
}

#[test]
fn a_bound_token_is_of_use_beside_its_certificate_alone() {
    let partner = Partner::new("partner CA");
    let world = trusting(&partner);
    let sender = world.sender("s", "ESBMessaging.send");
    let unbound = world.token(&sender);
    let (known, other) = (partner.client(|_| ()), partner.client(|_| ()));
    assert!(upload(&world, &known, &[]).status.success());
    becomes(&world, &known, 200);
    world.done(&["instance", "update", "s", "--certificate-bound-access-tokens", "true"]);
    let secret = || world.post("/oauth/token", &sender.basic(), "grant_type=client_credentials");
    until("tokens are bound", || secret().status == 400);
    assert_eq!(secret().json()["error"], "invalid_request", "nothing to bind to");
    let token =
        token_by(&world, &known, "").expect("answered").json()["access_token"].as_str().expect("one").to_owned();
    let bearer = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(call_by(&world, Some(&known), "/http/orders/1", &bearer).status, 200);
    for (pair, reason) in [(Some(&other), "token-certificate-other"), (None, "token-certificate-missing")] {
        let refused = call_by(&world, pair, "/http/orders/1", &bearer);
        assert_eq!((refused.status, refused.json()["code"].as_str()), (401, Some("invalid_token")), "{reason}");
        world.logged(|line| line["reason"] == reason);
    }
    assert_eq!(world.call("/http/orders/1", &unbound).status, 401, "a token from before is bound to nothing");
    // a secret authenticates, the certificate beside it binds
    let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let more = format!("&client_id={}&client_secret={}", encoded(&sender.id), encoded(&sender.secret));
    let token =
        token_by(&world, &other, &more).expect("answered").json()["access_token"].as_str().expect("one").to_owned();
    assert_eq!(
        call_by(&world, Some(&other), "/http/orders/1", &format!("Authorization: Bearer {token}\r\n")).status,
        200
    );
    let metadata = world.get("/.well-known/openid-configuration", "").json();
    assert_eq!(metadata["tls_client_certificate_bound_access_tokens"], true);
}
