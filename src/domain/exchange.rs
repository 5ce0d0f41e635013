//! The token request of an artifact, built byte for byte, and its answer, read with patience: JSON
//! bodies, URL parameters and lenient answers are beyond the OAuth libraries. Pure.

use super::artifact::{
    Artifact, Authentication, AuthorizationCode, BasicEncoding, ContentType, Grant, Part, Provider, Secrets,
};
use super::target::Target;
use crate::crypto::digest::sha256;
use crate::crypto::keyring::{Algorithm, SigningKey};
use crate::crypto::{json, jws, x509};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json as object};
use std::fmt;
use url::form_urlencoded;

/// Seconds that a token lives whose answer does not say, or says nonsense.
const DEFAULT_LIFE: i64 = 3_600;
const SHORT_LIFE: i64 = 60;
/// Seconds that are believed at most.
const LONGEST_LIFE: i64 = 7 * 86_400;
const LONGEST_REFRESH: i64 = 100 * 366 * 86_400;
/// Seconds that an assertion lives.
const ASSERTION_LIFE: i64 = 300;
/// Seconds between which a Retry-After is believed.
const RETRY: std::ops::RangeInclusive<i64> = 1..=600;
/// Characters of a server's words that are kept.
const SAID: usize = 200;

/// A token request, ready to be sent.
pub struct TokenRequest {
    /// Path and query.
    pub path: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: SecretString,
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenRequest(..)")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("the private key cannot be read: give it as PEM (PKCS#8), RSA or P-256, without a password")]
    Key,
    #[error("the certificate cannot be read: {0}")]
    Certificate(#[from] x509::CertificateError),
    #[error("a field cannot be sent as it is")]
    Field,
}

/// What is put where in a token request.
#[derive(Default)]
pub(super) struct Parts {
    body: Vec<(String, String)>,
    url: Vec<(String, String)>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Who asks, and how it proves that.
pub(super) struct Client<'a> {
    pub id: &'a str,
    pub authentication: Authentication,
    pub basic_encoding: BasicEncoding,
    /// Whom an assertion is for.
    pub token_url: &'a Target,
}

/// What is asked of a token service.
#[derive(Clone, Copy)]
pub enum Ask<'a> {
    ClientCredentials,
    /// For the code that a callback brought (RFC 6749, 4.1.3; RFC 7636, 4.5).
    Code {
        code: &'a SecretString,
        /// As it was in the authorization request, if it was there.
        redirect_uri: Option<&'a str>,
        verifier: Option<&'a SecretString>,
    },
    Refresh {
        token: &'a SecretString,
    },
    /// RFC 6749, 4.3.2
    Password {
        user: &'a str,
        password: &'a SecretString,
    },
}

/// A token request. `jti` names the assertion, if there is one.
pub fn request(
    artifact: &Artifact,
    secrets: &Secrets,
    ask: Ask<'_>,
    jti: &str,
    now: i64,
) -> Result<TokenRequest, BadRequest> {
    let mut parts = Parts::of(ask);
    match &artifact.grant {
        Grant::ClientCredentials(grant) => {
            let asked = [("scope", &artifact.scope), ("resource", &grant.resource), ("audience", &grant.audience)];
            for (name, value) in asked {
                if let Some(value) = value {
                    parts.put(name, value);
                }
            }
        }
        Grant::AuthorizationCode(grant) => match (grant.provider, wanted_scope(artifact, grant), ask) {
            (Provider::Microsoft365, Some(scope), _) => parts.put("scope", &scope),
            // the model's wire form: in the query with the code, not at all with a refresh token
            (Provider::Generic, Some(scope), Ask::Code { .. }) => parts.send(Part::Url, "scope", &scope)?,
            _ => {}
        },
    }
    let client = Client {
        id: &artifact.client_id,
        authentication: artifact.authentication,
        basic_encoding: artifact.basic_encoding,
        token_url: &artifact.token_url,
    };
    parts.authenticate(&client, secrets, jti, now)?;
    let mut content_type = ContentType::Form;
    if let Grant::ClientCredentials(grant) = &artifact.grant {
        for (row, value) in grant.custom.iter().zip(&secrets.custom) {
            parts.send(row.part, &row.key, value.expose_secret())?;
        }
        content_type = grant.content_type;
    }
    Ok(parts.assemble(&artifact.token_url, content_type))
}

/// The scope that is asked for. Microsoft gives a refresh token only with `offline_access`.
fn wanted_scope(artifact: &Artifact, grant: &AuthorizationCode) -> Option<String> {
    let scope = artifact.scope.clone();
    if grant.provider == Provider::Generic {
        return scope;
    }
    let scope = scope.unwrap_or_default();
    if scope.split(' ').any(|word| word == "offline_access") {
        return Some(scope);
    }
    Some(format!("{scope} offline_access").trim_start().to_owned())
}

/// The address that the user's browser opens. The URL's own parameters stay as they are.
pub fn authorization_url(
    artifact: &Artifact,
    grant: &AuthorizationCode,
    redirect_uri: &str,
    state: &str,
    challenge: &str,
) -> String {
    let scope = wanted_scope(artifact, grant);
    let mut pairs = vec![
        ("client_id", artifact.client_id.as_str()),
        ("response_type", "code"),
        ("redirect_uri", redirect_uri),
        ("state", state),
        ("code_challenge", challenge),
        ("code_challenge_method", "S256"),
    ];
    pairs.extend(scope.as_deref().map(|scope| ("scope", scope)));
    let names: Vec<_> = pairs.iter().map(|(name, _)| *name).collect();
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    grant.authorization_url.with_query(&names, &encoded(&pairs))
}

impl Parts {
    /// The parameters of a grant.
    pub(super) fn of(ask: Ask<'_>) -> Self {
        let mut parts = Self::default();
        match ask {
            Ask::ClientCredentials => parts.put("grant_type", "client_credentials"),
            Ask::Code { code, redirect_uri, verifier } => {
                parts.put("grant_type", "authorization_code");
                parts.put("code", code.expose_secret());
                if let Some(redirect_uri) = redirect_uri {
                    parts.put("redirect_uri", redirect_uri);
                }
                if let Some(verifier) = verifier {
                    parts.put("code_verifier", verifier.expose_secret());
                }
            }
            Ask::Refresh { token } => {
                parts.put("grant_type", "refresh_token");
                parts.put("refresh_token", token.expose_secret());
            }
            Ask::Password { user, password } => {
                parts.put("grant_type", "password");
                parts.put("username", user);
                parts.put("password", password.expose_secret());
            }
        }
        parts
    }

