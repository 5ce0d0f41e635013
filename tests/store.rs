//! The store's conformance suite: what every backend must do. It runs on SQLite.

use flowgate::config::{MasterKeySource, StoreSetting};
use flowgate::crypto::seal::MasterKey;
use flowgate::domain::name::RoleName;
use flowgate::domain::record::{Claim, Record};
use flowgate::domain::role::Role;
use flowgate::store::{Lease, Store, StoreError};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Thing {
    id: String,
    claim: String,
}

impl Record for Thing {
    const KIND: &'static str = "thing";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn claims(&self) -> Vec<Claim> {
        vec![Claim::new("thing-name", &*self.claim)]
    }
}

fn thing(id: &str, claim: &str) -> Thing {
    Thing { id: id.into(), claim: claim.into() }
}

fn setting(dir: &Path) -> StoreSetting {
    StoreSetting { path: dir.join("data/store.db"), master_key: MasterKeySource::File(dir.join("keys/master.key")) }
}

async fn empty() -> (TempDir, Store) {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(&setting(dir.path())).await.expect("opens");
    (dir, store)
}

async fn put(store: &Store, thing: &Thing) -> Result<(), StoreError> {
    let mut writing = store.write().await?;
    writing.put(thing).await?;
    writing.commit().await
}

async fn refusal(setting: &StoreSetting) -> String {
    Store::open(setting).await.expect_err("refused").to_string()
}

#[tokio::test]
async fn what_is_committed_is_there_after_opening_again() {
    let (dir, store) = empty().await;
    put(&store, &thing("1", "a")).await.expect("written");
    store.close().await;
    let store = Store::open(&setting(dir.path())).await.expect("opens");
    assert_eq!(store.list::<Thing>().await.expect("lists"), [thing("1", "a")]);
    assert_eq!(store.get::<Thing>("2").await.expect("reads"), None);
}

#[tokio::test]
async fn what_is_not_committed_has_not_happened() {
    let (_dir, store) = empty().await;
    let mut writing = store.write().await.expect("begins");
    writing.put(&thing("1", "a")).await.expect("written");
    drop(writing);
    assert!(store.list::<Thing>().await.expect("lists").is_empty());
}

#[tokio::test]
async fn a_claim_belongs_to_one_record_until_it_is_given_up() {
    let (_dir, store) = empty().await;
    put(&store, &thing("1", "a")).await.expect("written");
    let taken = put(&store, &thing("2", "a")).await.expect_err("taken");
    assert_eq!(taken.to_string(), "thing-name `a` is taken by thing 1");
    put(&store, &thing("1", "b")).await.expect("changed");
    put(&store, &thing("2", "a")).await.expect("free now");
    let mut writing = store.write().await.expect("begins");
    writing.delete::<Thing>("2").await.expect("deleted");
    writing.put(&thing("3", "a")).await.expect("free again");
    writing.commit().await.expect("committed");
}

#[tokio::test]
async fn deleting_what_is_not_there_is_an_error() {
    let (_dir, store) = empty().await;
    let mut writing = store.write().await.expect("begins");
    assert!(matches!(writing.delete::<Thing>("1").await, Err(StoreError::Missing { .. })));
}

#[tokio::test]
async fn followers_see_changes_of_other_processes_and_only_those() {
    let (dir, store) = empty().await;
    let other = Store::open(&setting(dir.path())).await.expect("opens twice");
    let mut follower = store.follow().await.expect("follows");
    assert!(follower.moved().await.expect("first look"));
    assert!(!follower.moved().await.expect("quiet"));
    put(&other, &thing("1", "a")).await.expect("written");
    assert!(follower.moved().await.expect("moved"));
    let all = store.changes(0).await.expect("reads");
    put(&other, &thing("2", "b")).await.expect("written");
    let mut writing = other.write().await.expect("begins");
    writing.delete::<Thing>("1").await.expect("deleted");
    writing.commit().await.expect("committed");
    let news = store.changes(all.revision).await.expect("reads");
    let seen: Vec<_> = news.list.iter().map(|change| (change.id.as_str(), change.deleted())).collect();
    assert_eq!(seen, [("2", false), ("1", true)]);
    assert_eq!(store.changes(0).await.expect("reads").list.len(), 1);
}

