//! A certificate chain with its private key: what a client or server shows, known to belong
//! together.

use super::trust::provider;
use super::x509::{self, CertificateError};
use p12_keystore::{KeyStore, KeyStoreEntry, Pkcs12ImportPolicy};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("the certificate: {0}")]
    Certificate(#[from] CertificateError),
    #[error("there is no private key that can be read; give it unencrypted as PEM (PKCS#8, PKCS#1 or SEC1)")]
    Key,
    #[error("certificate and private key do not belong together or cannot be used: {0}")]
    Pair(String),
    #[error("the PKCS#12 file cannot be opened; is the password right, and the file whole?")]
    Container,
    #[error("the PKCS#12 file holds no private key with its certificate")]
    Empty,
}

impl Identity {
    /// From PEM texts; both may be the same.
    pub fn from_pem(chain: &str, key: &SecretString) -> Result<Self, IdentityError> {
        let chain = x509::chain(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes()).map_err(|_| IdentityError::Key)?;
        Self::paired(chain, key)
    }

    /// The first private key of a PKCS#12 file, with its chain.
    pub fn from_p12(file: &[u8], password: &SecretString) -> Result<Self, IdentityError> {
        let store = opened(file, password)?;
        let (_, found) = store.private_key_chain().ok_or(IdentityError::Empty)?;
        let key = PrivatePkcs8KeyDer::from(found.key().as_der().to_vec());
        Self::paired(found.certs().iter().map(der).collect(), key.into())
    }

    /// The CAs of a PKCS#12 file.
    pub fn authorities_from_p12(
        file: &[u8],
        password: &SecretString,
    ) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        let store = opened(file, password)?;
        let found = store.entries().flat_map(|(_, entry)| match entry {
            KeyStoreEntry::Certificate(one) => std::slice::from_ref(one),
            KeyStoreEntry::PrivateKeyChain(chain) => chain.certs(),
            KeyStoreEntry::Secret(_) => &[],
        });
        Ok(found.map(der).collect())
    }

    pub fn paired(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, IdentityError> {
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider())
            .map_err(|error| IdentityError::Pair(error.to_string()))?;
        Ok(Self { chain, key })
    }

    /// The DNS names that the certificate is for.
    pub fn dns_names(&self) -> Vec<String> {
        let Some(Ok((_, leaf))) = self.chain.first().map(|der| X509Certificate::from_der(der)) else {
            return Vec::new();
        };
        let names = leaf.subject_alternative_name().ok().flatten();
        let names = names.into_iter().flat_map(|names| &names.value.general_names);
        let dns = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        dns.collect()
    }

    /// As rustls shows it.
    pub fn certified(self) -> Result<Arc<CertifiedKey>, rustls::Error> {
        CertifiedKey::from_der(self.chain, self.key, &provider()).map(Arc::new)
    }
}

fn opened(file: &[u8], password: &SecretString) -> Result<KeyStore, IdentityError> {
    let store = KeyStore::from_pkcs12(file, password.expose_secret(), Pkcs12ImportPolicy::Relaxed);
    store.map_err(|_| IdentityError::Container)
}

fn der(certificate: &p12_keystore::Certificate) -> CertificateDer<'static> {
    CertificateDer::from(certificate.as_der().to_vec())
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} certificates)", self.chain.len())
    }
}
