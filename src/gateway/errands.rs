//! Tokens for lookups: fetched once however many ask, kept while they are good. Lanes look into what
//! is kept; who finds nothing there sends a job and waits. An exchange that has begun is finished,
//! whether or not somebody still waits.

use super::exchanger::Exchanger;
use super::keeper::handed_until;
use super::outbound::Wants;
use super::places::Places;
use super::state::State;
use crate::crypto::digest::{Digest, sha256};
use crate::domain::destination::directory::Facts;
use crate::domain::destination::meaning::Destination;
use crate::domain::destination::recipe::{Errand, Terms};
use crate::domain::exchange::{Granted, Trouble};
use crate::net::outbound::{Sending, Times, Via};
use http::Method;
use http::header::{HeaderName, HeaderValue, PROXY_AUTHORIZATION};
use moka::sync::Cache;
use secrecy::{ExposeSecret, SecretString};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Callers that may wait.
const QUEUE: usize = 4_096;
/// Bytes of tokens that are kept.
const KEPT: u64 = 64 << 20;
/// Jobs at once for one token service, those included that wait for a place.
const OF_ONE: usize = 256;
/// How long a job waits for a place with its token service, and for its keystores to be opened.
const PATIENCE: Duration = Duration::from_secs(30);
const OPENING: Duration = Duration::from_secs(10);
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
        Self {
            until: handed_until(now, granted.expires),
            digest: sha256(granted.access_token.expose_secret().as_bytes()),
            token: granted.access_token,
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

/// Who waits for an answer.
#[derive(Default)]
struct Callers(Mutex<Vec<oneshot::Sender<Outcome>>>);

impl Callers {
    /// False if there are too many already.
    fn join(&self, caller: oneshot::Sender<Outcome>) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| !one.is_closed());
        let room = all.len() < QUEUE;
        if room {
            all.push(caller);
        }
        room
    }

    /// Whether all have gone away.
    fn gone(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().all(oneshot::Sender::is_closed)
    }

    fn tell(&self, outcome: &Outcome) {
        for caller in std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            let _ = caller.send(outcome.clone());
        }
    }
}

/// The task that runs the exchanges.
pub struct Desk {
    kept: Cache<Digest, Kept>,
    jobs: mpsc::Receiver<Job>,
    waiting: HashMap<Digest, Arc<Callers>>,
    /// Jobs by their token service.
    services: HashMap<String, usize>,
    work: JoinSet<Done>,
    running: HashMap<Id, (Digest, String)>,
    runner: Arc<Runner>,
}

/// What an exchange needs.
struct Runner {
    exchanger: Arc<Exchanger>,
    wants: Wants,
    state: Arc<State>,
    places: Places,
    /// PKCS#12 files are opened one after the other: what that costs is up to whoever made them.
    opening: Semaphore,
}

impl Desk {
    pub fn new(exchanger: Arc<Exchanger>, wants: Wants, state: Arc<State>) -> (Errands, Self) {
        let weigh = |_: &Digest, kept: &Kept| {
            let bytes = kept.outcome.as_ref().map_or(0, |one| {
                let refresh = one.refresh_token.as_ref().map_or(0, |token| token.expose_secret().len());
                one.token.expose_secret().len() + refresh + one.scope.as_ref().map_or(0, String::len)
            });
            u32::try_from(bytes + 512).unwrap_or(u32::MAX)
        };
        let kept = Cache::builder().weigher(weigh).max_capacity(KEPT).build();
        let (sender, jobs) = mpsc::channel(QUEUE);
        let (places, opening) = (Places::default(), Semaphore::new(1));
        let runner = Arc::new(Runner { exchanger, wants, state, places, opening });
        let (waiting, services, running) = (HashMap::new(), HashMap::new(), HashMap::new());
        let desk = Self { kept: kept.clone(), jobs, waiting, services, work: JoinSet::new(), running, runner };
        (Errands { kept, jobs: sender }, desk)
    }

    /// Until `stop`, which comes when no lane asks any more: then nobody waits for what is under way.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(job) = self.jobs.recv() => self.take(job),
                Some(done) = self.work.join_next_with_id() => self.finish(done),
            }
        }
    }

    fn take(&mut self, job: Job) {
        let now = self.runner.exchanger.clock.now();
        // it may have come while the job was under way
        if let Some(kept) = self.kept.get(&job.key).filter(|kept| now < kept.until) {
            let _ = job.done.send(kept.outcome);
            return;
        }
        // whom there is no room for hears so by the closed channel
        if let Some(others) = self.waiting.get(&job.key) {
            others.join(job.done);
            return;
        }
        let service = job.service();
        let queued = self.services.entry(service.clone()).or_default();
        if *queued >= OF_ONE || self.waiting.len() >= QUEUE {
            return;
        }
        *queued += 1;
        let (runner, key, callers) = (self.runner.clone(), job.key, Arc::<Callers>::default());
        callers.join(job.done);
        self.waiting.insert(key, callers.clone());
        let (facts, terms, name) = (job.facts, job.terms, service.clone());
        let task = self.work.spawn(async move { runner.run(facts, terms, &name, &callers).await });
        self.running.insert(task.id(), (key, service));
    }

    fn finish(&mut self, done: Result<(Id, Done), JoinError>) {
        let (id, done) = match done {
            Ok((id, done)) => (id, Some(done)),
            Err(error) => (error.id(), None),
        };
        let Some((key, service)) = self.running.remove(&id) else { return };
        if let Entry::Occupied(mut queued) = self.services.entry(service) {
            *queued.get_mut() -= 1;
            if *queued.get() == 0 {
                queued.remove();
            }
        }
        let callers = self.waiting.remove(&key);
        // without an answer the channels close, and the callers say so
        let (Some(done), Some(callers)) = (done, callers) else { return };
        if let Some(until) = done.until {
            self.kept.insert(key, Kept { outcome: done.outcome.clone(), until });
        }
        callers.tell(&done.outcome);
    }
}

