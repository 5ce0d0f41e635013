//! Service keys: created and shown once, listed without secrets, deleted, imported.

use super::authority;
use super::instances::find;
use super::{AdminError, Administration};
use crate::crypto::ca::{self, Subject, Validity};
use crate::crypto::digest::hex;
use crate::crypto::random;
use crate::crypto::trust::{Trust, fit_alone};
use crate::crypto::x509::{self, Certificate};
use crate::domain::instance::Instance;
use crate::domain::key::{
    CertificateDetails, Credential, Foreign, ForeignCredential, Key, KeyError, Matching, Shown, Wanted, render,
};
use crate::domain::name::{InstanceName, KeyName};
use crate::domain::tenant::Tenant;
use crate::store::Writing;
use rustls_pki_types::CertificateDer;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// A key with the instance it belongs to.
#[derive(Debug, Clone)]
pub struct Owned {
    pub key: Key,
    pub instance: Instance,
}

/// What a credential is made of: what is stored and what is shown.
struct Made {
    credential: Credential,
    shown: Shown,
}

impl Administration<'_> {
    /// Creates a key and returns it as the model displays it: the only time that its secret is
    /// seen. `trust` judges an external certificate as a handshake would.
    pub async fn create_key(
        &self,
        instance: &InstanceName,
        name: KeyName,
        wanted: Wanted,
        trust: &Trust,
    ) -> Result<Value, AdminError> {
        // made before the transaction begins: an RSA key takes its time
        let made = match &wanted {
            Wanted::Secret => self.secret(random::client_secret()),
            Wanted::Certificate { days, bits } => self.certificate(instance, *days, *bits).await?,
            Wanted::External { pem, pinned } => self.external(pem, *pinned, trust)?,
        };
        let mut writing = self.store.write().await?;
        let owner = find(&mut writing, instance).await?;
        let tenant = writing.get::<Tenant>("tenant").await?.ok_or(AdminError::NoTenant)?;
        let key = self.put(&mut writing, &owner, name, made.credential).await?;
        writing.commit().await?;
        Ok(render(&owner, &key, &made.shown, self.origin, &tenant))
    }

    fn secret(&self, secret: SecretString) -> Made {
        let digest = hex(&self.store.vault().secret_digest(secret.expose_secret()));
        Made { credential: Credential::Secret { digest }, shown: Shown::Secret(secret) }
    }

    async fn certificate(&self, instance: &InstanceName, days: i64, bits: u16) -> Result<Made, AdminError> {
        let authority = authority::ensure(self.store, self.now).await?;
        // a common name ends at 64 characters (RFC 5280, A.1): the names go into units of their own
        let common_name = random::uuid();
        let subject = Subject { organization: "flowgate", unit: Some(instance.as_str()), common_name: &common_name };
        let issued = ca::client(&authority, &subject, Validity::days(self.now, days), bits)?;
        let details = CertificateDetails::of(&Certificate::from_pem(&issued.certificate).map_err(KeyError::from)?);
        let chain = format!("{}{}", issued.certificate, authority.certificate);
        let shown = Shown::Certificate { chain, key: Some(issued.key), details: details.clone() };
        Ok(Made { credential: Credential::Certificate(details), shown })
    }

    fn external(&self, pem: &str, pinned: bool, trust: &Trust) -> Result<Made, AdminError> {
        let chain = x509::uploaded(pem).map_err(KeyError::from)?;
        let (details, matching) = self.matched(&chain, pinned, trust)?;
        let leaf = chain.first().ok_or(KeyError::NoCertificate)?;
        let chain = crate::crypto::keyring::pem("CERTIFICATE", leaf);
        let shown = Shown::Certificate { chain, key: None, details: details.clone() };
        Ok(Made { credential: Credential::CertificateExternal { details, matching }, shown })
    }

    /// Judges a partner's certificate as a handshake would. One that no CA vouches for can be
    /// believed by its pin alone, but goes by nothing else.
    fn matched(
        &self,
        chain: &[CertificateDer<'_>],
        pinned: bool,
        trust: &Trust,
    ) -> Result<(CertificateDetails, Matching), AdminError> {
        let verdict = trust.verify(chain, self.now);
        match (verdict, pinned) {
            (Ok(leaf), true) => Ok((CertificateDetails::of(&leaf), Matching::Pinned)),
            (Ok(leaf), false) => Ok((CertificateDetails::of(&leaf), Matching::Names { earlier: Vec::new() })),
            (Err(distrust), true) if distrust.pin_helps() => {
                let leaf = chain.first().ok_or(KeyError::NoCertificate)?;
                let leaf = Certificate::from_der(leaf).map_err(KeyError::from)?;
                fit_alone(&leaf, self.now)?;
                Ok((CertificateDetails::of(&leaf), Matching::PinnedAlone))
            }
            (Err(distrust), _) => Err(distrust.into()),
        }
    }

    async fn put(
        &self,
        writing: &mut Writing<'_>,
        owner: &Instance,
        name: KeyName,
        credential: Credential,
    ) -> Result<Key, AdminError> {
        let key = Key { id: random::uuid(), instance_id: owner.id.clone(), name, created: self.now, credential };
        if writing.claimed("key-name", &format!("{}/{}", owner.id, key.name)).await?.is_some() {
            return Err(AdminError::Exists { what: "key", name: key.name.to_string() });
        }
        if let Some(details) = key.certificate()
            && let Some((_, holder)) = writing.claimed("certificate", &details.fingerprint).await?
        {
            return Err(taken(writing, &holder).await?);
        }
        if key.pinned_alone() && !owner.trusted_cas.is_empty() {
            return Err(AdminError::PinAlone(owner.name.to_string()));
        }
        if let Some(holder) = namesake(writing, &key).await? {
            let (instance, other) = owner_of(writing, &holder).await?;
            return Err(AdminError::NamesTaken { instance, key: other });
        }
        writing.put(&key).await?;
        Ok(key)
    }

    /// All keys, or those of one instance.
    pub async fn list_keys(&self, instance: Option<&InstanceName>) -> Result<Vec<Owned>, AdminError> {
        let instances = match instance {
            Some(name) => vec![self.show_instance(name).await?],
            None => self.list_instances().await?,
        };
        let keys = self.store.list::<Key>().await?;
        let mut out = Vec::new();
        for instance in instances {
            let mut own: Vec<_> = keys.iter().filter(|key| key.instance_id == instance.id).cloned().collect();
            own.sort_by(|a, b| a.name.cmp(&b.name));
            out.extend(own.into_iter().map(|key| Owned { key, instance: instance.clone() }));
        }
        Ok(out)
    }

    pub async fn show_key(&self, instance: &InstanceName, name: &KeyName) -> Result<Owned, AdminError> {
        let keys = self.list_keys(Some(instance)).await?;
        keys.into_iter().find(|owned| owned.key.name == *name).ok_or_else(|| missing(name))
    }

    pub async fn delete_key(&self, instance: &InstanceName, name: &KeyName) -> Result<(), AdminError> {
        let mut writing = self.store.write().await?;
        let owner = find(&mut writing, instance).await?;
        let claimed = writing.claimed("key-name", &format!("{}/{name}", owner.id)).await?;
        let (_, id) = claimed.ok_or_else(|| missing(name))?;
        writing.delete::<Key>(&id).await?;
        Ok(writing.commit().await?)
    }

    /// Takes over a key that the model displayed: its client id becomes an alias of the instance,
    /// its secret a digest, its certificate an external one.
    pub async fn import_key(
        &self,
        instance: &InstanceName,
        name: KeyName,
        foreign: Foreign,
        trust: &Trust,
    ) -> Result<Key, AdminError> {
        let credential = match foreign.credential {
            ForeignCredential::Secret(secret) => self.secret(secret).credential,
            // the model displays the chain; the sender's own certificate comes first
            ForeignCredential::Certificate(chain) => self.external_of_chain(&chain, trust)?,
        };
        let mut writing = self.store.write().await?;
        let mut owner = find(&mut writing, instance).await?;
        if let Some((_, holder)) = writing.claimed("client-id", &foreign.client_id).await? {
            if holder != owner.id {
                return Err(AdminError::ClientIdTaken(foreign.client_id));
            }
        } else {
            owner.aliases.push(foreign.client_id);
            writing.put(&owner).await?;
        }
        let key = self.put(&mut writing, &owner, name, credential).await?;
        writing.commit().await?;
        Ok(key)
    }

    fn external_of_chain(&self, chain: &str, trust: &Trust) -> Result<Credential, AdminError> {
        let ders = x509::chain(chain).map_err(KeyError::from)?;
        let (details, matching) = self.matched(&ders, true, trust)?;
        Ok(Credential::CertificateExternal { details, matching })
    }
}

