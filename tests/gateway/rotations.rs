//! Consents and their rotations for each kind of provider, with a clock that the test moves.

use crate::stub::{Seen, Stub, form, reply};
use crate::world::overlaid;
use flowgate::config::{MasterKeySource, StoreSetting};
use flowgate::domain::artifact::{Artifact, MAX_AUTHORIZATION_CODE};
use flowgate::domain::authorization::{Callback, Ended};
use flowgate::domain::credential::{CredentialState, Refresh};
use flowgate::domain::key::Origin;
use flowgate::domain::material::Parameters;
use flowgate::gateway::Clock;
use flowgate::gateway::administer::Administration;
use flowgate::gateway::exchanger::Exchanger;
use flowgate::gateway::keeper::{Keeper, Wish};
use flowgate::net::outbound::Policy;
use flowgate::store::Store;
use rustls::RootCertStore;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

const START: i64 = 1_800_000_000;
const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;

struct Moved(AtomicI64);

impl Clock for Moved {
    fn now(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

struct Place {
    _dir: TempDir,
    store: Store,
    clock: Arc<Moved>,
    keeper: Keeper,
    origin: Origin,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let master_key = MasterKeySource::File(dir.path().join("master.key"));
        let setting = StoreSetting { path: dir.path().join("store.db"), master_key };
        let store = Store::open(&setting).await.expect("opens");
        let clock = Arc::new(Moved(AtomicI64::new(START)));
        let allow = vec!["127.0.0.0/8".parse().expect("a network")];
        let policy = Policy { allow, roots: RootCertStore::empty(), connectivity_proxy: None };
        let keeper = Keeper::new(store.clone(), Exchanger::new(policy, clock.clone()), "test".into());
        let origin = Origin { url: "https://gateway.example".into(), mtls_url: None };
        Self { _dir: dir, store, clock, keeper, origin }
    }

    fn administration(&self) -> Administration<'_> {
        Administration { store: &self.store, origin: &self.origin, now: self.clock.now() }
    }

    fn later(&self, seconds: i64) {
        self.clock.0.fetch_add(seconds, Ordering::SeqCst);
    }

    async fn state(&self, artifact: &Artifact) -> CredentialState {
        self.store.get(&artifact.id).await.expect("reads").expect("there")
    }

    /// An artifact, and the callback with which a user's consent to it comes.
    async fn asked(&self, provider: &Stub, more: &Value) -> (Artifact, Callback) {
        let admin = self.administration();
        let parameters = Parameters::parse(parameters(provider, "mail", more)).expect("parses");
        let artifact = admin.create_credential(&parameters).await.expect("created");
        let url = admin.begin_authorization(&artifact.name).await.expect("begun");
        let asked = form(url.split_once('?').expect("a query").1);
        let callback = Callback::parse(&format!("state={}&code=c", asked["state"])).expect("a callback");
        (artifact, callback)
    }

    /// An artifact to which a user has consented.
    async fn authorised(&self, provider: &Stub, more: &Value) -> Artifact {
        let (artifact, callback) = self.asked(provider, more).await;
        assert_eq!(self.keeper.redeem(&callback).await, Ended::Authorised);
        artifact
    }

    async fn token(&self, artifact: &Artifact) -> String {
        let held = self.keeper.keep(artifact, Wish::Any).await.expect("a token");
        held.token().expose_secret().to_owned()
    }
}

fn parameters(provider: &Stub, name: &str, more: &Value) -> Value {
    let members = json!({
        "type": "oauth2-authorization-code", "name": name, "client-id": "id", "client-secret": "s3cret", "scope": "a b",
        "authorization-url": format!("http://{}/auth", provider.address),
        "token-service-url": format!("http://{}/token", provider.address),
    });
    overlaid(members, more)
}

/// What a provider makes of the refresh token that it is shown.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Another each time; one that comes a second time ends the consent.
    SingleUse,
    /// Another each time; the one before is merely unknown from then on.
    OldDies,
    /// Another each time; those before go on to be good.
    OldLives,
    /// The first for ever, and it is not said again.
    NeverRotates,
    /// The first for ever, said again each time.
    SaysItAgain,
}

fn provider(kind: Kind) -> Stub {
    let good: Mutex<Vec<String>> = Mutex::new(Vec::new());
    Stub::new(move |before, seen| {
        let mut good = good.lock().expect("unpoisoned");
        let sent = form(&seen.body);
        if sent["grant_type"] == "refresh_token" && !good.contains(&sent["refresh_token"]) {
            if kind == Kind::SingleUse {
                good.clear();
            }
            return reply("400 Bad Request", "{\"error\":\"invalid_grant\"}");
        }
        let rotates = matches!(kind, Kind::SingleUse | Kind::OldDies | Kind::OldLives);
        let first = good.is_empty();
        if rotates || first {
            if matches!(kind, Kind::SingleUse | Kind::OldDies) {
                good.clear();
            }
            good.push(format!("r{before}"));
        }
        let mut body = json!({ "access_token": format!("a{before}"), "expires_in": HOUR });
        if rotates || first || kind == Kind::SaysItAgain {
            body["refresh_token"] = json!(good.last());
        }
        reply("200 OK", &body.to_string())
    })
}

