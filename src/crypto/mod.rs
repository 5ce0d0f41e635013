//! Cryptography as values: digests, sealing, signing keys, trust in certificates.
//! Knows no file, no socket, no clock: `now` is an argument wherever time matters.

pub mod ca;
pub mod client_tls;
pub mod digest;
mod distrust;
pub mod dn;
pub mod examine;
pub mod identity;
pub mod json;
pub mod jwks;
pub mod jws;
pub mod keyring;
pub mod random;
pub mod seal;
pub mod trust;
pub mod x509;
