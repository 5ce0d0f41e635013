//! Random bytes from the operating system, and the identifiers made of them.

use base64::{Engine, engine::general_purpose::URL_SAFE};
use secrecy::SecretString;

/// `N` bytes nobody can guess.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0u8; N];
    aws_lc_rs::rand::fill(&mut out).expect("the system's random source answers");
    out
}

/// A random identifier in the usual 36-character form (RFC 9562, version 4).
pub fn uuid() -> String {
    uuid::Builder::from_random_bytes(bytes()).into_uuid().to_string()
}

/// A client secret in the model's shape, `<uuid>$<43 characters of base64url>=`: 256 random bits
/// behind a part that may be quoted in a ticket. Printable ASCII throughout, since some clients
/// refuse anything else.
pub fn client_secret() -> SecretString {
    let tail = URL_SAFE.encode(bytes::<32>());
    SecretString::from(format!("{}${tail}", uuid()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn a_client_secret_has_the_models_shape() {
        let secret = client_secret();
        let (head, tail) = secret.expose_secret().split_once('$').expect("a dollar sign");
        assert_eq!(head.len(), 36);
        assert_eq!(tail.len(), 44);
        assert!(tail.ends_with('='));
    }
}
