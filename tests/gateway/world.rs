//! A test world in the product's nouns: instances, their keys, calls to paths. Each test has its
//! own gateway, store and backend; nothing is shared and nothing waits for time.

use crate::partner::Pair;
use flowgate::config;
use flowgate::crypto::ca::{self, Issued, Subject, Validity};
use flowgate::serve::handover::Handed;
use flowgate::serve::{self, Options, SystemClock};
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SignatureScheme, StreamOwned, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use secrecy::ExposeSecret;
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// What was promised for a change to take hold.
pub const HOLD: Duration = Duration::from_secs(1);

pub struct World {
    pub dir: TempDir,
    pub tls: SocketAddr,
    pub plain: SocketAddr,
    pub admin: SocketAddr,
    pub backend: Backend,
    pub ca: Issued,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// The routes of a world unless a test brings its own.
pub const ROUTES: &str = "
routes:
  - { name: orders, path: /http/orders/*, backend: echo }
  - { name: admin, path: /http/orders/admin/*, user_role: Admin.do, backend: echo }
  - { name: open, path: /open/*, authorization: none, backend: echo, max_body: 1MiB }
  - { name: kept, path: /kept, backend: echo, keep_token: true }
  - { name: gone, path: /gone, authorization: none, backend: gone }
  - { name: slow, path: /slow, authorization: none, backend: slow }
";

impl World {
    pub fn new() -> Self {
        Self::with(ROUTES, "")
    }

    /// A world with other routes, and more of a configuration.
    pub fn with(routes: &str, more: &str) -> Self {
        Self::changed(routes, |text| text.replace("\nroutes:", &format!("\n{more}routes:")))
    }

    /// A world with other routes, and whatever a test changes about the text of its configuration.
    pub fn changed(routes: &str, change: impl FnOnce(String) -> String) -> Self {
        install();
        let dir = tempfile::tempdir().expect("a folder");
        let backend = Backend::start();
        let ca = certificates(dir.path());
        let text = change(config_text(&backend, routes, ""));
        std::fs::write(dir.path().join("config.yaml"), text).expect("written");
        Self::start(dir, backend, ca)
    }

    pub fn start(dir: TempDir, backend: Backend, ca: Issued) -> Self {
        let (sender, receiver) = mpsc::channel();
        let path = dir.path().join("config.yaml");
        let log = std::fs::File::create(dir.path().join("access.log")).expect("a log");
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let options = Options {
                    config_path: path,
                    env: |_| None,
                    clock: Arc::new(SystemClock),
                    log: Box::new(log),
                    lanes: 2,
                    handed: Handed::default(),
                };
                let loaded = config::load(&options.config_path, &|_| None).unwrap_or_else(|faults| panic!("{faults}"));
                let running = serve::start(loaded, options).await.expect("starts");
                sender.send((running.listeners.clone(), running.admin, running.stopper())).expect("told");
                running.ended().await;
            });
        };
        let thread = std::thread::spawn(run);
        let (listeners, admin, stop) = receiver.recv().expect("the gateway starts");
        Self { dir, tls: listeners[0], plain: listeners[1], admin, backend, ca, stop, thread: Some(thread) }
    }

    /// Runs the command line on this world's store, as another process.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowgate"));
        command.args(arguments).arg("--config").arg(self.dir.path().join("config.yaml"));
        command.output().expect("the command runs")
    }

    /// Runs a command that must succeed and returns what it printed.
    pub fn done(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// An instance with the given roles (made where they are missing) and one secret key.
    pub fn sender(&self, name: &str, roles: &str) -> Sender {
        for role in roles.split(',').filter(|role| !role.is_empty()) {
            let _ = self.cli(&["role", "create", role]);
        }
        self.done(&["instance", "create", name, "--roles", roles]);
        self.key(name, "key")
    }

    /// One more secret key of an instance.
    pub fn key(&self, instance: &str, name: &str) -> Sender {
        let json: Value = serde_json::from_str(&self.done(&["key", "create", instance, name])).expect("JSON");
        let text = |member: &str| json["oauth"][member].as_str().expect("a text").to_owned();
        let sender = Sender { id: text("clientid"), secret: text("clientsecret") };
        // made by another process: known here as soon as the store has been followed
        until("the key is known", || {
            self.post("/oauth/token", &sender.basic(), "grant_type=client_credentials").status == 200
        });
        sender
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A form posted to the token server.
    pub fn post(&self, path: &str, headers: &str, body: &str) -> Reply {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        self.raw(head.as_bytes())
    }

    /// A token of the sender's.
    pub fn token(&self, sender: &Sender) -> String {
        let reply = self.post("/oauth/token", &sender.basic(), "grant_type=client_credentials");
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["access_token"].as_str().expect("a token").to_owned()
    }

    /// A GET with a bearer token.
    pub fn call(&self, path: &str, token: &str) -> Reply {
        self.get(path, &format!("Authorization: Bearer {token}\r\n"))
    }

    pub fn get(&self, path: &str, headers: &str) -> Reply {
        self.raw(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n").as_bytes())
    }

    /// Bytes as they are, over a plain connection, and the one reply.
    pub fn raw(&self, bytes: &[u8]) -> Reply {
        let mut stream = connect(self.plain);
        let _ = stream.write_all(bytes);
        Reply::read(&mut stream, !bytes.starts_with(b"HEAD"))
    }

    pub fn admin(&self, path: &str) -> Reply {
        let mut stream = connect(self.admin);
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
        Reply::read(&mut stream, true)
    }

    /// A kept connection.
    pub fn connection(&self) -> Connection {
        Connection(connect(self.plain))
    }

    /// A TLS connection that trusts this world's CA, with a client certificate if one is given.
    pub fn tls(&self, client: Option<&Pair>) -> std::io::Result<TlsConnection> {
        self.tls_of(client, rustls::ALL_VERSIONS)
    }

    /// The same, of some versions of TLS.
    pub fn tls_of(
        &self,
        client: Option<&Pair>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> std::io::Result<TlsConnection> {
        tls(self.tls, &self.client_config(client, versions))
    }

    /// A TLS client's configuration, which remembers its sessions.
    pub fn client_config(
        &self,
        client: Option<&Pair>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        client_config(&self.ca.certificate, client, versions)
    }

    /// The access log as far as it has been written.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.file("access.log")).expect("a log")
    }

    /// Waits for a line of the access log.
    pub fn logged(&self, matches: impl Fn(&Value) -> bool) -> Value {
        let find = || {
            self.log().lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find(|line| matches(line))
        };
        until("the line is logged", || find().is_some());
        find().expect("found before")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        // FLOWGATE_LOG=info shows what the gateways of a failing test say
        let filter = tracing_subscriber::EnvFilter::from_env("FLOWGATE_LOG");
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    });
}

/// The configuration of a world.
pub fn config_text(backend: &Backend, routes: &str, more: &str) -> String {
    // an address where nobody listens: bound once to be known free, then left
    let gone = TcpListener::bind("127.0.0.1:0").expect("an address").local_addr().expect("an address");
    let (echo, slow) = (backend.address, backend.slow);
    format!(
        "public_url: https://localhost:8443
tenant: {{ xsappname: \"it-rt-test!b1\" }}
listeners:
  - {{ address: \"127.0.0.1:0\", tls: {{ certificate: certs/server.pem, key: certs/server-key.pem }} }}
  - {{ address: \"127.0.0.1:0\" }}
admin: {{ address: \"127.0.0.1:0\" }}
trusted_cas: [certs/trusted-cas]
backends:
  echo: {{ servers: [\"http://{echo}\"], timeout: 10s }}
  gone: {{ servers: [\"http://{gone}\"] }}
  slow: {{ servers: [\"http://{slow}\"], timeout: 200ms }}
{more}{routes}"
    )
}

/// A CA and a server certificate in `certs/`.
pub fn certificates(dir: &Path) -> Issued {
    std::fs::create_dir_all(dir.join("certs/trusted-cas")).expect("a folder");
    let now = jiff::Timestamp::now().as_second();
    let subject = |common_name| Subject { organization: "tests", unit: None, common_name };
    let ca = ca::authority(&subject("server CA"), Validity::days(now, 2)).expect("made");
    server_certificate(dir, &ca);
    ca
}

/// A fresh server certificate in place of the one that is there.
pub fn server_certificate(dir: &Path, ca: &Issued) {
    let now = jiff::Timestamp::now().as_second();
    let subject = Subject { organization: "tests", unit: None, common_name: "localhost" };
    let server = ca::server(ca, &subject, Validity::days(now, 2), &["localhost"]).expect("made");
    std::fs::write(dir.join("certs/server-key.pem"), server.key.expose_secret()).expect("written");
    std::fs::write(dir.join("certs/server.pem"), server.certificate).expect("written");
}

/// Who calls: a client id and a secret.
#[derive(Clone)]
pub struct Sender {
    pub id: String,
    pub secret: String,
}

impl Sender {
    pub fn basic(&self) -> String {
        basic(&self.id, &self.secret)
    }
}

pub fn basic(id: &str, secret: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{id}:{secret}")))
}

/// A JSON object with the members of another over its own.
pub fn overlaid(mut members: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().expect("an object") {
        members[name] = value.clone();
    }
    members
}

/// Waits for a condition, never for time; fails after longer than any promise.
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        std::thread::yield_now();
    }
}

/// How long a condition took to come true.
pub fn time_until(what: &str, condition: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    until(what, condition);
    start.elapsed()
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    stream
}

fn client_config(ca: &str, client: Option<&Pair>, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("a CA")).expect("added");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots);
    Arc::new(match client {
        None => builder.with_no_client_auth(),
        Some(pair) => builder.with_client_cert_resolver(Arc::new(Shows::new(pair))),
    })
}

pub fn tls(address: SocketAddr, config: &Arc<ClientConfig>) -> std::io::Result<TlsConnection> {
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(config.clone(), name).expect("a connection");
    let mut stream = StreamOwned::new(connection, connect(address));
    stream.flush()?;
    Ok(stream)
}

pub type TlsConnection = StreamOwned<ClientConnection, TcpStream>;

/// Shows a certificate whatever is asked for and whether or not it could be read.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl Shows {
    fn new(pair: &Pair) -> Self {
        let chain = CertificateDer::pem_slice_iter(pair.chain.as_bytes()).collect::<Result<_, _>>().expect("a chain");
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).expect("a key");
        Self(Arc::new(CertifiedKey::new(chain, key)))
    }
}

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A kept HTTP/1.1 connection.
pub struct Connection(pub TcpStream);

impl Connection {
    pub fn call(&mut self, path: &str, token: &str) -> u16 {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n")).status
    }

    pub fn send(&mut self, request: &str) -> Reply {
        self.0.write_all(request.as_bytes()).expect("sent");
        Reply::read_one(&mut self.0)
    }
}

#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    /// Everything until the connection ends.
    pub fn read(stream: &mut impl Read, with_body: bool) -> Self {
        let mut bytes = Vec::new();
        let mut block = vec![0; 16 * 1024];
        loop {
            match stream.read(&mut block) {
                Ok(0) => break,
                Ok(length) => bytes.extend_from_slice(&block[..length]),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe
                    ) =>
                {
                    break;
                }
                Err(error) => panic!("the reply cannot be read: {error}; so far {:?}", String::from_utf8_lossy(&bytes)),
            }
        }
        Self::parse(&bytes, with_body)
    }

    /// One reply with a known length.
    pub fn read_one(stream: &mut impl Read) -> Self {
        let mut bytes = Vec::new();
        let mut byte = [0; 1];
        while !bytes.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).expect("a head");
            bytes.push(byte[0]);
        }
        let mut reply = Self::parse(&bytes, false);
        let length = reply.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        reply.body = vec![0; length];
        stream.read_exact(&mut reply.body).expect("a body");
        reply
    }

    fn parse(bytes: &[u8], with_body: bool) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let Some(end) = end else { return Self { status: 0, headers: Vec::new(), body: bytes.to_vec() } };
        let head = String::from_utf8_lossy(&bytes[..end]);
        let mut lines = head.split("\r\n");
        let status =
            lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok()).unwrap_or(0);
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let rest = &bytes[end + 4..];
        if status == 100 {
            return Self::parse(rest, with_body);
        }
        let reply = Self { status, headers, body: Vec::new() };
        let chunked = reply.header("transfer-encoding") == Some("chunked");
        let body = match (with_body, chunked) {
            (false, _) => Vec::new(),
            (true, false) => rest.to_vec(),
            (true, true) => unchunk(rest),
        };
        Self { body, ..reply }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let length = usize::from_str_radix(&String::from_utf8_lossy(&rest[..end]), 16).unwrap_or(0);
        if length == 0 || rest.len() < end + 2 + length {
            break;
        }
        out.extend_from_slice(&rest[end + 2..end + 2 + length]);
        rest = &rest[(end + 4 + length).min(rest.len())..];
    }
    out
}

/// For a client that is async.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A server on a thread of its own, for as long as the tests run.
pub fn server<F: Future<Output = ()>>(serve: impl FnOnce(tokio::net::TcpListener) -> F + Send + 'static) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("an address");
    socket.set_nonblocking(true).expect("set");
    let address = socket.local_addr().expect("an address");
    let work =
        || runtime().block_on(async { serve(tokio::net::TcpListener::from_std(socket).expect("a listener")).await });
    std::thread::spawn(work);
    address
}

/// A backend that counts what reaches it and answers with what it saw.
pub struct Backend {
    pub address: SocketAddr,
    /// Takes connections and never answers.
    pub slow: SocketAddr,
    hits: Arc<AtomicUsize>,
    _silent: TcpListener,
}

impl Backend {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
        let address = listener.local_addr().expect("an address");
        let silent = TcpListener::bind("127.0.0.1:0").expect("an address");
        let slow = silent.local_addr().expect("an address");
        let hits = Arc::new(AtomicUsize::new(0));
        let counter = hits.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counter = counter.clone();
                std::thread::spawn(move || serve_backend(stream, &counter));
            }
        });
        Self { address, slow, hits, _silent: silent }
    }

    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

/// Reads requests as they are on the wire and answers each with them. A path with `chunked` in it
/// is answered in chunks, one with `reset` by closing the connection.
fn serve_backend(mut stream: TcpStream, hits: &AtomicUsize) {
    let mut bytes = Vec::new();
    let mut block = vec![0; 64 * 1024];
    loop {
        while let Some(length) = whole(&bytes) {
            let request: Vec<u8> = bytes.drain(..length).collect();
            hits.fetch_add(1, Ordering::SeqCst);
            let text = String::from_utf8_lossy(&request);
            let path = text.split(' ').nth(1).unwrap_or_default();
            if path.contains("reset") {
                return;
            }
            let answer = if path.contains("chunked") {
                format!(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: x-gone\r\nX-Gone: 1\r\n\r\n{:x}\r\n{text}\r\n0\r\n\r\n",
                    text.len()
                )
            } else if text.starts_with("HEAD") {
                "HTTP/1.1 200 OK\r\nContent-Length: 4711\r\nX-Head: yes\r\n\r\n".to_owned()
            } else {
                format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{text}", text.len())
            };
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
        match stream.read(&mut block) {
            Ok(0) | Err(_) => return,
            Ok(length) => bytes.extend_from_slice(&block[..length]),
        }
    }
}

/// The length of the first request, once it is whole.
fn whole(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    if text.contains("transfer-encoding: chunked") {
        let end = bytes[head..].windows(5).position(|window| window == b"0\r\n\r\n")?;
        return Some(head + end + 5);
    }
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    (bytes.len() >= head + length).then_some(head + length)
}
