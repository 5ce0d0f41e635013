//! The decision about one request. A `Permit` is made here alone, owns what was decided and is
//! spent by forwarding; without one nothing reaches a backend.

use super::backend::Backend;
use super::csrf;
use super::instance::Instance;
use super::reason::Reason;
use super::route::{Arrival, Authorization, Route};
use super::tenant::Tenant;
use super::token::Claims;
use super::trail::{Refusal, Step, Trail, Verdict};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};
use std::sync::Arc;

/// How an authenticator answers: credentials of its kind were not offered, they prove a caller, or
/// they were offered and are no good.
#[derive(Debug)]
pub enum Answer<T> {
    Nothing,
    Proven(T),
    Refused(Refusal),
}

impl<T> Answer<T> {
    /// Of credentials that were offered.
    pub fn of(outcome: Result<T, Refusal>) -> Self {
        outcome.map_or_else(Self::Refused, Self::Proven)
    }

    /// The next authenticator is asked only if nothing was offered to this one.
    pub fn or_else(self, next: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Nothing => next(),
            settled => settled,
        }
    }
}

/// A caller and what the present state lets it do. Made once per token and state, used per call.
#[derive(Debug)]
pub struct Caller {
    pub client_id: String,
    pub key_id: String,
    /// What its token says; a caller may also come with a key's own credential.
    pub claims: Option<Arc<Claims>>,
    /// Roles of the token that the instance still has; without a token, the instance's.
    pub roles: Vec<String>,
    identity: Identity,
}

/// The identity headers of a caller, ready to set.
#[derive(Debug, Clone)]
pub struct Identity {
    pub client_id: HeaderValue,
    pub roles: HeaderValue,
    /// Who says so, if not we: client ids of one issuer mean nothing to another.
    pub issuer: Option<HeaderValue>,
}

impl Caller {
    pub fn of_token(claims: Arc<Claims>, instance: &Instance) -> Result<Self, Reason> {
        let held = |role: &String| instance.roles.iter().any(|name| name.as_str() == role);
        let roles = claims.roles.iter().filter(|role| held(role)).cloned().collect();
        Self::new(claims.client_id.clone(), claims.key_id.clone(), roles, Some(claims)).ok_or(Reason::TokenClaims)
    }

    /// A caller with a token of another issuer, whose roles are all that it says.
    pub fn of_issuer(claims: Arc<Claims>) -> Result<Self, Reason> {
        let roles = claims.roles.clone();
        Self::new(claims.client_id.clone(), String::new(), roles, Some(claims)).ok_or(Reason::TokenClaims)
    }

    /// Who issued its token, if not we.
    pub fn issuer(&self) -> Option<&Arc<str>> {
        self.claims.as_ref()?.issuer.as_ref()
    }

    /// A caller that proved to hold a service key and brought no token.
    pub fn of_key(instance: &Instance, key_id: &str) -> Result<Self, Reason> {
        let roles = instance.roles.iter().map(|role| role.as_str().to_owned()).collect();
        Self::new(instance.client_id.clone(), key_id.to_owned(), roles, None).ok_or(Reason::Internal)
    }

    /// What changes as time goes on; judged on every call.
    pub fn current(&self, now: i64, leeway: i64) -> Result<(), Reason> {
        self.claims.as_ref().map_or(Ok(()), |claims| claims.current(now, leeway))
    }

    fn new(client_id: String, key_id: String, roles: Vec<String>, claims: Option<Arc<Claims>>) -> Option<Self> {
        let header = |text: &str| HeaderValue::from_str(text).ok();
        let issuer = claims.as_ref().and_then(|claims| claims.issuer.as_deref());
        let issuer = issuer.map(|name| header(name).ok_or(())).transpose().ok()?;
        let identity = Identity { client_id: header(&client_id)?, roles: header(&roles.join(","))?, issuer };
        Some(Self { client_id, key_id, claims, roles, identity })
    }
}

/// The target of a forwarded request: normalised path and query as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target(PathAndQuery);