#[tokio::test]
async fn a_lease_is_held_by_one_until_it_ends() {
    let (_dir, store) = empty().await;
    let lease = |holder: &str, until| Lease { name: "upkeep".into(), holder: holder.into(), until };
    assert!(store.acquire(&lease("a", 100), 0).await.expect("free"));
    assert!(!store.acquire(&lease("b", 200), 50).await.expect("held"));
    assert!(store.acquire(&lease("a", 150), 50).await.expect("renewed"));
    assert!(store.acquire(&lease("b", 300), 150).await.expect("ended"));
    store.release("upkeep", "a").await.expect("not its own");
    assert!(!store.acquire(&lease("a", 400), 200).await.expect("still b's"));
    store.release("upkeep", "b").await.expect("given back");
    assert!(store.acquire(&lease("a", 400), 200).await.expect("free again"));
}

#[tokio::test]
async fn writers_do_not_lose_each_others_changes() {
    let (dir, store) = empty().await;
    let other = Store::open(&setting(dir.path())).await.expect("opens twice");
    let many = |store: Store, who: &'static str| async move {
        for n in 0..25 {
            let id = format!("{who}{n}");
            put(&store, &thing(&id, &id)).await.expect("written");
        }
    };
    tokio::join!(many(store.clone(), "a"), many(other, "b"));
    assert_eq!(store.list::<Thing>().await.expect("lists").len(), 50);
}

#[tokio::test]
async fn files_are_for_their_owner_alone() {
    let (dir, _store) = empty().await;
    for file in ["data/store.db", "data/store.db-wal", "keys/master.key"] {
        let mode = std::fs::metadata(dir.path().join(file)).expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn another_master_key_or_none_is_told() {
    let (dir, store) = empty().await;
    store.close().await;
    let key = dir.path().join("keys/master.key");
    std::fs::remove_file(&key).expect("removed");
    assert!(refusal(&setting(dir.path())).await.contains("put that key back in place"));
    let other = MasterKeySource::Given(MasterKey::generate());
    let told = refusal(&StoreSetting { master_key: other, ..setting(dir.path()) }).await;
    assert!(told.contains("is sealed with master key") && told.contains("the configured one is"), "{told}");
}

#[tokio::test]
async fn a_damaged_store_is_refused() {
    let (dir, store) = empty().await;
    put(&store, &thing("1", "aaaaaaaaaaaa")).await.expect("written");
    store.close().await;
    let path = setting(dir.path()).path;
    let bytes = std::fs::read(&path).expect("read");
    let at = bytes.windows(14).position(|window| window == b"\"aaaaaaaaaaaa\"").expect("the record") + 1;
    let mut flipped = bytes.clone();
    flipped[at] ^= 1;
    for broken in [flipped, bytes[..bytes.len() / 2].to_vec(), b"no database, surely not".repeat(100)] {
        std::fs::write(&path, broken).expect("written");
        let told = match Store::open(&setting(dir.path())).await {
            Ok(store) => store.changes(0).await.expect_err("refused").to_string(),
            Err(error) => error.to_string(),
        };
        assert!(told.contains("is damaged"), "{told}");
    }
}

#[tokio::test]
async fn a_newer_store_is_refused() {
    let (dir, store) = empty().await;
    store.close().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(setting(dir.path()).path);
    let pool = sqlx::SqlitePool::connect_with(options).await.expect("opens");
    let insert = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (999, 'later', 1, x'00', 0)";
    sqlx::query(insert).execute(&pool).await.expect("inserted");
    pool.close().await;
    assert!(refusal(&setting(dir.path())).await.contains("written by a newer flowgate"));
}

#[tokio::test]
async fn one_serve_holds_the_lock() {
    let dir = tempfile::tempdir().expect("a folder");
    let held = Store::lock(&setting(dir.path())).expect("free");
    assert!(matches!(Store::lock(&setting(dir.path())), Err(StoreError::InUse(_))));
    drop(held);
    assert!(Store::lock(&setting(dir.path())).is_ok());
}

#[tokio::test]
async fn records_of_different_kinds_do_not_meet() {
    let (_dir, store) = empty().await;
    let role = Role { name: RoleName::parse("1").expect("a name"), description: String::new() };
    let mut writing = store.write().await.expect("begins");
    writing.put(&role).await.expect("written");
    writing.put(&thing("1", "1")).await.expect("written");
    writing.commit().await.expect("committed");
    assert_eq!(store.list::<Thing>().await.expect("lists").len(), 1);
    assert_eq!(store.get::<Role>("1").await.expect("reads"), Some(role));
}
