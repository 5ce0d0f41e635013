//! Behind a load balancer: certificates in headers and addresses in PROXY headers, from listed
//! peers and from others.

use crate::certificates::write_ca;
use crate::partner::{Pair, Partner, day};
use crate::world::{Reply, World, connect, until};
use base64::{Engine, engine::general_purpose::STANDARD};
use flowgate::crypto::x509;
use std::io::Write;

const ROUTES: &str = "
routes:
  - { name: orders, path: /http/orders/*, backend: echo }
  - { name: open, path: /open/*, authorization: none, backend: echo }
";

/// A world whose plain listener stands behind proxies.
fn behind(partner: &Partner, listener: &str) -> World {
    let text = |text: String| {
        text.replacen("- { address: \"127.0.0.1:0\" }", &format!("- {{ address: \"127.0.0.1:0\", {listener} }}"), 1)
    };
    let world = World::changed(ROUTES, text);
    write_ca(&world, &partner.pem);
    world
}

fn der(pair: &Pair) -> String {
    STANDARD.encode(&x509::chain(&pair.chain).expect("one")[0])
}

/// A key of an instance for a partner's certificate, and what a token request with headers gets.
fn known(world: &World, partner: &Partner) -> Pair {
    world.sender("s", "ESBMessaging.send");
    let pair = partner.client(|_| ());
    std::fs::write(world.file("c.pem"), &pair.chain).expect("written");
    let file = world.file("c.pem");
    let file = file.to_str().expect("a path");
    let create = ["key", "create", "s", "ext", "--key-type", "certificate_external", "--certificate", file];
    until("the CA is believed", || {
        let output = world.cli(&[&create[..], &["--pin-certificate", "false"]].concat());
        output.status.success()
    });
    pair
}

fn ask(world: &World, headers: &str) -> Reply {
    world.post("/oauth/token", headers, "grant_type=client_credentials")
}

/// A certificate of the partner's for an RSA key of 1024 bits.
fn short_key(world: &World, partner: &Partner) -> Pair {
    let file = world.file("short.key");
    let output =
        std::process::Command::new("openssl").args(["genrsa", "-traditional", "-out"]).arg(&file).arg("1024").output();
    assert!(output.expect("openssl runs").status.success());
    let output =
        std::process::Command::new("openssl").args(["rsa", "-pubout", "-in"]).arg(&file).output().expect("runs");
    let key = rcgen::SubjectPublicKeyInfo::from_pem(&String::from_utf8(output.stdout).expect("PEM")).expect("a key");
    Pair { chain: partner.certify(&key, |_| ()), key: String::new() }
}

#[test]
fn a_listed_proxy_tells_of_its_callers_certificate_and_nobody_else_does() {
    let partner = Partner::new("partner CA");
    let world = behind(&partner, "trusted_proxies: [127.0.0.1], certificate_header: client-cert");
    let pair = known(&world, &partner);
    let shown = format!("Client-Cert: :{}:\r\n", der(&pair));
    until("the key is known", || ask(&world, &shown).status == 200);
    let direct = world.get("/http/orders/1", &shown);
    assert_eq!(direct.status, 200);
    assert!(!direct.text().contains("client-cert"), "the header goes no further");
    world.logged(|line| line["path"] == "/http/orders/1" && line["certificate"].is_string());
    assert_eq!(ask(&world, "").status, 401);
    let logged = |reason: &str| {
        world.logged(|line| line["reason"] == reason);
    };
    // the same verdicts as at a handshake
    let expired = partner.client(|leaf| leaf.not_after = day(-1));
    for (pair, reason) in [
        (expired, "certificate-distrusted"),
        // no handshake of ours has refused this key
        (short_key(&world, &partner), "certificate-distrusted"),
        (Partner::new("stranger").client(|_| ()), "certificate-distrusted"),
        (partner.client(|leaf| leaf.distinguished_name = crate::partner::named("other")), "certificate-unknown"),
    ] {
        assert_eq!(ask(&world, &format!("Client-Cert: :{}:\r\n", der(&pair))).status, 401, "{reason}");
        logged(reason);
    }
    for bad in [format!("{shown}{shown}"), "Client-Cert: nonsense\r\n".into(), "Client-Cert: :AAAA:\r\n".into()] {
        let refused = world.get("/http/orders/1", &bad);
        assert_eq!((refused.status, refused.json()["code"].as_str()), (400, Some("bad_request")), "{bad}");
    }
    logged("certificate-header");
    let other =
        format!("X-Forwarded-Client-Cert: Cert=\"{}\"\r\n", pair.chain.replace('\n', "%0A").replace(' ', "%20"));
    assert_eq!(ask(&world, &other).status, 401, "only the header that is configured");
}

#[test]
fn certificate_headers_from_elsewhere_change_nothing() {
    let partner = Partner::new("partner CA");
    let world = behind(&partner, "trusted_proxies: [192.0.2.1], certificate_header: x-own-cert");
    let pair = known(&world, &partner);
    let der = der(&pair);
    for header in [
        format!("X-Own-Cert: {der}\r\n"),
        format!("X_Own_Cert: {der}\r\n"),
        format!("Client-Cert: :{der}:\r\n"),
        format!("X-SSL-Client-Cert: {der}\r\n"),
        format!("X-Forwarded-Client-Cert: Cert={der}\r\n"),
    ] {
        assert_eq!(ask(&world, &header).status, 401, "{header}");
        assert_eq!(world.get("/http/orders/1", &header).status, 401, "{header}");
        let open = world.get("/open/x", &header);
        assert_eq!(open.status, 200);
        assert!(!open.text().contains(&der[..40]), "it reached the backend: {header}");
    }
}

#[test]
fn a_listed_proxy_names_the_callers_address_by_proxy_header() {
    let world = behind(&Partner::new("x"), "trusted_proxies: [127.0.0.1], proxy_protocol: true");
    let request = b"GET /open/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    v2.extend_from_slice(&[203, 0, 113, 9, 127, 0, 0, 1, 0x12, 0x34, 0x00, 0x50]);
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00".to_vec();
    for (what, greeting, want) in [
        ("version 1", b"PROXY TCP4 203.0.113.9 127.0.0.1 4660 80\r\n".as_slice(), Some("203.0.113.9")),
        ("version 1 over IPv6", b"PROXY TCP6 2001:db8::9 ::1 4660 80\r\n", Some("2001:db8::9")),
        ("version 2", &v2, Some("203.0.113.9")),
        ("the proxy's own", &local, Some("127.0.0.1")),
        ("none", b"", None),
        ("malformed", b"PROXY TCP4 nonsense\r\n", None),
    ] {
        let mut stream = connect(world.plain);
        stream.write_all(&[greeting, request].concat()).expect("sent");
        let reply = Reply::read(&mut stream, true);
        let told = reply.text().lines().find_map(|line| line.strip_prefix("x-forwarded-for: ").map(str::to_owned));
        assert_eq!(told.as_deref(), want, "{what}");
    }
    // in pieces
    let mut stream = connect(world.plain);
    for piece in v2.chunks(5) {
        stream.write_all(piece).expect("sent");
        stream.flush().expect("sent");
    }
    stream.write_all(request).expect("sent");
    assert_eq!(Reply::read(&mut stream, true).status, 200);
}

#[test]
fn who_stands_behind_a_proxy_header_is_not_believed_like_the_proxy() {
    let world = behind(&Partner::new("x"), "trusted_proxies: [127.0.0.1], proxy_protocol: true");
    let request = "GET /open/x HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Proto: forged\r\nX-Request-Id: forged\r\nConnection: close\r\n\r\n";
    let mut stream = connect(world.plain);
    stream.write_all(format!("PROXY TCP4 203.0.113.9 127.0.0.1 4660 80\r\n{request}").as_bytes()).expect("sent");
    let reply = Reply::read(&mut stream, true);
    assert!(reply.status == 200 && !reply.text().contains("forged"), "{}", reply.text());
}

#[test]
fn a_proxy_header_from_elsewhere_is_no_http() {
    let world = behind(&Partner::new("x"), "trusted_proxies: [192.0.2.1], proxy_protocol: true");
    assert_eq!(world.get("/open/x", "").status, 200);
    let spoofed =
        b"PROXY TCP4 203.0.113.9 127.0.0.1 4660 80\r\nGET /open/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(world.raw(spoofed).status, 400);
}
