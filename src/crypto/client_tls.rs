//! TLS towards servers that we call: who vouches for them, and what we show.

use super::digest::sha256;
use super::identity::Identity;
use super::trust::provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use std::fmt;
use std::sync::Arc;

/// A TLS client that trusts these roots.
pub fn config(roots: RootCertStore, auth: Option<Identity>) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots);
    match auth {
        Some(auth) => builder.with_client_auth_cert(auth.chain, auth.key),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// How a backend's servers are reached over TLS.
pub struct ClientTls {
    /// For calls, with the protocols that the backend may speak.
    pub calls: Arc<ClientConfig>,
    /// For tunnels, which begin as HTTP/1.1.
    pub tunnels: Arc<ClientConfig>,
    pub name: ServerName<'static>,
    /// By what connections with these settings are told from others.
    pub digest: [u8; 32],
}

impl ClientTls {
    /// `protocols` are offered by ALPN, the preferred one first.
    pub fn new(
        cas: &[CertificateDer<'static>],
        auth: Option<Identity>,
        name: ServerName<'static>,
        protocols: &[&[u8]],
    ) -> Result<Self, rustls::Error> {
        let shown = auth.iter().flat_map(|auth| &auth.chain);
        let parts = cas.iter().chain(shown).map(|der| sha256(der)).collect::<Vec<_>>().concat();
        let said = [name.to_str().as_bytes(), &protocols.concat(), &parts].map(sha256).concat();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(cas.iter().cloned());
        let mut tunnels = config(roots, auth)?;
        let mut calls = tunnels.clone();
        calls.alpn_protocols = protocols.iter().map(|one| one.to_vec()).collect();
        tunnels.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { calls: Arc::new(calls), tunnels: Arc::new(tunnels), name, digest: sha256(&said) })
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientTls({:?})", self.name)
    }
}
