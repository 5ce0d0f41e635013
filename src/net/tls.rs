//! TLS towards clients: the server's certificate, and the verifier that asks `Trust` about client
//! certificates. Configurations are built whole and swapped.

use crate::config::TlsMaterial;
use crate::crypto::digest::{hex, sha256};
use crate::crypto::trust::{Distrust, Pins, Trust};
use crate::crypto::x509::Certificate;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::{fmt, sync::Arc};

/// A server configuration for a certificate and the CAs believed at this moment. Without any, and
/// without pinned certificates, no client certificate is asked for.
///
/// Sessions are not resumed: a resumed one would carry its old client certificate unverified.
pub fn server(material: &TlsMaterial, trust: Arc<Trust>, pins: Arc<dyn Pins>) -> Result<Arc<ServerConfig>, Error> {
    let builder =
        ServerConfig::builder_with_provider(trust.provider().clone()).with_safe_default_protocol_versions()?;
    let builder = if trust.authorities().is_empty() && !pins.any() {
        builder.with_no_client_auth()
    } else {
        builder.with_client_cert_verifier(Arc::new(Verifier { trust, pins }))
    };
    let mut config = builder.with_single_cert(material.chain.clone(), material.key.clone_key())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

struct Verifier {
    trust: Arc<Trust>,
    pins: Arc<dyn Pins>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({:?})", self.trust)
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // clients that choose by these names would keep back a certificate that only its pin vouches for
        if self.pins.any() { &[] } else { self.trust.hints() }
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain: Vec<_> = [end_entity].into_iter().chain(intermediates).cloned().collect();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        match self.trust.judge(&chain, now, &*self.pins) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(distrust) => {
                // the handshake's own error names no certificate, so it is told here
                let subject = Certificate::from_der(end_entity).map_or_else(|_| "unreadable".into(), |one| one.subject);
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
        self.trust.tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trust.tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.schemes()
    }
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
