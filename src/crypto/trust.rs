//! Which certificates are believed. One verdict, used wherever a chain is judged: path building is
//! rustls' own verifier; around it stands what that verifier leaves open (sizes, same-named CAs,
//! key usages, the leaf's own content).

use super::digest::{Digest, sha256};
pub use super::distrust::{Distrust, Unfit};
use super::distrust::{MAX_COMPARISONS, MAX_NAMESAKES, MAX_PRESENTED, MAX_PRESENTED_BYTES};
use super::x509::{Certificate, Crl};
use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError as PathError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::{fmt, sync::Arc, time::Duration};

/// What revocation lists decide besides who is on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// A list whose next update has passed refuses all that its CA issued.
    pub expired_refuses: bool,
    /// A CA without a list vouches for nobody.
    pub required: bool,
}

impl Default for Revocation {
    fn default() -> Self {
        Self { expired_refuses: true, required: false }
    }
}

/// Certificates that are believed as they stand, by their fingerprint: a partner's own, pinned by a
/// service key, which no CA needs to vouch for.
pub trait Pins: Send + Sync {
    fn holds(&self, fingerprint: &Digest) -> bool;

    /// Whether there is any.
    fn any(&self) -> bool;
}

/// The one provider of TLS cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A set of trusted CAs with their revocation lists, ready to judge.
pub struct Trust {
    authorities: Vec<Certificate>,
    crls: Vec<Crl>,
    revocation: Revocation,
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
    window: ArcSwap<Window>,
}

/// A verifier for the time in which the same CAs are current: for the library an anchor is a name
/// and a key, and one that has ended would vouch for ever.
struct Window {
    from: i64,
    until: i64,
    inner: Option<Arc<dyn ClientCertVerifier>>,
}

