//! A token request, read strictly (RFC 6749), and the grant that follows from it.

use super::client::Client;
use super::key::Key;
use super::name::RoleName;
use super::reason::Reason;
use super::tenant::Tenant;
use super::trail::Refusal;
use crate::crypto::x509::Certificate;
use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{alphabet, engine::DecodePaddingMode};
use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use std::sync::Arc;

/// Parameters in one request, query and body together.
pub const MAX_PARAMETERS: usize = 64;
/// Bytes of the credentials in an Authorization header.
pub const MAX_BASIC: usize = 4096;

/// What a sender brings to prove itself.
#[derive(Debug)]
pub enum Credentials<'a> {
    /// As they came, then form-decoded where that differs: senders disagree on RFC 6749, 2.3.1.
    Secret {
        ids: Vec<String>,
        secrets: Vec<SecretString>,
    },
    Certificate(&'a Certificate),
}

/// A sender that has proven itself, by which key.
#[derive(Debug, Clone)]
pub struct Proof {
    pub client: Arc<Client>,
    pub key: Arc<Key>,
    /// The key as it becomes by the renewed certificate that was shown.
    pub renewal: Option<Key>,
}

/// The parameters of one request that mean something here.
#[derive(Debug, Default)]
pub struct Parameters {
    pub grant_type: Option<String>,
    pub client_id: Option<String>,
    pub client_secret: Option<SecretString>,
    pub scope: Option<String>,
    pub token: Option<String>,
    pub client_assertion: bool,
}

impl Parameters {
    /// Reads query and body. The same value in both is fine; two values for one name are not.
    pub fn parse(query: &str, body: &str) -> Result<Self, Refusal> {
        let mut out = Self::default();
        let mut count = 0;
        for (text, in_query) in [(query, true), (body, false)] {
            for pair in text.split('&').filter(|pair| !pair.is_empty()) {
                count += 1;
                if count > MAX_PARAMETERS {
                    return Err(Reason::ParametersTooMany.into());
                }
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                out.take(&form_decode(name)?, form_decode(value)?, in_query)?;
            }
        }
        Ok(out)
    }

    fn take(&mut self, name: &str, value: String, in_query: bool) -> Result<(), Refusal> {
        let slot = match name {
            "grant_type" => &mut self.grant_type,
            "client_id" => &mut self.client_id,
            "scope" => &mut self.scope,
            "token" => &mut self.token,
            "client_secret" if in_query => return Err(Reason::SecretInQuery.into()),
            "client_secret" => return self.take_secret(value),
            "client_assertion" | "client_assertion_type" => {
                self.client_assertion = true;
                return Ok(());
            }
            _ => return Ok(()),
        };
        match slot {
            Some(before) if *before != value => Err(Refusal::because(Reason::ParameterRepeated, name)),
            _ => {
                *slot = Some(value);
                Ok(())
            }
        }
    }

    fn take_secret(&mut self, value: String) -> Result<(), Refusal> {
        match self.client_secret.replace(SecretString::from(value)) {
            Some(_) => Err(Refusal::because(Reason::ParameterRepeated, "client_secret")),
            None => Ok(()),
        }
    }

    /// A parameter without a value counts as left out (RFC 6749, 3.2).
    fn given(value: Option<&String>) -> Option<&str> {
        value.map(String::as_str).filter(|text| !text.is_empty())
    }
}

/// Strict `application/x-www-form-urlencoded`: UTF-8, whole escapes, no NUL.
fn form_decode(text: &str) -> Result<String, Refusal> {
    let malformed = || Refusal::from(Reason::ParameterMalformed);
    strict_percent(text)
        .then(|| text.replace('+', " "))
        .and_then(|text| percent_decode_str(&text).decode_utf8().ok().map(std::borrow::Cow::into_owned))
        .filter(|text| !text.contains('\0'))
        .ok_or_else(malformed)
}

fn strict_percent(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()))
}

/// The Authorization header's credentials, if they are Basic (RFC 7617).
pub fn basic(value: &str) -> Result<Credentials<'static>, Refusal> {
    let malformed = || Refusal::from(Reason::BasicMalformed);
    let (scheme, encoded) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(Reason::ClientAuthUnsupported.into());
    }
    if encoded.len() > MAX_BASIC {
        return Err(malformed());
    }
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&alphabet::STANDARD, config);
    let bytes = engine.decode(encoded.trim_matches(' ')).map_err(|_| malformed())?;
    let text = String::from_utf8(bytes).map_err(|_| malformed())?;
    let (id, secret) = text.split_once(':').ok_or_else(malformed)?;
    if id.is_empty() || secret.is_empty() || text.chars().any(char::is_control) {
        return Err(malformed());
    }
    let spellings = |text: &str| {
        let decoded = form_decode(text).ok().filter(|decoded| decoded != text);
        [Some(text.to_owned()), decoded].into_iter().flatten().collect::<Vec<_>>()
    };
    let secrets = spellings(secret).into_iter().map(SecretString::from).collect();
    Ok(Credentials::Secret { ids: spellings(id), secrets })
}

