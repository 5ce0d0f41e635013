//! The tenant: made once, then kept.

use super::AdminError;
use crate::config::TenantSetting;
use crate::domain::record::Record;
use crate::domain::tenant::Tenant;
use crate::store::Store;

/// The store's tenant, made or brought in line with what the configuration gives.
pub async fn ensure(store: &Store, setting: &TenantSetting) -> Result<Tenant, AdminError> {
    if let Some(tenant) = current(store).await?.filter(|tenant| agrees(tenant, setting)) {
        return Ok(tenant);
    }
    let mut writing = store.write().await?;
    let fresh = || Tenant::new(&setting.subdomain, setting.zid.as_deref(), setting.xsappname.as_deref());
    let mut tenant = writing.get::<Tenant>("tenant").await?.unwrap_or_else(fresh);
    tenant.subdomain.clone_from(&setting.subdomain);
    tenant.zid = setting.zid.clone().unwrap_or(tenant.zid);
    tenant.xsappname = setting.xsappname.clone().unwrap_or(tenant.xsappname);
    writing.put(&tenant).await?;
    writing.commit().await?;
    Ok(tenant)
}

pub async fn current(store: &Store) -> Result<Option<Tenant>, AdminError> {
    Ok(store.get::<Tenant>(Tenant::KIND).await?)
}

fn agrees(tenant: &Tenant, setting: &TenantSetting) -> bool {
    tenant.subdomain == setting.subdomain
        && setting.zid.as_ref().is_none_or(|zid| *zid == tenant.zid)
        && setting.xsappname.as_ref().is_none_or(|name| *name == tenant.xsappname)
}
