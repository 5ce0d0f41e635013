//! User roles.

use super::{AdminError, Administration};
use crate::domain::instance::Instance;
use crate::domain::name::RoleName;
use crate::domain::role::{BUILT_IN, Role, is_built_in};

/// A role as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    pub description: String,
    pub built_in: bool,
}

impl Administration<'_> {
    pub async fn create_role(&self, name: RoleName, description: String) -> Result<(), AdminError> {
        let mut writing = self.store.write().await?;
        if is_built_in(&name) || writing.get::<Role>(name.as_str()).await?.is_some() {
            return Err(AdminError::Exists { what: "role", name: name.to_string() });
        }
        writing.put(&Role { name, description }).await?;
        Ok(writing.commit().await?)
    }

    pub async fn list_roles(&self) -> Result<Vec<Listed>, AdminError> {
        let built_in = BUILT_IN.iter().map(|(name, description)| Listed {
            name: (*name).into(),
            description: (*description).into(),
            built_in: true,
        });
        let custom = self.store.list::<Role>().await?.into_iter();
        let custom =
            custom.map(|role| Listed { name: role.name.to_string(), description: role.description, built_in: false });
        Ok(built_in.chain(custom).collect())
    }

    pub async fn update_role(&self, name: &RoleName, description: String) -> Result<(), AdminError> {
        changeable(name)?;
        let mut writing = self.store.write().await?;
        let mut role = writing.get::<Role>(name.as_str()).await?.ok_or_else(|| missing(name))?;
        role.description = description;
        writing.put(&role).await?;
        Ok(writing.commit().await?)
    }

    pub async fn delete_role(&self, name: &RoleName) -> Result<(), AdminError> {
        changeable(name)?;
        let mut writing = self.store.write().await?;
        if writing.get::<Role>(name.as_str()).await?.is_none() {
            return Err(missing(name));
        }
        let instances = writing.list::<Instance>().await?;
        if let Some(user) = instances.iter().find(|instance| instance.roles.contains(name)) {
            return Err(AdminError::RoleInUse { role: name.to_string(), by: user.name.to_string() });
        }
        writing.delete::<Role>(name.as_str()).await?;
        Ok(writing.commit().await?)
    }
}

fn changeable(name: &RoleName) -> Result<(), AdminError> {
    if is_built_in(name) { Err(AdminError::BuiltIn(name.to_string())) } else { Ok(()) }
}

fn missing(name: &RoleName) -> AdminError {
    AdminError::NotFound { what: "role", name: name.to_string() }
}
