//! Verified tokens, remembered twice: per lane by the whole token, and shared by digest so that
//! lanes do not verify the same token again. Only identity is remembered; roles, route and time
//! are judged on every call.

use super::issuers::Foreign;
use super::state::{Settings, State};
use crate::crypto::digest::Digest;
use crate::crypto::jwks::KeySet;
use crate::domain::decision::Caller;
use crate::domain::token::Claims;
use quick_cache::Weighter;
use quick_cache::unsync::Cache;
use std::cell::RefCell;
use std::sync::Arc;

/// A token whose signature and claims are right, under the settings it was judged by.
#[derive(Debug, Clone)]
pub struct Verified {
    pub claims: Arc<Claims>,
    pub kid: Arc<str>,
    pub settings: Arc<Settings>,
    /// The issuer, if it is another than we, and the keys that it had.
    pub foreign: Option<(Arc<Foreign>, Arc<KeySet>)>,
}

impl Verified {
    /// Whether what it was verified by is what counts now.
    pub fn current(&self, state: &State, settings: &Arc<Settings>) -> bool {
        let same = |(one, keys): &(Arc<Foreign>, Arc<KeySet>)| {
            let issuers = state.issuers.load();
            let present = issuers.get(&one.issuer.name).filter(|present| Arc::ptr_eq(one, present));
            present.is_some_and(|present| Arc::ptr_eq(keys, &present.keys.load()))
        };
        Arc::ptr_eq(&self.settings, settings) && self.foreign.as_ref().is_none_or(same)
    }
}

/// A verified token with what the state of one epoch made of it.
#[derive(Debug, Clone)]
pub struct Judged {
    pub verified: Verified,
    pub caller: Arc<Caller>,
    pub epoch: u64,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Box<str>, Judged> for ByBytes {
    /// The token, and about what its entry costs beside it.
    fn weight(&self, token: &Box<str>, _: &Judged) -> u64 {
        token.len() as u64 + 768
    }
}

/// A lane's own tokens, bounded by bytes. Holding whole tokens costs memory and saves the digest,
/// a tenth of a request's price; they leave with the process.
pub struct LaneTokens(RefCell<Cache<Box<str>, Judged, ByBytes>>);

impl LaneTokens {
    /// `bytes` for this lane.
    pub fn new(bytes: u64) -> Self {
        let items = usize::try_from(bytes / 2_048).unwrap_or(usize::MAX);
        Self(RefCell::new(Cache::with_weighter(items, bytes, ByBytes)))
    }

    /// The caller behind a token, if it was judged in this epoch: the common case, without a copy.
    pub(super) fn fresh(&self, token: &str, epoch: u64) -> Option<Arc<Caller>> {
        let tokens = self.0.borrow();
        tokens.get(token).filter(|known| known.epoch == epoch).map(|known| known.caller.clone())
    }

    pub(super) fn get(&self, token: &str) -> Option<Judged> {
        self.0.borrow().get(token).cloned()
    }

    pub(super) fn put(&self, token: &str, judged: Judged) {
        self.0.borrow_mut().insert(token.into(), judged);
    }

    pub(super) fn forget(&self, token: &str) {
        self.0.borrow_mut().remove(token);
    }
}

/// Tokens of all lanes, by SHA-256.
pub struct SharedTokens(moka::sync::Cache<Digest, Verified>);

impl SharedTokens {
    /// Bounded by bytes as well.
    pub fn new(bytes: u64) -> Self {
        let weigh = |_: &Digest, known: &Verified| {
            let roles: usize = known.claims.roles.iter().map(|role| role.len() + 24).sum();
            u32::try_from(1_024 + roles).unwrap_or(u32::MAX)
        };
        Self(moka::sync::Cache::builder().max_capacity(bytes).weigher(weigh).build())
    }

    pub fn get(&self, digest: &Digest) -> Option<Verified> {
        self.0.get(digest)
    }

    pub fn put(&self, digest: Digest, verified: Verified) {
        self.0.insert(digest, verified);
    }
}
