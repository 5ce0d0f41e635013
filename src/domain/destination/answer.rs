//! The answer to "Find Destination", as programs read it.

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use std::fmt::Write;

/// An entry of `authTokens`.
#[derive(Debug, Clone)]
pub enum AuthToken {
    Token {
        /// `Bearer` or `Basic`.
        kind: &'static str,
        value: SecretString,
        /// Seconds, as the answer is made.
        expires_in: Option<i64>,
        scope: Option<String>,
        refresh_token: Option<SecretString>,
    },
    /// Why there is none; a lookup itself does not fail by that.
    Failed(String),
}

/// A certificate that goes with a destination.
pub struct Attached<'a> {
    pub name: &'a str,
    pub content: &'a str,
    pub kind: &'a str,
}

/// Who owns what was found.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    pub subaccount: &'a str,
    pub instance: Option<&'a str>,
}

impl Owner<'_> {
    pub fn json(&self) -> Value {
        json!({ "SubaccountId": self.subaccount, "InstanceId": self.instance })
    }

    /// With the name of what it owns.
    pub fn of(&self, name: &str) -> Value {
        json!({ "name": name, "SubaccountId": self.subaccount, "InstanceId": self.instance })
    }
}

/// A configuration (JSON) with what version 2 says of its owners.
pub fn with_owners(configuration: &str, destinations: &[Value], certificates: &[Value], fragments: &[Value]) -> String {
    let owner = json!({ "destinations": destinations, "certificates": certificates, "fragments": fragments });
    let inside = configuration.trim_end_matches('}');
    format!("{inside},\"$metadata\":{}}}", json!({ "owner": owner }))
}

impl AuthToken {
    fn write(&self, out: &mut String) {
        let mut member = |name: &str, value: &str| {
            let _ = write!(out, "{}\"{name}\":{}", if name == "type" { "{" } else { "," }, quoted(value));
        };
        match self {
            Self::Failed(error) => {
                member("type", "");
                member("value", "");
                member("error", &format!("Retrieval of OAuthToken failed due to: {error}"));
            }
            Self::Token { kind, value, expires_in, scope, refresh_token } => {
                member("type", kind);
                member("value", value.expose_secret());
                if let Some(seconds) = expires_in {
                    member("expires_in", &seconds.to_string());
                }
                if let Some(scope) = scope {
                    member("scope", scope);
                }
                if let Some(token) = refresh_token {
                    member("refresh_token", token.expose_secret());
                }
                let header = format!("{kind} {}", value.expose_secret());
                let _ = write!(out, ",\"http_header\":{{\"key\":\"Authorization\",\"value\":{}}}", quoted(&header));
            }
        }
        out.push('}');
    }
}

/// The whole body. `configuration` is JSON already.
pub fn body(
    owner: Option<&str>,
    configuration: &str,
    tokens: Option<&AuthToken>,
    certificates: &[Attached<'_>],
) -> String {
    let mut out = String::with_capacity(configuration.len() + 1_024);
    out.push('{');
    if let Some(owner) = owner {
        let _ = write!(out, "\"owner\":{owner},");
    }
    let _ = write!(out, "\"destinationConfiguration\":{configuration}");
    if let Some(token) = tokens {
        out.push_str(",\"authTokens\":[");
        token.write(&mut out);
        out.push(']');
    }
    if !certificates.is_empty() {
        let one = |one: &Attached<'_>| json!({ "Name": one.name, "Content": one.content, "Type": one.kind });
        let list: Vec<_> = certificates.iter().map(one).collect();
        let _ = write!(out, ",\"certificates\":{}", json!(list));
    }
    out.push('}');
    out
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_is_in_it_the_answer_is_json(text in "\\PC{0,40}") {
            let token = AuthToken::Token {
                kind: "Bearer",
                value: SecretString::from(text.clone()),
                expires_in: Some(3_570),
                scope: Some(text.clone()),
                refresh_token: Some(SecretString::from(text.clone())),
            };
            for token in [token, AuthToken::Failed(text.clone())] {
                let said: Value = serde_json::from_str(&body(None, "{}", Some(&token), &[])).expect("JSON");
                let said = &said["authTokens"][0];
                match token {
                    AuthToken::Failed(_) => prop_assert!(said["error"].as_str().expect("told").ends_with(&text)),
                    AuthToken::Token { .. } => {
                        prop_assert_eq!(&said["value"], &text);
                        prop_assert_eq!(&said["expires_in"], "3570");
                        prop_assert_eq!(&said["refresh_token"], &text);
                        prop_assert_eq!(&said["http_header"]["value"], &format!("Bearer {text}"));
                    }
                }
            }
        }
    }
}
