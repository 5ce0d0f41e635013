//! Sealing at rest. The master key wraps a data key and the digest pepper; the data key seals
//! values, each bound to its place, and authenticates every stored record.

use super::digest::{Digest, Keyed, hex, same, sha256};
use super::random;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroizing;

/// Format of sealed bytes: this byte, a 12-byte nonce, the ciphertext with its tag.
const FORMAT: u8 = 1;
const NONCE: usize = 12;
const CANARY: &[u8] = b"flowgate";

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SealError {
    #[error("the master key is not 32 bytes in base64; make one with: openssl rand -base64 32")]
    NotAMasterKey,
    #[error(
        "the store is sealed with master key {sealed_with}, the configured one is {given}; put the right key in place"
    )]
    WrongMasterKey { sealed_with: String, given: String },
    #[error("a sealed value does not open: it was damaged or moved from its place")]
    Damaged,
}

/// The key that an operator keeps. Its id (the start of its SHA-256) may be shown.
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    pub fn parse(text: &SecretString) -> Result<Self, SealError> {
        let bytes = Zeroizing::new(STANDARD.decode(text.expose_secret().trim()).map_err(|_| SealError::NotAMasterKey)?);
        let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| SealError::NotAMasterKey)?;
        Ok(Self(Zeroizing::new(key)))
    }

    /// A new key, as the text that goes into its file.
    pub fn generate() -> SecretString {
        SecretString::from(STANDARD.encode(random::bytes::<32>()))
    }

    pub fn id(&self) -> String {
        hex(&sha256(self.0.as_slice())[..4])
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id())
    }
}

/// The wrapped keys as they lie in the store, with a canary that names the master key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Envelope {
    master_key: String,
    canary: String,
    data_key: String,
    pepper: String,
}

impl Envelope {
    /// Which master key wraps it.
    pub fn master_key_id(&self) -> &str {
        &self.master_key
    }
}

/// Opened keys: seals and opens values, digests secrets, authenticates records.
pub struct Vault {
    seal: RandomizedNonceKey,
    pepper: Keyed,
    records: Keyed,
}

impl Vault {
    /// New keys, wrapped by `master`.
    pub fn create(master: &MasterKey) -> (Self, Envelope) {
        let data_key = Zeroizing::new(random::bytes::<32>());
        let pepper = Zeroizing::new(random::bytes::<32>());
        let wrapping = aead(&master.0);
        let wrap = |place: &str, bytes: &[u8]| STANDARD.encode(seal_with(&wrapping, place, bytes));
        let envelope = Envelope {
            master_key: master.id(),
            canary: wrap("canary", CANARY),
            data_key: wrap("data-key", data_key.as_slice()),
            pepper: wrap("pepper", pepper.as_slice()),
        };
        (Self::assemble(&data_key, &pepper), envelope)
    }

    pub fn open(master: &MasterKey, envelope: &Envelope) -> Result<Self, SealError> {
        let wrong = || SealError::WrongMasterKey { sealed_with: envelope.master_key.clone(), given: master.id() };
        let wrapping = aead(&master.0);
        let unwrap = |place: &str, text: &str| {
            let sealed = STANDARD.decode(text).map_err(|_| SealError::Damaged)?;
            open_with(&wrapping, place, &sealed)
        };
        if master.id() != envelope.master_key {
            return Err(wrong());
        }
        let canary = unwrap("canary", &envelope.canary)?;
        if !same(&canary, CANARY) {
            return Err(SealError::Damaged);
        }
        let data_key = key32(&unwrap("data-key", &envelope.data_key)?)?;
        let pepper = key32(&unwrap("pepper", &envelope.pepper)?)?;
        Ok(Self::assemble(&data_key, &pepper))
    }

    fn assemble(data_key: &[u8; 32], pepper: &[u8; 32]) -> Self {
        let derive = |purpose: &[u8]| Zeroizing::new(Keyed::new(data_key).digest(purpose));
        Self {
            seal: aead(&derive(b"seal")),
            records: Keyed::new(derive(b"records").as_slice()),
            pepper: Keyed::new(pepper),
        }
    }

    /// Seals `plain` for one place, as base64; it opens nowhere else.
    pub fn seal(&self, place: &str, plain: &[u8]) -> String {
        STANDARD.encode(seal_with(&self.seal, place, plain))
    }

