//! Security material: outbound credentials deployed under a name. Read from the model's fields and
//! limits; secrets are kept apart from everything that may be shown.

use super::instance::Suggestion;
use super::name::ArtifactName;
use super::record::{Claim, Record};
use super::target::{BadTarget, Target};
use crate::crypto::trust::{Unfit, fit};
use crate::crypto::x509::{self, Certificate};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::fmt;

/// Custom parameters of one artifact.
pub const MAX_CUSTOM: usize = 20;
/// Characters of a field.
pub const MAX_FIELD: usize = 1_024;
/// Parameters that the request itself sets.
const RESERVED: [&str; 3] = ["client_id", "client_secret", "grant_type"];
/// Headers that are not for a parameter to set.
const FORBIDDEN_HEADERS: [&str; 12] = [
    "authorization",
    "connection",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "cookie",
];

/// An OAuth2 Client Credentials artifact as it is stored: its secrets are sealed.
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
    pub content_type: ContentType,
    pub resource: Option<String>,
    pub audience: Option<String>,
    pub custom: Vec<Custom>,
    /// CAs (PEM) that may vouch for the token service besides the system's.
    pub trusted_cas: Vec<String>,
    /// `Secrets` as JSON, sealed for `credential/<id>`.
    pub sealed: String,
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
    /// Where its secrets belong.
    pub fn place(id: &str) -> String {
        format!("credential/{id}")
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

/// One more parameter of the token request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Custom {
    pub key: String,
    pub value: String,
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
}

impl Secrets {
    /// The plain text that is sealed.
    pub fn to_json(&self) -> SecretString {
        let secret = |value: &Option<SecretString>| value.as_ref().map(|one| one.expose_secret().to_owned());
        let members = json!({
            "client-secret": secret(&self.client_secret),
            "certificate": self.certificate,
            "private-key": secret(&self.private_key),
        });
        SecretString::from(members.to_string())
    }

