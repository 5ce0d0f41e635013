//! The access token's claims: XSUAA-shaped when issued, checked one by one when presented.

use super::grant::{Proof, Scopes};
use super::reason::Reason;
use super::record::Record;
use super::tenant::Tenant;
use crate::crypto::digest::Digest;
use crate::crypto::random;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Bytes of a token that are looked at; ours have about 1,500.
pub const MAX_TOKEN: usize = 16 * 1024;

/// The claims of a new token (the model's shape; the XSUAA libraries take it unmodified).
/// With `bound_to`, the token is of use only beside the certificate of that fingerprint (RFC 8705, 3.1).
pub fn claims(
    proof: &Proof,
    scopes: &Scopes,
    tenant: &Tenant,
    issuer: &str,
    bound_to: Option<&Digest>,
    now: i64,
) -> (String, Value) {
    let instance = &proof.client.instance;
    let jti = random::uuid().replace('-', "");
    let client = &instance.client_id;
    let mut claims = json!({
        "jti": jti,
        "ext_attr": {
            "enhancer": "XSUAA",
            "subaccountid": tenant.zid,
            "zdn": tenant.subdomain,
            "serviceinstanceid": instance.id,
            "servicekeyid": proof.key.id,
        },
        "sub": client,
        "authorities": scopes.names,
        "scope": scopes.names,
        "client_id": client,
        "cid": client,
        "azp": client,
        "grant_type": "client_credentials",
        "iat": now,
        "exp": now + instance.token_validity,
        "iss": issuer,
        "zid": tenant.zid,
        "aud": [tenant.xsappname, client],
    });
    if let Some(thumbprint) = bound_to {
        claims["cnf"] = confirmation(thumbprint);
    }
    (jti, claims)
}

/// What the gateway keeps of a token whose signature and claims are right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    pub jti: String,
    pub client_id: String,
    /// Empty for a token of another issuer, and so is the key.
    pub instance_id: String,
    pub key_id: String,
    /// Who issued it, if not we.
    pub issuer: Option<Arc<str>>,
    /// Bare role names.
    pub roles: Vec<String>,
    /// SHA-256 of the certificate that must come with the token.
    pub bound_to: Option<Digest>,
    pub issued_at: i64,
    pub expires: i64,
}

/// What a token must say to be one of ours.
#[derive(Debug, Clone)]
pub struct Expected {
    pub issuer: String,
    pub tenant: Tenant,
    /// Seconds that clocks may differ.
    pub leeway: i64,
}

/// The last second that a time claim may name: far beyond any token, well inside every type.
pub(super) const LATEST: i64 = 1 << 40;

impl Expected {
    /// Everything that stays true as time goes on.
    pub fn identity(&self, claims: &Map<String, Value>) -> Result<Claims, Reason> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let required = |name: &str| text(name).map(str::to_owned).ok_or(Reason::TokenClaims);
        let time = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(value) => {
                let seconds = value.as_i64().filter(|seconds| (0..LATEST).contains(seconds));
                seconds.map(Some).ok_or(Reason::TokenClaims)
            }
        };
        if required("iss")? != self.issuer {
            return Err(Reason::TokenIssuer);
        }
        if !strings(claims.get("aud"))?.contains(&self.tenant.xsappname.as_str()) {
            return Err(Reason::TokenAudience);
        }
        if required("zid")? != self.tenant.zid {
            return Err(Reason::TokenTenant);
        }
        let (issued_at, expires) = (time("iat")?.ok_or(Reason::TokenClaims)?, time("exp")?.ok_or(Reason::TokenClaims)?);
        if expires <= issued_at || time("nbf")?.is_some_and(|nbf| nbf > expires) {
            return Err(Reason::TokenClaims);
        }
        let client_id = required("cid")?;
        if [text("client_id"), text("azp"), text("sub")].into_iter().any(|other| other != Some(&client_id)) {
            return Err(Reason::TokenClaims);
        }
        let ours = claims.get("ext_attr").and_then(Value::as_object).ok_or(Reason::TokenClaims)?;
        let ours = |name: &str| ours.get(name).and_then(Value::as_str).map(str::to_owned).ok_or(Reason::TokenClaims);
        let roles = strings(claims.get("scope"))?;
        let roles = roles.into_iter().filter_map(|scope| self.tenant.role_of(scope)).map(str::to_owned);
        Ok(Claims {
            jti: required("jti")?,
            instance_id: ours("serviceinstanceid")?,
            key_id: ours("servicekeyid")?,
            issuer: None,
            roles: roles.collect(),
            bound_to: bound_to(claims.get("cnf"))?,
            client_id,
            issued_at,
            expires,
        })
    }
}