    /// A sealed text.
    pub fn unseal_text(&self, place: &str, sealed: &str) -> Result<SecretString, SealError> {
        let plain = self.unseal(place, sealed)?;
        Ok(SecretString::from(std::str::from_utf8(&plain).map_err(|_| SealError::Damaged)?))
    }

    pub fn unseal(&self, place: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let bytes = STANDARD.decode(sealed).map_err(|_| SealError::Damaged)?;
        open_with(&self.seal, place, &bytes)
    }

    /// The keyed digest under which a generated secret is stored and looked for.
    pub fn secret_digest(&self, secret: &str) -> Digest {
        self.pepper.digest(secret.as_bytes())
    }

    /// The pepper alone, for those who only compare.
    pub fn pepper(&self) -> Keyed {
        self.pepper.clone()
    }

    /// Authenticates a record in its place, so that a flipped bit or a moved row is noticed.
    pub fn record_mac(&self, kind: &str, id: &str, revision: i64, body: &[u8]) -> Digest {
        self.records.digest_parts(&[kind.as_bytes(), id.as_bytes(), &revision.to_be_bytes(), body])
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault(..)")
    }
}

fn aead(key: &[u8; 32]) -> RandomizedNonceKey {
    RandomizedNonceKey::new(&AES_256_GCM, key).expect("AES-256 takes a key of 32 bytes")
}

fn key32(bytes: &[u8]) -> Result<Zeroizing<[u8; 32]>, SealError> {
    bytes.try_into().map(Zeroizing::new).map_err(|_| SealError::Damaged)
}

fn seal_with(key: &RandomizedNonceKey, place: &str, plain: &[u8]) -> Vec<u8> {
    let mut body = plain.to_vec();
    let nonce = key
        .seal_in_place_append_tag(Aad::from(place.as_bytes()), &mut body)
        .expect("AES-GCM seals anything below 64 GiB");
    let mut out = Vec::with_capacity(1 + NONCE + body.len());
    out.push(FORMAT);
    out.extend_from_slice(nonce.as_ref());
    out.append(&mut body);
    out
}

fn open_with(key: &RandomizedNonceKey, place: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let Some((&FORMAT, rest)) = sealed.split_first() else { return Err(SealError::Damaged) };
    let (nonce, body) = rest.split_at_checked(NONCE).ok_or(SealError::Damaged)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Damaged)?;
    let mut body = Zeroizing::new(body.to_vec());
    let length =
        key.open_in_place(nonce, Aad::from(place.as_bytes()), &mut body).map_err(|_| SealError::Damaged)?.len();
    body.truncate(length);
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master() -> MasterKey {
        MasterKey::parse(&MasterKey::generate()).expect("a generated key parses")
    }

    #[test]
    fn a_sealed_value_opens_only_in_its_place_and_undamaged() {
        let (vault, envelope) = {
            let m = master();
            let (v, e) = Vault::create(&m);
            drop(v);
            (Vault::open(&m, &e).expect("same key"), e)
        };
        let sealed = vault.seal("key/1", b"private");
        assert_eq!(vault.unseal("key/1", &sealed).expect("opens").as_slice(), b"private");
        assert_eq!(vault.unseal("key/2", &sealed).err(), Some(SealError::Damaged));
        let mut bytes = STANDARD.decode(&sealed).expect("base64");
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert!(vault.unseal("key/1", &STANDARD.encode(&bytes)).is_err(), "byte {at}");
            bytes[at] ^= 1;
        }
        assert!(!format!("{envelope:?}").contains("private"));
    }

    #[test]
    fn another_master_key_is_named_in_the_error() {
        let (right, other) = (master(), master());
        let (_, envelope) = Vault::create(&right);
        let error = Vault::open(&other, &envelope).expect_err("refused");
        assert_eq!(error, SealError::WrongMasterKey { sealed_with: right.id(), given: other.id() });
    }

    #[test]
    fn a_master_key_is_32_bytes_of_base64() {
        for bad in ["", "abc", "AAAA"] {
            assert!(MasterKey::parse(&SecretString::from(bad)).is_err());
        }
        assert!(!format!("{:?}", master()).contains('='));
    }
}
