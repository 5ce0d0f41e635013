//! Client certificates on the TLS listener: who is believed, who is refused, and what the log says.

use crate::world::{Reply, World, until};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::Value;
use std::io::Write;

/// A CA of a partner's own.
struct Partner {
    ca: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Partner {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = params.self_signed(&key).expect("made").pem();
        Self { ca, issuer: Issuer::new(params, key) }
    }

    /// A client certificate and its key, with whatever a test changes about it.
    fn client(&self, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "partner system");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.is_ca = IsCa::ExplicitNoCa;
        change(&mut params);
        (params.signed_by(&key, &self.issuer).expect("made").pem(), key.serialize_pem())
    }
}

/// A world that trusts a partner's CA.
fn trusting(partner: &Partner) -> World {
    let world = World::new();
    std::fs::write(world.file("certs/trusted-cas/partner.pem"), &partner.ca).expect("written");
    // a stranger fails the handshake only once certificates are asked for
    let stranger = Partner::new("stranger").client(|_| ());
    until("the CA is believed", || token_by(&world, &stranger, "").is_none());
    world
}

fn borrowed(pair: &(String, String)) -> (&str, &str) {
    (&pair.0, &pair.1)
}

/// A token request over TLS; none if the handshake failed.
fn ask(stream: &mut (impl std::io::Read + Write), more: &str) -> Option<Reply> {
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

fn token_by(world: &World, pair: &(String, String), more: &str) -> Option<Reply> {
    world.tls(Some(borrowed(pair))).ok().and_then(|mut stream| ask(&mut stream, more))
}

/// Uploads a certificate as a key of instance `s`.
fn upload(world: &World, pair: &(String, String)) -> std::process::Output {
    let file = world.file("c.pem");
    std::fs::write(&file, &pair.0).expect("written");
    let file = file.to_str().expect("a path");
    world.cli(&["key", "create", "s", "ext", "--key-type", "certificate_external", "--certificate", file])
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
    let pair = (text("certificate"), text("key"));
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
    let one_line = known.0.replace('\n', "");
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
fn a_certificate_that_does_not_verify_fails_the_handshake() {
    let partner = Partner::new("partner CA");
    let world = trusting(&partner);
    let day = |offset: i64| time::OffsetDateTime::now_utc() + time::Duration::days(offset);
    let stranger = Partner::new("partner CA");
    for (what, pair) in [
        ("a CA of the same name with another key", stranger.client(|_| ())),
        ("expired", partner.client(|params| params.not_after = day(-1))),
        ("not yet valid", partner.client(|params| params.not_before = day(1))),
        (
            "no clientAuth",
            partner.client(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ),
        ("no extended key usage at all", partner.client(|params| params.extended_key_usages.clear())),
        ("no digitalSignature", partner.client(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment])),
        ("a CA itself", partner.client(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ("no subject", partner.client(|params| params.distinguished_name = rcgen::DistinguishedName::new())),
        ("too many certificates", {
            let pair = partner.client(|_| ());
            (pair.0.repeat(9), pair.1)
        }),
    ] {
        assert!(token_by(&world, &pair, "").is_none(), "{what} got through the handshake");
    }
    assert!(token_by(&world, &partner.client(|_| ()), "").is_some(), "a good one still does");
    assert_eq!(
        world.tls(None).map(|mut stream| ask(&mut stream, "").expect("answered").status).expect("connects"),
        401
    );
}

#[test]
fn a_ca_that_leaves_the_list_vouches_no_longer_on_live_connections() {
    let partner = Partner::new("partner CA");
    let world = trusting(&partner);
    world.sender("s", "ESBMessaging.send");
    let pair = partner.client(|_| ());
    assert!(upload(&world, &pair).status.success());
    until("the key is known", || token_by(&world, &pair, "").is_some_and(|reply| reply.status == 200));
    let mut live = world.tls(Some(borrowed(&pair))).expect("connects");
    let mut kept = || {
        let request =
            "POST /oauth/token?grant_type=client_credentials HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
        live.write_all(request.as_bytes()).expect("sent");
        Reply::read_one(&mut live).status
    };
    assert_eq!(kept(), 200);
    std::fs::remove_file(world.file("certs/trusted-cas/partner.pem")).expect("removed");
    let start = std::time::Instant::now();
    while kept() != 401 {
        assert!(start.elapsed() < std::time::Duration::from_secs(10), "the CA still vouches");
    }
    assert!(token_by(&world, &pair, "").is_none_or(|reply| reply.status == 401));
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
fn a_certificate_nobody_would_accept_is_refused_at_upload() {
    let world = trusting(&Partner::new("partner CA"));
    world.sender("s", "ESBMessaging.send");
    let pair = Partner::new("unknown CA").client(|_| ());
    let output = upload(&world, &pair);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains("the issuer CN=unknown CA is neither trusted nor among"), "{told}");
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
