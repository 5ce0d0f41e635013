//! The only room that speaks SQL: typed records, unique claims, one revision counter, leases.
//! Acknowledged means on disk. Knows no HTTP and no business rule.

mod feed;
mod lease;
mod open;
mod write;

pub use feed::{Change, Changes, Follower};
pub use lease::Lease;
pub use open::ServeLock;
pub use write::Writing;

use crate::crypto::digest::same;
use crate::crypto::seal::{SealError, Vault};
use crate::domain::record::Record;
use sqlx::{Row, SqlitePool, sqlite::SqliteRow};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Notify;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store {path} does not answer: {source}")]
    Unavailable { path: PathBuf, source: sqlx::Error },
    #[error("the store {0} is damaged ({1}); restore it from a backup, nothing of it was loaded")]
    Damaged(PathBuf, String),
    #[error("the store {0} was written by a newer flowgate; use that version")]
    Newer(PathBuf),
    #[error("the store {path} belongs to user {owner}, this process runs as user {user}; run it as the owner")]
    Owner { path: PathBuf, owner: u32, user: u32 },
    #[error("the store {0} is in use by another `flowgate serve`; stop that one first")]
    InUse(PathBuf),
    #[error("the file {0} cannot be made or read: {1}")]
    File(PathBuf, std::io::Error),
    #[error(
        "the master key file {path} does not exist, but the store is sealed with master key {id}; put that key back in place"
    )]
    NoMasterKey { path: PathBuf, id: String },
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("{space} `{value}` is taken by {kind} {id}")]
    Taken { space: &'static str, value: String, kind: String, id: String },
    #[error("the {kind} `{id}` does not exist")]
    Missing { kind: &'static str, id: String },
}

/// An open store. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    path: Arc<PathBuf>,
    reader: SqlitePool,
    writer: SqlitePool,
    vault: Arc<Vault>,
    changed: Arc<Notify>,
}

impl Store {
    /// Opened keys, for sealing and for digests.
    pub fn vault(&self) -> &Arc<Vault> {
        &self.vault
    }

    pub async fn get<T: Record>(&self, id: &str) -> Result<Option<T>, StoreError> {
        let query = sqlx::query(GET).bind(T::KIND).bind(id);
        let row = query.fetch_optional(&self.reader).await.map_err(|error| self.failed(error))?;
        row.map(|row| self.read(T::KIND, &row)).transpose()
    }

    /// All records of a kind, in the order of their ids.
    pub async fn list<T: Record>(&self) -> Result<Vec<T>, StoreError> {
        let rows = sqlx::query(LIST).bind(T::KIND).fetch_all(&self.reader).await;
        let rows = rows.map_err(|error| self.failed(error))?;
        rows.iter().map(|row| self.read(T::KIND, row)).collect()
    }

    /// Begins a change. Changes come one after the other, whoever makes them.
    pub async fn write(&self) -> Result<Writing<'_>, StoreError> {
        Writing::begin(self).await
    }

    /// Waits until this process has committed something.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Closes all connections, so that the log is written back.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }

    fn read<T: Record>(&self, kind: &str, row: &SqliteRow) -> Result<T, StoreError> {
        let body = self.verified(kind, row)?;
        serde_json::from_str(&body.unwrap_or_default()).map_err(|error| self.damaged(kind, &error.to_string()))
    }

    /// The body of a row that is what was written there.
    fn verified(&self, kind: &str, row: &SqliteRow) -> Result<Option<String>, StoreError> {
        let broken = |error: sqlx::Error| self.damaged(kind, &error.to_string());
        let id: String = row.try_get("id").map_err(broken)?;
        let revision: i64 = row.try_get("revision").map_err(broken)?;
        let body: Option<String> = row.try_get("body").map_err(broken)?;
        let mac: Vec<u8> = row.try_get("mac").map_err(broken)?;
        let text = body.as_deref().unwrap_or_default();
        if !same(&mac, &self.vault.record_mac(kind, &id, revision, text.as_bytes())) {
            return Err(self.damaged(kind, &format!("record {id} was altered")));
        }
        Ok(body)
    }

    fn damaged(&self, kind: &str, what: &str) -> StoreError {
        StoreError::Damaged(self.path.as_ref().clone(), format!("{kind}: {what}"))
    }

    fn failed(&self, error: sqlx::Error) -> StoreError {
        open::classify(&self.path, error)
    }
}

const GET: &str = "SELECT id, revision, body, mac FROM records WHERE kind = $1 AND id = $2 AND body IS NOT NULL";
const LIST: &str = "SELECT id, revision, body, mac FROM records WHERE kind = $1 AND body IS NOT NULL ORDER BY id";
