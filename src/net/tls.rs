//! TLS towards clients: the server's certificate, and the verifier that asks `Trust` about client
//! certificates. Configurations are built whole and swapped.

use crate::config::TlsMaterial;
use crate::crypto::digest::{hex, sha256};
use crate::crypto::trust::{Distrust, Pins, Trust};
use crate::crypto::x509::Certificate;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::collections::HashMap;
use std::{fmt, sync::Arc};

/// A server configuration for a certificate and the CAs believed at this moment. Without any, and
/// without pinned certificates, no client certificate is asked for.
///
/// Sessions are not resumed: a resumed one would carry its old client certificate unverified.
pub fn server(material: &TlsMaterial, believed: Believed) -> Result<Arc<ServerConfig>, Error> {
    let provider = believed.trust.provider().clone();
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let nobody = believed.trust.authorities().is_empty() && believed.own.authorities().is_empty();
    let builder = if nobody && !believed.pins.any() {
        builder.with_no_client_auth()
    } else {
        builder.with_client_cert_verifier(Arc::new(Verifier::new(believed)))
    };
    let mut config = builder.with_cert_resolver(Arc::new(Names::new(material)?));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The server's certificates, by the names in them.
#[derive(Debug)]
struct Names {
    first: Arc<CertifiedKey>,
    /// Lower case; `*.example.com` stands for one label before the rest.
    others: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl Names {
    fn new(material: &TlsMaterial) -> Result<Self, Error> {
        let mut others: HashMap<_, Vec<_>> = HashMap::new();
        let first = material.identity.clone().certified()?;
        for identity in std::iter::once(&material.identity).chain(&material.others) {
            let key = identity.clone().certified()?;
            for name in identity.dns_names() {
                others.entry(name.to_ascii_lowercase()).or_default().push(key.clone());
            }
        }
        Ok(Self { first, others })
    }

    fn named(&self, name: &str, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let wild = || Some(format!("*.{}", name.split_once('.')?.1));
        let found = self.others.get(&name).or_else(|| self.others.get(&wild()?))?;
        // of several for a name, the first that the client can verify
        found.iter().find(|one| one.key.choose_scheme(schemes).is_some())
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.named(name, hello.signature_schemes()));
        Some(named.unwrap_or(&self.first).clone())
    }
}

/// Who vouches for client certificates.
pub struct Believed {
    pub trust: Arc<Trust>,
    /// Our own CA, apart: no revocation list is asked of it.
    pub own: Arc<Trust>,
    pub pins: Arc<dyn Pins>,
}

struct Verifier {
    believed: Believed,
    hints: Vec<DistinguishedName>,
}

impl Verifier {
    fn new(believed: Believed) -> Self {
        let hints = believed.trust.hints().iter().chain(believed.own.hints()).cloned().collect();
        Self { believed, hints }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({:?})", self.believed.trust)
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // clients that choose by these names would keep back a certificate that only its pin vouches for
        if self.believed.pins.any() { &[] } else { &self.hints }
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain: Vec<_> = [end_entity].into_iter().chain(intermediates).cloned().collect();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let own = self.believed.own.verify(&chain, now);
        match own.or_else(|_| self.believed.trust.judge(&chain, now, &*self.believed.pins)) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(distrust) => {
                // the handshake's own error names no certificate, so it is told here
                let subject = Certificate::from_der(end_entity)
                    .map_or_else(|_| "unreadable".into(), |one| shortened(one.subject));
                let fingerprint = hex(&sha256(end_entity));
                tracing::warn!(target: "flowgate::handshake", reason = %distrust, subject, fingerprint, "client certificate refused");
                Err(alert(&distrust))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.believed.trust.tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.believed.trust.tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.believed.trust.schemes()
    }
}

/// A stranger's name, as much of it as a log line has room for.
fn shortened(text: String) -> String {
    if text.len() <= 256 { text } else { text.chars().take(256).collect() }
}

/// The TLS alert that comes closest to a reason.
fn alert(distrust: &Distrust) -> Error {
    Error::InvalidCertificate(match distrust {
        Distrust::Expired => CertificateError::Expired,
        Distrust::Revoked => CertificateError::Revoked,
        Distrust::NotYetValid => CertificateError::NotValidYet,
        Distrust::UnknownIssuer(_) | Distrust::OtherKey(_) | Distrust::Spelling(_) | Distrust::NoAuthorities => {
            CertificateError::UnknownIssuer
        }
        Distrust::NoClientAuth | Distrust::NoDigitalSignature => CertificateError::InvalidPurpose,
        Distrust::Unreadable(_) => CertificateError::BadEncoding,
        other => CertificateError::Other(OtherError(Arc::new(other.clone()))),
    })
}
