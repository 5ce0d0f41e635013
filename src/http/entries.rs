//! Management of destinations, fragments and certificates: list, get, post, put, delete.

use super::Lane;
use super::destinations::{Verdict, unchanged, unless_changed, verdict};
use super::reply::{self, Short};
use crate::crypto::json;
use crate::domain::destination::directory::{Directory, Item, etag};
use crate::domain::destination::{Level, Sort};
use crate::domain::key::model_time;
use crate::domain::reason::{Reason, public_text};
use crate::domain::trail::Refusal;
use crate::gateway::administer::AdminError;
use crate::gateway::administer::destinations::{Change, Condition};
use crate::gateway::control::Managed;
use crate::net::body::{BodyError, Upload};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use std::sync::Arc;

/// Bytes of a request.
const MOST: usize = 1 << 20;
/// Entries of one request.
const MANY: usize = 500;

type Place = (Sort, Level);

pub async fn answer(
    lane: &Lane,
    parts: &Parts,
    upload: Option<&Upload>,
    place: Place,
    name: Option<String>,
) -> Result<Short, Refusal> {
    let condition = unless_changed(&parts.headers);
    match (&parts.method, name) {
        (&Method::GET | &Method::HEAD, None) => list(&lane.gateway.state.destinations.load(), parts, &place),
        (&Method::GET | &Method::HEAD, Some(name)) => {
            get(&lane.gateway.state.destinations.load(), parts, &place, &name)
        }
        (&Method::POST, None) => {
            let (changes, many) = changes(lane, upload, Change::Create).await?;
            let rows = rows(lane, place, changes).await?;
            if many { Ok(report(&rows, StatusCode::CREATED)) } else { created(rows) }
        }
        (&Method::PUT, None) => {
            let (changes, many) = changes(lane, upload, |json| Change::Replace(json, condition.clone())).await?;
            let rows = rows(lane, place, changes).await?;
            if many { Ok(report(&rows, StatusCode::OK)) } else { counted(rows) }
        }
        (&Method::DELETE, Some(name)) => counted(rows(lane, place, vec![Change::Delete(name, condition)]).await?),
        (&Method::DELETE, None) => {
            let query = Query::parse(parts.uri.query().unwrap_or_default())?;
            let Some(Filter::In(names)) = query.filter else {
                return Err(malformed("say which entries to delete: $filter=Name in ('a','b')"));
            };
            let changes = names.into_iter().map(|name| Change::Delete(name, Condition::None)).collect();
            Ok(summary(&rows(lane, place, changes).await?))
        }
        _ => Err(Reason::MethodUnsupported.into()),
    }
}

// --- reading ----------------------------------------------------------------------------------------

/// Which entries are wanted, and what of them.
#[derive(Default)]
struct Query {
    filter: Option<Filter>,
    names_only: bool,
    metadata: bool,
    page: Option<usize>,
    page_size: Option<usize>,
    counts: bool,
}

enum Filter {
    In(Vec<String>),
    StartsWith(String),
    EndsWith(String),
}

impl Query {
    fn parse(text: &str) -> Result<Self, Refusal> {
        let mut query = Self::default();
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            let number = |range: std::ops::RangeInclusive<usize>| {
                let found = value.parse().ok().filter(|number| range.contains(number));
                found.ok_or_else(|| malformed(&format!("{name} must be within {} to {}", range.start(), range.end())))
            };
            match &*name {
                "$filter" => query.filter = Some(Filter::parse(&value)?),
                "$select" if value == "Name" => query.names_only = true,
                "$select" => return Err(malformed("$select takes Name")),
                "$includeMetadata" => query.metadata = true,
                "$page" => query.page = Some(number(1..=usize::MAX)?),
                "$pageSize" => query.page_size = Some(number(1..=1_000)?),
                "$pageCount" | "$entityCount" => query.counts |= value == "true",
                _ => return Err(malformed(&format!("query parameter {} is unknown", name.escape_default()))),
            }
        }
        let paged = query.page.is_some() || query.page_size.is_some() || query.counts;
        let modes = [query.filter.is_some(), query.names_only, paged];
        match modes.iter().filter(|mode| **mode).count() {
            0 | 1 if !query.metadata || !(paged || query.names_only) => Ok(query),
            _ => Err(malformed(
                "$filter, $select and paging exclude each other, and metadata goes with neither of the last two",
            )),
        }
    }
}

