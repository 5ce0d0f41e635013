//! Our own CA, which issues the certificates of service keys. Made when first needed, sealed.

use super::AdminError;
use crate::crypto::ca::{self, Issued, Subject, Validity};
use crate::domain::record::Record;
use crate::store::{Store, StoreError};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

/// Days that the CA lives: longer than any certificate that it can issue.
const DAYS: i64 = 3_650;
const PLACE: &str = "authority/key";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityRecord {
    /// PEM.
    pub certificate: String,
    /// PKCS#8 PEM, sealed.
    sealed: String,
}

impl Record for AuthorityRecord {
    const KIND: &'static str = "authority";

    fn id(&self) -> String {
        "authority".into()
    }
}

/// The CA, made if the store has none.
pub async fn ensure(store: &Store, now: i64) -> Result<Issued, AdminError> {
    if let Some(record) = store.get::<AuthorityRecord>(AuthorityRecord::KIND).await? {
        return open(store, record);
    }
    let subject = Subject { organization: "flowgate", unit: None, common_name: "flowgate client CA" };
    let issued = ca::authority(&subject, Validity::days(now, DAYS))?;
    let sealed = store.vault().seal(PLACE, issued.key.expose_secret().as_bytes());
    let mut writing = store.write().await?;
    if let Some(record) = writing.get::<AuthorityRecord>(AuthorityRecord::KIND).await? {
        return open(store, record);
    }
    writing.put(&AuthorityRecord { certificate: issued.certificate.clone(), sealed }).await?;
    writing.commit().await?;
    Ok(issued)
}

fn open(store: &Store, record: AuthorityRecord) -> Result<Issued, AdminError> {
    let key = store.vault().unseal_text(PLACE, &record.sealed).map_err(StoreError::from)?;
    Ok(Issued { certificate: record.certificate, key })
}
