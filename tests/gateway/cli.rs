//! Commands as an operator types them. What they print is kept in `tests/golden`, and README shows
//! it: a file that differs fails here. `FLOWGATE_GOLDEN=1` writes them anew.

use crate::process::{BINARY, Site};
use std::path::{Path, PathBuf};
use std::process::Command;

fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("FLOWGATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, text).expect("written");
    }
    let kept = std::fs::read_to_string(&path).expect("a golden file");
    assert_eq!(text, kept, "{name}");
}

fn run(dir: &Path, arguments: &[&str]) -> (String, String, Option<i32>) {
    let output = Command::new(BINARY).args(arguments).current_dir(dir).output().expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (text(output.stdout), text(output.stderr), output.status.code())
}

const FAULTY: &str = "public_url: https://localhost:8443/gateway
listeners:
  - { address: 127.0.0.1:8080 }
backends:
  orders: { servers: [\"http://127.0.0.1:8080\"], timeout: 60 }
routes:
  - name: orders
    path: /http/orders/*
    user_rol: ESBMessaging.send
    backend: ordres
";

#[test]
fn check_tells_every_fault_with_place_and_remedy() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("config.yaml"), FAULTY).expect("written");
    let (out, err, code) = run(dir.path(), &["check"]);
    assert_eq!((out.as_str(), code), ("", Some(3)));
    golden("faulty.yaml", FAULTY);
    golden("check.txt", &err);
}

#[test]
fn help_and_schema_are_what_is_documented() {
    let dir = tempfile::tempdir().expect("a folder");
    golden("help.txt", &run(dir.path(), &["--help"]).0);
    golden("config.schema.json", &run(dir.path(), &["check", "--schema"]).0);
}

#[test]
fn readme_shows_what_the_commands_print() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).expect("a README");
    for name in ["check.txt", "faulty.yaml", "help.txt"] {
        let text = std::fs::read_to_string(root.join("tests/golden").join(name)).expect("a golden file");
        assert!(readme.contains(text.trim_end()), "README.md does not show tests/golden/{name} as it is");
    }
}

#[test]
fn exit_codes_tell_usage_failure_and_configuration_apart() {
    let site = Site::new();
    assert_eq!(site.cli(&["nonsense"]).status.code(), Some(2));
    assert_eq!(site.cli(&["key", "create", "s", "k", "--key-type", "x"]).status.code(), Some(2));
    assert_eq!(site.cli(&["instance", "show", "nobody"]).status.code(), Some(1));
    assert_eq!(site.cli(&["check"]).status.code(), Some(0));
    let dir = tempfile::tempdir().expect("a folder");
    assert_eq!(run(dir.path(), &["instance", "list"]).2, Some(3));
}

#[test]
fn names_that_exist_or_are_in_use_are_told() {
    let site = Site::new();
    let fails = |arguments: &[&str], says: &str| {
        let output = site.cli(arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(says), "{arguments:?}: {told}");
    };
    site.done(&["role", "create", "My.role", "--description", "mine"]);
    site.done(&["instance", "create", "s", "--roles", "My.role"]);
    site.done(&["key", "create", "s", "k"]);
    fails(&["role", "create", "My.role"], "exists already");
    fails(&["role", "delete", "My.role"], "is used by instance s");
    fails(&["role", "delete", "ESBMessaging.send"], "built in");
    fails(&["role", "update", "API.invoke", "--description", "x"], "built in");
    fails(&["instance", "create", "s"], "exists already");
    fails(&["instance", "create", "t", "--roles", "No.role"], "create it first: flowgate role create No.role");
    fails(&["instance", "delete", "s"], "still has 1 service keys");
    fails(&["instance", "update", "s", "--token-validity", "60"], "between 3600 and 86400");
    fails(&["key", "create", "s", "k"], "exists already");
    fails(&["key", "delete", "s", "none"], "there is no key `none`");
    fails(&["signing-key", "purge", "none"], "there is no signing-key `none`");
    site.done(&["role", "update", "My.role", "--description", "still mine"]);
    assert!(site.done(&["role", "list"]).contains("still mine"));
    site.done(&["key", "delete", "s", "k"]);
    site.done(&["instance", "delete", "s"]);
    site.done(&["role", "delete", "My.role"]);
}

#[test]
fn a_listing_never_shows_a_secret() {
    let site = Site::new();
    site.done(&["instance", "create", "s"]);
    let key = site.done(&["key", "create", "s", "k"]);
    let json: serde_json::Value = serde_json::from_str(&key).expect("JSON");
    let secret = json["oauth"]["clientsecret"].as_str().expect("a secret");
    for listing in [&["key", "list"][..], &["key", "show", "s", "k"], &["instance", "show", "s"], &["instance", "list"]]
    {
        for format in ["table", "json"] {
            let shown = site.done(&[listing, &["--output", format]].concat());
            assert!(!shown.contains(secret), "{listing:?}");
        }
    }
    let store = std::fs::read(site.dir.path().join("data/flowgate.db")).expect("a store");
    assert!(!store.windows(secret.len()).any(|window| window == secret.as_bytes()));
}
