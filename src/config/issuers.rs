//! Token servers besides our own, and whose tokens a route takes.

use super::file::{File, IssuerSection, RouteSection};
use super::meaning::Meaning;
use crate::crypto::jwks::KeySet;
use crate::domain::issuer::{Accepted, Issuer, KeySource};
use crate::domain::key::Origin;
use crate::domain::name::did_you_mean;
use crate::domain::target::Target;
use std::sync::Arc;

/// Our own tokens in a route's list.
const OWN: &str = "own";

impl Meaning<'_> {
    pub(super) fn issuers(&mut self, said: &File, origin: &Origin) -> Vec<Issuer> {
        let mut out: Vec<Issuer> = Vec::new();
        for (index, section) in said.issuers.iter().enumerate() {
            let at = format!("/issuers/{index}");
            let taken = out.iter().any(|one| *one.name == *section.issuer);
            if taken || section.issuer == origin.token_url() || section.issuer == OWN {
                let text = format!("there is an issuer `{}` already", section.issuer);
                self.error(&format!("{at}/issuer"), text, "name each token server once; our own needs no entry");
            }
            for (name, value) in [("issuer", &section.issuer), ("audience", &section.audience)] {
                if value.trim().is_empty() {
                    self.error(&format!("{at}/{name}"), format!("`{name}` is empty"), "its tokens say what it is");
                }
            }
            out.extend(self.issuer(&at, section));
        }
        out
    }

    fn issuer(&mut self, at: &str, section: &IssuerSection) -> Option<Issuer> {
        let pointer = format!("{at}/jwks");
        let keys = if section.jwks.contains("://") {
            match Target::parse(&section.jwks) {
                Ok(target) => KeySource::Url(target),
                Err(error) => {
                    self.error(&pointer, error.to_string(), "give the URL that its metadata calls jwks_uri");
                    return None;
                }
            }
        } else {
            let text = self.read(&pointer, &section.jwks)?;
            match KeySet::parse(text.as_bytes()) {
                Ok(keys) => KeySource::Given(Arc::new(keys)),
                Err(error) => {
                    self.error(&pointer, format!("{}: {error}", section.jwks), "give a JSON Web Key Set (RFC 7517)");
                    return None;
                }
            }
        };
        let roles_claim: Vec<_> = section.roles_claim.split('.').map(str::to_owned).collect();
        if roles_claim.iter().any(String::is_empty) {
            let text = format!("`{}` is no path of a claim", section.roles_claim);
            self.error(&format!("{at}/roles_claim"), text, "write it as scope, or as realm_access.roles");
        }
        Some(Issuer { name: section.issuer.as_str().into(), keys, audience: section.audience.clone(), roles_claim })
    }

    /// Whose tokens a route takes.
    pub(super) fn accepted(&mut self, pointer: &str, said: &RouteSection, issuers: &[Issuer]) -> Accepted {
        let Some(list) = &said.issuers else { return Accepted::default() };
        let mut accepted = Accepted { own: false, others: Vec::new() };
        for (index, name) in list.iter().enumerate() {
            match issuers.iter().find(|issuer| *issuer.name == **name) {
                _ if name == OWN => accepted.own = true,
                Some(issuer) => accepted.others.push(issuer.name.clone()),
                None => {
                    let near = did_you_mean(name, issuers.iter().map(|issuer| &*issuer.name));
                    let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                    let text = format!("there is no issuer `{name}`{hint}");
                    self.error(&format!("{pointer}/issuers/{index}"), text, "name one of `issuers`, or own");
                }
            }
        }
        if list.is_empty() {
            self.error(
                &format!("{pointer}/issuers"),
                "a route that takes nobody's tokens",
                "leave it out, or name some",
            );
        }
        accepted
    }
}
