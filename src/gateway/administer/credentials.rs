//! Security material: created, changed, listed without secrets, deleted.

use super::{AdminError, Administration};
use crate::crypto::random;
use crate::domain::artifact::{Artifact, Parameters, Secrets};
use crate::domain::credential::CredentialState;
use crate::domain::name::ArtifactName;
use crate::store::{StoreError, Writing};
use secrecy::ExposeSecret;

impl Administration<'_> {
    pub async fn create_credential(&self, parameters: &Parameters) -> Result<Artifact, AdminError> {
        let (artifact, secrets) = parameters.create(random::uuid(), self.now)?;
        let mut writing = self.store.write().await?;
        if writing.claimed("credential-name", artifact.name.as_str()).await?.is_some() {
            return Err(AdminError::Exists { what: "credential", name: artifact.name.to_string() });
        }
        let artifact = self.sealed(artifact, &secrets);
        writing.put(&artifact).await?;
        writing.commit().await?;
        Ok(artifact)
    }

    /// Changes what is named and leaves the rest; a token that was got before counts no more.
    pub async fn update_credential(&self, parameters: &Parameters) -> Result<Artifact, AdminError> {
        let name = parameters.name()?;
        let mut writing = self.store.write().await?;
        let before = find(&mut writing, &name).await?;
        let kept = self.store.vault().unseal(&Artifact::place(&before.id), &before.sealed).map_err(StoreError::from)?;
        let kept = Secrets::from_json(&kept).unwrap_or_default();
        // strictly later than any token of before
        let now = self.now.max(before.updated + 1);
        let (after, secrets) = parameters.update(&before, kept, now)?;
        let after = self.sealed(after, &secrets);
        writing.put(&after).await?;
        if writing.get::<CredentialState>(&after.id).await?.is_some() {
            writing.delete::<CredentialState>(&after.id).await?;
        }
        writing.commit().await?;
        Ok(after)
    }

    /// All artifacts with how they fare.
    pub async fn list_credentials(&self) -> Result<Vec<(Artifact, CredentialState)>, AdminError> {
        let mut artifacts = self.store.list::<Artifact>().await?;
        artifacts.sort_by(|a, b| a.name.cmp(&b.name));
        let states = self.store.list::<CredentialState>().await?;
        let state = |artifact: &Artifact| states.iter().find(|state| state.id == artifact.id).cloned();
        Ok(artifacts.into_iter().map(|artifact| (artifact.clone(), state(&artifact).unwrap_or_default())).collect())
    }

    pub async fn show_credential(&self, name: &ArtifactName) -> Result<(Artifact, CredentialState), AdminError> {
        let all = self.list_credentials().await?;
        all.into_iter().find(|(artifact, _)| artifact.name == *name).ok_or_else(|| missing(name))
    }

    pub async fn delete_credential(&self, name: &ArtifactName) -> Result<(), AdminError> {
        let mut writing = self.store.write().await?;
        let artifact = find(&mut writing, name).await?;
        writing.delete::<Artifact>(&artifact.id).await?;
        if writing.get::<CredentialState>(&artifact.id).await?.is_some() {
            writing.delete::<CredentialState>(&artifact.id).await?;
        }
        Ok(writing.commit().await?)
    }

    fn sealed(&self, artifact: Artifact, secrets: &Secrets) -> Artifact {
        let plain = secrets.to_json();
        let sealed = self.store.vault().seal(&Artifact::place(&artifact.id), plain.expose_secret().as_bytes());
        Artifact { sealed, ..artifact }
    }
}

async fn find(writing: &mut Writing<'_>, name: &ArtifactName) -> Result<Artifact, AdminError> {
    let claimed = writing.claimed("credential-name", name.as_str()).await?;
    let (_, id) = claimed.ok_or_else(|| missing(name))?;
    writing.get::<Artifact>(&id).await?.ok_or_else(|| missing(name))
}

fn missing(name: &ArtifactName) -> AdminError {
    AdminError::NotFound { what: "credential", name: name.to_string() }
}