/// Which credentials count. A secret authenticates even beside a certificate; a certificate does
/// when no secret is sent; two secrets are one too many.
pub fn offered<'a>(
    authorization: Option<&str>,
    parameters: &Parameters,
    certificate: Option<&'a Certificate>,
) -> Result<Credentials<'a>, Refusal> {
    let body_secret = parameters.client_secret.as_ref();
    if parameters.client_assertion {
        let twice = authorization.is_some() || body_secret.is_some();
        return Err(if twice { Reason::ClientAuthTwice } else { Reason::ClientAuthUnsupported }.into());
    }
    match (authorization, body_secret, certificate) {
        (Some(_), Some(_), _) => Err(Reason::ClientAuthTwice.into()),
        (Some(header), None, _) => basic(header),
        (None, Some(secret), _) => {
            let id = Parameters::given(parameters.client_id.as_ref()).ok_or(Reason::ClientAuthMissing)?;
            Ok(Credentials::Secret { ids: vec![id.to_owned()], secrets: vec![secret.clone()] })
        }
        (None, None, Some(certificate)) => Ok(Credentials::Certificate(certificate)),
        (None, None, None) => Err(Reason::ClientAuthMissing.into()),
    }
}

/// A `client_id` beside other credentials must name the same client.
pub fn same_client(parameters: &Parameters, proof: &Proof) -> Result<(), Refusal> {
    let instance = &proof.client.instance;
    match Parameters::given(parameters.client_id.as_ref()) {
        Some(id) if instance.client_id != id && !instance.aliases.iter().any(|alias| alias == id) => {
            Err(Reason::ClientIdMismatch.into())
        }
        _ => Ok(()),
    }
}

/// Grants that other servers offer and these clients are not registered for.
const OTHER_GRANTS: [&str; 8] = [
    "authorization_code",
    "refresh_token",
    "password",
    "implicit",
    "client_x509",
    "urn:ietf:params:oauth:grant-type:jwt-bearer",
    "urn:ietf:params:oauth:grant-type:saml2-bearer",
    "urn:ietf:params:oauth:grant-type:token-exchange",
];

pub fn check_grant(parameters: &Parameters) -> Result<(), Refusal> {
    match Parameters::given(parameters.grant_type.as_ref()) {
        None => Err(Reason::GrantMissing.into()),
        Some("client_credentials") => Ok(()),
        Some(other) if OTHER_GRANTS.contains(&other) => Err(Reason::GrantNotAllowed.into()),
        Some(_) => Err(Reason::GrantUnsupported.into()),
    }
}

/// The scopes of a token: exactly those asked for, or all that the instance has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scopes {
    pub names: Vec<String>,
    /// As the answer says it.
    pub text: String,
}