impl Job {
    /// Whom it asks, as the bounds count it.
    fn service(&self) -> String {
        let service = self.facts.meaning.as_ref().ok().and_then(|destination| destination.service());
        let target = service.and_then(|service| service.target(&self.terms.subdomain).ok());
        target.map(|target| target.authority()).unwrap_or_default()
    }
}

impl Runner {
    async fn run(&self, facts: Arc<Facts>, terms: Terms, service: &str, callers: &Callers) -> Done {
        let kept = terms.kept();
        let outcome = self.exchange(facts, terms, service, callers).await;
        let now = self.exchanger.clock.now();
        match outcome {
            Ok(granted) => {
                let obtained = Obtained::new(granted, now);
                let until = kept.then_some(obtained.until);
                Done { outcome: Ok(Arc::new(obtained)), until }
            }
            Err(trouble) => {
                tracing::warn!(service, error = trouble.text, "no token for a lookup");
                let pause = trouble.retry_after.unwrap_or(PAUSE).min(LONGEST_PAUSE);
                Done { outcome: Err(trouble.text.into()), until: kept.then_some(now + pause) }
            }
        }
    }

    async fn exchange(
        &self,
        facts: Arc<Facts>,
        terms: Terms,
        service: &str,
        callers: &Callers,
    ) -> Result<Granted, Trouble> {
        let place = tokio::time::timeout(PATIENCE, self.places.take(service)).await;
        let busy = || Trouble::passing("the token service is busy with other lookups; ask again shortly");
        let _place = place.ok().flatten().ok_or_else(busy)?;
        if callers.gone() {
            return Err(Trouble::passing("nobody waits for it any more"));
        }
        let errand = self.errand(facts, terms).await?;
        let via = match &errand.on_premise {
            Some(location) => Some(self.via(&errand, location.as_deref()).await?),
            None => None,
        };
        let Errand { target, request, identity, cas, secrets, connect, answer, .. } = errand;
        let connect = Duration::from_secs(connect);
        let times = Times { connect, whole: connect + Duration::from_secs(answer) };
        let (method, target, request) = (Method::POST, &target, &request);
        let sending = Sending { method, target, request, identity, cas: &cas, times, via: via.as_ref() };
        self.exchanger.send(sending, &secrets).await
    }

    /// The request, put together beside the runtime: opening a PKCS#12 file takes a while on purpose.
    async fn errand(&self, facts: Arc<Facts>, terms: Terms) -> Result<Errand, Trouble> {
        let lasting = |text: String| Trouble::lasting(text);
        let now = self.exchanger.clock.now();
        let late = || Trouble::passing("the keystore could not be opened in time");
        let opening = async {
            let packed = facts.meaning.as_ref().is_ok_and(Destination::packed);
            let _turn = if packed { self.opening.acquire().await.ok() } else { None };
            let made = tokio::task::spawn_blocking(move || {
                let destination = facts.meaning.as_ref().map_err(ToString::to_string)?;
                terms.errand(destination, now).map_err(|error| error.to_string())
            });
            made.await.map_err(|error| error.to_string()).and_then(|made| made)
        };
        let made = tokio::time::timeout(OPENING, opening).await;
        made.map_err(|_| late())?.map_err(lasting)
    }

    /// The connectivity proxy with the token that it wants and the place of the target.
    async fn via(&self, errand: &Errand, location: Option<&str>) -> Result<Via, Trouble> {
        let none = "ProxyType is OnPremise, and the configuration has no outbound.connectivity_proxy";
        let policy = self.exchanger.policy.load_full();
        let proxy = policy.connectivity_proxy.as_ref().ok_or_else(|| Trouble::lasting(none))?;
        errand.target.judge_by_name(&policy.allow).map_err(|refused| Trouble::lasting(refused.to_string()))?;
        let mut headers = Vec::new();
        if let Some(name) = &proxy.credential {
            let held = self.wants.token(&self.state, &*self.exchanger.clock, name).await;
            headers.push((PROXY_AUTHORIZATION, held.map_err(Trouble::passing)?.value));
        }
        if let Some(location) = location {
            let value = HeaderValue::from_str(location);
            headers.push((LOCATION, value.map_err(|_| Trouble::lasting("CloudConnectorLocationId cannot be sent"))?));
        }
        Ok(Via { proxy: proxy.url.clone(), headers })
    }
}