    /// A parameter of the body.
    pub(super) fn put(&mut self, name: &str, value: &str) {
        self.body.push((name.to_owned(), value.to_owned()));
    }

    /// The same in place of those of its name.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.body.retain(|(known, _)| known != name);
        self.put(name, value);
    }

    /// A parameter of the operator's own.
    pub(super) fn send(&mut self, part: Part, name: &str, value: &str) -> Result<(), BadRequest> {
        match part {
            Part::Body => self.put(name, value),
            Part::Url => self.url.push((name.to_owned(), value.to_owned())),
            Part::Header => {
                let name = HeaderName::try_from(name).map_err(|_| BadRequest::Field)?;
                let mut value = HeaderValue::try_from(value).map_err(|_| BadRequest::Field)?;
                value.set_sensitive(true);
                // the later word counts: no header is there twice
                self.headers.retain(|(known, _)| *known != name);
                self.headers.push((name, value));
            }
        }
        Ok(())
    }

    pub(super) fn authenticate(
        &mut self,
        client: &Client<'_>,
        secrets: &Secrets,
        jti: &str,
        now: i64,
    ) -> Result<(), BadRequest> {
        let secret = secrets.client_secret.as_ref().map_or("", |secret| secret.expose_secret());
        match client.authentication {
            Authentication::Body => {
                self.put("client_id", client.id);
                self.put("client_secret", secret);
            }
            Authentication::Certificate => self.put("client_id", client.id),
            Authentication::Header => {
                let written = |text: &str| match client.basic_encoding {
                    BasicEncoding::Raw => text.to_owned(),
                    BasicEncoding::Form => form_urlencoded::byte_serialize(text.as_bytes()).collect(),
                };
                self.basic(&written(client.id), &written(secret))?;
            }
            Authentication::PrivateKeyJwt => {
                let assertion = assertion(client, secrets, jti, now)?;
                self.assert(client.id, JWT_BEARER, &assertion);
            }
        }
        Ok(())
    }

    /// RFC 7617
    pub(super) fn basic(&mut self, user: &str, password: &str) -> Result<(), BadRequest> {
        let value = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        self.send(Part::Header, AUTHORIZATION.as_str(), &value)
    }

