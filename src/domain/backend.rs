//! Backends: the servers that take forwarded calls, how each has fared, and which one takes the next
//! call. Pure rules over counters that all lanes share; `now` is
//! in milliseconds since the process began.

use crate::crypto::client_tls::ClientTls;
use http::HeaderValue;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// While no server is in, one call per server and this many milliseconds looks whether it is back.
const PROBE: u64 = 250;
/// A server that fails again and again is out for at most this many times the configured time.
const LONGEST: u64 = 8;

/// How the servers of a backend are spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Http1,
    /// Over TLS by ALPN, without TLS with prior knowledge (RFC 9113, 3.3).
    Http2,
    /// Whichever the server prefers in ALPN.
    Negotiated,
}

/// An HTTP server that takes forwarded calls.
#[derive(Debug, Clone)]
pub struct Server {
    /// `host:port`, as it is connected to.
    pub authority: Arc<str>,
    /// By what connections to it are known: the authority and all else that tells them apart.
    pub key: Arc<str>,
    /// Its name and port, ready to be sent as Host.
    pub host: HeaderValue,
    /// Put before the forwarded path; empty or `/something` without a final slash.
    pub base_path: String,
    /// Its share of the calls, beside the others'.
    pub weight: u32,
    pub tls: Option<Arc<ClientTls>>,
    pub standing: Arc<Standing>,
}

/// How long each part of a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub connect: Duration,
    /// Until the head of the answer, while nothing is uploaded.
    pub answer: Duration,
    /// Between two pieces of an answer, or of what a tunnel carries.
    pub idle: Duration,
    /// The whole exchange; none lasts for as long as it goes on.
    pub total: Option<Duration>,
}

/// What one server is given at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    pub connections: Option<usize>,
    pub requests: Option<usize>,
}

/// When a server is left out for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// After so many failures in a row; none without.
    pub failures: Option<u32>,
    /// Milliseconds, doubled each time it fails again.
    pub time: u64,
}

/// How servers are asked whether they are well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub path: String,
    pub interval: Duration,
    pub timeout: Duration,
    /// Answers in a row that make a server be out, and in again.
    pub down_after: u32,
    pub up_after: u32,
}

#[derive(Debug, Clone)]
pub struct Backend {
    pub name: String,
    pub servers: Vec<Server>,
    pub protocol: Protocol,
    pub times: Times,
    pub bounds: Bounds,
    /// Whether interim answers are passed on.
    pub interim: bool,
    pub ejection: Ejection,
    pub health: Option<Health>,
}

/// How a server has fared lately.
#[derive(Debug, Default)]
pub struct Standing {
    in_flight: AtomicUsize,
    /// In a row.
    failures: AtomicU32,
    /// How often in a row it was left out.
    ejections: AtomicU32,
    out_until: AtomicU64,
    next_probe: AtomicU64,
    /// What health checks say.
    down: AtomicBool,
}

/// A call under way at a server, until it is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Standing>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// Why no server takes a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoServer {
    /// Each has as many calls as it may have.
    Busy,
    /// Each has failed again and again, or was tried for this call.
    Out,
}

impl Standing {
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Counts a call in, unless there are as many as may be.
    pub fn enter(self: &Arc<Self>, most: Option<usize>) -> Option<InFlight> {
        let call = InFlight(self.clone());
        let before = self.in_flight.fetch_add(1, Relaxed);
        // dropped, it is counted out again
        most.is_none_or(|most| before < most).then_some(call)
    }

    pub fn succeeded(&self) {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            self.ejections.store(0, Relaxed);
            self.out_until.store(0, Relaxed);
        }
    }

    /// A call came to nothing. True if the server is left out from now on.
    pub fn failed(&self, rule: &Ejection, now: u64) -> bool {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        if rule.failures.is_none_or(|most| failures < most) || self.out(now) {
            return false;
        }
        let before = self.ejections.fetch_add(1, Relaxed);
        let times = 1_u64.checked_shl(before).unwrap_or(LONGEST).min(LONGEST);
        self.out_until.store(now + rule.time * times, Relaxed);
        self.next_probe.store(now + PROBE, Relaxed);
        true
    }

    /// What a health check has found out. True if it is news.
    pub fn checked(&self, well: bool) -> bool {
        let news = self.down.swap(!well, Relaxed) == well;
        if well {
            self.succeeded();
        }
        news
    }

    pub fn is_in(&self, now: u64) -> bool {
        !self.down.load(Relaxed) && !self.out(now)
    }

    fn out(&self, now: u64) -> bool {
        let until = self.out_until.load(Relaxed);
        until != 0 && until > now
    }

    /// Whether this call may look if the server is back.
    fn probe(&self, now: u64) -> bool {
        let due = self.next_probe.load(Relaxed);
        due <= now && self.next_probe.compare_exchange(due, now + PROBE, Relaxed, Relaxed).is_ok()
    }
}

