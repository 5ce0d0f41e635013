//! Administration: the one implementation behind every door. Each function is one change to the
//! store, committed when it returns.

pub mod authority;
pub mod credentials;
pub mod destinations;
pub mod instances;
pub mod keys;
pub mod roles;
pub mod signing;
pub mod tenant;

use crate::crypto::ca::CaError;
use crate::crypto::keyring;
use crate::crypto::trust::Distrust;
use crate::domain::destination::entry::BadEntry;
use crate::domain::instance::ParameterError;
use crate::domain::key::{ImportError, KeyError, Origin};
use crate::domain::material::ArtifactError;
use crate::store::{Store, StoreError};

/// What every administrative change works with.
pub struct Administration<'a> {
    pub store: &'a Store,
    pub origin: &'a Origin,
    /// Unix seconds.
    pub now: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("there is no {what} `{name}`; see `flowgate {what} list`")]
    NotFound { what: &'static str, name: String },
    #[error("{what} `{name}` exists already; choose another name")]
    Exists { what: &'static str, name: String },
    #[error("role `{0}` is built in and cannot be changed")]
    BuiltIn(String),
    #[error(
        "role `{role}` is used by instance {by}; take it away there first: flowgate instance update {by} --roles ..."
    )]
    RoleInUse { role: String, by: String },
    #[error("there is no user role `{0}`; create it first: flowgate role create {0}")]
    NoRole(String),
    #[error("instance `{name}` still has {count} service keys; delete them first")]
    HasKeys { name: String, count: usize },
    #[error(
        "instance `{name}` still has {count} destinations, fragments or certificates of its own; delete them first: flowgate destination delete NAME --instance {name}"
    )]
    HasEntries { name: String, count: usize },
    #[error(
        "the certificate is used already, by key `{key}` of instance `{instance}`; a certificate identifies one client"
    )]
    CertificateTaken { instance: String, key: String },
    #[error(
        "key `{key}` of instance `{instance}` has a certificate of the same subject and issuer, and one of the two goes by these names: nobody could tell which client such a certificate is of; delete that key first, or pin both"
    )]
    NamesTaken { instance: String, key: String },
    #[error(
        "instance `{0}` has CAs of its own, and none of them vouches for the certificate; add its CA: flowgate instance update {0} --trusted-ca F.pem"
    )]
    PinAlone(String),
    #[error("client id `{0}` belongs to another instance already")]
    ClientIdTaken(String),
    #[error("the certificate would not be accepted: {0}")]
    Distrusted(#[from] Distrust),
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    #[error("the entry has changed meanwhile; get it again")]
    Changed,
    #[error(transparent)]
    Entry(#[from] BadEntry),
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error(transparent)]
    Certificate(#[from] CaError),
    #[error(transparent)]
    Signing(#[from] signing::SigningError),
    #[error(transparent)]
    SigningKey(#[from] keyring::KeyError),
    #[error("the store holds no tenant; run `flowgate serve` or create an instance first")]
    NoTenant,
}
