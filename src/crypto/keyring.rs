//! Signing keys: made, prepared once, published as JWKs. Signing uses a prepared key (the JWT
//! library parses its private key on every call, twice the price for RS256); verifying a signature
//! is the library's.

use super::digest::{hex, sha256};
use super::jws::Compact;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::{Engine, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{fmt, sync::Arc};
use zeroize::Zeroizing;

/// The algorithms offered. RS256 is the default since the XSUAA libraries know nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Algorithm {
    RS256,
    ES256,
}

impl Algorithm {
    pub fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::ES256 => "ES256",
        }
    }

    fn library(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::RS256 => jsonwebtoken::Algorithm::RS256,
            Self::ES256 => jsonwebtoken::Algorithm::ES256,
        }
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    #[error("the random source or the key generator failed")]
    Generation,
    #[error("a stored signing key cannot be read as {0}")]
    Unreadable(&'static str),
    #[error("the signing operation failed")]
    Signing,
}

/// A new private key in PKCS#8, to be sealed. RSA keys have 2048 bits: verifiers everywhere take
/// them, and a token lives for a day at most.
pub fn generate(algorithm: Algorithm) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let der = match algorithm {
        Algorithm::RS256 => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Generation)?;
            let der: Pkcs8V1Der = pair.as_der().map_err(|_| KeyError::Generation)?;
            der.as_ref().to_vec()
        }
        Algorithm::ES256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| KeyError::Generation)?;
            pair.to_pkcs8v1().map_err(|_| KeyError::Generation)?.as_ref().to_vec()
        }
    };
    Ok(Zeroizing::new(der))
}

enum Prepared {
    Rsa(Box<RsaKeyPair>),
    Ecdsa(Box<EcdsaKeyPair>),
}

/// One signing key, ready to sign and to verify.
pub struct SigningKey {
    pub kid: String,
    pub algorithm: Algorithm,
    prepared: Prepared,
    verifying: DecodingKey,
    jwk: Value,
    pem: String,
}

impl SigningKey {
    /// Prepares a key from its PKCS#8 form. The kid is derived from the public key, so that the
    /// same key has the same name everywhere.
    pub fn prepare(algorithm: Algorithm, pkcs8: &[u8]) -> Result<Self, KeyError> {
        let unreadable = || KeyError::Unreadable(algorithm.name());
        let (prepared, verifying, members, spki) = match algorithm {
            Algorithm::RS256 => {
                let pair = RsaKeyPair::from_pkcs8(pkcs8).map_err(|_| unreadable())?;
                let public = pair.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                let members = json!({
                    "kty": "RSA",
                    "n": URL_SAFE_NO_PAD.encode(n.big_endian_without_leading_zero()),
                    "e": URL_SAFE_NO_PAD.encode(e.big_endian_without_leading_zero()),
                });
                let verifying = DecodingKey::from_rsa_der(public.as_ref());
                let spki: PublicKeyX509Der = public.as_der().map_err(|_| unreadable())?;
                let spki = spki.as_ref().to_vec();
                (Prepared::Rsa(Box::new(pair)), verifying, members, spki)
            }
            Algorithm::ES256 => {
                let pair =
                    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).map_err(|_| unreadable())?;
                let public = pair.public_key();
                let point = public.as_ref();
                let (x, y) = point[1..].split_at(32);
                let members = json!({
                    "kty": "EC",
                    "crv": "P-256",
                    "x": URL_SAFE_NO_PAD.encode(x),
                    "y": URL_SAFE_NO_PAD.encode(y),
                });
                let verifying = DecodingKey::from_ec_der(point);
                let spki: PublicKeyX509Der = public.as_der().map_err(|_| unreadable())?;
                let spki = spki.as_ref().to_vec();
                (Prepared::Ecdsa(Box::new(pair)), verifying, members, spki)
            }
        };
        let kid = format!("default-jwt-key-{}", hex(&sha256(&spki)[..5]));
        let pem = pem("PUBLIC KEY", &spki);
        let jwk = publish(members, &kid, algorithm, &pem);
        Ok(Self { kid, algorithm, prepared, verifying, jwk, pem })
    }

    /// The signature over `message`. RS256 takes most of a millisecond: not for a lane.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        match &self.prepared {
            Prepared::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map_err(|_| KeyError::Signing)?;
                Ok(signature)
            }
            Prepared::Ecdsa(pair) => {
                let signature = pair.sign(&random, message).map_err(|_| KeyError::Signing)?;
                Ok(signature.as_ref().to_vec())
            }
        }
    }

    /// Whether the compact token was signed by this key, by the key's own algorithm: what the
    /// token says of its algorithm has no say (RFC 8725, 3.1).
    pub fn verifies(&self, token: &Compact<'_>) -> bool {
        token.algorithm == self.algorithm.name()
            && jsonwebtoken::crypto::verify(
                token.signature,
                token.signed.as_bytes(),
                &self.verifying,
                self.algorithm.library(),
            )
            .unwrap_or(false)
    }

    /// The public key as a JWK (RFC 7517), with the PEM under `value` that sap-xssec reads.
    pub fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// The public key as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.kid)
    }
}

