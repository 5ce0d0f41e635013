//! A provider's key set (RFC 7517), as far as its keys can verify access tokens. The algorithm of a
//! key is the key's own affair, never a token's.

use super::digest::{Digest, sha256};
use super::json;
use super::jws::Compact;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use std::collections::HashMap;
use std::fmt;

/// Keys of one set.
const MOST: usize = 64;

/// A key that verifies, by its own algorithms.
struct VerifyingKey {
    key: DecodingKey,
    algorithms: &'static [Algorithm],
    /// The one that the set names for it.
    named: Option<Algorithm>,
}

/// By key id; a key without one verifies nothing, since tokens must name theirs.
#[derive(Default)]
pub struct KeySet {
    keys: HashMap<String, VerifyingKey>,
    /// Of the text: a set of the same text is the same set.
    pub digest: Digest,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKeySet {
    #[error("it is not a JSON Web Key Set")]
    NotASet,
    #[error("it has {0} keys; at most {MOST} are looked at")]
    TooMany(usize),
    #[error("none of its keys can verify access tokens: they need a kid and RSA, EC or Ed25519")]
    NoKey,
}

const RSA: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

impl KeySet {
    pub fn parse(text: &[u8]) -> Result<Self, BadKeySet> {
        let said = json::strict(text).map_err(|_| BadKeySet::NotASet)?;
        let keys = said.get("keys").and_then(Value::as_array).ok_or(BadKeySet::NotASet)?;
        if keys.len() > MOST {
            return Err(BadKeySet::TooMany(keys.len()));
        }
        // what is not understood is left out (RFC 7517, 5)
        let read = keys.iter().filter_map(|key| verifying(key.clone()));
        let keys: HashMap<_, _> = read.collect();
        if keys.is_empty() { Err(BadKeySet::NoKey) } else { Ok(Self { keys, digest: sha256(text) }) }
    }

    pub fn has(&self, kid: &str) -> bool {
        self.keys.contains_key(kid)
    }

    /// Whether a key of the set signed the token; None if it names one that is not there.
    pub fn verifies(&self, token: &Compact<'_>) -> Option<bool> {
        let known = self.keys.get(&token.kid)?;
        let algorithm: Option<Algorithm> = token.algorithm.parse().ok();
        let fits =
            algorithm.filter(|one| known.algorithms.contains(one) && known.named.is_none_or(|named| named == *one));
        let verify = |one| jsonwebtoken::crypto::verify(token.signature, token.signed.as_bytes(), &known.key, one);
        Some(fits.is_some_and(|one| verify(one).unwrap_or(false)))
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys.keys()).finish()
    }
}

fn verifying(key: Value) -> Option<(String, VerifyingKey)> {
    let jwk: Jwk = serde_json::from_value(key).ok()?;
    let kid = jwk.common.key_id.clone().filter(|kid| !kid.is_empty())?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let algorithms: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => RSA,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => &[Algorithm::ES256],
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P384 => &[Algorithm::ES384],
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
        _ => return None,
    };
    let named = match jwk.common.key_algorithm {
        None => None,
        // an algorithm that the key cannot have, or that is for encryption
        Some(said) => Some(said.to_string().parse().ok().filter(|one| algorithms.contains(one))?),
    };
    Some((kid, VerifyingKey { key: DecodingKey::from_jwk(&jwk).ok()?, algorithms, named }))
}

#[cfg(test)]
mod tests {
    use super::super::keyring::{self, SigningKey, generate};
    use super::*;
    use crate::crypto::jws::{finish, signing_input};
    use serde_json::json;

    fn key(algorithm: keyring::Algorithm) -> SigningKey {
        SigningKey::prepare(algorithm, &generate(algorithm).expect("made")).expect("prepared")
    }

    fn signed(key: &SigningKey, alg: &str, kid: &str) -> String {
        let input = signing_input(&json!({ "alg": alg, "kid": kid, "typ": "JWT" }), &json!({}));
        let signature = key.sign(input.as_bytes()).expect("signed");
        finish(input, &signature)
    }

    fn set(keys: &[Value]) -> Result<KeySet, BadKeySet> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    #[test]
    fn a_token_is_verified_by_the_key_that_it_names_and_that_keys_algorithm() {
        let (rsa, curve) = (key(keyring::Algorithm::RS256), key(keyring::Algorithm::ES256));
        let mut unnamed = rsa.jwk().clone();
        unnamed.as_object_mut().expect("an object").remove("alg");
        for jwk in [rsa.jwk(), &unnamed] {
            let keys = set(&[jwk.clone(), curve.jwk().clone()]).expect("keys");
            let verified = |token: &str| keys.verifies(&Compact::parse(token).expect("compact"));
            assert_eq!(verified(&signed(&rsa, "RS256", &rsa.kid)), Some(true));
            assert_eq!(verified(&signed(&curve, "ES256", &curve.kid)), Some(true));
            assert_eq!(verified(&signed(&rsa, "RS256", &curve.kid)), Some(false));
            assert_eq!(verified(&signed(&rsa, "RS256", "unknown")), None);
            for alg in ["none", "HS256", "RS512", "ES256", "rs256"] {
                assert_eq!(verified(&signed(&rsa, alg, &rsa.kid)), Some(false), "{alg}");
            }
        }
    }

    #[test]
    fn what_cannot_verify_is_left_out_and_a_set_without_keys_is_none() {
        let good = key(keyring::Algorithm::ES256).jwk().clone();
        let with = |name: &str, value: Value| {
            let mut key = good.clone();
            key[name] = value;
            key
        };
        let symmetric = json!({ "kty": "oct", "kid": "s", "k": "c2VjcmV0" });
        for bad in [symmetric, with("use", json!("enc")), with("kid", json!("")), with("alg", json!("RS256")), json!(7)]
        {
            assert_eq!(set(std::slice::from_ref(&bad)).err(), Some(BadKeySet::NoKey), "{bad}");
            assert!(set(&[bad, good.clone()]).is_ok());
        }
        assert_eq!(KeySet::parse(b"{}").err(), Some(BadKeySet::NotASet));
        assert_eq!(set(&vec![good; 65]).err(), Some(BadKeySet::TooMany(65)));
    }
}
