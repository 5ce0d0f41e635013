//! The flat properties of an entry, as they are stored and handed out.

use super::{Sort, named};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;

/// Properties of one entry.
const MOST: usize = 200;
/// Bytes of a property's name and of its value.
const LONGEST_NAME: usize = 255;
const LONGEST_VALUE: usize = 16 * 1024;
/// Bytes of all together; a keystore in base64 is the largest.
const MOST_BYTES: usize = 96 * 1024;

/// A flat map of texts. Any of them may hold a secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, String>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadProperties {
    #[error("an entry is a JSON object with texts for values")]
    NotAnObject,
    #[error("property `{0}` must be a text, a number, true or false")]
    NotAText(String),
    #[error("there are {0} properties; at most {MOST} are kept")]
    TooMany(usize),
    #[error("the properties have {0} bytes together; at most {MOST_BYTES} are kept")]
    TooLarge(usize),
    #[error("the name or value of property `{0}` is too long")]
    TooLong(String),
    #[error("property `{0}` holds a control character")]
    Control(String),
    #[error("property `{0}` is missing")]
    NoName(&'static str),
    #[error("`{0}` must be 1 to 200 of letters, digits, `.`, `_` and `-`")]
    Name(&'static str),
}

/// Properties that are secrets by their names.
const SECRETS: [&str; 6] = [
    "clientSecret",
    "Password",
    "tokenServicePassword",
    "KeyStorePassword",
    "tokenService.KeyStorePassword",
    "TrustStorePassword",
];
/// What goes to the token service may well be secret.
const SECRET_PREFIXES: [&str; 3] = ["tokenServiceURL.headers.", "tokenServiceURL.queries.", "tokenService.body."];
/// The other properties of a token service and its like are none, whatever their names hold.
const PLAIN_PREFIXES: [&str; 4] = ["tokenService", "clientAssertion.", "forwardAuthToken", "securityMaterial"];
/// Words by which people name secrets, and names that are nothing else.
const SECRET_WORDS: [&str; 11] = [
    "authorization",
    "password",
    "passwd",
    "secret",
    "token",
    "apikey",
    "api-key",
    "api_key",
    "cookie",
    "credential",
    "-key",
];
const SECRET_NAMES: [&str; 4] = ["key", "sig", "signature", "code"];

impl Properties {
    /// Reads an entry of a sort from JSON; its name is among the properties.
    pub fn parse(json: &Value, sort: Sort) -> Result<Self, BadProperties> {
        let members = json.as_object().ok_or(BadProperties::NotAnObject)?;
        let mut out = BTreeMap::new();
        for (name, value) in members {
            let shown = || name.chars().take(64).flat_map(char::escape_default).collect::<String>();
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                Value::Null => continue,
                _ => return Err(BadProperties::NotAText(shown())),
            };
            let longest = if sort == Sort::Certificate && name == "Content" { MOST_BYTES } else { LONGEST_VALUE };
            if name.is_empty() || name.len() > LONGEST_NAME || text.len() > longest {
                return Err(BadProperties::TooLong(shown()));
            }
            let odd = |text: &str| text.chars().any(char::is_control);
            if odd(name) || (odd(&text) && name != "Description") {
                return Err(BadProperties::Control(shown()));
            }
            out.insert(name.clone(), text);
        }
        let property = sort.name_property();
        match out.get(property) {
            None => Err(BadProperties::NoName(property)),
            Some(name) if !named(name) => Err(BadProperties::Name(property)),
            Some(_) => Self(out).bounded(),
        }
    }

    /// What the store has unsealed.
    pub fn from_json(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok().map(Self)
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).expect("a map of texts is JSON")
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The properties below a prefix, by the rest of their names.
    pub fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let all = self.0.range(prefix.to_owned()..);
        all.map_while(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_str())))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// With fragments' properties over these, the later over the earlier; the name stays.
    pub fn under(&self, fragments: &[&Self]) -> Result<Self, BadProperties> {
        let mut out = self.clone();
        for fragment in fragments {
            let over = fragment.0.iter().filter(|(name, _)| *name != "Name");
            out.0.extend(over.map(|(name, value)| (name.clone(), value.clone())));
        }
        out.bounded()
    }

    fn bounded(self) -> Result<Self, BadProperties> {
        let bytes: usize = self.0.iter().map(|(name, value)| name.len() + value.len()).sum();
        match self.0.len() {
            _ if bytes > MOST_BYTES => Err(BadProperties::TooLarge(bytes)),
            count if count > MOST => Err(BadProperties::TooMany(count)),
            _ => Ok(self),
        }
    }

    /// With another value for a property, or without it.
    pub fn with(&self, name: &str, value: Option<String>) -> Self {
        let mut out = self.0.clone();
        match value {
            Some(value) => out.insert(name.to_owned(), value),
            None => out.remove(name),
        };
        Self(out)
    }

    /// Without secrets, as listings show them.
    pub fn masked(&self) -> Self {
        Self(self.0.iter().filter(|(name, _)| !secret(name)).map(|(a, b)| (a.clone(), b.clone())).collect())
    }

    /// Only these properties.
    pub fn selected(&self, names: &[&str]) -> Value {
        let kept = self.0.iter().filter(|(name, _)| names.contains(&name.as_str()));
        Value::Object(kept.map(|(name, value)| (name.clone(), Value::String(value.clone()))).collect::<Map<_, _>>())
    }
}

