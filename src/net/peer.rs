//! Who is at the other end of a connection, as far as the connection can tell.

use super::certificate_header::CertificateHeader;
use crate::crypto::trust::{Distrust, Trust};
use crate::crypto::x509::{Certificate, CertificateError};
use http::HeaderValue;
use ipnet::IpNet;
use rustls_pki_types::CertificateDer;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The certificate that a peer proved to hold, with the chain it sent.
#[derive(Debug)]
pub struct PeerCertificate {
    pub chain: Vec<CertificateDer<'static>>,
    pub leaf: Certificate,
    verdicts: Mutex<VecDeque<Verdict>>,
}

/// What one list of CAs makes of it, until when.
#[derive(Debug)]
struct Verdict {
    trust: Arc<Trust>,
    from: i64,
    until: i64,
    outcome: Result<(), Distrust>,
}

/// Verdicts kept per certificate: lists that one connection meets.
const VERDICTS: usize = 8;

impl PeerCertificate {
    /// Of a chain, leaf first.
    pub fn new(chain: Vec<CertificateDer<'static>>) -> Result<Self, CertificateError> {
        let leaf = Certificate::from_der(chain.first().ok_or(CertificateError::NotDer)?)?;
        Ok(Self { chain, leaf, verdicts: Mutex::default() })
    }

    /// What a list of CAs makes of it at `now`. Judged once per list and again when the list was
    /// replaced or time has brought a change about: dates pass on a connection that stays.
    pub fn judged(&self, trust: &Arc<Trust>, now: i64) -> Result<(), Distrust> {
        if let Some(known) = self.known(trust, now) {
            return known;
        }
        let outcome = trust.verify(&self.chain, now).map(|_| ());
        let until = self.ends(now).min(trust.until(now));
        let mut verdicts = self.verdicts();
        // lists that were replaced, and the verdict that this one takes the place of
        verdicts.retain(|one| Arc::strong_count(&one.trust) > 1 && !Arc::ptr_eq(&one.trust, trust));
        if verdicts.len() == VERDICTS {
            verdicts.pop_front();
        }
        verdicts.push_back(Verdict { trust: trust.clone(), from: now, until, outcome: outcome.clone() });
        outcome
    }

    fn known(&self, trust: &Arc<Trust>, now: i64) -> Option<Result<(), Distrust>> {
        let verdicts = self.verdicts();
        let known = verdicts.iter().find(|one| Arc::ptr_eq(&one.trust, trust))?;
        (known.from..known.until).contains(&now).then(|| known.outcome.clone())
    }

    fn verdicts(&self) -> MutexGuard<'_, VecDeque<Verdict>> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next second at which a certificate of the chain begins or ends.
    fn ends(&self, now: i64) -> i64 {
        let read = self.chain.iter().filter_map(|der| Certificate::from_der(der).ok());
        let edges = read.flat_map(|one| [one.not_before, one.not_after.saturating_add(1)]);
        edges.filter(|edge| *edge > now).min().unwrap_or(i64::MAX)
    }
}

#[derive(Debug, Clone)]
pub struct Peer {
    pub address: SocketAddr,
    /// The address as text: it is told of every request.
    pub text: String,
    /// The address without its port, as X-Forwarded-For names it.
    pub node: HeaderValue,
    /// The listener's port, as X-Forwarded-Port names it.
    pub local_port: HeaderValue,
    /// Whether the connection is TLS.
    pub secure: bool,
    pub certificate: Option<Arc<PeerCertificate>>,
    /// Whether the peer is a proxy of ours, whose X-Request-Id, X-Forwarded-* and certificate
    /// headers are believed.
    pub trusted: bool,
    /// The listener's address, as configured.
    pub listener: SocketAddr,
    /// Where the listener's proxies put their callers' certificates.
    pub certificate_header: Option<Arc<CertificateHeader>>,
}

impl Peer {
    pub fn new(address: SocketAddr, local_port: u16, secure: bool, trusted: bool, listener: SocketAddr) -> Self {
        let node = HeaderValue::try_from(address.ip().to_canonical().to_string());
        let node = node.unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Self {
            address,
            text: SocketAddr::new(address.ip().to_canonical(), address.port()).to_string(),
            node,
            local_port: HeaderValue::from(local_port),
            secure,
            certificate: None,
            trusted,
            listener,
            certificate_header: None,
        }
    }
}

/// Whether an address lies in one of the networks. An IPv4 address in IPv6 clothes is IPv4.
pub fn listed(address: IpAddr, networks: &[IpNet]) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|net| net.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_the_address_it_maps() {
        let networks = ["10.0.0.0/8".parse().expect("a network")];
        assert!(listed("::ffff:10.1.2.3".parse().expect("an address"), &networks));
        assert!(!listed("::ffff:11.1.2.3".parse().expect("an address"), &networks));
    }
}
