//! What calls others on our own behalf, put together: the lanes' ends, and the tasks behind them.

use super::errands::Desk;
use super::exchanger::Exchanger;
use super::finder::Finder;
use super::issuers::{Keys, Librarian};
use super::keeper::Keeper;
use super::outbound::{Upkeep, Wants};
use super::state::State;
use crate::store::Store;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The lanes' ends.
pub struct Outward {
    pub wants: Wants,
    pub finder: Finder,
    pub keys: Keys,
}

/// What serves them.
pub struct Behind {
    upkeep: Upkeep,
    desk: Desk,
    librarian: Librarian,
}

impl Outward {
    /// `holder` names the process towards others on the store.
    pub fn new(store: Store, state: &Arc<State>, exchanger: &Arc<Exchanger>, holder: String) -> (Self, Behind) {
        let (wants, wanted) = Wants::new();
        let keeper = Arc::new(Keeper::new(store, exchanger.clone(), holder));
        let (errands, desk) = Desk::new(exchanger.clone(), wants.clone(), state.clone());
        let finder = Finder::new(state.clone(), exchanger.clock.clone(), wants.clone(), errands);
        let (keys, librarian) = Librarian::new(exchanger.clone(), state.clone());
        let upkeep = Upkeep::new(keeper, state.clone(), wanted);
        (Self { wants, finder, keys }, Behind { upkeep, desk, librarian })
    }
}

impl Behind {
    /// Runs until `stop`.
    pub fn spawn(self, stop: &CancellationToken) -> [JoinHandle<()>; 3] {
        let librarian = tokio::spawn(self.librarian.run(stop.clone()));
        [tokio::spawn(self.upkeep.run(stop.clone())), tokio::spawn(self.desk.run(stop.clone())), librarian]
    }
}