/// Values may be secrets: names alone are told.
impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Whether a property is kept from listings: rather one too many than one too few.
fn secret(name: &str) -> bool {
    if SECRETS.iter().any(|known| known.eq_ignore_ascii_case(name))
        || SECRET_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    {
        return true;
    }
    if PLAIN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return false;
    }
    let name = name.to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    SECRET_WORDS.iter().any(|word| last.contains(word)) || SECRET_NAMES.contains(&last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn properties_are_texts_within_bounds_and_have_a_name() {
        let parse = |json: Value| Properties::parse(&json, Sort::Destination);
        let properties = parse(json!({ "Name": "a", "n": 7, "b": true, "gone": null })).expect("taken");
        assert_eq!((properties.get("n"), properties.get("b"), properties.get("gone")), (Some("7"), Some("true"), None));
        for (json, wrong) in [
            (json!([]), BadProperties::NotAnObject),
            (json!({ "Name": {} }), BadProperties::NotAText("Name".into())),
            (json!({}), BadProperties::NoName("Name")),
            (json!({ "Name": "../x" }), BadProperties::Name("Name")),
            (json!({ "Name": ".." }), BadProperties::Name("Name")),
            (json!({ "Name": "a\u{0}" }), BadProperties::Control("Name".into())),
            (json!({ "Name": "a", "URL.headers.x": "a\r\nb" }), BadProperties::Control("URL.headers.x".into())),
            (json!({ "Name": "a", "x": "y".repeat(LONGEST_VALUE + 1) }), BadProperties::TooLong("x".into())),
        ] {
            assert_eq!(parse(json), Err(wrong));
        }
    }

    #[test]
    fn listings_keep_secrets_to_themselves() {
        let json = json!({ "Name": "a", "clientSecret": "1", "Password": "2", "tokenService.body.x": "3",
            "URL.headers.X-Api-Key": "4", "URL.headers.x-plain": "5", "KeyStorePassword": "6", "URL": "https://x",
            "URL.headers.Cookie": "7", "URL.queries.code": "8", "my.apiKey": "9", "tokenServiceURLType": "Common",
            "URL.headers.Ocp-Apim-Subscription-Key": "10" });
        let properties = Properties::parse(&json, Sort::Destination).expect("taken");
        assert_eq!(
            properties.masked().names().collect::<Vec<_>>(),
            ["Name", "URL", "URL.headers.x-plain", "tokenServiceURLType"]
        );
        assert!(!format!("{properties:?}").contains("https"));
    }

    proptest! {
        #[test]
        fn what_was_stored_comes_back(value in "[^\\p{Cc}]{0,40}") {
            let json = json!({ "Name": "a", "x": value });
            let properties = Properties::parse(&json, Sort::Destination).expect("taken");
            prop_assert_eq!(Properties::from_json(properties.to_json().as_bytes()), Some(properties));
        }
    }
}
