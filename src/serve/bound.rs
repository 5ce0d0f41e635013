//! How many connections there may be, which a reload may change while they are open.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

pub struct Bound {
    room: Arc<Semaphore>,
    /// Permits that there are, in use or not.
    permits: Arc<AtomicUsize>,
    /// Takes permits away as soon as their connections have ended.
    shrinking: Option<JoinHandle<()>>,
}

impl Bound {
    pub fn new(most: usize) -> Self {
        let (room, permits) = (Arc::new(Semaphore::new(most)), Arc::new(AtomicUsize::new(most)));
        Self { room, permits, shrinking: None }
    }

    pub fn room(&self) -> &Arc<Semaphore> {
        &self.room
    }

    pub fn resize(&mut self, most: usize) {
        if let Some(before) = self.shrinking.take() {
            before.abort();
        }
        let permits = self.permits.load(Relaxed);
        if most >= permits {
            self.room.add_permits(most - permits);
            self.permits.store(most, Relaxed);
            return;
        }
        let (room, known) = (self.room.clone(), self.permits.clone());
        self.shrinking = Some(tokio::spawn(async move {
            // one by one, so that an end in between leaves both numbers right
            while known.load(Relaxed) > most {
                let Ok(permit) = room.acquire().await else { return };
                permit.forget();
                known.fetch_sub(1, Relaxed);
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn settled(bound: &Bound, free: usize) {
        while bound.room.available_permits() != free {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_lower_bound_holds_as_soon_as_enough_have_ended_and_a_higher_one_at_once() {
        let mut bound = Bound::new(3);
        let used = bound.room.clone().acquire_many_owned(3).await.expect("three");
        bound.resize(1);
        tokio::task::yield_now().await;
        drop(used);
        settled(&bound, 1).await;
        bound.resize(5);
        settled(&bound, 5).await;
        let used = bound.room.clone().acquire_many_owned(5).await.expect("five");
        bound.resize(2);
        tokio::task::yield_now().await;
        bound.resize(4);
        drop(used);
        settled(&bound, 4).await;
    }
}
