//! How many exchanges run at once: a few with one token service, so that it sees no storm, and a
//! bounded number with all, so that one that has fallen silent does not hold up the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// With one token service.
const OF_ONE: usize = 16;
/// With all together.
const OF_ALL: usize = 256;

pub struct Places {
    all: Arc<Semaphore>,
    /// By the service's authority.
    services: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// Held for the time of an exchange.
pub struct Place(#[expect(dead_code, reason = "held, not read")] [OwnedSemaphorePermit; 2]);

impl Default for Places {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(OF_ALL)), services: Mutex::default() }
    }
}

impl Places {
    /// Waits for a place with a service; None once nothing begins any more.
    pub async fn take(&self, service: &str) -> Option<Place> {
        let own = self.service(service)?;
        let own = own.acquire_owned().await.ok()?;
        let all = self.all.clone().acquire_owned().await.ok()?;
        Some(Place([own, all]))
    }

    /// What has not begun does not begin.
    pub fn close(&self) {
        self.all.close();
        for service in self.services.lock().unwrap_or_else(PoisonError::into_inner).values() {
            service.close();
        }
    }

    fn service(&self, name: &str) -> Option<Arc<Semaphore>> {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if self.all.is_closed() {
            return None;
        }
        // those that nobody uses or waits for have nothing to remember
        services.retain(|_, service| Arc::strong_count(service) > 1);
        Some(services.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(OF_ONE))).clone())
    }
}
