//! Opening a store: ownership, modes, migrations, keys. A store that is damaged, newer or sealed
//! with another key is refused with the reason, never half loaded.

use super::{Store, StoreError};
use crate::config::{MasterKeySource, StoreSetting};
use crate::crypto::seal::{Envelope, MasterKey, Vault};
use secrecy::{ExposeSecret, SecretString};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, SqlStr, SqlitePool};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How long a write waits for another process to finish its own.
const BUSY: Duration = Duration::from_secs(10);

/// Held by the one `serve` of a store for as long as it runs.
#[derive(Debug)]
pub struct ServeLock(#[expect(dead_code, reason = "the lock lives as long as the file is open")] File);

impl Store {
    pub async fn open(setting: &StoreSetting) -> Result<Self, StoreError> {
        let path = setting.path.clone();
        create(&path)?;
        check_owner(&path)?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY);
        let pool = |most| SqlitePoolOptions::new().max_connections(most).acquire_timeout(BUSY);
        let failed = |error| classify(&path, error);
        let writer = pool(1).connect_with(options.clone()).await.map_err(failed)?;
        migrate(&path, &writer).await?;
        let reader = pool(4).connect_with(options).await.map_err(failed)?;
        check_pages(&path, &reader).await?;
        let vault = Arc::new(unlock(setting, &writer).await?);
        Ok(Self { path: Arc::new(path), reader, writer, vault, changed: Arc::new(Notify::new()) })
    }

    /// Takes the lock that only one `serve` may hold.
    pub fn lock(setting: &StoreSetting) -> Result<ServeLock, StoreError> {
        let path = setting.path.with_extension("lock");
        create(&path)?;
        let file = File::open(&path).map_err(|error| StoreError::File(path.clone(), error))?;
        match file.try_lock() {
            Ok(()) => Ok(ServeLock(file)),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse(setting.path.clone())),
            Err(TryLockError::Error(error)) => Err(StoreError::File(path, error)),
        }
    }
}

/// Makes the file with mode 0600 (SQLite gives its companions the same) and its folder with 0700.
fn create(path: &Path) -> Result<(), StoreError> {
    let failed = |error| StoreError::File(path.to_owned(), error);
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// A command run as root would leave files that the gateway cannot write.
fn check_owner(path: &Path) -> Result<(), StoreError> {
    let owner = std::fs::metadata(path).map_err(|error| StoreError::File(path.to_owned(), error))?.uid();
    let user = rustix::process::geteuid().as_raw();
    if owner == user { Ok(()) } else { Err(StoreError::Owner { path: path.to_owned(), owner, user }) }
}

async fn migrate(path: &Path, pool: &SqlitePool) -> Result<(), StoreError> {
    let first = SqlStr::from_static(include_str!("migrations/0001_records.sql"));
    let first = Migration::new(1, "records".into(), MigrationType::Simple, first, false);
    let migrator = Migrator::with_migrations(vec![first]);
    let mut connection = pool.acquire().await.map_err(|error| classify(path, error))?;
    // two processes may find an empty store at once; the second attempt then finds the work done
    if migrator.run_direct(None, &mut *connection, false).await.is_ok() {
        return Ok(());
    }
    migrator.run_direct(None, &mut *connection, false).await.map_err(|error| migration(path, error))
}

fn migration(path: &Path, error: MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMissing(_) | MigrateError::VersionTooNew(..) => StoreError::Newer(path.to_owned()),
        MigrateError::Execute(error) => classify(path, error),
        other => StoreError::Damaged(path.to_owned(), other.to_string()),
    }
}

async fn check_pages(path: &Path, pool: &SqlitePool) -> Result<(), StoreError> {
    let row = sqlx::query("PRAGMA quick_check(1)").fetch_one(pool).await.map_err(|error| classify(path, error))?;
    match row.try_get::<String, _>(0) {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(verdict) => Err(StoreError::Damaged(path.to_owned(), verdict)),
        Err(error) => Err(classify(path, error)),
    }
}

/// Damage is told apart from a store that merely does not answer.
pub(super) fn classify(path: &Path, error: sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default();
    // SQLITE_CORRUPT and SQLITE_NOTADB, with their extended codes
    let primary = code.parse::<u32>().map_or(0, |code| code & 0xff);
    let missing = error.as_database_error().is_some_and(|error| error.message().starts_with("no such"));
    if matches!(primary, 11 | 26) || missing {
        return StoreError::Damaged(path.to_owned(), error.to_string());
    }
    StoreError::Unavailable { path: path.to_owned(), source: error }
}

/// Opens the envelope, or makes it for an empty store.
async fn unlock(setting: &StoreSetting, pool: &SqlitePool) -> Result<Vault, StoreError> {
    let failed = |error| classify(&setting.path, error);
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    let row =
        sqlx::query("SELECT value FROM meta WHERE name = 'envelope'").fetch_optional(&mut *tx).await.map_err(failed)?;
    if let Some(row) = row {
        let text: String = row.try_get(0).map_err(failed)?;
        let envelope: Envelope = serde_json::from_str(&text)
            .map_err(|error| StoreError::Damaged(setting.path.clone(), error.to_string()))?;
        return Ok(Vault::open(&existing_key(&setting.master_key, &envelope)?, &envelope)?);
    }
    let used = sqlx::query("SELECT 1 FROM records LIMIT 1").fetch_optional(&mut *tx).await.map_err(failed)?;
    if used.is_some() {
        return Err(StoreError::Damaged(setting.path.clone(), "its wrapped keys are gone".into()));
    }
    let (vault, envelope) = Vault::create(&first_key(&setting.master_key)?);
    let text = serde_json::to_string(&envelope).expect("an envelope is plain text");
    let insert = sqlx::query("INSERT INTO meta (name, value) VALUES ('envelope', $1)").bind(text);
    insert.execute(&mut *tx).await.map_err(failed)?;
    tx.commit().await.map_err(failed)?;
    Ok(vault)
}

fn existing_key(source: &MasterKeySource, envelope: &Envelope) -> Result<MasterKey, StoreError> {
    match source {
        MasterKeySource::Given(text) => Ok(MasterKey::parse(text)?),
        MasterKeySource::File(path) => match std::fs::read_to_string(path) {
            Ok(text) => Ok(MasterKey::parse(&SecretString::from(text))?),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(StoreError::NoMasterKey { path: path.clone(), id: envelope.master_key_id().to_owned() })
            }
            Err(error) => Err(StoreError::File(path.clone(), error)),
        },
    }
}

/// The master key of a new store; its file is made if it does not exist.
fn first_key(source: &MasterKeySource) -> Result<MasterKey, StoreError> {
    let path = match source {
        MasterKeySource::Given(text) => return Ok(MasterKey::parse(text)?),
        MasterKeySource::File(path) => path,
    };
    let failed = |error| StoreError::File(path.clone(), error);
    if let Ok(text) = std::fs::read_to_string(path) {
        return Ok(MasterKey::parse(&SecretString::from(text))?);
    }
    let text = MasterKey::generate();
    write_secret(path, text.expose_secret()).map_err(failed)?;
    Ok(MasterKey::parse(&text)?)
}

/// Writes a new file that only its owner may read, and has it on disk before it counts.
fn write_secret(path: &PathBuf, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}