/// A key whose certificate has the same names, where one of the two goes by them: at run time it
/// could not be told which of them a certificate is of.
async fn namesake(writing: &mut Writing<'_>, key: &Key) -> Result<Option<String>, AdminError> {
    let Some(details) = key.certificate() else { return Ok(None) };
    if let Some((_, holder)) = writing.claimed("certificate-names", &details.names).await? {
        return Ok(Some(holder));
    }
    match key.unpinned() {
        Some(_) => Ok(writing.claimed_below("pinned-names", &format!("{}/", details.names)).await?.map(|(_, id)| id)),
        None => Ok(None),
    }
}

async fn taken(writing: &mut Writing<'_>, holder: &str) -> Result<AdminError, AdminError> {
    let (instance, key) = owner_of(writing, holder).await?;
    Ok(AdminError::CertificateTaken { instance, key })
}

/// The names of a key and of its instance.
async fn owner_of(writing: &mut Writing<'_>, key: &str) -> Result<(String, String), AdminError> {
    let key = writing.get::<Key>(key).await?;
    let instance = match &key {
        Some(key) => writing.get::<Instance>(&key.instance_id).await?.map(|instance| instance.name.to_string()),
        None => None,
    };
    Ok((instance.unwrap_or_default(), key.map(|key| key.name.to_string()).unwrap_or_default()))
}

fn missing(name: &KeyName) -> AdminError {
    AdminError::NotFound { what: "key", name: name.to_string() }
}
