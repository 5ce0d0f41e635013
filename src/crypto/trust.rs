//! Which certificates are believed. One verdict, used wherever a chain is judged: path building is
//! rustls' own verifier; around it stands what that verifier leaves open (sizes, same-named CAs,
//! key usages, the leaf's own content).

use super::x509::{Certificate, CertificateError};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError as PathError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::{fmt, sync::Arc, time::Duration};

/// Certificates a peer may present, its own included. The longest path has six intermediates.
pub const MAX_PRESENTED: usize = 8;
/// Presented certificates that may share one subject: eight same-named CAs that sign each other
/// cost 0.4 s of CPU to search (path building is exponential in twins).
pub const MAX_NAMESAKES: usize = 2;
/// Bytes of all presented certificates.
pub const MAX_PRESENTED_BYTES: usize = 48 * 1024;

/// Why a chain is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    #[error("no certificate was presented")]
    Nothing,
    #[error(
        "{0} certificates were presented, at most {MAX_PRESENTED} are looked at; send the leaf and its intermediates only"
    )]
    TooMany(usize),
    #[error("the presented certificates have {0} bytes, at most {MAX_PRESENTED_BYTES} are looked at")]
    TooLarge(usize),
    #[error("more than {MAX_NAMESAKES} presented certificates share the subject {0}; send each CA once")]
    Namesakes(String),
    #[error("the certificate cannot be read: {0}")]
    Unreadable(#[from] CertificateError),
    #[error("there is no trusted CA to judge by; add its certificate to trusted_cas")]
    NoAuthorities,
    #[error(
        "no trusted CA vouches for it: the issuer {0} is neither trusted nor among the presented certificates; add that CA to trusted_cas or send the missing intermediate"
    )]
    UnknownIssuer(String),
    #[error("it has expired, or a CA above it has")]
    Expired,
    #[error("it is not yet valid, or a CA above it is not")]
    NotYetValid,
    #[error(
        "it is marked as a CA (CA:TRUE), which a client certificate may not be; make it with basicConstraints=CA:FALSE"
    )]
    IsCa,
    #[error("its extended key usage lacks clientAuth; ask the CA for a certificate with clientAuth")]
    NoClientAuth,
    #[error("its key usage lacks digitalSignature")]
    NoDigitalSignature,
    #[error("it has no subject, so there is no name to know it by")]
    NoSubject,
    #[error("its path does not verify: {0}")]
    Path(String),
}

/// Why a certificate is unfit as a trusted CA.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("{0}")]
    Unreadable(#[from] CertificateError),
    #[error(
        "{0} is not a CA (basicConstraints CA:TRUE is missing): whatever is trusted here may issue certificates for any name"
    )]
    NotCa(String),
    #[error("{0} may not sign certificates (its key usage lacks keyCertSign)")]
    MayNotSign(String),
    #[error("{0} has an RSA key of {1} bits; nothing below 2048 verifies")]
    WeakKey(String, usize),
    #[error("{0} is restricted to usages other than clientAuth")]
    NoClientAuth(String),
    #[error("{0} cannot serve as a trust anchor: {1}")]
    Anchor(String, String),
}

/// A set of trusted CAs, ready to judge.
pub struct Trust {
    authorities: Vec<Certificate>,
    inner: Option<Arc<dyn ClientCertVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl Trust {
    pub fn new(authorities: Vec<Certificate>, provider: Arc<CryptoProvider>) -> Result<Self, Unfit> {
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            fit(authority)?;
            let added = roots.add(authority.der.clone());
            added.map_err(|error| Unfit::Anchor(authority.subject.clone(), error.to_string()))?;
        }
        let inner = (!authorities.is_empty())
            .then(|| {
                let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
                builder.allow_unauthenticated().build().ok()
            })
            .flatten();
        Ok(Self { authorities, inner, provider })
    }

    pub fn authorities(&self) -> &[Certificate] {
        &self.authorities
    }

