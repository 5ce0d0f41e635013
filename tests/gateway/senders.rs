//! What senders and operators do before a call: look at the server, look at a certificate, look
//! ahead, and take the kit of a new key.

use crate::certificates::{becomes, trusting, upload};
use crate::partner::{Pair, Partner, day};
use crate::world::{World, until};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// The command line with its own idea of the system's roots.
fn with_roots(world: &World, roots: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(crate::process::BINARY);
    command.args(arguments).arg("--config").arg(world.file("config.yaml")).env("SSL_CERT_FILE", world.file(roots));
    let output = command.output().expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_connectivity_test_shows_the_server_and_finds_the_root() {
    let world = World::new();
    std::fs::write(world.file("root.pem"), &world.ca.certificate).expect("written");
    std::fs::write(world.file("none.pem"), &Partner::new("other").pem).expect("written");
    let (zip, target) = (world.file("c.zip"), format!("localhost:{}", world.tls.port()));
    let zip = zip.to_str().expect("a path");
    let (code, told, _) = with_roots(&world, "root.pem", &["connectivity-test", &target, "--out", zip]);
    assert_eq!(code, Some(0), "{told}");
    for line in [
        "is reachable: TLS 1.3",
        "subject      CN=localhost",
        "valid for localhost: yes",
        "trusted by this system: yes",
        "CN=server CA,O=tests (not sent; this system has it)",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    let archive = zip::ZipArchive::new(std::fs::File::open(zip).expect("there")).expect("a zip");
    let names: Vec<_> = archive.file_names().map(|name| name.expect("text").into_owned()).collect();
    assert_eq!(names, ["1-localhost.cer", "2-server-CA-root.cer"]);
    let (code, told, errors) = with_roots(&world, "none.pem", &["connectivity-test", &target]);
    assert!(code == Some(1) && told.contains("was not sent, and this system does not have it"), "{told}{errors}");
    assert_eq!(with_roots(&world, "none.pem", &["connectivity-test", &target, "--no-verify"]).0, Some(0));
    for (target, says) in [("https://localhost", "is no host"), ("localhost:1", "cannot be reached")] {
        let (code, _, errors) = with_roots(&world, "root.pem", &["connectivity-test", target]);
        assert!(code == Some(1) && errors.contains(says), "{target}: {errors}");
    }
}

#[test]
fn a_connectivity_test_tells_what_becomes_of_a_client_certificate() {
    let partner = Partner::new("partner CA");
    let world = trusting(&partner);
    let target = format!("localhost:{}", world.tls.port());
    let run = |pair: &Pair| {
        std::fs::write(world.file("c.pem"), &pair.chain).expect("written");
        std::fs::write(world.file("k.pem"), &pair.key).expect("written");
        let (c, k) = (world.file("c.pem"), world.file("k.pem"));
        let files = [c.to_str().expect("a path"), k.to_str().expect("a path")];
        let more = ["--no-verify", "--client-certificate", files[0], "--client-key", files[1]];
        with_roots(&world, "c.pem", &[&["connectivity-test", &target][..], &more].concat())
    };
    let (code, told, errors) = run(&partner.client(|_| ()));
    assert!(code == Some(0) && told.contains("client certificate: sent and taken"), "{told}{errors}");
    let (code, told, errors) = run(&Partner::new("stranger").client(|_| ()));
    assert!(
        code == Some(1) && told.contains("sent and refused") && errors.contains("refused the client certificate"),
        "{told}{errors}"
    );
}

#[test]
fn a_certificate_is_inspected_rule_by_rule() {
    let partner = Partner::new("partner CA");
    let world = trusting(&partner);
    world.sender("s", "ESBMessaging.send");
    let inspect = |pem: &str| -> Value {
        std::fs::write(world.file("i.pem"), pem).expect("written");
        let file = world.file("i.pem");
        let told = world.done(&["trusted-ca", "inspect", file.to_str().expect("a path"), "--output", "json"]);
        serde_json::from_str(&told).expect("JSON")
    };
    let broken = |seen: &Value| -> Vec<String> {
        let rules = seen["rules"].as_array().expect("rules").iter().filter(|rule| rule["passed"] == false);
        rules.map(|rule| rule["rule"].as_str().expect("a name").to_owned()).collect()
    };
    let good = partner.client(|_| ());
    assert!(upload(&world, &good, &[]).status.success());
    let seen = inspect(&good.chain);
    assert!(broken(&seen).is_empty(), "{seen:#}");
    assert_eq!(seen["certificate"]["service_key"], "ext of instance s");
    assert_eq!(seen["certificate"]["client_certificate_by_a_trusted_CA"], "yes");
    let bad = partner.client(|leaf| {
        leaf.not_after = day(-1);
        leaf.extended_key_usages.clear();
        leaf.key_usages = vec![rcgen::KeyUsagePurpose::KeyEncipherment];
    });
    let seen = inspect(&bad.chain);
    assert_eq!(broken(&seen), ["not ended", "key usage", "extended key usage", "path"], "{seen:#}");
    assert_eq!(inspect(&partner.pem)["certificate"]["trusted_CA"], "yes");
}

#[test]
fn what_will_have_ended_is_named_with_what_breaks() {
    let partner = Partner::with("partner CA", |ca| ca.not_after = day(40));
    let world = trusting(&partner);
    world.sender("s", "ESBMessaging.send");
    assert!(upload(&world, &partner.client(|leaf| leaf.not_after = day(20)), &[]).status.success());
    std::fs::write(world.file("certs/trusted-cas/partner.crl"), partner.crl(&[], 10)).expect("written");
    let at = |day: &str| {
        let output = world.cli(&["check", "--at", day, "--output", "json"]);
        let rows: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let text = |row: &Value, name: &str| row[name].as_str().expect("a text").to_owned();
        let rows = rows.as_array().expect("rows").iter().map(|row| (text(row, "kind"), row["breaks"].to_string()));
        (output.status.code(), rows.collect::<Vec<_>>())
    };
    assert_eq!(at("+1d"), (Some(0), Vec::new()));
    let kinds = |rows: &[(String, String)]| rows.iter().map(|(kind, _)| kind.clone()).collect::<Vec<_>>();
    let (code, rows) = at("+30d");
    assert_eq!(
        (code, kinds(&rows)),
        (Some(1), vec!["server certificate".into(), "revocation list".into(), "service key".into()])
    );
    assert!(rows[2].1.contains("instance s") && rows[2].1.contains("route orders"), "{rows:?}");
    assert!(kinds(&at("2999-01-01").1).contains(&"trusted CA".into()));
    assert_eq!(world.cli(&["check", "--at", "soon"]).status.code(), Some(1));
    until("it is a metric too", || {
        world.admin("/metrics").text().contains("flowgate_ending{kind=\"service key\",within=\"30d\"} 1")
    });
}

#[test]
fn the_kit_of_a_key_works_as_it_stands_and_keeps_its_secrets() {
    let world = World::new();
    let config = world.file("config.yaml");
    // the server sends its root too, as the demo's does
    let server = std::fs::read_to_string(world.file("certs/server.pem")).expect("there");
    std::fs::write(world.file("certs/server.pem"), format!("{server}{}", world.ca.certificate)).expect("written");
    let text = std::fs::read_to_string(&config).expect("there");
    let origin = format!("https://localhost:{}", world.tls.port());
    std::fs::write(&config, text.replace("https://localhost:8443", &origin)).expect("written");
    until("the new origin is in use", || world.get("/.well-known/openid-configuration", "").text().contains(&origin));
    world.sender("s", "ESBMessaging.send");
    for (kind, more) in [("clientid-secret", &[][..]), ("certificate", &["--validity", "9"])] {
        let kit = world.file(kind);
        let dir = kit.to_str().expect("a path");
        let create = ["key", "create", "s", kind, "--key-type", kind, "--kit", dir];
        let shown: Value = serde_json::from_str(&world.done(&[&create, more].concat())).expect("JSON");
        let oauth = &shown["oauth"];
        if let (Some(chain), Some(key)) = (oauth["certificate"].as_str(), oauth["key"].as_str()) {
            becomes(&world, &Pair { chain: chain.to_owned(), key: key.to_owned() }, 200);
            let password = format!("file:{dir}/sender.p12.password");
            let read =
                ["pkcs12", "-in", &format!("{dir}/sender.p12"), "-nodes", "-passin", &password].map(str::to_owned);
            let output = Command::new("openssl").args(read).output().expect("openssl runs");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(text.contains("PRIVATE KEY") && text.matches("BEGIN CERTIFICATE").count() == 2, "{output:?}");
        }
        until("the script gets through", || {
            let output = Command::new(kit.join("call.sh")).arg("/http/orders/1").output().expect("the script runs");
            output.status.success() && String::from_utf8_lossy(&output.stdout).contains("/http/orders/1")
        });
        for entry in std::fs::read_dir(&kit).expect("there") {
            let entry = entry.expect("an entry");
            let mode = entry.metadata().expect("known").permissions().mode() & 0o777;
            let public = ["server-root.pem", "certificate.pem"].contains(&entry.file_name().to_str().expect("text"));
            assert!(public || mode | 0o700 == 0o700, "{entry:?} is {mode:o}");
        }
    }
}
