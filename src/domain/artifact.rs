//! Security material: outbound credentials deployed under a name. Their secrets are kept apart from
//! everything that may be shown.

use super::name::ArtifactName;
use super::record::{Claim, Record};
use super::target::Target;
use crate::crypto::identity::{Identity, IdentityError};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt;

/// An OAuth2 artifact as it is stored: its secrets are sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    pub id: String,
    pub name: ArtifactName,
    pub description: String,
    pub token_url: Target,
    pub client_id: String,
    pub authentication: Authentication,
    pub basic_encoding: BasicEncoding,
    pub scope: Option<String>,
    pub grant: Grant,
    /// CAs (PEM) that may vouch for the token service besides the system's.
    pub trusted_cas: Vec<String>,
    /// `Secrets` as JSON, sealed for `credential/<id>`.
    pub sealed: String,
    /// One more with each change: a token belongs to one version.
    pub version: u64,
    /// Unix seconds.
    pub created: i64,
    pub updated: i64,
}

impl Record for Artifact {
    const KIND: &'static str = "credential";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn claims(&self) -> Vec<Claim> {
        vec![Claim::new("credential-name", self.name.as_str())]
    }
}

impl Artifact {
    pub fn authorization_code(&self) -> Option<&AuthorizationCode> {
        match &self.grant {
            Grant::AuthorizationCode(code) => Some(code),
            Grant::ClientCredentials(_) => None,
        }
    }

    /// Whether a user's consent to the one holds for the other.
    pub fn same_consent(&self, other: &Self) -> bool {
        match (self.authorization_code(), other.authorization_code()) {
            (Some(one), Some(two)) => {
                self.client_id == other.client_id
                    && self.token_url == other.token_url
                    && self.scope == other.scope
                    && (one.provider, &one.authorization_url, &one.user_name)
                        == (two.provider, &two.authorization_url, &two.user_name)
            }
            _ => false,
        }
    }

    /// Where its secrets belong.
    pub fn place(id: &str) -> String {
        format!("credential/{id}")
    }
}

/// How tokens are come by, with what only this way needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    ClientCredentials(ClientCredentials),
    AuthorizationCode(AuthorizationCode),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCredentials {
    pub content_type: ContentType,
    pub resource: Option<String>,
    pub audience: Option<String>,
    pub custom: Vec<Custom>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationCode {
    pub provider: Provider,
    pub authorization_url: Target,
    /// Whose consent is meant; shown, never sent.
    pub user_name: Option<String>,
    /// Days that a refresh token lives; None for ever.
    pub refresh_days: Option<i64>,
    /// What the provider calls itself in its callbacks (RFC 9207), if it promises to.
    pub issuer: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Provider {
    #[serde(rename = "generic")]
    Generic,
    #[serde(rename = "microsoft-365")]
    Microsoft365,
}

/// Authorization code artifacts of one store (the model's limit).
pub const MAX_AUTHORIZATION_CODE: usize = 500;
pub const CLIENT_CREDENTIALS: &str = "oauth2-client-credentials";
pub const AUTHORIZATION_CODE: &str = "oauth2-authorization-code";

impl Grant {
    /// The credential type as parameters spell it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ClientCredentials(_) => CLIENT_CREDENTIALS,
            Self::AuthorizationCode(_) => AUTHORIZATION_CODE,
        }
    }
}

/// How the client proves itself to the token service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Authentication {
    /// Client id and secret in the body.
    Body,
    /// Client id and secret by Basic.
    Header,
    /// A client certificate (RFC 8705), with the client id in the body.
    Certificate,
    /// A signed assertion (RFC 7523).
    PrivateKeyJwt,
}

/// How client id and secret are written into Basic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BasicEncoding {
    /// Form-encoded first, as RFC 6749, 2.3.1 says.
    Form,
    /// As they stand, as many token services expect.
    Raw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContentType {
    #[serde(rename = "application/x-www-form-urlencoded")]
    Form,
    #[serde(rename = "application/json")]
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    Body,
    Header,
    Url,
}

/// One more parameter of the token request. Its value may be a secret and is kept with those, in
/// the same order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Custom {
    pub key: String,
    #[serde(rename = "send-as-part-of")]
    pub part: Part,
}

/// What proves the client. Serialised only to be sealed.
#[derive(Clone, Default)]
pub struct Secrets {
    pub client_secret: Option<SecretString>,
    /// PEM, for a certificate or an assertion.
    pub certificate: Option<String>,
    pub private_key: Option<SecretString>,
    /// The values of custom parameters, in their order.
    pub custom: Vec<SecretString>,
}

impl Secrets {
    /// The plain text that is sealed.
    pub fn to_json(&self) -> SecretString {
        let secret = |value: &Option<SecretString>| value.as_ref().map(|one| one.expose_secret().to_owned());
        let members = json!({
            "client-secret": secret(&self.client_secret),
            "certificate": self.certificate,
            "private-key": secret(&self.private_key),
            "custom": self.custom.iter().map(ExposeSecret::expose_secret).collect::<Vec<_>>(),
        });
        SecretString::from(members.to_string())
    }

    pub fn from_json(text: &[u8]) -> Option<Self> {
        let members: Value = serde_json::from_slice(text).ok()?;
        let text = |name: &str| members.get(name).and_then(Value::as_str).map(str::to_owned);
        let custom = members.get("custom").and_then(Value::as_array).into_iter().flatten();
        Some(Self {
            client_secret: text("client-secret").map(SecretString::from),
            certificate: text("certificate"),
            private_key: text("private-key").map(SecretString::from),
            custom: custom.filter_map(Value::as_str).map(SecretString::from).collect(),
        })
    }

    /// Certificate and private key, where both are there and fit.
    pub fn identity(&self) -> Result<Identity, IdentityError> {
        let key = self.private_key.as_ref().ok_or(IdentityError::Key)?;
        Identity::from_pem(self.certificate.as_deref().unwrap_or_default(), key)
    }

    /// Whether there is nothing that proves a client.
    pub fn none(&self) -> bool {
        self.client_secret.is_none() && self.certificate.is_none() && self.private_key.is_none()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}
