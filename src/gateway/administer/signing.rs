//! Signing keys: carries out the plan of `domain::signing`, and what an operator asks for.

use super::{AdminError, Administration};
use crate::config::Tokens;
use crate::crypto::keyring::{self, Algorithm, KeyError, SigningKey};
use crate::crypto::seal::SealError;
use crate::domain::signing::{LEAD, Next, Phase, SigningKeyRecord, phase, plan};
use crate::store::Store;

#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    #[error("signing key {kid}: {error}")]
    Sealed { kid: String, error: SealError },
    #[error("signing key {kid}: {error}")]
    Key { kid: String, error: KeyError },
}

/// A signing key as it is listed.
#[derive(Debug, Clone)]
pub struct Listed {
    pub record: SigningKeyRecord,
    pub phase: Phase,
}

/// Opens a stored key.
pub fn open(store: &Store, record: &SigningKeyRecord) -> Result<SigningKey, SigningError> {
    let pkcs8 = store.vault().unseal(&place(&record.kid), &record.sealed);
    let pkcs8 = pkcs8.map_err(|error| SigningError::Sealed { kid: record.kid.clone(), error })?;
    SigningKey::prepare(record.algorithm, &pkcs8).map_err(|error| SigningError::Key { kid: record.kid.clone(), error })
}

fn place(kid: &str) -> String {
    format!("signing-key/{kid}")
}

fn make(store: &Store, algorithm: Algorithm, now: i64, active_from: i64) -> Result<SigningKeyRecord, AdminError> {
    let pkcs8 = keyring::generate(algorithm)?;
    let kid = SigningKey::prepare(algorithm, &pkcs8)?.kid;
    let sealed = store.vault().seal(&place(&kid), &pkcs8);
    Ok(SigningKeyRecord { kid, algorithm, sealed, created: now, active_from })
}

/// Upkeep, whoever asks and however often: does what the plan says until nothing is left to do.
/// True if anything was done.
pub async fn keep(store: &Store, tokens: Tokens, now: i64) -> Result<bool, AdminError> {
    let mut done = false;
    // a first key, a successor and a few keys to drop: more steps than that would be a fault
    for _ in 0..8 {
        let keys = store.list::<SigningKeyRecord>().await?;
        let next = plan(&keys, tokens.algorithm, tokens.rotate_every, now);
        // RSA keys are made before the transaction; the plan is asked again inside it
        let fresh = match &next {
            Next::Nothing => return Ok(done),
            Next::Create { active_from } => Some(make(store, tokens.algorithm, now, *active_from)?),
            Next::Drop { .. } => None,
        };
        let mut writing = store.write().await?;
        let keys = writing.list::<SigningKeyRecord>().await?;
        if plan(&keys, tokens.algorithm, tokens.rotate_every, now) != next {
            continue;
        }
        match (next, fresh) {
            (Next::Drop { kid }, _) => writing.delete::<SigningKeyRecord>(&kid).await?,
            (_, Some(record)) => writing.put(&record).await?,
            _ => {}
        }
        writing.commit().await?;
        done = true;
    }
    Ok(done)
}

impl Administration<'_> {
    pub async fn list_signing_keys(&self) -> Result<Vec<Listed>, AdminError> {
        let mut keys = self.store.list::<SigningKeyRecord>().await?;
        keys.sort_by_key(|key| (key.active_from, key.created));
        let listed = keys.iter().map(|key| Listed { record: key.clone(), phase: phase(&keys, key, self.now) });
        Ok(listed.collect())
    }

    /// A new key: published at once, signing after the lead, or at once if asked so.
    pub async fn rotate_signing_key(
        &self,
        algorithm: Algorithm,
        at_once: bool,
    ) -> Result<SigningKeyRecord, AdminError> {
        let keys = self.store.list::<SigningKeyRecord>().await?;
        // two keys of one second would leave it open which of them signs
        let latest = keys.iter().map(|key| key.active_from).filter(|from| *from <= self.now).max();
        let soonest = latest.map_or(self.now, |latest| self.now.max(latest + 1));
        let active_from = if at_once { soonest } else { self.now + LEAD };
        let record = make(self.store, algorithm, self.now, active_from)?;
        let mut writing = self.store.write().await?;
        writing.put(&record).await?;
        writing.commit().await?;
        Ok(record)
    }

    /// Drops a key at once: what it signed is refused from then on. If it was the one that signs,
    /// a new one takes its place in the same change.
    pub async fn purge_signing_key(&self, kid: &str, algorithm: Algorithm) -> Result<(), AdminError> {
        let fresh = make(self.store, algorithm, self.now, self.now)?;
        let mut writing = self.store.write().await?;
        let keys = writing.list::<SigningKeyRecord>().await?;
        let missing = || AdminError::NotFound { what: "signing-key", name: kid.to_owned() };
        let doomed = keys.iter().find(|key| key.kid == kid).ok_or_else(missing)?;
        if phase(&keys, doomed, self.now) == Phase::Signing {
            writing.put(&fresh).await?;
        }
        writing.delete::<SigningKeyRecord>(kid).await?;
        Ok(writing.commit().await?)
    }
}
