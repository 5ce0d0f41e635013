//! Which CA may vouch for whom: lists per listener, route and instance, and revocation lists.

use crate::certificates::{asks, becomes, call_by, token_by, trusting, upload, write_ca};
use crate::partner::{Pair, Partner, named};
use crate::world::{HOLD, ROUTES, World, time_until, until};
use rcgen::SerialNumber;
use std::process::Output;

/// A world with the routes of two partners and whatever CAs each place names.
fn world_of(
    one: &Partner,
    two: &Partner,
    (routes, path): (&str, &str),
    change: impl FnOnce(String) -> String,
) -> World {
    let world = World::new();
    std::fs::create_dir_all(world.file("certs/two")).expect("a folder");
    std::fs::write(world.file("certs/two/ca.pem"), &two.pem).expect("written");
    write_ca(&world, &one.pem);
    let config = world.file("config.yaml");
    let text = std::fs::read_to_string(&config).expect("there");
    let text = change(text.replacen(ROUTES, routes, 1));
    std::fs::write(&config, text).expect("written");
    until("the configuration is taken", || world.get(path, "").status != 404);
    asks(&world);
    world
}

/// Offers an unpinned certificate as an instance's key.
fn offer(world: &World, instance: &str, pair: &Pair) -> Output {
    let file = world.file(&format!("{instance}.pem"));
    std::fs::write(&file, &pair.chain).expect("written");
    let file = file.to_str().expect("a path");
    let kind = ["--key-type", "certificate_external", "--certificate", file, "--pin-certificate", "false"];
    world.cli(&[&["key", "create", instance, "ext"], kind.as_slice()].concat())
}

