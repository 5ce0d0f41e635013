//! The control loop: the one task that follows the store, writes on behalf of lanes, reloads the
//! configuration and does the upkeep. Lanes never wait for it but by message.

use super::manager;
use super::site::Site;
use super::watch::{Source, Watch};
use crate::config::Config;
use crate::crypto::digest::Digest;
use crate::domain::key::Key;
use crate::domain::name::ArtifactName;
use crate::domain::outlook::Kind;
use crate::gateway::Mirror;
use crate::gateway::administer::{AdminError, Administration, signing};
use crate::gateway::control::{Inbox, Managed, Managing, Order, Request};
use crate::gateway::exchanger::Exchanger;
use crate::http::access_log::LogWriter;
use crate::http::admin::Health;
use crate::http::metrics::Registry;
use crate::net::outbound::Policy;
use crate::store::{Follower, ServeLock, Store, StoreError, Writing};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Changes of other processes take hold within a second; this is a fifth of it.
const FOLLOW: Duration = Duration::from_millis(200);
const UPKEEP: Duration = Duration::from_secs(5);
const POLL_FILES: Duration = Duration::from_secs(30);
/// After a file event: editors and Kubernetes write in several steps.
const SETTLE: Duration = Duration::from_millis(100);
/// Revocations that are committed together.
const BATCH: usize = 64;

/// What became of a request to change destinations, and who waits for it.
type Finished = (Result<Vec<Managed>, AdminError>, oneshot::Sender<Vec<Managed>>);

pub struct Control {
    pub store: Store,
    pub mirror: Mirror,
    pub site: Site,
    pub inbox: Inbox,
    /// The change of destinations that is under way; the next one waits for it.
    pub managing: JoinSet<Finished>,
    pub source: Source,
    pub health: Arc<Health>,
    pub registry: Registry,
    pub log: LogWriter,
    pub stop: CancellationToken,
    pub exchanger: Arc<Exchanger>,
    /// Credentials that have been told of, with the day of the last warning.
    pub told: HashMap<ArtifactName, i64>,
    /// Servers of backends that metrics tell of.
    pub servers: HashSet<(String, Arc<str>)>,
    /// What keeps outbound credentials alive, fetches tokens for lookups, and keys of other issuers.
    pub tasks: [JoinHandle<()>; 3],
    /// Ends those.
    pub drained: CancellationToken,
    /// What was read last, good or bad.
    pub seen: Digest,
    /// Held as long as this loop runs.
    #[expect(dead_code, reason = "holding it is its use")]
    pub lock: ServeLock,
}

