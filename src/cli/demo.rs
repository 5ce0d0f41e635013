//! One command from nothing: makes what is missing, starts an echo flow, serves, and prints the
//! lines to copy. What it makes is what `check` and `serve` use afterwards.

use super::run::{self, Opened, now};
use super::token::ServiceKey;
use super::{Failure, Outcome, echo, output};
use crate::config::Config;
use crate::crypto::ca::{self, Issued, Subject, Validity};
use crate::crypto::trust::Trust;
use crate::domain::instance::{Parameters, Plan};
use crate::domain::key::Wanted;
use crate::domain::name::{InstanceName, KeyName, RoleName};
use crate::gateway::administer::{AdminError, Administration};
use crate::serve::handover::Handed;
use secrecy::ExposeSecret;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// The configuration that the demo starts with; the repository's own file.
const CONFIG: &str = include_str!("../../config.yaml");
/// Days that the demo's certificates live.
const DAYS: i64 = 365;
const SENDER: &str = "demo-sender";
const OUTSIDER: &str = "demo-outsider";
/// The role that the outsider has, which no route asks for.
const OTHER_ROLE: &str = "Reports.read";

pub async fn run(dir: &Path) -> Outcome {
    run::install_log();
    prepare(dir)?;
    let path = dir.join("config.yaml");
    let opened = Opened::new(&path).await?;
    let sender = service_key(&opened, dir, SENDER, "ESBMessaging.send").await?;
    let outsider = service_key(&opened, dir, OUTSIDER, OTHER_ROLE).await?;
    let text = instructions(dir, &opened.config, &sender, &outsider);
    start_flows(&opened.config).await;
    opened.store.close().await;
    let running = run::start(path, Handed::default()).await?;
    output::print(&text)?;
    run::until_stopped(running).await
}

/// Files that are missing; what is there stays as it is.
fn prepare(dir: &Path) -> Outcome {
    for (folder, mode) in [("certs/trusted-cas", 0o755), ("keys", 0o700), ("data", 0o700)] {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(mode).create(dir.join(folder))?;
    }
    write_new(&dir.join("config.yaml"), CONFIG, 0o644)?;
    let (certificate, key) = (dir.join("certs/server.pem"), dir.join("certs/server-key.pem"));
    if certificate.exists() && key.exists() {
        return Ok(());
    }
    let life = Validity::days(now(), DAYS);
    let subject = |common_name| Subject { organization: "flowgate demo", unit: None, common_name };
    let authority = ca::authority(&subject("flowgate demo CA"), life)?;
    let Issued { certificate: server, key: server_key } =
        ca::server(&authority, &subject("localhost"), life, &["localhost", "127.0.0.1", "::1"])?;
    // the CA's key is not kept: it has signed the one certificate that it is for
    replace(&dir.join("certs/ca.pem"), &authority.certificate, 0o644)?;
    // the root goes along, so that whoever looks at the server finds what to import
    replace(&certificate, &format!("{server}{}", authority.certificate), 0o644)?;
    replace(&key, server_key.expose_secret(), 0o600)
}

fn write_new(path: &Path, text: &str, mode: u32) -> Outcome {
    match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Ok(mut file) => Ok(file.write_all(text.as_bytes())?),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Failure::text(format!("{} cannot be written: {error}", path.display()))),
    }
}

fn replace(path: &Path, text: &str, mode: u32) -> Outcome {
    let _ = std::fs::remove_file(path);
    write_new(path, text, mode)
}

/// The service key of a demo instance: kept in `keys/`, made again if its file is gone.
async fn service_key(opened: &Opened, dir: &Path, name: &str, role: &str) -> Result<ServiceKey, Failure> {
    let file = dir.join("keys").join(format!("{name}.json"));
    let admin = opened.administration();
    let (instance, key) = (InstanceName::parse(name)?, KeyName::parse("demo")?);
    let known = admin.show_key(&instance, &key).await.is_ok();
    if known && file.exists() {
        return ServiceKey::read(&file);
    }
    if known {
        admin.delete_key(&instance, &key).await?;
    }
    ensure_instance(&admin, &instance, RoleName::parse(role)?).await?;
    let trust = Trust::of(opened.config.trusted_cas.clone())?;
    let shown = admin.create_key(&instance, key, Wanted::Secret, &trust).await?;
    replace(&file, &format!("{shown:#}\n"), 0o600)?;
    ServiceKey::read(&file)
}

async fn ensure_instance(admin: &Administration<'_>, name: &InstanceName, role: RoleName) -> Result<(), AdminError> {
    match admin.create_role(role.clone(), "made by the demo".into()).await {
        Ok(()) | Err(AdminError::Exists { .. }) => {}
        Err(error) => return Err(error),
    }
    let parameters = Parameters { roles: Some(vec![role]), ..Parameters::default() };
    match admin.create_instance(name.clone(), Plan::IntegrationFlow, &parameters).await {
        Ok(_) | Err(AdminError::Exists { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// An echo flow at each backend address where nothing listens yet.
async fn start_flows(config: &Config) {
    let servers = config.routes.iter().flat_map(|route| &route.backend.servers);
    for authority in servers.map(|server| &server.authority) {
        match tokio::net::TcpListener::bind(&**authority).await {
            Ok(listener) => {
                tokio::spawn(echo::serve(listener));
            }
            Err(error) => tracing::info!(%authority, %error, "no echo flow started here"),
        }
    }
}

fn instructions(dir: &Path, config: &Config, sender: &ServiceKey, outsider: &ServiceKey) -> String {
    let ca = dir.join("certs/ca.pem");
    let ca = ca.strip_prefix(".").unwrap_or(&ca).display();
    let token = |key: &ServiceKey| {
        let (id, secret) = (key.text("clientid").unwrap_or_default(), key.text("clientsecret").unwrap_or_default());
        let url = key.token_url();
        let cut = r#"sed -E 's/.*"access_token":"([^"]+)".*/\1/'"#;
        format!(
            "$(curl -sS --cacert {ca} -X POST -u '{id}:{secret}' '{url}?grant_type=client_credentials' | tee /dev/stderr | {cut})"
        )
    };
    let path = config
        .routes
        .first()
        .map_or_else(String::new, |route| route.pattern.to_string().trim_end_matches("/*").to_owned());
    let call = format!("{}{path}/4711", config.origin.url);
    format!(
        "flowgate is up. Copy these lines into another terminal, in the same folder:\n\n\
         # 1. the sender gets a token with its service key: 200\n\
         TOKEN={sender}\n\n\
         # 2. the token gets the call through to the flow: 200\n\
         curl -i --cacert {ca} -H \"Authorization: Bearer $TOKEN\" -d '{{\"order\":4711}}' {call}\n\n\
         # 3. a sender whose instance lacks the role gets a token, but not through: 403\n\
         OTHER={outsider}; curl -i --cacert {ca} -H \"Authorization: Bearer $OTHER\" -d '{{\"order\":4711}}' {call}\n\n\
         # 4. and nobody gets through without a token: 401\n\
         curl -i --cacert {ca} -d '{{\"order\":4711}}' {call}\n\n",
        sender = token(sender),
        outsider = token(outsider),
    )
}