impl Filter {
    fn parse(text: &str) -> Result<Self, Refusal> {
        let unquoted = |text: &str| Some(text.trim().strip_prefix('\'')?.strip_suffix('\'')?.to_owned());
        let call = |name: &str| {
            let inside = text.trim().strip_prefix(name)?.trim().strip_prefix('(')?.strip_suffix(')')?;
            let (property, value) = inside.split_once(',')?;
            (property.trim() == "Name").then(|| unquoted(value))?
        };
        let list = || {
            let inside = text.trim().strip_prefix("Name")?.trim_start().strip_prefix("in")?;
            let inside = inside.trim().strip_prefix('(')?.strip_suffix(')')?;
            inside.split(',').map(unquoted).collect::<Option<Vec<_>>>().filter(|names| names.len() <= MANY)
        };
        let found = list().map(Self::In);
        let found = found.or_else(|| call("startswith").map(Self::StartsWith));
        let found = found.or_else(|| call("endswith").map(Self::EndsWith));
        found.ok_or_else(|| malformed("$filter is one of: Name in ('a','b'), startswith(Name,'a'), endswith(Name,'a')"))
    }

    fn takes(&self, name: &str) -> bool {
        match self {
            Self::In(names) => names.iter().any(|one| one == name),
            Self::StartsWith(text) => name.starts_with(text),
            Self::EndsWith(text) => name.ends_with(text),
        }
    }
}

fn list(directory: &Directory, parts: &Parts, (sort, level): &Place) -> Result<Short, Refusal> {
    let query = Query::parse(parts.uri.query().unwrap_or_default())?;
    let takes = |item: &&Arc<Item>| query.filter.as_ref().is_none_or(|filter| filter.takes(&item.name));
    let items: Vec<_> = directory.list(*sort, level).filter(takes).collect();
    let total = items.len();
    let size = query.page_size.unwrap_or(10);
    let paged = query.page.is_some() || query.page_size.is_some();
    let page = query.page.unwrap_or(1);
    let start = if paged { (page - 1).saturating_mul(size).min(total) } else { 0 };
    let end = if paged { start.saturating_add(size).min(total) } else { total };
    let shown = items[start..end].iter().map(|item| {
        if query.names_only {
            return item.properties.selected(&[sort.name_property()]).to_string();
        }
        if !query.metadata {
            return item.facts.masked.clone();
        }
        let tag = etag(&item.facts.digest);
        let metadata = json!({ "etag": tag, "modification_time": model_time(item.modified) });
        let masked = item.facts.masked.trim_end_matches('}');
        format!("{masked},\"$metadata\":{metadata}}}")
    });
    let body = format!("[{}]", shown.collect::<Vec<_>>().join(","));
    let mut response = reply::tagged(body, "", None);
    let headers = response.headers_mut();
    headers.remove(header::ETAG);
    if query.counts {
        headers.insert(HeaderName::from_static("entity-count"), HeaderValue::from(total));
        headers.insert(HeaderName::from_static("page-count"), HeaderValue::from(total.div_ceil(size)));
    }
    if paged && end < total {
        let next = format!("<{}?$page={}&$pageSize={size}>; rel=\"next\"", parts.uri.path(), page + 1);
        headers.extend(HeaderValue::try_from(next).map(|value| (header::LINK, value)));
    }
    Ok(response)
}

fn get(directory: &Directory, parts: &Parts, (sort, level): &Place, name: &str) -> Result<Short, Refusal> {
    let item = directory.get(*sort, level, name).ok_or(Reason::EntryUnknown)?;
    let tag = etag(&item.facts.digest);
    match verdict(&parts.headers, &tag) {
        Verdict::Holds => Ok(reply::tagged(item.facts.masked.clone(), &tag, None)),
        Verdict::Same => Ok(unchanged(&tag, None)),
        Verdict::Changed => Err(Reason::EntryChanged.into()),
    }
}

// --- writing ----------------------------------------------------------------------------------------

/// One change with the name of the entry that it is about.
type Row = (String, Managed);

async fn rows(lane: &Lane, (sort, level): Place, changes: Vec<Change>) -> Result<Vec<Row>, Refusal> {
    let names: Vec<_> = changes.iter().map(|change| change.name(sort)).collect();
    let outcomes = lane.gateway.manage(sort, level, changes).await?;
    Ok(names.into_iter().zip(outcomes).collect())
}

