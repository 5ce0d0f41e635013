//! Security material: created, changed, listed without secrets, deleted.

use super::{AdminError, Administration};
use crate::crypto::digest::sha256;
use crate::crypto::random;
use crate::domain::artifact::{Artifact, MAX_AUTHORIZATION_CODE, Secrets};
use crate::domain::authorization::{Authorization, LIFE};
use crate::domain::credential::CredentialState;
use crate::domain::exchange;
use crate::domain::material::{ArtifactError, Parameters};
use crate::domain::name::ArtifactName;
use crate::store::{StoreError, Writing};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::ExposeSecret;

impl Administration<'_> {
    pub async fn create_credential(&self, parameters: &Parameters) -> Result<Artifact, AdminError> {
        let (artifact, secrets) = parameters.create(random::uuid(), self.now)?;
        let mut writing = self.store.write().await?;
        if writing.claimed("credential-name", artifact.name.as_str()).await?.is_some() {
            return Err(AdminError::Exists { what: "credential", name: artifact.name.to_string() });
        }
        if artifact.authorization_code().is_some() {
            let others = writing.list::<Artifact>().await?;
            let codes = others.iter().filter(|other| other.authorization_code().is_some());
            if codes.count() >= MAX_AUTHORIZATION_CODE {
                return Err(ArtifactError::TooMany.into());
            }
        }
        let artifact = self.sealed(artifact, &secrets);
        writing.put(&artifact).await?;
        writing.commit().await?;
        Ok(artifact)
    }

    /// Other artifacts of the same client and user: many providers keep one refresh token for both.
    pub async fn twins(&self, artifact: &Artifact) -> Result<Vec<ArtifactName>, AdminError> {
        let Some(grant) = artifact.authorization_code() else { return Ok(Vec::new()) };
        let same = |other: &Artifact| {
            let user = other.authorization_code().map(|grant| &grant.user_name);
            other.id != artifact.id && other.client_id == artifact.client_id && user == Some(&grant.user_name)
        };
        let all = self.store.list::<Artifact>().await?;
        Ok(all.into_iter().filter(same).map(|other| other.name).collect())
    }

    /// Begins an authorization: the address for the user's browser. Its state is kept as a digest.
    pub async fn begin_authorization(&self, name: &ArtifactName) -> Result<String, AdminError> {
        let mut writing = self.store.write().await?;
        let artifact = find(&mut writing, name).await?;
        let grant = artifact.authorization_code().ok_or(ArtifactError::NotToAuthorise)?;
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (state, verifier) = (text(&random::bytes::<32>()), text(&random::bytes::<48>()));
        let redirect_uri = self.origin.callback_url();
        let id = Authorization::id_of(&state);
        let sealed = self.store.vault().seal(&Authorization::place(&id), verifier.as_bytes());
        let challenge = text(&sha256(verifier.as_bytes()));
        let url = exchange::authorization_url(&artifact, grant, &redirect_uri, &state, &challenge);
        for old in writing.list::<Authorization>().await? {
            if old.expires <= self.now {
                writing.delete::<Authorization>(&old.id).await?;
            }
        }
        let expires = self.now + LIFE;
        writing.put(&Authorization { id, artifact_id: artifact.id, sealed, redirect_uri, expires }).await?;
        writing.commit().await?;
        Ok(url)
    }

    /// Changes what is named and leaves the rest; a token that was got before counts no more.
    pub async fn update_credential(&self, parameters: &Parameters) -> Result<Artifact, AdminError> {
        let name = parameters.name()?;
        let mut writing = self.store.write().await?;
        let before = find(&mut writing, &name).await?;
        let kept = self.store.vault().unseal(&Artifact::place(&before.id), &before.sealed).map_err(StoreError::from)?;
        let kept = Secrets::from_json(&kept).unwrap_or_default();
        let (after, secrets) = parameters.update(&before, kept, self.now)?;
        let after = self.sealed(after, &secrets);
        writing.put(&after).await?;
        if let Some(state) = writing.get::<CredentialState>(&after.id).await? {
            // a consent outlasts changes that the provider does not notice; numbers go on in any case
            let refresh = state.refresh.filter(|_| before.same_consent(&after));
            let (id, serial) = (state.id, state.serial);
            writing.put(&CredentialState { id, serial, refresh, ..CredentialState::default() }).await?;
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
