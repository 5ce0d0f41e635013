//! Tokens for lookups: fetched once however many ask, kept while they are good. Lanes look into what
//! is kept; who finds nothing there sends a job and waits. An exchange that has begun is finished,
//! whether or not somebody still waits.

use super::exchanger::Exchanger;
use super::keeper::{Keeper, Wish};
use super::places::Places;
use super::state::State;
use crate::crypto::digest::{Digest, sha256};
use crate::domain::destination::directory::Facts;
use crate::domain::destination::recipe::{Errand, Terms};
use crate::domain::exchange::{Granted, Trouble};
use crate::net::outbound::{Sending, Times, Via};
use http::header::{HeaderName, HeaderValue, PROXY_AUTHORIZATION};
use moka::sync::Cache;
use secrecy::{ExposeSecret, SecretString};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Callers that may wait.
const QUEUE: usize = 4_096;
/// Bytes of tokens that are kept.
const KEPT: u64 = 64 << 20;
/// Seconds before its end at which a token is handed out no more, as far as it lives that long.
pub const MARGIN: i64 = 30;
/// Seconds for which a failure stands, so that an outage is no storm.
const PAUSE: i64 = 1;
const LONGEST_PAUSE: i64 = 60;

const LOCATION: HeaderName = HeaderName::from_static("sap-connectivity-scc-location_id");

/// A token as lookups hand it out.
pub struct Obtained {
    pub token: SecretString,
    /// Unix seconds: the token's end less the margin.
    pub until: i64,
    pub scope: Option<String>,
    pub refresh_token: Option<SecretString>,
    /// Tells this token from others, for entity tags.
    pub digest: Digest,
}

impl Obtained {
    fn new(granted: Granted, now: i64) -> Self {
        let margin = MARGIN.min((granted.expires - now) / 2);
        Self {
            digest: sha256(granted.access_token.expose_secret().as_bytes()),
            token: granted.access_token,
            until: granted.expires - margin,
            scope: granted.scope,
            refresh_token: granted.refresh_token,
        }
    }
}

/// A token, or why there is none.
pub type Outcome = Result<Arc<Obtained>, Arc<str>>;

#[derive(Clone)]
struct Kept {
    outcome: Outcome,
    /// Unix seconds.
    until: i64,
}

/// A lane's request.
struct Job {
    key: Digest,
    facts: Arc<Facts>,
    terms: Terms,
    done: oneshot::Sender<Outcome>,
}

/// The lanes' end.
#[derive(Clone)]
pub struct Errands {
    kept: Cache<Digest, Kept>,
    jobs: mpsc::Sender<Job>,
}

impl Errands {
    /// A token for a destination: kept, or fetched.
    pub async fn token(&self, facts: &Arc<Facts>, terms: Terms, now: i64) -> Outcome {
        let key = terms.key(&facts.digest);
        if let Some(kept) = self.kept.get(&key).filter(|kept| now < kept.until) {
            return kept.outcome;
        }
        let (done, answer) = oneshot::channel();
        let job = Job { key, facts: facts.clone(), terms, done };
        let gone = || Err("the gateway is busy or stopping; ask again shortly".into());
        match self.jobs.try_send(job) {
            Ok(()) => answer.await.unwrap_or_else(|_| gone()),
            Err(_) => gone(),
        }
    }
}

/// What became of one exchange.
struct Done {
    outcome: Outcome,
    /// Until when it stands, Unix seconds, if others may have it too.
    until: Option<i64>,
}

/// The task that runs the exchanges.
pub struct Desk {
    kept: Cache<Digest, Kept>,
    jobs: mpsc::Receiver<Job>,
    waiting: HashMap<Digest, Vec<oneshot::Sender<Outcome>>>,
    work: JoinSet<Done>,
    keys: HashMap<Id, Digest>,
    runner: Arc<Runner>,
}

/// What an exchange needs.
struct Runner {
    exchanger: Arc<Exchanger>,
    keeper: Arc<Keeper>,
    state: Arc<State>,
    places: Places,
}

impl Desk {
    pub fn new(exchanger: Arc<Exchanger>, keeper: Arc<Keeper>, state: Arc<State>) -> (Errands, Self) {
        let weigh = |_: &Digest, kept: &Kept| {
            let bytes = kept.outcome.as_ref().map_or(0, |one| {
                let refresh = one.refresh_token.as_ref().map_or(0, |token| token.expose_secret().len());
                one.token.expose_secret().len() + refresh + one.scope.as_ref().map_or(0, String::len)
            });
            u32::try_from(bytes + 512).unwrap_or(u32::MAX)
        };
        let kept = Cache::builder().weigher(weigh).max_capacity(KEPT).build();
        let (sender, jobs) = mpsc::channel(QUEUE);
        let runner = Arc::new(Runner { exchanger, keeper, state, places: Places::default() });
        let (waiting, keys) = (HashMap::new(), HashMap::new());
        (Errands { kept: kept.clone(), jobs: sender }, Self { kept, jobs, waiting, work: JoinSet::new(), keys, runner })
    }