    /// Judges a chain, leaf first, at `now` (Unix seconds), and returns the leaf as read.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: i64) -> Result<Certificate, Distrust> {
        let (leaf, others) = chain.split_first().ok_or(Distrust::Nothing)?;
        bounded(chain)?;
        let read = Certificate::from_der(leaf)?;
        let intermediates = usable(others);
        namesakes(&intermediates)?;
        let inner = self.inner.as_ref().ok_or(Distrust::NoAuthorities)?;
        let ders: Vec<_> = intermediates.iter().map(|one| one.der.clone()).collect();
        let time = UnixTime::since_unix_epoch(Duration::from_secs(now.try_into().unwrap_or_default()));
        inner.verify_client_cert(leaf, &ders, time).map_err(|error| explain(&error, &read, &intermediates, now))?;
        self.anchored(&read, &intermediates, now)?;
        fit_as_client(&read)?;
        Ok(read)
    }

    /// For the inner verifier an anchor is a name and a key, so a trusted CA that has ended would
    /// vouch for ever: some CA that can have anchored this path must be in its time.
    fn anchored(&self, leaf: &Certificate, others: &[Certificate], now: i64) -> Result<(), Distrust> {
        let names = || others.iter().chain([leaf]).map(|one| &one.issuer_der);
        let anchors = self.authorities.iter().filter(|ca| names().any(|name| *name == ca.subject_der));
        let mut dates = anchors.map(|ca| (ca.not_before..=ca.not_after).contains(&now));
        if dates.any(|current| current) { Ok(()) } else { Err(Distrust::Expired) }
    }

    pub fn hints(&self) -> &[DistinguishedName] {
        self.inner.as_ref().map_or(&[], |inner| inner.root_hint_subjects())
    }

    pub fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }

    /// Proof of possession in TLS 1.2, the library's own.
    pub fn tls12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    /// Proof of possession in TLS 1.3, the library's own.
    pub fn tls13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trust({} CAs)", self.authorities.len())
    }
}

fn bounded(chain: &[CertificateDer<'_>]) -> Result<(), Distrust> {
    let bytes = chain.iter().map(|one| one.len()).sum();
    match (chain.len(), bytes) {
        (count, _) if count > MAX_PRESENTED => Err(Distrust::TooMany(count)),
        (_, bytes) if bytes > MAX_PRESENTED_BYTES => Err(Distrust::TooLarge(bytes)),
        _ => Ok(()),
    }
}

/// Drops what cannot be part of a path: entries that are no certificates and those that may not
/// sign. The path chosen is not reported afterwards, so an unfit one must not be there at all.
fn usable(presented: &[CertificateDer<'_>]) -> Vec<Certificate> {
    let read = presented.iter().filter_map(|der| Certificate::from_der(der).ok());
    read.filter(|one| one.is_ca && one.usages.key_cert_sign != Some(false)).collect()
}

/// The first issuer on the way up that nobody presented and nobody trusts.
fn missing(leaf: &Certificate, others: &[Certificate]) -> String {
    let mut at = leaf;
    for _ in 0..MAX_PRESENTED {
        let above = others.iter().find(|one| one.subject_der == at.issuer_der && !one.self_issued());
        match above {
            Some(next) => at = next,
            None => break,
        }
    }
    at.issuer.clone()
}

fn explain(error: &rustls::Error, leaf: &Certificate, others: &[Certificate], now: i64) -> Distrust {
    let rustls::Error::InvalidCertificate(cause) = error else { return Distrust::Path(error.to_string()) };
    match cause {
        PathError::Expired | PathError::ExpiredContext { .. } => Distrust::Expired,
        PathError::NotValidYet | PathError::NotValidYetContext { .. } => Distrust::NotYetValid,
        PathError::InvalidPurpose | PathError::InvalidPurposeContext { .. } => Distrust::NoClientAuth,
        PathError::UnknownIssuer if leaf.not_after < now => Distrust::Expired,
        PathError::UnknownIssuer => Distrust::UnknownIssuer(missing(leaf, others)),
        PathError::Other(_) if leaf.is_ca => Distrust::IsCa,
        other => Distrust::Path(format!("{other:?}")),
    }
}

fn namesakes(intermediates: &[Certificate]) -> Result<(), Distrust> {
    for one in intermediates {
        let twins = intermediates.iter().filter(|other| other.subject_der == one.subject_der);
        if twins.count() > MAX_NAMESAKES {
            return Err(Distrust::Namesakes(one.subject.clone()));
        }
    }
    Ok(())
}

/// What a certificate must be to vouch for others.
pub fn fit(authority: &Certificate) -> Result<(), Unfit> {
    let name = || authority.subject.clone();
    if !authority.is_ca {
        return Err(Unfit::NotCa(name()));
    }
    if authority.usages.key_cert_sign == Some(false) {
        return Err(Unfit::MayNotSign(name()));
    }
    if authority.usages.client_auth == Some(false) {
        return Err(Unfit::NoClientAuth(name()));
    }
    match authority.rsa_bits {
        Some(bits) if bits < 2048 => Err(Unfit::WeakKey(name(), bits)),
        _ => Ok(()),
    }
}

/// What the leaf must say of itself, which the path check does not ask. SAP's documents demand
/// clientAuth, so a certificate without any extended key usage is refused too.
fn fit_as_client(leaf: &Certificate) -> Result<(), Distrust> {
    if leaf.subject.is_empty() {
        return Err(Distrust::NoSubject);
    }
    if leaf.is_ca {
        return Err(Distrust::IsCa);
    }
    if leaf.usages.digital_signature == Some(false) {
        return Err(Distrust::NoDigitalSignature);
    }
    if leaf.usages.client_auth != Some(true) {
        return Err(Distrust::NoClientAuth);
    }
    Ok(())
}