    /// A client that an assertion stands for (RFC 7521, 4.2).
    pub(super) fn assert(&mut self, id: &str, kind: &str, assertion: &str) {
        self.put("client_id", id);
        self.put("client_assertion_type", kind);
        self.put("client_assertion", assertion);
    }

    pub(super) fn assemble(self, target: &Target, content_type: ContentType) -> TokenRequest {
        let (kind, body) = match content_type {
            ContentType::Json => {
                let members: Map<String, Value> =
                    self.body.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
                ("application/json", Value::Object(members).to_string())
            }
            ContentType::Form => ("application/x-www-form-urlencoded", encoded(&self.body)),
        };
        let ours: Vec<_> = self.url.iter().map(|(name, _)| name.as_str()).collect();
        let mut headers = self.headers;
        headers.push((CONTENT_TYPE, HeaderValue::from_static(kind)));
        if !headers.iter().any(|(name, _)| *name == ACCEPT) {
            headers.push((ACCEPT, HeaderValue::from_static("application/json")));
        }
        let path = target.path_with_query(&ours, &encoded(&self.url));
        TokenRequest { path, headers, body: SecretString::from(body) }
    }
}

/// RFC 7523, 2.2
pub const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A private key that can sign assertions.
pub fn assertion_key(pem: &SecretString) -> Result<SigningKey, BadRequest> {
    let key = PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes()).map_err(|_| BadRequest::Key)?;
    let mut algorithms = [Algorithm::RS256, Algorithm::ES256].into_iter();
    algorithms.find_map(|algorithm| SigningKey::prepare(algorithm, key.secret_der()).ok()).ok_or(BadRequest::Key)
}

/// RFC 7523, 3, with the thumbprints by which Microsoft finds the key.
fn assertion(client: &Client<'_>, secrets: &Secrets, jti: &str, now: i64) -> Result<String, BadRequest> {
    let pem = secrets.private_key.as_ref().ok_or(BadRequest::Key)?;
    let key = assertion_key(pem)?;
    let mut header = object!({ "alg": key.algorithm.name(), "typ": "JWT" });
    if let Some(text) = &secrets.certificate {
        let leaf = x509::chain(text)?;
        header["x5t#S256"] = object!(URL_SAFE_NO_PAD.encode(sha256(&leaf[0])));
    }
    let claims = object!({
        "iss": client.id, "sub": client.id, "aud": client.token_url.as_str(),
        "jti": jti, "iat": now, "nbf": now, "exp": now + ASSERTION_LIFE,
    });
    let input = jws::signing_input(&header, &claims);
    let signature = key.sign(input.as_bytes()).map_err(|_| BadRequest::Key)?;
    Ok(jws::finish(input, &signature))
}

fn encoded(pairs: &[(String, String)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// A token as the answer gives it.
#[derive(Clone)]
pub struct Granted {
    pub access_token: SecretString,
    /// Unix seconds.
    pub expires: i64,
    pub refresh_token: Option<SecretString>,
    /// Unix seconds, where the provider says it.
    pub refresh_expires: Option<i64>,
    /// What was granted, where the provider says it.
    pub scope: Option<String>,
}

impl fmt::Debug for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Granted(until {})", self.expires)
    }
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// For people: escaped, shortened, without secrets.
    pub text: String,
    /// Seconds after which the server wants to be asked again, as far as that is believed.
    pub retry_after: Option<i64>,
    /// Whether asking again could help by itself; else somebody has to change something.
    pub passing: bool,
    /// Whether the server has said that what it was shown (code, refresh token) is no good any more.
    pub ended: bool,
    /// Whether the server has answered at all; if not, nobody knows what it did.
    pub answered: bool,
}

impl Trouble {
    pub fn passing(text: impl Into<String>) -> Self {
        Self { text: text.into(), retry_after: None, passing: true, ended: false, answered: false }
    }

    pub fn lasting(text: impl Into<String>) -> Self {
        Self { text: text.into(), retry_after: None, passing: false, ended: false, answered: true }
    }
}

/// What came back from the token service.
#[derive(Debug)]
pub struct Answer<'a> {
    pub status: u16,
    pub retry_after: Option<&'a str>,
    pub location: Option<&'a str>,
    pub body: &'a [u8],
}

