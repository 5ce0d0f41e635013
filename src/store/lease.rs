//! Leases: work that one process does at a time, across all that share the store.

use super::{Store, StoreError};

/// Who holds a piece of work, and until when (Unix seconds).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub name: String,
    pub holder: String,
    pub until: i64,
}

impl Store {
    /// Takes or renews a lease; false if another holder's has not ended.
    pub async fn acquire(&self, lease: &Lease, now: i64) -> Result<bool, StoreError> {
        let take = "INSERT INTO leases (name, holder, until) VALUES ($1, $2, $3) \
             ON CONFLICT (name) DO UPDATE SET holder = $2, until = $3 WHERE leases.holder = $2 OR leases.until <= $4";
        let query = sqlx::query(take).bind(&lease.name).bind(&lease.holder).bind(lease.until).bind(now);
        let done = query.execute(&self.writer).await.map_err(|error| self.failed(error))?;
        Ok(done.rows_affected() == 1)
    }

    /// Gives a lease back; another holder's stays.
    pub async fn release(&self, name: &str, holder: &str) -> Result<(), StoreError> {
        let query = sqlx::query("DELETE FROM leases WHERE name = $1 AND holder = $2").bind(name).bind(holder);
        query.execute(&self.writer).await.map(|_| ()).map_err(|error| self.failed(error))
    }
}