    /// Until `stop`; what is under way then is finished, since an answer must not be lost.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(job) = self.jobs.recv() => self.take(job),
                Some(done) = self.work.join_next_with_id() => self.finish(done),
            }
        }
        self.jobs.close();
        self.runner.places.close();
        while let Some(done) = self.work.join_next_with_id().await {
            self.finish(done);
        }
    }

    fn take(&mut self, job: Job) {
        let now = self.runner.exchanger.clock.now();
        // it may have come while the job was under way
        if let Some(kept) = self.kept.get(&job.key).filter(|kept| now < kept.until) {
            let _ = job.done.send(kept.outcome);
            return;
        }
        if let Some(others) = self.waiting.get_mut(&job.key) {
            others.push(job.done);
            return;
        }
        if self.waiting.len() >= QUEUE {
            // the closed channel tells the caller
            return;
        }
        let (runner, key) = (self.runner.clone(), job.key);
        let task = self.work.spawn(async move { runner.run(job.facts, job.terms).await });
        self.keys.insert(task.id(), key);
        self.waiting.insert(key, vec![job.done]);
    }

    fn finish(&mut self, done: Result<(Id, Done), JoinError>) {
        let (id, done) = match done {
            Ok((id, done)) => (id, Some(done)),
            Err(error) => (error.id(), None),
        };
        let Some(key) = self.keys.remove(&id) else { return };
        let waiting = self.waiting.remove(&key).unwrap_or_default();
        // without an answer the channels close, and the callers say so
        let Some(done) = done else { return };
        if let Some(until) = done.until {
            self.kept.insert(key, Kept { outcome: done.outcome.clone(), until });
        }
        for caller in waiting {
            let _ = caller.send(done.outcome.clone());
        }
    }
}

impl Runner {
    async fn run(&self, facts: Arc<Facts>, terms: Terms) -> Done {
        let kept = terms.kept();
        let outcome = self.exchange(facts, terms).await;
        let now = self.exchanger.clock.now();
        match outcome {
            Ok(granted) => {
                let obtained = Obtained::new(granted, now);
                let until = kept.then_some(obtained.until);
                Done { outcome: Ok(Arc::new(obtained)), until }
            }
            Err(trouble) => {
                let pause = trouble.retry_after.unwrap_or(PAUSE).min(LONGEST_PAUSE);
                Done { outcome: Err(trouble.text.into()), until: kept.then_some(now + pause) }
            }
        }
    }

    async fn exchange(&self, facts: Arc<Facts>, terms: Terms) -> Result<Granted, Trouble> {
        let lasting = |text: String| Trouble::lasting(text);
        let now = self.exchanger.clock.now();
        let service = facts.meaning.as_ref().ok().and_then(|destination| destination.service());
        let target = service.map(|service| service.target(&terms.subdomain));
        let target = target.and_then(Result::ok).map(|target| target.authority()).unwrap_or_default();
        let place = self.places.take(&target).await;
        let _place = place.ok_or_else(|| Trouble::passing("the gateway is stopping"))?;
        // opening a PKCS#12 file takes a while on purpose
        let made = tokio::task::spawn_blocking(move || {
            let destination = facts.meaning.as_ref().map_err(ToString::to_string)?;
            terms.errand(destination, now).map_err(|error| error.to_string())
        });
        let errand = made.await.map_err(|error| lasting(error.to_string()))?.map_err(lasting)?;
        let via = match &errand.on_premise {
            Some(location) => Some(self.via(location.as_deref()).await?),
            None => None,
        };
        let Errand { target, request, identity, cas, secrets, connect, answer, .. } = errand;
        let connect = Duration::from_secs(connect);
        let times = Times { connect, whole: connect + Duration::from_secs(answer) };
        let sending = Sending { target: &target, request: &request, identity, cas: &cas, times, via: via.as_ref() };
        self.exchanger.send(sending, &secrets).await
    }

    /// The connectivity proxy with the token that it wants and the place of the target.
    async fn via(&self, location: Option<&str>) -> Result<Via, Trouble> {
        let none = "ProxyType is OnPremise, and the configuration has no outbound.connectivity_proxy";
        let policy = self.exchanger.policy.load_full();
        let proxy = policy.connectivity_proxy.as_ref().ok_or_else(|| Trouble::lasting(none))?;
        let mut headers = Vec::new();
        if let Some(name) = &proxy.credential {
            let deployed = self.state.credentials.load().get(name).cloned();
            let missing = || Trouble::lasting(format!("there is no credential {name} for the connectivity proxy"));
            let held = self.keeper.keep(&deployed.ok_or_else(missing)?.artifact, Wish::Any).await?;
            headers.push((PROXY_AUTHORIZATION, held.value));
        }
        if let Some(location) = location {
            let value = HeaderValue::from_str(location);
            headers.push((LOCATION, value.map_err(|_| Trouble::lasting("CloudConnectorLocationId cannot be sent"))?));
        }
        Ok(Via { proxy: proxy.url.clone(), headers })
    }
}