impl Target {
    pub fn new(path: &str, query: Option<&str>) -> Result<Self, Reason> {
        let text = match query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        PathAndQuery::try_from(text).map(Self).map_err(|_| Reason::TargetForm)
    }

    /// For a request whose path was normal as it came.
    pub fn unchanged(target: PathAndQuery) -> Self {
        Self(target)
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub fn path_and_query(&self) -> &PathAndQuery {
        &self.0
    }
}

/// Leave to forward one request. Only `decide` makes one; forwarding takes it by value.
#[derive(Debug)]
pub struct Permit {
    target: Target,
    route: Arc<Route>,
    identity: Option<Identity>,
    credential: Option<(HeaderName, HeaderValue)>,
}

impl Permit {
    pub fn target(&self) -> &Target {
        &self.target
    }

    pub fn backend(&self) -> &Arc<Backend> {
        &self.route.backend
    }

    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    pub fn keep_token(&self) -> bool {
        self.route.keep_token
    }

    /// Whether the token against forged calls was ours, and stays here.
    pub fn csrf(&self) -> bool {
        self.route.csrf
    }

    pub fn body(&self) -> &Arrival {
        &self.route.body
    }

    /// The header with which the backend is called on our own behalf.
    pub fn credential(&self) -> Option<&(HeaderName, HeaderValue)> {
        self.credential.as_ref()
    }

    /// The same with the route's credential. Forwarding takes the caller's Authorization away then.
    pub fn with(self, credential: Option<(HeaderName, HeaderValue)>) -> Self {
        Self { credential, ..self }
    }
}

/// What a call asks for, its route and caller apart.
#[derive(Debug)]
pub struct Asked<'a> {
    pub target: Target,
    /// Bytes of the body, where the caller says so.
    pub length: Option<u64>,
    pub csrf: csrf::Asked<'a>,
}

/// What becomes of a call that is not refused.
#[derive(Debug)]
pub enum Decision {
    Permit(Permit),
    /// An answer of our own: the token against forged calls that was asked for.
    Csrf(HeaderValue),
}

/// Role, protection against forged calls, size: the model's order. Route and caller come judged.
pub fn decide(
    route: &Arc<Route>,
    asked: Asked<'_>,
    caller: Option<&Caller>,
    tenant: &Tenant,
    trail: &mut Trail,
) -> Result<Decision, Refusal> {
    match &route.authorization {
        Authorization::None | Authorization::Certificates(_) => trail.note(Step::Role, Verdict::Skipped),
        Authorization::UserRole(role) => {
            trail.of(Step::Role, holds(caller, role.as_str(), tenant))?;
        }
    }
    if route.csrf {
        let client = caller.map_or("", |caller| caller.client_id.as_str());
        let judged = csrf::judge(&asked.csrf, &route.name, client).map_err(Refusal::from);
        if let Some(token) = trail.of(Step::Csrf, judged)? {
            return Ok(Decision::Csrf(token));
        }
    }
    let fits = asked.length.is_none_or(|length| length <= route.body.most);
    trail.of(Step::Size, if fits { Ok(()) } else { Err(Reason::BodyTooLarge.into()) })?;
    let (route, identity) = (route.clone(), caller.map(|caller| caller.identity.clone()));
    Ok(Decision::Permit(Permit { target: asked.target, route, identity, credential: None }))
}