fn upload_as(world: &World, instance: &str, pair: &Pair) {
    let output = offer(world, instance, pair);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_route_with_its_own_cas_takes_certificates_of_no_other() {
    let (one, two) = (Partner::new("one"), Partner::new("two"));
    let routes = "
routes:
  - { name: any, path: /any, backend: echo }
  - { name: two, path: /two, trusted_cas: [certs/two], backend: echo }
";
    let world = world_of(&one, &two, (routes, "/two"), |text| {
        text.replace("trusted_cas: [certs/trusted-cas]", "trusted_cas: [certs/trusted-cas, certs/two]")
    });
    world.sender("s", "ESBMessaging.send");
    world.sender("t", "ESBMessaging.send");
    let (of_one, of_two) = (one.client(|_| ()), two.client(|_| ()));
    upload_as(&world, "s", &of_one);
    upload_as(&world, "t", &of_two);
    becomes(&world, &of_one, 200);
    becomes(&world, &of_two, 200);
    assert_eq!(call_by(&world, Some(&of_one), "/any", "").status, 200);
    assert_eq!(call_by(&world, Some(&of_two), "/two", "").status, 200);
    assert_eq!(call_by(&world, Some(&of_one), "/two", "").status, 401);
    let line = world.logged(|line| line["reason"] == "certificate-distrusted");
    assert!(line["detail"].as_str().is_some_and(|detail| detail.contains("issuer CN=one")), "{line}");
}

#[test]
fn an_instance_with_its_own_ca_is_reached_by_no_other() {
    let (one, two) = (Partner::new("one"), Partner::new("two"));
    let world = trusting(&one);
    world.sender("s", "ESBMessaging.send");
    let (of_one, of_two) = (one.client(|_| ()), two.client(|_| ()));
    upload_as(&world, "s", &of_one);
    becomes(&world, &of_one, 200);
    std::fs::write(world.file("two.pem"), &two.pem).expect("written");
    let two_pem = world.file("two.pem");
    world.done(&["instance", "update", "s", "--trusted-ca", two_pem.to_str().expect("a path")]);
    let held = time_until("the list holds", || token_by(&world, &of_one, "").is_some_and(|reply| reply.status == 401));
    assert!(held < HOLD, "{held:?}");
    world.done(&["key", "delete", "s", "ext"]);
    upload_as(&world, "s", &of_two);
    becomes(&world, &of_two, 200);
    // the other instances gain nothing by it
    world.sender("t", "ESBMessaging.send");
    let named = two.client(|leaf| leaf.distinguished_name = named("t"));
    let output = offer(&world, "t", &named);
    assert!(String::from_utf8_lossy(&output.stderr).contains("the issuer CN=two is neither trusted"));
}

#[test]
fn a_listener_with_its_own_cas_takes_certificates_of_no_other() {
    let (one, two) = (Partner::new("one"), Partner::new("two"));
    let world = world_of(&one, &two, (ROUTES, "/kept"), |text| {
        let text = text.replace("trusted_cas: [certs/trusted-cas]", "trusted_cas: [certs/trusted-cas, certs/two]");
        text.replace("key: certs/server-key.pem }", "key: certs/server-key.pem, trusted_cas: [certs/two] }")
    });
    world.sender("s", "ESBMessaging.send");
    world.sender("t", "ESBMessaging.send");
    let (of_one, of_two) = (one.client(|_| ()), two.client(|_| ()));
    upload_as(&world, "s", &of_one);
    upload_as(&world, "t", &of_two);
    becomes(&world, &of_two, 200);
    assert_eq!(token_by(&world, &of_one, "").expect("the handshake believes all lists together").status, 401);
}

/// As many partners make them: a CA of its own, without any usage.
fn self_signed(name: &str) -> Pair {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = named(name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    Pair { chain: params.self_signed(&key).expect("made").pem(), key: key.serialize_pem() }
}

#[test]
fn a_pin_stands_for_a_missing_path_and_for_nothing_else() {
    let (one, two) = (Partner::new("one"), Partner::new("two"));
    let routes = "
routes:
  - { name: any, path: /any, backend: echo }
  - { name: two, path: /two, trusted_cas: [certs/two], backend: echo }
  - { name: listed, path: /listed, authorization: client_certificate, backend: echo,
      certificates: [{ subject: CN=bank, issuer: CN=bank }] }
";
    let world = world_of(&one, &two, (routes, "/two"), |text| text);
    world.sender("s", "ESBMessaging.send");
    let own = self_signed("bank");
    assert!(upload(&world, &own, &[]).status.success());
    becomes(&world, &own, 200);
    assert_eq!(call_by(&world, Some(&own), "/any", "").status, 200);
    assert_eq!(call_by(&world, Some(&own), "/two", "").status, 401, "the route's CAs must vouch");
    assert_eq!(call_by(&world, Some(&own), "/listed", "").status, 401, "it calls itself what it likes");
    // a certificate of a CA that is not trusted yet, pinned; once the CA is, its revocation list counts
    let three = Partner::new("three");
    let bad = three.client(|leaf| {
        leaf.distinguished_name = named("three's");
        leaf.serial_number = Some(SerialNumber::from(9));
    });
    world.done(&["key", "delete", "s", "ext"]);
    assert!(upload(&world, &bad, &[]).status.success());
    becomes(&world, &bad, 200);
    std::fs::write(world.file("certs/trusted-cas/three.crl"), three.crl(&[9], 5)).expect("written");
    write_ca(&world, &format!("{}{}", one.pem, three.pem));
    until("the revocation holds", || token_by(&world, &bad, "").is_none());
    // an instance with CAs of its own takes no pins
    let two_pem = world.file("certs/two/ca.pem");
    world.done(&["instance", "create", "t", "--trusted-ca", two_pem.to_str().expect("a path")]);
    std::fs::write(world.file("own.pem"), &own.chain).expect("written");
    let file = world.file("own.pem");
    let create = ["key", "create", "t", "own", "--key-type", "certificate_external", "--certificate"];
    let output = world.cli(&[&create[..], &[file.to_str().expect("a path")]].concat());
    assert!(String::from_utf8_lossy(&output.stderr).contains("none of them vouches"), "{output:?}");
}

#[test]
fn without_a_revocation_list_a_ca_vouches_for_nobody_if_so_configured_but_ours_does() {
    let partner = Partner::new("partner CA");
    let world = World::with(ROUTES, "revocation: { without_crl: refuse }\n");
    write_ca(&world, &partner.pem);
    asks(&world);
    world.sender("s", "ESBMessaging.send");
    let issued: serde_json::Value =
        serde_json::from_str(&world.done(&["key", "create", "s", "own", "--key-type", "certificate"])).expect("JSON");
    let text = |name: &str| issued["oauth"][name].as_str().expect("a text").to_owned();
    becomes(&world, &Pair { chain: text("certificate"), key: text("key") }, 200);
    let known = partner.client(|_| ());
    assert!(token_by(&world, &known, "").is_none());
    std::fs::write(world.file("certs/trusted-cas/partner.crl"), partner.crl(&[], 5)).expect("written");
    until("the list counts", || token_by(&world, &known, "").is_some());
}

#[test]
fn of_two_revocation_lists_of_a_ca_the_newer_counts() {
    let partner = Partner::new("partner CA");
    let world = trusting(&partner);
    let bad = partner.client(|leaf| leaf.serial_number = Some(SerialNumber::from(7)));
    let write = |name: &str, text: String| {
        std::fs::write(world.file(&format!("certs/trusted-cas/{name}.crl")), text).expect("written");
    };
    write("1-old", partner.crl_of(&[], -20, -10));
    write("2-new", partner.crl_of(&[7], -1, 5));
    until("the newer list counts", || token_by(&world, &bad, "").is_none());
    let good = partner.client(|_| ());
    assert!(token_by(&world, &good, "").is_some(), "the outdated one does not");
}

#[test]
fn a_revoked_certificate_is_refused_within_a_second_on_the_connection_it_has() {
    let partner = Partner::new("partner CA");
    let world = trusting(&partner);
    world.sender("s", "ESBMessaging.send");
    let serial = |number: u64| partner.client(move |leaf| leaf.serial_number = Some(SerialNumber::from(number)));
    let (bad, good) = (serial(7), serial(8));
    assert!(upload(&world, &bad, &[]).status.success());
    becomes(&world, &bad, 200);
    let mut live = world.tls(Some(&bad)).expect("connects");
    let mut kept = || {
        use std::io::Write;
        live.write_all(b"GET /http/orders/1 HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        crate::world::Reply::read_one(&mut live).status
    };
    assert_eq!(kept(), 200);
    std::fs::write(world.file("certs/trusted-cas/partner.crl"), partner.crl(&[7], 5)).expect("written");
    let start = std::time::Instant::now();
    while kept() != 401 {
        assert!(start.elapsed() < HOLD, "the revoked certificate still counts");
    }
    until("the handshake refuses it too", || token_by(&world, &bad, "").is_none());
    assert!(token_by(&world, &good, "").is_some(), "its neighbour is not on the list");
    // a list that has passed its next update refuses all that its CA issued
    std::fs::write(world.file("certs/trusted-cas/partner.crl"), partner.crl(&[7], -1)).expect("written");
    until("the outdated list binds", || token_by(&world, &good, "").is_none());
    let config = world.file("config.yaml");
    let text = std::fs::read_to_string(&config).expect("there");
    std::fs::write(&config, format!("revocation: {{ expired_crl: accept }}\n{text}")).expect("written");
    until("unless it is configured otherwise", || token_by(&world, &good, "").is_some());
    assert!(token_by(&world, &bad, "").is_none(), "who is on it stays refused");
}
