//! Calls of our own to token services: guarded. The address that was resolved is the one that is
//! judged and connected to; redirects are not followed; size and time have an end.

use super::client::{self, ExchangeError};
use crate::config::{ConnectivityProxy, Outbound};
use crate::crypto::client_tls;
use crate::crypto::identity::Identity;
use crate::domain::exchange::TokenRequest;
use crate::domain::target::{Refused, Target, judge};
use bytes::Bytes;
use http::header::{ACCEPT, HOST, HeaderMap, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request};
use http_body_util::{Empty, Full};
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, ServerName};
use secrecy::{ExposeSecret, SecretString};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::Host;

/// Where calls may go, and who vouches for those who answer.
#[derive(Debug, Clone)]
pub struct Policy {
    pub allow: Vec<IpNet>,
    pub roots: RootCertStore,
    /// The way to what only a forward proxy reaches.
    pub connectivity_proxy: Option<ConnectivityProxy>,
}

impl Policy {
    /// The system's CAs and these besides.
    pub fn new(outbound: &Outbound) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots.add_parsable_certificates(outbound.trusted_cas.iter().cloned());
        let (allow, connectivity_proxy) = (outbound.allow_networks.clone(), outbound.connectivity_proxy.clone());
        Self { allow, roots, connectivity_proxy }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    #[error("{0} has no address: {1}")]
    Name(String, io::Error),
    #[error("{0}: {1}")]
    Refused(String, Refused),
    #[error("{0} cannot be reached: {1}")]
    Connect(String, io::Error),
    #[error("the TLS client cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the request to {0} failed: {1}")]
    Http(String, hyper::Error),
    #[error("the answer of {0} cannot be read, or has more than 1 MiB")]
    Body(String),
    #[error("{0} did not answer within {1} s")]
    Late(String, u64),
    #[error("the proxy {0} cannot be used: {1}")]
    Proxy(String, String),
    #[error("`{0}` is no host name")]
    Host(String),
}

/// What came back.
#[derive(Debug)]
pub struct Answered {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answered {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// How long a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// For each address that is tried.
    pub connect: Duration,
    /// Until the whole answer is there, connecting included.
    pub whole: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), whole: Duration::from_secs(20) }
    }
}

/// A forward proxy that leads to targets which only it can reach.
#[derive(Debug)]
pub struct Via {
    pub proxy: Target,
    /// What it wants to see: its own token, and where the target is.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// One request with all that it takes to send it.
#[derive(Debug)]
pub struct Sending<'a> {
    pub method: Method,
    pub target: &'a Target,
    pub request: &'a TokenRequest,
    pub identity: Option<Identity>,
    /// CAs that count besides those of the policy.
    pub cas: &'a [CertificateDer<'static>],
    pub times: Times,
    pub via: Option<&'a Via>,
}

/// Gets a public document.
pub async fn get(target: &Target, policy: &Policy) -> Result<Answered, OutboundError> {
    let headers = vec![(ACCEPT, HeaderValue::from_static("application/json"))];
    let request = TokenRequest { path: target.path_with_query(&[], ""), headers, body: SecretString::from("") };
    let sending = Sending {
        method: Method::GET,
        target,
        request: &request,
        identity: None,
        cas: &[],
        times: Times::default(),
        via: None,
    };
    call(sending, policy).await
}

/// Sends one request.
pub async fn call(sending: Sending<'_>, policy: &Policy) -> Result<Answered, OutboundError> {
    let (authority, whole) = (sending.target.authority(), sending.times.whole);
    let work = exchange(sending, &authority, policy);
    tokio::time::timeout(whole, work).await.map_err(|_| OutboundError::Late(authority.clone(), whole.as_secs()))?
}

async fn exchange(sending: Sending<'_>, authority: &str, policy: &Policy) -> Result<Answered, OutboundError> {
    let (target, request, times, via) = (sending.target, sending.request, sending.times, sending.via);
    let stream = match via {
        None => connect(target, authority, policy, times.connect).await?,
        // the configuration names the proxy, so no more is asked about its address
        Some(via) => dial(&via.proxy, &via.proxy.authority(), times.connect, |_| Ok(())).await?,
    };
    if !target.secure() {
        return send(stream, authority, (&sending.method, request), via).await;
    }
    match via {
        None => secured(stream, sending, authority, policy).await,
        Some(via) => secured(tunnel(stream, target, via).await?, sending, authority, policy).await,
    }
}

