//! The store's records as snapshots: applies changes, whichever process made them, and lets
//! earlier verdicts lapse.

use super::state::{Revoked, Settings, State};
use crate::config::Config;
use crate::crypto::keyring::{Keyring, SigningKey};
use crate::crypto::trust::{Trust, Unfit};
use crate::crypto::x509::{Certificate, CertificateError};
use crate::domain::client::Clients;
use crate::domain::instance::Instance;
use crate::domain::key::Key;
use crate::domain::record::Record;
use crate::domain::signing::SigningKeyRecord;
use crate::domain::tenant::Tenant;
use crate::domain::token::Revocation;
use crate::gateway::administer::authority::AuthorityRecord;
use crate::gateway::administer::signing::{self, SigningError};
use crate::net::tls;
use crate::store::{Change, Store, StoreError};
use std::collections::HashMap;
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
        };
        let changes = mirror.store.changes(0).await?;
        mirror.take(&changes.list)?;
        mirror.revision = changes.revision;
        let state = Arc::new(State::new(mirror.settings(config)?, mirror.trust(config)?, config.limits));
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
        let (tenant, authority) = (self.tenant.clone(), self.authority.clone());
        self.take(&changes.list)?;
        self.revision = changes.revision;
        let Some(state) = self.state.clone() else { return Ok(true) };
        if self.authority != authority {
            state.trust.store(Arc::new(self.trust(config)?));
        }
        if self.tenant != tenant {
            state.settings.store(Arc::new(self.settings(config)?));
        }
        self.publish(&state);
        Ok(true)
    }

    /// Settings and trust under another configuration.
    pub fn configured(&self, config: &Config) -> Result<(Settings, Trust), MirrorError> {
        Ok((self.settings(config)?, self.trust(config)?))
    }

    fn publish(&self, state: &State) {
        state.clients.store(Arc::new(self.clients.clone()));
        state.revoked.store(Arc::new(self.revoked.clone()));
        state.keyring.store(Arc::new(Keyring::new(self.keys.values().cloned().collect())));
        state.advance();
    }

    fn settings(&self, config: &Config) -> Result<Settings, MirrorError> {
        let tenant = self.tenant.clone().ok_or(MirrorError::NoTenant)?;
        Ok(Settings::new(config.origin.clone(), tenant, config.tokens, self.store.vault().pepper()))
    }

    /// The configured CAs and our own.
    fn trust(&self, config: &Config) -> Result<Trust, MirrorError> {
        let own = self.authority.iter().cloned();
        let authorities = config.trusted_cas.iter().cloned().chain(own).collect();
        Ok(Trust::new(authorities, tls::provider())?)
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
            } else if change.deleted() {
                self.remove(change);
            }
        }
        Ok(())
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
