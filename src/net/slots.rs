//! How many connections a server may have, over all lanes. Each lane keeps its own; one that another lane
//! waits for is closed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// By what servers are known.
#[derive(Debug, Default)]
pub struct AllSlots(Mutex<HashMap<Arc<str>, Arc<Slots>>>);

/// Leave to have a connection, until it is dropped.
pub type Slot = OwnedSemaphorePermit;

#[derive(Debug)]
pub struct Slots {
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl AllSlots {
    /// The slots of a server, whose key says how many there are. Those that nobody has are forgotten.
    pub fn of(&self, key: &Arc<str>, most: usize) -> Arc<Slots> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known, slots| known == key || Arc::strong_count(slots) > 1);
        let fresh = || Arc::new(Slots { free: Arc::new(Semaphore::new(most)), waiting: AtomicUsize::new(0) });
        all.entry(key.clone()).or_insert_with(fresh).clone()
    }
}

impl Slots {
    pub async fn take(&self) -> Option<Slot> {
        self.free.clone().acquire_owned().await.ok()
    }

    pub fn try_take(&self) -> Option<Slot> {
        self.free.clone().try_acquire_owned().ok()
    }

    pub fn none_left(&self) -> bool {
        self.free.available_permits() == 0
    }

    /// Calls that wait for one.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// A call begins to wait for one, or has ended that.
    pub fn wait(&self, begins: bool) {
        if begins {
            self.waiting.fetch_add(1, Relaxed);
        } else {
            self.waiting.fetch_sub(1, Relaxed);
        }
    }
}
