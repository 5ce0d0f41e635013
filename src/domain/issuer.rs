//! Token servers besides our own, whose access tokens a route may take (RFC 9068 and plain JWT).

use super::reason::Reason;
use super::target::Target;
use super::token::{Claims, LATEST, bound_to};
use crate::crypto::jwks::KeySet;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Roles of one token that are looked at.
const MOST_ROLES: usize = 1_000;

/// Whose tokens a route takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub own: bool,
    /// Others, by their names.
    pub others: Vec<Arc<str>>,
}

impl Default for Accepted {
    fn default() -> Self {
        Self { own: true, others: Vec::new() }
    }
}

impl Accepted {
    /// Whether tokens of an issuer are taken, None being us.
    pub fn takes(&self, issuer: Option<&Arc<str>>) -> bool {
        issuer.map_or(self.own, |name| self.others.contains(name))
    }
}

/// Where an issuer's keys come from.
#[derive(Debug, Clone)]
pub enum KeySource {
    Url(Target),
    /// Read from a file with the configuration.
    Given(Arc<KeySet>),
}

#[derive(Debug, Clone)]
pub struct Issuer {
    /// The claim `iss` of its tokens, to the letter.
    pub name: Arc<str>,
    pub keys: KeySource,
    /// What its tokens for us must name in `aud`.
    pub audience: String,
    /// The claim that holds the roles: its path, a name for each step.
    pub roles_claim: Vec<String>,
}

impl Issuer {
    /// Everything that stays true as time goes on.
    pub fn identity(&self, claims: &Map<String, Value>) -> Result<Claims, Reason> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        if text("iss") != Some(&*self.name) {
            return Err(Reason::TokenIssuer);
        }
        let meant = match claims.get("aud") {
            Some(Value::String(one)) => *one == self.audience,
            Some(Value::Array(list)) => list.iter().any(|one| one.as_str() == Some(self.audience.as_str())),
            _ => false,
        };
        if !meant {
            return Err(Reason::TokenAudience);
        }
        let expires = time(claims, "exp")?.ok_or(Reason::TokenClaims)?;
        // a token is not older than it can be told to be
        let issued_at = time(claims, "iat")?.unwrap_or(0).max(time(claims, "nbf")?.unwrap_or(0));
        if expires <= issued_at {
            return Err(Reason::TokenClaims);
        }
        // RFC 9068, 2.2; others name the client otherwise
        let client = ["client_id", "azp", "cid", "appid", "sub"].into_iter().find_map(text);
        Ok(Claims {
            jti: text("jti").unwrap_or_default().to_owned(),
            client_id: client.ok_or(Reason::TokenClaims)?.to_owned(),
            instance_id: String::new(),
            key_id: String::new(),
            issuer: Some(self.name.clone()),
            roles: self.roles(claims),
            bound_to: bound_to(claims.get("cnf"))?,
            issued_at,
            expires,
        })
    }

    /// The roles: an array of texts, or one text with blanks between them.
    fn roles(&self, claims: &Map<String, Value>) -> Vec<String> {
        let mut steps = self.roles_claim.iter();
        let first = steps.next().and_then(|name| claims.get(name));
        let found = steps.try_fold(first, |at, name| Some(at?.get(name)).filter(Option::is_some)).flatten();
        match found {
            Some(Value::String(text)) => {
                text.split(' ').filter(|one| !one.is_empty()).take(MOST_ROLES).map(str::to_owned).collect()
            }
            Some(Value::Array(list)) => {
                list.iter().filter_map(Value::as_str).take(MOST_ROLES).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// A time claim: whole or broken seconds within reason (RFC 7519, 2).
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<i64>, Reason> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds.floor() as i64));
    let within = seconds.filter(|seconds| (0..LATEST).contains(seconds));
    within.map(Some).ok_or(Reason::TokenClaims)
}

/// Whether the header's type is that of an access token: RFC 9068, 4, or a plain JWT.
pub fn access_token(typ: &str) -> bool {
    ["at+jwt", "application/at+jwt", "JWT"].iter().any(|known| typ.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn issuer(claim: &str) -> Issuer {
        Issuer {
            name: "https://idp.example".into(),
            keys: KeySource::Given(Arc::default()),
            audience: "orders".into(),
            roles_claim: claim.split('.').map(str::to_owned).collect(),
        }
    }

    fn claims(more: &Value) -> Map<String, Value> {
        let mut all = json!({ "iss": "https://idp.example", "aud": ["x", "orders"], "exp": 200, "iat": 100, "sub": "app",
            "scope": "a b", "realm": { "access": { "roles": ["c", "d"] } } });
        for (name, value) in more.as_object().expect("an object") {
            all[name] = value.clone();
        }
        all.as_object().expect("an object").clone()
    }

    #[test]
    fn roles_come_from_wherever_the_issuer_keeps_them() {
        for (claim, want) in [
            ("scope", &["a", "b"][..]),
            ("realm.access.roles", &["c", "d"]),
            ("realm.access", &[]),
            ("none.at.all", &[]),
        ] {
            assert_eq!(issuer(claim).identity(&claims(&json!({}))).expect("one").roles, want, "{claim}");
        }
    }

    #[test]
    fn a_token_of_another_issuer_for_another_or_without_sane_times_is_refused() {
        for (more, reason) in [
            (json!({ "iss": "https://idp.example/" }), Reason::TokenIssuer),
            (json!({ "aud": "orders2" }), Reason::TokenAudience),
            (json!({ "aud": null }), Reason::TokenAudience),
            (json!({ "exp": "200" }), Reason::TokenClaims),
            (json!({ "exp": 1e30 }), Reason::TokenClaims),
            (json!({ "exp": 100 }), Reason::TokenClaims),
            (json!({ "nbf": 300 }), Reason::TokenClaims),
            (json!({ "sub": "" }), Reason::TokenClaims),
            (json!({ "cnf": { "jkt": "x" } }), Reason::TokenClaims),
        ] {
            assert_eq!(issuer("scope").identity(&claims(&more)).err(), Some(reason), "{more}");
        }
        let one = issuer("scope").identity(&claims(&json!({ "aud": "orders", "client_id": "c" }))).expect("taken");
        assert_eq!((one.client_id.as_str(), one.issuer.as_deref()), ("c", Some("https://idp.example")));
    }
}
