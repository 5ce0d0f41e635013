//! The gateway as a process of its own: signals, kills, and what it says when it cannot start.

use crate::world::{Backend, ROUTES, Reply, certificates, config_text, connect, until};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

pub const BINARY: &str = env!("CARGO_BIN_EXE_flowgate");

/// Where a process gateway lives between its starts.
pub struct Site {
    pub dir: TempDir,
    _backend: Backend,
}

impl Site {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let backend = Backend::start();
        certificates(dir.path());
        std::fs::write(dir.path().join("config.yaml"), config_text(&backend, ROUTES, "")).expect("written");
        Self { dir, _backend: backend }
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("config.yaml")
    }

    pub fn cli(&self, arguments: &[&str]) -> Output {
        Command::new(BINARY).args(arguments).arg("--config").arg(self.config()).output().expect("runs")
    }

    pub fn done(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    pub fn serve(&self) -> Serving {
        Serving::start(&self.config())
    }

    /// What `serve` says when it does not start, and its exit code.
    fn refused(&self) -> (String, Option<i32>) {
        // bounded: a start that succeeds against expectation would serve for ever
        let output = Command::new("timeout").args(["20", BINARY, "serve", "--config"]).arg(self.config()).output();
        let output = output.expect("runs");
        (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
    }
}

/// A running `flowgate serve`.
pub struct Serving {
    child: Child,
    pub plain: SocketAddr,
    pub said: Arc<Mutex<String>>,
}

impl Serving {
    pub fn start(config: &Path) -> Self {
        let mut command = Command::new(BINARY);
        command.arg("serve").arg("--config").arg(config).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let said = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
        let heard = said.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *heard.lock().expect("unpoisoned") += &(line + "\n");
            }
        });
        let all = said.clone();
        until("the process serves", || all.lock().expect("unpoisoned").contains("admin listening"));
        let text = said.lock().expect("unpoisoned").clone();
        let address = |line: &str| line.rsplit_once("address=").and_then(|(_, address)| address.trim().parse().ok());
        let listening: Vec<SocketAddr> =
            text.lines().filter(|line| line.contains(" listening ")).filter_map(address).collect();
        Self { child, plain: listening[1], said }
    }

    pub fn says(&self, text: &str) -> bool {
        self.said.lock().expect("unpoisoned").contains(text)
    }

    pub fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(sent.success());
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for the end and gives the exit code.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.wait().expect("ends").code()
    }

    pub fn get(&self, path: &str, headers: &str) -> Reply {
        let mut stream = connect(self.plain);
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n").expect("sent");
        Reply::read(&mut stream, true)
    }

    /// The status of a token request with a service key as it was printed.
    pub fn token(&self, key: &Value) -> Reply {
        let text = |member: &str| key["oauth"][member].as_str().expect("a text");
        let basic = crate::world::basic(text("clientid"), text("clientsecret"));
        let mut stream = connect(self.plain);
        write!(stream, "POST /oauth/token?grant_type=client_credentials HTTP/1.1\r\nHost: localhost\r\n{basic}Content-Length: 0\r\nConnection: close\r\n\r\n").expect("sent");
        Reply::read(&mut stream, true)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How often to kill: a few times in every run, more when asked.
fn rounds() -> usize {
    let asked = std::env::var_os("FLOWGATE_KILLS").and_then(|text| text.to_str()?.parse().ok());
    asked.unwrap_or(30)
}

#[test]
fn a_killed_command_line_loses_no_key_that_it_printed() {
    let site = Site::new();
    site.done(&["instance", "create", "s"]);
    let mut printed: Vec<Value> = Vec::new();
    let mut deleted: Vec<String> = Vec::new();
    for round in 0..rounds() {
        let name = format!("k{round}");
        let mut command = Command::new(BINARY);
        command
            .args(["key", "create", "s", &name, "--config"])
            .arg(site.config())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("starts");
        let mut output = BufReader::new(child.stdout.take().expect("stdout"));
        // killed at its first word, or at a moment that shifts from round to round
        if round % 2 == 0 {
            let mut text = String::new();
            let _ = std::io::Read::read_to_string(&mut output, &mut text);
            let _ = child.kill();
            printed.extend(serde_json::from_str::<Value>(&text));
        } else {
            (0..round * 20_000).for_each(|turn| {
                std::hint::black_box(turn);
            });
            let _ = child.kill();
        }
        let _ = child.wait();
        if round % 6 == 0 {
            site.done(&["key", "delete", "s", &name]);
            deleted
                .push(printed.pop().expect("printed")["oauth"]["clientsecret"].as_str().expect("a secret").to_owned());
        }
    }
    assert!(!printed.is_empty() && !deleted.is_empty());
    let serving = site.serve();
    for key in &printed {
        assert_eq!(serving.token(key).status, 200);
    }
    for secret in &deleted {
        let mut gone = printed[0].clone();
        gone["oauth"]["clientsecret"] = Value::from(secret.as_str());
        assert_eq!(serving.token(&gone).status, 401);
    }
}

#[test]
fn a_killed_gateway_starts_again_with_every_key_and_every_revocation() {
    let site = Site::new();
    site.done(&["instance", "create", "s"]);
    let key: Value = serde_json::from_str(&site.done(&["key", "create", "s", "k"])).expect("JSON");
    let text = |member: &str| key["oauth"][member].as_str().expect("a text");
    let basic = crate::world::basic(text("clientid"), text("clientsecret"));
    let mut revoked: Vec<String> = Vec::new();
    for _ in 0..rounds() / 3 {
        let mut serving = site.serve();
        let token = serving.token(&key).json()["access_token"].as_str().expect("a token").to_owned();
        let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
        assert_eq!(serving.get("/http/orders/1", &bearer(&token)).status, 200);
        for token in &revoked {
            assert_eq!(serving.get("/http/orders/1", &bearer(token)).status, 401);
        }
        let mut stream = connect(serving.plain);
        let body = format!("token={token}");
        write!(stream, "POST /oauth/revoke HTTP/1.1\r\nHost: x\r\n{basic}Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("sent");
        assert_eq!(Reply::read_one(&mut stream).status, 200);
        revoked.push(token);
        serving.kill();
    }
}

#[test]
fn sigterm_lets_what_is_under_way_finish() {
    let site = Site::new();
    let mut serving = site.serve();
    let mut stream = connect(serving.plain);
    write!(stream, "POST /open/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel").expect("sent");
    until("the request is under way", || serving.get("/open/x", "").status == 200);
    serving.signal("TERM");
    until("it drains", || serving.says("draining"));
    write!(stream, "lo").expect("sent");
    let reply = Reply::read_one(&mut stream);
    assert_eq!(reply.status, 200);
    assert!(reply.text().ends_with("hello"));
    drop(stream);
    assert_eq!(serving.ended(), Some(0));
    assert!(serving.says("stopped"));
}

#[test]
fn the_access_log_is_a_file_that_may_be_moved_away() {
    let site = Site::new();
    let text = std::fs::read_to_string(site.config()).expect("a configuration");
    let more = "access_log: { format: ecs, file: access.log }\n";
    std::fs::write(site.config(), format!("{more}{text}")).expect("written");
    let serving = site.serve();
    let (log, moved) = (site.dir.path().join("access.log"), site.dir.path().join("access.log.1"));
    let lines = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let called = |name: &str| {
        assert_eq!(serving.get(&format!("/open/{name}"), "").status, 200);
        format!("\"url.path\":\"/open/{name}\"")
    };
    let first = called("first");
    until("the line is in the file", || lines(&log).contains(&first));
    std::fs::rename(&log, &moved).expect("moved");
    let second = called("second");
    until("the moved file goes on", || lines(&moved).contains(&second));
    serving.signal("HUP");
    until("there is a new file", || {
        let third = called("third");
        lines(&log).contains(&third)
    });
    assert!(!lines(&log).contains(&second));
}

#[test]
fn sighup_loads_the_configuration_again() {
    let site = Site::new();
    let serving = site.serve();
    serving.signal("HUP");
    until("it is told", || serving.says("configuration reloaded"));
}

#[test]
fn what_stands_in_the_way_of_a_start_is_one_line_with_the_remedy() {
    let site = Site::new();
    let mut serving = site.serve();
    let (told, code) = site.refused();
    assert!(told.contains("in use by another `flowgate serve`"), "{told}");
    assert_eq!(code, Some(1));
    // ended in order, so that the write-ahead log is in the store and cannot heal what is cut below
    serving.signal("TERM");
    assert_eq!(serving.ended(), Some(0));

    let other = Site::new();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("an address");
    let text = std::fs::read_to_string(other.config()).expect("read");
    let address = holder.local_addr().expect("an address");
    let text = text.replacen("{ address: \"127.0.0.1:0\" }", &format!("{{ address: \"{address}\" }}"), 1);
    std::fs::write(other.config(), &text).expect("written");
    let (told, code) = other.refused();
    assert!(told.contains(&format!("{address} cannot be listened on")) && code == Some(1), "{told}");

    std::fs::write(other.config(), text.replace("certs/server.pem", "certs/none.pem")).expect("written");
    let (told, code) = other.refused();
    assert!(told.contains("certs/none.pem cannot be read") && code == Some(3), "{told}");

    let key = site.dir.path().join("keys/master.key");
    let right = std::fs::read(&key).expect("a key");
    std::fs::write(&key, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").expect("written");
    let (told, code) = site.refused();
    assert!(told.contains("the store is sealed with master key") && code == Some(1), "{told}");

    std::fs::write(&key, right).expect("put back");
    let store = site.dir.path().join("data/flowgate.db");
    let length = std::fs::metadata(&store).expect("a store").len();
    std::fs::OpenOptions::new().write(true).open(&store).expect("opens").set_len(length / 2).expect("cut");
    let (told, code) = site.refused();
    assert!(told.contains("is damaged") && code == Some(1), "{told}");
}

#[test]
fn the_demo_shows_the_main_job_and_leaves_a_folder_to_go_on_with() {
    let dir = tempfile::tempdir().expect("a folder");
    let free = || std::net::TcpListener::bind("127.0.0.1:0").expect("an address").local_addr().expect("an address");
    let (gate, admin, flow) = (free(), free(), free());
    let text = include_str!("../../config.yaml").replace("localhost:8443", &format!("localhost:{}", gate.port()));
    let text = text.replace("127.0.0.1:8443", &gate.to_string()).replace("127.0.0.1:8444", &admin.to_string());
    std::fs::write(dir.path().join("config.yaml"), text.replace("127.0.0.1:9001", &flow.to_string())).expect("written");

    let mut demo = Command::new(BINARY);
    demo.arg("demo").current_dir(dir.path()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut demo = demo.spawn().expect("starts");
    let mut out = BufReader::new(demo.stdout.take().expect("stdout"));
    let mut lines = String::new();
    while !lines.contains("# 4.") || !lines.trim_end().ends_with("/4711") {
        assert!(out.read_line(&mut lines).expect("a line") > 0, "the demo ended: {lines}");
    }
    let script: Vec<_> = lines.lines().filter(|line| !line.starts_with('#') && !line.starts_with("flowgate")).collect();
    let shown = Command::new("bash").args(["-c", &script.join("\n")]).current_dir(dir.path()).output().expect("runs");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let statuses: Vec<_> = shown.split("HTTP/2 ").skip(1).filter_map(|reply| reply.get(..3)).collect();
    assert_eq!(statuses, ["200", "403", "401"], "{shown}");
    let _ = demo.kill();
    let _ = demo.wait();

    let check = Command::new(BINARY).arg("check").current_dir(dir.path()).output().expect("runs");
    assert!(check.status.success());
    let mut serve = Command::new(BINARY);
    let serve = serve.arg("serve").current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut serve = serve.expect("starts");
    until("it serves", || std::net::TcpStream::connect(gate).is_ok());
    let mut get = Command::new(BINARY);
    get.args(["token", "get", "--key", "keys/demo-sender.json", "--cacert", "certs/ca.pem"]).current_dir(dir.path());
    assert!(get.output().expect("runs").status.success());
    let _ = serve.kill();
    let _ = serve.wait();
}
