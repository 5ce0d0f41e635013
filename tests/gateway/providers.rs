//! What a token service may do to whoever asks it: redirect, flood, fall silent, be somebody else.

use crate::stub::{Stub, reply};
use flowgate::crypto::ca::{self, Issued, Subject, Validity};
use flowgate::crypto::x509;
use flowgate::domain::artifact::Secrets;
use flowgate::domain::exchange::{self, Answer, TokenRequest};
use flowgate::domain::target::Target;
use flowgate::net::outbound::{Answered, OutboundError, Policy, Sending, Times, call};
use http::Method;
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const DAY: i64 = 86_400;

async fn asked(url: &str, cas: &[&str]) -> Result<Answered, OutboundError> {
    let target = Target::parse(url).expect("a target");
    let request =
        TokenRequest { path: "/token".into(), headers: Vec::new(), body: SecretString::from("client_secret=s3cret") };
    let allow = vec!["127.0.0.0/8".parse().expect("a network")];
    let policy = Policy { allow, roots: rustls::RootCertStore::empty(), connectivity_proxy: None };
    let cas: Vec<_> = cas.iter().flat_map(|pem| x509::chain(pem).expect("certificates")).collect();
    let (target, request) = (&target, &request);
    let sending = Sending {
        method: Method::POST,
        target,
        request,
        identity: None,
        cas: &cas,
        times: Times::default(),
        via: None,
    };
    call(sending, &policy).await
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = Stub::new(|_, _| reply("200 OK", "{\"access_token\":\"t\"}"));
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let address = other.address;
        let first = Stub::new(move |_, _| {
            format!("HTTP/1.1 {status}\r\nLocation: http://{address}/token\r\nContent-Length: 0\r\n\r\n")
        });
        let answered = asked(&format!("http://{}/token", first.address), &[]).await.expect("answered");
        assert_eq!(answered.status.to_string(), status[..3]);
    }
    assert!(other.journal().is_empty());
}

#[tokio::test]
async fn a_flood_is_cut_off() {
    let flood = Stub::new(|_, _| reply("200 OK", &"x".repeat(50 << 20)));
    let refused = asked(&format!("http://{}/token", flood.address), &[]).await.expect_err("too much");
    assert!(matches!(refused, OutboundError::Body(_)), "{refused}");
}

/// Asks a server that says so much at once, and then a byte each second or nothing, without going
/// away.
async fn told(begins: &[u8], drips: bool) -> Result<Answered, OutboundError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let url = format!("http://{}/token", listener.local_addr().expect("an address"));
    let serving = async {
        let (stream, _) = listener.accept().await.expect("a connection");
        let (mut from, mut to) = stream.into_split();
        to.write_all(begins).await.expect("written");
        let mut second = tokio::time::interval(Duration::from_secs(1));
        let mut seen = vec![0; 4_096];
        loop {
            tokio::select! {
                read = from.read(&mut seen) => if !read.is_ok_and(|length| length > 0) { break },
                _ = second.tick(), if drips => if to.write_all(b" ").await.is_err() { break },
            }
        }
    };
    let both = async { tokio::join!(asked(&url, &[]), serving).0 };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("in time")
}

/// 50 MiB of blanks, compressed.
fn bomb() -> Vec<u8> {
    let gzip = Command::new("gzip").args(["-9", "-c"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut gzip = gzip.expect("started");
    let mut stdin = gzip.stdin.take().expect("piped");
    let writing = std::thread::spawn(move || stdin.write_all(&vec![b' '; 50 << 20]).expect("written"));
    let output = gzip.wait_with_output().expect("ended");
    writing.join().expect("written");
    output.stdout
}

#[tokio::test]
async fn a_compressed_answer_is_never_unpacked() {
    let bomb = bomb();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length:";
    let mut bytes = format!("{head} {}\r\n\r\n", bomb.len()).into_bytes();
    bytes.extend_from_slice(&bomb);
    let answered = told(&bytes, false).await.expect("answered");
    assert_eq!(answered.body.len(), bomb.len());
    let answer = Answer { status: 200, retry_after: None, location: None, body: &answered.body };
    let trouble = exchange::read(&answer, &Secrets::default(), 0).expect_err("no JSON");
    assert!(trouble.text.contains("without a JSON object"), "{}", trouble.text);
}

#[tokio::test]
async fn silence_and_a_byte_each_second_end_in_time() {
    let begun = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{";
    for outcome in <[_; 3]>::from(tokio::join!(told(b"", false), told(begun, false), told(begun, true))) {
        let refused = outcome.expect_err("late");
        assert!(matches!(refused, OutboundError::Late(..)), "{refused}");
    }
}

fn authority(name: &str) -> Issued {
    let subject = Subject { organization: "x", unit: None, common_name: name };
    ca::authority(&subject, Validity::days(now(), 30)).expect("made")
}

fn server(authority: &Issued, from: i64, host: &str) -> Issued {
    let subject = Subject { organization: "x", unit: None, common_name: "server" };
    ca::server(authority, &subject, Validity::days(from, 30), &[host]).expect("made")
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// What a client made of a server with this certificate, and what came to the server of its request.
async fn met(issued: &Issued, trusted: &str) -> (Result<Answered, OutboundError>, Option<String>) {
    let chain = x509::chain(&issued.certificate).expect("certificates");
    let key = PrivateKeyDer::from_pem_slice(issued.key.expose_secret().as_bytes()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = config.with_no_client_auth().with_single_cert(chain, key).expect("fits");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let url = format!("https://{}/token", listener.local_addr().expect("an address"));
    let serving = async {
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await.ok()?;
        let mut request = vec![0; 4_096];
        let length = stream.read(&mut request).await.ok().filter(|length| *length > 0)?;
        stream.write_all(reply("200 OK", "{}").as_bytes()).await.ok()?;
        Some(String::from_utf8_lossy(&request[..length]).into_owned())
    };
    let cas = [trusted];
    let both = async { tokio::join!(asked(&url, &cas), serving) };
    tokio::time::timeout(Duration::from_secs(30), both).await.expect("in time")
}

#[tokio::test]
async fn a_server_that_cannot_prove_itself_never_sees_the_secret() {
    let (good, other) = (authority("good"), authority("other"));
    for (what, issued) in [
        ("another CA", server(&other, now(), "127.0.0.1")),
        ("another host", server(&good, now(), "localhost")),
        ("expired", server(&good, now() - 60 * DAY, "127.0.0.1")),
        ("not yet", server(&good, now() + 10 * DAY, "127.0.0.1")),
    ] {
        let (outcome, seen) = met(&issued, &good.certificate).await;
        assert!(matches!(outcome, Err(OutboundError::Connect(..))), "{what}: {outcome:?}");
        assert_eq!(seen, None, "{what}");
    }
    let (outcome, seen) = met(&server(&good, now(), "127.0.0.1"), &good.certificate).await;
    assert_eq!(outcome.expect("answered").status, 200);
    assert!(seen.is_some_and(|seen| seen.contains("client_secret=s3cret")));
}
