//! The use cases, one function each: issue a token, admit a call, administer. Joins the rooms to
//! the left; knows no status codes and prints nothing.

pub mod administer;
mod admit;
mod cache;
mod certificate;
pub mod control;
pub mod errands;
pub mod exchanger;
pub mod finder;
mod issue;
pub mod issuers;
pub mod keeper;
mod lookup;
mod mirror;
pub mod outbound;
pub mod outward;
mod places;
mod rates;
pub mod signer;
pub mod state;

pub use admit::{Call, Seen};
pub use cache::LaneTokens;
pub use issue::{Introspection, Issued, Sender};
pub use mirror::{Mirror, MirrorError};

use cache::SharedTokens;
use control::Control;
use finder::Finder;
use issuers::Keys;
use outbound::Wants;
use outward::Outward;
use rates::Rates;
use signer::Signer;
use state::State;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use tokio::time::Instant;

/// The time, injected so that tests can set it. Unix seconds.
pub trait Clock: Send + Sync {
    fn now(&self) -> i64;
}

/// Everything that answers requests, shared by all lanes.
pub struct Gateway {
    pub state: Arc<State>,
    pub clock: Arc<dyn Clock>,
    /// For what is measured in time that never jumps.
    pub started: Instant,
    signer: Signer,
    tokens: SharedTokens,
    forwarded: certificate::Forwarded,
    control: Control,
    wants: Wants,
    finder: Finder,
    keys: Keys,
    pub rates: Rates,
    /// Requests under way, on all lanes.
    pub under_way: AtomicUsize,
}

impl Gateway {
    pub fn new(state: Arc<State>, clock: Arc<dyn Clock>, signer: Signer, control: Control, outward: Outward) -> Self {
        let Outward { wants, finder, keys } = outward;
        let tokens = SharedTokens::new(state.limits.load().token_cache);
        Self {
            state,
            clock,
            started: Instant::now(),
            signer,
            tokens,
            forwarded: certificate::forwarded(),
            control,
            wants,
            finder,
            keys,
            rates: Rates::default(),
            under_way: AtomicUsize::new(0),
        }
    }
}