async fn secured(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    sending: Sending<'_>,
    authority: &str,
    policy: &Policy,
) -> Result<Answered, OutboundError> {
    let host = sending.target.host().map(|host| host.to_string()).unwrap_or_default();
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|_| OutboundError::Host(host))?;
    let Sending { method, request, cas, identity, .. } = sending;
    let mut roots = policy.roots.clone();
    roots.add_parsable_certificates(cas.iter().cloned());
    let config = Arc::new(client_tls::config(roots, identity)?);
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await;
    let stream = stream.map_err(|error| OutboundError::Connect(authority.to_owned(), error))?;
    send(stream, authority, (&method, request), None).await
}

/// To the first address that may be called and answers.
async fn connect(
    target: &Target,
    authority: &str,
    policy: &Policy,
    time: Duration,
) -> Result<TcpStream, OutboundError> {
    dial(target, authority, time, |address| judge(address, target.secure(), &policy.allow)).await
}

async fn dial(
    target: &Target,
    authority: &str,
    time: Duration,
    may: impl Fn(IpAddr) -> Result<(), Refused>,
) -> Result<TcpStream, OutboundError> {
    let port = target.port();
    let addresses: Vec<IpAddr> = match target.host() {
        Some(Host::Ipv4(four)) => vec![four.into()],
        Some(Host::Ipv6(six)) => vec![six.into()],
        Some(Host::Domain(name)) => {
            let found = tokio::net::lookup_host((name, port)).await;
            let found = found.map_err(|error| OutboundError::Name(name.to_owned(), error))?;
            found.map(|address| address.ip()).collect()
        }
        None => Vec::new(),
    };
    let mut last = OutboundError::Name(authority.to_owned(), io::ErrorKind::NotFound.into());
    for address in addresses {
        if let Err(refused) = may(address) {
            last = OutboundError::Refused(authority.to_owned(), refused);
            continue;
        }
        match tokio::time::timeout(time, TcpStream::connect(SocketAddr::new(address, port))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = OutboundError::Connect(authority.to_owned(), error),
            Err(_) => last = OutboundError::Connect(authority.to_owned(), io::ErrorKind::TimedOut.into()),
        }
    }
    Err(last)
}

/// Through a proxy to a TLS server (RFC 9110, 9.3.6).
async fn tunnel(stream: TcpStream, target: &Target, via: &Via) -> Result<TokioIo<Upgraded>, OutboundError> {
    let failed = |why: String| OutboundError::Proxy(via.proxy.authority(), why);
    let host = target.host().map(|host| host.to_string()).unwrap_or_default();
    let end = format!("{host}:{}", target.port());
    let mut message = Request::connect(&end).body(Empty::<Bytes>::new()).map_err(|error| failed(error.to_string()))?;
    let name = HeaderValue::from_str(&end).map_err(|_| OutboundError::Host(end))?;
    message.headers_mut().insert(HOST, name);
    message.headers_mut().extend(via.headers.iter().cloned());
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| failed(error.to_string()))?;
    tokio::spawn(connection.with_upgrades());
    let response = sender.send_request(message).await.map_err(|error| failed(error.to_string()))?;
    if !response.status().is_success() {
        return Err(failed(format!("it answered CONNECT with {}", response.status().as_u16())));
    }
    hyper::upgrade::on(response).await.map(TokioIo::new).map_err(|error| failed(error.to_string()))
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    authority: &str,
    (method, request): (&Method, &TokenRequest),
    via: Option<&Via>,
) -> Result<Answered, OutboundError> {
    let bad = || OutboundError::Host(authority.to_owned());
    let body = Full::new(Bytes::copy_from_slice(request.body.expose_secret().as_bytes()));
    // a proxy takes the whole URL (RFC 9112, 3.2.2)
    let uri = via.map_or_else(|| request.path.clone(), |_| format!("http://{authority}{}", request.path));
    let mut message = Request::builder().method(method.clone()).uri(uri).body(body).map_err(|_| bad())?;
    let headers = message.headers_mut();
    headers.extend(via.into_iter().flat_map(|via| via.headers.iter().cloned()));
    headers.insert(HOST, HeaderValue::from_str(authority).map_err(|_| bad())?);
    headers.insert(USER_AGENT, HeaderValue::from_static("flowgate"));
    for (name, value) in &request.headers {
        headers.insert(name, value.clone());
    }
    let (head, body) = client::exchange(stream, message).await.map_err(|error| match error {
        ExchangeError::Http(error) => OutboundError::Http(authority.to_owned(), error),
        ExchangeError::Body(_) => OutboundError::Body(authority.to_owned()),
    })?;
    Ok(Answered { status: head.status.as_u16(), headers: head.headers, body })
}
