//! What a program asks with "Find Destination": the name, the headers, the query. Which of them go
//! together stands in one table.

use super::named;
use crate::domain::destination::meaning::ASSERTION_TYPES;
use http::HeaderMap;
use secrecy::SecretString;
use std::collections::HashMap;

/// Which of the two interfaces is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// A level as a program names it; whose it is follows from the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    Subaccount,
    Instance,
}

/// An entry by name, looked for on one level or on the instance's first and then everybody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub name: String,
    pub at: Option<At>,
}

#[derive(Debug, Default)]
pub struct Question {
    pub skip_tokens: bool,
    pub skip_credentials: bool,
    pub owner: Owned,
    pub fragments: Fragments,
    pub code: Option<SecretString>,
    pub redirect_uri: Option<String>,
    pub verifier: Option<SecretString>,
    pub refresh_token: Option<SecretString>,
    /// A subdomain.
    pub tenant: Option<String>,
    pub user_token: Option<SecretString>,
    /// Type and value.
    pub assertion: Option<(String, SecretString)>,
    pub assertion_from: Option<String>,
}

/// Where the answer names the owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Owned {
    /// As version 1 always does.
    Beside,
    /// Within the configuration, as version 2 does when it is asked to.
    Within,
    #[default]
    Not,
}

