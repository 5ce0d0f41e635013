//! `credential`: outbound credentials. Their secrets come in a file and never go out again.

use super::output::{self, Format};
use super::run::{Opened, now, read_json};
use super::{CredentialCommand, Failure, Outcome};
use crate::domain::artifact::{Artifact, Parameters};
use crate::domain::credential::CredentialState;
use crate::domain::key::model_time;
use crate::gateway::outbound::{Keeper, Wish};
use crate::net::outbound::Policy;
use crate::serve::SystemClock;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

pub async fn run(config: &Path, format: Format, command: CredentialCommand) -> Outcome {
    let opened = Opened::new(config).await?;
    let admin = opened.administration();
    match command {
        CredentialCommand::Create { parameters } => {
            let artifact = admin.create_credential(&Parameters::parse(read_json(&parameters)?)?).await?;
            shown(format, &artifact, &CredentialState::default())
        }
        CredentialCommand::Update { parameters } => {
            let artifact = admin.update_credential(&Parameters::parse(read_json(&parameters)?)?).await?;
            shown(format, &artifact, &CredentialState::default())
        }
        CredentialCommand::List => {
            let rows = admin.list_credentials().await?.iter().map(|(artifact, state)| row(artifact, state)).collect();
            output::listing(format, &COLUMNS, rows)
        }
        CredentialCommand::Show { name } => {
            let (artifact, state) = admin.show_credential(&name).await?;
            shown(format, &artifact, &state)
        }
        CredentialCommand::Token { name } => {
            let (artifact, _) = admin.show_credential(&name).await?;
            let held = keep(&opened, &artifact, Wish::Any).await?;
            output::print(&format!("{}\n", held.token().expose_secret()))
        }
        CredentialCommand::Refresh { name } => {
            let (artifact, _) = admin.show_credential(&name).await?;
            let held = keep(&opened, &artifact, Wish::Fresh).await?;
            output::print(&format!("a new token, good until {}\n", model_time(held.expires)))
        }
        CredentialCommand::Delete { name } => {
            let used =
                |route: &&crate::domain::route::Route| route.credential.as_ref().is_some_and(|one| one.name == name);
            if let Some(route) = opened.config.routes.iter().find(used) {
                let text = format!("credential `{name}` is used by route `{}`; take it away there first", route.name);
                return Err(Failure::text(text));
            }
            Ok(admin.delete_credential(&name).await?)
        }
    }
}

async fn keep(opened: &Opened, artifact: &Artifact, wish: Wish) -> Result<crate::gateway::outbound::Held, Failure> {
    let outbound = &opened.config.outbound;
    let policy = Policy::new(outbound.allow_networks.clone(), outbound.trusted_cas.iter().cloned());
    let keeper = Keeper::new(opened.store.clone(), policy, Arc::new(SystemClock));
    let held = keeper.keep(artifact, wish).await;
    held.map_err(|trouble| Failure::text(format!("credential `{}` has no token: {}", artifact.name, trouble.text)))
}

const COLUMNS: [&str; 8] =
    ["name", "type", "status", "token until", "last success", "next try", "last error", "token service url"];

fn row(artifact: &Artifact, state: &CredentialState) -> Vec<Value> {
    let time = |seconds: i64| (seconds > 0).then(|| model_time(seconds));
    vec![
        json!(artifact.name),
        json!("oauth2-client-credentials"),
        json!(state.status(artifact.updated, now())),
        json!(time(state.expires).filter(|_| state.usable(artifact.updated, now()))),
        json!(time(state.obtained)),
        json!(time(state.next_try).filter(|_| state.last_error.is_some())),
        json!(state.last_error),
        json!(artifact.token_url),
    ]
}

fn shown(format: Format, artifact: &Artifact, state: &CredentialState) -> Outcome {
    if format == Format::Table {
        return output::listing(format, &COLUMNS, vec![row(artifact, state)]);
    }
    let mut members = json!({ "type": "oauth2-client-credentials" });
    for (name, value) in COLUMNS.iter().zip(row(artifact, state)) {
        members[name.replace(' ', "_")] = value;
    }
    for (name, value) in [
        ("description", json!(artifact.description)),
        ("client-id", json!(artifact.client_id)),
        ("authentication", json!(artifact.authentication)),
        ("basic-encoding", json!(artifact.basic_encoding)),
        ("scope", json!(artifact.scope)),
        ("content-type", json!(artifact.content_type)),
        ("resource", json!(artifact.resource)),
        ("audience", json!(artifact.audience)),
        ("custom-parameters", json!(artifact.custom)),
        ("created", json!(model_time(artifact.created))),
        ("updated", json!(model_time(artifact.updated))),
    ] {
        members[name] = value;
    }
    output::json(&members)
}