/// The entries of a request, and whether they came as a list.
async fn changes(
    lane: &Lane,
    upload: Option<&Upload>,
    change: impl Fn(Value) -> Change,
) -> Result<(Vec<Change>, bool), Refusal> {
    let body = match upload {
        Some(upload) => read(lane, upload).await?,
        None => Vec::new(),
    };
    let said = json::strict(&body).map_err(|error| malformed(&format!("the body is no JSON: {error}")))?;
    match said {
        Value::Array(list) if list.len() > MANY => Err(malformed("a request has at most 500 entries")),
        Value::Array(list) => Ok((list.into_iter().map(change).collect(), true)),
        one => Ok((vec![change(one)], false)),
    }
}

async fn read(lane: &Lane, upload: &Upload) -> Result<Vec<u8>, Refusal> {
    if upload.length().is_some_and(|length| length > MOST as u64) {
        return Err(Reason::EntriesTooLarge.into());
    }
    let time = lane.gateway.state.limits.load().header_time;
    match tokio::time::timeout(time, upload.read(MOST)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(BodyError::TooLarge)) => Err(Reason::EntriesTooLarge.into()),
        Ok(Err(error)) => Err(Refusal::because(Reason::ClientAborted, error.to_string())),
        Err(_) => Err(Reason::RequestTooSlow.into()),
    }
}

/// The same in words for a program: what the store says is the operator's affair.
fn cause(error: &AdminError) -> String {
    match error {
        AdminError::NotFound { name, .. } => format!("there is no entry `{name}`"),
        AdminError::Exists { name, .. } => format!("there is an entry `{name}` already"),
        AdminError::Changed | AdminError::Entry(_) => error.to_string(),
        _ => public_text(Reason::StoreUnavailable.row().code).to_owned(),
    }
}

/// Why a change was not made.
fn why(error: &AdminError) -> Refusal {
    let reason = match error {
        AdminError::NotFound { .. } => Reason::EntryUnknown,
        AdminError::Exists { .. } => Reason::EntryTaken,
        AdminError::Changed => Reason::EntryChanged,
        AdminError::Entry(_) => Reason::EntryMalformed,
        _ => Reason::StoreUnavailable,
    };
    Refusal::because(reason, error.to_string())
}

fn only(rows: Vec<Row>) -> Managed {
    rows.into_iter().next().map_or(Err(AdminError::Changed), |(_, outcome)| outcome)
}

fn created(rows: Vec<Row>) -> Result<Short, Refusal> {
    let stored = only(rows).map_err(|error| why(&error))?;
    if stored.warnings.is_empty() {
        return Ok(reply::empty(StatusCode::CREATED));
    }
    Ok(reply::no_store(StatusCode::CREATED, &json!({ "warnings": stored.warnings })))
}

fn counted(rows: Vec<Row>) -> Result<Short, Refusal> {
    let stored = only(rows).map_err(|error| why(&error))?;
    let mut body = json!({ "Count": 1 });
    if !stored.warnings.is_empty() {
        body["warnings"] = json!(stored.warnings);
    }
    Ok(reply::no_store(StatusCode::OK, &body))
}

/// A line for each entry; 207 if not all went well.
fn report(rows: &[Row], good: StatusCode) -> Short {
    let line = |(name, outcome): &Row| match outcome {
        Ok(stored) => {
            let mut line = json!({ "name": name, "status": good.as_u16(), "etag": stored.etag });
            if !stored.warnings.is_empty() {
                line["warnings"] = json!(stored.warnings);
            }
            line
        }
        Err(error) => json!({ "name": name, "status": why(error).reason.row().status, "cause": cause(error) }),
    };
    let status = if rows.iter().all(|(_, outcome)| outcome.is_ok()) { good } else { StatusCode::MULTI_STATUS };
    reply::no_store(status, &Value::Array(rows.iter().map(line).collect()))
}

fn summary(rows: &[Row]) -> Short {
    let line = |(name, outcome): &Row| match outcome {
        Ok(_) => json!({ "name": name, "status": "DELETED" }),
        Err(error) => {
            let word = if matches!(error, AdminError::NotFound { .. }) { "NOT_FOUND" } else { "FAILED" };
            json!({ "name": name, "status": word, "reason": cause(error) })
        }
    };
    let count = rows.iter().filter(|(_, outcome)| outcome.is_ok()).count();
    reply::no_store(StatusCode::OK, &json!({ "Count": count, "Summary": rows.iter().map(line).collect::<Vec<_>>() }))
}

fn malformed(text: &str) -> Refusal {
    Refusal::because(Reason::EntryMalformed, text)
}
