//! Digests, plain and keyed, and comparison that takes the same time whatever the difference.

use aws_lc_rs::{constant_time, digest as hash, hmac};
use std::fmt;

pub type Digest = [u8; 32];

pub fn sha256(bytes: &[u8]) -> Digest {
    let mut out = [0u8; 32];
    out.copy_from_slice(hash::digest(&hash::SHA256, bytes).as_ref());
    out
}

/// For what a protocol of old asks, never for what must be hard to forge.
pub fn sha1(bytes: &[u8]) -> [u8; 20] {
    let mut out = [0u8; 20];
    out.copy_from_slice(hash::digest(&hash::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref());
    out
}

/// Equal or not, in a time that tells nothing but the length.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}

/// A keyed digest (HMAC-SHA-256). Generated secrets have 256 random bits, so a slow hash would
/// protect nothing and hand every stranger a lever on our CPU; the key keeps a stolen store useless.
#[derive(Clone)]
pub struct Keyed(hmac::Key);

impl Keyed {
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    pub fn digest(&self, message: &[u8]) -> Digest {
        self.digest_parts(&[message])
    }

    /// One digest over several parts, each preceded by its length so that parts cannot be moved
    /// from one to the next.
    pub fn digest_parts(&self, parts: &[&[u8]]) -> Digest {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut out = [0u8; 32];
        out.copy_from_slice(context.sign().as_ref());
        out
    }
}

impl fmt::Debug for Keyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyed(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyed_digest_depends_on_the_key_and_on_where_parts_end() {
        let (one, two) = (Keyed::new(b"one"), Keyed::new(b"two"));
        assert_ne!(one.digest(b"secret"), two.digest(b"secret"));
        assert_ne!(one.digest_parts(&[b"ab", b"c"]), one.digest_parts(&[b"a", b"bc"]));
        assert!(same(&one.digest(b"secret"), &one.digest(b"secret")));
        assert!(!same(b"a", b"ab"));
    }

    #[test]
    fn sha256_is_the_published_one() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex(&sha256(b"")), empty);
    }
}
