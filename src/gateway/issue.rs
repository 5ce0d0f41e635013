//! The token server's use cases: issue, introspect (RFC 7662), revoke (RFC 7009).

use super::Gateway;
use super::admit::judge;
use super::certificate::{Proves, believed};
use super::control::Order;
use super::state::Settings;
use crate::crypto::digest::Digest;
use crate::crypto::jws;
use crate::domain::grant::{self, Parameters, Proof};
use crate::domain::instance::Instance;
use crate::domain::rate::Allowance;
use crate::domain::reason::Reason;
use crate::domain::token::{self, Claims, Revocation};
use crate::domain::trail::{Refusal, Step, Trail};
use crate::net::peer::Peer;
use http::HeaderMap;
use serde_json::{Value, json};
use std::sync::Arc;

/// The role whose holders may revoke tokens of other clients.
pub const REVOKE_ROLE: &str = "tokens.revoke";

/// What came with a request to the token server.
pub struct Sender<'a> {
    pub peer: &'a Peer,
    pub headers: &'a HeaderMap,
    /// The value of the one Authorization header, if there is one.
    pub authorization: Option<&'a str>,
    pub query: &'a str,
    pub body: &'a str,
}

/// A token, and what the answer says beside it.
#[derive(Debug)]
pub struct Issued {
    pub access_token: String,
    /// Seconds.
    pub expires_in: i64,
    pub scope: String,
    pub jti: String,
}

/// An introspection answer.
#[derive(Debug)]
pub enum Introspection {
    Active(Value),
    Inactive,
}

impl Gateway {
    /// Issues a token, or says why not. `client` names the sender as soon as it is known.
    pub async fn issue(
        &self,
        sender: &Sender<'_>,
        client: &mut Option<String>,
        allowance: &mut Option<Allowance>,
        trail: &mut Trail,
    ) -> Result<Issued, Refusal> {
        let now = self.clock.now();
        let settings = self.state.settings.load_full();

        // 1. what is asked
        let parameters = trail.of(Step::Request, Parameters::parse(sender.query, sender.body))?;

        // 2. by whom
        let proof = self.authenticate(sender, &parameters, &settings, now);
        let who = |proof: &Proof| proof.client.instance.client_id.clone();
        let proof = trail.of(Step::Authenticate, self.spend_token(proof, who, sender.peer, allowance))?;
        let instance = &proof.client.instance;
        *client = Some(instance.client_id.clone());
        let bound_to = trail.of(Step::Authenticate, self.binding(sender, instance, now))?;
        if let Some(renewed) = proof.renewal.clone() {
            let remembered = self.control.done(Order::Renew(renewed)).await?;
            let outcome = if remembered { Ok(()) } else { Err(Reason::CertificateSuperseded.into()) };
            trail.of(Step::Authenticate, outcome)?;
        }

        // 3. by which grant
        trail.of(Step::Grant, grant::check_grant(&parameters))?;

        // 4. for which scopes
        let scopes = trail.of(Step::Scope, grant::scopes(&parameters, &instance.roles, settings.tenant()))?;

        // 5. signed by the key of the hour
        let key = self.state.keyring.load().signer(now).cloned();
        let key =
            trail.of(Step::Sign, key.ok_or_else(|| Refusal::because(Reason::Internal, "there is no signing key")))?;
        let (jti, claims) =
            token::claims(&proof, &scopes, settings.tenant(), settings.issuer(), bound_to.as_ref(), now);
        let header = json!({
            "alg": key.algorithm.name(),
            "jku": format!("{}/token_keys", settings.origin.url),
            "kid": key.kid,
            "typ": "JWT",
        });
        let access_token = self.signer.sign(key, jws::signing_input(&header, &claims)).await?;
        Ok(Issued { access_token, expires_in: instance.token_validity, scope: scopes.text, jti })
    }

    /// Who sends a request to the token server: by secret, else by certificate.
    fn authenticate(
        &self,
        sender: &Sender<'_>,
        parameters: &Parameters,
        settings: &Settings,
        now: i64,
    ) -> Result<Proof, Refusal> {
        let shown = self.shown(sender.peer, sender.headers)?;
        let offered = grant::offered(sender.authorization, parameters, shown.as_deref().map(|one| &one.leaf))?;
        let proof = match (&offered, shown.as_deref()) {
            // the handshake may be long ago: dates pass, and CAs leave the list
            (grant::Credentials::Certificate(_), Some(shown)) => self.holder(sender.peer, shown, None, now)?,
            _ => self.state.clients.load().authenticate(&offered, &settings.pepper)?,
        };
        grant::same_client(parameters, &proof)?;
        Ok(proof)
    }

