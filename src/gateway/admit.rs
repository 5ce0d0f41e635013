//! Admitting a call: route, authenticate, role, forged calls, size. What passes carries a `Permit`.

use super::cache::{Judged, LaneTokens, Verified};
use super::certificate::{Proves, believed};
use super::control::Order;
use super::issuers::Foreign;
use super::keeper::Held;
use super::state::Settings;
use super::{Gateway, state::State};
use crate::crypto::digest::{same, sha256};
use crate::crypto::jws::{Compact, Malformed};
use crate::crypto::x509::Names;
use crate::domain::authorization::{Callback, Ended};
use crate::domain::csrf;
use crate::domain::decision::{Answer, Asked, Caller, Decision, Target, decide};
use crate::domain::grant::{Proof, basic};
use crate::domain::issuer::{Accepted, access_token};
use crate::domain::path::NormalPath;
use crate::domain::reason::Reason;
use crate::domain::route::{Authorization, Outbound, Route};
use crate::domain::token::MAX_TOKEN;
use crate::domain::trail::{Refusal, Step, Trail, Verdict};
use crate::net::peer::{Peer, PeerCertificate};
use http::header::{self, HeaderMap};
use http::uri::PathAndQuery;
use http::{Method, Uri, Version};
use serde_json::Value;
use std::sync::Arc;

/// One call as it came, still to be judged.
pub struct Call<'a> {
    pub peer: &'a Peer,
    pub method: &'a Method,
    pub uri: &'a Uri,
    pub version: Version,
    pub headers: &'a HeaderMap,
    /// Bytes of the body, where the caller says so.
    pub length: Option<u64>,
}

/// How an admitted or refused call came out, for the log.
#[derive(Debug, Default)]
pub struct Seen {
    pub route: Option<Arc<Route>>,
    pub caller: Option<Arc<Caller>>,
    /// The number of the route's outbound token.
    pub credential: Option<u64>,
    /// What the caller showed through a proxy of ours.
    pub forwarded: Option<Arc<PeerCertificate>>,
}

impl Gateway {
    /// Judges a call. `seen` and `trail` tell how far it came, whatever the outcome.
    pub fn admit(
        &self,
        tokens: &LaneTokens,
        call: &Call<'_>,
        seen: &mut Seen,
        trail: &mut Trail,
    ) -> Result<Decision, Refusal> {
        let now = self.clock.now();
        let epoch = self.state.epoch();

        // 1. the route: one normalisation, judged and forwarded alike
        let (route, target) = trail.of(Step::Route, self.find_route(call))?;
        seen.route = Some(route.clone());

        // 2. who calls
        if call.peer.certificate_header.is_some() {
            seen.forwarded = self.shown(call.peer, call.headers).ok().flatten();
        }
        let caller = match &route.authorization {
            Authorization::None => {
                trail.note(Step::Authenticate, Verdict::Skipped);
                None
            }
            Authorization::Certificates(names) => {
                trail.of(Step::Authenticate, self.listed(call, &route, names, now))?;
                None
            }
            Authorization::UserRole(_) => {
                Some(trail.of(Step::Authenticate, self.proven(tokens, call, &route, epoch, now))?)
            }
        };
        seen.caller.clone_from(&caller);

        // 3. to 5. role, protection against forged calls, size
        let settings = self.state.settings.load();
        let shown = if route.csrf { self.shown(call.peer, call.headers)? } else { None };
        let certificate = shown.as_ref().filter(|_| caller.is_none()).map(|shown| &shown.leaf.fingerprint);
        let (method, headers, key) = (call.method, call.headers, &settings.pepper);
        let csrf = csrf::Asked { method, headers, key, certificate, now };
        let asked = Asked { target, length: call.length, csrf };
        let decision = decide(&route, asked, caller.as_deref(), settings.tenant(), trail)?;
        let Decision::Permit(permit) = decision else { return Ok(decision) };

        // 6. and with which credential of ours it goes on
        let Some(outbound) = &route.credential else { return Ok(Decision::Permit(permit)) };
        let held = trail.of(Step::Credential, self.held(outbound, now))?;
        seen.credential = Some(held.serial);
        Ok(Decision::Permit(permit.with(Some((outbound.header.clone(), held.value)))))
    }

