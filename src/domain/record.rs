//! What can be stored: a typed record with an id, and the claims that nobody else may hold.

use serde::{Serialize, de::DeserializeOwned};

/// A thing the store keeps. `KIND` and `id` name it; both are part of the stored format.
pub trait Record: Serialize + DeserializeOwned + Send + Sync {
    const KIND: &'static str;

    fn id(&self) -> String;

    /// What no other record may claim at the same time.
    fn claims(&self) -> Vec<Claim> {
        Vec::new()
    }
}

/// A value that is unique within its space, such as a certificate across all instances.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Claim {
    pub space: &'static str,
    pub value: String,
}

impl Claim {
    pub fn new(space: &'static str, value: impl Into<String>) -> Self {
        Self { space, value: value.into() }
    }
}
