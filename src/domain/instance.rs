//! Service instances: one OAuth client definition each. Parameters come as the model's own JSON.

use super::name::{InstanceName, RoleName, did_you_mean};
use super::record::{Claim, Record};
use super::role::DEFAULT_ROLE;
use crate::crypto::keyring::pem;
use crate::crypto::trust::{Trust, Unfit};
use crate::crypto::x509::{self, Certificate};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// Seconds that an access token may live.
pub const VALIDITY: std::ops::RangeInclusive<i64> = 3_600..=86_400;

/// What an instance is for; it decides the shape of its service keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Plan {
    IntegrationFlow,
    Destination,
    Api,
}

impl Plan {
    pub const ALL: [Self; 3] = [Self::IntegrationFlow, Self::Destination, Self::Api];

    pub fn name(self) -> &'static str {
        match self {
            Self::IntegrationFlow => "integration-flow",
            Self::Destination => "destination",
            Self::Api => "api",
        }
    }

    fn default_validity(self) -> i64 {
        if self == Self::Api { 43_200 } else { 3_600 }
    }

    fn default_roles(self) -> Vec<RoleName> {
        match self {
            Self::IntegrationFlow => RoleName::parse(DEFAULT_ROLE).into_iter().collect(),
            Self::Destination | Self::Api => Vec::new(),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|plan| plan.name() == text);
        found.ok_or_else(|| format!("there is no plan `{text}`; use one of {known}"))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub id: String,
    pub name: InstanceName,
    pub plan: Plan,
    pub client_id: String,
    /// Client ids of imported keys, which the instance answers to as well.
    #[serde(default)]
    pub aliases: Vec<String>,
    pub roles: Vec<RoleName>,
    /// Seconds.
    pub token_validity: i64,
    /// Tokens are bound to the certificate of the connection that asked for them (RFC 8705, 3).
    #[serde(default)]
    pub bound_tokens: bool,
    /// The CAs that may vouch for this client's certificates, as PEM; empty for those of the
    /// configuration.
    #[serde(default)]
    pub trusted_cas: Vec<String>,
    /// Unix seconds.
    pub created: i64,
}

impl Record for Instance {
    const KIND: &'static str = "instance";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn claims(&self) -> Vec<Claim> {
        let names = [&self.client_id].into_iter().chain(&self.aliases);
        let mut claims = vec![Claim::new("instance-name", self.name.as_str())];
        claims.extend(names.map(|name| Claim::new("client-id", name.as_str())));
        claims
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    #[error("the parameters are not a JSON object")]
    NotAnObject,
    #[error("unknown parameter `{0}`{1}")]
    Unknown(String, Suggestion),
    #[error("parameter `{0}` must be {1}")]
    Type(&'static str, &'static str),
    #[error("{0}")]
    Name(#[from] super::name::BadName),
    #[error("token-validity is {0}; it must be between 3600 and 86400 seconds")]
    Validity(i64),
    #[error(
        "grant type `client_x509` is deprecated in the model and not offered here: use client_credentials, which takes certificates too"
    )]
    ClientX509,
    #[error("grant type `{0}` is not offered: only client_credentials is, since no user takes part in these calls")]
    Grant(String),
    #[error("trusted-cas: {0}")]
    TrustedCa(#[from] Unfit),
    #[error("redirect-uris belong to the authorization code grant, which is not offered; leave them out")]
    RedirectUris,
}

/// Renders as "; did you mean `x`?" or as nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggestion(pub Option<String>);

impl Suggestion {
    pub fn of<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        Self(did_you_mean(given, known).map(str::to_owned))
    }
}

impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(name) => write!(f, "; did you mean `{name}`?"),
            None => Ok(()),
        }
    }
}

/// What was named, so that an update leaves the rest as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters {
    pub roles: Option<Vec<RoleName>>,
    pub token_validity: Option<i64>,
    pub bound_tokens: Option<bool>,
    /// PEM texts, one CA each.
    pub trusted_cas: Option<Vec<String>>,
}

impl Parameters {
    const KNOWN: [&str; 6] =
        ["roles", "grant-types", "redirect-uris", "token-validity", "certificate-bound-access-tokens", "trusted-cas"];

    /// Reads the model's JSON, `{"roles":[..],"grant-types":[..],"token-validity":..}`.
    pub fn parse(json: &Value) -> Result<Self, ParameterError> {
        let members = json.as_object().ok_or(ParameterError::NotAnObject)?;
        let mut out = Self::default();
        for (name, value) in members {
            match name.as_str() {
                "roles" => out.roles = Some(roles(value)?),
                "grant-types" => grant_types(value)?,
                "redirect-uris" if value.as_array().is_some_and(Vec::is_empty) => {}
                "redirect-uris" => return Err(ParameterError::RedirectUris),
                "token-validity" => {
                    let seconds = value.as_i64().ok_or(ParameterError::Type("token-validity", "a whole number"))?;
                    out.token_validity = Some(seconds);
                }
                "certificate-bound-access-tokens" => {
                    let wrong = ParameterError::Type("certificate-bound-access-tokens", "true or false");
                    out.bound_tokens = Some(value.as_bool().ok_or(wrong)?);
                }
                "trusted-cas" => out.trusted_cas = Some(texts(value, "trusted-cas", "a list of PEM texts")?),
                other => return Err(ParameterError::Unknown(other.to_owned(), Suggestion::of(other, Self::KNOWN))),
            }
        }
        out.checked()
    }