    pub fn from_json(text: &[u8]) -> Option<Self> {
        let members: Value = serde_json::from_slice(text).ok()?;
        let text = |name: &str| members.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            client_secret: text("client-secret").map(SecretString::from),
            certificate: text("certificate"),
            private_key: text("private-key").map(SecretString::from),
        })
    }

    fn none(&self) -> bool {
        self.client_secret.is_none() && self.certificate.is_none() && self.private_key.is_none()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactError {
    #[error("the parameters are not a JSON object")]
    NotAnObject,
    #[error("unknown parameter `{0}`{1}")]
    Unknown(String, Suggestion),
    #[error("parameter `{0}` is missing")]
    Missing(&'static str),
    #[error("parameter `{0}` must be {1}")]
    Type(String, &'static str),
    #[error("`{0}` is no credential type of this version; use oauth2-client-credentials")]
    Kind(String),
    #[error("`{0}` is empty or blank")]
    Blank(String),
    #[error("`{0}` is longer than 1024 characters")]
    Long(String),
    #[error("`{0}` holds a control character")]
    Control(String),
    #[error("token-service-url: {0}")]
    Target(#[from] BadTarget),
    #[error("{0}")]
    Name(#[from] super::name::BadName),
    #[error("there are {0} custom parameters, at most 20 are sent")]
    TooManyCustom(usize),
    #[error("custom parameter `{0}` is there twice with the same value and place")]
    Duplicate(String),
    #[error(
        "custom parameter `{0}` is set by the request itself; client_id, client_secret and grant_type cannot be custom"
    )]
    Reserved(String),
    #[error("custom header `{0}` is not allowed: it belongs to the connection or to the request itself")]
    Header(String),
    #[error("`client-secret` is missing: an artifact that authenticates by secret needs it")]
    NoSecret,
    #[error(
        "`client-secret` must be given again: the token service url, the client id, send-as or trusted-cas has changed, and a secret is not sent where it was not meant to go"
    )]
    SecretAgain,
    #[error("`certificate` and `private-key` (PEM) are both needed for {0}")]
    NoKey(&'static str),
    #[error("trusted-cas: {0}")]
    TrustedCa(#[from] Unfit),
}

/// Parameters as said; each that is absent stays as it is in an update.
#[derive(Debug, Default)]
pub struct Parameters {
    members: Map<String, Value>,
}

const KNOWN: [&str; 17] = [
    "type",
    "name",
    "description",
    "token-service-url",
    "client-id",
    "client-secret",
    "send-as",
    "client-authentication",
    "certificate",
    "private-key",
    "basic-encoding",
    "scope",
    "content-type",
    "resource",
    "audience",
    "custom-parameters",
    "trusted-cas",
];

impl Parameters {
    pub fn parse(json: Value) -> Result<Self, ArtifactError> {
        let Value::Object(members) = json else { return Err(ArtifactError::NotAnObject) };
        if let Some(name) = members.keys().find(|name| !KNOWN.contains(&name.as_str())) {
            return Err(ArtifactError::Unknown(name.clone(), Suggestion::of(name, KNOWN)));
        }
        match members.get("type").map(|kind| kind.as_str().unwrap_or_default()) {
            None => Err(ArtifactError::Missing("type")),
            Some("oauth2-client-credentials") => Ok(Self { members }),
            Some(other) => Err(ArtifactError::Kind(other.to_owned())),
        }
    }

    pub fn name(&self) -> Result<ArtifactName, ArtifactError> {
        Ok(ArtifactName::parse(&self.text("name")?.ok_or(ArtifactError::Missing("name"))?)?)
    }

    /// A new artifact, its secrets still to be sealed.
    pub fn create(&self, id: String, now: i64) -> Result<(Artifact, Secrets), ArtifactError> {
        let required = |name| self.text(name)?.ok_or(ArtifactError::Missing(name));
        let artifact = Artifact {
            id,
            name: self.name()?,
            description: String::new(),
            token_url: Target::parse(&required("token-service-url")?)?,
            client_id: required("client-id")?,
            authentication: Authentication::Body,
            basic_encoding: BasicEncoding::Form,
            scope: None,
            content_type: ContentType::Form,
            resource: None,
            audience: None,
            custom: Vec::new(),
            trusted_cas: Vec::new(),
            sealed: String::new(),
            created: now,
            updated: now,
        };
        let artifact = self.over(artifact, now)?;
        let secrets = self.secrets()?;
        complete(&artifact, &secrets)?;
        Ok((artifact, secrets))
    }

    /// An artifact with what is named changed. The secret stays unless it could now go where it was
    /// not meant to.
    pub fn update(&self, before: &Artifact, kept: Secrets, now: i64) -> Result<(Artifact, Secrets), ArtifactError> {
        let after = self.over(before.clone(), now)?;
        let given = self.secrets()?;
        let moved = after.token_url != before.token_url
            || after.client_id != before.client_id
            || after.authentication != before.authentication
            || after.trusted_cas != before.trusted_cas;
        let secrets = match (given.none(), moved) {
            (true, true) => return Err(ArtifactError::SecretAgain),
            (true, false) => kept,
            (false, _) => given,
        };
        complete(&after, &secrets)?;
        Ok((after, secrets))
    }

    fn over(&self, before: Artifact, now: i64) -> Result<Artifact, ArtifactError> {
        let mut out = before;
        out.updated = now;
        if let Some(text) = self.members.get("description") {
            text.as_str().ok_or(wrong("description", "a text"))?.clone_into(&mut out.description);
            bounded("description", &out.description)?;
        }
        if let Some(url) = self.text("token-service-url")? {
            out.token_url = Target::parse(&url)?;
        }
        if let Some(id) = self.text("client-id")? {
            out.client_id = id;
        }
        let send_as = self.word("send-as", &[("body", Authentication::Body), ("header", Authentication::Header)])?;
        let other = [
            ("secret", None),
            ("certificate", Some(Authentication::Certificate)),
            ("private-key-jwt", Some(Authentication::PrivateKeyJwt)),
        ];
        out.authentication = match (self.word("client-authentication", &other)?, send_as) {
            (Some(Some(other)), _) => other,
            (Some(None), send_as) => send_as.unwrap_or(Authentication::Body),
            (None, Some(send_as)) => send_as,
            (None, None) => out.authentication,
        };
        let encodings = [("form", BasicEncoding::Form), ("raw", BasicEncoding::Raw)];
        out.basic_encoding = self.word("basic-encoding", &encodings)?.unwrap_or(out.basic_encoding);
        let types = [("application/x-www-form-urlencoded", ContentType::Form), ("application/json", ContentType::Json)];
        out.content_type = self.word("content-type", &types)?.unwrap_or(out.content_type);
        for (name, slot) in
            [("scope", &mut out.scope), ("resource", &mut out.resource), ("audience", &mut out.audience)]
        {
            match self.members.get(name) {
                None => {}
                Some(Value::Null) => *slot = None,
                Some(_) => *slot = self.text(name)?,
            }
        }
        if let Some(list) = self.members.get("custom-parameters") {
            out.custom = custom(list)?;
        }
        if let Some(list) = self.members.get("trusted-cas") {
            out.trusted_cas = authorities(list)?;
        }
        Ok(out)
    }

    fn secrets(&self) -> Result<Secrets, ArtifactError> {
        Ok(Secrets {
            client_secret: self.text("client-secret")?.map(SecretString::from),
            certificate: self.long("certificate")?,
            private_key: self.long("private-key")?.map(SecretString::from),
        })
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, ArtifactError> {
        let Some(value) = self.members.get(name) else { return Ok(None) };
        let text = value.as_str().ok_or(wrong(name, "a text"))?;
        field(name, text)?;
        Ok(Some(text.to_owned()))
    }

    /// A PEM text: longer than a field, with line breaks.
    fn long(&self, name: &'static str) -> Result<Option<String>, ArtifactError> {
        let Some(value) = self.members.get(name) else { return Ok(None) };
        Ok(Some(value.as_str().ok_or(wrong(name, "a PEM text"))?.to_owned()))
    }

    fn word<T: Copy>(&self, name: &'static str, words: &[(&str, T)]) -> Result<Option<T>, ArtifactError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        let known = match name {
            "send-as" => "body or header",
            "client-authentication" => "secret, certificate or private-key-jwt",
            "basic-encoding" => "form or raw",
            _ => "application/x-www-form-urlencoded or application/json",
        };
        found.map(Some).ok_or(wrong(name, known))
    }
}

fn wrong(name: &str, kind: &'static str) -> ArtifactError {
    ArtifactError::Type(name.to_owned(), kind)
}

fn bounded(name: &str, text: &str) -> Result<(), ArtifactError> {
    if text.chars().count() > MAX_FIELD {
        return Err(ArtifactError::Long(name.to_owned()));
    }
    if text.chars().any(char::is_control) {
        return Err(ArtifactError::Control(name.to_owned()));
    }
    Ok(())
}

fn field(name: &str, text: &str) -> Result<(), ArtifactError> {
    if text.trim().is_empty() {
        return Err(ArtifactError::Blank(name.to_owned()));
    }
    bounded(name, text)
}

fn complete(artifact: &Artifact, secrets: &Secrets) -> Result<(), ArtifactError> {
    let keyed = secrets.certificate.is_some() && secrets.private_key.is_some();
    match artifact.authentication {
        Authentication::Body | Authentication::Header if secrets.client_secret.is_none() => {
            Err(ArtifactError::NoSecret)
        }
        Authentication::Certificate if !keyed => Err(ArtifactError::NoKey("client-authentication certificate")),
        Authentication::PrivateKeyJwt if !keyed => Err(ArtifactError::NoKey("client-authentication private-key-jwt")),
        _ => Ok(()),
    }
}

fn custom(list: &Value) -> Result<Vec<Custom>, ArtifactError> {
    let shape = || wrong("custom-parameters", "a list of {\"key\", \"value\", \"send-as-part-of\": body|header|url}");
    let rows: Vec<Custom> = serde_json::from_value(list.clone()).map_err(|_| shape())?;
    if rows.len() > MAX_CUSTOM {
        return Err(ArtifactError::TooManyCustom(rows.len()));
    }
    let mut seen = HashSet::new();
    for row in &rows {
        field("custom-parameters key", &row.key)?;
        field(&row.key, &row.value)?;
        if RESERVED.iter().any(|name| row.key.trim().eq_ignore_ascii_case(name)) {
            return Err(ArtifactError::Reserved(row.key.clone()));
        }
        let lower = row.key.to_ascii_lowercase();
        let forbidden = FORBIDDEN_HEADERS.contains(&lower.as_str()) || lower.starts_with("content-");
        let header = http::HeaderName::try_from(row.key.as_str()).is_ok()
            && http::HeaderValue::try_from(row.value.as_str()).is_ok();
        if row.part == Part::Header && (forbidden || !header) {
            return Err(ArtifactError::Header(row.key.clone()));
        }
        if !seen.insert(row) {
            return Err(ArtifactError::Duplicate(row.key.clone()));
        }
    }
    Ok(rows)
}

fn authorities(list: &Value) -> Result<Vec<String>, ArtifactError> {
    let shape = || wrong("trusted-cas", "a list of PEM texts");
    let mut out = Vec::new();
    for text in list.as_array().ok_or_else(shape)? {
        for der in x509::uploaded(text.as_str().ok_or_else(shape)?).map_err(Unfit::from)? {
            let read = Certificate::from_der(&der).map_err(Unfit::from)?;
            // a server's CA may be for serverAuth alone
            match fit(&read) {
                Ok(()) | Err(Unfit::NoClientAuth(_)) => {}
                Err(unfit) => return Err(unfit.into()),
            }
            out.push(crate::crypto::keyring::pem("CERTIFICATE", &der));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(more: &Value) -> Value {
        let mut members = json!({
            "type": "oauth2-client-credentials", "name": "crm", "token-service-url": "https://auth.example/token",
            "client-id": "id", "client-secret": "s3cret",
        });
        for (name, value) in more.as_object().expect("an object") {
            members[name] = value.clone();
        }
        members
    }

    fn made(more: &Value) -> Result<(Artifact, Secrets), ArtifactError> {
        Parameters::parse(said(more))?.create("i".into(), 7)
    }

    fn row(key: &str, value: &str, part: &str) -> Value {
        json!({ "key": key, "value": value, "send-as-part-of": part })
    }

    #[test]
    fn the_defaults_are_the_models_with_a_form_for_a_body() {
        let (artifact, secrets) = made(&json!({})).expect("made");
        assert_eq!((artifact.authentication, artifact.content_type), (Authentication::Body, ContentType::Form));
        assert_eq!(secrets.client_secret.expect("kept").expose_secret(), "s3cret");
        assert!(!serde_json::to_string(&artifact).expect("JSON").contains("s3cret"));
    }

    #[test]
    fn what_the_model_limits_is_refused_with_the_rule() {
        let rows = |list: Vec<Value>| json!({ "custom-parameters": list });
        let many = (0..21).map(|n| row(&format!("k{n}"), "v", "body")).collect();
        for (more, says) in [
            (rows(many), "at most 20"),
            (rows(vec![row("a", "b", "body"), row("a", "b", "body")]), "twice"),
            (rows(vec![row("Client_ID", "b", "url")]), "cannot be custom"),
            (rows(vec![row("grant_type", "b", "body")]), "cannot be custom"),
            (rows(vec![row(" ", "b", "body")]), "blank"),
            (rows(vec![row("a", " ", "body")]), "blank"),
            (rows(vec![row("a", &"x".repeat(1_025), "body")]), "longer than 1024"),
            (rows(vec![row("a", "b", "query")]), "must be a list"),
            (rows(vec![row("Authorization", "b", "header")]), "not allowed"),
            (rows(vec![row("Content-Length", "1", "header")]), "not allowed"),
            (rows(vec![row("x a", "1", "header")]), "not allowed"),
            (rows(vec![row("a", "b\r\nc: d", "header")]), "control character"),
            (json!({ "client-id": "a\nb" }), "control character"),
            (json!({ "scope": "" }), "blank"),
            (json!({ "scpoe": "a" }), "did you mean `scope`?"),
            (json!({ "send-as": "query" }), "body or header"),
            (json!({ "type": "oauth1" }), "no credential type"),
            (json!({ "name": "../x" }), "artifact name"),
            (json!({ "client-authentication": "certificate" }), "both needed"),
            (json!({ "token-service-url": "ftp://x/y" }), "token-service-url"),
        ] {
            let error = made(&more).expect_err("refused").to_string();
            assert!(error.contains(says), "{more}: {error}");
        }
        let distinct = rows(vec![row("a", "b", "body"), row("a", "c", "body"), row("a", "b", "url")]);
        assert_eq!(made(&distinct).expect("distinct").0.custom.len(), 3);
    }

    #[test]
    fn an_edit_keeps_the_secret_unless_it_could_go_elsewhere() {
        let (before, secrets) = made(&json!({})).expect("made");
        let edit = |more: Value| {
            let mut members = more;
            members["type"] = json!("oauth2-client-credentials");
            Parameters::parse(members).expect("parses").update(&before, secrets.clone(), 8)
        };
        let (after, kept) = edit(json!({ "scope": "a", "description": "" })).expect("kept");
        assert_eq!((after.scope.as_deref(), after.created, after.updated), (Some("a"), 7, 8));
        assert!(kept.client_secret.is_some());
        for more in [
            json!({ "token-service-url": "https://other.example/token" }),
            json!({ "client-id": "other" }),
            json!({ "send-as": "header" }),
        ] {
            assert_eq!(edit(more).err(), Some(ArtifactError::SecretAgain));
        }
        let again = edit(json!({ "client-id": "other", "client-secret": "new" })).expect("given again");
        assert_eq!(again.1.client_secret.expect("new").expose_secret(), "new");
    }
}