pub fn scopes(parameters: &Parameters, roles: &[RoleName], tenant: &Tenant) -> Result<Scopes, Refusal> {
    let Some(asked) = Parameters::given(parameters.scope.as_ref()) else {
        let names: Vec<_> = roles.iter().map(|role| tenant.scope(role.as_str())).collect();
        return Ok(Scopes { text: names.join(" "), names });
    };
    let mut names: Vec<String> = Vec::new();
    for scope in asked.split(' ') {
        // RFC 6749, 3.3: printable ASCII but for the quotation mark and the backslash
        if scope.is_empty() || !scope.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\')) {
            return Err(Reason::ScopeMalformed.into());
        }
        let role = tenant.role_of(scope);
        if !roles.iter().any(|held| Some(held.as_str()) == role) {
            return Err(Refusal::because(Reason::ScopeNotHeld, scope.chars().take(128).collect::<String>()));
        }
        if !names.iter().any(|name| name == scope) {
            names.push(scope.to_owned());
        }
    }
    Ok(Scopes { names, text: asked.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    fn reason<T>(outcome: Result<T, Refusal>) -> Option<Reason> {
        outcome.err().map(|refusal| refusal.reason)
    }

    #[test]
    fn parameters_come_from_query_and_body_and_may_agree() {
        let parameters = Parameters::parse("grant_type=client_credentials", "grant_type=client_credentials&x=1&x=2");
        assert_eq!(parameters.expect("fine").grant_type.as_deref(), Some("client_credentials"));
    }

    #[test]
    fn a_request_that_can_be_read_in_two_ways_is_refused() {
        for (query, body, want) in [
            ("grant_type=a", "grant_type=b", Reason::ParameterRepeated),
            ("", "scope=a&scope=b", Reason::ParameterRepeated),
            ("", "client_secret=a&client_secret=a", Reason::ParameterRepeated),
            ("client_secret=a", "", Reason::SecretInQuery),
            ("client%5Fsecret=a", "", Reason::SecretInQuery),
            ("", "scope=%zz", Reason::ParameterMalformed),
            ("", "scope=%2", Reason::ParameterMalformed),
            ("", "scope=%ff", Reason::ParameterMalformed),
            ("", "scope=a%00b", Reason::ParameterMalformed),
            ("", &"a=1&".repeat(65), Reason::ParametersTooMany),
        ] {
            assert_eq!(reason(Parameters::parse(query, body)), Some(want), "{query} {body}");
        }
    }

    #[test]
    fn basic_is_taken_raw_and_form_encoded() {
        let header = format!("bAsIc {}", STANDARD.encode("sb%2D1%21b1%7Cit:a%24b:c"));
        let none = Parameters::default();
        let Ok(Credentials::Secret { ids, secrets }) = offered(Some(&header), &none, None) else { panic!("a secret") };
        assert_eq!(ids, ["sb%2D1%21b1%7Cit", "sb-1!b1|it"]);
        assert_eq!(secrets[0].expose_secret(), "a%24b:c");
        assert_eq!(secrets[1].expose_secret(), "a$b:c");
    }

    #[test]
    fn malformed_basic_is_refused() {
        let encode = |bytes: &[u8]| format!("Basic {}", STANDARD.encode(bytes));
        for header in [
            "Basic".to_owned(),
            "Basic ???".into(),
            encode(b"nocolon"),
            encode(b":secret"),
            encode(b"id:"),
            encode(b"id:\xff\xfe"),
            encode(b"id:a\0b"),
            format!("Basic {}", "A".repeat(16 * 1024)),
        ] {
            assert_eq!(reason(offered(Some(&header), &Parameters::default(), None)), Some(Reason::BasicMalformed));
        }
        let bearer = offered(Some("Bearer x"), &Parameters::default(), None);
        assert_eq!(reason(bearer), Some(Reason::ClientAuthUnsupported));
    }

    #[test]
    fn a_secret_counts_before_a_certificate_and_two_secrets_are_refused() {
        let subject = crate::crypto::ca::Subject { organization: "x", unit: None, common_name: "y" };
        let made = crate::crypto::ca::authority(&subject, crate::crypto::ca::Validity::days(0, 1)).expect("made");
        let read = Certificate::from_pem(&made.certificate).expect("reads");
        let certificate = Some(&read);
        let with = |body: &str| Parameters::parse("", body).expect("parses");
        let basic = format!("Basic {}", STANDARD.encode("id:secret"));
        let both = with("client_id=id&client_secret=x");
        assert!(matches!(offered(None, &both, certificate), Ok(Credentials::Secret { .. })));
        assert!(matches!(offered(None, &with(""), certificate), Ok(Credentials::Certificate { .. })));
        assert_eq!(reason(offered(Some(&basic), &both, None)), Some(Reason::ClientAuthTwice));
        assert_eq!(reason(offered(None, &with("client_secret=x"), None)), Some(Reason::ClientAuthMissing));
        assert_eq!(reason(offered(None, &with(""), None)), Some(Reason::ClientAuthMissing));
        let assertion = with("client_assertion=x");
        assert_eq!(reason(offered(None, &assertion, None)), Some(Reason::ClientAuthUnsupported));
        assert_eq!(reason(offered(Some(&basic), &assertion, None)), Some(Reason::ClientAuthTwice));
    }

    #[test]
    fn only_the_client_credentials_grant_is_given() {
        let check = |body: &str| reason(check_grant(&Parameters::parse("", body).expect("parses")));
        assert_eq!(check("grant_type=client_credentials"), None);
        assert_eq!(check(""), Some(Reason::GrantMissing));
        assert_eq!(check("grant_type="), Some(Reason::GrantMissing));
        assert_eq!(check("grant_type=password"), Some(Reason::GrantNotAllowed));
        assert_eq!(check("grant_type=Client_Credentials"), Some(Reason::GrantUnsupported));
        assert_eq!(check("grant_type=client_credentials+"), Some(Reason::GrantUnsupported));
    }

    #[test]
    fn scopes_are_granted_exactly_as_asked_or_refused() {
        let tenant = Tenant::new("demo", None, Some("it!b1"));
        let roles = ["ESBMessaging.send", "a"].map(|role| RoleName::parse(role).expect("a role"));
        let grant = |body: &str| scopes(&Parameters::parse("", body).expect("parses"), &roles, &tenant);
        assert_eq!(grant("").expect("all").text, "it!b1.ESBMessaging.send it!b1.a");
        assert_eq!(grant("scope=it!b1.a").expect("one").text, "it!b1.a");
        for held_by_nobody in ["scope=a", "scope=it!b1.b", "scope=it!b1.a+x", "scope=%3Cb%3E"] {
            assert_eq!(reason(grant(held_by_nobody)), Some(Reason::ScopeNotHeld), "{held_by_nobody}");
        }
        for malformed in ["scope=it!b1.a++it!b1.a", "scope=+", "scope=a%22b", "scope=a%0ab"] {
            assert_eq!(reason(grant(malformed)), Some(Reason::ScopeMalformed), "{malformed}");
        }
    }

    proptest! {
        #[test]
        fn no_parameter_text_panics(query in "\\PC{0,40}", body in "[a-z_%=&+0-9]{0,80}") {
            let _ = Parameters::parse(&query, &body);
        }

        #[test]
        fn what_is_encoded_is_read_back(value in "[ -~]{1,30}") {
            let encoded: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
            let body = format!("scope={encoded}");
            prop_assert_eq!(Parameters::parse("", &body).expect("parses").scope, Some(value));
        }
    }
}