/// What lies over the destination, in its order.
#[derive(Debug, Default)]
pub struct Fragments {
    pub list: Vec<Named>,
    /// Whether one may be missing.
    pub optional: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadQuestion {
    #[error("header {0} is there twice")]
    Repeated(&'static str),
    #[error("header {0} holds characters that it cannot have")]
    Characters(&'static str),
    #[error("headers {0} and {1} do not go together: {2}")]
    Together(&'static str, &'static str, &'static str),
    #[error("header {0} needs header {1} beside it")]
    Alone(&'static str, &'static str),
    #[error("header {0} is not supported: {1}")]
    Unsupported(&'static str, &'static str),
    #[error("header {0} is not part of version 2")]
    OnlyV1(&'static str),
    #[error("X-tenant is no subdomain")]
    Tenant,
    #[error("X-client-assertion-type is no type of client assertion (RFC 7521, 8)")]
    AssertionType,
    #[error("X-fragment-optional must be true or false")]
    Optional,
    #[error("X-fragment-optional does not go with several fragments")]
    OptionalOfMany,
    #[error("X-fragment-name takes {MOST_FRAGMENTS} fragments at most, each once")]
    Fragments,
    #[error("`{0}` cannot be the name of a fragment or destination")]
    Name(&'static str),
    #[error("fragments of the subaccount and of other levels do not go together")]
    Levels,
    #[error("query parameter {0} must be true or false")]
    Flag(&'static str),
    #[error("query parameter includeMetadata takes `owner`")]
    Metadata,
}

/// Fragments of one lookup.
const MOST_FRAGMENTS: usize = 10;

/// Headers that a lookup reads.
const HEADERS: [&str; 11] = [
    "x-code",
    "x-redirect-uri",
    "x-code-verifier",
    "x-refresh-token",
    "x-tenant",
    "x-user-token",
    "x-fragment-name",
    "x-fragment-optional",
    "x-client-assertion",
    "x-client-assertion-type",
    "x-client-assertion-destination-name",
];

/// The same for caches, with the token that the caller is known by (RFC 9110, 12.5.5).
pub const VARY: &str = "authorization, x-code, x-redirect-uri, x-code-verifier, x-refresh-token, x-tenant, x-user-token, x-fragment-name, x-fragment-optional, x-client-assertion, x-client-assertion-type, x-client-assertion-destination-name";

/// What does not go together.
const APART: [(&str, &str, &str); 3] = [
    ("x-tenant", "x-user-token", "the user's token decides the tenant"),
    ("x-client-assertion", "x-client-assertion-destination-name", "the assertion is given or fetched, not both"),
    ("x-client-assertion-type", "x-client-assertion-destination-name", "the assertion is given or fetched, not both"),
];

/// What goes in pairs.
const PAIRS: [(&str, &str); 2] =
    [("x-client-assertion", "x-client-assertion-type"), ("x-client-assertion-type", "x-client-assertion")];

/// What belongs to authentication types and features that are not offered.
const UNSUPPORTED: [(&str, &str); 6] = [
    ("x-subject-token", "token exchange is not offered"),
    ("x-subject-token-type", "token exchange is not offered"),
    ("x-actor-token", "token exchange is not offered"),
    ("x-actor-token-type", "token exchange is not offered"),
    ("x-samlassertion", "SAML bearer assertions are not offered"),
    ("x-chain-name", "destination chains are not offered"),
];

const ONLY_V1: [&str; 1] = ["x-client-assertion-destination-name"];

impl Question {
    pub fn parse(version: Version, query: &str, headers: &HeaderMap) -> Result<Self, BadQuestion> {
        let said = said(version, headers)?;
        let text = |name: &str| said.get(name).map(|text| (*text).to_owned());
        let secret = |name: &str| said.get(name).map(|text| SecretString::from(*text));
        let mut question = Self {
            owner: if version == Version::V1 { Owned::Beside } else { Owned::Not },
            fragments: Fragments::parse(version, &said)?,
            code: secret("x-code"),
            redirect_uri: said.get("x-redirect-uri").map(|text| decoded_once(text)),
            verifier: secret("x-code-verifier"),
            refresh_token: secret("x-refresh-token"),
            tenant: text("x-tenant"),
            user_token: secret("x-user-token"),
            assertion: text("x-client-assertion-type").zip(secret("x-client-assertion")),
            assertion_from: text("x-client-assertion-destination-name"),
            ..Self::default()
        };
        if question.tenant.as_deref().is_some_and(|text| !subdomain(text)) {
            return Err(BadQuestion::Tenant);
        }
        if question.assertion.as_ref().is_some_and(|(kind, _)| !ASSERTION_TYPES.contains(&kind.as_str())) {
            return Err(BadQuestion::AssertionType);
        }
        if question.assertion_from.as_deref().is_some_and(|name| !named(name)) {
            return Err(BadQuestion::Name("X-client-assertion-destination-name"));
        }
        question.query(version, query)?;
        Ok(question)
    }

    fn query(&mut self, version: Version, query: &str) -> Result<(), BadQuestion> {
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let given = || flag(Some(&value));
            match &*name {
                "$skipTokenRetrieval" => {
                    self.skip_tokens = given().ok_or(BadQuestion::Flag("$skipTokenRetrieval"))?;
                }
                "$skipCredentials" => {
                    self.skip_credentials = given().ok_or(BadQuestion::Flag("$skipCredentials"))?;
                }
                "includeMetadata" | "$includeMetadata" if version == Version::V2 => {
                    if value != "owner" {
                        return Err(BadQuestion::Metadata);
                    }
                    self.owner = Owned::Within;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Fragments {
    fn parse(version: Version, said: &HashMap<&'static str, &str>) -> Result<Self, BadQuestion> {
        let optional = flag(said.get("x-fragment-optional").copied()).ok_or(BadQuestion::Optional)?;
        let mut list = Vec::new();
        for text in said.get("x-fragment-name").into_iter().flat_map(|list| list.split(',')) {
            let one = Named::parse(version, text.trim()).ok_or(BadQuestion::Name("X-fragment-name"))?;
            if list.len() == MOST_FRAGMENTS || list.contains(&one) {
                return Err(BadQuestion::Fragments);
            }
            list.push(one);
        }
        if list.len() > 1 && said.contains_key("x-fragment-optional") {
            return Err(BadQuestion::OptionalOfMany);
        }
        match list.iter().filter(|one| one.at == Some(At::Subaccount)).count() {
            0 => Ok(Self { list, optional }),
            count if count == list.len() => Ok(Self { list, optional }),
            _ => Err(BadQuestion::Levels),
        }
    }
}

impl Named {
    /// A name, in version 2 with `@level` behind it. None if it can be no name.
    pub fn parse(version: Version, text: &str) -> Option<Self> {
        let (name, at) = match (version, text.split_once('@')) {
            (Version::V2, Some((name, level))) => {
                let at = match level {
                    // there is one tenant: its own entries are the provider's
                    "subaccount" | "provider_subaccount" => At::Subaccount,
                    "instance" | "provider_instance" => At::Instance,
                    _ => return None,
                };
                (name, Some(at))
            }
            _ => (text, None),
        };
        named(name).then(|| Self { name: name.to_owned(), at })
    }
}

/// The headers as texts, each once, in combinations that make sense.
fn said(version: Version, headers: &HeaderMap) -> Result<HashMap<&'static str, &str>, BadQuestion> {
    for (name, why) in UNSUPPORTED {
        if headers.contains_key(name) {
            return Err(BadQuestion::Unsupported(name, why));
        }
    }
    let mut said = HashMap::new();
    for name in HEADERS {
        let mut fields = headers.get_all(name).iter();
        let Some(first) = fields.next() else { continue };
        if fields.next().is_some() {
            return Err(BadQuestion::Repeated(name));
        }
        let text = first.to_str().map_err(|_| BadQuestion::Characters(name))?;
        if !text.is_empty() {
            said.insert(name, text);
        }
    }
    for (one, other, why) in APART {
        if said.contains_key(one) && said.contains_key(other) {
            return Err(BadQuestion::Together(one, other, why));
        }
    }
    for (one, other) in PAIRS {
        if said.contains_key(one) && !said.contains_key(other) {
            return Err(BadQuestion::Alone(one, other));
        }
    }
    match ONLY_V1.iter().find(|name| version == Version::V2 && said.contains_key(**name)) {
        Some(name) => Err(BadQuestion::OnlyV1(name)),
        None => Ok(said),
    }
}

fn flag(text: Option<&str>) -> Option<bool> {
    match text.unwrap_or("false") {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// What goes into a host name: one label (RFC 1123, 2.1).
fn subdomain(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
}

/// Callers send it encoded or not: what begins with an encoded scheme is decoded, once.
fn decoded_once(text: &str) -> String {
    let scheme = text.to_ascii_lowercase().find("%3a").map(|at| &text[..at]);
    let encoded = scheme.is_some_and(|scheme| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    if encoded { percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().expect("a name"), HeaderValue::from_str(value).expect("a value"))
        };
        list.iter().map(pair).collect()
    }

    fn asked(version: Version, list: &[(&str, &str)]) -> Result<Question, String> {
        Question::parse(version, "", &headers(list)).map_err(|error| error.to_string())
    }

    const JWT: &str = ASSERTION_TYPES[0];

    #[test]
    fn combinations_that_make_no_sense_are_refused() {
        for (list, says) in [
            (&[("x-tenant", "a"), ("x-user-token", "t")][..], "do not go together"),
            (&[("x-client-assertion", "a")], "needs header x-client-assertion-type"),
            (&[("x-client-assertion-type", JWT)], "needs header x-client-assertion"),
            (&[("x-client-assertion", "a"), ("x-client-assertion-destination-name", "d")], "do not go together"),
            (&[("x-client-assertion", "a"), ("x-client-assertion-type", "mine")], "no type of client assertion"),
            (&[("x-tenant", "a.evil.example/")], "no subdomain"),
            (&[("x-tenant", "-a")], "no subdomain"),
            (&[("x-code", "a"), ("x-code", "b")], "twice"),
            (&[("x-fragment-name", "a,b"), ("x-fragment-optional", "true")], "several fragments"),
            (&[("x-fragment-name", "a"), ("x-fragment-optional", "maybe")], "true or false"),
            (&[("x-fragment-name", "../a")], "cannot be the name"),
            (&[("x-fragment-name", "a,b,a")], "each once"),
            (&[("x-fragment-name", "a,b,c,d,e,f,g,h,i,j,k")], "10 fragments at most"),
            (&[("x-subject-token", "a")], "not supported"),
            (&[("x-chain-name", "a")], "not supported"),
        ] {
            assert!(asked(Version::V1, list).expect_err("refused").contains(says), "{list:?}");
        }
        let by_name = [("x-client-assertion-destination-name", "d")];
        assert!(asked(Version::V1, &by_name).is_ok());
        assert!(asked(Version::V2, &by_name).expect_err("refused").contains("version 2"));
        let mixed = [("x-fragment-name", "a@subaccount,b@instance")];
        assert!(asked(Version::V2, &mixed).expect_err("refused").contains("other levels"));
    }

    #[test]
    fn a_redirect_uri_is_decoded_once_if_its_scheme_is_encoded() {
        for (given, want) in [
            ("https://a.example/cb?x=%2F", "https://a.example/cb?x=%2F"),
            ("https%3A%2F%2Fa.example%2Fcb%3Fx%3D%252F", "https://a.example/cb?x=%2F"),
            ("https%3a%2f%2fa.example", "https://a.example"),
            ("myapp%3A%2F%2Fcb", "myapp://cb"),
            ("/cb%3Ax", "/cb%3Ax"),
        ] {
            let question = asked(Version::V1, &[("x-redirect-uri", given)]).expect("asked");
            assert_eq!(question.redirect_uri.as_deref(), Some(want));
        }
    }

    #[test]
    fn an_answer_varies_with_every_header_that_is_read() {
        assert_eq!(VARY, ["authorization"].into_iter().chain(HEADERS).collect::<Vec<_>>().join(", "));
    }

    #[test]
    fn levels_are_named_in_version_2_alone() {
        let named = |version, text| Named::parse(version, text).map(|one| one.at);
        assert_eq!(named(Version::V2, "a@instance"), Some(Some(At::Instance)));
        assert_eq!(named(Version::V2, "a@provider_subaccount"), Some(Some(At::Subaccount)));
        assert_eq!(named(Version::V2, "a"), Some(None));
        assert_eq!((named(Version::V2, "a@b"), named(Version::V1, "a@instance")), (None, None));
    }

    #[test]
    fn the_query_says_what_to_leave_out() {
        let asked = |version, query| Question::parse(version, query, &HeaderMap::new());
        let question = asked(Version::V1, "%24skipTokenRetrieval=true&$skipCredentials=false").expect("asked");
        assert_eq!((question.skip_tokens, question.skip_credentials, question.owner), (true, false, Owned::Beside));
        assert_eq!(asked(Version::V1, "$skipCredentials=1").err(), Some(BadQuestion::Flag("$skipCredentials")));
        let owner = |query| asked(Version::V2, query).map(|question| question.owner);
        assert_eq!((owner(""), owner("includeMetadata=owner")), (Ok(Owned::Not), Ok(Owned::Within)));
        assert_eq!(owner("includeMetadata=x"), Err(BadQuestion::Metadata));
    }

    proptest! {
        #[test]
        fn a_tenant_is_one_label_or_none(text in "\\PC{0,70}") {
            if subdomain(&text) {
                let host = url::Url::parse(&format!("https://{text}.x.example/")).expect("a URL");
                let want = format!("{}.x.example", text.to_ascii_lowercase());
                prop_assert_eq!(host.host_str(), Some(want.as_str()));
            }
        }
    }
}
