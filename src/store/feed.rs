//! Following the store: what has changed since a revision, whichever process changed it.

use super::{Store, StoreError};
use crate::domain::record::Record;
use sqlx::{Connection, Row, SqliteConnection};

/// One record as it now is; without a body it was deleted.
#[derive(Debug, Clone)]
pub struct Change {
    pub kind: String,
    pub id: String,
    body: Option<String>,
}

impl Change {
    /// The record, if this is one of `T` and it exists.
    pub fn read<T: Record>(&self) -> Option<Result<T, serde_json::Error>> {
        let body = self.body.as_deref().filter(|_| self.kind == T::KIND)?;
        Some(serde_json::from_str(body))
    }

    pub fn deleted(&self) -> bool {
        self.body.is_none()
    }
}

#[derive(Debug)]
pub struct Changes {
    /// The revision that has been reached.
    pub revision: i64,
    pub list: Vec<Change>,
}

impl Store {
    /// Every record that changed after revision `since`; from zero, all that exist.
    pub async fn changes(&self, since: i64) -> Result<Changes, StoreError> {
        let query = if since == 0 {
            "SELECT kind, id, revision, body, mac FROM records WHERE revision > $1 AND body IS NOT NULL ORDER BY revision"
        } else {
            "SELECT kind, id, revision, body, mac FROM records WHERE revision > $1 ORDER BY revision"
        };
        let failed = |error| self.failed(error);
        let mut tx = self.reader.begin().await.map_err(failed)?;
        let row = sqlx::query("SELECT value FROM revision WHERE one = 1").fetch_one(&mut *tx).await.map_err(failed)?;
        let revision = row.try_get(0).map_err(failed)?;
        let rows = sqlx::query(query).bind(since).fetch_all(&mut *tx).await.map_err(failed)?;
        let mut list = Vec::with_capacity(rows.len());
        for row in &rows {
            let kind: String = row.try_get("kind").map_err(failed)?;
            let body = self.verified(&kind, row)?;
            list.push(Change { id: row.try_get("id").map_err(failed)?, kind, body });
        }
        Ok(Changes { revision, list })
    }

    /// A kept connection that notices commits of other processes at the cost of one pragma.
    pub async fn follow(&self) -> Result<Follower, StoreError> {
        let options = self.reader.connect_options();
        let connection = SqliteConnection::connect_with(&options).await.map_err(|error| self.failed(error))?;
        Ok(Follower { store: self.clone(), connection, version: -1 })
    }
}

#[derive(Debug)]
pub struct Follower {
    store: Store,
    connection: SqliteConnection,
    version: i64,
}

impl Follower {
    /// Ends the connection in order: the last one to go writes the log back into the store.
    pub async fn close(self) {
        let _ = self.connection.close().await;
    }

    /// Whether anything was committed since the last call.
    pub async fn moved(&mut self) -> Result<bool, StoreError> {
        let row = sqlx::query("PRAGMA data_version").fetch_one(&mut self.connection).await;
        let version: i64 = row.and_then(|row| row.try_get(0)).map_err(|error| self.store.failed(error))?;
        Ok(std::mem::replace(&mut self.version, version) != version)
    }
}
