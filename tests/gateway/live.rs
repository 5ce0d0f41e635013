//! What is taken away is refused within a second, on a live connection, whoever took it away.

use crate::world::{HOLD, World, time_until};
use flowgate::config;
use flowgate::domain::instance::{Instance, Plan};
use flowgate::domain::key::{Credential, Key};
use flowgate::domain::name::{InstanceName, KeyName};
use flowgate::store::Store;
use std::cell::RefCell;

/// Calls on one kept connection until the status is seen, and says how long that took.
fn seen(world: &World, token: &str, status: u16) -> std::time::Duration {
    let connection = RefCell::new(world.connection());
    time_until("the change holds", || connection.borrow_mut().call("/http/orders/1", token) == status)
}

fn taken_away(world: &World) {
    let sender = world.sender("s", "ESBMessaging.send");
    let second = world.key("s", "second");
    let (token, other) = (world.token(&sender), world.token(&second));
    assert_eq!(world.connection().call("/http/orders/1", &token), 200);

    world.done(&["key", "delete", "s", "key"]);
    assert!(seen(world, &token, 401) < HOLD, "a deleted key");
    world.logged(|line| line["reason"] == "key-gone");
    assert_eq!(world.call("/http/orders/1", &other).status, 200, "another key of the instance goes on");

    world.done(&["role", "create", "Other.role"]);
    world.done(&["instance", "update", "s", "--roles", "Other.role"]);
    assert!(seen(world, &other, 403) < HOLD, "a removed role");
    world.logged(|line| line["reason"] == "role-withdrawn");
    world.done(&["instance", "update", "s", "--roles", "ESBMessaging.send"]);
    assert!(seen(world, &other, 200) < HOLD, "a role given back");

    let revoked = world.post("/oauth/revoke", &second.basic(), &format!("token={other}"));
    assert_eq!(revoked.status, 200);
    assert!(seen(world, &other, 401) < HOLD, "a revoked token");

    let last = world.token(&second);
    world.done(&["key", "delete", "s", "second"]);
    world.done(&["instance", "delete", "s"]);
    assert!(seen(world, &last, 401) < HOLD, "a deleted instance");
}

#[test]
fn a_deletion_a_withdrawn_role_and_a_revocation_hold_within_a_second() {
    taken_away(&World::new());
}

#[test]
fn the_same_with_a_hundred_thousand_keys() {
    let world = World::new();
    let path = world.file("config.yaml");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = config::load(&path, &|_| None).expect("valid").config;
        let store = Store::open(&config.store).await.expect("opens");
        let mut writing = store.write().await.expect("begins");
        for number in 0..100 {
            let id = format!("many-{number}");
            let instance = Instance {
                id: id.clone(),
                name: InstanceName::parse(&id).expect("a name"),
                plan: Plan::IntegrationFlow,
                client_id: format!("sb-{id}"),
                aliases: Vec::new(),
                roles: Vec::new(),
                token_validity: 3600,
                bound_tokens: false,
                trusted_cas: Vec::new(),
                created: 0,
            };
            writing.put(&instance).await.expect("written");
            for key in 0..1_000 {
                let credential = Credential::Secret { digest: format!("{:064x}", number * 1_000 + key) };
                let name = KeyName::parse(&key.to_string()).expect("a name");
                let key = Key { id: format!("{id}-{key}"), instance_id: id.clone(), name, created: 0, credential };
                writing.put(&key).await.expect("written");
            }
        }
        writing.commit().await.expect("committed");
    });
    taken_away(&world);
}

#[test]
fn a_purged_signing_key_takes_its_tokens_along_and_a_rotated_one_does_not() {
    let world = World::new();
    let sender = world.sender("s", "ESBMessaging.send");
    let token = world.token(&sender);
    let kids = || {
        world.get("/token_keys", "").json()["keys"]
            .as_array()
            .expect("keys")
            .iter()
            .map(|key| key["kid"].as_str().expect("a kid").to_owned())
            .collect::<Vec<_>>()
    };
    let old = kids()[0].clone();
    let said = world.done(&["signing-key", "rotate"]);
    assert!(said.contains("signs from"));
    assert!(time_until("both are published", || kids().len() == 2) < HOLD);
    assert_eq!(world.get("/token_key", "").json()["kid"], old.as_str(), "the new one signs after its lead");
    world.done(&["signing-key", "rotate", "--now"]);
    assert!(time_until("the new one signs", || world.get("/token_key", "").json()["kid"] != old.as_str()) < HOLD);
    assert_eq!(world.call("/http/orders/1", &token).status, 200, "the old one still verifies");
    world.done(&["signing-key", "purge", &old]);
    assert!(seen(&world, &token, 401) < HOLD);
    world.logged(|line| line["reason"] == "token-key-unknown");
    assert_eq!(world.call("/http/orders/1", &world.token(&sender)).status, 200);
}
