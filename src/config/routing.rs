//! Backends and routes, from said to meant.

use super::fault::Place;
use super::file::{AuthorizationWord, BackendSection, CredentialWord, CsrfWord, RouteSection};
use super::meaning::Meaning;
use super::{Listener, SharedBackend};
use crate::crypto::dn::Dn;
use crate::crypto::trust::Trust;
use crate::crypto::x509::Names;
use crate::domain::issuer::Issuer;
use crate::domain::name::{ArtifactName, RoleName, did_you_mean};
use crate::domain::role::DEFAULT_ROLE;
use crate::domain::route::{Accepts, Authorization, Backend, Outbound, Pattern, Route, Server};
use http::{HeaderName, HeaderValue};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

const DEFAULT_MAX_BODY: u64 = 40 << 20;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

impl Meaning<'_> {
    pub(super) fn backends(
        &mut self,
        said: &BTreeMap<String, BackendSection>,
        listeners: &[Listener],
        admin: SocketAddr,
    ) -> HashMap<String, SharedBackend> {
        let mut out = HashMap::new();
        for (name, one) in said {
            let pointer = format!("/backends/{name}");
            let mut servers = Vec::new();
            for (at, text) in one.servers.iter().enumerate() {
                let pointer = format!("{pointer}/servers/{at}");
                match server(text) {
                    Ok(server) => {
                        if let Some(ours) = own_address(&server.authority, listeners, admin) {
                            self.error(
                                &pointer,
                                format!("`{text}` is {ours} of this gateway: a call would go round in circles"),
                                "name the server that does the work",
                            );
                        }
                        servers.push(server);
                    }
                    Err(remedy) => self.error(&pointer, format!("`{text}` is not a server address"), remedy),
                }
            }
            if one.servers.is_empty() {
                self.error(
                    &pointer,
                    format!("backend `{name}` has no servers"),
                    "add `servers: [\"http://127.0.0.1:9001\"]`",
                );
            }
            let timeout = one.timeout.as_deref().map_or(DEFAULT_TIMEOUT, |text| {
                self.duration(&format!("{pointer}/timeout"), text, Duration::from_millis(1), Duration::from_secs(3_600))
            });
            out.insert(name.clone(), Arc::new(Backend { name: name.clone(), servers, timeout }));
        }
        out
    }

    /// Routes as meant; `lists` are their own lists of CAs, in the same order.
    pub(super) fn routes(
        &mut self,
        said: &[RouteSection],
        (backends, issuers): (&HashMap<String, SharedBackend>, &[Issuer]),
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
            let route = self.route(&pointer, one, backends, issuers);
            let trust = lists.get(index).cloned().flatten();
            out.extend(route.map(|route| (index, Route { trust, ..route })));
        }
        self.overlaps(&out);
        out.into_iter().map(|(_, route)| route).collect()
    }

    fn route(
        &mut self,
        pointer: &str,
        said: &RouteSection,
        backends: &HashMap<String, SharedBackend>,
        issuers: &[Issuer],
    ) -> Option<Route> {
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
        let backend = backends.get(&said.backend).cloned();
        if backend.is_none() && !said.backend.is_empty() {
            let meant = did_you_mean(&said.backend, backends.keys().map(String::as_str));
            let hint = meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
            self.error(
                &format!("{pointer}/backend"),
                format!("there is no backend `{}`{hint}", said.backend),
                "name one that stands below `backends`",
            );
        }
        let max_body = said
            .max_body
            .as_deref()
            .map_or(DEFAULT_MAX_BODY, |text| self.size(&format!("{pointer}/max_body"), text, 0, 1 << 40));
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
        Some(Route {
            name: said.name.clone(),
            pattern: pattern?,
            authorization,
            backend: backend?,
            max_body,
            keep_token: said.keep_token,
            csrf: said.csrf == CsrfWord::Protect,
            issuers: self.accepted(pointer, said, issuers),
            accepts: self.accepts(pointer, said),
            trust: None,
            credential: self.credential(pointer, said),
        })
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

fn server(text: &str) -> Result<Server, &'static str> {
    const SHAPE: &str = "write it as http://host:port, with a base path if need be";
    let url = Url::parse(text).map_err(|_| SHAPE)?;
    match url.scheme() {
        "http" => {}
        "https" => return Err("https backends are not part of this version; use http:// on a network that you trust"),
        _ => return Err(SHAPE),
    }
    let plain =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    let host = url.host_str().filter(|_| plain).ok_or(SHAPE)?;
    let port = url.port().unwrap_or(80);
    let authority = format!("{host}:{port}");
    let name = HeaderValue::from_str(&authority).map_err(|_| SHAPE)?;
    Ok(Server { authority: authority.into(), host: name, base_path: url.path().trim_end_matches('/').to_owned() })
}

/// Whether an address is one of our own, wildcard listeners included.
fn own_address(authority: &str, listeners: &[Listener], admin: SocketAddr) -> Option<&'static str> {
    let authority = authority.replace("localhost:", "127.0.0.1:");
    let target: SocketAddr = authority.parse().ok()?;
    let same = |ours: SocketAddr| {
        let everywhere = ours.ip().is_unspecified() && target.ip().is_loopback();
        ours.port() == target.port() && (ours.ip() == target.ip() || everywhere)
    };
    if same(admin) {
        return Some("the admin listener");
    }
    listeners.iter().any(|one| same(one.address)).then_some("a listener")
}