/// Reads an answer at `now`. `secrets` never come back in what is told of a failure.
pub fn read(answer: &Answer<'_>, secrets: &Secrets, now: i64) -> Result<Granted, Trouble> {
    let said = json::strict(answer.body).ok();
    let member = |name: &str| said.as_ref().and_then(|said| said.get(name));
    match answer.status {
        200..=299 => granted(said.as_ref(), now),
        300..=399 => Err(Trouble::lasting(format!(
            "the token service redirects to {}; redirects are not followed, give the address that it means",
            plain(answer.location.unwrap_or("nowhere"), secrets)
        ))),
        status => {
            let code = member("error").and_then(Value::as_str);
            let description = member("error_description").and_then(Value::as_str);
            let words = [code, description].into_iter().flatten().collect::<Vec<_>>().join(": ");
            let words = if words.is_empty() { "no OAuth error".to_owned() } else { plain(&words, secrets) };
            let retry_after = answer.retry_after.and_then(|text| text.trim().parse::<i64>().ok());
            Err(Trouble {
                text: format!("the token service answered {status}: {words}"),
                retry_after: retry_after.map(|seconds| seconds.clamp(*RETRY.start(), *RETRY.end())),
                passing: status >= 500 || status == 429 || status == 408 || code == Some("temporarily_unavailable"),
                ended: status < 500 && code == Some("invalid_grant"),
                answered: true,
            })
        }
    }
}

fn granted(said: Option<&Value>, now: i64) -> Result<Granted, Trouble> {
    let said = said.and_then(Value::as_object);
    let said = said.ok_or_else(|| {
        Trouble::lasting(
            "the token service answered 200 without a JSON object; is the address that of the token endpoint?",
        )
    })?;
    let token = said.get("access_token").and_then(Value::as_str).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| Trouble::lasting("the token service answered 200 without an access_token"))?;
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Trouble::lasting("the access token holds characters that no header can carry"));
    }
    let kind = said.get("token_type").map(|kind| kind.as_str().unwrap_or_default());
    if kind.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(Trouble::lasting("the token is not of type Bearer, and no other can be used"));
    }
    let refresh = said.get("refresh_token").and_then(Value::as_str).filter(|token| !token.is_empty());
    let refresh_life = ["refresh_token_expires_in", "refresh_expires_in"]
        .iter()
        .find_map(|name| said.get(*name)?.as_i64().filter(|seconds| *seconds > 0));
    Ok(Granted {
        access_token: SecretString::from(token),
        expires: now + life(said.get("expires_in")),
        refresh_token: refresh.map(SecretString::from),
        refresh_expires: refresh_life.map(|seconds| now + seconds.min(LONGEST_REFRESH)),
        scope: said.get("scope").and_then(Value::as_str).map(str::to_owned),
    })
}

/// A number, or one in quotes; what is neither gets a short life, so that it is asked again soon.
fn life(value: Option<&Value>) -> i64 {
    let Some(value) = value else { return DEFAULT_LIFE };
    let number = value.as_f64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));
    match number {
        // a cast from a float ends at the type's own bounds
        Some(seconds) if seconds >= 1.0 => (seconds as i64).min(LONGEST_LIFE),
        _ => SHORT_LIFE,
    }
}

