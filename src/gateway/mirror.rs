//! The store's records as snapshots: applies changes, whichever process made them, and lets
//! earlier verdicts lapse.

use super::keeper::Held;
use super::outbound::{Credentials, Deployed};
use super::state::{Authorities, Revoked, Settings, State};
use crate::config::{Config, Listener};
use crate::crypto::keyring::{Keyring, SigningKey};
use crate::crypto::trust::{Trust, Unfit};
use crate::crypto::x509::{Certificate, CertificateError};
use crate::domain::artifact::Artifact;
use crate::domain::client::Clients;
use crate::domain::credential::CredentialState;
use crate::domain::destination::Entry;
use crate::domain::destination::directory::{Directory, Item};
use crate::domain::destination::properties::Properties;
use crate::domain::instance::Instance;
use crate::domain::key::Key;
use crate::domain::name::ArtifactName;
use crate::domain::outlook::View;
use crate::domain::record::Record;
use crate::domain::route::Routes;
use crate::domain::signing::SigningKeyRecord;
use crate::domain::tenant::Tenant;
use crate::domain::token::Revocation;
use crate::gateway::administer::authority::AuthorityRecord;
use crate::gateway::administer::signing::{self, SigningError};
use crate::store::{Change, Store, StoreError};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a {kind} in the store cannot be read: {error}")]
    Record { kind: &'static str, error: serde_json::Error },
    #[error(transparent)]
    Signing(#[from] SigningError),
    #[error("a trusted CA cannot be used: {0}")]
    Trust(#[from] Unfit),
    #[error("the own CA in the store cannot be read: {0}")]
    Authority(#[from] CertificateError),
    #[error("the store holds no tenant; it was not made by flowgate")]
    NoTenant,
}

/// All that the store has to say about who vouches for certificates.
#[derive(PartialEq)]
struct Vouching {
    own: Option<Certificate>,
    /// PEM texts by the instance's id.
    lists: BTreeMap<String, Vec<String>>,
    /// Whether there are certificates that only their pin vouches for.
    pins: bool,
}

/// Follows one store on behalf of the lanes.
pub struct Mirror {
    store: Store,
    state: Option<Arc<State>>,
    revision: i64,
    clients: Clients,
    revoked: Revoked,
    keys: HashMap<String, (Arc<SigningKey>, i64)>,
    authority: Option<Certificate>,
    tenant: Option<Tenant>,
    artifacts: HashMap<String, Arc<Artifact>>,
    fortunes: HashMap<String, Arc<CredentialState>>,
    credentials: Credentials,
    destinations: Directory,
}

impl Mirror {
    /// Reads all there is and makes the first state.
    pub async fn load(store: Store, config: &Config) -> Result<(Self, Arc<State>), MirrorError> {
        let mut mirror = Self {
            store,
            state: None,
            revision: 0,
            clients: Clients::default(),
            revoked: Revoked::default(),
            keys: HashMap::new(),
            authority: None,
            tenant: None,
            artifacts: HashMap::new(),
            fortunes: HashMap::new(),
            credentials: Credentials::new(),
            destinations: Directory::default(),
        };
        let changes = mirror.store.changes(0).await?;
        mirror.take(&changes.list)?;
        mirror.revision = changes.revision;
        let state = Arc::new(State::new(mirror.settings(config)?, mirror.authorities(config)?, config.limits));
        mirror.state = Some(state.clone());
        mirror.publish(&state);
        Ok((mirror, state))
    }

    /// Applies what has changed since the last call. True if anything has.
    pub async fn catch_up(&mut self, config: &Config) -> Result<bool, MirrorError> {
        let changes = self.store.changes(self.revision).await?;
        if changes.list.is_empty() {
            self.revision = changes.revision;
            return Ok(false);
        }
        let (tenant, vouching) = (self.tenant.clone(), self.vouching());
        self.take(&changes.list)?;
        self.revision = changes.revision;
        let Some(state) = self.state.clone() else { return Ok(true) };
        state.credentials.store(Arc::new(self.credentials.clone()));
        state.destinations.store(Arc::new(self.destinations.clone()));
        let ours = [CredentialState::KIND, Entry::KIND];
        if changes.list.iter().all(|change| ours.contains(&change.kind.as_str())) {
            // what we call others with is no reason to judge callers' tokens again
            return Ok(true);
        }
        // what was taken away holds whatever becomes of the rest
        self.publish(&state);
        if self.tenant != tenant {
            state.swap(&state.settings, self.settings(config)?);
        }
        if self.vouching() != vouching {
            state.swap(&state.authorities, self.authorities(config)?);
        }
        Ok(true)
    }

    /// Settings and trust under another configuration.
    pub fn configured(&self, config: &Config) -> Result<(Settings, Authorities), MirrorError> {
        Ok((self.settings(config)?, self.authorities(config)?))
    }

    /// Refresh tokens that end, with their artifacts' names.
    fn consents(&self) -> Vec<(ArtifactName, i64)> {
        let ends =
            |deployed: &Deployed| Some((deployed.artifact.name.clone(), deployed.fortune.refresh.as_ref()?.expires?));
        self.credentials.values().filter_map(ends).collect()
    }

    /// Shows everything that ends, and what breaks then, to `look`.
    pub fn outlook(&self, config: &Config, look: impl FnOnce(&View<'_>)) {
        let routes = Routes::new(config.routes.clone());
        let server = |listener: &Listener| {
            let chain = listener.tls.as_ref()?.identity.chain.iter().filter_map(|der| Certificate::from_der(der).ok());
            Some((listener.address.to_string(), chain.collect()))
        };
        let named = self.state.as_ref().map(|state| state.authorities.load_full().handshake.clone());
        let view = View {
            servers: config.listeners.iter().filter_map(server).collect(),
            authorities: named.as_ref().map_or(&[], |trust| trust.authorities()),
            own: self.authority.as_ref(),
            crls: &config.crls,
            crls_bind: config.revocation.expired_refuses,
            clients: &self.clients,
            routes: routes.all(),
            consents: self.consents(),
        };
        look(&view);
    }

    fn publish(&self, state: &State) {
        state.clients.store(Arc::new(self.clients.clone()));
        state.revoked.store(Arc::new(self.revoked.clone()));
        state.credentials.store(Arc::new(self.credentials.clone()));
        state.destinations.store(Arc::new(self.destinations.clone()));
        state.keyring.store(Arc::new(Keyring::new(self.keys.values().cloned().collect())));
        state.advance();
    }

    fn settings(&self, config: &Config) -> Result<Settings, MirrorError> {
        let tenant = self.tenant.clone().ok_or(MirrorError::NoTenant)?;
        Ok(Settings::new(config, tenant, self.store.vault().pepper()))
    }

    fn vouching(&self) -> Vouching {
        let lists = self.clients.instances().filter(|client| !client.instance.trusted_cas.is_empty());
        let lists = lists.map(|client| (client.instance.id.clone(), client.instance.trusted_cas.clone()));
        let pins = !self.clients.pinned_alone().is_empty();
        Vouching { own: self.authority.clone(), lists: lists.collect(), pins }
    }

    /// Every list of CAs, by what it is about.
    fn authorities(&self, config: &Config) -> Result<Authorities, MirrorError> {
        let trust = |list: &[Certificate]| {
            Ok::<_, Unfit>(Arc::new(Trust::new(list.to_vec(), config.crls.clone(), config.revocation)?))
        };
        let mut all = config.all_cas();
        let (mut listeners, mut instances) = (HashMap::new(), HashMap::new());
        for listener in &config.listeners {
            if let Some(list) = listener.tls.as_ref().and_then(|tls| tls.trusted_cas.as_deref()) {
                listeners.insert(listener.address, trust(list)?);
            }
        }
        for (id, pems) in self.vouching().lists {
            let list = pems.iter().map(|pem| Certificate::from_pem(pem)).collect::<Result<Vec<_>, _>>()?;
            all.extend_from_slice(&list);
            instances.insert(id, trust(&list)?);
        }
        let mut seen = HashSet::new();
        all.retain(|ca| seen.insert(ca.fingerprint));
        Ok(Authorities {
            handshake: trust(&all)?,
            general: trust(&config.trusted_cas)?,
            own: Arc::new(Trust::of(self.authority.iter().cloned().collect())?),
            listeners,
            instances,
        })
    }

    /// Instances first and keys after them: a change may bring both in any order.
    fn take(&mut self, changes: &[Change]) -> Result<(), MirrorError> {
        for change in changes {
            if let Some(instance) = read::<Instance>(change)? {
                self.clients.put_instance(instance);
            }
        }
        for change in changes {
            if let Some(key) = read::<Key>(change)? {
                self.clients.put_key(key);
            } else if let Some(revocation) = read::<Revocation>(change)? {
                self.revoked.insert(revocation.jti, revocation.expires);
            } else if let Some(record) = read::<SigningKeyRecord>(change)? {
                let key = signing::open(&self.store, &record)?;
                self.keys.insert(record.kid.clone(), (Arc::new(key), record.active_from));
            } else if let Some(record) = read::<AuthorityRecord>(change)? {
                self.authority = Some(Certificate::from_pem(&record.certificate)?);
            } else if let Some(tenant) = read::<Tenant>(change)? {
                self.tenant = Some(tenant);
            } else if let Some(artifact) = read::<Artifact>(change)? {
                self.artifacts.insert(artifact.id.clone(), Arc::new(artifact));
                self.deploy(&change.id);
            } else if let Some(fortune) = read::<CredentialState>(change)? {
                self.fortunes.insert(fortune.id.clone(), Arc::new(fortune));
                self.deploy(&change.id);
            } else if let Some(entry) = read::<Entry>(change)? {
                let plain = self.store.vault().unseal(&change.id, &entry.sealed).map_err(StoreError::from)?;
                let properties = Properties::from_json(&plain).unwrap_or_default();
                self.destinations.put(Item::new(&entry, properties));
            } else if change.deleted() {
                self.remove(change);
            }
        }
        Ok(())
    }

    /// Puts an artifact and its token together, whichever came first.
    fn deploy(&mut self, id: &str) {
        let Some(artifact) = self.artifacts.get(id) else { return };
        let fortune = self.fortunes.get(id).cloned().unwrap_or_default();
        let token = Held::open(&self.store, artifact, &fortune);
        self.credentials.insert(artifact.name.clone(), Deployed { artifact: artifact.clone(), fortune, token });
    }

    fn remove(&mut self, change: &Change) {
        match change.kind.as_str() {
            Key::KIND => self.clients.remove_key(&change.id),
            Instance::KIND => self.clients.remove_instance(&change.id),
            SigningKeyRecord::KIND => {
                self.keys.remove(&change.id);
            }
            Revocation::KIND => {
                self.revoked.remove(&change.id);
            }
            Artifact::KIND => {
                if let Some(artifact) = self.artifacts.remove(&change.id) {
                    self.credentials.remove(&artifact.name);
                }
            }
            Entry::KIND => self.destinations.remove(&change.id),
            CredentialState::KIND => {
                self.fortunes.remove(&change.id);
                self.deploy(&change.id);
            }
            _ => {}
        }
    }

    /// Forgets revocations of tokens that have ended by themselves, here and in the store.
    pub async fn forget_ended(&mut self, now: i64) -> Result<(), MirrorError> {
        let ended: Vec<_> = self.revoked.iter().filter(|(_, end)| **end < now).map(|(jti, _)| jti.clone()).collect();
        if ended.is_empty() {
            return Ok(());
        }
        let mut writing = self.store.write().await?;
        writing.forget(Revocation::KIND, &ended).await?;
        writing.prune(KEEP_TRACES).await?;
        writing.commit().await?;
        for jti in &ended {
            self.revoked.remove(jti);
        }
        if let Some(state) = &self.state {
            state.revoked.store(Arc::new(self.revoked.clone()));
        }
        Ok(())
    }
}

/// Revisions for which traces of deletions are kept; followers lag by one or two.
const KEEP_TRACES: i64 = 10_000;

fn read<T: Record>(change: &Change) -> Result<Option<T>, MirrorError> {
    change.read().transpose().map_err(|error| MirrorError::Record { kind: T::KIND, error })
}
