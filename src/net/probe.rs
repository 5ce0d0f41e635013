//! One TLS handshake for the sake of looking: what a server sends is recorded, not judged.

use crate::crypto::identity::Identity;
use crate::crypto::trust::provider;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, ProtocolVersion, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

const TIME: Duration = Duration::from_secs(15);
/// How long a server may take to refuse a client certificate: in TLS 1.3 it does so after the
/// client believes that the handshake is over.
const VERDICT: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("`{0}` is no host name")]
    Name(String),
    #[error("{0} cannot be reached: {1}")]
    Unreachable(String, io::Error),
    #[error("{0} is reachable, but the TLS handshake fails: {1}")]
    Handshake(String, io::Error),
    #[error("no answer within 15 s")]
    Late,
    #[error("the TLS client cannot be set up: {0}")]
    Tls(#[from] Error),
}

/// What a handshake showed.
#[derive(Debug)]
pub struct Seen {
    pub version: &'static str,
    pub cipher: String,
    /// As sent, the server's own first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Whether the server asked for a client certificate.
    pub asked: bool,
    /// Why it did not like the one it got.
    pub refused: Option<String>,
}

/// Connects to `host:port` and reports what is there.
pub async fn probe(host: &str, port: u16, auth: Option<Identity>) -> Result<Seen, ProbeError> {
    tokio::time::timeout(TIME, look(host, port, auth)).await.map_err(|_| ProbeError::Late)?
}

async fn look(host: &str, port: u16, auth: Option<Identity>) -> Result<Seen, ProbeError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| ProbeError::Name(host.to_owned()))?;
    let recorder = Arc::new(Recorder { provider: provider(), chain: Mutex::default() });
    let asking = Arc::new(Asked { asked: AtomicBool::new(false), key: auth.map(Identity::certified).transpose()? });
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let config = config.dangerous().with_custom_certificate_verifier(recorder.clone());
    let config = config.with_client_cert_resolver(asking.clone());
    let address = format!("{host}:{port}");
    let stream = TcpStream::connect((host, port)).await;
    let stream = stream.map_err(|error| ProbeError::Unreachable(address.clone(), error))?;
    let connecting = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream);
    let mut stream = connecting.await.map_err(|error| ProbeError::Handshake(address, error))?;
    let (_, session) = stream.get_ref();
    let version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "unknown",
    };
    let cipher = session.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite())).unwrap_or_default();
    let asked = asking.asked.load(Ordering::Relaxed);
    let refused = match tokio::time::timeout(VERDICT, stream.read(&mut [0; 1])).await {
        Ok(Err(error)) if asked => Some(error.to_string()),
        _ => None,
    };
    let chain = std::mem::take(&mut *recorder.chain.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Seen { version, cipher, chain, asked, refused })
}

/// Whether a server's certificate is for a name.
pub fn named(leaf: &CertificateDer<'_>, host: &str) -> Result<(), String> {
    let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
    let parsed = ParsedCertificate::try_from(leaf).map_err(|error| error.to_string())?;
    verify_server_name(&parsed, &name).map_err(|error| error.to_string())
}

/// Whether a server's chain leads to one of these roots at `now` (Unix seconds), its name aside.
pub fn trusted(chain: &[CertificateDer<'_>], roots: &[CertificateDer<'static>], now: i64) -> Result<(), String> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.iter().cloned());
    let (leaf, others) = chain.split_first().ok_or("no certificate was sent")?;
    let parsed = ParsedCertificate::try_from(leaf).map_err(|error| error.to_string())?;
    let time = UnixTime::since_unix_epoch(Duration::from_secs(now.try_into().unwrap_or_default()));
    let algorithms = provider().signature_verification_algorithms;
    rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, &store, others, time, algorithms.all)
        .map_err(|error| error.to_string())
}

#[derive(Debug)]
struct Asked {
    asked: AtomicBool,
    key: Option<Arc<CertifiedKey>>,
}

impl ResolvesClientCert for Asked {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Recorder {
    provider: Arc<CryptoProvider>,
    chain: Mutex<Vec<CertificateDer<'static>>>,
}

/// Believes everything, since nothing is sent over these connections: judging comes afterwards.
impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = [end_entity].into_iter().chain(intermediates).map(|one| one.clone().into_owned());
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = chain.collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
