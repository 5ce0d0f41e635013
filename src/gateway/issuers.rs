//! The keys of token servers besides our own: fetched once however many ask, again when a token names
//! a key that is not there, and kept while their provider is down.

use super::exchanger::Exchanger;
use super::state::State;
use crate::crypto::jwks::KeySet;
use crate::domain::issuer::{Issuer, KeySource};
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Callers that may wait.
const QUEUE: usize = 4_096;
/// Seconds between fetches: without a reason, for a key that is not there, after a failure.
const EVERY: i64 = 300;
const LEAST: i64 = 5;
/// Seconds after which keys that could not be fetched again are told of.
const STALE: i64 = 900;
/// Calls that may wait for one issuer's keys, and how long: until they may be fetched, and are.
const PENDING: usize = 1_024;
const PATIENCE: Duration = Duration::from_secs(8);
const TICK: Duration = Duration::from_secs(1);

/// An issuer with the keys that it has published last.
#[derive(Debug)]
pub struct Foreign {
    pub issuer: Issuer,
    pub keys: ArcSwap<KeySet>,
    /// Unix seconds; 0 for never.
    fetched: AtomicI64,
    tried: AtomicI64,
}

/// By name.
pub type Issuers = HashMap<Arc<str>, Arc<Foreign>>;

impl Foreign {
    /// What an operator should know.
    pub fn warning(&self, now: i64) -> Option<String> {
        let fetched = self.fetched.load(Ordering::Relaxed);
        let (KeySource::Url(url), true) = (&self.issuer.keys, now - fetched > STALE) else { return None };
        let since =
            if fetched == 0 { "have never been had".to_owned() } else { format!("are {} s old", now - fetched) };
        Some(format!("the keys of issuer {} {since}: {} does not give them", self.issuer.name, url.as_str()))
    }
}

/// The issuers of a configuration; those that stay keep their keys.
pub fn configured(list: &[Issuer], before: &Issuers) -> Issuers {
    let foreign = |issuer: &Issuer| {
        let known = before.get(&issuer.name).filter(|known| match (&known.issuer.keys, &issuer.keys) {
            (KeySource::Url(one), KeySource::Url(other)) => one == other,
            _ => false,
        });
        let keys = match (&issuer.keys, known) {
            (KeySource::Given(keys), _) => keys.clone(),
            (KeySource::Url(_), Some(known)) => known.keys.load_full(),
            (KeySource::Url(_), None) => Arc::default(),
        };
        let time = |of: fn(&Foreign) -> &AtomicI64| known.map_or(0, |known| of(known).load(Ordering::Relaxed));
        let (fetched, tried) = (time(|one| &one.fetched).into(), time(|one| &one.tried).into());
        (issuer.name.clone(), Arc::new(Foreign { issuer: issuer.clone(), keys: ArcSwap::new(keys), fetched, tried }))
    };
    list.iter().map(foreign).collect()
}

/// A call's wish for a key that is not there.
struct Missing {
    issuer: Arc<str>,
    kid: String,
    done: oneshot::Sender<bool>,
}

/// The lanes' end.
#[derive(Debug, Clone)]
pub struct Keys(mpsc::Sender<Missing>);

impl Keys {
    /// Waits until the issuer's keys are those of this moment; true if the key is among them.
    pub async fn fetched(&self, issuer: &Arc<str>, kid: &str) -> bool {
        let (done, answer) = oneshot::channel();
        let missing = Missing { issuer: issuer.clone(), kid: kid.to_owned(), done };
        self.0.try_send(missing).is_ok()
            && tokio::time::timeout(PATIENCE, answer).await.is_ok_and(|there| there.unwrap_or(false))
    }
}