impl Backend {
    /// The server for a call: of two that chance names, by their weights, the one with less to do.
    /// Where none is in, one that may be back. `tried` has a bit for each server to pass over.
    pub fn choose(&self, mut chance: u64, tried: u64, now: u64) -> Result<usize, NoServer> {
        let untried = |at: usize| tried & (1 << at) == 0;
        if let [only] = &*self.servers {
            return match (untried(0), self.full(only), only.standing.out(now)) {
                (false, ..) => Err(NoServer::Out),
                (_, true, _) => Err(NoServer::Busy),
                (_, _, true) if !only.standing.probe(now) => Err(NoServer::Out),
                _ => Ok(0),
            };
        }
        let eligible = |at: &usize| untried(*at) && self.servers[*at].standing.is_in(now);
        let (mut total, mut open) = (0_u64, false);
        for at in (0..self.servers.len()).filter(eligible) {
            open = true;
            if !self.full(&self.servers[at]) {
                total += u64::from(self.servers[at].weight);
            }
        }
        if total == 0 {
            return if open { Err(NoServer::Busy) } else { self.last_resort(tried, now) };
        }
        let mut draw = || {
            let mut left = chance % total;
            chance = chance.rotate_right(32) / 7;
            let free = |at: &usize| eligible(at) && !self.full(&self.servers[*at]);
            (0..self.servers.len()).filter(free).find(|at| {
                let weight = u64::from(self.servers[*at].weight);
                let hit = left < weight;
                left = left.saturating_sub(weight);
                hit
            })
        };
        let (one, other) = (draw(), draw());
        let load = |at: usize| {
            let server = &self.servers[at];
            server.standing.in_flight() as u64 * 1_000 / u64::from(server.weight)
        };
        match (one, other) {
            (Some(one), Some(other)) => Ok(if load(other) < load(one) { other } else { one }),
            // counters that others move may empty the list between two looks
            (Some(at), None) | (None, Some(at)) => Ok(at),
            (None, None) => Err(NoServer::Busy),
        }
    }

    /// No server is in: health checks may be wrong, so what has not failed here is tried; then, now
    /// and again, what has.
    fn last_resort(&self, tried: u64, now: u64) -> Result<usize, NoServer> {
        let standing = |at: usize| &self.servers[at].standing;
        let mut left = (0..self.servers.len()).filter(|at| tried & (1 << at) == 0 && !self.full(&self.servers[*at]));
        let unfailed = left.clone().find(|at| !standing(*at).out(now));
        unfailed.or_else(|| left.find(|at| standing(*at).probe(now))).ok_or(NoServer::Out)
    }

    fn full(&self, server: &Server) -> bool {
        self.bounds.requests.is_some_and(|most| server.standing.in_flight() >= most)
    }

    /// Whether an answer's status speaks against the server, where another could take its calls.
    pub fn holds_against(&self, status: u16) -> bool {
        self.servers.len() > 1 && matches!(status, 502..=504)
    }

    /// Takes over how the same servers have fared in the configuration before.
    pub fn inherit(&mut self, before: &Self) {
        for server in &mut self.servers {
            if let Some(known) = before.servers.iter().find(|one| one.key == server.key) {
                server.standing = known.standing.clone();
            }
        }
    }
}

