//! What the properties of a destination mean, and which of them are no good.

use super::named;
use super::properties::Properties;
use crate::domain::artifact::Part;
use crate::domain::name::{ArtifactName, did_you_mean};
use crate::domain::target::{BadTarget, Target};
use http::{HeaderName, HeaderValue};
use secrecy::SecretString;
use std::ops::RangeInclusive;

/// Authentication types that are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    NoAuthentication,
    Basic,
    ClientCertificate,
    ClientCredentials,
    Password,
    RefreshToken,
    AuthorizationCode,
}

const KINDS: [(&str, Kind); 7] = [
    ("NoAuthentication", Kind::NoAuthentication),
    ("BasicAuthentication", Kind::Basic),
    ("ClientCertificateAuthentication", Kind::ClientCertificate),
    ("OAuth2ClientCredentials", Kind::ClientCredentials),
    ("OAuth2Password", Kind::Password),
    ("OAuth2RefreshToken", Kind::RefreshToken),
    ("OAuth2AuthorizationCode", Kind::AuthorizationCode),
];

#[derive(Debug, Clone)]
pub struct Destination {
    pub kind: Kind,
    /// User and password.
    pub login: Option<(String, SecretString)>,
    pub tokens: Option<Tokens>,
    pub keystore: Option<Keystore>,
    pub trust: Option<Keystore>,
}

/// Where its tokens come from.
#[derive(Debug, Clone)]
pub enum Tokens {
    /// A deployed credential.
    Material(ArtifactName),
    Service(Box<TokenService>),
}

/// A certificate entry by name, and what opens it.
#[derive(Debug, Clone)]
pub struct Keystore {
    pub name: String,
    pub password: Option<SecretString>,
}

#[derive(Debug, Clone)]
pub struct TokenService {
    pub client_id: String,
    pub client_secret: Option<SecretString>,
    /// User and password that the token service wants besides, by Basic.
    pub login: Option<(String, SecretString)>,
    pub in_body: bool,
    url: String,
    /// One URL for many tenants: the subdomain of the one that is meant goes into it.
    pub common: bool,
    pub scope: Option<String>,
    /// Further parameters and headers of the token request.
    pub custom: Vec<(Part, String, SecretString)>,
    pub keystore: Option<Keystore>,
    /// The destination that provides this one's client assertions.
    pub assertion_from: Option<String>,
    /// If this one provides assertions: their type.
    pub assertion_type: Option<String>,
    /// Seconds.
    pub connect: u64,
    /// Seconds until the answer is there.
    pub answer: u64,
    /// Reached through the connectivity proxy, at this location.
    pub on_premise: Option<Option<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDestination {
    #[error("the entry is no destination")]
    NotADestination,
    #[error("property `{0}` is missing{1}")]
    Missing(&'static str, &'static str),
    #[error("Type `{0}` is not supported; use HTTP")]
    Type(String),
    #[error("ProxyType `{0}` is not supported; use Internet or OnPremise")]
    ProxyType(String),
    #[error("Authentication `{given}` is not supported; supported are {}", KINDS.map(|(name, _)| name).join(", "))]
    Authentication { given: String },
    #[error("{0}: {1}")]
    Target(&'static str, BadTarget),
    #[error("tokenServiceURLType `{0}` is neither Dedicated nor Common")]
    UrlType(String),
    #[error("TrustAll is not supported: name the server's CA with TrustStoreLocation instead")]
    TrustAll,
    #[error("HostnameVerifier `{0}` is neither Strict nor BrowserCompatible")]
    Verifier(String),
    #[error(
        "{property}: a Java keystore (.jks) cannot be read; convert it and store the result: keytool -importkeystore -srckeystore {file} -destkeystore {stem}.p12 -deststoretype PKCS12"
    )]
    Jks { property: &'static str, file: String, stem: String },
    #[error("{0} must name a .pem, .crt, .cer, .p12 or .pfx entry")]
    Keystore(&'static str),
    #[error("{0}: the keystore needs its password, in {1}")]
    Password(&'static str, &'static str),
    #[error("a client certificate towards a token service works with ProxyType Internet only")]
    KeystoreOnPremise,
    #[error("property `{0}` cannot be sent: it belongs to the connection or to the request itself")]
    Reserved(String),
    #[error("securityMaterial: {0}")]
    Material(String),
    #[error("securityMaterial goes with OAuth2ClientCredentials and OAuth2AuthorizationCode only")]
    MaterialKind,
    #[error("`{0}` is not the name of a destination")]
    Provider(&'static str),
    #[error(
        "a destination that provides client assertions (clientAssertion.type) is of OAuth2ClientCredentials and needs none itself"
    )]
    CircularAssertion,
    #[error("clientAssertion.type `{0}` is no type of client assertion (RFC 7521, 8)")]
    AssertionType(String),
}

/// Types of client assertions.
pub const ASSERTION_TYPES: [&str; 2] =
    [crate::domain::exchange::JWT_BEARER, "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"];

const CONNECT: RangeInclusive<u64> = 0..=60;
const ANSWER: RangeInclusive<u64> = 0..=600;
const DEFAULT_TIME: u64 = 10;

const KNOWN: [&str; 34] = [
    "Name",
    "Description",
    "Type",
    "URL",
    "ProxyType",
    "Authentication",
    "User",
    "Password",
    "clientId",
    "clientSecret",
    "scope",
    "tokenServiceURL",
    "tokenServiceURLType",
    "tokenServiceURL.ProxyType",
    "tokenServiceUser",
    "tokenServicePassword",
    "tokenServiceURL.ConnectionTimeoutInSeconds",
    "tokenServiceURL.SocketReadTimeoutInSeconds",
    "tokenService.addClientCredentialsInBody",
    "tokenService.KeyStoreLocation",
    "tokenService.KeyStorePassword",
    "KeyStoreLocation",
    "KeyStorePassword",
    "TrustStoreLocation",
    "TrustStorePassword",
    "TrustAll",
    "HostnameVerifier",
    "CloudConnectorLocationId",
    "clientAssertion.destinationName",
    "clientAssertion.type",
    "securityMaterial",
    "FragmentName",
    "forwardAuthToken",
    "sap-client",
];
const PREFIXES: [&str; 5] =
    ["URL.headers.", "URL.queries.", "tokenServiceURL.headers.", "tokenServiceURL.queries.", "tokenService.body."];
/// What the request or the connection sets itself.
const RESERVED_HEADERS: [&str; 7] =
    ["host", "connection", "transfer-encoding", "upgrade", "te", "expect", "proxy-authorization"];
const RESERVED_BODY: [&str; 4] = ["grant_type", "client_secret", "code", "refresh_token"];

impl Destination {
    /// Reads the properties; what is only odd becomes a warning.
    pub fn read(properties: &Properties) -> Result<(Self, Vec<String>), BadDestination> {
        let mut reader = Reader { properties, warnings: Vec::new() };
        let destination = reader.destination()?;
        reader.hint();
        Ok((destination, reader.warnings))
    }