fn holds(caller: Option<&Caller>, role: &str, tenant: &Tenant) -> Result<(), Refusal> {
    let caller = caller.ok_or(Reason::TokenMissing)?;
    if caller.roles.iter().any(|held| held == role) {
        return Ok(());
    }
    let in_token = caller.claims.as_ref().is_some_and(|claims| claims.roles.iter().any(|held| held == role));
    let reason = if in_token { Reason::RoleWithdrawn } else { Reason::RoleMissing };
    let detail = Some(format!("role {role}"));
    Err(Refusal { detail, scope: Some(tenant.scope(role)), ..reason.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::digest::Keyed;
    use crate::domain::instance::Plan;
    use crate::domain::name::{InstanceName, RoleName};
    use crate::domain::route::open;
    use http::{HeaderMap, Method};

    fn route(authorization: Authorization) -> Arc<Route> {
        Arc::new(Route { authorization, ..open("/r") })
    }

    fn caller(token: &[&str], instance: &[&str]) -> Caller {
        let claims = Claims {
            jti: "j".into(),
            client_id: "c".into(),
            instance_id: "i".into(),
            key_id: "k".into(),
            issuer: None,
            roles: token.iter().map(|role| (*role).to_owned()).collect(),
            bound_to: None,
            issued_at: 0,
            expires: 1,
        };
        let instance = Instance {
            id: "i".into(),
            name: InstanceName::parse("i").expect("a name"),
            plan: Plan::IntegrationFlow,
            client_id: "c".into(),
            aliases: Vec::new(),
            roles: instance.iter().map(|role| RoleName::parse(role).expect("a role")).collect(),
            token_validity: 3600,
            bound_tokens: false,
            trusted_cas: Vec::new(),
            created: 0,
        };
        Caller::of_token(Arc::new(claims), &instance).expect("a caller")
    }

    fn decided(
        method: &Method,
        route: &Arc<Route>,
        caller: Option<&Caller>,
        length: Option<u64>,
    ) -> Result<Decision, Refusal> {
        let (key, headers) = (Keyed::new(b"key"), HeaderMap::new());
        let csrf = csrf::Asked { method, headers: &headers, key: &key, certificate: None, now: 0 };
        let asked = Asked { target: Target::new("/r", None).expect("a target"), length, csrf };
        decide(route, asked, caller, &Tenant::new("demo", None, Some("it!b1")), &mut Trail::default())
    }

    fn judge(route: &Arc<Route>, caller: Option<&Caller>, length: Option<u64>) -> Result<Permit, Refusal> {
        match decided(&Method::GET, route, caller, length)? {
            Decision::Permit(permit) => Ok(permit),
            Decision::Csrf(_) => panic!("nobody has asked for it"),
        }
    }

    #[test]
    fn a_role_counts_only_if_token_and_instance_have_it() {
        let route = route(Authorization::UserRole(RoleName::parse("a").expect("a role")));
        let outcome =
            |token: &[&str], instance: &[&str]| judge(&route, Some(&caller(token, instance)), None).map(|_| ());
        assert_eq!(outcome(&["a"], &["a", "b"]), Ok(()));
        let refused = outcome(&["b"], &["a", "b"]).expect_err("missing");
        assert_eq!((refused.reason, refused.scope.as_deref()), (Reason::RoleMissing, Some("it!b1.a")));
        assert_eq!(outcome(&["a"], &["b"]).expect_err("withdrawn").reason, Reason::RoleWithdrawn);
        assert_eq!(judge(&route, None, None).expect_err("nobody").reason, Reason::TokenMissing);
    }

    #[test]
    fn the_role_is_judged_before_the_size() {
        let route = route(Authorization::UserRole(RoleName::parse("a").expect("a role")));
        let nobody = caller(&[], &[]);
        assert_eq!(judge(&route, Some(&nobody), Some(11)).expect_err("role").reason, Reason::RoleMissing);
        let holder = caller(&["a"], &["a"]);
        assert_eq!(judge(&route, Some(&holder), Some(11)).expect_err("size").reason, Reason::BodyTooLarge);
        assert!(judge(&route, Some(&holder), Some(10)).is_ok());
    }

    #[test]
    fn forged_calls_are_judged_after_the_role_and_before_the_size() {
        let role = Authorization::UserRole(RoleName::parse("a").expect("a role"));
        let protected = Arc::new(Route { csrf: true, ..Arc::unwrap_or_clone(route(role)) });
        let reason = |roles: &[&str]| {
            let outcome = decided(&Method::POST, &protected, Some(&caller(roles, roles)), Some(11));
            outcome.expect_err("refused").reason
        };
        assert_eq!((reason(&[]), reason(&["a"])), (Reason::RoleMissing, Reason::CsrfMissing));
    }

    #[test]
    fn an_open_route_needs_nobody() {
        let permit = judge(&route(Authorization::None), None, None).expect("open");
        assert!(permit.identity().is_none());
    }
}
