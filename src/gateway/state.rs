//! What the lanes read: one snapshot per part, swapped whole, and the epoch that counts the swaps.

use crate::config::{Config, Limits};
use crate::crypto::digest::{Digest, Keyed};
use crate::crypto::keyring::Keyring;
use crate::crypto::trust::{Pins, Trust};
use crate::domain::client::Clients;
use crate::domain::key::Origin;
use crate::domain::route::Routes;
use crate::domain::tenant::Tenant;
use crate::domain::token::Expected;
use arc_swap::ArcSwap;
use imbl::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Revoked token ids with the second in which they would have ended.
pub type Revoked = HashMap<String, i64>;

/// What tokens say and must say.
#[derive(Debug)]
pub struct Settings {
    pub origin: Origin,
    /// Where clients with certificates connect, if that is another address.
    pub mtls_url: Option<String>,
    pub expected: Expected,
    pub pepper: Keyed,
}

impl Settings {
    pub fn new(config: &Config, tenant: Tenant, pepper: Keyed) -> Self {
        let origin = config.origin.clone();
        let expected = Expected { issuer: origin.token_url(), tenant, leeway: config.tokens.leeway };
        Self { origin, mtls_url: config.mtls_url.clone(), expected, pepper }
    }

    pub fn tenant(&self) -> &Tenant {
        &self.expected.tenant
    }

    /// Whether tokens mean the same under both.
    pub fn same_as(&self, other: &Self) -> bool {
        let (a, b) = (&self.expected, &other.expected);
        a.issuer == b.issuer && a.leeway == b.leeway && a.tenant == b.tenant && self.mtls_url == other.mtls_url
    }

    pub fn issuer(&self) -> &str {
        &self.expected.issuer
    }
}

/// The lists of trusted CAs: a handshake believes all of them together, a decision the narrower
/// ones that apply to it.
#[derive(Debug)]
pub struct Authorities {
    /// All lists together.
    pub handshake: Arc<Trust>,
    /// For callers that no narrower list is about.
    pub general: Arc<Trust>,
    /// Our own CA: part of every list, since it vouches for service keys alone.
    pub own: Arc<Trust>,
    /// By the address as configured.
    pub listeners: std::collections::HashMap<SocketAddr, Arc<Trust>>,
    /// By name.
    pub routes: std::collections::HashMap<String, Arc<Trust>>,
    /// By id.
    pub instances: std::collections::HashMap<String, Arc<Trust>>,
}

impl Authorities {
    /// Every list that is about this caller must vouch for it: the listener's, the route's, the
    /// instance's; the general one where there is none of these.
    pub fn narrowed(&self, listener: SocketAddr, route: Option<&str>, instance: Option<&str>) -> Vec<&Arc<Trust>> {
        let listener = self.listeners.get(&listener);
        let route = route.and_then(|name| self.routes.get(name));
        let instance = instance.and_then(|id| self.instances.get(id));
        let lists: Vec<_> = [listener, route, instance].into_iter().flatten().collect();
        if lists.is_empty() { vec![&self.general] } else { lists }
    }
}

#[derive(Debug)]
pub struct State {
    pub routes: ArcSwap<Routes>,
    pub clients: ArcSwap<Clients>,
    pub keyring: ArcSwap<Keyring>,
    pub authorities: ArcSwap<Authorities>,
    pub revoked: ArcSwap<Revoked>,
    pub settings: ArcSwap<Settings>,
    pub limits: ArcSwap<Limits>,
    epoch: AtomicU64,
}

/// Certificates that a service key pins and no CA vouches for.
impl Pins for State {
    fn holds(&self, fingerprint: &Digest) -> bool {
        self.clients.load().pinned_alone().contains(fingerprint)
    }

    fn any(&self) -> bool {
        !self.clients.load().pinned_alone().is_empty()
    }
}

impl State {
    pub fn new(settings: Settings, authorities: Authorities, limits: Limits) -> Self {
        Self {
            routes: ArcSwap::default(),
            clients: ArcSwap::default(),
            keyring: ArcSwap::default(),
            authorities: ArcSwap::from_pointee(authorities),
            revoked: ArcSwap::default(),
            settings: ArcSwap::from_pointee(settings),
            limits: ArcSwap::from_pointee(limits),
            epoch: AtomicU64::new(1),
        }
    }

    /// Read before any snapshot: a verdict carries the epoch of the oldest thing that it saw.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Called after a snapshot was swapped: earlier verdicts are judged again.
    pub fn advance(&self) {
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// Replaces a part and lets earlier verdicts lapse.
    pub fn swap<T>(&self, part: &ArcSwap<T>, value: T) {
        part.store(Arc::new(value));
        self.advance();
    }
}