impl Trust {
    pub fn new(authorities: Vec<Certificate>, mut crls: Vec<Crl>, revocation: Revocation) -> Result<Self, Unfit> {
        // of several lists of one CA the path check takes the first
        crls.sort_by_key(|crl| std::cmp::Reverse(crl.this_update));
        let provider = provider();
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            fit(authority)?;
            let added = roots.add(authority.der.clone());
            added.map_err(|error| Unfit::Anchor(authority.subject.clone(), error.to_string()))?;
        }
        let hints = roots.subjects();
        for crl in &crls {
            if !roots.is_empty() {
                let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider.clone());
                let built = builder.with_crls([crl.der.clone()]).build();
                built.map_err(|error| Unfit::Crl(crl.issuer.clone(), error.to_string()))?;
            }
        }
        let never = Window { from: i64::MAX, until: i64::MIN, inner: None };
        Ok(Self { authorities, crls, revocation, hints, provider, window: ArcSwap::from_pointee(never) })
    }

    /// CAs without revocation lists.
    pub fn of(authorities: Vec<Certificate>) -> Result<Self, Unfit> {
        Self::new(authorities, Vec::new(), Revocation::default())
    }

    pub fn authorities(&self) -> &[Certificate] {
        &self.authorities
    }

    pub fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    pub fn crls(&self) -> &[Crl] {
        &self.crls
    }

    /// Judges a chain, leaf first, at `now` (Unix seconds), and returns the leaf as read.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: i64) -> Result<Certificate, Distrust> {
        let (leaf, others) = chain.split_first().ok_or(Distrust::Nothing)?;
        bounded(chain)?;
        let read = Certificate::from_der(leaf)?;
        let intermediates = usable(others);
        namesakes(&intermediates)?;
        self.comparable(&read, &intermediates)?;
        let window = self.window(now);
        let inner = window.inner.as_ref().ok_or_else(|| self.without_anchor(&read))?;
        let ders: Vec<_> = intermediates.iter().map(|one| one.der.clone()).collect();
        let time = UnixTime::since_unix_epoch(Duration::from_secs(now.try_into().unwrap_or_default()));
        let verdict = inner.verify_client_cert(leaf, &ders, time);
        verdict.map_err(|error| self.explain(&error, &read, &intermediates, now))?;
        if self.revocation.required && self.crls.is_empty() {
            // without any list the path check asks for none
            return Err(Distrust::CrlMissing);
        }
        fit_as_client(&read)?;
        Ok(read)
    }

    /// The same, but where only the path is missing, a pin stands for it. What speaks against the
    /// certificate itself, a revocation list above all, does so with a pin too.
    pub fn judge(&self, chain: &[CertificateDer<'_>], now: i64, pins: &dyn Pins) -> Result<Certificate, Distrust> {
        match self.verify(chain, now) {
            Err(distrust) if distrust.pin_helps() && chain.first().is_some_and(|leaf| pins.holds(&sha256(leaf))) => {
                let leaf = Certificate::from_der(&chain[0])?;
                fit_alone(&leaf, now).map(|()| leaf)
            }
            verdict => verdict,
        }
    }

    /// The second at which a verdict of `now` may turn into another by itself.
    pub fn until(&self, now: i64) -> i64 {
        self.window(now).until
    }

    fn window(&self, now: i64) -> Arc<Window> {
        let window = self.window.load_full();
        if (window.from..window.until).contains(&now) {
            return window;
        }
        let fresh = Arc::new(self.window_at(now));
        self.window.store(fresh.clone());
        fresh
    }

    fn window_at(&self, now: i64) -> Window {
        let lives = self.authorities.iter().flat_map(|ca| [ca.not_before, ca.not_after.saturating_add(1)]);
        let updates = self.crls.iter().filter_map(|crl| crl.next_update);
        let (past, future): (Vec<_>, Vec<_>) = lives.chain(updates).partition(|edge| *edge <= now);
        let mut roots = RootCertStore::empty();
        for authority in self.authorities.iter().filter(|ca| ca.current(now)) {
            // known to fit since `new`
            let _ = roots.add(authority.der.clone());
        }
        let inner = (!roots.is_empty()).then(|| self.verifier(roots)).flatten();
        let (from, until) = (past.into_iter().max(), future.into_iter().min());
        Window { from: from.unwrap_or(i64::MIN), until: until.unwrap_or(i64::MAX), inner }
    }

    fn verifier(&self, roots: RootCertStore) -> Option<Arc<dyn ClientCertVerifier>> {
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), self.provider.clone());
        let mut builder = builder.with_crls(self.crls.iter().map(|crl| crl.der.clone()));
        if self.revocation.expired_refuses {
            builder = builder.enforce_revocation_expiration();
        }
        if !self.revocation.required {
            builder = builder.allow_unknown_revocation_status();
        }
        builder.build().ok()
    }

    fn comparable(&self, leaf: &Certificate, intermediates: &[Certificate]) -> Result<(), Distrust> {
        let names: usize = intermediates.iter().chain([leaf]).map(|one| one.alternative_names).sum();
        let above: usize = intermediates.iter().map(|one| one.constraints).sum();
        let anchor = self.authorities.iter().map(|one| one.constraints).max().unwrap_or(0);
        if names.saturating_mul(above + anchor) > MAX_COMPARISONS { Err(Distrust::Comparisons) } else { Ok(()) }
    }

    /// No CA is current: either there is none, or the one that vouched has ended.
    fn without_anchor(&self, leaf: &Certificate) -> Distrust {
        let ended = self.authorities.iter().any(|ca| ca.subject_der == leaf.issuer_der);
        if ended { Distrust::Expired } else { Distrust::NoAuthorities }
    }

    fn explain(&self, error: &rustls::Error, leaf: &Certificate, others: &[Certificate], now: i64) -> Distrust {
        let cause = match error {
            rustls::Error::InvalidCertificate(cause) => cause,
            rustls::Error::InvalidCertRevocationList(fault) => return Distrust::CrlUnusable(format!("{fault:?}")),
            other => return Distrust::Path(other.to_string()),
        };
        match cause {
            PathError::Expired | PathError::ExpiredContext { .. } => Distrust::Expired,
            PathError::NotValidYet | PathError::NotValidYetContext { .. } => Distrust::NotYetValid,
            PathError::InvalidPurpose | PathError::InvalidPurposeContext { .. } => Distrust::NoClientAuth,
            PathError::Revoked => Distrust::Revoked,
            PathError::ExpiredRevocationList | PathError::ExpiredRevocationListContext { .. } => Distrust::CrlExpired,
            PathError::UnknownRevocationStatus => Distrust::CrlMissing,
            PathError::BadSignature => Distrust::OtherKey(top(leaf, others).issuer.clone()),
            PathError::UnknownIssuer if leaf.not_after < now => Distrust::Expired,
            PathError::UnknownIssuer => self.no_issuer(leaf, others, now),
            PathError::Other(_) if leaf.is_ca => Distrust::IsCa,
            other => Distrust::Path(format!("{other:?}")),
        }
    }

    /// Why nobody vouches: a CA of the right name that has ended, or none of that name.
    fn no_issuer(&self, leaf: &Certificate, others: &[Certificate], now: i64) -> Distrust {
        let top = top(leaf, others);
        let namesake = self.authorities.iter().find(|ca| ca.subject_der == top.issuer_der);
        match namesake {
            Some(ca) if !ca.current(now) => Distrust::Expired,
            Some(_) => Distrust::OtherKey(top.issuer.clone()),
            None => {
                let spelled = self.authorities.iter().any(|ca| ca.names.subject == top.names.issuer);
                if spelled {
                    Distrust::Spelling(top.issuer.clone())
                } else {
                    Distrust::UnknownIssuer(top.issuer.clone())
                }
            }
        }
    }

    /// Names of the CAs, for clients that choose a certificate by them.
    pub fn hints(&self) -> &[DistinguishedName] {
        &self.hints
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

/// The last certificate on the way up for whose issuer nobody presented a certificate.
fn top<'a>(leaf: &'a Certificate, others: &'a [Certificate]) -> &'a Certificate {
    let mut at = leaf;
    for _ in 0..MAX_PRESENTED {
        let above = others.iter().find(|one| one.subject_der == at.issuer_der && !one.self_issued());
        match above {
            Some(next) => at = next,
            None => break,
        }
    }
    at
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
    if let Some(oid) = &authority.unknown_critical {
        return Err(Unfit::Extension(name(), oid.clone()));
    }
    match authority.key.rsa_bits {
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
    fit_key(leaf)
}

/// A key that a handshake would take: behind a proxy there is none to find out.
pub fn fit_key(leaf: &Certificate) -> Result<(), Distrust> {
    match leaf.key.rsa_bits {
        Some(bits) if bits < 2_048 => Err(Distrust::WeakKey(bits)),
        None if !KEYS.contains(&leaf.key.kind.as_str()) => Err(Distrust::KeyKind(leaf.key.kind.clone())),
        _ => Ok(()),
    }
}

/// Kinds of keys besides RSA.
const KEYS: [&str; 4] = ["P-256", "P-384", "P-521", "Ed25519"];

/// What a certificate must say of itself to be believed by its pin alone. Nobody vouches for it, so
/// a missing extension forbids nothing; what it says must not speak against this use.
pub fn fit_alone(leaf: &Certificate, now: i64) -> Result<(), Distrust> {
    if leaf.subject.is_empty() {
        return Err(Distrust::NoSubject);
    }
    if leaf.not_after < now {
        return Err(Distrust::Expired);
    }
    if leaf.not_before > now {
        return Err(Distrust::NotYetValid);
    }
    if leaf.usages.digital_signature == Some(false) {
        return Err(Distrust::NoDigitalSignature);
    }
    if leaf.usages.client_auth == Some(false) {
        return Err(Distrust::NoClientAuth);
    }
    if let Some(oid) = &leaf.unknown_critical {
        return Err(Distrust::Critical(oid.clone()));
    }
    fit_key(leaf)
}