    /// The token of a route's credential, as the lanes have it. Where there is none it is asked for
    /// behind the call's back.
    fn held(&self, outbound: &Outbound, now: i64) -> Result<Held, Refusal> {
        let credentials = self.state.credentials.load();
        let token = credentials.get(&outbound.name).and_then(|deployed| deployed.token.clone());
        token.filter(|token| token.expires > now).ok_or_else(|| {
            self.wants.nudge(&outbound.name, None);
            Refusal::because(Reason::CredentialUnavailable, format!("credential {}", outbound.name))
        })
    }

    /// After the target has refused a route's token: true if there is another now.
    pub async fn another_token(&self, route: &Route, rejected: u64) -> bool {
        match &route.credential {
            Some(outbound) => self.wants.fresh(&outbound.name, rejected).await,
            None => false,
        }
    }

    /// After a token was refused because its key is not known: true if its issuer, one that the route
    /// lists besides us, has published the key meanwhile.
    pub async fn key_published(&self, route: &Route, headers: &HeaderMap) -> bool {
        let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let compact = token.and_then(|text| token_of(text).ok()).and_then(|token| Compact::parse(token).ok());
        let Some(compact) = compact else { return false };
        let issuer = compact.claims.get("iss").and_then(Value::as_str).unwrap_or_default();
        match route.issuers.others.iter().find(|name| ***name == *issuer) {
            Some(name) => self.keys.fetched(name, &compact.kid).await,
            None => false,
        }
    }

    /// Finishes an authorization by what a browser brought back from a provider.
    pub async fn redeem(&self, callback: Callback) -> Ended {
        self.wants.redeem(callback).await
    }

    /// The same, for the next call.
    pub fn want_another_token(&self, route: &Route, rejected: u64) {
        if let Some(outbound) = &route.credential {
            self.wants.nudge(&outbound.name, Some(rejected));
        }
    }

    fn find_route(&self, call: &Call<'_>) -> Result<(Arc<Route>, Target), Refusal> {
        if matches!(*call.method, Method::CONNECT | Method::TRACE) {
            return Err(Reason::MethodUnsupported.into());
        }
        let target = call.uri.path_and_query().map_or(0, |target| target.as_str().len());
        if target > self.state.limits.load().target {
            return Err(Reason::TargetTooLong.into());
        }
        check_host(call)?;
        let path = NormalPath::parse(call.uri.path())?;
        let routes = self.state.routes.load();
        let route = routes.find(&path).ok_or_else(|| Refusal::from(Reason::NoRoute))?;
        let came = call.uri.path_and_query().filter(|target| target.path() == path.forward);
        let target = match came {
            Some(target) => Target::unchanged(PathAndQuery::clone(target)),
            None => Target::new(&path.forward, call.uri.query())?,
        };
        Ok((route.clone(), target))
    }

    /// Whoever the credentials of a kind that the route takes prove. One that is offered and no
    /// good is not made up for by another.
    fn proven(
        &self,
        tokens: &LaneTokens,
        call: &Call<'_>,
        route: &Route,
        epoch: u64,
        now: i64,
    ) -> Result<Arc<Caller>, Refusal> {
        if call.uri.query().is_some_and(holds_token) {
            return Err(Reason::TokenInQuery.into());
        }
        let accepts = route.accepts;
        let answer = if accepts.basic { self.basic(call) } else { Answer::Nothing };
        let answer = answer.or_else(|| self.bearer(tokens, call, &route.issuers, epoch, now));
        let answer =
            answer.or_else(|| if accepts.certificate { self.certificate(call, route, now) } else { Answer::Nothing });
        match answer {
            Answer::Proven(caller) => Ok(caller),
            Answer::Refused(refusal) => Err(refusal),
            Answer::Nothing => Err(Reason::TokenMissing.into()),
        }
    }

