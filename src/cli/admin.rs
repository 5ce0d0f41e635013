//! Administration commands: each reads its arguments, asks `gateway::administer` and prints.

use super::certificates::trust;
use super::kit;
use super::output::{self, Format};
use super::run::{Opened, read, read_json};
use super::{Failure, InstanceCommand, InstanceSettings, KeyCommand, KeyType, Outcome, RoleCommand, SigningKeyCommand};
use crate::domain::instance::{Instance, Parameters};
use crate::domain::key::{Foreign, Wanted, model_time};
use crate::domain::signing::Phase;
use crate::gateway::administer::keys::Owned;
use crate::gateway::administer::{AdminError, signing, tenant};
use serde_json::{Value, json};
use std::path::Path;

pub async fn role(config: &Path, format: Format, command: RoleCommand) -> Outcome {
    let opened = Opened::new(config).await?;
    let admin = opened.administration();
    match command {
        RoleCommand::Create { name, description } => Ok(admin.create_role(name, description).await?),
        RoleCommand::Update { name, description } => Ok(admin.update_role(&name, description).await?),
        RoleCommand::Delete { name } => Ok(admin.delete_role(&name).await?),
        RoleCommand::List => {
            let rows = admin.list_roles().await?.into_iter().map(|role| {
                let owner = if role.built_in { "built in" } else { "custom" };
                vec![json!(role.name), json!(role.description), json!(owner)]
            });
            output::listing(format, &["name", "description", "owner"], rows.collect())
        }
    }
}

const INSTANCE_COLUMNS: [&str; 6] = ["name", "plan", "client id", "roles", "token validity", "created"];

fn instance_row(instance: &Instance) -> Vec<Value> {
    vec![
        json!(instance.name),
        json!(instance.plan),
        json!(instance.client_id),
        json!(instance.roles),
        json!(instance.token_validity),
        json!(model_time(instance.created)),
    ]
}

pub async fn instance(config: &Path, format: Format, command: InstanceCommand) -> Outcome {
    let opened = Opened::new(config).await?;
    let admin = opened.administration();
    match command {
        InstanceCommand::Create { name, plan, settings } => {
            let instance = admin.create_instance(name, plan, &parameters(settings)?).await?;
            shown(&opened, format, &instance).await
        }
        InstanceCommand::Update { name, settings } => {
            let instance = admin.update_instance(&name, parameters(settings)?).await?;
            shown(&opened, format, &instance).await
        }
        InstanceCommand::Show { name } => shown(&opened, format, &admin.show_instance(&name).await?).await,
        InstanceCommand::Delete { name } => Ok(admin.delete_instance(&name).await?),
        InstanceCommand::List => {
            let rows = admin.list_instances().await?.iter().map(instance_row).collect();
            output::listing(format, &INSTANCE_COLUMNS, rows)
        }
    }
}

/// One instance; as JSON with what the XSUAA libraries need to validate its callers' tokens.
async fn shown(opened: &Opened, format: Format, instance: &Instance) -> Outcome {
    if format == Format::Table {
        return output::listing(format, &INSTANCE_COLUMNS, vec![instance_row(instance)]);
    }
    let tenant = tenant::current(&opened.store).await?.ok_or(AdminError::NoTenant)?;
    let origin = &opened.config.origin;
    let keys = opened.administration().list_signing_keys().await?;
    let signing = keys.iter().find(|key| key.phase == Phase::Signing);
    let pem = signing.map(|key| signing::open(&opened.store, &key.record)).transpose().map_err(AdminError::from)?;
    let mut shown = json!({
        "name": instance.name,
        "plan": instance.plan,
        "roles": instance.roles,
        "token_validity": instance.token_validity,
        "created": model_time(instance.created),
        "instanceid": instance.id,
        "clientid": instance.client_id,
        "aliases": instance.aliases,
        "url": origin.url,
        "tokenurl": origin.token_url(),
        "uaadomain": origin.domain(),
        "xsappname": tenant.xsappname,
        "zoneid": tenant.zid,
        "identityzone": tenant.subdomain,
        "identityzoneid": tenant.zid,
        "tenantid": tenant.zid,
    });
    if let Some(key) = pem {
        shown["verificationkey"] = json!(key.pem());
    }
    output::json(&shown)
}

/// Flags win over the file.
fn parameters(settings: InstanceSettings) -> Result<Parameters, Failure> {
    let trusted_cas = settings.trusted_ca.map(|files| files.iter().map(|file| read(file)).collect());
    let named = Parameters {
        roles: settings.roles,
        token_validity: settings.token_validity,
        bound_tokens: settings.certificate_bound_access_tokens,
        trusted_cas: trusted_cas.transpose()?,
    };
    let named = named.checked()?;
    match settings.parameters {
        Some(file) => Ok(named.or(Parameters::parse(&read_json(&file)?)?)),
        None => Ok(named),
    }
}

