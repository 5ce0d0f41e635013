//! Who this gateway is to its clients: the tenant's names, and the identifiers made from them.

use super::record::Record;
use crate::crypto::random;
use serde::{Deserialize, Serialize};

/// Made at the first start unless the configuration gives it, then kept: tokens and service keys
/// in the field name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    pub subdomain: String,
    /// The identity zone, a UUID.
    pub zid: String,
    /// Prefix of every scope, `it-rt-<subdomain>!b1`.
    pub xsappname: String,
    /// The number the next instance gets.
    pub next: u64,
}

impl Record for Tenant {
    const KIND: &'static str = "tenant";

    fn id(&self) -> String {
        "tenant".into()
    }
}

impl Tenant {
    pub fn new(subdomain: &str, zid: Option<&str>, xsappname: Option<&str>) -> Self {
        Self {
            subdomain: subdomain.to_owned(),
            zid: zid.map_or_else(random::uuid, str::to_owned),
            xsappname: xsappname.map_or_else(|| format!("it-rt-{subdomain}!b1"), str::to_owned),
            next: 1,
        }
    }

    /// A client id in the model's shape: `sb-<uuid>!b<n>|<xsappname>`.
    pub fn client_id(&mut self, instance_id: &str) -> String {
        let number = self.next;
        self.next += 1;
        format!("sb-{instance_id}!b{number}|{}", self.xsappname)
    }

    /// The full name of a role's scope.
    pub fn scope(&self, role: &str) -> String {
        format!("{}.{role}", self.xsappname)
    }

    /// The role in a scope's full name.
    pub fn role_of<'a>(&self, scope: &'a str) -> Option<&'a str> {
        scope.strip_prefix(&self.xsappname)?.strip_prefix('.')
    }
}
