//! Routes, from said to meant.

use super::fault::Place;
use super::file::{AuthorizationWord, CredentialWord, CsrfWord, RouteSection, TunnelWord};
use super::meaning::Meaning;
use super::{Limits, SharedBackend};
use crate::crypto::dn::Dn;
use crate::crypto::trust::Trust;
use crate::crypto::x509::Names;
use crate::domain::issuer::Issuer;
use crate::domain::name::{ArtifactName, RoleName, did_you_mean};
use crate::domain::rate::Rate;
use crate::domain::role::DEFAULT_ROLE;
use crate::domain::route::{Accepts, Arrival, Authorization, Outbound, Pattern, Rates, Route, Tunnels};
use http::HeaderName;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

const DEFAULT_MAX_BODY: u64 = 40 << 20;
const DAY: Duration = Duration::from_secs(86_400);

/// What routes refer to.
pub struct Known<'a> {
    pub backends: &'a HashMap<String, SharedBackend>,
    pub issuers: &'a [Issuer],
    pub limits: &'a Limits,
}

impl Meaning<'_> {
    /// Routes as meant; `lists` are their own lists of CAs, in the same order.
    pub(super) fn routes(
        &mut self,
        said: &[RouteSection],
        known: &Known<'_>,
        lists: &[Option<Arc<Trust>>],
    ) -> Vec<Route> {
        let mut out: Vec<(usize, Route)> = Vec::new();
        let mut names = HashSet::new();
        for (index, one) in said.iter().enumerate() {
            let pointer = format!("/routes/{index}");
            if !one.name.is_empty() && !names.insert(one.name.as_str()) {
                self.error(
                    &format!("{pointer}/name"),
                    format!("there are two routes named `{}`", one.name),
                    "give each route its own name",
                );
            }
            let route = self.route(&pointer, one, known);
            let trust = lists.get(index).cloned().flatten();
            out.extend(route.map(|route| (index, Route { trust, ..route })));
        }
        self.overlaps(&out);
        out.into_iter().map(|(_, route)| route).collect()
    }

    fn route(&mut self, pointer: &str, said: &RouteSection, known: &Known<'_>) -> Option<Route> {
        let role = said.user_role.as_deref().unwrap_or(DEFAULT_ROLE);
        let role = RoleName::parse(role)
            .map_err(|error| self.error(&format!("{pointer}/user_role"), error.to_string(), "name a user role"))
            .ok();
        let pattern = Pattern::parse(&said.path);
        let pattern = match pattern {
            Ok(pattern) => Some(pattern),
            Err(_) if said.path.is_empty() => None,
            Err(error) => {
                self.error(
                    &format!("{pointer}/path"),
                    format!("`{}` is not a route path: {error}", said.path),
                    "write it as /http/orders or /http/orders/*",
                );
                None
            }
        };
        let backend = known.backends.get(&said.backend).cloned();
        if backend.is_none() && !said.backend.is_empty() {
            let meant = did_you_mean(&said.backend, known.backends.keys().map(String::as_str));
            let hint = meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
            self.error(
                &format!("{pointer}/backend"),
                format!("there is no backend `{}`{hint}", said.backend),
                "name one that stands below `backends`",
            );
        }
        if said.authorization != AuthorizationWord::UserRole && said.user_role.is_some() {
            self.error(
                &format!("{pointer}/user_role"),
                "only a route with `authorization: user_role` has a user role",
                "take `user_role` away, or the other `authorization`",
            );
        }
        let names = self.certificate_names(pointer, said);
        let authorization = match said.authorization {
            AuthorizationWord::UserRole => Authorization::UserRole(role?),
            AuthorizationWord::ClientCertificate => Authorization::Certificates(names),
            AuthorizationWord::None => Authorization::None,
        };
        // everything is looked at before anything that is missing ends this
        let body = self.arrival(pointer, said, known.limits);
        let rates = Rates {
            all: self.rate(&format!("{pointer}/rate"), said.rate.as_deref()),
            each_client: self.rate(&format!("{pointer}/client_rate"), said.client_rate.as_deref()),
        };
        let issuers = self.accepted(pointer, said, known.issuers);
        let accepts = self.accepts(pointer, said);
        let credential = self.credential(pointer, said);
        Some(Route {
            name: said.name.clone(),
            pattern: pattern?,
            authorization,
            backend: backend?,
            body,
            rates,
            tunnels: match said.websocket {
                TunnelWord::FollowToken => Tunnels::FollowToken,
                TunnelWord::Stay => Tunnels::Stay,
                TunnelWord::Refuse => Tunnels::Refuse,
            },
            keep_token: said.keep_token,
            csrf: said.csrf == CsrfWord::Protect,
            issuers,
            accepts,
            trust: None,
            credential,
        })
    }

    /// How bodies may arrive at a route.
    fn arrival(&mut self, pointer: &str, said: &RouteSection, limits: &Limits) -> Arrival {
        let most = said.max_body.as_deref();
        let most = most.map_or(DEFAULT_MAX_BODY, |text| self.size(&format!("{pointer}/max_body"), text, 0, 1 << 40));
        let mut time = |key: &str, text: &Option<String>, otherwise: Duration| {
            let pointer = format!("{pointer}/{key}");
            text.as_deref().map_or(otherwise, |text| self.duration(&pointer, text, Duration::ZERO, DAY))
        };
        let gap = time("body_gap", &said.body_gap, limits.body_gap);
        Arrival { most, gap, time: time("body_time", &said.body_time, limits.body_time) }
    }

    pub(super) fn rate(&mut self, pointer: &str, text: Option<&str>) -> Option<Rate> {
        match text?.parse() {
            Ok(rate) => Some(rate),
            Err(error) => {
                self.error(pointer, "this is not a rate", format!("{error}"));
                None
            }
        }
    }

    /// Who may call a route by certificate alone.
    fn certificate_names(&mut self, pointer: &str, said: &RouteSection) -> Vec<Names> {
        let by_certificate = said.authorization == AuthorizationWord::ClientCertificate;
        if by_certificate && said.certificates.is_empty() {
            self.error(
                pointer,
                format!("route `{}` takes client certificates and lists none", said.name),
                "add `certificates: [{ subject: \"CN=..\", issuer: \"CN=..\" }]`",
            );
        }
        if !by_certificate && !said.certificates.is_empty() {
            self.error(
                &format!("{pointer}/certificates"),
                "a list of certificates belongs to `authorization: client_certificate`",
                "set that, or take `certificates` away",
            );
        }
        let mut out = Vec::new();
        for (index, one) in said.certificates.iter().enumerate() {
            let mut name = |field: &str, text: &str| match Dn::parse(text) {
                Ok(name) => Some(name.identity),
                Err(error) => {
                    self.error(
                        &format!("{pointer}/certificates/{index}/{field}"),
                        error.to_string(),
                        "write it as `flowgate trusted-ca inspect` shows it",
                    );
                    None
                }
            };
            if let (Some(subject), Some(issuer)) = (name("subject", &one.subject), name("issuer", &one.issuer)) {
                out.push(Names { subject, issuer });
            }
        }
        out
    }

    /// The credential that calls of a route go on with.
    fn credential(&mut self, pointer: &str, said: &RouteSection) -> Option<Outbound> {
        let Some(name) = &said.credential else {
            if said.credential_header.is_some() {
                self.error(
                    &format!("{pointer}/credential_header"),
                    "there is no credential for this header",
                    "name one with `credential`, or take the header away",
                );
            }
            return None;
        };
        if said.keep_token {
            self.error(
                &format!("{pointer}/keep_token"),
                "a route with a credential never shows the caller's token to the backend",
                "take `keep_token` or `credential` away",
            );
        }
        let name = ArtifactName::parse(name)
            .map_err(|error| self.error(&format!("{pointer}/credential"), error.to_string(), "name a credential"));
        let text = said.credential_header.as_deref().unwrap_or("authorization");
        let taken =
            ["connection", "cookie", "expect", "host", "keep-alive", "te", "traceparent", "trailer", "upgrade", "via"];
        let families = ["content-", "x-forwarded-", "x-auth-", "x-request-", "transfer-", "proxy-", "sap", "camel"];
        let free = |name: &HeaderName| {
            let name = name.as_str();
            !taken.contains(&name) && !families.iter().any(|family| name.starts_with(family))
        };
        let header = HeaderName::try_from(text).ok().filter(free);
        if header.is_none() {
            self.error(
                &format!("{pointer}/credential_header"),
                format!("`{text}` cannot carry a credential"),
                "leave it out for Authorization, or name a header that the backend reads",
            );
        }
        Some(Outbound { name: name.ok()?, header: header? })
    }

    fn accepts(&mut self, pointer: &str, said: &RouteSection) -> Accepts {
        let Some(words) = &said.accept else { return Accepts::default() };
        if said.authorization != AuthorizationWord::UserRole {
            self.error(
                &format!("{pointer}/accept"),
                "only a route with a user role has a choice of credentials",
                "take `accept` away",
            );
        }
        if !words.contains(&CredentialWord::Bearer) {
            self.error(
                &format!("{pointer}/accept"),
                "a route with a user role takes access tokens",
                "add `bearer` to the list",
            );
        }
        let has = |word| words.contains(&word);
        Accepts { certificate: has(CredentialWord::Certificate), basic: has(CredentialWord::Basic) }
    }

    fn overlaps(&mut self, routes: &[(usize, Route)]) {
        for (at, (index, route)) in routes.iter().enumerate() {
            let place: Place = self.places.of(&format!("/routes/{index}/path"));
            if let Some((_, twin)) = routes[..at].iter().find(|(_, other)| other.pattern == route.pattern) {
                self.faults.error(
                    place,
                    format!("`{}` is published by route `{}` already", route.pattern, twin.name),
                    "paths are compared without regard to letter case; publish each once",
                );
            } else if let Some((_, above)) = routes.iter().find(|(_, other)| other.pattern.covers(&route.pattern)) {
                self.faults.warn(
                    place,
                    format!(
                        "`{}` lies below `{}` of route `{}` and takes its calls away",
                        route.pattern, above.pattern, above.name
                    ),
                    "this works, the longest match wins; SAP Integration Suite would refuse it",
                );
            }
        }
    }
}
