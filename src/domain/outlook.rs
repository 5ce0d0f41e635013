//! What will have ended by some day, and what breaks then. Pure: the day is an argument.

use super::client::Clients;
use super::key::Key;
use super::name::ArtifactName;
use super::route::{Authorization, Route};
use crate::crypto::digest::{Digest, hex};
use crate::crypto::x509::{Certificate, Crl};
use std::sync::Arc;

/// What can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    ServerCertificate,
    TrustedCa,
    OwnCa,
    RevocationList,
    ServiceKey,
    Credential,
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::ServerCertificate,
        Self::TrustedCa,
        Self::OwnCa,
        Self::RevocationList,
        Self::ServiceKey,
        Self::Credential,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::ServerCertificate => "server certificate",
            Self::TrustedCa => "trusted CA",
            Self::OwnCa => "own CA",
            Self::RevocationList => "revocation list",
            Self::ServiceKey => "service key",
            Self::Credential => "credential",
        }
    }
}

/// The end of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    pub kind: Kind,
    pub name: String,
    /// Unix seconds: the last in which it is of use.
    pub ends: i64,
    /// Instances, routes and listeners that then lose a way in.
    pub breaks: Vec<String>,
}

/// All that has an end.
pub struct View<'a> {
    /// Each listener with its server's chain.
    pub servers: Vec<(String, Vec<Certificate>)>,
    pub authorities: &'a [Certificate],
    pub own: Option<&'a Certificate>,
    pub crls: &'a [Crl],
    /// Whether an outdated revocation list refuses what its CA issued.
    pub crls_bind: bool,
    pub clients: &'a Clients,
    pub routes: &'a [Arc<Route>],
    /// Outbound credentials whose consent ends: their refresh token's end, as things stand.
    pub consents: Vec<(ArtifactName, i64)>,
}

