//! Client certificates where they count: which one a caller shows, whether it is believed here and
//! now, and whose it is.

use super::Gateway;
use super::state::State;
use crate::crypto::digest::{Digest, sha256};
use crate::crypto::trust::{Distrust, Pins, fit_alone};
use crate::domain::grant::Proof;
use crate::domain::reason::Reason;
use crate::domain::route::Route;
use crate::domain::trail::Refusal;
use crate::net::peer::{Peer, PeerCertificate};
use http::HeaderMap;
use std::sync::Arc;

/// Bytes of certificates from headers that are remembered, so that a proxy's next call costs no
/// parsing.
const REMEMBERED: u64 = 64 << 20;

pub(super) type Forwarded = moka::sync::Cache<Digest, Arc<PeerCertificate>>;

pub(super) fn forwarded() -> Forwarded {
    let weigh = |_: &Digest, one: &Arc<PeerCertificate>| {
        let bytes: usize = one.chain.iter().map(|der| der.len()).sum();
        u32::try_from(2 * bytes + 1_024).unwrap_or(u32::MAX)
    };
    Forwarded::builder().weigher(weigh).max_capacity(REMEMBERED).build()
}

/// Whom a certificate is to prove, which decides whose CAs count.
#[derive(Debug, Clone, Copy)]
pub(super) enum Proves<'a> {
    /// The holder of a service key of this instance, or of none.
    Key(Option<&'a str>),
    /// One of the names that a route lists.
    Names,
}

impl Gateway {
    /// The certificate that a caller shows: the connection's own, or where the listener's proxies
    /// tell of their callers' certificates, the one that the proxy tells of.
    pub fn shown(&self, peer: &Peer, headers: &HeaderMap) -> Result<Option<Arc<PeerCertificate>>, Refusal> {
        let Some(form) = peer.certificate_header.as_deref().filter(|_| peer.trusted) else {
            return Ok(peer.certificate.clone());
        };
        let refused = |detail: String| Refusal::because(Reason::CertificateHeader, detail);
        let Some(raw) = form.raw(headers).map_err(|error| refused(error.to_string()))? else { return Ok(None) };
        let digest = sha256(&[form.name().as_str().as_bytes(), b":", &raw].concat());
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
        route: Option<&Route>,
        now: i64,
    ) -> Result<Proof, Refusal> {
        let found = self.state.clients.load().by_certificate(&certificate.leaf);
        let instance = found.as_ref().ok().map(|proof| proof.client.instance.id.as_str());
        believed(&self.state, peer, certificate, route, Proves::Key(instance), now)?;
        found
    }
}

/// Whether a certificate is believed by every list of CAs that is about this caller. First the one
/// that says who may be the client at all: the instance's, or the general one, for whose missing
/// path a pin may stand; for names that a route lists, the route's. Then the listener's and the
/// route's, which only take away.
pub(super) fn believed(
    state: &State,
    peer: &Peer,
    certificate: &PeerCertificate,
    route: Option<&Route>,
    proves: Proves<'_>,
    now: i64,
) -> Result<(), Refusal> {
    let authorities = state.authorities.load();
    if certificate.judged(&authorities.own, now).is_ok() {
        return Ok(());
    }
    let refused = |distrust: Distrust| Refusal::because(Reason::CertificateDistrusted, distrust.to_string());
    let of_route = route.and_then(|route| route.trust.as_ref());
    let base = match proves {
        Proves::Key(instance) => instance.and_then(|id| authorities.instances.get(id)),
        Proves::Names => of_route,
    };
    match (certificate.judged(base.unwrap_or(&authorities.general), now), proves, base) {
        (Err(distrust), Proves::Key(_), None) if distrust.pin_helps() && state.holds(&certificate.leaf.fingerprint) => {
            fit_alone(&certificate.leaf, now)
        }
        (verdict, ..) => verdict,
    }
    .map_err(refused)?;
    for list in [authorities.listeners.get(&peer.listener), of_route].into_iter().flatten() {
        certificate.judged(list, now).map_err(refused)?;
    }
    Ok(())
}
