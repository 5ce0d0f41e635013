//! The compact serialisation (RFC 7515, 7.1), checked strictly before any key is touched.
//! The verification library ignores `crit` and lets twin members pass, so this comes first.

use super::json;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

/// What a compact token may be wrong about before its signature is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the token is not three base64url parts joined by dots")]
    NotCompact,
    #[error("a part of the token is not strict base64url")]
    Encoding,
    #[error("the token header is not a JSON object with each member once")]
    Header,
    #[error("the token header asks for something this server does not do ({0})")]
    Unsupported(&'static str),
    #[error("the token payload is not a JSON object with each member once")]
    Payload,
    #[error("a {0} in the token header is missing or not a string")]
    Member(&'static str),
}

/// A token that has the right form; nothing in it has been verified yet.
#[derive(Debug)]
pub struct Compact<'a> {
    pub algorithm: String,
    pub kid: String,
    pub typ: String,
    pub claims: Map<String, Value>,
    /// `header.payload`, the bytes that were signed.
    pub signed: &'a str,
    pub signature: &'a str,
}

/// Header members that change what a token means or where its key comes from. None of them is ever
/// followed, so a token that carries one was not made here (RFC 8725, 3.1, 3.9, 3.10; RFC 7797).
const NEVER: [&str; 9] = ["crit", "b64", "jwk", "x5u", "x5c", "zip", "enc", "cty", "epk"];

impl<'a> Compact<'a> {
    pub fn parse(token: &'a str) -> Result<Self, Malformed> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Malformed::NotCompact)?;
        let (header, payload) = signed.split_once('.').ok_or(Malformed::NotCompact)?;
        if payload.contains('.') || [header, payload, signature].iter().any(|part| part.is_empty()) {
            return Err(Malformed::NotCompact);
        }
        decode(signature)?;
        let header = object(&decode(header)?).ok_or(Malformed::Header)?;
        if let Some(name) = NEVER.into_iter().find(|name| header.contains_key(*name)) {
            return Err(Malformed::Unsupported(name));
        }
        let member = |name: &'static str| {
            let text = header.get(name).and_then(Value::as_str).map(str::to_owned);
            text.ok_or(Malformed::Member(name))
        };
        let (algorithm, kid, typ) = (member("alg")?, member("kid")?, member("typ")?);
        let claims = object(&decode(payload)?).ok_or(Malformed::Payload)?;
        Ok(Self { algorithm, kid, typ, claims, signed, signature })
    }
}

fn decode(part: &str) -> Result<Vec<u8>, Malformed> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Malformed::Encoding)
}

fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    match json::strict(bytes) {
        Ok(Value::Object(members)) => Some(members),
        _ => None,
    }
}

/// Joins header and payload into the text to be signed.
pub fn signing_input(header: &Value, payload: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(payload))
}

/// The finished token.
pub fn finish(mut signing_input: String, signature: &[u8]) -> String {
    signing_input.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut signing_input);
    signing_input
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn token(header: &Value, payload: &Value) -> String {
        finish(signing_input(header, payload), b"signature")
    }

    fn header() -> Value {
        json!({"alg": "RS256", "kid": "k", "typ": "JWT"})
    }

    #[test]
    fn a_well_formed_token_is_taken_apart() {
        let token = token(&header(), &json!({"sub": "x"}));
        let compact = Compact::parse(&token).expect("well formed");
        assert_eq!((compact.algorithm.as_str(), compact.kid.as_str()), ("RS256", "k"));
        assert_eq!(compact.claims["sub"], "x");
    }

    #[test]
    fn parts_must_be_three_and_strict_base64url() {
        let good = token(&header(), &json!({}));
        let parts: Vec<_> = good.split('.').collect();
        for bad in [
            String::new(),
            "a.b".into(),
            format!("{good}.x"),
            format!("{good}="),
            format!(".{}.{}", parts[1], parts[2]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{} .{}.{}", parts[0], parts[1], parts[2]),
            format!("{}.{}.{}+", parts[0], parts[1], parts[2]),
            // the last character carries bits that no byte needs
            format!("{}.{}.YR", parts[0], parts[1]),
        ] {
            assert!(Compact::parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn header_members_that_lead_elsewhere_are_refused() {
        for name in NEVER {
            let mut header = header();
            header[name] = json!("anything");
            let token = token(&header, &json!({}));
            assert_eq!(Compact::parse(&token).err(), Some(Malformed::Unsupported(name)));
        }
    }

    #[test]
    fn header_members_must_be_there_and_be_strings() {
        for name in ["alg", "kid", "typ"] {
            for wrong in [Value::Null, json!(1), json!(["RS256"])] {
                let mut header = header();
                header[name] = wrong;
                let token = token(&header, &json!({}));
                assert_eq!(Compact::parse(&token).err(), Some(Malformed::Member(name)));
            }
        }
    }
}
