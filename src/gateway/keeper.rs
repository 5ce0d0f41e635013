//! Keeping an outbound credential alive: one idempotent function, whether a caller or the clock
//! asks. What a provider answers is written down before it is used.

use super::Clock;
use super::exchanger::Exchanger;
use crate::crypto::random;
use crate::crypto::x509;
use crate::domain::artifact::{Artifact, Authentication, Secrets};
use crate::domain::authorization::{Authorization, Callback, Ended};
use crate::domain::credential::{CredentialState, Need, Refresh};
use crate::domain::exchange::{self, Ask, Granted, Trouble};
use crate::net::outbound::{Sending, Times};
use crate::store::{Lease, Store, StoreError};
use http::{HeaderValue, Method};
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use std::time::Duration;

/// Seconds that a process has for one exchange before another may take over.
const LEASE: i64 = 40;
/// While another process fetches, its result is looked for this often, and so many times.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS: usize = 300;

const CHANGED: &str = "the artifact was changed meanwhile";

/// The state that an exchange began with, the one that it ended with, and how.
type Attempted = Result<(CredentialState, CredentialState, Result<(), Trouble>), Trouble>;

/// A token as lanes use it.
#[derive(Debug, Clone)]
pub struct Held {
    /// `Bearer ..`, marked as sensitive.
    pub value: HeaderValue,
    /// Which of the artifact's tokens it is.
    pub serial: u64,
    /// Unix seconds.
    pub obtained: i64,
    pub expires: i64,
}

impl Held {
    /// Opens a token that the store keeps; None if there is none that can be used.
    pub fn open(store: &Store, artifact: &Artifact, state: &CredentialState) -> Option<Self> {
        if state.sealed.is_empty() || state.version != artifact.version {
            return None;
        }
        let token = store.vault().unseal(&CredentialState::place(&state.id), &state.sealed).ok()?;
        let mut value = HeaderValue::from_bytes(&[b"Bearer ", token.as_slice()].concat()).ok()?;
        value.set_sensitive(true);
        Some(Self { value, serial: state.serial, obtained: state.obtained, expires: state.expires })
    }

    /// Unix seconds: the end less the margin of whoever it is handed to.
    pub fn until(&self) -> i64 {
        handed_until(self.obtained, self.expires)
    }

    /// Whether it is time to have another at hand: its last tenth.
    pub fn due(&self, now: i64) -> bool {
        now >= self.expires - (self.expires - self.obtained) / 10
    }

    /// The bare token.
    pub fn token(&self) -> SecretString {
        let text = self.value.to_str().unwrap_or_default();
        SecretString::from(text.strip_prefix("Bearer ").unwrap_or_default())
    }
}

/// Seconds before its end at which a token is handed out no more, as far as it lives that long.
pub const MARGIN: i64 = 30;

/// Until when a token is handed out.
pub fn handed_until(obtained: i64, expires: i64) -> i64 {
    expires - MARGIN.min((expires - obtained) / 2)
}

/// Which token will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Any that can be used.
    Any,
    /// Another than that one: the target has refused it.
    Not(u64),
    /// A new one, whatever there is.
    Fresh,
}

/// Fetches tokens on behalf of one process.
pub struct Keeper {
    pub store: Store,
    pub clock: Arc<dyn Clock>,
    exchanger: Arc<Exchanger>,
    holder: String,
    /// Spreads the renewals of many processes and artifacts.
    jitter: u8,
}

impl Keeper {
    /// `holder` names the process towards others on the store. One that takes the place of another
    /// by the store's lock has its name, so that it need not wait for the dead one's lease.
    pub fn new(store: Store, exchanger: Arc<Exchanger>, holder: String) -> Self {
        let clock = exchanger.clock.clone();
        Self { store, clock, exchanger, holder, jitter: random::bytes::<1>()[0] % 100 }
    }

    /// Whether the clock asks for an exchange.
    pub fn due(&self, artifact: &Artifact, state: &CredentialState) -> bool {
        matches!(state.need(artifact, self.jitter, self.clock.now()), Need::Renew | Need::Fetch)
    }

