//! Destinations: named targets with properties, which programs look up. Three sorts of entries on
//! two levels: destinations, fragments that lie over them, and certificates that they name.

pub mod answer;
pub mod directory;
pub mod entry;
pub mod meaning;
pub mod properties;
pub mod question;
pub mod recipe;

use super::record::Record;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Of what sort an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sort {
    Destination,
    Fragment,
    Certificate,
}

impl Sort {
    pub fn word(self) -> &'static str {
        match self {
            Self::Destination => "destination",
            Self::Fragment => "fragment",
            Self::Certificate => "certificate",
        }
    }

    /// The property that holds the name.
    pub fn name_property(self) -> &'static str {
        if self == Self::Fragment { "FragmentName" } else { "Name" }
    }
}

/// Whose an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Everybody's.
    Subaccount,
    /// Of one service instance, by its id.
    Instance(String),
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subaccount => f.write_str("subaccount"),
            Self::Instance(id) => write!(f, "instance:{id}"),
        }
    }
}

/// What the store keeps. All properties are sealed: any of them may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub sort: Sort,
    pub level: Level,
    pub name: String,
    /// Unix seconds.
    pub modified: i64,
    /// The properties as JSON, sealed for the entry's id.
    pub sealed: String,
}

impl Entry {
    pub fn id_of(sort: Sort, level: &Level, name: &str) -> String {
        format!("{}/{level}/{name}", sort.word())
    }
}

impl Record for Entry {
    const KIND: &'static str = "destination-entry";

    fn id(&self) -> String {
        Self::id_of(self.sort, &self.level, &self.name)
    }
}

/// Whether a text can be the name of an entry: letters, digits, `.`, `_` and `-`, at most 200.
pub fn named(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=200).contains(&text.len()) && text.bytes().all(allowed) && !matches!(text, "." | "..")
}
