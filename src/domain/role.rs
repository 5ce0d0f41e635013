//! User roles: two built in and immutable, the others with an editable description.

use super::name::RoleName;
use super::record::Record;
use serde::{Deserialize, Serialize};

/// The role that a route needs when it names none.
pub const DEFAULT_ROLE: &str = "ESBMessaging.send";

/// Built-in roles with their descriptions.
pub const BUILT_IN: [(&str, &str); 2] =
    [(DEFAULT_ROLE, "call integration flows"), ("API.invoke", "call published APIs")];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    pub name: RoleName,
    pub description: String,
}

impl Record for Role {
    const KIND: &'static str = "role";

    fn id(&self) -> String {
        self.name.to_string()
    }
}

pub fn is_built_in(name: &RoleName) -> bool {
    BUILT_IN.iter().any(|(built_in, _)| *built_in == name.as_str())
}