/// The wire form of a refresh, whole.
fn assert_refresh(seen: &Seen, more: &Value, token: &str) {
    assert_eq!(seen.line, "POST /token HTTP/1.1");
    assert_eq!(seen.header("authorization"), None);
    let mut want = HashMap::from(
        [("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", "id"), ("client_secret", "s3cret")]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    if more["provider"] == "microsoft-365" {
        want.insert("scope".to_owned(), "a b offline_access".to_owned());
    }
    assert_eq!(form(&seen.body), want);
}

#[tokio::test]
async fn ten_rotations_go_well_with_each_kind_of_provider() {
    for (kind, more) in [
        (Kind::SingleUse, json!({ "refresh-token-expiry": 30 })),
        (Kind::OldDies, json!({ "refresh-token-expiry": 30 })),
        (Kind::OldLives, json!({ "refresh-token-expiry": 30 })),
        (Kind::NeverRotates, json!({ "refresh-token-expiry": 30 })),
        (Kind::NeverRotates, json!({})),
        (Kind::SaysItAgain, json!({})),
        (Kind::OldLives, json!({ "provider": "microsoft-365" })),
        (Kind::SingleUse, json!({ "provider": "microsoft-365" })),
    ] {
        let (place, provider) = (Place::new().await, provider(kind));
        let artifact = place.authorised(&provider, &more).await;
        assert_eq!(place.token(&artifact).await, "a0", "{kind:?}");
        let mut sent = "r0".to_owned();
        for round in 1..=10 {
            place.later(HOUR);
            assert_eq!(place.token(&artifact).await, format!("a{round}"), "{kind:?}");
            assert_eq!(place.token(&artifact).await, format!("a{round}"), "asked once: {kind:?}");
            let journal = provider.journal();
            assert_eq!(journal.len(), round + 1, "{kind:?}");
            assert_refresh(&journal[round], &more, &sent);
            if !matches!(kind, Kind::NeverRotates | Kind::SaysItAgain) {
                sent = format!("r{round}");
            }
        }
        let state = place.state(&artifact).await;
        assert_eq!(state.status(&artifact, place.clock.now()), "Deployed", "{kind:?}");
        assert_eq!(state.warning(&artifact, place.clock.now()), None, "{kind:?}");
    }
}

#[tokio::test]
async fn a_refresh_token_that_nobody_uses_is_replaced_before_it_ends() {
    let (place, provider) = (Place::new().await, provider(Kind::SingleUse));
    let artifact = place.authorised(&provider, &json!({ "refresh-token-expiry": 10 })).await;
    let due = |state: &CredentialState| state.refresh.as_ref().and_then(Refresh::due).expect("a turn");
    for round in 1..=10 {
        let state = place.state(&artifact).await;
        place.clock.0.store(due(&state), Ordering::SeqCst);
        assert!(place.keeper.due(&artifact, &state));
        place.token(&artifact).await;
        let refreshed = place.state(&artifact).await.refresh.expect("a refresh token");
        assert_eq!((provider.journal().len(), refreshed.expires), (round + 1, Some(place.clock.now() + 10 * DAY)));
    }
    assert_eq!(place.clock.now() - START, 50 * DAY, "half its life each time");
}

#[tokio::test]
async fn a_callback_that_comes_twice_at_once_is_redeemed_once() {
    let (place, provider) = (Place::new().await, provider(Kind::SingleUse));
    let (_, callback) = place.asked(&provider, &json!({})).await;
    let (one, two) = tokio::join!(place.keeper.redeem(&callback), place.keeper.redeem(&callback));
    assert!(matches!((one, two), (Ended::Authorised, Ended::Unknown) | (Ended::Unknown, Ended::Authorised)));
    assert_eq!(provider.journal().len(), 1);
}

#[tokio::test]
async fn access_tokens_of_less_than_half_an_hour_are_warned_about() {
    for (life, warned) in [(1_799, true), (1_800, false)] {
        let place = Place::new().await;
        let provider = Stub::new(move |_, _| {
            reply("200 OK", &json!({ "access_token": "a", "refresh_token": "r", "expires_in": life }).to_string())
        });
        let artifact = place.authorised(&provider, &json!({})).await;
        let warning = place.state(&artifact).await.warning(&artifact, place.clock.now());
        assert_eq!(warning.is_some_and(|text| text.contains("at least 30 minutes")), warned, "{life}");
    }
}

#[tokio::test]
async fn the_five_hundred_and_first_authorization_code_artifact_is_refused() {
    let (place, provider) = (Place::new().await, provider(Kind::OldDies));
    let admin = place.administration();
    let parse = |name: &str| Parameters::parse(parameters(&provider, name, &json!({}))).expect("parses");
    let mut writing = place.store.write().await.expect("begins");
    for n in 1..MAX_AUTHORIZATION_CODE {
        let (artifact, _) = parse(&format!("c{n}")).create(format!("id{n}"), START).expect("fits");
        writing.put(&artifact).await.expect("written");
    }
    writing.commit().await.expect("committed");
    admin.create_credential(&parse("last")).await.expect("the 500th");
    let refused = admin.create_credential(&parse("more")).await.expect_err("the 501st").to_string();
    assert!(refused.contains("500 authorization code credentials already"), "{refused}");
    assert_eq!(admin.list_credentials().await.expect("lists").len(), 500);
}
