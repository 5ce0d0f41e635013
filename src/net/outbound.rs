//! Calls of our own to token services: guarded. The address that was resolved is the one that is
//! judged and connected to; redirects are not followed; size and time have an end.

use super::client::{self, ExchangeError, tls};
use crate::config::Outbound;
use crate::crypto::identity::Identity;
use crate::domain::exchange::TokenRequest;
use crate::domain::target::{Refused, Target, judge};
use bytes::Bytes;
use http::header::{HOST, HeaderMap, USER_AGENT};
use http::{HeaderValue, Method, Request};
use http_body_util::Full;
use ipnet::IpNet;
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, ServerName};
use secrecy::ExposeSecret;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::Host;

const CONNECT: Duration = Duration::from_secs(5);
const TIME: Duration = Duration::from_secs(20);

/// Where calls may go, and who vouches for those who answer.
#[derive(Debug, Clone)]
pub struct Policy {
    pub allow: Vec<IpNet>,
    pub roots: RootCertStore,
}

impl Policy {
    /// The system's CAs and these besides.
    pub fn new(outbound: &Outbound) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots.add_parsable_certificates(outbound.trusted_cas.iter().cloned());
        Self { allow: outbound.allow_networks.clone(), roots }
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
    #[error("{0} did not answer within 20 s")]
    Late(String),
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

/// Sends one token request.
pub async fn post(
    target: &Target,
    request: &TokenRequest,
    auth: Option<Identity>,
    cas: &[CertificateDer<'static>],
    policy: &Policy,
) -> Result<Answered, OutboundError> {
    let authority = target.authority();
    let work = exchange(target, &authority, request, auth, cas, policy);
    tokio::time::timeout(TIME, work).await.map_err(|_| OutboundError::Late(authority.clone()))?
}

async fn exchange(
    target: &Target,
    authority: &str,
    request: &TokenRequest,
    auth: Option<Identity>,
    cas: &[CertificateDer<'static>],
    policy: &Policy,
) -> Result<Answered, OutboundError> {
    let stream = connect(target, authority, policy).await?;
    if !target.secure() {
        return send(stream, authority, request).await;
    }
    let host = target.host().map(|host| host.to_string().trim_matches(['[', ']']).to_owned()).unwrap_or_default();
    let name = ServerName::try_from(host.clone()).map_err(|_| OutboundError::Host(host))?;
    let mut roots = policy.roots.clone();
    roots.add_parsable_certificates(cas.iter().cloned());
    let config = Arc::new(tls(roots, auth)?);
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await;
    send(stream.map_err(|error| OutboundError::Connect(authority.to_owned(), error))?, authority, request).await
}

/// To the first address that may be called and answers.
async fn connect(target: &Target, authority: &str, policy: &Policy) -> Result<TcpStream, OutboundError> {
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
        if let Err(refused) = judge(address, target.secure(), &policy.allow) {
            last = OutboundError::Refused(authority.to_owned(), refused);
            continue;
        }
        match tokio::time::timeout(CONNECT, TcpStream::connect(SocketAddr::new(address, port))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = OutboundError::Connect(authority.to_owned(), error),
            Err(_) => last = OutboundError::Connect(authority.to_owned(), io::ErrorKind::TimedOut.into()),
        }
    }
    Err(last)
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    authority: &str,
    request: &TokenRequest,
) -> Result<Answered, OutboundError> {
    let bad = || OutboundError::Host(authority.to_owned());
    let body = Full::new(Bytes::copy_from_slice(request.body.expose_secret().as_bytes()));
    let mut message = Request::builder().method(Method::POST).uri(&request.path).body(body).map_err(|_| bad())?;
    let headers = message.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(authority).map_err(|_| bad())?);
    headers.insert(USER_AGENT, HeaderValue::from_static("flowgate"));
    for (name, value) in &request.headers {
        headers.append(name, value.clone());
    }
    let (head, body) = client::exchange(stream, message).await.map_err(|error| match error {
        ExchangeError::Http(error) => OutboundError::Http(authority.to_owned(), error),
        ExchangeError::Body(_) => OutboundError::Body(authority.to_owned()),
    })?;
    Ok(Answered { status: head.status.as_u16(), headers: head.headers, body })
}