    pub fn checked(mut self) -> Result<Self, ParameterError> {
        if let Some(roles) = &mut self.roles {
            let mut seen = std::collections::HashSet::new();
            roles.retain(|role| seen.insert(role.clone()));
        }
        if let Some(texts) = &mut self.trusted_cas {
            *texts = authorities(texts)?;
        }
        match self.token_validity {
            Some(seconds) if !VALIDITY.contains(&seconds) => Err(ParameterError::Validity(seconds)),
            _ => Ok(self),
        }
    }

    /// What is named in `self`, else what is named in `other`.
    pub fn or(self, other: Self) -> Self {
        Self {
            roles: self.roles.or(other.roles),
            token_validity: self.token_validity.or(other.token_validity),
            bound_tokens: self.bound_tokens.or(other.bound_tokens),
            trusted_cas: self.trusted_cas.or(other.trusted_cas),
        }
    }

    /// Roles for a new instance of a plan.
    pub fn roles_or_default(&self, plan: Plan) -> Vec<RoleName> {
        self.roles.clone().unwrap_or_else(|| plan.default_roles())
    }

    pub fn validity_or_default(&self, plan: Plan) -> i64 {
        self.token_validity.unwrap_or_else(|| plan.default_validity())
    }
}

fn roles(value: &Value) -> Result<Vec<RoleName>, ParameterError> {
    let names = texts(value, "roles", "a list of role names")?;
    names.iter().map(|name| Ok(RoleName::parse(name)?)).collect()
}

fn texts(value: &Value, name: &'static str, kind: &'static str) -> Result<Vec<String>, ParameterError> {
    let items = value.as_array().ok_or(ParameterError::Type(name, kind))?;
    items.iter().map(|item| item.as_str().map(str::to_owned).ok_or(ParameterError::Type(name, kind))).collect()
}

/// Each CA as a PEM text of its own, known to be fit.
fn authorities(said: &[String]) -> Result<Vec<String>, Unfit> {
    let mut out: Vec<String> = Vec::new();
    for text in said {
        for der in x509::uploaded(text)? {
            Trust::of(vec![Certificate::from_der(&der)?])?;
            let pem = pem("CERTIFICATE", &der);
            if !out.contains(&pem) {
                out.push(pem);
            }
        }
    }
    Ok(out)
}

fn grant_types(value: &Value) -> Result<(), ParameterError> {
    for item in texts(value, "grant-types", "a list of grant types")? {
        match item.as_str() {
            "client_credentials" => {}
            "client_x509" => return Err(ParameterError::ClientX509),
            other => return Err(ParameterError::Grant(other.to_owned())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_models_own_json_is_taken() {
        let json = json!({"grant-types": ["client_credentials"], "redirect-uris": [],
            "roles": ["ESBMessaging.send", "myRole1", "myRole1"], "token-validity": 7200});
        let parameters = Parameters::parse(&json).expect("valid");
        assert_eq!(parameters.roles.expect("roles").len(), 2);
        assert_eq!(parameters.token_validity, Some(7200));
    }

    #[test]
    fn defaults_follow_the_plan() {
        let none = Parameters::default();
        assert_eq!(none.roles_or_default(Plan::IntegrationFlow)[0].as_str(), "ESBMessaging.send");
        assert!(none.roles_or_default(Plan::Destination).is_empty());
        assert_eq!(none.validity_or_default(Plan::IntegrationFlow), 3600);
        assert_eq!(none.validity_or_default(Plan::Api), 43_200);
    }

    #[test]
    fn what_is_not_offered_is_refused_with_the_reason() {
        for (json, says) in [
            (json!({"grant-types": ["client_x509"]}), "deprecated"),
            (json!({"grant-types": ["password"]}), "only client_credentials"),
            (json!({"token-validity": 3599}), "between 3600 and 86400"),
            (json!({"token-validity": 86401}), "between 3600 and 86400"),
            (json!({"rolse": []}), "did you mean `roles`?"),
            (json!({"roles": ["a b"]}), "role name"),
            (json!({"redirect-uris": ["https://x"]}), "authorization code"),
            (json!([]), "JSON object"),
        ] {
            let error = Parameters::parse(&json).expect_err("refused").to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
