//! Who is at the other end of a connection, as far as the connection can tell.

use crate::crypto::x509::Certificate;
use http::HeaderValue;
use ipnet::IpNet;
use rustls_pki_types::CertificateDer;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The certificate that a peer proved to hold, with the chain it sent.
#[derive(Debug)]
pub struct PeerCertificate {
    pub chain: Vec<CertificateDer<'static>>,
    pub leaf: Certificate,
}

#[derive(Debug, Clone)]
pub struct Peer {
    pub address: SocketAddr,
    /// The address as text: it is told of every request.
    pub text: String,
    /// The address without its port, as X-Forwarded-For names it.
    pub node: HeaderValue,
    /// The listener's port, for X-Forwarded-Port.
    pub local_port: u16,
    /// Whether the connection is TLS.
    pub secure: bool,
    pub certificate: Option<Arc<PeerCertificate>>,
    /// Whether the peer's own X-Request-Id and X-Forwarded-* headers are believed.
    pub trusted: bool,
}

impl Peer {
    pub fn new(address: SocketAddr, local_port: u16, secure: bool, trusted: bool) -> Self {
        let node = HeaderValue::try_from(address.ip().to_canonical().to_string());
        let node = node.unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Self { address, text: address.to_string(), node, local_port, secure, certificate: None, trusted }
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
