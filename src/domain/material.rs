//! Security material as an operator says it: the model's fields and limits, read into an artifact
//! and its secrets.

use super::artifact::{
    AUTHORIZATION_CODE, Artifact, Authentication, AuthorizationCode, BasicEncoding, CLIENT_CREDENTIALS,
    ClientCredentials, ContentType, Custom, Grant, MAX_AUTHORIZATION_CODE, Part, Provider, Secrets,
};
use super::exchange;
use super::instance::Suggestion;
use super::name::ArtifactName;
use super::target::{BadTarget, Target};
use crate::crypto::identity::IdentityError;
use crate::crypto::trust::{Unfit, fit};
use crate::crypto::x509::{self, Certificate};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashSet;

/// Custom parameters of one artifact.
pub const MAX_CUSTOM: usize = 20;
/// Characters of a field.
pub const MAX_FIELD: usize = 1_024;
/// Days that a refresh token of Microsoft 365 lives.
const REFRESH_DAYS: std::ops::RangeInclusive<i64> = 3..=90;
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
    #[error("`{0}` is no credential type; use oauth2-client-credentials or oauth2-authorization-code")]
    Kind(String),
    #[error("`{0}` is empty or blank")]
    Blank(String),
    #[error("`{0}` is longer than 1024 characters")]
    Long(String),
    #[error("`{0}` holds a control character")]
    Control(String),
    #[error("{0}: {1}")]
    Target(&'static str, BadTarget),
    #[error("parameter `{0}` belongs to the other credential type")]
    OtherType(&'static str),
    #[error("only an oauth2-authorization-code credential is authorised by a user")]
    NotToAuthorise,
    #[error("the type of a credential cannot be changed; delete it and create another")]
    TypeChanged,
    #[error("refresh-token-expiry is {0} days; {1}")]
    RefreshDays(i64, &'static str),
    #[error("there are {MAX_AUTHORIZATION_CODE} authorization code credentials already, and no more are kept")]
    TooMany,
    #[error("{0}")]
    Name(#[from] super::name::BadName),
    #[error("there are {0} custom parameters, at most 20 are sent")]
    TooManyCustom(usize),
    #[error(
        "`custom-parameters` must be given again: the token service has changed, and their values are not sent where they were not meant to go"
    )]
    CustomAgain,
    #[error("custom parameter `{0}` is there twice in a JSON body, which has each name once")]
    TwiceInJson(String),
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
    #[error("private-key: {0}")]
    AssertionKey(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("trusted-cas: {0}")]
    TrustedCa(#[from] Unfit),
}

/// Parameters as said; each that is absent stays as it is in an update. They hold secrets.
pub struct Parameters {
    members: Map<String, Value>,
}

const KNOWN: [&str; 22] = [
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
    "provider",
    "authorization-url",
    "user-name",
    "refresh-token-expiry",
    "issuer",
];

/// Parameters that only one type has.
const OF_CLIENT_CREDENTIALS: [&str; 4] = ["content-type", "resource", "audience", "custom-parameters"];
const OF_AUTHORIZATION_CODE: [&str; 5] =
    ["provider", "authorization-url", "user-name", "refresh-token-expiry", "issuer"];

impl Parameters {
    pub fn parse(json: Value) -> Result<Self, ArtifactError> {
        let Value::Object(members) = json else { return Err(ArtifactError::NotAnObject) };
        if let Some(name) = members.keys().find(|name| !KNOWN.contains(&name.as_str())) {
            return Err(ArtifactError::Unknown(name.clone(), Suggestion::of(name, KNOWN)));
        }
        match members.get("type").map(|kind| kind.as_str().unwrap_or_default()) {
            None => Err(ArtifactError::Missing("type")),
            Some(CLIENT_CREDENTIALS) => Self { members }.without(&OF_AUTHORIZATION_CODE),
            Some(AUTHORIZATION_CODE) => Self { members }.without(&OF_CLIENT_CREDENTIALS),
            Some(other) => Err(ArtifactError::Kind(other.to_owned())),
        }
    }

    fn without(self, others: &[&'static str]) -> Result<Self, ArtifactError> {
        match others.iter().find(|name| self.members.contains_key(**name)) {
            Some(name) => Err(ArtifactError::OtherType(name)),
            None => Ok(self),
        }
    }

    fn kind(&self) -> &str {
        self.members.get("type").and_then(Value::as_str).unwrap_or_default()
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
            token_url: self.target("token-service-url")?.ok_or(ArtifactError::Missing("token-service-url"))?,
            client_id: required("client-id")?,
            authentication: Authentication::Body,
            basic_encoding: BasicEncoding::Form,
            scope: None,
            grant: self.new_grant()?,
            trusted_cas: Vec::new(),
            sealed: String::new(),
            version: 0,
            created: now,
            updated: now,
        };
        let artifact = self.over(artifact, now)?;
        let secrets = self.secrets(Vec::new())?;
        complete(&artifact, &secrets)?;
        Ok((artifact, secrets))
    }

    /// An artifact with what is named changed. The secret stays unless it could now go where it was
    /// not meant to.
    pub fn update(&self, before: &Artifact, kept: Secrets, now: i64) -> Result<(Artifact, Secrets), ArtifactError> {
        if self.kind() != before.grant.kind() {
            return Err(ArtifactError::TypeChanged);
        }
        let after = self.over(before.clone(), now)?;
        let custom = kept.custom.clone();
        let given = self.secrets(custom)?;
        let moved = after.token_url != before.token_url
            || after.client_id != before.client_id
            || after.authentication != before.authentication
            || after.trusted_cas != before.trusted_cas;
        let secrets = match (given.none(), moved) {
            (true, true) => return Err(ArtifactError::SecretAgain),
            (_, true) if !given.custom.is_empty() && !self.members.contains_key("custom-parameters") => {
                return Err(ArtifactError::CustomAgain);
            }
            (true, false) => Secrets { custom: given.custom, ..kept },
            (false, _) => given,
        };
        complete(&after, &secrets)?;
        Ok((after, secrets))
    }

    fn over(&self, before: Artifact, now: i64) -> Result<Artifact, ArtifactError> {
        let mut out = before;
        out.updated = now;
        out.version += 1;
        if let Some(text) = self.members.get("description") {
            text.as_str().ok_or(wrong("description", "a text"))?.clone_into(&mut out.description);
            bounded("description", &out.description)?;
        }
        if let Some(url) = self.target("token-service-url")? {
            out.token_url = url;
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
        self.optional("scope", &mut out.scope)?;
        match &mut out.grant {
            Grant::ClientCredentials(grant) => self.client_credentials(grant)?,
            Grant::AuthorizationCode(grant) => self.authorization_code(grant)?,
        }
        if let Some(list) = self.members.get("trusted-cas") {
            out.trusted_cas = authorities(list)?;
        }
        Ok(out)
    }

    fn new_grant(&self) -> Result<Grant, ArtifactError> {
        if self.kind() == CLIENT_CREDENTIALS {
            return Ok(Grant::ClientCredentials(ClientCredentials {
                content_type: ContentType::Form,
                resource: None,
                audience: None,
                custom: Vec::new(),
            }));
        }
        let authorization_url = self.target("authorization-url")?;
        Ok(Grant::AuthorizationCode(AuthorizationCode {
            provider: Provider::Generic,
            authorization_url: authorization_url.ok_or(ArtifactError::Missing("authorization-url"))?,
            user_name: None,
            refresh_days: None,
            issuer: None,
        }))
    }

    fn client_credentials(&self, grant: &mut ClientCredentials) -> Result<(), ArtifactError> {
        let types = [("application/x-www-form-urlencoded", ContentType::Form), ("application/json", ContentType::Json)];
        grant.content_type = self.word("content-type", &types)?.unwrap_or(grant.content_type);
        self.optional("resource", &mut grant.resource)?;
        self.optional("audience", &mut grant.audience)?;
        if let Some(list) = self.members.get("custom-parameters") {
            grant.custom = custom(list)?.into_iter().map(Said::parameter).collect();
        }
        let body = |one: &&Custom| one.part == Part::Body && grant.content_type == ContentType::Json;
        let mut names = HashSet::new();
        match grant.custom.iter().filter(body).find(|one| !names.insert(one.key.as_str())) {
            Some(twice) => Err(ArtifactError::TwiceInJson(twice.key.clone())),
            None => Ok(()),
        }
    }

    fn authorization_code(&self, grant: &mut AuthorizationCode) -> Result<(), ArtifactError> {
        let providers = [("generic", Provider::Generic), ("microsoft-365", Provider::Microsoft365)];
        grant.provider = self.word("provider", &providers)?.unwrap_or(grant.provider);
        if let Some(url) = self.target("authorization-url")? {
            grant.authorization_url = url;
        }
        self.optional("user-name", &mut grant.user_name)?;
        self.optional("issuer", &mut grant.issuer)?;
        match self.members.get("refresh-token-expiry") {
            None => {}
            Some(Value::Null) => grant.refresh_days = None,
            Some(days) => grant.refresh_days = Some(days.as_i64().ok_or(wrong("refresh-token-expiry", "days"))?),
        }
        match (grant.provider, grant.refresh_days) {
            (Provider::Microsoft365, None) => grant.refresh_days = Some(*REFRESH_DAYS.end()),
            (Provider::Microsoft365, Some(days)) if !REFRESH_DAYS.contains(&days) => {
                return Err(ArtifactError::RefreshDays(days, "Microsoft 365 has 3 to 90"));
            }
            (Provider::Generic, Some(days)) if !(*REFRESH_DAYS.start()..=36_500).contains(&days) => {
                return Err(ArtifactError::RefreshDays(days, "give at least 3, or leave it out if it never ends"));
            }
            _ => {}
        }
        Ok(())
    }

    /// A field that `null` takes away.
    fn optional(&self, name: &'static str, slot: &mut Option<String>) -> Result<(), ArtifactError> {
        match self.members.get(name) {
            None => {}
            Some(Value::Null) => *slot = None,
            Some(_) => *slot = self.text(name)?,
        }
        Ok(())
    }

    fn target(&self, name: &'static str) -> Result<Option<Target>, ArtifactError> {
        let text = self.text(name)?;
        text.map(|text| Target::parse(&text).map_err(|error| ArtifactError::Target(name, error))).transpose()
    }

    /// What is given, with `before` for custom values that are not.
    fn secrets(&self, before: Vec<SecretString>) -> Result<Secrets, ArtifactError> {
        let custom = match self.members.get("custom-parameters") {
            Some(list) => custom(list)?.into_iter().map(|one| SecretString::from(one.value)).collect(),
            None => before,
        };
        Ok(Secrets {
            custom,
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
            "provider" => "generic or microsoft-365",
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
        Authentication::Certificate => Ok(secrets.identity().map(drop)?),
        Authentication::PrivateKeyJwt => {
            let key = secrets.private_key.as_ref().ok_or(IdentityError::Key)?;
            exchange::assertion_key(key).map_err(|error| ArtifactError::AssertionKey(error.to_string()))?;
            Ok(secrets.identity().map(drop)?)
        }
        _ => Ok(()),
    }
}

/// A custom parameter as it is given.
#[derive(PartialEq, Eq, Hash, Deserialize)]
struct Said {
    key: String,
    value: String,
    #[serde(rename = "send-as-part-of")]
    part: Part,
}

impl Said {
    fn parameter(self) -> Custom {
        Custom { key: self.key, part: self.part }
    }
}

fn custom(list: &Value) -> Result<Vec<Said>, ArtifactError> {
    let shape = || wrong("custom-parameters", "a list of {\"key\", \"value\", \"send-as-part-of\": body|header|url}");
    let rows: Vec<Said> = serde_json::from_value(list.clone()).map_err(|_| shape())?;
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
    use crate::crypto::ca::{self, Subject, Validity};
    use secrecy::ExposeSecret;
    use serde_json::json;

    fn overlaid(mut members: Value, more: &Value) -> Value {
        for (name, value) in more.as_object().expect("an object") {
            members[name] = value.clone();
        }
        members
    }

    fn said(more: &Value) -> Value {
        let members = json!({
            "type": "oauth2-client-credentials", "name": "crm", "token-service-url": "https://auth.example/token",
            "client-id": "id", "client-secret": "s3cret",
        });
        overlaid(members, more)
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
        let Grant::ClientCredentials(grant) = &artifact.grant else { panic!("client credentials") };
        assert_eq!((artifact.authentication, grant.content_type), (Authentication::Body, ContentType::Form));
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
        let Grant::ClientCredentials(grant) = made(&distinct).expect("distinct").0.grant else { panic!("it") };
        assert_eq!(grant.custom.len(), 3);
        let twice = json!({ "content-type": "application/json",
            "custom-parameters": [row("a", "b", "body"), row("a", "c", "body")] });
        assert_eq!(made(&twice).err(), Some(ArtifactError::TwiceInJson("a".into())));
    }

    #[test]
    fn an_authorization_code_artifact_has_the_models_bounds() {
        let code = |more: &Value| {
            let members = json!({
                "type": "oauth2-authorization-code", "name": "mail", "client-id": "id", "client-secret": "s",
                "authorization-url": "https://auth.example/auth", "token-service-url": "https://auth.example/token",
            });
            Parameters::parse(overlaid(members, more))?.create("i".into(), 7)
        };
        let days = |more: &Value| code(more).expect("made").0.authorization_code().expect("code").refresh_days;
        assert_eq!(days(&json!({})), None);
        assert_eq!(days(&json!({ "provider": "microsoft-365" })), Some(90));
        for (more, says) in [
            (json!({ "refresh-token-expiry": 2 }), "at least 3"),
            (json!({ "provider": "microsoft-365", "refresh-token-expiry": 91 }), "3 to 90"),
            (json!({ "provider": "google" }), "generic or microsoft-365"),
            (json!({ "custom-parameters": [] }), "the other credential type"),
            (json!({ "authorization-url": "auth" }), "authorization-url"),
        ] {
            let error = code(&more).expect_err("refused").to_string();
            assert!(error.contains(says), "{more}: {error}");
        }
    }

    #[test]
    fn values_of_custom_parameters_are_secrets_and_stay_with_them() {
        let (before, kept) =
            made(&json!({ "custom-parameters": [row("api-key", "k3y-of-ours", "body")] })).expect("made");
        assert!(!serde_json::to_string(&before).expect("JSON").contains("k3y-of-ours"));
        let kept = Secrets::from_json(kept.to_json().expose_secret().as_bytes()).expect("reads");
        let edit = |more: Value| Parameters::parse(overlaid(json!({ "type": "oauth2-client-credentials" }), &more));
        let values = |parameters: Parameters| {
            let (_, secrets) = parameters.update(&before, kept.clone(), 8)?;
            Ok::<_, ArtifactError>(secrets.custom.iter().map(|one| one.expose_secret().to_owned()).collect::<Vec<_>>())
        };
        let moved = json!({ "client-id": "other", "client-secret": "new" });
        assert_eq!(values(edit(json!({ "scope": "a" })).expect("parses")), Ok(vec!["k3y-of-ours".to_owned()]));
        assert_eq!(values(edit(json!({ "client-secret": "n" })).expect("parses")), Ok(vec!["k3y-of-ours".to_owned()]));
        assert_eq!(values(edit(json!({ "custom-parameters": [] })).expect("parses")), Ok(Vec::new()));
        assert_eq!(values(edit(moved).expect("parses")), Err(ArtifactError::CustomAgain));
    }

    #[test]
    fn a_key_that_cannot_be_used_is_refused_at_once() {
        let subject = |common_name| Subject { organization: "x", unit: None, common_name };
        let one = ca::authority(&subject("one"), Validity::days(0, 9)).expect("made");
        let other = ca::authority(&subject("other"), Validity::days(0, 9)).expect("made");
        let keyed = |method: &str, certificate: &str, key: &str| {
            let members = json!({ "client-authentication": method, "certificate": certificate, "private-key": key });
            made(&members).map(drop).map_err(|error| error.to_string())
        };
        for method in ["certificate", "private-key-jwt"] {
            assert_eq!(keyed(method, &one.certificate, one.key.expose_secret()), Ok(()));
            for (certificate, key, says) in [
                (&*one.certificate, other.key.expose_secret(), "do not belong together"),
                (&*one.certificate, "no key", "private"),
                ("no certificate", one.key.expose_secret(), "BEGIN CERTIFICATE"),
            ] {
                let error = keyed(method, certificate, key).expect_err("refused");
                assert!(error.contains(says) && !error.contains("PRIVATE KEY-----"), "{method}: {error}");
            }
        }
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