    /// Whether a token request needs a PKCS#12 file opened.
    pub fn packed(&self) -> bool {
        let client = self.service().and_then(|service| service.keystore.as_ref());
        [client, self.trust.as_ref()].into_iter().flatten().any(Keystore::packed)
    }

    pub fn service(&self) -> Option<&TokenService> {
        match &self.tokens {
            Some(Tokens::Service(service)) => Some(service),
            _ => None,
        }
    }
}

impl TokenService {
    /// The URL for a tenant, whose subdomain is in the place that is left for it, or before the host.
    pub fn target(&self, subdomain: &str) -> Result<Target, BadTarget> {
        if !self.common {
            return Target::parse(&self.url);
        }
        if self.url.contains("{tenant}") {
            return Target::parse(&self.url.replace("{tenant}", subdomain));
        }
        match self.url.split_once("://") {
            Some((scheme, rest)) => Target::parse(&format!("{scheme}://{subdomain}.{rest}")),
            None => Target::parse(&self.url),
        }
    }
}

impl Keystore {
    /// The password, or the empty one.
    pub fn secret(&self) -> SecretString {
        self.password.clone().unwrap_or_else(|| SecretString::from(""))
    }

    /// Whether it is a PKCS#12 file, by its name.
    pub fn packed(&self) -> bool {
        let ending = self.name.rsplit('.').next().unwrap_or_default();
        ["p12", "pfx"].iter().any(|packed| ending.eq_ignore_ascii_case(packed))
    }
}

struct Reader<'a> {
    properties: &'a Properties,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn destination(&mut self) -> Result<Destination, BadDestination> {
        let kind = self.head()?;
        let oauth =
            matches!(kind, Kind::ClientCredentials | Kind::Password | Kind::RefreshToken | Kind::AuthorizationCode);
        self.trust_settings()?;
        let login = match kind {
            Kind::Basic | Kind::Password => {
                Some((self.required("User")?.to_owned(), SecretString::from(self.required("Password")?)))
            }
            _ => None,
        };
        let keystore = self.keystore("KeyStoreLocation", "KeyStorePassword", true)?;
        if kind == Kind::ClientCertificate && keystore.is_none() {
            return Err(BadDestination::Missing("KeyStoreLocation", ": it names the client certificate"));
        }
        let trust = self.keystore("TrustStoreLocation", "TrustStorePassword", false)?;
        let tokens = match (oauth, self.get("securityMaterial")) {
            (false, _) => None,
            (true, Some(name)) => {
                if !matches!(kind, Kind::ClientCredentials | Kind::AuthorizationCode) {
                    return Err(BadDestination::MaterialKind);
                }
                let name = ArtifactName::parse(name).map_err(|bad| BadDestination::Material(bad.to_string()))?;
                Some(Tokens::Material(name))
            }
            (true, None) => Some(Tokens::Service(Box::new(self.service(kind)?))),
        };
        Ok(Destination { kind, login, tokens, keystore, trust })
    }

    fn head(&mut self) -> Result<Kind, BadDestination> {
        let kind = self.required("Type")?;
        if kind != "HTTP" {
            return Err(BadDestination::Type(shown(kind)));
        }
        Target::parse(self.required("URL")?).map_err(|bad| BadDestination::Target("URL", bad))?;
        proxy_type(self.required("ProxyType")?)?;
        let given = self.required("Authentication")?;
        let found = KINDS.iter().find(|(name, _)| *name == given);
        found.map(|(_, kind)| *kind).ok_or_else(|| BadDestination::Authentication { given: shown(given) })
    }

    fn trust_settings(&mut self) -> Result<(), BadDestination> {
        if self.get("TrustAll").is_some_and(|text| !text.eq_ignore_ascii_case("false")) {
            return Err(BadDestination::TrustAll);
        }
        match self.get("HostnameVerifier") {
            None | Some("Strict") => {}
            Some("BrowserCompatible") => {
                self.warnings.push("HostnameVerifier BrowserCompatible is treated as Strict".to_owned());
            }
            Some(other) => return Err(BadDestination::Verifier(shown(other))),
        }
        Ok(())
    }

    fn service(&mut self, kind: Kind) -> Result<TokenService, BadDestination> {
        let client_id = self.required("clientId")?.to_owned();
        let url = self.required("tokenServiceURL")?.to_owned();
        let common = match self.get("tokenServiceURLType") {
            None | Some("Dedicated") => false,
            Some("Common") => true,
            Some(other) => return Err(BadDestination::UrlType(shown(other))),
        };
        // the token service may be elsewhere than the target
        let proxy = match self.get("tokenServiceURL.ProxyType") {
            Some(own) => proxy_type(own)?,
            None => proxy_type(self.required("ProxyType")?)?,
        };
        let on_premise = proxy.then(|| self.get("CloudConnectorLocationId").map(str::to_owned));
        let keystore = self.keystore("tokenService.KeyStoreLocation", "tokenService.KeyStorePassword", true)?;
        if keystore.is_some() && on_premise.is_some() {
            return Err(BadDestination::KeystoreOnPremise);
        }
        let assertion_from = self.get("clientAssertion.destinationName").map(str::to_owned);
        if assertion_from.as_deref().is_some_and(|name| !named(name)) {
            return Err(BadDestination::Provider("clientAssertion.destinationName"));
        }
        let assertion_type = self.get("clientAssertion.type").map(str::to_owned);
        if let Some(text) = assertion_type.as_deref().filter(|text| !ASSERTION_TYPES.contains(text)) {
            return Err(BadDestination::AssertionType(shown(text)));
        }
        if assertion_type.is_some() && (assertion_from.is_some() || kind != Kind::ClientCredentials) {
            return Err(BadDestination::CircularAssertion);
        }
        let service = TokenService {
            client_id,
            client_secret: self.get("clientSecret").map(SecretString::from),
            login: self.get("tokenServiceUser").map(|user| {
                (user.to_owned(), SecretString::from(self.get("tokenServicePassword").unwrap_or_default()))
            }),
            in_body: self.flag("tokenService.addClientCredentialsInBody", true),
            url,
            common,
            scope: self.get("scope").map(str::to_owned),
            custom: self.custom()?,
            keystore,
            assertion_from,
            assertion_type,
            connect: self.seconds("tokenServiceURL.ConnectionTimeoutInSeconds", &CONNECT),
            answer: self.seconds("tokenServiceURL.SocketReadTimeoutInSeconds", &ANSWER),
            on_premise,
        };
        // whichever tenant is asked for, it is a URL
        service.target("tenant").map_err(|bad| BadDestination::Target("tokenServiceURL", bad))?;
        Ok(service)
    }

    /// Headers, query and body parameters for the token service.
    fn custom(&self) -> Result<Vec<(Part, String, SecretString)>, BadDestination> {
        let parts = [
            ("tokenServiceURL.headers.", Part::Header),
            ("tokenServiceURL.queries.", Part::Url),
            ("tokenService.body.", Part::Body),
        ];
        let mut out = Vec::new();
        for (prefix, part) in parts {
            for (name, value) in self.properties.below(prefix) {
                let lower = name.to_ascii_lowercase();
                let fits = match part {
                    Part::Header => {
                        let content = lower.starts_with("content-") || RESERVED_HEADERS.contains(&lower.as_str());
                        !content && HeaderName::try_from(name).is_ok() && HeaderValue::try_from(value).is_ok()
                    }
                    Part::Url => !name.is_empty(),
                    Part::Body => !name.is_empty() && !RESERVED_BODY.contains(&lower.as_str()),
                };
                if !fits {
                    return Err(BadDestination::Reserved(format!("{prefix}{}", shown(name))));
                }
                out.push((part, name.to_owned(), SecretString::from(value)));
            }
        }
        Ok(out)
    }

    fn keystore(
        &self,
        property: &'static str,
        password: &'static str,
        needs_key: bool,
    ) -> Result<Option<Keystore>, BadDestination> {
        let Some(name) = self.get(property) else { return Ok(None) };
        let (stem, ending) = name.rsplit_once('.').unwrap_or((name, ""));
        match ending.to_ascii_lowercase().as_str() {
            _ if !named(name) => return Err(BadDestination::Keystore(property)),
            "jks" => return Err(BadDestination::Jks { property, file: name.to_owned(), stem: stem.to_owned() }),
            "pem" | "crt" | "cer" | "p12" | "pfx" => {}
            _ => return Err(BadDestination::Keystore(property)),
        }
        let keystore = Keystore { name: name.to_owned(), password: self.get(password).map(SecretString::from) };
        if needs_key && keystore.packed() && keystore.password.is_none() {
            return Err(BadDestination::Password(property, password));
        }
        Ok(Some(keystore))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.properties.get(name).filter(|text| !text.trim().is_empty())
    }

    fn required(&self, name: &'static str) -> Result<&str, BadDestination> {
        self.get(name).ok_or(BadDestination::Missing(name, ""))
    }

    fn flag(&mut self, name: &str, default: bool) -> bool {
        match self.get(name).map(str::to_ascii_lowercase).as_deref() {
            None => default,
            Some("true") => true,
            Some("false") => false,
            Some(_) => {
                self.warnings.push(format!("{name} is neither true nor false; {default} is used"));
                default
            }
        }
    }

    /// The model's rule: what is out of range is the default. Nought is the longest time there is.
    fn seconds(&mut self, name: &str, range: &RangeInclusive<u64>) -> u64 {
        let Some(text) = self.get(name) else { return DEFAULT_TIME };
        match text.trim().parse().ok().filter(|seconds| range.contains(seconds)) {
            Some(0) => *range.end(),
            Some(seconds) => seconds,
            None => {
                let text = format!("{name} is not within 0 to {}; {DEFAULT_TIME} seconds are used", range.end());
                self.warnings.push(text);
                DEFAULT_TIME
            }
        }
    }

    /// Properties of one's own are fine; what looks like a slip is told.
    fn hint(&mut self) {
        for name in self.properties.names() {
            let known = KNOWN.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            let same = KNOWN.into_iter().find(|known| known.eq_ignore_ascii_case(name));
            if let (false, Some(near)) = (known, same.or_else(|| did_you_mean(name, KNOWN))) {
                self.warnings.push(format!("property `{}` is unknown; did you mean `{near}`?", shown(name)));
            }
        }
    }
}

