//! The task that keeps outbound credentials alive and serves what lanes want of them. Lanes read
//! the tokens as a snapshot and never wait for a store.

use super::Clock;
use super::keeper::{Held, Keeper, Wish};
use super::places::Places;
use super::state::State;
use crate::domain::artifact::Artifact;
use crate::domain::authorization::{Callback, Ended};
use crate::domain::credential::{CredentialState, Need, Refresh};
use crate::domain::exchange::Trouble;
use crate::domain::name::ArtifactName;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Callers that may wait.
const QUEUE: usize = 4_096;
/// How long a call waits for another token before it hands on what the target said.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same for who has nothing to hand on: as long as an exchange may take.
const FETCHING: Duration = Duration::from_secs(25);
/// No service has this name.
const CALLBACKS: &str = "";
const TICK: Duration = Duration::from_millis(500);

/// A deployed artifact with how it fares and the token that it has.
#[derive(Debug, Clone)]
pub struct Deployed {
    pub artifact: Arc<Artifact>,
    pub fortune: Arc<CredentialState>,
    pub token: Option<Held>,
}

impl Deployed {
    /// In the model's words.
    pub fn status(&self, now: i64) -> &'static str {
        self.fortune.status(&self.artifact, now)
    }

    /// What an operator should know before a caller notices.
    pub fn warning(&self, now: i64) -> Option<String> {
        self.fortune.warning(&self.artifact, now)
    }
}

pub type Credentials = imbl::HashMap<ArtifactName, Deployed>;

/// A lane's request for a token; with `done`, the lane waits for it.
#[derive(Debug)]
pub struct Want {
    pub name: ArtifactName,
    pub rejected: Option<u64>,
    pub done: Option<oneshot::Sender<bool>>,
}

/// What comes from the lanes.
#[derive(Debug)]
pub enum Message {
    Want(Want),
    /// A browser has come back from a provider.
    Callback {
        callback: Callback,
        done: oneshot::Sender<Ended>,
    },
}

/// The lanes' end.
#[derive(Debug, Clone)]
pub struct Wants(mpsc::Sender<Message>);

impl Wants {
    pub fn new() -> (Self, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// Asks for a token without waiting.
    pub fn nudge(&self, name: &ArtifactName, rejected: Option<u64>) {
        let _ = self.0.try_send(Message::Want(Want { name: name.clone(), rejected, done: None }));
    }

    /// The token of a deployed credential, fetched if need be; asked for by whoever hands it on.
    pub async fn token(&self, state: &State, clock: &dyn Clock, name: &ArtifactName) -> Result<Held, String> {
        let held = || {
            let now = clock.now();
            let token = state.credentials.load().get(name).and_then(|one| one.token.clone());
            token.filter(|token| token.until() > now)
        };
        if let Some(token) = held() {
            if token.due(clock.now()) {
                self.nudge(name, None);
            }
            return Ok(token);
        }
        self.wait(name, None, FETCHING).await;
        held().ok_or_else(|| {
            let credentials = state.credentials.load();
            let known = credentials.get(name).map(|one| one.warning(clock.now()));
            match known {
                None => format!("there is no credential {name}"),
                Some(Some(warning)) => warning,
                Some(None) => format!("credential {name} has no token yet; ask again shortly"),
            }
        })
    }

    /// Waits until there is another token than the rejected one; false if there will be none.
    pub async fn fresh(&self, name: &ArtifactName, rejected: u64) -> bool {
        self.wait(name, Some(rejected), PATIENCE).await
    }

    async fn wait(&self, name: &ArtifactName, rejected: Option<u64>, patience: Duration) -> bool {
        let (done, answer) = oneshot::channel();
        let want = Want { name: name.clone(), rejected, done: Some(done) };
        self.0.try_send(Message::Want(want)).is_ok()
            && tokio::time::timeout(patience, answer).await.is_ok_and(|there| there.unwrap_or(false))
    }

    /// Finishes an authorization; the work goes on if the browser goes away.
    pub async fn redeem(&self, callback: Callback) -> Ended {
        let (done, answer) = oneshot::channel();
        match self.0.try_send(Message::Callback { callback, done }) {
            Ok(()) => answer.await.unwrap_or(Ended::Busy),
            Err(_) => Ended::Busy,
        }
    }
}

/// The task that keeps the artifacts that routes use alive and serves the lanes' wants.
pub struct Upkeep {
    keeper: Arc<Keeper>,
    state: Arc<State>,
    wants: mpsc::Receiver<Message>,
    callbacks: TaskTracker,
    places: Arc<Places>,
    running: HashMap<ArtifactName, Vec<Waiting>>,
    work: JoinSet<Result<u64, Trouble>>,
    names: HashMap<Id, ArtifactName>,
}

/// A lane that waits for another token than the one that its target refused.
struct Waiting {
    rejected: Option<u64>,
    done: oneshot::Sender<bool>,
}

impl Upkeep {
    pub fn new(keeper: Arc<Keeper>, state: Arc<State>, wants: mpsc::Receiver<Message>) -> Self {
        Self {
            keeper,
            state,
            wants,
            callbacks: TaskTracker::new(),
            places: Arc::default(),
            running: HashMap::new(),
            work: JoinSet::new(),
            names: HashMap::new(),
        }
    }

