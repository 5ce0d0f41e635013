//! `credential`: outbound credentials. Their secrets come in a file and never go out again.

use super::output::{self, Format};
use super::run::{Opened, now, read_json};
use super::{CredentialCommand, Failure, Outcome};
use crate::crypto::random;
use crate::domain::artifact::{Artifact, Grant};
use crate::domain::authorization::LIFE;
use crate::domain::credential::CredentialState;
use crate::domain::key::model_time;
use crate::domain::material::Parameters;
use crate::domain::name::ArtifactName;
use crate::gateway::exchanger::Exchanger;
use crate::gateway::keeper::{Held, Keeper, Wish};
use crate::net::outbound::Policy;
use crate::serve::SystemClock;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub async fn run(config: &Path, format: Format, command: CredentialCommand) -> Outcome {
    let opened = Opened::new(config).await?;
    let admin = opened.administration();
    match command {
        CredentialCommand::Create { parameters } => {
            let artifact = admin.create_credential(&Parameters::parse(read_json(&parameters)?)?).await?;
            for twin in admin.twins(&artifact).await? {
                eprintln!(
                    "warning: `{twin}` uses the same client and user; a provider that keeps one refresh token for both ends the other's"
                );
            }
            shown(&opened, format, &artifact, &CredentialState::default())
        }
        CredentialCommand::Update { parameters } => {
            let artifact = admin.update_credential(&Parameters::parse(read_json(&parameters)?)?).await?;
            shown(&opened, format, &artifact, &CredentialState::default())
        }
        CredentialCommand::List => {
            let rows = admin.list_credentials().await?.iter().map(|(artifact, state)| row(artifact, state)).collect();
            if format == Format::Table {
                eprintln!("redirect URL for authorization code credentials: {}", opened.config.origin.callback_url());
            }
            output::listing(format, &COLUMNS, rows)
        }
        CredentialCommand::Show { name } => {
            let (artifact, state) = admin.show_credential(&name).await?;
            shown(&opened, format, &artifact, &state)
        }
        CredentialCommand::Authorize { name, no_wait } => authorize(&opened, &name, no_wait).await,
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

/// Prints the address for the user's browser, then waits for the running gateway to take the
/// callback.
async fn authorize(opened: &Opened, name: &ArtifactName, no_wait: bool) -> Outcome {
    let admin = opened.administration();
    let (_, before) = admin.show_credential(name).await?;
    output::print(&format!("{}\n", admin.begin_authorization(name).await?))?;
    if no_wait {
        return Ok(());
    }
    eprintln!("waiting for the provider's callback at {}", opened.config.origin.callback_url());
    let end = now() + LIFE;
    while now() < end {
        tokio::time::sleep(LOOK).await;
        let (_, state) = admin.show_credential(name).await?;
        if state == before {
            continue;
        }
        return match (state.refresh, state.last_error) {
            (Some(_), None) => output::print(&format!("{name} is authorised\n")),
            (_, error) => Err(Failure::text(format!("{name} is not authorised: {}", error.unwrap_or_default()))),
        };
    }
    Err(Failure::text("nobody came back from the provider in time"))
}

async fn keep(opened: &Opened, artifact: &Artifact, wish: Wish) -> Result<Held, Failure> {
    let exchanger = Exchanger::new(Policy::new(&opened.config.outbound), Arc::new(SystemClock));
    let keeper = Keeper::new(opened.store.clone(), exchanger, random::uuid());
    let held = keeper.keep(artifact, wish).await;
    held.map_err(|trouble| Failure::text(format!("credential `{}` has no token: {}", artifact.name, trouble.text)))
}

const LOOK: Duration = Duration::from_millis(300);
const COLUMNS: [&str; 10] = [
    "name",
    "type",
    "status",
    "token until",
    "refresh token until",
    "last success",
    "next try",
    "last error",
    "warning",
    "token service url",
];

fn row(artifact: &Artifact, state: &CredentialState) -> Vec<Value> {
    let time = |seconds: i64| (seconds > 0).then(|| model_time(seconds));
    vec![
        json!(artifact.name),
        json!(artifact.grant.kind()),
        json!(state.status(artifact, now())),
        json!(time(state.expires).filter(|_| state.usable(artifact.version, now()))),
        json!(state.refresh.as_ref().map(|refresh| refresh.expires.map_or("no end known".to_owned(), model_time))),
        json!(time(state.obtained)),
        json!(time(state.next_try).filter(|_| state.last_error.is_some())),
        json!(state.last_error),
        json!(state.warning(artifact, now())),
        json!(artifact.token_url),
    ]
}

fn shown(opened: &Opened, format: Format, artifact: &Artifact, state: &CredentialState) -> Outcome {
    if format == Format::Table {
        return output::listing(format, &COLUMNS, vec![row(artifact, state)]);
    }
    let mut members = json!({});
    for (name, value) in COLUMNS.iter().zip(row(artifact, state)) {
        members[name.replace(' ', "_")] = value;
    }
    for (name, value) in [
        ("description", json!(artifact.description)),
        ("client-id", json!(artifact.client_id)),
        ("authentication", json!(artifact.authentication)),
        ("basic-encoding", json!(artifact.basic_encoding)),
        ("scope", json!(artifact.scope)),
        ("created", json!(model_time(artifact.created))),
        ("updated", json!(model_time(artifact.updated))),
    ] {
        members[name] = value;
    }
    let of_grant = match &artifact.grant {
        Grant::ClientCredentials(grant) => vec![
            ("content-type", json!(grant.content_type)),
            ("resource", json!(grant.resource)),
            ("audience", json!(grant.audience)),
            // keys and places; the values are kept with the secrets
            ("custom-parameters", json!(grant.custom)),
        ],
        Grant::AuthorizationCode(grant) => vec![
            ("provider", json!(grant.provider)),
            ("authorization-url", json!(grant.authorization_url)),
            ("user-name", json!(grant.user_name)),
            ("refresh-token-expiry", json!(grant.refresh_days)),
            ("issuer", json!(grant.issuer)),
            ("redirect-url", json!(opened.config.origin.callback_url())),
        ],
    };
    for (name, value) in of_grant {
        members[name] = value;
    }
    output::json(&members)
}