    /// The certificate that the instance's tokens are bound to, whoever authenticated by what.
    fn binding(&self, sender: &Sender<'_>, instance: &Instance, now: i64) -> Result<Option<Digest>, Refusal> {
        if !instance.bound_tokens {
            return Ok(None);
        }
        let shown = self.shown(sender.peer, sender.headers)?.ok_or(Reason::CertificateToBind)?;
        believed(&self.state, sender.peer, &shown, None, Proves::Key(Some(&instance.id)), now)?;
        Ok(Some(shown.leaf.fingerprint))
    }

    /// Tells an authenticated client whether a token is good at this moment.
    pub fn introspect(
        &self,
        sender: &Sender<'_>,
        client: &mut Option<String>,
        trail: &mut Trail,
    ) -> Result<Introspection, Refusal> {
        let (parameters, proof) = self.known_sender(sender, trail)?;
        *client = Some(proof.client.instance.client_id.clone());
        let token = trail.of(Step::Request, presented(&parameters))?;
        Ok(match self.live(token) {
            Ok(claims) => Introspection::Active(self.described(&claims)),
            Err(_) => Introspection::Inactive,
        })
    }

    /// Revokes a token. One that is no good anyway is a success too (RFC 7009, 2.2).
    pub async fn revoke(
        &self,
        sender: &Sender<'_>,
        client: &mut Option<String>,
        trail: &mut Trail,
    ) -> Result<(), Refusal> {
        let (parameters, proof) = self.known_sender(sender, trail)?;
        let instance = &proof.client.instance;
        *client = Some(instance.client_id.clone());
        let token = trail.of(Step::Request, presented(&parameters))?;
        let Ok(claims) = self.live(token) else { return Ok(()) };
        let allowed =
            claims.client_id == instance.client_id || instance.roles.iter().any(|role| role.as_str() == REVOKE_ROLE);
        trail.of(Step::Role, if allowed { Ok(()) } else { Err(Reason::RevokeForeign.into()) })?;
        // kept until the leeway of every verifier has passed too
        let expires = claims.expires + 600;
        self.control.done(Order::Revoke(Revocation { jti: claims.jti.clone(), expires })).await.map(|_| ())
    }

    fn known_sender(&self, sender: &Sender<'_>, trail: &mut Trail) -> Result<(Parameters, Proof), Refusal> {
        let settings = self.state.settings.load_full();
        let parameters = trail.of(Step::Request, Parameters::parse(sender.query, sender.body))?;
        let proof = self.authenticate(sender, &parameters, &settings, self.clock.now());
        Ok((parameters, trail.of(Step::Authenticate, proof)?))
    }

    /// The claims of a token that would be admitted now, roles aside.
    fn live(&self, token: &str) -> Result<Arc<Claims>, Refusal> {
        let verified = self.verify(token)?;
        verified.claims.current(self.clock.now(), verified.settings.expected.leeway)?;
        judge(&self.state, &verified)?;
        // what others have issued is theirs to tell of and to revoke
        if verified.claims.issuer.is_some() {
            return Err(Reason::TokenIssuer.into());
        }
        Ok(verified.claims)
    }

    fn described(&self, claims: &Claims) -> Value {
        let settings = self.state.settings.load();
        let tenant = settings.tenant();
        let scope: Vec<_> = claims.roles.iter().map(|role| tenant.scope(role)).collect();
        let mut described = json!({
            "active": true,
            "scope": scope.join(" "),
            "client_id": claims.client_id,
            "cid": claims.client_id,
            "sub": claims.client_id,
            "token_type": "bearer",
            "exp": claims.expires,
            "iat": claims.issued_at,
            "iss": settings.issuer(),
            "aud": [tenant.xsappname, claims.client_id],
            "zid": tenant.zid,
            "jti": claims.jti,
        });
        if let Some(thumbprint) = &claims.bound_to {
            described["cnf"] = token::confirmation(thumbprint);
        }
        described
    }
}

fn presented(parameters: &Parameters) -> Result<&str, Refusal> {
    parameters.token.as_deref().filter(|token| !token.is_empty()).ok_or_else(|| Reason::TokenParameterMissing.into())
}