/// A stranger's words, fit for a log line and a page: shortened, escaped, without secrets.
fn plain(text: &str, secrets: &Secrets) -> String {
    let mut text = text.to_owned();
    let own = [&secrets.client_secret, &secrets.private_key].into_iter().flatten();
    // a short custom value, such as `1`, is no secret and would eat the words
    let custom = secrets.custom.iter().filter(|value| value.expose_secret().len() >= 6);
    for secret in own.chain(custom) {
        text = text.replace(secret.expose_secret(), "***");
    }
    let odd = |c: char| {
        c.is_control()
            || matches!(c, '<' | '>' | '&' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().take(SAID).map(|c| if odd(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::material::Parameters;
    use super::*;
    use proptest::prelude::*;

    fn created(mut members: Value, more: &Value) -> (Artifact, Secrets) {
        for (name, value) in more.as_object().expect("an object") {
            members[name] = value.clone();
        }
        Parameters::parse(members).expect("parses").create("i".into(), 0).expect("made")
    }

    fn made(more: &Value) -> (Artifact, Secrets) {
        let members = object!({
            "type": "oauth2-client-credentials", "name": "crm", "client-id": "i d", "client-secret": "s+c/r:t",
            "token-service-url": "https://auth.example/token?tenant=%20a&k=own",
        });
        created(members, more)
    }

    fn built(more: &Value) -> TokenRequest {
        let (artifact, secrets) = made(more);
        request(&artifact, &secrets, Ask::ClientCredentials, "j", 1_000).expect("built")
    }

    fn header<'a>(request: &'a TokenRequest, name: &str) -> Option<&'a str> {
        request.headers.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.to_str().ok())
    }

    #[test]
    fn the_default_is_a_form_with_everything_in_the_body() {
        let request = built(&object!({ "scope": "a b", "resource": "urn:r", "audience": "x" }));
        assert_eq!(request.path, "/token?tenant=%20a&k=own");
        assert_eq!(
            request.body.expose_secret(),
            "grant_type=client_credentials&scope=a+b&resource=urn%3Ar&audience=x&client_id=i+d&client_secret=s%2Bc%2Fr%3At"
        );
        assert_eq!(header(&request, "content-type"), Some("application/x-www-form-urlencoded"));
        assert_eq!(header(&request, "authorization"), None);
    }

    #[test]
    fn json_is_one_flat_object() {
        let request = built(&object!({ "content-type": "application/json", "scope": "a" }));
        let body: Value = serde_json::from_str(request.body.expose_secret()).expect("JSON");
        let want = object!({ "grant_type": "client_credentials", "scope": "a", "client_id": "i d", "client_secret": "s+c/r:t" });
        assert_eq!(body, want);
    }

    #[test]
    fn basic_is_form_encoded_first_unless_it_is_to_be_raw() {
        let form = built(&object!({ "send-as": "header" }));
        let raw = built(&object!({ "send-as": "header", "basic-encoding": "raw" }));
        let decoded = |request: &TokenRequest| {
            let value = header(request, "authorization").expect("there").strip_prefix("Basic ").expect("Basic");
            String::from_utf8(STANDARD.decode(value).expect("base64")).expect("text")
        };
        assert_eq!(decoded(&form), "i+d:s%2Bc%2Fr%3At");
        assert_eq!(decoded(&raw), "i d:s+c/r:t");
        assert_eq!(form.body.expose_secret(), "grant_type=client_credentials");
    }

    #[test]
    fn custom_parameters_go_where_they_belong_and_replace_the_urls_own() {
        let row = |key: &str, part: &str| object!({ "key": key, "value": "v 1", "send-as-part-of": part });
        let request =
            built(&object!({ "custom-parameters": [row("k", "url"), row("b", "body"), row("X-Own", "header")] }));
        assert_eq!(request.path, "/token?tenant=%20a&k=v+1");
        assert!(request.body.expose_secret().ends_with("&b=v+1"));
        assert_eq!(header(&request, "x-own"), Some("v 1"));
    }

    #[test]
    fn an_assertion_is_signed_for_the_token_service() {
        let subject = crate::crypto::ca::Subject { organization: "x", unit: None, common_name: "y" };
        let issued = crate::crypto::ca::authority(&subject, crate::crypto::ca::Validity::days(0, 9)).expect("made");
        let request = built(&object!({
            "client-authentication": "private-key-jwt",
            "certificate": issued.certificate, "private-key": issued.key.expose_secret(),
        }));
        let form: Vec<(String, String)> =
            form_urlencoded::parse(request.body.expose_secret().as_bytes()).into_owned().collect();
        let assertion = &form.iter().find(|(name, _)| name == "client_assertion").expect("there").1;
        let parts: Vec<_> = assertion.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).expect("base64")).collect();
        let claims: Value = serde_json::from_slice(&parts[1]).expect("JSON");
        assert_eq!(claims["aud"], "https://auth.example/token?tenant=%20a&k=own");
        assert_eq!((claims["exp"].as_i64(), claims["jti"].as_str()), (Some(1_300), Some("j")));
        let header: Value = serde_json::from_slice(&parts[0]).expect("JSON");
        assert!(header["alg"] == "ES256" && header["x5t#S256"].is_string());
    }

    fn code(more: &Value) -> (Artifact, Secrets) {
        let members = object!({
            "type": "oauth2-authorization-code", "name": "mail", "client-id": "i", "client-secret": "s",
            "authorization-url": "https://auth.example/auth?prompt=consent&state=own",
            "token-service-url": "https://auth.example/token?k=own",
        });
        created(members, more)
    }

    #[test]
    fn codes_and_refresh_tokens_go_out_as_the_model_sends_them() {
        let (token, verifier) = (SecretString::from("t"), SecretString::from("v"));
        let redirect_uri = "https://gate.example/oauth/callback";
        let sent = |more: &Value, ask: Ask<'_>| {
            let (artifact, secrets) = code(more);
            let request = request(&artifact, &secrets, ask, "j", 0).expect("built");
            (request.path.clone(), request.body.expose_secret().to_owned())
        };
        let by_code = Ask::Code { code: &token, redirect_uri: Some(redirect_uri), verifier: Some(&verifier) };
        let refresh = Ask::Refresh { token: &token };
        let generic = object!({ "scope": "a b" });
        let microsoft = object!({ "scope": "a", "provider": "microsoft-365" });
        let code_body = "grant_type=authorization_code&code=t&redirect_uri=https%3A%2F%2Fgate.example%2Foauth%2Fcallback&code_verifier=v";
        for (more, ask, path, body) in [
            (&generic, by_code, "/token?k=own&scope=a+b", format!("{code_body}&client_id=i&client_secret=s")),
            (
                &generic,
                refresh,
                "/token?k=own",
                "grant_type=refresh_token&refresh_token=t&client_id=i&client_secret=s".into(),
            ),
            (
                &microsoft,
                by_code,
                "/token?k=own",
                format!("{code_body}&scope=a+offline_access&client_id=i&client_secret=s"),
            ),
            (
                &microsoft,
                refresh,
                "/token?k=own",
                "grant_type=refresh_token&refresh_token=t&scope=a+offline_access&client_id=i&client_secret=s".into(),
            ),
        ] {
            assert_eq!(sent(more, ask), (path.to_owned(), body), "{more}");
        }
    }

    #[test]
    fn the_authorization_url_keeps_its_own_parameters_and_has_no_secret() {
        let (artifact, _) = code(&object!({ "scope": "a", "provider": "microsoft-365" }));
        let grant = artifact.authorization_code().expect("it is one");
        let url = authorization_url(&artifact, grant, "https://g/cb", "st", "ch");
        assert_eq!(
            url,
            "https://auth.example/auth?prompt=consent&client_id=i&response_type=code&redirect_uri=https%3A%2F%2Fg%2Fcb&state=st&code_challenge=ch&code_challenge_method=S256&scope=a+offline_access"
        );
    }

    fn answered(status: u16, body: &str) -> Result<Granted, Trouble> {
        let answer = Answer { status, retry_after: Some("99999999"), location: None, body: body.as_bytes() };
        read(&answer, &made(&object!({})).1, 1_000)
    }

    #[test]
    fn lifetimes_are_believed_within_bounds() {
        for (life, want) in [
            ("3600", 3_600),
            ("\"1800\"", 1_800),
            ("0", 60),
            ("-1", 60),
            ("1e20", 604_800),
            ("\"soon\"", 60),
            ("null", 60),
            ("1.9", 1),
        ] {
            let granted = answered(200, &format!(r#"{{"access_token":"t","expires_in":{life}}}"#)).expect("granted");
            assert_eq!(granted.expires - 1_000, want, "{life}");
        }
        assert_eq!(answered(200, r#"{"access_token":"t"}"#).expect("granted").expires, 4_600);
    }

    #[test]
    fn a_bad_answer_is_told_plainly_and_without_secrets() {
        for (status, body, says, passing) in [
            (200, "<html>", "without a JSON object", false),
            (200, "[]", "without a JSON object", false),
            (200, "{}", "without an access_token", false),
            (200, r#"{"access_token":"a","access_token":"b"}"#, "without a JSON object", false),
            (200, r#"{"access_token":"a b"}"#, "no header can carry", false),
            (200, r#"{"access_token":"a","token_type":"mac"}"#, "not of type Bearer", false),
            (302, "", "redirects are not followed", false),
            (
                401,
                r#"{"error":"invalid_client","error_description":"bad s+c/r:t <b>\n"}"#,
                "401: invalid_client: bad *** \u{fffd}b\u{fffd}\u{fffd}",
                false,
            ),
            (503, "", "503: no OAuth error", true),
            (429, "{}", "429", true),
        ] {
            let trouble = answered(status, body).expect_err("no token");
            assert!(trouble.text.contains(says) && trouble.passing == passing, "{body}: {trouble:?}");
        }
        assert_eq!(answered(429, "").expect_err("no token").retry_after, Some(600));
    }

    proptest! {
        #[test]
        fn no_answer_panics(status in 100u16..600, body in "\\PC{0,60}", life in "[-0-9eE.\"]{0,12}") {
            let _ = answered(status, &body);
            let _ = answered(200, &format!(r#"{{"access_token":"t","expires_in":{life}}}"#));
        }
    }
}