/// The task that fetches key sets.
pub struct Librarian {
    exchanger: Arc<Exchanger>,
    state: Arc<State>,
    wishes: mpsc::Receiver<Missing>,
    /// By the issuer whose keys are under way.
    waiting: HashMap<Arc<str>, Vec<Missing>>,
    /// Who waits until keys may be asked for again.
    pending: HashMap<Arc<str>, Vec<Missing>>,
    work: JoinSet<(Arc<Foreign>, Result<KeySet, String>)>,
}

impl Librarian {
    pub fn new(exchanger: Arc<Exchanger>, state: Arc<State>) -> (Keys, Self) {
        let (sender, wishes) = mpsc::channel(QUEUE);
        (
            Keys(sender),
            Self { exchanger, state, wishes, waiting: HashMap::new(), pending: HashMap::new(), work: JoinSet::new() },
        )
    }

    pub async fn run(mut self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(missing) = self.wishes.recv() => self.take(missing),
                Some(Ok((foreign, outcome))) = self.work.join_next() => self.finish(&foreign, outcome),
                _ = tick.tick() => self.look(),
            }
        }
    }

    fn take(&mut self, missing: Missing) {
        let Some(foreign) = self.state.issuers.load().get(&missing.issuer).cloned() else { return };
        if foreign.keys.load().has(&missing.kid) {
            let _ = missing.done.send(true);
            return;
        }
        // anybody can make up a key id: that is no reason to ask a provider more often, so the call
        // waits until it is time. The closed channel tells that there is no room
        let pending = self.pending.entry(missing.issuer.clone()).or_default();
        if pending.len() < PENDING {
            pending.push(missing);
        }
        self.look();
    }

    fn fetch(&mut self, foreign: Arc<Foreign>, waiting: Vec<Missing>) {
        let KeySource::Url(url) = foreign.issuer.keys.clone() else { return };
        foreign.tried.store(self.exchanger.clock.now(), Ordering::Relaxed);
        self.waiting.insert(foreign.issuer.name.clone(), waiting);
        let exchanger = self.exchanger.clone();
        self.work.spawn(async move {
            let outcome = exchanger.key_set(&url).await;
            (foreign, outcome)
        });
    }

    fn finish(&mut self, foreign: &Arc<Foreign>, outcome: Result<KeySet, String>) {
        let name = &foreign.issuer.name;
        match outcome {
            Ok(keys) => {
                foreign.fetched.store(self.exchanger.clock.now(), Ordering::Relaxed);
                if foreign.keys.load().digest != keys.digest {
                    foreign.keys.store(Arc::new(keys));
                    // tokens of a key that has gone, or is another now, end here
                    self.state.advance();
                }
            }
            Err(error) => tracing::warn!(issuer = &**name, error, "its keys could not be fetched; those before stay"),
        }
        let keys = foreign.keys.load_full();
        for missing in self.waiting.remove(name).unwrap_or_default() {
            let _ = missing.done.send(keys.has(&missing.kid));
        }
        // who came meanwhile may mean keys that were published since: those wait for the next
        let (there, pending): (Vec<_>, Vec<_>) =
            self.pending.remove(name).into_iter().flatten().partition(|missing| keys.has(&missing.kid));
        for missing in there {
            let _ = missing.done.send(true);
        }
        if !pending.is_empty() {
            self.pending.insert(name.clone(), pending);
        }
    }

    /// Fetches what has not been for a while, or is waited for.
    fn look(&mut self) {
        let now = self.exchanger.clock.now();
        for foreign in self.state.issuers.load_full().values() {
            let (tried, fetched) = (foreign.tried.load(Ordering::Relaxed), foreign.fetched.load(Ordering::Relaxed));
            let age = now - tried;
            let due = if fetched < tried { 2 * LEAST } else { EVERY };
            let name = &foreign.issuer.name;
            let wanted = self.pending.contains_key(name) && age >= LEAST;
            if (wanted || age >= due) && !self.waiting.contains_key(name) {
                let pending = self.pending.remove(name).unwrap_or_default();
                self.fetch(foreign.clone(), pending);
            }
        }
    }
}
