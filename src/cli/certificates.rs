//! Certificates as an operator looks at them: the trusted CAs, one certificate held against the
//! rules, and what will have ended by some day.

use super::connectivity::usages;
use super::output::{self, Format};
use super::run::{Opened, now, read};
use super::{Failure, Outcome};
use crate::config::units;
use crate::crypto::digest::hex;
use crate::crypto::examine::examine;
use crate::crypto::trust::Trust;
use crate::crypto::x509::{self, Certificate};
use crate::domain::key::model_time;
use crate::domain::name::InstanceName;
use crate::gateway::Mirror;
use crate::gateway::administer::authority::AuthorityRecord;
use serde_json::{Value, json};
use std::path::Path;

/// The CAs that the gateway believes: the configured ones and its own.
async fn authorities(opened: &Opened) -> Result<Vec<Certificate>, Failure> {
    let own = opened.store.get::<AuthorityRecord>("authority").await?;
    let own = own.map(|record| Certificate::from_pem(&record.certificate)).transpose()?;
    Ok(opened.config.all_cas().into_iter().chain(own).collect())
}

/// What judges a certificate that is uploaded for an instance: its own list, if it has one.
pub async fn trust(opened: &Opened, instance: &InstanceName) -> Result<Trust, Failure> {
    let instance = opened.administration().show_instance(instance).await?;
    let list = if instance.trusted_cas.is_empty() {
        authorities(opened).await?
    } else {
        instance.trusted_cas.iter().map(|pem| Certificate::from_pem(pem)).collect::<Result<_, _>>()?
    };
    Ok(Trust::new(list, opened.config.crls.clone(), opened.config.revocation)?)
}

pub async fn list(config: &Path, format: Format) -> Outcome {
    let opened = Opened::new(config).await?;
    let rows = authorities(&opened).await?.into_iter().map(|ca| {
        let state = if ca.current(now()) { "valid" } else { "out of its time" };
        vec![
            json!(ca.subject),
            json!(ca.issuer),
            json!(model_time(ca.not_after)),
            json!(state),
            json!(hex(&ca.fingerprint)),
        ]
    });
    output::listing(format, &["subject", "issuer", "valid until", "state", "fingerprint"], rows.collect())
}

/// Would this certificate be accepted, as which key, and if not, why.
pub async fn inspect(config: &Path, format: Format, file: &Path) -> Outcome {
    let opened = Opened::new(config).await?;
    let (_, state) = Mirror::load(opened.store.clone(), &opened.config).await?;
    let chain = x509::uploaded(&read(file)?)?;
    let handshake = state.authorities.load().handshake.clone();
    let seen = examine(&handshake, &chain, now())?;
    let one = &seen.certificate;
    let holder = state.clients.load().by_certificate(one);
    let key = match &holder {
        Ok(proof) => format!("{} of instance {}", proof.key.name, proof.client.instance.name),
        Err(refusal) => format!("none: {}", refusal.reason.row().remedy),
    };
    let verdict = |outcome: Result<(), String>| outcome.map_or_else(|why| format!("no: {why}"), |()| "yes".into());
    let facts = [
        ("subject", one.subject.clone()),
        ("issuer", one.issuer.clone()),
        ("serial", one.serial.clone()),
        ("valid", format!("{} to {}", model_time(one.not_before), model_time(one.not_after))),
        ("usages", usages(one)),
        ("fingerprint", hex(&one.fingerprint)),
        ("service key", key),
        ("client certificate by a trusted CA", verdict(seen.by_path.map_err(|why| why.to_string()))),
        ("client certificate by a pin alone", verdict(seen.by_pin.map_err(|why| why.to_string()))),
        ("trusted CA", verdict(seen.as_authority.map_err(|why| why.to_string()))),
    ];
    let facts = facts.map(|(name, value)| vec![json!(name), json!(value)]);
    let rules = seen.findings.iter().map(|finding| {
        let (passed, text) = finding.outcome.as_ref().map_or_else(|why| ("no", why), |found| ("yes", found));
        vec![json!(finding.rule), json!(passed), json!(text)]
    });
    if format == Format::Json {
        let facts: serde_json::Map<String, Value> =
            facts.iter().map(|row| (row[0].as_str().unwrap_or_default().replace(' ', "_"), row[1].clone())).collect();
        let rules: Vec<_> =
            rules.map(|row| json!({ "rule": row[0], "passed": row[1] == "yes", "detail": row[2] })).collect();
        return output::json(&json!({ "certificate": facts, "rules": rules }));
    }
    output::listing(format, &["what", "is"], facts.to_vec())?;
    output::print("\n")?;
    output::listing(format, &["rule", "passed", "detail"], rules.collect())
}

/// All that will have ended by a day, and what breaks. Something is a failure, for scripts.
pub async fn outlook(config: &Path, format: Format, day: &str) -> Outcome {
    let at = day_of(day)?;
    let opened = Opened::new(config).await?;
    let (mirror, _) = Mirror::load(opened.store.clone(), &opened.config).await?;
    let mut ended = Vec::new();
    mirror.outlook(&opened.config, |view| ended = view.endings());
    ended.retain(|one| one.ends < at);
    let rows = ended
        .iter()
        .map(|one| vec![json!(one.kind.name()), json!(one.name), json!(model_time(one.ends)), json!(one.breaks)]);
    output::listing(format, &["kind", "name", "ends", "breaks"], rows.collect())?;
    match ended.len() {
        0 => Ok(()),
        count => Err(Failure::text(format!("{count} will have ended by {}", model_time(at)))),
    }
}

/// The first second of a day, or so long from now.
fn day_of(text: &str) -> Result<i64, Failure> {
    if let Some(span) = text.strip_prefix('+').and_then(units::duration) {
        return Ok(now() + span.as_secs().cast_signed());
    }
    let date: Result<jiff::civil::Date, _> = text.parse();
    let start = date.ok().and_then(|date| date.to_zoned(jiff::tz::TimeZone::UTC).ok());
    start.map(|start| start.timestamp().as_second()).ok_or_else(|| {
        Failure::text(format!("`{text}` is no day: write it as 2027-01-31, or as +30d for thirty days from now"))
    })
}