impl View<'_> {
    /// When each thing ends, without what breaks.
    pub fn ends(&self) -> Vec<(Kind, i64)> {
        let servers = self.servers.iter().flat_map(|(_, chain)| chain);
        let keys = self.clients.keys().filter_map(|(_, key)| key.certificate());
        servers
            .map(|one| (Kind::ServerCertificate, one.not_after))
            .chain(self.authorities.iter().map(|ca| (Kind::TrustedCa, ca.not_after)))
            .chain(self.own.map(|own| (Kind::OwnCa, own.not_after)))
            .chain(self.crls.iter().filter_map(|crl| Some((Kind::RevocationList, crl.next_update?))))
            .chain(keys.map(|details| (Kind::ServiceKey, details.valid_until)))
            .chain(self.consents.iter().map(|(_, end)| (Kind::Credential, *end)))
            .collect()
    }

    /// Every ending, the nearest first.
    pub fn endings(&self) -> Vec<Ending> {
        let mut out = Vec::new();
        for (listener, chain) in &self.servers {
            for one in chain {
                let breaks = vec![format!("listener {listener}")];
                let name = format!("{} on {listener}", one.subject);
                out.push(Ending { kind: Kind::ServerCertificate, name, ends: one.not_after, breaks });
            }
        }
        for ca in self.authorities {
            let breaks = self.below(&ca.names.subject);
            out.push(Ending { kind: Kind::TrustedCa, name: ca.subject.clone(), ends: ca.not_after, breaks });
        }
        if let Some(own) = self.own {
            let breaks = self.below(&own.names.subject);
            out.push(Ending { kind: Kind::OwnCa, name: own.subject.clone(), ends: own.not_after, breaks });
        }
        for crl in self.crls {
            if let Some(next) = crl.next_update {
                let breaks = if self.crls_bind { self.below(&crl.name) } else { Vec::new() };
                out.push(Ending { kind: Kind::RevocationList, name: crl.issuer.clone(), ends: next, breaks });
            }
        }
        for (client, key) in self.clients.keys() {
            if let Some(details) = key.certificate() {
                let name = format!("{} of instance {}", key.name, client.instance.name);
                out.push(Ending {
                    kind: Kind::ServiceKey,
                    name,
                    ends: details.valid_until,
                    breaks: self.through(&[client.instance.id.as_str()]),
                });
            }
        }
        for (name, ends) in &self.consents {
            let uses = |route: &&Arc<Route>| route.credential.as_ref().is_some_and(|one| one.name == *name);
            let breaks = self.routes.iter().filter(uses).map(|route| format!("route {}", route.name)).collect();
            out.push(Ending { kind: Kind::Credential, name: name.to_string(), ends: *ends, breaks });
        }
        out.sort_by(|a, b| (a.ends, a.kind, &a.name).cmp(&(b.ends, b.kind, &b.name)));
        out
    }

    /// What goes by certificates that a CA of this name issued.
    fn below(&self, issuer: &Digest) -> Vec<String> {
        let name = hex(issuer);
        let below = |key: &Key| key.certificate().is_some_and(|details| details.names.ends_with(&name));
        let mut ids: Vec<_> = self.clients.keys().filter(|(_, key)| below(key)).collect();
        ids.sort_by(|a, b| a.0.instance.name.cmp(&b.0.instance.name));
        ids.dedup_by(|a, b| a.0.instance.id == b.0.instance.id);
        let mut out = self.through(&ids.iter().map(|(client, _)| client.instance.id.as_str()).collect::<Vec<_>>());
        for route in self.routes {
            if let Authorization::Certificates(names) = &route.authorization
                && names.iter().any(|names| names.issuer == *issuer)
            {
                out.push(format!("route {}", route.name));
            }
        }
        out
    }

    /// Instances, and the routes that their roles open.
    fn through(&self, ids: &[&str]) -> Vec<String> {
        let clients: Vec<_> = ids.iter().filter_map(|id| self.clients.find_instance(id)).collect();
        let mut out: Vec<_> = clients.iter().map(|client| format!("instance {}", client.instance.name)).collect();
        for route in self.routes {
            let opened = |role| clients.iter().any(|client| client.instance.roles.contains(role));
            if matches!(&route.authorization, Authorization::UserRole(role) if opened(role)) {
                out.push(format!("route {}", route.name));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::ca::{Subject, Validity, authority};
    use crate::domain::instance::{Instance, Plan};
    use crate::domain::key::{CertificateDetails, Credential, Matching};
    use crate::domain::name::{InstanceName, KeyName, RoleName};
    use crate::domain::route::open;

    /// A client with a key that the CA issued, and the route that its role opens.
    fn opened(ca: &Certificate) -> (Clients, Route) {
        let role = RoleName::parse("Orders.send").expect("a role");
        let mut clients = Clients::default();
        clients.put_instance(Instance {
            id: "i".into(),
            name: InstanceName::parse("orders").expect("a name"),
            plan: Plan::IntegrationFlow,
            client_id: "c".into(),
            aliases: Vec::new(),
            roles: vec![role.clone()],
            token_validity: 3600,
            bound_tokens: false,
            trusted_cas: Vec::new(),
            created: 0,
        });
        let details = CertificateDetails { valid_until: 86_400, ..CertificateDetails::of(ca) };
        clients.put_key(Key {
            id: "k".into(),
            instance_id: "i".into(),
            name: KeyName::parse("partner").expect("a name"),
            created: 0,
            credential: Credential::CertificateExternal { details, matching: Matching::Pinned },
        });
        let route = Route { name: "orders".into(), authorization: Authorization::UserRole(role), ..open("/orders") };
        (clients, route)
    }

    #[test]
    fn every_ending_is_told_with_what_breaks_and_the_nearest_first() {
        let made = |name, days| {
            let subject = Subject { organization: "x", unit: None, common_name: name };
            let pem = authority(&subject, Validity::days(0, days)).expect("made").certificate;
            Certificate::from_pem(&pem).expect("reads")
        };
        let (ca, server) = (made("ca", 30), made("server", 20));
        let (clients, route) = opened(&ca);
        let view = View {
            servers: vec![("127.0.0.1:8443".into(), vec![server])],
            authorities: std::slice::from_ref(&ca),
            own: None,
            crls: &[],
            crls_bind: true,
            clients: &clients,
            routes: &[Arc::new(route)],
            consents: vec![(ArtifactName::parse("mail").expect("a name"), 43_200)],
        };
        let told: Vec<_> =
            view.endings().into_iter().map(|one| (one.kind.name(), one.name, one.breaks.join(", "))).collect();
        let opened = "instance orders, route orders".to_owned();
        assert_eq!(
            told,
            [
                ("credential", "mail".into(), String::new()),
                ("service key", "partner of instance orders".into(), opened.clone()),
                ("server certificate", "CN=server,O=x on 127.0.0.1:8443".into(), "listener 127.0.0.1:8443".into()),
                ("trusted CA", "CN=ca,O=x".into(), opened),
            ]
        );
    }
}
