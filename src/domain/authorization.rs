//! An authorization that was begun and waits for its callback: single-use, bound to its artifact,
//! short-lived. What a callback brings is judged here before a code goes anywhere.

use super::artifact::AuthorizationCode;
use super::record::Record;
use crate::crypto::digest::{hex, sha256};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::fmt;
use url::form_urlencoded;

/// Seconds that a user has.
pub const LIFE: i64 = 900;
/// Characters of a callback's parameter.
const MOST: usize = 4_096;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorization {
    /// The digest of the state: who reads the store cannot finish an authorization.
    pub id: String,
    pub artifact_id: String,
    /// The PKCE verifier, sealed for `authorization/<id>`.
    pub sealed: String,
    pub redirect_uri: String,
    /// Unix seconds.
    pub expires: i64,
}

impl Record for Authorization {
    const KIND: &'static str = "authorization";

    fn id(&self) -> String {
        self.id.clone()
    }
}

impl Authorization {
    /// The id that belongs to a state.
    pub fn id_of(state: &str) -> String {
        hex(&sha256(state.as_bytes()))
    }

    pub fn place(id: &str) -> String {
        format!("authorization/{id}")
    }
}

/// What a browser brings back.
pub struct Callback {
    pub state: String,
    pub code: Option<SecretString>,
    pub issuer: Option<String>,
    pub error: Option<String>,
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback(..)")
    }
}

/// How a callback ended, for the page that the user sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Authorised,
    /// The state is unknown, used or too old.
    Unknown,
    /// The provider or the user said no.
    Denied,
    /// The answer came from somebody else than promised.
    OtherIssuer,
    /// The token service gave no refresh token, or none at all.
    NoToken,
    /// The gateway cannot do it at this moment.
    Busy,
}

impl Callback {
    /// None if it is no callback at all.
    pub fn parse(query: &str) -> Option<Self> {
        let (mut state, mut code, mut issuer, mut error) = (None, None, None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let slot = match &*name {
                "state" => &mut state,
                "code" => &mut code,
                "iss" => &mut issuer,
                "error" => &mut error,
                _ => continue,
            };
            if value.len() > MOST || slot.replace(value.into_owned()).is_some() {
                return None;
            }
        }
        Some(Self { state: state?, code: code.map(SecretString::from), issuer, error })
    }

    /// The code, if it may be sent to the artifact's token service.
    pub fn judged(&self, grant: &AuthorizationCode) -> Result<&SecretString, Ended> {
        match (&grant.issuer, &self.issuer) {
            (Some(promised), Some(said)) if promised == said => {}
            (Some(_), _) => return Err(Ended::OtherIssuer),
            (None, _) => {}
        }
        if self.error.is_some() {
            return Err(Ended::Denied);
        }
        self.code.as_ref().ok_or(Ended::Denied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::artifact::Provider;
    use crate::domain::target::Target;
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    fn grant(issuer: Option<&str>) -> AuthorizationCode {
        AuthorizationCode {
            provider: Provider::Generic,
            authorization_url: Target::parse("https://auth.example/a").expect("a target"),
            user_name: None,
            refresh_days: None,
            issuer: issuer.map(str::to_owned),
        }
    }

    fn judged(query: &str, issuer: Option<&str>) -> Result<String, Ended> {
        let callback = Callback::parse(query).expect("a callback");
        callback.judged(&grant(issuer)).map(|code| code.expose_secret().to_owned())
    }

    #[test]
    fn a_code_goes_on_only_from_whom_it_was_promised() {
        assert_eq!(judged("state=s&code=c%2B1", None).as_deref(), Ok("c+1"));
        assert_eq!(judged("state=s&code=c&iss=https%3A%2F%2Fa", Some("https://a")).as_deref(), Ok("c"));
        assert_eq!(judged("state=s&code=c", Some("https://a")), Err(Ended::OtherIssuer));
        assert_eq!(judged("state=s&code=c&iss=https%3A%2F%2Fb", Some("https://a")), Err(Ended::OtherIssuer));
        assert_eq!(judged("state=s&error=access_denied", None), Err(Ended::Denied));
        assert_eq!(judged("state=s", None), Err(Ended::Denied));
    }

    #[test]
    fn what_is_no_callback_or_two_in_one_is_none() {
        for query in ["", "code=c", "state=a&state=b&code=c", "state=s&code=a&code=b"] {
            assert!(Callback::parse(query).is_none(), "{query}");
        }
        assert!(Callback::parse(&format!("state={}", "x".repeat(5_000))).is_none());
    }

    proptest! {
        #[test]
        fn no_query_panics(query in "\\PC{0,60}") {
            let _ = Callback::parse(&query);
        }
    }
}