fn publish(mut jwk: Value, kid: &str, algorithm: Algorithm, pem: &str) -> Value {
    jwk["kid"] = json!(kid);
    jwk["alg"] = json!(algorithm.name());
    jwk["use"] = json!("sig");
    jwk["value"] = json!(pem);
    jwk
}

/// DER as PEM (RFC 7468), lines of 64 characters.
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.extend(line.iter().copied().map(char::from));
        out.push('\n');
    }
    out + "-----END " + label + "-----\n"
}

/// Every key that may verify, and since when each may sign.
#[derive(Debug, Default)]
pub struct Keyring {
    keys: Vec<(Arc<SigningKey>, i64)>,
}

impl Keyring {
    /// `keys` with the second from which each may sign.
    pub fn new(mut keys: Vec<(Arc<SigningKey>, i64)>) -> Self {
        keys.sort_by_key(|(_, active_from)| *active_from);
        Self { keys }
    }

    /// The key that signs at `now`: the newest whose time has come.
    pub fn signer(&self, now: i64) -> Option<&Arc<SigningKey>> {
        self.keys.iter().rev().find(|(_, from)| *from <= now).map(|(key, _)| key)
    }

    pub fn find(&self, kid: &str) -> Option<&Arc<SigningKey>> {
        self.keys.iter().map(|(key, _)| key).find(|key| key.kid == kid)
    }

    /// The JWK set, the newest key first.
    pub fn jwks(&self) -> Value {
        let keys: Vec<_> = self.keys.iter().rev().map(|(key, _)| key.jwk()).collect();
        json!({ "keys": keys })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::jws::{finish, signing_input};

    fn key(algorithm: Algorithm) -> SigningKey {
        SigningKey::prepare(algorithm, &generate(algorithm).expect("made")).expect("prepared")
    }

    fn signed(key: &SigningKey, alg: &str) -> String {
        let header = json!({"alg": alg, "kid": key.kid, "typ": "JWT"});
        let input = signing_input(&header, &json!({"sub": "x"}));
        let signature = key.sign(input.as_bytes()).expect("signs");
        finish(input, &signature)
    }

    #[test]
    fn a_key_verifies_what_it_signed_and_nothing_else() {
        for algorithm in [Algorithm::RS256, Algorithm::ES256] {
            let (key, other) = (key(algorithm), key(algorithm));
            let token = signed(&key, algorithm.name());
            let compact = Compact::parse(&token).expect("compact");
            assert!(key.verifies(&compact));
            assert!(!other.verifies(&compact));
        }
    }

    #[test]
    fn the_tokens_own_algorithm_has_no_say() {
        let key = key(Algorithm::RS256);
        for alg in ["none", "HS256", "RS512", "ES256", "rs256"] {
            let token = signed(&key, alg);
            assert!(!key.verifies(&Compact::parse(&token).expect("compact")), "{alg}");
        }
    }

    #[test]
    fn the_newest_key_whose_time_has_come_signs() {
        let (old, new) = (Arc::new(key(Algorithm::ES256)), Arc::new(key(Algorithm::ES256)));
        let ring = Keyring::new(vec![(new.clone(), 200), (old.clone(), 100)]);
        assert!(ring.signer(99).is_none());
        assert_eq!(ring.signer(199).expect("one").kid, old.kid);
        assert_eq!(ring.signer(200).expect("one").kid, new.kid);
        assert_eq!(ring.jwks()["keys"].as_array().expect("keys").len(), 2);
    }

    #[test]
    fn a_jwk_has_what_both_xssec_libraries_read() {
        let jwk = key(Algorithm::RS256).jwk().clone();
        for member in ["kid", "kty", "n", "e", "alg", "use", "value"] {
            assert!(jwk[member].is_string(), "{member}");
        }
        assert!(jwk["value"].as_str().expect("pem").starts_with("-----BEGIN PUBLIC KEY-----\n"));
    }
}
