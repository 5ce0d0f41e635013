//! What the lanes read: one snapshot per part, swapped whole, and the epoch that counts the swaps.

use super::issuers::Issuers;
use super::outbound::Credentials;
use crate::config::{Config, Limits};
use crate::crypto::digest::{Digest, Keyed};
use crate::crypto::keyring::Keyring;
use crate::crypto::trust::{Pins, Trust};
use crate::domain::client::Clients;
use crate::domain::destination::directory::Directory;
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
    pub expected: Expected,
    pub pepper: Keyed,
}

impl Settings {
    pub fn new(config: &Config, tenant: Tenant, pepper: Keyed) -> Self {
        let origin = config.origin.clone();
        let expected = Expected { issuer: origin.token_url(), tenant, leeway: config.tokens.leeway };
        Self { origin, expected, pepper }
    }

    pub fn tenant(&self) -> &Tenant {
        &self.expected.tenant
    }

    /// Whether tokens mean the same under both.
    pub fn same_as(&self, other: &Self) -> bool {
        let (a, b) = (&self.expected, &other.expected);
        a.issuer == b.issuer && a.leeway == b.leeway && a.tenant == b.tenant && self.origin == other.origin
    }

    pub fn issuer(&self) -> &str {
        &self.expected.issuer
    }
}

/// The lists of trusted CAs: a handshake believes all of them together, a decision those that are
/// about the caller. A route's own list is part of the route.
#[derive(Debug)]
pub struct Authorities {
    /// All lists together, without our own CA.
    pub handshake: Arc<Trust>,
    pub general: Arc<Trust>,
    /// Our own CA. It vouches for service keys alone, which end by being deleted.
    pub own: Arc<Trust>,
    /// By the address as configured.
    pub listeners: std::collections::HashMap<SocketAddr, Arc<Trust>>,
    /// By id: in place of the general list.
    pub instances: std::collections::HashMap<String, Arc<Trust>>,
}

#[derive(Debug)]
pub struct State {
    pub routes: ArcSwap<Routes>,
    pub clients: ArcSwap<Clients>,
    pub keyring: ArcSwap<Keyring>,
    pub authorities: ArcSwap<Authorities>,
    pub revoked: ArcSwap<Revoked>,
    pub destinations: ArcSwap<Directory>,
    /// Token servers besides our own.
    pub issuers: ArcSwap<Issuers>,
    /// Outbound credentials with their tokens.
    pub credentials: ArcSwap<Credentials>,
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
            destinations: ArcSwap::default(),
            issuers: ArcSwap::default(),
            credentials: ArcSwap::default(),
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