    /// The bearer authenticator (RFC 6750).
    pub(super) fn bearer(
        &self,
        tokens: &LaneTokens,
        call: &Call<'_>,
        accepted: &Accepted,
        epoch: u64,
        now: i64,
    ) -> Answer<Arc<Caller>> {
        let mut fields = call.headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = fields.next() else { return Answer::Nothing };
        if fields.next().is_some() {
            return Answer::Refused(Reason::AuthorizationRepeated.into());
        }
        // any text will do here: what is no token is found out when it is verified
        let text = std::str::from_utf8(value.as_bytes()).map_err(|_| Reason::TokenMalformed.into());
        let token = text.and_then(token_of);
        let caller = token.and_then(|token| self.caller(tokens, token, epoch, now));
        let caller =
            caller.and_then(
                |caller| {
                    if accepted.takes(caller.issuer()) { Ok(caller) } else { Err(Reason::TokenIssuer.into()) }
                },
            );
        Answer::of(caller.and_then(|caller| self.bound(call, &caller, now).map(|()| caller)))
    }

    /// A token that is bound to a certificate is of use only beside it (RFC 8705, 3).
    fn bound(&self, call: &Call<'_>, caller: &Caller, now: i64) -> Result<(), Refusal> {
        let Some(thumbprint) = caller.claims.as_ref().and_then(|claims| claims.bound_to) else { return Ok(()) };
        let shown = self.shown(call.peer, call.headers)?.ok_or(Reason::TokenCertificateMissing)?;
        if !same(&shown.leaf.fingerprint, &thumbprint) {
            return Err(Reason::TokenCertificateOther.into());
        }
        let instance = caller.claims.as_ref().map(|claims| claims.instance_id.as_str());
        believed(&self.state, call.peer, &shown, None, Proves::Key(instance), now)
    }

    /// The certificate authenticator: a client certificate that belongs to a service key.
    fn certificate(&self, call: &Call<'_>, route: &Route, now: i64) -> Answer<Arc<Caller>> {
        let shown = match self.shown(call.peer, call.headers) {
            Ok(Some(shown)) => shown,
            Ok(None) => return Answer::Nothing,
            Err(refusal) => return Answer::Refused(refusal),
        };
        let proof = self.holder(call.peer, &shown, Some(route), now);
        Answer::of(proof.and_then(|proof| self.caller_of(proof)))
    }

    /// The Basic authenticator (RFC 7617): clientid and clientsecret of a service key.
    fn basic(&self, call: &Call<'_>) -> Answer<Arc<Caller>> {
        let mut fields = call.headers.get_all(header::AUTHORIZATION).iter();
        let (first, second) = (fields.next(), fields.next());
        let text = first.and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
        let Some(text) = text.filter(|text| scheme(text).eq_ignore_ascii_case("basic")) else {
            return Answer::Nothing;
        };
        if second.is_some() {
            return Answer::Refused(Reason::AuthorizationRepeated.into());
        }
        let settings = self.state.settings.load();
        let proof = basic(text).and_then(|offered| self.state.clients.load().authenticate(&offered, &settings.pepper));
        let proof = proof.and_then(|proof| {
            // a secret alone is what binding is meant to make useless
            if proof.client.instance.bound_tokens { Err(Reason::SchemeUnsupported.into()) } else { Ok(proof) }
        });
        Answer::of(proof.and_then(|proof| self.caller_of(proof)))
    }

    /// The caller that a service key's own credential proves. A renewal is remembered behind the
    /// call's back: a lane never waits for the store.
    fn caller_of(&self, proof: Proof) -> Result<Arc<Caller>, Refusal> {
        if let Some(renewed) = proof.renewal
            && !self.control.ask(Order::Renew(renewed))
        {
            return Err(Reason::StoreUnavailable.into());
        }
        Ok(Arc::new(Caller::of_key(&proof.client.instance, &proof.key.id)?))
    }

