//! The JWS examples of RFC 7520 (sections 4.1 to 4.4) verify as that document says, and none of them
//! passes for an access token.

use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use flowgate::crypto::jws::Compact;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

fn examples() -> Vec<Value> {
    serde_json::from_str(include_str!("vectors/rfc7520.json")).expect("JSON")
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().expect("a text")
}

fn decoded(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).expect("base64url")
}

fn verifies(example: &Value, signed: &str, signature: &str) -> bool {
    let jwk = || serde_json::from_value::<Jwk>(example["key"].clone()).expect("a JWK");
    let library = |algorithm, key: &DecodingKey| {
        jsonwebtoken::crypto::verify(signature, signed.as_bytes(), key, algorithm).unwrap_or(false)
    };
    match text(example, "algorithm") {
        "RS256" => library(Algorithm::RS256, &DecodingKey::from_jwk(&jwk()).expect("a key")),
        "PS384" => library(Algorithm::PS384, &DecodingKey::from_jwk(&jwk()).expect("a key")),
        "HS256" => library(Algorithm::HS256, &DecodingKey::from_secret(&decoded(text(&example["key"], "k")))),
        // the JWT library knows no P-521; the cryptography below it does
        "ES512" => {
            let coordinate = |name| decoded(text(&example["key"], name));
            let point = [vec![4], coordinate("x"), coordinate("y")].concat();
            let key = UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point);
            key.verify(signed.as_bytes(), &decoded(signature)).is_ok()
        }
        other => panic!("no example of RFC 7520 uses {other}"),
    }
}

#[test]
fn each_example_verifies_and_a_changed_one_does_not() {
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    assert_eq!(examples().len(), 4);
    for example in examples() {
        let (signed, signature) = text(&example, "compact").rsplit_once('.').expect("compact");
        let (_, payload) = signed.split_once('.').expect("compact");
        assert_eq!(decoded(payload), text(&example, "payload").as_bytes());
        assert!(verifies(&example, signed, signature), "{}", example["section"]);
        assert!(!verifies(&example, &signed.replacen('e', "f", 1), signature), "{}", example["section"]);
    }
}

#[test]
fn no_example_passes_for_an_access_token() {
    for example in examples() {
        assert!(Compact::parse(text(&example, "compact")).is_err(), "{}", example["section"]);
    }
}