pub async fn key(config: &Path, format: Format, command: KeyCommand) -> Outcome {
    let opened = Opened::new(config).await?;
    let admin = opened.administration();
    match command {
        KeyCommand::Create {
            instance,
            name,
            parameters,
            key_type,
            validity,
            key_length,
            certificate,
            pin_certificate,
            kit,
        } => {
            let wanted = match (parameters, key_type) {
                (Some(file), _) => Wanted::parse(&read_json(&file)?)?,
                (None, KeyType::ClientidSecret) => Wanted::Secret,
                (None, KeyType::Certificate) => Wanted::certificate(validity, key_length)?,
                (None, KeyType::CertificateExternal) => external(certificate.as_deref(), pin_certificate)?,
            };
            let shown = admin.create_key(&instance, name.clone(), wanted, &trust(&opened, &instance).await?).await?;
            // shown before anything else can fail: it is the only time
            output::json(&shown)?;
            if admin.show_key(&instance, &name).await?.key.pinned_alone() {
                eprintln!(
                    "note: no trusted CA vouches for this certificate, so its pin alone does: no revocation list reaches it, deleting the key ends it"
                );
            }
            kit.map_or(Ok(()), |dir| kit::write(&opened.config, &shown, &dir))
        }
        KeyCommand::Import { instance, name, file } => {
            let foreign = Foreign::parse(&read_json(&file)?)?;
            admin.import_key(&instance, name, foreign, &trust(&opened, &instance).await?).await?;
            Ok(())
        }
        KeyCommand::List { instance } => key_listing(format, &admin.list_keys(instance.as_ref()).await?),
        KeyCommand::Show { instance, name } => key_shown(format, &admin.show_key(&instance, &name).await?),
        KeyCommand::Delete { instance, name } => Ok(admin.delete_key(&instance, &name).await?),
    }
}

fn external(certificate: Option<&Path>, pinned: bool) -> Result<Wanted, Failure> {
    let path = certificate.ok_or_else(|| Failure::text("key type certificate_external needs --certificate F.pem"))?;
    Ok(Wanted::external(&read(path)?, pinned)?)
}

fn key_listing(format: Format, keys: &[Owned]) -> Outcome {
    let rows = keys.iter().map(|owned| {
        let certificate = owned.key.certificate();
        vec![
            json!(owned.instance.name),
            json!(owned.key.name),
            json!(owned.key.key_type()),
            json!(owned.key.id),
            json!(model_time(owned.key.created)),
            json!(certificate.map(|one| model_time(one.valid_until))),
            json!(owned.key.matching()),
            json!(certificate.map(|one| &one.subject)),
        ]
    });
    output::listing(
        format,
        &["instance", "name", "key type", "id", "created", "valid until", "known by", "subject"],
        rows.collect(),
    )
}

/// One key; one that goes by names with the certificates that it accepted, the latest first.
fn key_shown(format: Format, owned: &Owned) -> Outcome {
    let Some((last, earlier)) = owned.key.unpinned() else { return key_listing(format, std::slice::from_ref(owned)) };
    if format == Format::Table {
        key_listing(format, std::slice::from_ref(owned))?;
        output::print("\n")?;
    }
    let rows = std::iter::once(last).chain(earlier).enumerate().map(|(at, one)| {
        vec![
            json!(if at == 0 { "accepted" } else { "superseded" }),
            json!(model_time(one.valid_from)),
            json!(model_time(one.valid_until)),
            json!(one.serial),
            json!(one.fingerprint),
            json!(one.issuer),
        ]
    });
    output::listing(
        format,
        &["certificate", "issued", "valid until", "serial", "fingerprint", "issuer"],
        rows.collect(),
    )
}

pub async fn signing_key(config: &Path, format: Format, command: SigningKeyCommand) -> Outcome {
    let opened = Opened::new(config).await?;
    let admin = opened.administration();
    let algorithm = opened.config.tokens.algorithm;
    match command {
        SigningKeyCommand::Rotate { now } => {
            let record = admin.rotate_signing_key(algorithm, now).await?;
            output::print(&format!("{} signs from {}\n", record.kid, model_time(record.active_from)))
        }
        SigningKeyCommand::Purge { kid } => Ok(admin.purge_signing_key(&kid, algorithm).await?),
        SigningKeyCommand::List => {
            let rows = admin.list_signing_keys().await?.into_iter().map(|key| {
                let record = key.record;
                vec![
                    json!(record.kid),
                    json!(record.algorithm),
                    json!(key.phase.name()),
                    json!(model_time(record.created)),
                    json!(model_time(record.active_from)),
                ]
            });
            output::listing(format, &["kid", "algorithm", "phase", "created", "signs from"], rows.collect())
        }
    }
}