impl Control {
    pub async fn run(mut self) {
        let mut follower = None;
        let mut watch = Watch::new();
        let mut hangup = signal(SignalKind::hangup()).ok();
        self.cover(&mut watch);
        let (mut follow, mut upkeep, mut files) = (every(FOLLOW), every(UPKEEP), every(POLL_FILES));
        self.note_reload(true);
        // what changed between the load and the watch has no event
        self.reload(&mut watch, false);
        manager::ready(true);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                Some(first) = self.inbox.orders.recv() => self.carry_out(first).await,
                Some(managing) = self.inbox.managing.recv(), if self.managing.is_empty() => self.manage(managing),
                Some(Ok(finished)) = self.managing.join_next() => self.managed(finished).await,
                () = self.store.changed() => self.catch_up().await,
                _ = follow.tick() => self.follow(&mut follower).await,
                _ = upkeep.tick() => self.upkeep().await,
                Some(()) = watch.events.recv() => {
                    tokio::time::sleep(SETTLE).await;
                    self.reload(&mut watch, false);
                }
                _ = files.tick() => self.reload(&mut watch, false),
                () = next(&mut hangup) => {
                    self.log.reopen();
                    self.reload(&mut watch, true);
                }
            }
        }
        self.health.draining.store(true, Ordering::Relaxed);
        manager::stopping();
        tracing::info!("draining");
        // who waits for a change hears that there will be none
        drop(self.inbox);
        self.site.close().await;
        // an answer of a token service that is under way is still written down
        self.drained.cancel();
        for task in self.tasks {
            let _ = task.await;
        }
        if let Some(follower) = follower {
            follower.close().await;
        }
        self.store.close().await;
        tracing::info!("stopped");
    }

    async fn follow(&mut self, follower: &mut Option<Follower>) {
        let moved = match follower {
            Some(follower) => follower.moved().await,
            None => match self.store.follow().await {
                Ok(fresh) => {
                    *follower = Some(fresh);
                    Ok(true)
                }
                Err(error) => Err(error),
            },
        };
        match moved {
            Ok(true) => self.catch_up().await,
            Ok(false) => self.store_answers(),
            Err(error) => {
                store_fails(&error);
                *follower = None;
            }
        }
    }

    async fn catch_up(&mut self) {
        let Some(config) = self.site.config() else { return };
        match self.mirror.catch_up(&config).await {
            Ok(changed) => {
                self.store_answers();
                if changed && let Err(error) = self.site.follow_trust() {
                    tracing::error!(%error, "the trusted CAs could not be taken");
                }
            }
            Err(error) => tracing::error!(%error, "the store cannot be followed; the state read last stays in use"),
        }
    }

    fn store_answers(&self) {
        self.health.store_seen.store(self.site.gateway().clock.now(), Ordering::Relaxed);
    }

    /// Writes down what lanes ask for, applies it here, then tells who waits. Several that wait
    /// are committed as one.
    async fn carry_out(&mut self, first: Request) {
        let mut batch = vec![first];
        while batch.len() < BATCH {
            match self.inbox.orders.try_recv() {
                Ok(next) => batch.push(next),
                Err(_) => break,
            }
        }
        let written = self.write(&batch).await;
        if let Err(error) = &written {
            store_fails(error);
        }
        self.catch_up().await;
        let outcomes = written.map_or_else(|_| vec![None; batch.len()], |made| made.into_iter().map(Some).collect());
        for (request, outcome) in batch.into_iter().zip(outcomes) {
            if let (Some(done), Some(made)) = (request.done, outcome) {
                let _ = done.send(made);
            }
        }
    }

    /// Whether each order was carried out, in their order.
    async fn write(&self, batch: &[Request]) -> Result<Vec<bool>, StoreError> {
        let mut writing = self.store.write().await?;
        let mut made = Vec::with_capacity(batch.len());
        for request in batch {
            made.push(match &request.order {
                Order::Revoke(revocation) => writing.put(revocation).await.map(|()| true)?,
                Order::Renew(renewed) => renew(&mut writing, renewed).await?,
            });
        }
        writing.commit().await.map(|()| made)
    }

    /// Changes destinations, in a task of its own: this loop has others to serve meanwhile.
    fn manage(&mut self, managing: Managing) {
        let Some(config) = self.site.config() else { return };
        let (store, now) = (self.store.clone(), self.site.gateway().clock.now());
        self.managing.spawn(async move {
            let Managing { sort, level, changes, done } = managing;
            let admin = Administration { store: &store, origin: &config.origin, now };
            let rows = admin.change_entries(sort, &level, changes).await;
            (rows, done)
        });
    }

    /// Tells who has asked for changes, once they hold here.
    async fn managed(&mut self, (rows, done): Finished) {
        self.catch_up().await;
        match rows {
            Ok(rows) => {
                let _ = done.send(rows);
            }
            // the closed channel tells that the store took nothing
            Err(error) => tracing::error!(%error, "destinations could not be changed"),
        }
    }

    async fn upkeep(&mut self) {
        manager::alive();
        self.registry.upkeep();
        self.site.gateway().rates.forget();
        self.tell_backends();
        let dropped = self.registry.counter("flowgate_access_log_dropped_total", Vec::new());
        dropped.absolute(self.log.dropped());
        let now = self.site.gateway().clock.now();
        self.tell_endings(now);
        self.tell_credentials(now);
        if let Err(error) = self.mirror.forget_ended(now).await {
            tracing::warn!(%error, "ended revocations could not be forgotten");
        }
        let Some(config) = self.site.config() else { return };
        match signing::keep(&self.store, config.tokens, now).await {
            Ok(true) => {
                tracing::info!("signing keys were rotated");
                self.catch_up().await;
            }
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "signing keys could not be kept up"),
        }
    }

    /// What ends, as metrics: the nearest end of each kind, and how many end soon. Names are not
    /// labels: `check --at` has them.
    fn tell_endings(&self, now: i64) {
        let Some(config) = self.site.config() else { return };
        let mut ends = Vec::new();
        self.mirror.outlook(&config, |view| ends = view.ends());
        for kind in Kind::ALL {
            let own: Vec<_> = ends.iter().filter(|(other, _)| *other == kind).map(|(_, end)| *end).collect();
            let nearest = own.iter().min().map_or(f64::INFINITY, |end| seconds(*end));
            self.registry.of_kind("flowgate_nearest_end_timestamp_seconds", kind.name(), &[]).set(nearest);
            for (days, label) in [(0, "0d"), (7, "7d"), (30, "30d")] {
                let count = own.iter().filter(|end| **end < now + days * 86_400).count();
                let count = u32::try_from(count).map_or(f64::INFINITY, f64::from);
                self.registry.of_kind("flowgate_ending", kind.name(), &[("within", label)]).set(count);
            }
        }
    }

    /// How outbound credentials fare, as metrics by name, and in the log before anything dies.
    fn tell_credentials(&mut self, now: i64) {
        let credentials = self.site.gateway().state.credentials.load_full();
        let day = now / 86_400;
        for (name, deployed) in credentials.iter() {
            let refresh = deployed.fortune.refresh.as_ref().and_then(|refresh| refresh.expires);
            self.tell(
                name,
                deployed.token.as_ref().map_or(0, |token| token.expires),
                refresh,
                deployed.fortune.failures,
            );
            let told = self.told.entry(name.clone()).or_default();
            if let Some(warning) = deployed.warning(now)
                && std::mem::replace(told, day) != day
            {
                tracing::warn!("{warning}");
            }
        }
        for name in self.told.keys().filter(|name| !credentials.contains_key(*name)) {
            self.tell(name, 0, None, 0);
        }
        self.told.retain(|name, _| credentials.contains_key(name));
    }

    /// How the servers of all backends fare, as metrics.
    fn tell_backends(&mut self) {
        let now = u64::try_from(self.site.gateway().started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let routes = self.site.gateway().state.routes.load();
        let before = std::mem::take(&mut self.servers);
        for backend in routes.backends() {
            for server in &backend.servers {
                self.servers.insert((backend.name.clone(), server.authority.clone()));
                let gauge = |metric| self.registry.of_server(metric, &backend.name, &server.authority);
                gauge("flowgate_backend_server_up").set(f64::from(u8::from(server.standing.is_in(now))));
                let calls = u32::try_from(server.standing.in_flight()).unwrap_or(u32::MAX);
                gauge("flowgate_backend_calls").set(f64::from(calls));
            }
        }
        for (backend, server) in before.difference(&self.servers) {
            self.registry.of_server("flowgate_backend_server_up", backend, server).set(0.0);
            self.registry.of_server("flowgate_backend_calls", backend, server).set(0.0);
        }
    }

    fn tell(&self, name: &ArtifactName, token: i64, refresh: Option<i64>, failures: u32) {
        let gauge = |metric| self.registry.of_credential(metric, name.as_str());
        gauge("flowgate_credential_token_ends_timestamp_seconds").set(seconds(token));
        gauge("flowgate_credential_refresh_ends_timestamp_seconds").set(refresh.map_or(f64::INFINITY, seconds));
        gauge("flowgate_credential_failures").set(f64::from(failures));
    }

    fn cover(&self, watch: &mut Watch) {
        watch.cover(&self.source, self.site.config().as_deref());
    }

    /// The whole file is checked first; a bad one changes nothing and says so. What has been seen
    /// before is left alone unless a reload was asked for.
    fn reload(&mut self, watch: &mut Watch, asked: bool) {
        let loaded = self.source.load();
        let seen = loaded.as_ref().map_or_else(|faults| faults.seen, |loaded| loaded.config.seen);
        if std::mem::replace(&mut self.seen, seen) == seen && !asked {
            return;
        }
        manager::reloading();
        let outcome = match loaded {
            Ok(loaded) => self.take(loaded.config).map_err(|error| error.to_string()),
            Err(faults) => Err(faults.summary()),
        };
        self.note_reload(outcome.is_ok());
        match outcome {
            Ok(()) => tracing::info!("configuration reloaded"),
            Err(error) => tracing::error!(%error, "configuration not reloaded; the one in use stays"),
        }
        self.cover(watch);
        manager::ready(self.health.config_current.load(Ordering::Relaxed));
    }

    fn take(&mut self, config: Config) -> Result<(), Box<dyn std::error::Error>> {
        let (settings, authorities) = self.mirror.configured(&config)?;
        let state = self.site.gateway().state.clone();
        let before = state.authorities.swap(Arc::new(authorities));
        let outbound = self.site.config().is_none_or(|before| before.outbound != config.outbound);
        let policy = outbound.then(|| Policy::new(&config.outbound));
        if let Err(error) = self.site.apply(config) {
            state.authorities.store(before);
            return Err(error.into());
        }
        if let Some(policy) = policy {
            self.exchanger.policy.store(Arc::new(policy));
        }
        // tokens that were verified under other settings are verified again, so swap only a change
        if !state.settings.load().same_as(&settings) {
            state.swap(&state.settings, settings);
        }
        Ok(())
    }

    fn note_reload(&self, good: bool) {
        self.health.config_current.store(good, Ordering::Relaxed);
        self.registry.gauge("flowgate_config_last_reload_successful").set(f64::from(u8::from(good)));
        if good {
            let now = u32::try_from(self.site.gateway().clock.now()).unwrap_or_default();
            self.registry.gauge("flowgate_config_last_reload_timestamp_seconds").set(f64::from(now));
        }
    }
}

/// Remembers a renewed certificate. False if the key has gone on to a later one or away meanwhile.
async fn renew(writing: &mut Writing<'_>, renewed: &Key) -> Result<bool, StoreError> {
    let (Some(present), Some((fresh, _))) = (writing.get::<Key>(&renewed.id).await?, renewed.unpinned()) else {
        return Ok(false);
    };
    match present.renewed(fresh) {
        Some(key) => {
            tracing::info!(key = %key.name, fingerprint = fresh.fingerprint, "a renewed certificate was accepted");
            writing.put(&key).await.map(|()| true)
        }
        // two callers at once with the same certificate
        None => Ok(present.unpinned().is_some_and(|(last, _)| last.fingerprint == fresh.fingerprint)),
    }
}

fn store_fails(error: &StoreError) {
    tracing::error!(%error, "the store does not answer; the state read last stays in use");
}

/// Unix seconds as a gauge has them; a time beyond 2106 is never.
fn seconds(time: i64) -> f64 {
    u32::try_from(time).map_or(f64::INFINITY, f64::from)
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// The next signal, or never where there are none.
async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
