//! Routes: published paths, the role each needs, the backend behind it. The longest match wins.

use super::backend::Backend;
use super::issuer::Accepted;
use super::name::{ArtifactName, RoleName};
use super::path::NormalPath;
use super::rate::Rate;
use crate::crypto::trust::Trust;
use crate::crypto::x509::Names;
use http::HeaderName;
use std::collections::{HashMap, HashSet};
use std::{fmt, sync::Arc, time::Duration};

/// Who may call a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorization {
    UserRole(RoleName),
    /// One of these certificates, by its parsed names.
    Certificates(Vec<Names>),
    None,
}

/// A credential of ours that calls of a route go on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    pub name: ArtifactName,
    /// Usually Authorization.
    pub header: HeaderName,
}

/// Which credentials a route with a user role takes besides a bearer token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepts {
    /// A client certificate that belongs to a service key.
    pub certificate: bool,
    /// Clientid and clientsecret by Basic.
    pub basic: bool,
}

impl Default for Accepts {
    fn default() -> Self {
        Self { certificate: true, basic: false }
    }
}

/// What becomes of calls that ask for a tunnel, as WebSockets do (RFC 6455, RFC 8441).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tunnels {
    /// Ends when its caller's token ends, is revoked or loses the role.
    #[default]
    FollowToken,
    /// Lasts as long as its two ends want.
    Stay,
    Refuse,
}

/// How a request's body may arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Bytes.
    pub most: u64,
    /// Between two pieces; zero is no bound.
    pub gap: Duration,
    /// The whole of it; zero is no bound.
    pub time: Duration,
}

/// How often a route may be called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    pub all: Option<Rate>,
    pub each_client: Option<Rate>,
}

#[derive(Debug, Clone)]
pub struct Route {
    pub name: String,
    pub pattern: Pattern,
    pub authorization: Authorization,
    pub backend: Arc<Backend>,
    pub body: Arrival,
    pub rates: Rates,
    pub tunnels: Tunnels,
    pub keep_token: bool,
    /// Whether changing calls need a token that a reading one has fetched.
    pub csrf: bool,
    /// Whose tokens are taken.
    pub issuers: Accepted,
    pub accepts: Accepts,
    /// The CAs that must vouch for client certificates here.
    pub trust: Option<Arc<Trust>>,
    pub credential: Option<Outbound>,
}

/// A path, or with a final `/*` the path and all below it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern {
    folded: String,
    below: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    #[error("a route path begins with `/`")]
    NoSlash,
    #[error("`*` stands only as the final `/*`")]
    Star,
    #[error("a route path holds letters, digits and `_ / ~ - . $` only")]
    Character,
    #[error("a route path has no empty or dot segments")]
    Segment,
    #[error("`{0}` belongs to the product itself; use another path, such as one below /http")]
    Product(&'static str),
}

/// Paths that the token server answers at the root of the origin.
pub const PRODUCT_PATHS: [&str; 7] = [
    "/oauth",
    "/token_keys",
    "/token_key",
    "/introspect",
    "/.well-known",
    "/destination-configuration",
    "/check_token",
];

impl Pattern {
    pub fn parse(text: &str) -> Result<Self, BadPattern> {
        let (path, below) = match text.strip_suffix("/*") {
            Some(path) => (path, true),
            None => (text, false),
        };
        if !text.starts_with('/') {
            return Err(BadPattern::NoSlash);
        }
        if path.contains('*') {
            return Err(BadPattern::Star);
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_/~-.$".contains(&byte);
        if !path.bytes().all(allowed) {
            return Err(BadPattern::Character);
        }
        let mut segments = path.split('/').skip(1);
        if path != "/" && segments.any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(BadPattern::Segment);
        }
        let folded = path.to_ascii_lowercase();
        let product = PRODUCT_PATHS
            .into_iter()
            .find(|product| folded.strip_prefix(product).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
        match product {
            Some(path) => Err(BadPattern::Product(path)),
            None => Ok(Self { folded, below }),
        }
    }

    /// Whether `other` lies below this pattern, so that it takes calls away from it.
    pub fn covers(&self, other: &Self) -> bool {
        self.below
            && self != other
            && other.folded.strip_prefix(&self.folded).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.folded, if self.below { "/*" } else { "" })
    }
}

/// All routes, ready to match: exact paths first, then prefixes from the longest up.
#[derive(Debug, Default)]
pub struct Routes {
    exact: HashMap<String, Arc<Route>>,
    below: HashMap<String, Arc<Route>>,
    all: Vec<Arc<Route>>,
}

impl Routes {
    pub fn new(routes: Vec<Route>) -> Self {
        let mut out = Self::default();
        for route in routes.into_iter().map(Arc::new) {
            let map = if route.pattern.below { &mut out.below } else { &mut out.exact };
            map.insert(route.pattern.folded.clone(), route.clone());
            out.all.push(route);
        }
        out
    }

