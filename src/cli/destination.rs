//! `destination`: targets that programs look up, with their fragments and certificates.

use super::output::{self, Format};
use super::run::{Opened, read};
use super::{DestinationCommand, Failure, LevelArguments, LevelWord, Outcome};
use crate::crypto::json;
use crate::crypto::random;
use crate::domain::destination::entry::public;
use crate::domain::destination::meaning::Destination;
use crate::domain::destination::properties::Properties;
use crate::domain::destination::question::{At, Named, Question, Version};
use crate::domain::destination::{Entry, Level, Sort};
use crate::domain::key::model_time;
use crate::gateway::Mirror;
use crate::gateway::administer::AdminError;
use crate::gateway::exchanger::Exchanger;
use crate::gateway::outward::Outward;
use crate::net::outbound::Policy;
use crate::serve::SystemClock;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json as object};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const COLUMNS: [&str; 7] = ["name", "sort", "level", "authentication", "url", "modified", "fault"];
const CERTIFICATES: [&str; 5] = ["pem", "crt", "cer", "p12", "pfx"];

pub async fn run(config: &Path, format: Format, command: DestinationCommand) -> Outcome {
    let opened = Opened::new(config).await?;
    let admin = opened.administration();
    match command {
        DestinationCommand::Put { file, level } => {
            let level = named(&opened, &level).await?;
            for (path, sort, json) in entries(&file)? {
                let stored = admin.put_entry(sort, &level, &json).await;
                let stored = stored.map_err(|error| Failure::text(format!("{}: {error}", path.display())))?;
                for warning in stored.warnings {
                    eprintln!("warning: {}: {warning}", stored.name);
                }
                output::print(&format!("{} {} is stored\n", sort.word(), stored.name))?;
            }
            Ok(())
        }
        DestinationCommand::List => {
            let mut rows = Vec::new();
            let mut all = admin.list_entries().await?;
            all.sort_by_key(|(entry, _)| entry.sort);
            for (entry, properties) in all {
                rows.push(row(&entry, &properties, &level_shown(&opened, &entry.level).await?));
            }
            output::listing(format, &COLUMNS, rows)
        }
        DestinationCommand::Get { name, level } => {
            let level = named(&opened, &level).await?;
            let (entry, properties) = one(&opened, &level, &name).await?;
            let shown = if entry.sort == Sort::Certificate { public(&properties) } else { properties.masked() };
            output::json(&serde_json::from_str::<Value>(&shown.to_json())?)
        }
        DestinationCommand::Find { name, code, redirect_uri, code_verifier, instance } => {
            let headers = [("x-code", code), ("x-redirect-uri", redirect_uri), ("x-code-verifier", code_verifier)];
            find(&opened, &name, instance, headers).await
        }
        DestinationCommand::Delete { name, level } => {
            let level = named(&opened, &level).await?;
            let (entry, _) = one(&opened, &level, &name).await?;
            admin.delete_entry(entry.sort, &level, &name).await?;
            Ok(())
        }
    }
}

