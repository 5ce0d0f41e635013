//! A change: reads and writes in one transaction that no other change interleaves with.

use super::{GET, LIST, Store, StoreError};
use crate::domain::record::Record;
use sqlx::{Row, Sqlite, Transaction};

/// Dropped without `commit`, nothing has happened.
pub struct Writing<'a> {
    store: &'a Store,
    tx: Transaction<'static, Sqlite>,
    revision: i64,
    dirty: bool,
}

impl<'a> Writing<'a> {
    pub(super) async fn begin(store: &'a Store) -> Result<Self, StoreError> {
        let failed = |error| store.failed(error);
        let mut tx = store.writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        let row = sqlx::query("SELECT value FROM revision WHERE one = 1").fetch_one(&mut *tx).await.map_err(failed)?;
        let revision: i64 = row.try_get(0).map_err(failed)?;
        Ok(Self { store, tx, revision: revision + 1, dirty: false })
    }

    pub async fn get<T: Record>(&mut self, id: &str) -> Result<Option<T>, StoreError> {
        let query = sqlx::query(GET).bind(T::KIND).bind(id);
        let row = query.fetch_optional(&mut *self.tx).await.map_err(|error| self.store.failed(error))?;
        row.map(|row| self.store.read(T::KIND, &row)).transpose()
    }

    pub async fn list<T: Record>(&mut self) -> Result<Vec<T>, StoreError> {
        let rows = sqlx::query(LIST).bind(T::KIND).fetch_all(&mut *self.tx).await;
        let rows = rows.map_err(|error| self.store.failed(error))?;
        rows.iter().map(|row| self.store.read(T::KIND, row)).collect()
    }

    /// Who holds a claim: kind and id of the record.
    pub async fn claimed(&mut self, space: &str, value: &str) -> Result<Option<(String, String)>, StoreError> {
        let query = sqlx::query("SELECT kind, id FROM claims WHERE space = $1 AND value = $2").bind(space).bind(value);
        let row = query.fetch_optional(&mut *self.tx).await.map_err(|error| self.store.failed(error))?;
        row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose().map_err(|error| self.store.failed(error))
    }

    /// Who holds the first claim whose value begins with `prefix`, which ends in `/`.
    pub async fn claimed_below(&mut self, space: &str, prefix: &str) -> Result<Option<(String, String)>, StoreError> {
        // `0` follows `/`: a range of the primary key, where LIKE would read all
        let end = format!("{}0", prefix.trim_end_matches('/'));
        let text = "SELECT kind, id FROM claims WHERE space = $1 AND value >= $2 AND value < $3 LIMIT 1";
        let query = sqlx::query(text).bind(space).bind(prefix).bind(end);
        let row = query.fetch_optional(&mut *self.tx).await.map_err(|error| self.store.failed(error))?;
        row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose().map_err(|error| self.store.failed(error))
    }

    /// Writes a record as it now is, with its claims in place of the ones it had.
    pub async fn put<T: Record>(&mut self, record: &T) -> Result<(), StoreError> {
        let id = record.id();
        let failed = |error| self.store.failed(error);
        self.release(T::KIND, &id).await?;
        for claim in record.claims() {
            if let Some((kind, holder)) = self.claimed(claim.space, &claim.value).await? {
                return Err(StoreError::Taken { space: claim.space, value: claim.value, kind, id: holder });
            }
            sqlx::query("INSERT INTO claims (space, value, kind, id) VALUES ($1, $2, $3, $4)")
                .bind(claim.space)
                .bind(claim.value)
                .bind(T::KIND)
                .bind(&id)
                .execute(&mut *self.tx)
                .await
                .map_err(failed)?;
        }
        let body = serde_json::to_string(record).expect("a record is plain data");
        self.row(T::KIND, &id, Some(&body)).await
    }

    /// Deletes a record and releases its claims.
    pub async fn delete<T: Record>(&mut self, id: &str) -> Result<(), StoreError> {
        if self.get::<T>(id).await?.is_none() {
            return Err(StoreError::Missing { kind: T::KIND, id: id.to_owned() });
        }
        self.release(T::KIND, id).await?;
        self.row(T::KIND, id, None).await
    }

    async fn release(&mut self, kind: &str, id: &str) -> Result<(), StoreError> {
        let query = sqlx::query("DELETE FROM claims WHERE kind = $1 AND id = $2").bind(kind).bind(id);
        query.execute(&mut *self.tx).await.map(|_| ()).map_err(|error| self.store.failed(error))
    }

    async fn row(&mut self, kind: &str, id: &str, body: Option<&str>) -> Result<(), StoreError> {
        let mac = self.store.vault.record_mac(kind, id, self.revision, body.unwrap_or_default().as_bytes());
        let upsert = "INSERT INTO records (kind, id, revision, body, mac) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (kind, id) DO UPDATE SET revision = $3, body = $4, mac = $5";
        let query = sqlx::query(upsert).bind(kind).bind(id).bind(self.revision).bind(body).bind(mac.to_vec());
        query.execute(&mut *self.tx).await.map_err(|error| self.store.failed(error))?;
        self.dirty = true;
        Ok(())
    }

    /// Forgets records for good, without telling followers: for what has ended by itself.
    pub async fn forget(&mut self, kind: &str, ids: &[String]) -> Result<(), StoreError> {
        for id in ids {
            self.release(kind, id).await?;
            let query = sqlx::query("DELETE FROM records WHERE kind = $1 AND id = $2").bind(kind).bind(id);
            query.execute(&mut *self.tx).await.map_err(|error| self.store.failed(error))?;
        }
        Ok(())
    }

    /// Drops traces of deletions that every follower has seen long ago.
    pub async fn prune(&mut self, keep: i64) -> Result<(), StoreError> {
        let query = sqlx::query("DELETE FROM records WHERE body IS NULL AND revision < $1").bind(self.revision - keep);
        query.execute(&mut *self.tx).await.map(|_| ()).map_err(|error| self.store.failed(error))
    }

    /// On disk when this returns.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        let failed = |error| self.store.failed(error);
        if self.dirty {
            let query = sqlx::query("UPDATE revision SET value = $1 WHERE one = 1").bind(self.revision);
            query.execute(&mut *self.tx).await.map_err(failed)?;
        }
        self.tx.commit().await.map_err(failed)?;
        self.store.changed.notify_one();
        Ok(())
    }
}
