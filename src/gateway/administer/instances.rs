//! Service instances.

use super::{AdminError, Administration};
use crate::crypto::random;
use crate::domain::destination::{Entry, Level};
use crate::domain::instance::{Instance, Parameters, Plan};
use crate::domain::key::Key;
use crate::domain::name::{InstanceName, RoleName};
use crate::domain::role::{Role, is_built_in};
use crate::domain::tenant::Tenant;
use crate::store::Writing;

impl Administration<'_> {
    pub async fn create_instance(
        &self,
        name: InstanceName,
        plan: Plan,
        parameters: &Parameters,
    ) -> Result<Instance, AdminError> {
        let mut writing = self.store.write().await?;
        if writing.claimed("instance-name", name.as_str()).await?.is_some() {
            return Err(AdminError::Exists { what: "instance", name: name.to_string() });
        }
        let roles = parameters.roles_or_default(plan);
        known_roles(&mut writing, &roles).await?;
        let mut tenant = writing.get::<Tenant>("tenant").await?.ok_or(AdminError::NoTenant)?;
        let id = random::uuid();
        let instance = Instance {
            client_id: tenant.client_id(&id),
            id,
            name,
            plan,
            aliases: Vec::new(),
            roles,
            token_validity: parameters.validity_or_default(plan),
            bound_tokens: parameters.bound_tokens.unwrap_or_default(),
            trusted_cas: parameters.trusted_cas.clone().unwrap_or_default(),
            created: self.now,
        };
        writing.put(&tenant).await?;
        writing.put(&instance).await?;
        writing.commit().await?;
        Ok(instance)
    }

    pub async fn list_instances(&self) -> Result<Vec<Instance>, AdminError> {
        let mut instances = self.store.list::<Instance>().await?;
        instances.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(instances)
    }

    pub async fn show_instance(&self, name: &InstanceName) -> Result<Instance, AdminError> {
        let all = self.store.list::<Instance>().await?;
        all.into_iter().find(|instance| instance.name == *name).ok_or_else(|| missing(name))
    }

    /// Changes what is named and leaves the rest.
    pub async fn update_instance(&self, name: &InstanceName, parameters: Parameters) -> Result<Instance, AdminError> {
        let mut writing = self.store.write().await?;
        let mut instance = find(&mut writing, name).await?;
        if let Some(roles) = parameters.roles {
            known_roles(&mut writing, &roles).await?;
            instance.roles = roles;
        }
        instance.token_validity = parameters.token_validity.unwrap_or(instance.token_validity);
        instance.bound_tokens = parameters.bound_tokens.unwrap_or(instance.bound_tokens);
        instance.trusted_cas = parameters.trusted_cas.unwrap_or(instance.trusted_cas);
        writing.put(&instance).await?;
        writing.commit().await?;
        Ok(instance)
    }

    pub async fn delete_instance(&self, name: &InstanceName) -> Result<(), AdminError> {
        let mut writing = self.store.write().await?;
        let instance = find(&mut writing, name).await?;
        let keys = writing.list::<Key>().await?;
        let count = keys.iter().filter(|key| key.instance_id == instance.id).count();
        if count > 0 {
            return Err(AdminError::HasKeys { name: name.to_string(), count });
        }
        let own = Level::Instance(instance.id.clone());
        let entries = writing.list::<Entry>().await?.into_iter().filter(|entry| entry.level == own);
        match entries.count() {
            0 => {}
            count => return Err(AdminError::HasEntries { name: name.to_string(), count }),
        }
        writing.delete::<Instance>(&instance.id).await?;
        Ok(writing.commit().await?)
    }
}

/// The instance of a name, by its claim.
pub(super) async fn find(writing: &mut Writing<'_>, name: &InstanceName) -> Result<Instance, AdminError> {
    let claimed = writing.claimed("instance-name", name.as_str()).await?;
    let (_, id) = claimed.ok_or_else(|| missing(name))?;
    writing.get::<Instance>(&id).await?.ok_or_else(|| missing(name))
}

async fn known_roles(writing: &mut Writing<'_>, roles: &[RoleName]) -> Result<(), AdminError> {
    for role in roles.iter().filter(|role| !is_built_in(role)) {
        if writing.get::<Role>(role.as_str()).await?.is_none() {
            return Err(AdminError::NoRole(role.to_string()));
        }
    }
    Ok(())
}

fn missing(name: &InstanceName) -> AdminError {
    AdminError::NotFound { what: "instance", name: name.to_string() }
}