/// Whether it is the one behind the connectivity proxy.
fn proxy_type(text: &str) -> Result<bool, BadDestination> {
    match text {
        "Internet" => Ok(false),
        "OnPremise" => Ok(true),
        other => Err(BadDestination::ProxyType(shown(other))),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Sort;
    use super::*;
    use serde_json::{Value, json};

    fn said(more: &Value) -> Result<(Destination, Vec<String>), BadDestination> {
        let mut members = json!({
            "Name": "crm", "Type": "HTTP", "URL": "https://crm.example/api", "ProxyType": "Internet",
            "Authentication": "OAuth2AuthorizationCode", "clientId": "id", "clientSecret": "s",
            "tokenServiceURL": "https://auth.example/oauth/token",
        });
        for (name, value) in more.as_object().expect("an object") {
            members[name] = value.clone();
        }
        Destination::read(&Properties::parse(&members, Sort::Destination).expect("properties"))
    }

    #[test]
    fn the_models_defaults_hold() {
        let (destination, warnings) = said(&json!({})).expect("read");
        let service = destination.service().expect("a token service");
        assert_eq!((service.in_body, service.connect, service.answer, service.common), (true, 10, 10, false));
        assert_eq!(service.target("x").expect("a target").as_str(), "https://auth.example/oauth/token");
        assert!(warnings.is_empty() && service.on_premise.is_none());
        let (destination, _) = said(&json!({ "ProxyType": "OnPremise" })).expect("read");
        assert_eq!(destination.service().expect("a token service").on_premise, Some(None));
        let apart = json!({ "ProxyType": "OnPremise", "tokenServiceURL.ProxyType": "Internet" });
        assert!(said(&apart).expect("read").0.service().expect("a token service").on_premise.is_none());
    }

    #[test]
    fn what_is_out_of_range_gets_the_default_and_a_warning() {
        let (connect, answer) =
            ("tokenServiceURL.ConnectionTimeoutInSeconds", "tokenServiceURL.SocketReadTimeoutInSeconds");
        for (more, times, warned) in [
            (json!({ connect: "60", answer: "600" }), (60, 600), 0),
            (json!({ connect: "0", answer: "0" }), (60, 600), 0),
            (json!({ connect: "61", answer: "601" }), (10, 10), 2),
            (json!({ connect: "-1", answer: "soon" }), (10, 10), 2),
            (json!({ "tokenService.addClientCredentialsInBody": "maybe" }), (10, 10), 1),
            (json!({ "tokenServiceUrl": "x", "my.own": "y" }), (10, 10), 1),
        ] {
            let (destination, warnings) = said(&more).expect("read");
            let service = destination.service().expect("a token service");
            assert_eq!(((service.connect, service.answer), warnings.len()), (times, warned), "{more}: {warnings:?}");
        }
    }

    #[test]
    fn a_tenant_goes_where_it_is_meant_to_or_before_the_host() {
        for (url, want) in [
            ("https://auth.example/t", "https://sub.auth.example/t"),
            ("https://{tenant}.auth.example/t", "https://sub.auth.example/t"),
            ("https://auth.example/{tenant}/t", "https://auth.example/sub/t"),
        ] {
            let (destination, _) =
                said(&json!({ "tokenServiceURLType": "Common", "tokenServiceURL": url })).expect("read");
            let service = destination.service().expect("a token service");
            assert_eq!(service.target("sub").expect("a target").as_str(), want);
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_rule() {
        for (more, says) in [
            (json!({ "Type": "RFC" }), "use HTTP"),
            (json!({ "ProxyType": "PrivateLink" }), "Internet or OnPremise"),
            (json!({ "Authentication": "OAuth2SAMLBearerAssertion" }), "supported are NoAuthentication"),
            (json!({ "URL": "ftp://x" }), "URL: "),
            (json!({ "tokenServiceURL": "https://a:b@x/" }), "tokenServiceURL: "),
            (json!({ "tokenServiceURLType": "Both" }), "Dedicated nor Common"),
            (json!({ "clientId": " " }), "`clientId` is missing"),
            (json!({ "Authentication": "BasicAuthentication" }), "`User` is missing"),
            (json!({ "Authentication": "ClientCertificateAuthentication" }), "KeyStoreLocation"),
            (json!({ "TrustAll": "TRUE" }), "TrustAll"),
            (json!({ "HostnameVerifier": "None" }), "Strict"),
            (json!({ "tokenService.KeyStoreLocation": "a.jks" }), "keytool -importkeystore -srckeystore a.jks"),
            (json!({ "tokenService.KeyStoreLocation": "a.p12" }), "needs its password"),
            (json!({ "tokenService.KeyStoreLocation": "../a.pem" }), "must name"),
            (json!({ "tokenService.KeyStoreLocation": "a.pem", "ProxyType": "OnPremise" }), "Internet only"),
            (json!({ "tokenServiceURL.headers.Host": "x" }), "cannot be sent"),
            (json!({ "tokenServiceURL.headers.a b": "x" }), "cannot be sent"),
            (json!({ "tokenService.body.grant_type": "x" }), "cannot be sent"),
            (json!({ "clientAssertion.type": ASSERTION_TYPES[0] }), "provides client assertions"),
            (json!({ "securityMaterial": "a b" }), "securityMaterial"),
            (json!({ "securityMaterial": "a", "Authentication": "OAuth2RefreshToken" }), "securityMaterial goes"),
        ] {
            let error = said(&more).expect_err("refused").to_string();
            assert!(error.contains(says), "{more}: {error}");
        }
    }
}