    /// Whether the caller shows one of the certificates that a route lists by their names.
    fn listed(&self, call: &Call<'_>, route: &Route, names: &[Names], now: i64) -> Result<(), Refusal> {
        let shown = self.shown(call.peer, call.headers)?.ok_or(Reason::CertificateMissing)?;
        believed(&self.state, call.peer, &shown, Some(route), Proves::Names, now)?;
        let leaf = &shown.leaf;
        if names.contains(&leaf.names) {
            return Ok(());
        }
        Err(Refusal::because(Reason::CertificateNotListed, format!("certificate {} of {}", leaf.subject, leaf.issuer)))
    }

    /// The caller behind a token: remembered, judged again, or verified.
    pub(super) fn caller(
        &self,
        tokens: &LaneTokens,
        token: &str,
        epoch: u64,
        now: i64,
    ) -> Result<Arc<Caller>, Refusal> {
        let leeway = self.state.settings.load().expected.leeway;
        if let Some(caller) = tokens.fresh(token, epoch) {
            caller.current(now, leeway)?;
            return Ok(caller);
        }
        if let Some(known) = tokens.get(token) {
            known.verified.claims.current(now, leeway)?;
            let current = known.verified.current(&self.state, &self.state.settings.load());
            if current && let Ok(caller) = judge(&self.state, &known.verified) {
                tokens.put(token, Judged { caller: caller.clone(), epoch, ..known });
                return Ok(caller);
            }
            tokens.forget(token);
        }
        let verified = self.verify(token)?;
        verified.claims.current(now, leeway)?;
        let caller = judge(&self.state, &verified)?;
        tokens.put(token, Judged { verified, caller: caller.clone(), epoch });
        Ok(caller)
    }

    /// Signature and claims, or what another lane found out about the same token.
    pub(super) fn verify(&self, token: &str) -> Result<Verified, Refusal> {
        if token.len() > MAX_TOKEN {
            return Err(Reason::TokenTooLong.into());
        }
        let settings = self.state.settings.load_full();
        let digest = sha256(token.as_bytes());
        if let Some(known) = self.tokens.get(&digest).filter(|known| known.current(&self.state, &settings)) {
            return Ok(known);
        }
        let verified = verify_token(&self.state, settings, token)?;
        self.tokens.put(digest, verified.clone());
        Ok(verified)
    }
}

fn verify_token(state: &State, settings: Arc<Settings>, token: &str) -> Result<Verified, Refusal> {
    let compact = Compact::parse(token).map_err(|error| {
        let reason = match error {
            Malformed::Unsupported(_) => Reason::TokenHeaderUnsupported,
            Malformed::Member("typ") => Reason::TokenType,
            _ => Reason::TokenMalformed,
        };
        Refusal::because(reason, error.to_string())
    })?;
    let issuer = compact.claims.get("iss").and_then(Value::as_str).unwrap_or_default();
    if let Some(foreign) = state.issuers.load().get(issuer) {
        return verify_foreign(foreign, settings, &compact);
    }
    if compact.typ != "JWT" {
        return Err(Reason::TokenType.into());
    }
    let keyring = state.keyring.load();
    let key = keyring.find(&compact.kid).ok_or(Reason::TokenKeyUnknown)?;
    if compact.algorithm != key.algorithm.name() {
        return Err(Reason::TokenAlgorithm.into());
    }
    if !key.verifies(&compact) {
        return Err(Reason::TokenSignature.into());
    }
    let claims = settings.expected.identity(&compact.claims)?;
    Ok(Verified { claims: Arc::new(claims), kid: key.kid.as_str().into(), settings, foreign: None })
}