    /// The same, with backends that go on from how their servers have fared before.
    pub fn succeed(mut routes: Vec<Route>, before: &Self) -> Self {
        let known: HashMap<_, _> = before.backends().map(|backend| (backend.name.as_str(), backend)).collect();
        let mut fresh = HashMap::new();
        for route in &mut routes {
            let renewed = fresh.entry(route.backend.name.clone()).or_insert_with(|| {
                let mut backend = Backend::clone(&route.backend);
                if let Some(before) = known.get(backend.name.as_str()) {
                    backend.inherit(before);
                }
                Arc::new(backend)
            });
            route.backend = renewed.clone();
        }
        Self::new(routes)
    }

    /// Each backend once.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        let mut seen = HashSet::new();
        self.all.iter().map(|route| &route.backend).filter(move |backend| seen.insert(backend.name.as_str()))
    }

    pub fn find(&self, path: &NormalPath<'_>) -> Option<&Arc<Route>> {
        let folded = &*path.folded;
        if let Some(route) = self.exact.get(folded) {
            return Some(route);
        }
        let mut prefix = folded;
        loop {
            if let Some(route) = self.below.get(prefix) {
                return Some(route);
            }
            prefix = &prefix[..prefix.rfind('/')?];
        }
    }

    pub fn all(&self) -> &[Arc<Route>] {
        &self.all
    }
}

/// A route that everybody may call, with everything else as it is by default.
#[cfg(test)]
pub fn open(pattern: &str) -> Route {
    Route {
        name: "r".into(),
        pattern: Pattern::parse(pattern).expect("a pattern"),
        authorization: Authorization::None,
        backend: Arc::new(super::backend::anywhere()),
        body: Arrival { most: 10, gap: Duration::ZERO, time: Duration::ZERO },
        rates: Rates::default(),
        tunnels: Tunnels::default(),
        keep_token: false,
        csrf: false,
        issuers: Accepted::default(),
        accepts: Accepts::default(),
        trust: None,
        credential: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn routes(patterns: &[&str]) -> Routes {
        let route = |pattern: &&str| Route { name: (*pattern).to_owned(), ..open(pattern) };
        Routes::new(patterns.iter().map(route).collect())
    }

    fn found(routes: &Routes, path: &str) -> Option<String> {
        let path = NormalPath::parse(path).expect("a path");
        routes.find(&path).map(|route| route.name.clone())
    }

    #[test]
    fn the_longest_match_wins_whatever_the_letter_case() {
        let routes = routes(&["/http/orders/*", "/http/orders/admin/*", "/http/orders/exact", "/*"]);
        for (path, want) in [
            ("/http/orders", "/http/orders/*"),
            ("/HTTP/Orders/1", "/http/orders/*"),
            ("/http/orders/ADMIN/x", "/http/orders/admin/*"),
            ("/http/orders//admin", "/http/orders/admin/*"),
            ("/http/orders/exact", "/http/orders/exact"),
            ("/http/orders/exact/", "/http/orders/*"),
            ("/http/ordersx", "/*"),
            ("/", "/*"),
        ] {
            assert_eq!(found(&routes, path).as_deref(), Some(want), "{path}");
        }
    }

    #[test]
    fn what_no_route_publishes_is_not_found() {
        let routes = routes(&["/http/orders/*", "/http/one"]);
        for path in ["/", "/http", "/http/order", "/http/ordersx", "/http/one/", "/http/one/x"] {
            assert_eq!(found(&routes, path), None, "{path}");
        }
    }

    #[test]
    fn bad_patterns_are_refused_with_the_rule() {
        for (text, want) in [
            ("http", BadPattern::NoSlash),
            ("/a*", BadPattern::Star),
            ("/a/*/b", BadPattern::Star),
            ("/a%20", BadPattern::Character),
            ("/a//b", BadPattern::Segment),
            ("/a/../b", BadPattern::Segment),
            ("/oauth/*", BadPattern::Product("/oauth")),
            ("/OAuth/token", BadPattern::Product("/oauth")),
        ] {
            assert_eq!(Pattern::parse(text), Err(want), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_route_takes_itself_and_all_below(path in "(/[a-z0-9]{1,6}){1,4}", tail in "(/[a-z0-9]{1,6}){0,3}") {
            prop_assume!(Pattern::parse(&path).is_ok());
            let routes = routes(&[&format!("{path}/*")]);
            prop_assert!(found(&routes, &path).is_some());
            let (lower, sibling) = (format!("{path}{tail}"), format!("{path}x"));
            prop_assert!(found(&routes, &lower).is_some());
            prop_assert!(found(&routes, &sibling).is_none());
        }
    }
}
