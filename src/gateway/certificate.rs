//! Client certificates where they count: which one a caller shows, whether it is believed here and
//! now, and whose it is.

use super::Gateway;
use super::state::State;
use crate::crypto::digest::sha256;
use crate::crypto::trust::{Distrust, Pins, fit_alone};
use crate::domain::grant::Proof;
use crate::domain::reason::Reason;
use crate::domain::trail::Refusal;
use crate::net::peer::{Peer, PeerCertificate};
use http::HeaderMap;
use std::sync::Arc;

/// Certificates from headers that are remembered, so that a proxy's next call costs no parsing.
const REMEMBERED: u64 = 10_000;

pub(super) type Forwarded = moka::sync::Cache<[u8; 32], Arc<PeerCertificate>>;

pub(super) fn forwarded() -> Forwarded {
    moka::sync::Cache::new(REMEMBERED)
}

impl Gateway {
    /// The certificate that a caller shows: the connection's own, or behind a proxy of ours the one
    /// that the proxy tells of. The proxy's own certificate never stands for its callers.
    pub fn shown(&self, peer: &Peer, headers: &HeaderMap) -> Result<Option<Arc<PeerCertificate>>, Refusal> {
        let Some(form) = peer.certificate_header.as_deref().filter(|_| peer.trusted) else {
            return Ok(peer.certificate.clone());
        };
        let refused = |detail: String| Refusal::because(Reason::CertificateHeader, detail);
        let Some(raw) = form.raw(headers).map_err(|error| refused(error.to_string()))? else { return Ok(None) };
        let digest = sha256(&raw);
        if let Some(known) = self.forwarded.get(&digest) {
            return Ok(Some(known));
        }
        let chain = form.chain(headers).map_err(|error| refused(error.to_string()))?;
        let read = PeerCertificate::new(chain).map_err(|error| refused(error.to_string()))?;
        let read = Arc::new(read);
        self.forwarded.insert(digest, read.clone());
        Ok(Some(read))
    }

    /// The client that a certificate proves, by a key of its own.
    pub(super) fn holder(
        &self,
        peer: &Peer,
        certificate: &PeerCertificate,
        route: Option<&str>,
        now: i64,
    ) -> Result<Proof, Refusal> {
        let found = self.state.clients.load().by_certificate(&certificate.leaf);
        let instance = found.as_ref().ok().map(|proof| proof.client.instance.id.as_str());
        believed(&self.state, peer, certificate, route, instance, now)?;
        found
    }
}

/// Whether a certificate is believed by every list of CAs that is about this caller.
pub(super) fn believed(
    state: &State,
    peer: &Peer,
    certificate: &PeerCertificate,
    route: Option<&str>,
    instance: Option<&str>,
    now: i64,
) -> Result<(), Refusal> {
    let refused = |distrust: Distrust| Refusal::because(Reason::CertificateDistrusted, distrust.to_string());
    if state.holds(&certificate.leaf.fingerprint) {
        return fit_alone(&certificate.leaf, now).map_err(refused);
    }
    let authorities = state.authorities.load();
    if certificate.judged(&authorities.own, now).is_ok() {
        return Ok(());
    }
    for list in authorities.narrowed(peer.listener, route, instance) {
        certificate.judged(list, now).map_err(refused)?;
    }
    Ok(())
}