impl Claims {
    /// What changes as time goes on; judged on every call.
    pub fn current(&self, now: i64, leeway: i64) -> Result<(), Reason> {
        if self.expires <= now - leeway {
            return Err(Reason::TokenExpired);
        }
        if self.issued_at > now + leeway {
            return Err(Reason::TokenNotYetValid);
        }
        Ok(())
    }
}

/// The claim `cnf` of a token that is bound to a certificate (RFC 8705, 3.1).
pub fn confirmation(thumbprint: &Digest) -> Value {
    json!({ "x5t#S256": URL_SAFE_NO_PAD.encode(thumbprint) })
}

/// A confirmation of another kind than ours cannot be checked, so it is not one that holds.
pub(super) fn bound_to(confirmation: Option<&Value>) -> Result<Option<Digest>, Reason> {
    let Some(confirmation) = confirmation else { return Ok(None) };
    let members = confirmation.as_object().filter(|members| members.len() == 1).ok_or(Reason::TokenClaims)?;
    let thumbprint = members.get("x5t#S256").and_then(Value::as_str).ok_or(Reason::TokenClaims)?;
    let bytes = URL_SAFE_NO_PAD.decode(thumbprint).map_err(|_| Reason::TokenClaims)?;
    Digest::try_from(bytes).map(Some).map_err(|_| Reason::TokenClaims)
}

fn strings(value: Option<&Value>) -> Result<Vec<&str>, Reason> {
    let items = value.and_then(Value::as_array).ok_or(Reason::TokenClaims)?;
    items.iter().map(|item| item.as_str().ok_or(Reason::TokenClaims)).collect()
}

/// A revoked token, kept until it would have ended anyway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    pub jti: String,
    /// Unix seconds.
    pub expires: i64,
}

impl Record for Revocation {
    const KIND: &'static str = "revocation";

    fn id(&self) -> String {
        self.jti.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Expected {
        Expected {
            issuer: "https://x/oauth/token".into(),
            tenant: Tenant::new("demo", Some("z"), Some("it!b1")),
            leeway: 60,
        }
    }

    fn good() -> Value {
        json!({"jti": "j", "iss": "https://x/oauth/token", "aud": ["it!b1", "c"], "zid": "z", "iat": 1000, "exp": 4600,
            "cid": "c", "client_id": "c", "azp": "c", "sub": "c", "scope": ["it!b1.ESBMessaging.send", "other.x"],
            "ext_attr": {"serviceinstanceid": "i", "servicekeyid": "k"}})
    }

    fn identity(claims: &Value) -> Result<Claims, Reason> {
        expected().identity(claims.as_object().expect("an object"))
    }

    #[test]
    fn a_token_of_ours_names_client_key_and_bare_roles() {
        let claims = identity(&good()).expect("good");
        assert_eq!((claims.client_id.as_str(), claims.key_id.as_str()), ("c", "k"));
        assert_eq!(claims.roles, ["ESBMessaging.send"]);
    }

    #[test]
    fn each_claim_is_required_and_of_its_type() {
        let wrong =
            [Value::Null, json!(true), json!({}), json!("x"), json!(1.5), json!([1]), json!(-1), json!(1_u64 << 41)];
        for name in ["jti", "iss", "aud", "zid", "iat", "exp", "cid", "client_id", "azp", "sub", "scope", "ext_attr"] {
            let mut claims = good();
            claims.as_object_mut().expect("an object").remove(name);
            assert!(identity(&claims).is_err(), "without {name}");
            for value in wrong.iter().filter(|value| name != "jti" || !value.is_string()) {
                claims[name] = value.clone();
                assert!(identity(&claims).is_err(), "{name} = {value}");
            }
        }
    }

    #[test]
    fn tokens_for_others_are_refused_by_their_own_reason() {
        for (name, value, want) in [
            ("iss", json!("https://y/oauth/token"), Reason::TokenIssuer),
            ("aud", json!(["it!b2"]), Reason::TokenAudience),
            ("aud", json!([]), Reason::TokenAudience),
            ("zid", json!("y"), Reason::TokenTenant),
            ("exp", json!(1000), Reason::TokenClaims),
            ("nbf", json!("1000"), Reason::TokenClaims),
        ] {
            let mut claims = good();
            claims[name] = value;
            assert_eq!(identity(&claims), Err(want), "{name}");
        }
    }

    #[test]
    fn time_is_judged_with_the_stated_leeway() {
        let claims = identity(&good()).expect("good");
        assert_eq!(claims.current(4659, 60), Ok(()));
        assert_eq!(claims.current(4660, 60), Err(Reason::TokenExpired));
        assert_eq!(claims.current(940, 60), Ok(()));
        assert_eq!(claims.current(939, 60), Err(Reason::TokenNotYetValid));
    }
}