    /// A token that will do, fetched if need be. One exchange at a time, across all processes on
    /// the store.
    pub async fn keep(&self, artifact: &Artifact, wish: Wish) -> Result<Held, Trouble> {
        for _ in 0..LOOKS {
            let state = self.state(artifact).await?;
            if let Some(outcome) = self.settled(artifact, &state, wish) {
                return outcome;
            }
            let now = self.clock.now();
            let lease = Lease { name: Artifact::place(&artifact.id), holder: self.holder.clone(), until: now + LEASE };
            if !self.store.acquire(&lease, now).await.map_err(|error| unstored(&error))? {
                let held = Held::open(&self.store, artifact, &state).filter(|held| held.expires > now);
                if let (Some(held), Wish::Any) = (held, wish) {
                    return Ok(held);
                }
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let outcome = self.fetch(artifact, wish).await;
            let _ = self.store.release(&lease.name, &lease.holder).await;
            return outcome;
        }
        Err(Trouble::passing("another process has been fetching this token for too long"))
    }

    async fn state(&self, artifact: &Artifact) -> Result<CredentialState, Trouble> {
        let found = self.store.get::<CredentialState>(&artifact.id).await.map_err(|error| unstored(&error))?;
        Ok(found.unwrap_or_else(|| CredentialState { id: artifact.id.clone(), ..CredentialState::default() }))
    }

    /// What can be said without an exchange.
    fn settled(&self, artifact: &Artifact, state: &CredentialState, wish: Wish) -> Option<Result<Held, Trouble>> {
        let now = self.clock.now();
        match (state.need(artifact, self.jitter, now), wish) {
            (Need::Authorise, _) => {
                let why = state.last_error.clone().unwrap_or_else(|| "nobody has authorised it yet".to_owned());
                Some(Err(Trouble::lasting(format!("{why}; flowgate credential authorize {}", artifact.name))))
            }
            (_, Wish::Fresh) => None,
            (_, Wish::Not(serial)) if serial == state.serial => match state.rejected(now) {
                Some(_) => None,
                None => Some(Err(Trouble::lasting("the target refused the token before this one a moment ago"))),
            },
            (Need::Nothing, _) => Held::open(&self.store, artifact, state).map(Ok),
            (Need::Wait, _) => {
                let text = state.last_error.clone().unwrap_or_else(|| "no token yet".to_owned());
                Some(Err(if state.lasting { Trouble::lasting(text) } else { Trouble::passing(text) }))
            }
            (Need::Renew | Need::Fetch, _) => None,
        }
    }

    /// With the lease in hand: another process may have been faster, or the artifact changed.
    async fn fetch(&self, artifact: &Artifact, wish: Wish) -> Result<Held, Trouble> {
        let present = self.store.get::<Artifact>(&artifact.id).await.map_err(|error| unstored(&error))?;
        if present.is_none_or(|present| present.version != artifact.version) {
            return Err(Trouble::passing(CHANGED));
        }
        let stored = self.state(artifact).await?;
        if let Some(outcome) = self.settled(artifact, &stored, wish) {
            return outcome;
        }
        // the token that there is stays until there is another
        let state = match wish {
            Wish::Not(serial) if serial == stored.serial => stored.rejected(self.clock.now()),
            _ => None,
        };
        let state = state.unwrap_or_else(|| stored.clone());
        let (begun, after, outcome) = self.attempt(artifact, &stored, &state).await?;
        if let Err(trouble) = &outcome {
            tracing::warn!(credential = %artifact.name, error = trouble.text, "no new token");
        }
        if !self.write(artifact, Some(&begun), &after).await? {
            return Err(Trouble::passing(CHANGED));
        }
        let held = Held::open(&self.store, artifact, &after).filter(|held| held.expires > self.clock.now());
        match (outcome, held, wish) {
            // where only the renewal failed, the token that there is goes on
            (Ok(()), Some(held), _) | (Err(_), Some(held), Wish::Any) => Ok(held),
            (Err(trouble), ..) => Err(trouble),
            (Ok(()), None, _) => Err(Trouble::lasting("the token had ended when it came")),
        }
    }

    /// One exchange: the state that was written when it began, and the state after it. With a
    /// refresh token the attempt is written down first, since a provider may let the token be used
    /// only once.
    async fn attempt(&self, artifact: &Artifact, stored: &CredentialState, state: &CredentialState) -> Attempted {
        let jitter = random::bytes::<1>()[0] % 100;
        let Some(refresh) = &state.refresh else {
            let outcome = self.exchange(artifact, Ask::ClientCredentials).await;
            let (after, outcome) = self.concluded(artifact, state, outcome, jitter);
            return Ok((stored.clone(), after, outcome));
        };
        let token = self.store.vault().unseal_text(&CredentialState::refresh_place(&artifact.id), &refresh.sealed);
        let token = token.map_err(|error| Trouble::lasting(error.to_string()))?;
        let attempting = state.attempting(self.clock.now());
        if !self.write(artifact, Some(stored), &attempting).await? {
            return Err(Trouble::passing(CHANGED));
        }
        let (after, outcome) = match self.exchange(artifact, Ask::Refresh { token: &token }).await {
            Err(trouble) if trouble.ended => {
                let ended = state.ended(&trouble, refresh.attempt, self.clock.now());
                let text = ended.last_error.clone().unwrap_or_default();
                (ended, Err(Trouble::lasting(text)))
            }
            Err(trouble) if !trouble.answered => self.concluded(artifact, &attempting, Err(trouble), jitter),
            outcome => self.concluded(artifact, &state.answered(), outcome, jitter),
        };
        Ok((attempting, after, outcome))
    }

    fn concluded(
        &self,
        artifact: &Artifact,
        state: &CredentialState,
        outcome: Result<Granted, Trouble>,
        jitter: u8,
    ) -> (CredentialState, Result<(), Trouble>) {
        let now = self.clock.now();
        match outcome {
            Ok(granted) => (self.holding(artifact, state, &granted, now), Ok(())),
            Err(trouble) => (state.failed(artifact.version, &trouble, jitter, now), Err(trouble)),
        }
    }

    /// A state with what was granted, sealed.
    fn holding(&self, artifact: &Artifact, state: &CredentialState, granted: &Granted, now: i64) -> CredentialState {
        let (vault, id) = (self.store.vault(), &artifact.id);
        let sealed = vault.seal(&CredentialState::place(id), granted.access_token.expose_secret().as_bytes());
        let days = artifact.authorization_code().and_then(|grant| grant.refresh_days);
        let refresh = granted.refresh_token.as_ref().map(|token| Refresh {
            sealed: vault.seal(&CredentialState::refresh_place(id), token.expose_secret().as_bytes()),
            obtained: now,
            expires: [days.map(|days| now + days * 86_400), granted.refresh_expires].into_iter().flatten().min(),
            attempt: None,
        });
        state.got(artifact.version, sealed, granted.expires, now).refreshed(refresh)
    }

    /// Durable when this returns, so that every process has the same. False if the artifact or its
    /// state (`before`) was changed meanwhile, by an edit or a new consent: then this one is of no
    /// use.
    async fn write(
        &self,
        artifact: &Artifact,
        before: Option<&CredentialState>,
        state: &CredentialState,
    ) -> Result<bool, Trouble> {
        let stored = async {
            let mut writing = self.store.write().await?;
            let present = writing.get::<Artifact>(&artifact.id).await?;
            let mut same = present.is_some_and(|present| present.version == artifact.version);
            if let Some(before) = before {
                let present = writing.get::<CredentialState>(&artifact.id).await?;
                same &= present.is_none_or(|present| present == *before);
            }
            if same {
                writing.put(state).await?;
            }
            writing.commit().await.map(|()| same)
        };
        stored.await.map_err(|error: StoreError| unstored(&error))
    }

    /// Finishes an authorization by what a browser brought. The state is used up first, so that a
    /// callback that comes twice makes one exchange.
    pub async fn redeem(&self, callback: &Callback) -> Ended {
        let Ok(Some((authorization, artifact))) = self.begun(callback).await else { return Ended::Unknown };
        // a consent that there is goes on until another takes its place
        let Ok(before) = self.state(&artifact).await else { return Ended::Busy };
        let Some(grant) = artifact.authorization_code() else { return Ended::Unknown };
        let (state, ended) = match callback.judged(grant) {
            Err(ended) => {
                let said = if ended == Ended::OtherIssuer {
                    "the callback came from another issuer than promised"
                } else {
                    "the provider or the user refused"
                };
                (before.unauthorised(artifact.version, &Trouble::lasting(said), self.clock.now()), ended)
            }
            Ok(code) => self.exchanged(&artifact, &authorization, code, &before).await,
        };
        // a new consent wins over whatever there is; a refusal leaves alone what has gone on meanwhile
        let over = if ended == Ended::Authorised { None } else { Some(&before) };
        match (self.write(&artifact, over, &state).await, ended) {
            (Err(_), _) => Ended::Busy,
            (Ok(false), Ended::Authorised) => Ended::Unknown,
            (Ok(_), ended) => ended,
        }
    }

    /// The authorization that belongs to a callback, taken away from the store.
    async fn begun(&self, callback: &Callback) -> Result<Option<(Authorization, Artifact)>, StoreError> {
        let mut writing = self.store.write().await?;
        let id = Authorization::id_of(&callback.state);
        let Some(authorization) = writing.get::<Authorization>(&id).await? else { return Ok(None) };
        writing.delete::<Authorization>(&id).await?;
        let artifact = writing.get::<Artifact>(&authorization.artifact_id).await?;
        writing.commit().await?;
        let current = authorization.expires > self.clock.now();
        Ok(artifact.filter(|_| current).map(|artifact| (authorization, artifact)))
    }

    async fn exchanged(
        &self,
        artifact: &Artifact,
        authorization: &Authorization,
        code: &SecretString,
        before: &CredentialState,
    ) -> (CredentialState, Ended) {
        let now = self.clock.now();
        let failed = |trouble: &Trouble| (before.unauthorised(artifact.version, trouble, now), Ended::NoToken);
        let place = Authorization::place(&authorization.id);
        let Ok(verifier) = self.store.vault().unseal_text(&place, &authorization.sealed) else {
            return failed(&Trouble::lasting("its verifier cannot be read"));
        };
        let ask = Ask::Code { code, redirect_uri: Some(&authorization.redirect_uri), verifier: Some(&verifier) };
        match self.exchange(artifact, ask).await {
            Ok(granted) if granted.refresh_token.is_some() => {
                (self.holding(artifact, before, &granted, self.clock.now()), Ended::Authorised)
            }
            Ok(_) => failed(&Trouble::lasting(format!("the provider gave no refresh token; {}", hint(artifact)))),
            Err(trouble) => failed(&trouble),
        }
    }

    async fn exchange(&self, artifact: &Artifact, ask: Ask<'_>) -> Result<Granted, Trouble> {
        let lasting = |text: String| Trouble::lasting(text);
        let now = self.clock.now();
        let sealed = self.store.vault().unseal(&Artifact::place(&artifact.id), &artifact.sealed);
        let plain = sealed.map_err(|error| lasting(error.to_string()))?;
        let secrets = Secrets::from_json(&plain).ok_or_else(|| lasting("its secrets cannot be read".into()))?;
        let request = exchange::request(artifact, &secrets, ask, &random::uuid(), now);
        let request = request.map_err(|error| lasting(error.to_string()))?;
        let identity = match artifact.authentication {
            Authentication::Certificate => Some(secrets.identity().map_err(|error| lasting(error.to_string()))?),
            _ => None,
        };
        let mut cas = Vec::new();
        for pem in &artifact.trusted_cas {
            cas.extend(x509::chain(pem).map_err(|error| lasting(error.to_string()))?);
        }
        let (target, request) = (&artifact.token_url, &request);
        let sending =
            Sending { method: Method::POST, target, request, identity, cas: &cas, times: Times::default(), via: None };
        self.exchanger.send(sending, &secrets).await
    }
}

/// What this kind of provider usually wants before it gives a refresh token.
fn hint(artifact: &Artifact) -> String {
    let url = artifact.authorization_code().map_or("", |grant| grant.authorization_url.as_str());
    let parameter = match url {
        url if url.contains("google") => "add prompt=consent&access_type=offline to the authorization URL",
        url if url.contains("dropbox") => "add token_access_type=offline to the authorization URL",
        url if url.contains("microsoft") => "use the provider microsoft-365, which asks for offline_access",
        _ => "many want the scope offline_access, or access_type=offline in the authorization URL",
    };
    parameter.to_owned()
}

fn unstored(error: &StoreError) -> Trouble {
    Trouble::passing(format!("the store does not answer: {error}"))
}
