//! Keeping outbound credentials alive: one idempotent function, whether a caller or the clock asks,
//! and the task that calls it. Lanes read the tokens as a snapshot and never wait for a store.

use super::Clock;
use super::state::State;
use crate::crypto::random;
use crate::crypto::x509;
use crate::domain::artifact::{Artifact, Authentication, Secrets};
use crate::domain::credential::{CredentialState, Need};
use crate::domain::exchange::{self, Granted, Trouble};
use crate::domain::name::ArtifactName;
use crate::net::client::ClientAuth;
use crate::net::outbound::{Policy, post};
use crate::store::{Lease, Store, StoreError};
use arc_swap::ArcSwap;
use http::HeaderValue;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Seconds that a process has for one exchange before another may take over.
const LEASE: i64 = 40;
/// While another process fetches, its result is looked for this often, and so many times.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS: usize = 300;
/// Exchanges at once.
const AT_ONCE: usize = 16;
/// Callers that may wait.
const QUEUE: usize = 4_096;
const TICK: Duration = Duration::from_millis(500);

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

/// A deployed artifact with the token that it has.
#[derive(Debug, Clone)]
pub struct Deployed {
    pub artifact: Arc<Artifact>,
    pub token: Option<Held>,
}

pub type Credentials = imbl::HashMap<ArtifactName, Deployed>;

impl Held {
    /// Opens a token that the store keeps; None if there is none that can be used.
    pub fn open(store: &Store, artifact: &Artifact, state: &CredentialState) -> Option<Self> {
        if state.sealed.is_empty() || state.obtained < artifact.updated {
            return None;
        }
        let token = store.vault().unseal(&CredentialState::place(&state.id), &state.sealed).ok()?;
        let mut value = HeaderValue::from_bytes(&[b"Bearer ", token.as_slice()].concat()).ok()?;
        value.set_sensitive(true);
        Some(Self { value, serial: state.serial, obtained: state.obtained, expires: state.expires })
    }

    /// The bare token.
    pub fn token(&self) -> SecretString {
        let text = self.value.to_str().unwrap_or_default();
        SecretString::from(text.strip_prefix("Bearer ").unwrap_or_default())
    }
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
    pub policy: ArcSwap<Policy>,
    pub clock: Arc<dyn Clock>,
    holder: String,
}

impl Keeper {
    pub fn new(store: Store, policy: Policy, clock: Arc<dyn Clock>) -> Self {
        Self { store, policy: ArcSwap::from_pointee(policy), clock, holder: random::uuid() }
    }