#[cfg(test)]
pub fn anywhere() -> Backend {
    let second = Duration::from_secs(1);
    Backend {
        name: "b".into(),
        servers: Vec::new(),
        protocol: Protocol::Http1,
        times: Times { connect: second, answer: second, idle: second, total: None },
        bounds: Bounds::default(),
        interim: false,
        ejection: Ejection { failures: Some(3), time: 1_000 },
        health: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn backend(weights: &[u32]) -> Backend {
        let server = |(at, weight): (usize, &u32)| Server {
            authority: format!("s{at}:80").into(),
            key: format!("s{at}:80").into(),
            host: HeaderValue::from_static("s"),
            base_path: String::new(),
            weight: *weight,
            tls: None,
            standing: Arc::default(),
        };
        Backend { servers: weights.iter().enumerate().map(server).collect(), ..anywhere() }
    }

    fn fail(backend: &Backend, at: usize, times: u32, now: u64) {
        for _ in 0..times {
            backend.servers[at].standing.failed(&backend.ejection, now);
        }
    }

    /// How often each server was chosen in a thousand calls.
    fn shares(backend: &Backend, now: u64) -> Vec<usize> {
        let mut out = vec![0; backend.servers.len()];
        let mut chance = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..1_000 {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            out[backend.choose(chance ^ (chance >> 29), 0, now).expect("a server")] += 1;
        }
        out
    }

    #[test]
    fn calls_are_shared_by_weight() {
        let shares = shares(&backend(&[1, 3]), 0);
        assert!((150..350).contains(&shares[0]), "{shares:?}");
    }

    #[test]
    fn of_two_servers_the_one_with_less_to_do_is_preferred() {
        let backend = backend(&[1, 1]);
        let _busy: Vec<_> = (0..10).map(|_| backend.servers[0].standing.enter(None)).collect();
        let shares = shares(&backend, 0);
        assert!(shares[0] < 350, "{shares:?}");
    }

    #[test]
    fn a_server_that_fails_in_a_row_is_left_out_and_comes_back() {
        let backend = backend(&[1, 1]);
        fail(&backend, 0, 2, 0);
        backend.servers[0].standing.succeeded();
        fail(&backend, 0, 2, 0);
        assert!(shares(&backend, 0)[0] > 0, "two in a row are not three");
        fail(&backend, 0, 1, 0);
        assert_eq!(shares(&backend, 999)[0], 0);
        assert!(shares(&backend, 1_000)[0] > 0);
        // it fails at once again: out for twice as long
        fail(&backend, 0, 1, 1_000);
        assert_eq!(shares(&backend, 2_999)[0], 0);
        assert!(shares(&backend, 3_000)[0] > 0);
    }

    #[test]
    fn where_all_are_out_one_call_at_a_time_looks_whether_they_are_back() {
        for weights in [&[1][..], &[1, 1]] {
            let backend = backend(weights);
            (0..weights.len()).for_each(|at| fail(&backend, at, 3, 0));
            assert_eq!(backend.choose(1, 0, 10), Err(NoServer::Out));
            for _ in weights {
                assert!(backend.choose(1, 0, PROBE).is_ok());
            }
            assert_eq!(backend.choose(1, 0, PROBE), Err(NoServer::Out));
            assert!(backend.choose(1, 0, 2 * PROBE).is_ok());
            backend.servers[0].standing.succeeded();
            assert_eq!(backend.choose(1, 0, 2 * PROBE), Ok(0));
        }
    }

    #[test]
    fn health_checks_leave_servers_out_unless_that_were_all() {
        let backend = backend(&[1, 1]);
        assert!(backend.servers[0].standing.checked(false));
        assert!(!backend.servers[0].standing.checked(false), "no news");
        assert_eq!(shares(&backend, 0)[0], 0);
        backend.servers[1].standing.checked(false);
        assert!(backend.choose(1, 0, 0).is_ok());
        assert!(backend.servers[0].standing.checked(true));
        assert_eq!(shares(&backend, 0)[1], 0);
    }

    #[test]
    fn a_server_gets_no_more_calls_at_once_than_it_may_have() {
        let mut backend = backend(&[1]);
        backend.bounds.requests = Some(1);
        let call = backend.servers[0].standing.enter(backend.bounds.requests);
        assert!(call.is_some() && backend.servers[0].standing.enter(backend.bounds.requests).is_none());
        assert_eq!(backend.choose(1, 0, 0), Err(NoServer::Busy));
        drop(call);
        assert_eq!(backend.choose(1, 0, 0), Ok(0));
        assert_eq!(backend.choose(1, 1, 0), Err(NoServer::Out));
    }

    #[test]
    fn standings_outlive_a_reload() {
        let (before, mut after) = (backend(&[1, 1]), backend(&[5]));
        fail(&before, 0, 3, 0);
        after.inherit(&before);
        assert!(!after.servers[0].standing.is_in(0));
    }

    proptest! {
        #[test]
        fn whatever_is_chosen_was_not_tried(chance: u64, tried in 0_u64..16, out in 0_usize..16, now in 0_u64..3_000) {
            let backend = backend(&[1, 2, 3, 4]);
            (0..4).filter(|at| out & (1 << at) != 0).for_each(|at| fail(&backend, at, 3, 0));
            if let Ok(at) = backend.choose(chance, tried, now) {
                prop_assert!(tried & (1 << at) == 0);
                prop_assert!(backend.servers[at].standing.is_in(now) || (0..4).all(|at| tried & (1 << at) != 0 || !backend.servers[at].standing.is_in(now) || out & (1 << at) != 0));
            } else {
                prop_assert!((0..4).all(|at| tried & (1 << at) != 0 || out & (1 << at) != 0));
            }
        }
    }
}