/// A lookup without the gateway, from the same store.
async fn find(
    opened: &Opened,
    name: &str,
    instance: Option<crate::domain::name::InstanceName>,
    said: [(&'static str, Option<String>); 3],
) -> Outcome {
    let admin = opened.administration();
    let instance = match instance {
        Some(name) => admin.show_instance(&name).await?.id,
        None => String::new(),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in said {
        if let Some(value) = value {
            headers.insert(name, HeaderValue::try_from(value)?);
        }
    }
    let question = Question::parse(Version::V1, "", &headers)?;
    let unknown = || Failure::text(format!("`{name}` is not the name of a destination"));
    let mut named = Named::parse(Version::V2, name).ok_or_else(unknown)?;
    if instance.is_empty() {
        named.at = Some(At::Subaccount);
    }

    let (_, state) = Mirror::load(opened.store.clone(), &opened.config).await?;
    let exchanger = Exchanger::new(Policy::new(&opened.config.outbound), Arc::new(SystemClock));
    let (outward, behind) = Outward::new(opened.store.clone(), &state, &exchanger, random::uuid());
    let stop = CancellationToken::new();
    let tasks = behind.spawn(&stop);
    let found = outward.finder.find(&instance, &named, &question).await;
    stop.cancel();
    for task in tasks {
        let _ = task.await;
    }
    output::json(&serde_json::from_str::<Value>(&found?.body)?)
}

async fn one(opened: &Opened, level: &Level, name: &str) -> Result<(Entry, Properties), Failure> {
    let all = opened.administration().list_entries().await?;
    let mut found: Vec<_> = all.into_iter().filter(|(entry, _)| entry.name == name && entry.level == *level).collect();
    found.sort_by_key(|(entry, _)| entry.sort);
    let missing = || AdminError::NotFound { what: "destination", name: name.to_owned() };
    Ok(found.into_iter().next().ok_or_else(missing)?)
}

fn row(entry: &Entry, properties: &Properties, level: &str) -> Vec<Value> {
    let fault = match entry.sort {
        Sort::Destination => Destination::read(properties).err().map(|bad| bad.to_string()),
        Sort::Fragment | Sort::Certificate => None,
    };
    vec![
        object!(entry.name),
        object!(entry.sort.word()),
        object!(level),
        object!(properties.get("Authentication")),
        object!(properties.get("URL")),
        object!(model_time(entry.modified)),
        object!(fault),
    ]
}

async fn level_shown(opened: &Opened, level: &Level) -> Result<String, AdminError> {
    let Level::Instance(id) = level else { return Ok("subaccount".to_owned()) };
    let all = opened.administration().list_instances().await?;
    let name = all.into_iter().find(|one| one.id == *id).map(|one| one.name.to_string());
    Ok(format!("instance {}", name.unwrap_or_else(|| "(deleted)".to_owned())))
}

async fn named(opened: &Opened, level: &LevelArguments) -> Result<Level, Failure> {
    match (level.level, &level.instance) {
        (LevelWord::Subaccount, None) => Ok(Level::Subaccount),
        (_, Some(name)) => Ok(Level::Instance(opened.administration().show_instance(name).await?.id)),
        (LevelWord::Instance, None) => Err(Failure::text("name the instance: --instance I")),
    }
}

/// The entries of a file, or of each file in a folder.
fn entries(path: &Path) -> Result<Vec<(PathBuf, Sort, Value)>, Failure> {
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        let inside = std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
        files = inside.collect::<Result<Vec<_>, _>>()?;
        files.retain(|path| path.is_file());
        files.sort();
    }
    let mut out = Vec::new();
    for path in files {
        let read = parsed(&path).map_err(|error| Failure::text(format!("{}: {error}", path.display())))?;
        out.extend(read.into_iter().map(|json| {
            let sort = if json.get("Content").is_some() {
                Sort::Certificate
            } else if json.get("FragmentName").is_some() && json.get("URL").is_none() {
                Sort::Fragment
            } else {
                Sort::Destination
            };
            (path.clone(), sort, json)
        }));
    }
    // what others name comes before them
    out.sort_by_key(|(_, sort, _)| *sort == Sort::Destination);
    Ok(out)
}

/// JSON, an exported file of properties (`Name=..`), or a certificate file.
fn parsed(path: &Path) -> Result<Vec<Value>, Box<dyn std::error::Error>> {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    if ending.as_deref().is_some_and(|ending| ending == "jks" || CERTIFICATES.contains(&ending)) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        return Ok(vec![
            object!({ "Name": name, "Type": "CERTIFICATE", "Content": STANDARD.encode(std::fs::read(path)?) }),
        ]);
    }
    let text = read(path).map_err(|_| "it cannot be read as text")?;
    if text.trim_start().starts_with(['{', '[']) {
        return Ok(match json::strict(text.as_bytes())? {
            Value::Array(list) => list,
            one => vec![one],
        });
    }
    let said = java_properties::read(text.as_bytes())?;
    Ok(vec![Value::Object(said.into_iter().map(|(name, value)| (name, Value::String(value))).collect())])
}