/// A token of another issuer, held against that issuer's keys alone (RFC 9068, 4).
fn verify_foreign(foreign: &Arc<Foreign>, settings: Arc<Settings>, compact: &Compact<'_>) -> Result<Verified, Refusal> {
    if !access_token(&compact.typ) {
        return Err(Reason::TokenType.into());
    }
    let name = &foreign.issuer.name;
    let keys = foreign.keys.load_full();
    match keys.verifies(compact) {
        None => {
            return Err(Refusal::because(
                Reason::TokenKeyUnknown,
                format!("issuer {name}, kid {}", compact.kid.escape_default()),
            ));
        }
        Some(false) => return Err(Reason::TokenSignature.into()),
        Some(true) => {}
    }
    let claims = foreign.issuer.identity(&compact.claims)?;
    Ok(Verified {
        claims: Arc::new(claims),
        kid: compact.kid.as_str().into(),
        settings,
        foreign: Some((foreign.clone(), keys)),
    })
}

/// What the present state makes of a verified token: its signing key, its client and the key it
/// was got with must still be there, and it must not be revoked.
pub(super) fn judge(state: &State, verified: &Verified) -> Result<Arc<Caller>, Refusal> {
    let claims = &verified.claims;
    if verified.foreign.is_some() {
        return Ok(Arc::new(Caller::of_issuer(claims.clone())?));
    }
    if state.keyring.load().find(&verified.kid).is_none() {
        return Err(Reason::TokenKeyUnknown.into());
    }
    if state.revoked.load().contains_key(&claims.jti) {
        return Err(Reason::TokenRevoked.into());
    }
    let clients = state.clients.load();
    let client =
        clients.find_instance(&claims.instance_id).filter(|client| client.instance.client_id == claims.client_id);
    let client = client.ok_or(Reason::ClientGone)?;
    client.key(&claims.key_id).ok_or(Reason::KeyGone)?;
    if client.instance.bound_tokens && claims.bound_to.is_none() {
        return Err(Reason::TokenCertificateMissing.into());
    }
    Ok(Arc::new(Caller::of_token(claims.clone(), &client.instance)?))
}

fn scheme(value: &str) -> &str {
    value.split(' ').next().unwrap_or_default()
}

fn token_of(value: &str) -> Result<&str, Refusal> {
    let (_, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme(value).eq_ignore_ascii_case("bearer") {
        return Err(Reason::SchemeUnsupported.into());
    }
    let token = token.trim_matches(' ');
    if token.is_empty() { Err(Reason::TokenMalformed.into()) } else { Ok(token) }
}

/// Whether the query carries a token: logs along the way would keep it (RFC 6750, 5.3).
fn holds_token(query: &str) -> bool {
    query.split('&').any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        name == "access_token" || percent_encoding::percent_decode_str(name).eq(b"access_token".iter().copied())
    })
}

/// One Host that agrees with an absolute target (RFC 9112, 3.2). HTTP/2 brings the host in the
/// target.
fn check_host(call: &Call<'_>) -> Result<(), Refusal> {
    let bad = |detail: &str| Err(Refusal::because(Reason::HostInvalid, detail));
    let mut hosts = call.headers.get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return bad("Host is there twice");
    }
    match (first, call.uri.authority()) {
        // HTTP/1.0 knew none (RFC 9112, 3.2)
        (None, None) if call.version == Version::HTTP_10 => Ok(()),
        (None, None) => bad("Host is missing"),
        (Some(host), Some(authority)) if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => {
            bad("Host and the target disagree")
        }
        (Some(host), None) if !plausible(host.as_bytes()) => bad("Host is not a host"),
        _ => Ok(()),
    }
}

fn plausible(host: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:[]%~!$&'()*+,;=".contains(byte);
    !host.is_empty() && host.len() <= 255 && host.iter().all(allowed)
}

impl Seen {
    pub fn client_id(&self) -> Option<&str> {
        self.caller.as_ref().map(|caller| caller.client_id.as_str())
    }
}