    /// A token that will do, fetched if need be. One exchange at a time, across all processes on
    /// the store.
    pub async fn keep(&self, artifact: &Artifact, wish: Wish) -> Result<Held, Trouble> {
        for _ in 0..LOOKS {
            let state = self.state(artifact, wish).await?;
            if let Some(outcome) = self.settled(artifact, &state) {
                return outcome;
            }
            let now = self.clock.now();
            let lease = Lease { name: Artifact::place(&artifact.id), holder: self.holder.clone(), until: now + LEASE };
            if !self.store.acquire(&lease, now).await.map_err(|error| unstored(&error))? {
                if let Some(held) = Held::open(&self.store, artifact, &state).filter(|held| held.expires > now) {
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

    async fn state(&self, artifact: &Artifact, wish: Wish) -> Result<CredentialState, Trouble> {
        let found = self.store.get::<CredentialState>(&artifact.id).await.map_err(|error| unstored(&error))?;
        let state = found.unwrap_or_else(|| CredentialState { id: artifact.id.clone(), ..CredentialState::default() });
        let now = self.clock.now();
        match wish {
            Wish::Not(serial) if serial == state.serial => {
                let again = "the target refuses every token; it refused the one before a moment ago";
                state.rejected(now).ok_or_else(|| Trouble::lasting(again))
            }
            Wish::Fresh => Ok(CredentialState { sealed: String::new(), next_try: 0, ..state }),
            _ => Ok(state),
        }
    }

    /// What can be said without an exchange.
    fn settled(&self, artifact: &Artifact, state: &CredentialState) -> Option<Result<Held, Trouble>> {
        match state.need(artifact.updated, 0, self.clock.now()) {
            Need::Nothing => Held::open(&self.store, artifact, state).map(Ok),
            Need::Wait => {
                let text = state.last_error.clone().unwrap_or_else(|| "no token yet".to_owned());
                Some(Err(Trouble { text, retry_after: None, passing: !state.lasting }))
            }
            Need::Renew | Need::Fetch => None,
        }
    }

    /// With the lease in hand: another process may have been faster.
    async fn fetch(&self, artifact: &Artifact, wish: Wish) -> Result<Held, Trouble> {
        let state = self.state(artifact, wish).await?;
        if let Some(outcome) = self.settled(artifact, &state) {
            return outcome;
        }
        let jitter = random::bytes::<1>()[0] % 100;
        let (after, outcome) = match self.exchange(artifact).await {
            Ok(granted) => {
                let token = granted.access_token.expose_secret().as_bytes();
                let sealed = self.store.vault().seal(&CredentialState::place(&artifact.id), token);
                (state.got(sealed, granted.expires, self.clock.now()), Ok(()))
            }
            Err(trouble) => (state.failed(&trouble, jitter, self.clock.now()), Err(trouble)),
        };
        // durable before it is used, so that every process has the same
        let stored = async {
            let mut writing = self.store.write().await?;
            // a token of an artifact that was changed meanwhile is of no use
            let present = writing.get::<Artifact>(&artifact.id).await?;
            if present.is_some_and(|present| present.updated == artifact.updated) {
                writing.put(&after).await?;
            }
            writing.commit().await
        };
        stored.await.map_err(|error: StoreError| unstored(&error))?;
        match (outcome, Held::open(&self.store, artifact, &after)) {
            (Ok(()), Some(held)) => Ok(held),
            // the renewal failed, the token that there is goes on
            (Err(_), Some(held)) if held.expires > self.clock.now() => Ok(held),
            (Err(trouble), _) => Err(trouble),
            (Ok(()), None) => Err(Trouble::lasting("the artifact was changed meanwhile")),
        }
    }

    async fn exchange(&self, artifact: &Artifact) -> Result<Granted, Trouble> {
        let lasting = |text: String| Trouble::lasting(text);
        let now = self.clock.now();
        let sealed = self.store.vault().unseal(&Artifact::place(&artifact.id), &artifact.sealed);
        let plain = sealed.map_err(|error| lasting(error.to_string()))?;
        let secrets = Secrets::from_json(&plain).ok_or_else(|| lasting("its secrets cannot be read".into()))?;
        let request = exchange::client_credentials(artifact, &secrets, &random::uuid(), now);
        let request = request.map_err(|error| lasting(error.to_string()))?;
        let auth = client_auth(artifact, &secrets)?;
        let mut cas = Vec::new();
        for pem in &artifact.trusted_cas {
            cas.extend(x509::chain(pem).map_err(|error| lasting(error.to_string()))?);
        }
        let policy = self.policy.load_full();
        let answered = post(&artifact.token_url, &request, auth, &cas, &policy).await;
        let answered = answered.map_err(|error| Trouble::passing(error.to_string()))?;
        let answer = exchange::Answer {
            status: answered.status,
            retry_after: answered.header("retry-after"),
            location: answered.header("location"),
            body: &answered.body,
        };
        exchange::read(&answer, &secrets, self.clock.now())
    }
}

fn client_auth(artifact: &Artifact, secrets: &Secrets) -> Result<Option<ClientAuth>, Trouble> {
    if artifact.authentication != Authentication::Certificate {
        return Ok(None);
    }
    let chain = x509::chain(secrets.certificate.as_deref().unwrap_or_default());
    let key = secrets.private_key.as_ref().map_or("", |key| key.expose_secret());
    match (chain, PrivateKeyDer::from_pem_slice(key.as_bytes())) {
        (Ok(chain), Ok(key)) => Ok(Some(ClientAuth { chain, key })),
        _ => Err(Trouble::lasting("its certificate or private key cannot be read")),
    }
}

fn unstored(error: &StoreError) -> Trouble {
    Trouble::passing(format!("the store does not answer: {error}"))
}

/// A lane's request for a token; with `done`, the lane waits for it.
#[derive(Debug)]
pub struct Want {
    pub name: ArtifactName,
    pub rejected: Option<u64>,
    pub done: Option<oneshot::Sender<bool>>,
}

/// The lanes' end.
#[derive(Debug, Clone)]
pub struct Wants(mpsc::Sender<Want>);

impl Wants {
    pub fn new() -> (Self, mpsc::Receiver<Want>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// Asks for a token without waiting.
    pub fn nudge(&self, name: &ArtifactName, rejected: Option<u64>) {
        let _ = self.0.try_send(Want { name: name.clone(), rejected, done: None });
    }

    /// Waits until there is another token than the rejected one; false if there will be none.
    pub async fn fresh(&self, name: &ArtifactName, rejected: u64) -> bool {
        let (done, answer) = oneshot::channel();
        let want = Want { name: name.clone(), rejected: Some(rejected), done: Some(done) };
        self.0.try_send(want).is_ok() && answer.await.unwrap_or(false)
    }
}

/// The task that keeps the artifacts that routes use alive and serves the lanes' wants.
pub struct Upkeep {
    keeper: Arc<Keeper>,
    state: Arc<State>,
    wants: mpsc::Receiver<Want>,
    room: Arc<Semaphore>,
    running: HashMap<ArtifactName, Vec<oneshot::Sender<bool>>>,
    work: JoinSet<(ArtifactName, Result<u64, Trouble>)>,
    jitter: u8,
}

impl Upkeep {
    pub fn new(keeper: Arc<Keeper>, state: Arc<State>, wants: mpsc::Receiver<Want>) -> Self {
        Self {
            keeper,
            state,
            wants,
            room: Arc::new(Semaphore::new(AT_ONCE)),
            running: HashMap::new(),
            work: JoinSet::new(),
            jitter: random::bytes::<1>()[0] % 100,
        }
    }

    /// Until `stop`; what is under way then is finished, since an answer must not be lost.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(want) = self.wants.recv() => self.take(want),
                Some(done) = self.work.join_next() => self.finish(done.ok()).await,
                _ = tick.tick() => self.look(),
            }
        }
        while self.work.join_next().await.is_some() {}
    }

    fn take(&mut self, want: Want) {
        let Some(deployed) = self.state.credentials.load().get(&want.name).cloned() else {
            return answer(want.done, false);
        };
        // the token may have been replaced while the lane's message was under way
        let replaced =
            deployed.token.as_ref().is_some_and(|token| want.rejected.is_some_and(|old| old != token.serial));
        if replaced {
            return answer(want.done, true);
        }
        if let Some(waiting) = self.running.get_mut(&want.name) {
            waiting.extend(want.done);
            return;
        }
        self.start(deployed.artifact, want.rejected, want.done);
    }

    fn start(&mut self, artifact: Arc<Artifact>, rejected: Option<u64>, done: Option<oneshot::Sender<bool>>) {
        self.running.insert(artifact.name.clone(), done.into_iter().collect());
        let (keeper, room) = (self.keeper.clone(), self.room.clone());
        self.work.spawn(async move {
            let _place = room.acquire().await;
            let outcome = keeper.keep(&artifact, rejected.map_or(Wish::Any, Wish::Not)).await;
            (artifact.name.clone(), outcome.map(|held| held.serial))
        });
    }

    async fn finish(&mut self, done: Option<(ArtifactName, Result<u64, Trouble>)>) {
        // a task that panicked has lost its name; its waiters are told by the closed channel
        let Some((name, outcome)) = done else { return };
        let waiting = self.running.remove(&name).unwrap_or_default();
        match &outcome {
            Ok(serial) if !waiting.is_empty() => self.published(&name, *serial).await,
            Ok(_) => {}
            Err(trouble) => {
                tracing::warn!(credential = %name, error = trouble.text, "no token");
            }
        }
        for done in waiting {
            let _ = done.send(outcome.is_ok());
        }
    }

    /// Waits until the lanes can see a token, which comes to them by way of the store.
    async fn published(&self, name: &ArtifactName, serial: u64) {
        for _ in 0..200 {
            let seen = self.state.credentials.load().get(name).and_then(|one| Some(one.token.as_ref()?.serial));
            if seen.is_some_and(|seen| seen >= serial) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts what the clock asks for: artifacts that a route uses.
    fn look(&mut self) {
        let now = self.keeper.clock.now();
        let routes = self.state.routes.load();
        let used: HashSet<_> = routes.all().iter().filter_map(|route| Some(&route.credential.as_ref()?.name)).collect();
        let credentials = self.state.credentials.load_full();
        for name in used {
            let Some(deployed) = credentials.get(name) else { continue };
            if self.running.contains_key(name) || !self.due(deployed, now) {
                continue;
            }
            self.start(deployed.artifact.clone(), None, None);
        }
    }

    /// The store's own state decides in the end; this only saves asking it.
    fn due(&self, deployed: &Deployed, now: i64) -> bool {
        let Some(token) = &deployed.token else { return true };
        let state = CredentialState {
            sealed: "held".into(),
            obtained: token.obtained,
            expires: token.expires,
            ..CredentialState::default()
        };
        state.need(deployed.artifact.updated, self.jitter, now) != Need::Nothing
    }
}

fn answer(done: Option<oneshot::Sender<bool>>, there: bool) {
    if let Some(done) = done {
        let _ = done.send(there);
    }
}
