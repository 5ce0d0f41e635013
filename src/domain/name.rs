//! Names and their rules, and the suggestion for a name that was nearly right.

use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{given}` is not valid: {rule}")]
pub struct BadName {
    what: &'static str,
    given: String,
    rule: &'static str,
}

/// A user role's name: letters, digits, `_` and `.` (the model's rule).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoleName(Arc<str>);

/// A service instance's name: at most 32 of letters, digits, `.`, `_` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceName(Arc<str>);

/// A service key's name, by the same rule as an instance's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyName(Arc<str>);

/// The name of deployed security material, by which routes and destinations know it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ArtifactName(Arc<str>);

macro_rules! name {
    ($type:ident, $what:literal, $max:literal, $extra:literal, $rule:literal) => {
        impl $type {
            pub fn parse(text: &str) -> Result<Self, BadName> {
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || $extra.as_bytes().contains(&byte);
                if (1..=$max).contains(&text.len()) && text.bytes().all(allowed) {
                    Ok(Self(text.into()))
                } else {
                    let given = text.chars().take(64).flat_map(char::escape_default).collect();
                    Err(BadName { what: $what, given, rule: $rule })
                }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadName;

            fn try_from(text: String) -> Result<Self, BadName> {
                Self::parse(&text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl std::str::FromStr for $type {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(RoleName, "role name", 256, "_.", "use letters, digits, `_` and `.`, at most 256 of them");
name!(InstanceName, "instance name", 32, "._-", "use letters, digits, `.`, `_` and `-`, at most 32 of them");
name!(ArtifactName, "artifact name", 64, "._-", "use letters, digits, `.`, `_` and `-`, at most 64 of them");
name!(KeyName, "key name", 32, "._-", "use letters, digits, `.`, `_` and `-`, at most 32 of them");

/// The known name closest to what was written, if it is close enough to be meant.
pub fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.into_iter().map(|name| (strsim::jaro_winkler(given, name), name));
    scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_names_take_the_models_characters_only() {
        assert!(RoleName::parse("ESBMessaging.send").is_ok());
        for bad in ["", "a b", "a-b", "ä", "a,b", "a\n"] {
            assert!(RoleName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn instance_and_key_names_end_at_32_characters() {
        assert!(InstanceName::parse(&"a".repeat(32)).is_ok());
        assert!(InstanceName::parse(&"a".repeat(33)).is_err());
        assert!(KeyName::parse("key-1_a.b").is_ok());
    }

    #[test]
    fn a_near_miss_is_suggested_and_a_stranger_is_not() {
        let known = ["backend", "backends", "routes"];
        assert_eq!(did_you_mean("backnd", known), Some("backend"));
        assert_eq!(did_you_mean("zzz", known), None);
    }
}
