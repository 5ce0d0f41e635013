//! Client certificates on the TLS listener: who is believed, who is refused, and what the log says.

use crate::partner::{Pair, Partner};
use crate::world::{Reply, World, until};
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
