//! One HTTPS request of our own: what `flowgate token get` sends.

use crate::crypto::client_tls;
use crate::crypto::identity::Identity;
use bytes::Bytes;
use http::response::Parts;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::Url;

const TIME: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const MOST: usize = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("`{0}` is no https address")]
    Address(String),
    #[error("{0} cannot be reached: {1}")]
    Connect(String, std::io::Error),
    #[error("the TLS client cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error("no answer within 30 s")]
    Late,
}

/// Why an exchange over a connection came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error("the request failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer cannot be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
}

/// Posts a request and reads the whole answer, within time and size. Trusts `cas`, or the system's
/// CAs where there are none.
pub async fn send(
    url: &Url,
    mut request: Request<Full<Bytes>>,
    cas: &[CertificateDer<'static>],
    auth: Option<Identity>,
) -> Result<(StatusCode, Bytes), ClientError> {
    let bad = || ClientError::Address(url.to_string());
    let host = url.host_str().filter(|_| url.scheme() == "https").ok_or_else(bad)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| bad())?;
    let authority = format!("{host}:{}", url.port_or_known_default().unwrap_or(443));
    let config = Arc::new(config(cas, auth)?);
    let work = async {
        let failed = |error| ClientError::Connect(authority.clone(), error);
        let stream = TcpStream::connect(&authority).await.map_err(failed)?;
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.map_err(failed)?;
        let host = http::HeaderValue::try_from(authority.as_str()).map_err(|_| bad())?;
        request.headers_mut().insert(http::header::HOST, host);
        let (head, body) = exchange(stream, request).await?;
        Ok((head.status, body))
    };
    tokio::time::timeout(TIME, work).await.map_err(|_| ClientError::Late)?
}

/// One request and its whole answer, of a bounded size, over a connection that then ends.
pub(super) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(Parts, Bytes), ExchangeError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, MOST).collect().await.map_err(ExchangeError::Body);
    connection.abort();
    Ok((head, body?.to_bytes()))
}

fn config(cas: &[CertificateDer<'static>], auth: Option<Identity>) -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    if cas.is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        roots.add_parsable_certificates(cas.iter().cloned());
    }
    client_tls::config(roots, auth)
}
