//! Protection against forged calls from a user's browser, as the model's sender channel has it: a
//! changing call must carry a token that only a reading call can have fetched. The token is bound to
//! route and caller and says when it ends, so nothing is kept.

use super::reason::Reason;
use crate::crypto::digest::{Digest, Keyed, same};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

pub const X_CSRF_TOKEN: HeaderName = HeaderName::from_static("x-csrf-token");
/// What a reading call says to get a token, in any case.
const FETCH: &str = "fetch";
/// Seconds that a token lives.
pub const LIFE: i64 = 3_600;

/// What a call on a protected route shows.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    pub key: &'a Keyed,
    /// Whom the token is bound to where no client is proven: a certificate, or nobody.
    pub certificate: Option<&'a Digest>,
    /// Unix seconds.
    pub now: i64,
}

/// The token that a call has asked for, if it has; else whether it may go on.
pub fn judge(asked: &Asked<'_>, route: &str, caller: &str) -> Result<Option<HeaderValue>, Reason> {
    let mut fields = asked.headers.get_all(X_CSRF_TOKEN).iter();
    let said = fields.next().and_then(|value| value.to_str().ok()).filter(|_| fields.next().is_none());
    match *asked.method {
        Method::GET | Method::HEAD if said.is_some_and(|text| text.eq_ignore_ascii_case(FETCH)) => {
            HeaderValue::try_from(token(asked, route, caller)).map(Some).map_err(|_| Reason::Internal)
        }
        Method::GET | Method::HEAD | Method::OPTIONS => Ok(None),
        _ => match said {
            None => Err(Reason::CsrfMissing),
            Some(text) if holds(text, asked, route, caller) => Ok(None),
            Some(_) => Err(Reason::CsrfOther),
        },
    }
}

fn token(asked: &Asked<'_>, route: &str, caller: &str) -> String {
    let end = (asked.now + LIFE).to_be_bytes();
    URL_SAFE_NO_PAD.encode([&end[..], &mac(asked, route, caller, &end)].concat())
}

fn holds(text: &str, asked: &Asked<'_>, route: &str, caller: &str) -> bool {
    let bytes = URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
    let Some((end, given)) = bytes.split_first_chunk::<8>() else { return false };
    let left = i64::from_be_bytes(*end).saturating_sub(asked.now);
    same(given, &mac(asked, route, caller, end)) && (1..=LIFE).contains(&left)
}

fn mac(asked: &Asked<'_>, route: &str, caller: &str, end: &[u8]) -> [u8; 32] {
    let certificate = asked.certificate.map_or(&[][..], |fingerprint| fingerprint);
    asked.key.digest_parts(&[b"csrf", route.as_bytes(), caller.as_bytes(), certificate, end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn judged(method: &Method, said: &[&str], caller: &str, now: i64) -> Result<Option<HeaderValue>, Reason> {
        let value = |text: &&str| (X_CSRF_TOKEN, HeaderValue::from_str(text).expect("a value"));
        let headers: HeaderMap = said.iter().map(value).collect();
        let asked = Asked { method, headers: &headers, key: &Keyed::new(b"key"), certificate: None, now };
        judge(&asked, "orders", caller)
    }

    fn fetched(caller: &str, now: i64) -> String {
        let token = judged(&Method::HEAD, &["Fetch"], caller, now).expect("judged").expect("a token");
        token.to_str().expect("text").to_owned()
    }

    #[test]
    fn a_token_is_good_for_its_caller_and_its_time() {
        let token = fetched("a", 1_000);
        assert_eq!(judged(&Method::POST, &[&token], "a", 1_000), Ok(None));
        assert_eq!(judged(&Method::POST, &[&token], "a", 1_000 + LIFE - 1), Ok(None));
        for (said, caller, now, reason) in [
            (&[token.as_str()][..], "a", 1_000 + LIFE, Reason::CsrfOther),
            (&[token.as_str()], "a", 999, Reason::CsrfOther),
            (&[token.as_str()], "b", 1_000, Reason::CsrfOther),
            (&["fetch"], "a", 1_000, Reason::CsrfOther),
            (&[token.as_str(), token.as_str()], "a", 1_000, Reason::CsrfMissing),
            (&[], "a", 1_000, Reason::CsrfMissing),
        ] {
            for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
                assert_eq!(judged(&method, said, caller, now), Err(reason));
            }
        }
    }

    #[test]
    fn reading_calls_need_none() {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            assert_eq!(judged(&method, &["nonsense"], "a", 0), Ok(None));
        }
    }

    proptest! {
        #[test]
        fn a_token_that_was_altered_anywhere_is_none(at in 0usize..40, flip in 1u8..=255) {
            let mut bytes = URL_SAFE_NO_PAD.decode(fetched("a", 1_000)).expect("bytes");
            bytes[at] ^= flip;
            let altered = URL_SAFE_NO_PAD.encode(bytes);
            prop_assert_eq!(judged(&Method::POST, &[&altered], "a", 1_000), Err(Reason::CsrfOther));
        }

        #[test]
        fn no_text_makes_it_fall(text in "[ -~]{0,90}") {
            prop_assert_eq!(judged(&Method::POST, &[&text], "a", 1_000), Err(Reason::CsrfOther));
        }
    }
}