    /// Until `stop`; what is under way then is finished, since an answer must not be lost.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(message) = self.wants.recv() => match message {
                    Message::Want(want) => self.take(want),
                    Message::Callback { callback, done } => self.redeem(callback, done),
                },
                Some(done) = self.work.join_next_with_id() => self.finish(done).await,
                _ = tick.tick() => self.look(),
            }
        }
        // what has not begun does not begin; lanes that wait are told by the closed channels
        self.places.close();
        self.wants.close();
        self.running.clear();
        while self.work.join_next().await.is_some() {}
        self.callbacks.close();
        self.callbacks.wait().await;
    }

    fn redeem(&self, callback: Callback, done: oneshot::Sender<Ended>) {
        let (keeper, places) = (self.keeper.clone(), self.places.clone());
        self.callbacks.spawn(async move {
            // whose callback it is turns out later; callbacks as such have places of their own
            let Some(_place) = places.take(CALLBACKS).await else { return };
            let _ = done.send(keeper.redeem(&callback).await);
        });
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
        let waiting = want.done.map(|done| Waiting { rejected: want.rejected, done });
        if let Some(others) = self.running.get_mut(&want.name) {
            others.extend(waiting);
            return;
        }
        let need = deployed.fortune.need(&deployed.artifact, 0, self.keeper.clock.now());
        if want.rejected.is_none() && matches!(need, Need::Wait | Need::Authorise) {
            // the closed channel tells who waits that there will be none
            return;
        }
        self.start(deployed.artifact, want.rejected, waiting.into_iter().collect());
    }

    fn start(&mut self, artifact: Arc<Artifact>, rejected: Option<u64>, waiting: Vec<Waiting>) {
        let name = artifact.name.clone();
        let (keeper, places) = (self.keeper.clone(), self.places.clone());
        let task = self.work.spawn(async move {
            let place = places.take(&artifact.token_url.authority()).await;
            let _place = place.ok_or_else(|| Trouble::passing("the gateway is stopping"))?;
            let held = keeper.keep(&artifact, rejected.map_or(Wish::Any, Wish::Not)).await;
            held.map(|held| held.serial)
        });
        self.names.insert(task.id(), name.clone());
        self.running.insert(name, waiting);
    }

    /// Tells who waits, whatever became of the task.
    async fn finish(&mut self, done: Result<(Id, Result<u64, Trouble>), JoinError>) {
        let (id, outcome) = match done {
            Ok((id, outcome)) => (id, outcome.ok()),
            Err(error) => (error.id(), None),
        };
        let Some(name) = self.names.remove(&id) else { return };
        let waiting = self.running.remove(&name).unwrap_or_default();
        if let (Some(serial), false) = (outcome, waiting.is_empty()) {
            self.published(&name, serial).await;
        }
        let (late, told): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|one| outcome.is_some() && one.rejected == outcome);
        for one in told {
            let _ = one.done.send(outcome.is_some());
        }
        // they joined a task that had begun for another reason and brought the token they reject
        if let (Some(first), Some(deployed)) = (late.first(), self.state.credentials.load().get(&name).cloned()) {
            self.start(deployed.artifact, first.rejected, late);
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

    /// Starts what the clock asks for: tokens of artifacts that a route uses, and refresh tokens
    /// whose turn has come, used or not.
    fn look(&mut self) {
        let now = self.keeper.clock.now();
        let routes = self.state.routes.load();
        let used: HashSet<_> = routes.all().iter().filter_map(|route| Some(&route.credential.as_ref()?.name)).collect();
        let credentials = self.state.credentials.load_full();
        for (name, deployed) in credentials.iter() {
            let refresh = deployed.fortune.refresh.as_ref();
            let turn = || refresh.and_then(Refresh::due).is_some_and(|due| now >= due);
            if self.running.contains_key(name) || !(used.contains(name) || turn()) {
                continue;
            }
            if self.keeper.due(&deployed.artifact, &deployed.fortune) {
                self.start(deployed.artifact.clone(), None, Vec::new());
            }
        }
    }
}

fn answer(done: Option<oneshot::Sender<bool>>, there: bool) {
    if let Some(done) = done {
        let _ = done.send(there);
    }
}
