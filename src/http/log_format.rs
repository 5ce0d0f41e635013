//! How a line of the access log looks: JSON with short names, with those of the Elastic Common Schema,
//! or as web servers have it.

use super::Told;
use crate::config::file::LogFormat;
use crate::crypto::digest::{Digest, hex};
use crate::domain::trail::Verdict;
use http::{HeaderValue, Version};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use std::io::Write;
use std::time::Duration;

/// What is told of a request.
pub struct Line<'a> {
    pub now: i64,
    pub request_id: &'a HeaderValue,
    pub traceparent: &'a HeaderValue,
    pub peer: &'a str,
    pub certificate: Option<&'a Digest>,
    pub method: &'a str,
    pub path: &'a str,
    pub version: Version,
    pub status: u16,
    pub bytes: u64,
    pub whole: bool,
    pub elapsed: Duration,
    pub told: &'a Told,
    /// Kept for the combined format alone.
    pub referer: Option<&'a HeaderValue>,
    pub user_agent: Option<&'a HeaderValue>,
}

#[derive(Serialize)]
struct Fields<'a> {
    time: &'a str,
    request_id: &'a str,
    trace_id: &'a str,
    peer: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    protocol: &'static str,
    method: &'a str,
    path: &'a str,
    status: u16,
    bytes: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
    ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'a str>,
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'static str>,
}

#[derive(Serialize)]
struct Ecs<'a> {
    #[serde(rename = "@timestamp")]
    time: &'a str,
    #[serde(rename = "ecs.version")]
    version: &'static str,
    #[serde(rename = "event.dataset")]
    dataset: &'static str,
    #[serde(rename = "event.kind")]
    kind: &'static str,
    #[serde(rename = "event.category")]
    category: &'static str,
    #[serde(rename = "event.outcome")]
    outcome: &'static str,
    /// Nanoseconds.
    #[serde(rename = "event.duration")]
    duration: u64,
    #[serde(rename = "event.reason", skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(rename = "message", skip_serializing_if = "Option::is_none")]
    remedy: Option<&'static str>,
    #[serde(rename = "http.request.id")]
    request_id: &'a str,
    #[serde(rename = "trace.id")]
    trace_id: &'a str,
    #[serde(rename = "http.request.method")]
    method: &'a str,
    #[serde(rename = "http.version")]
    protocol: &'static str,
    #[serde(rename = "http.response.status_code")]
    status: u16,
    #[serde(rename = "http.response.body.bytes")]
    bytes: u64,
    #[serde(rename = "url.path")]
    path: &'a str,
    #[serde(rename = "client.address")]
    peer: &'a str,
    #[serde(rename = "user.id", skip_serializing_if = "Option::is_none")]
    client: Option<&'a str>,
    #[serde(rename = "tls.client.hash.sha256", skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    #[serde(rename = "flowgate.route", skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(rename = "flowgate.endpoint", skip_serializing_if = "Option::is_none")]
    endpoint: Option<&'static str>,
    #[serde(rename = "flowgate.key", skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(rename = "flowgate.jti", skip_serializing_if = "Option::is_none")]
    jti: Option<&'a str>,
    #[serde(rename = "flowgate.step", skip_serializing_if = "Option::is_none")]
    step: Option<&'static str>,
    #[serde(rename = "flowgate.detail", skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(rename = "flowgate.cut", skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
}

/// Writes a line without its end; `time` is its second as RFC 3339 has it.
pub fn write(format: LogFormat, line: &Line<'_>, time: &str, out: &mut Vec<u8>) -> std::io::Result<()> {
    match format {
        LogFormat::Json => Ok(serde_json::to_writer(out, &fields(line, time))?),
        LogFormat::Ecs => Ok(serde_json::to_writer(out, &ecs(line, time))?),
        LogFormat::Combined => combined(line, out),
    }
}

fn ecs<'a>(line: &Line<'a>, time: &'a str) -> Ecs<'a> {
    let plain = fields(line, time);
    Ecs {
        time,
        version: "8.11.0",
        dataset: "flowgate.access",
        kind: "event",
        category: "web",
        outcome: if plain.reason.is_some() || line.status >= 400 { "failure" } else { "success" },
        duration: u64::try_from(line.elapsed.as_nanos()).unwrap_or(u64::MAX),
        reason: plain.reason,
        remedy: plain.remedy,
        request_id: plain.request_id,
        trace_id: plain.trace_id,
        method: plain.method,
        protocol: plain.protocol,
        status: plain.status,
        bytes: plain.bytes,
        path: plain.path,
        peer: plain.peer,
        client: plain.client,
        certificate: plain.certificate,
        route: plain.route,
        endpoint: plain.endpoint,
        key: plain.key,
        jti: plain.jti,
        step: plain.step,
        detail: plain.detail,
        cut: plain.cut,
    }
}

/// `host ident user [time] "request" status bytes "referer" "user agent"`, in UTC.
fn combined(line: &Line<'_>, out: &mut Vec<u8>) -> std::io::Result<()> {
    let time = Timestamp::from_second(line.now).unwrap_or_default().to_zoned(TimeZone::UTC);
    let plain = fields(line, "");
    // a query may hold what is no line's business
    let referer = line.referer.map(|value| value.as_bytes().split(|byte| *byte == b'?').next().unwrap_or_default());
    write!(out, "{} - ", plain.peer)?;
    // the fields before the first quote are told apart by blanks
    quoted(plain.client.unwrap_or("-").replace(' ', "+").as_bytes(), out)?;
    write!(out, " [{}] \"", time.strftime("%d/%b/%Y:%H:%M:%S %z"))?;
    quoted(format!("{} {}", plain.method, plain.path).as_bytes(), out)?;
    write!(out, " HTTP/{}\" {} {} \"", plain.protocol, plain.status, plain.bytes)?;
    quoted(referer.unwrap_or(b"-"), out)?;
    out.extend_from_slice(b"\" \"");
    quoted(line.user_agent.map_or(&b"-"[..], HeaderValue::as_bytes), out)?;
    out.push(b'"');
    Ok(())
}

/// Quotes, backslashes and what is not printable as web servers write them, so that no caller can
/// make up a line.
fn quoted(text: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b' '..=b'~' => out.push(*byte),
            _ => write!(out, "\\x{byte:02x}")?,
        }
    }
    Ok(())
}

fn fields<'a>(line: &Line<'a>, time: &'a str) -> Fields<'a> {
    let told = line.told;
    let caller = told.seen.caller.as_deref();
    let row = told.refusal.as_ref().map(|refusal| refusal.reason.row());
    let step = told.trail.steps().find(|(_, verdict)| matches!(verdict, Verdict::Refused(_)));
    let traceparent = line.traceparent.to_str().unwrap_or_default();
    Fields {
        time,
        request_id: line.request_id.to_str().unwrap_or_default(),
        trace_id: traceparent.get(3..35).unwrap_or_default(),
        peer: line.peer,
        certificate: line.certificate.map(|fingerprint| hex(fingerprint)),
        protocol: match line.version {
            Version::HTTP_2 => "2",
            Version::HTTP_10 => "1.0",
            _ => "1.1",
        },
        method: line.method,
        path: line.path,
        status: line.status,
        bytes: line.bytes,
        cut: !line.whole,
        ms: (line.elapsed.as_secs_f64() * 1e6).round() / 1e3,
        route: told.seen.route.as_ref().map(|route| route.name.as_str()),
        endpoint: told.endpoint,
        client: told.seen.client_id().or(told.client.as_deref()),
        key: caller.map(|caller| caller.key_id.as_str()),
        jti: caller.and_then(|caller| caller.claims.as_ref()).map(|claims| claims.jti.as_str()),
        decision: if row.is_some() { "refuse" } else { "permit" },
        step: step.map(|(step, _)| step.name()),
        reason: row.map(|row| row.name),
        detail: told.refusal.as_ref().and_then(|refusal| refusal.detail.as_deref()),
        remedy: row.map(|row| row.remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::reason::Reason;
    use serde_json::Value;

    fn written(format: LogFormat, user_agent: &str) -> String {
        let told =
            Told { refusal: Some(Reason::RoleMissing.into()), client: Some("sb-a!b1|c".into()), ..Told::default() };
        let (id, agent) = (HeaderValue::from_static("id"), HeaderValue::from_bytes(user_agent.as_bytes()));
        let line = Line {
            now: 1_795_255_200,
            request_id: &id,
            traceparent: &id,
            peer: "192.0.2.7",
            certificate: None,
            method: "POST",
            path: "/http/orders",
            version: Version::HTTP_2,
            status: 403,
            bytes: 17,
            whole: true,
            elapsed: Duration::from_millis(3),
            told: &told,
            referer: Some(&HeaderValue::from_static("https://a.example/x?token=s3cret")),
            user_agent: Some(&agent.expect("a value")),
        };
        let mut out = Vec::new();
        write(format, &line, "2026-11-21T10:00:00Z", &mut out).expect("written");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn the_combined_format_is_that_of_web_servers_and_cannot_be_forged() {
        let want = r#"192.0.2.7 - sb-a!b1|c [21/Nov/2026:10:00:00 +0000] "POST /http/orders HTTP/2" 403 17 "https://a.example/x" "a\"b\\\xc3\xa4""#;
        assert_eq!(written(LogFormat::Combined, "a\"b\\ä"), want);
    }

    #[test]
    fn the_common_schema_has_its_own_names() {
        let said: Value = serde_json::from_str(&written(LogFormat::Ecs, "x")).expect("JSON");
        assert_eq!(said["event.outcome"], "failure");
        assert_eq!((&said["event.reason"], &said["event.duration"]), (&"role-missing".into(), &3_000_000.into()));
        assert_eq!((&said["http.response.status_code"], &said["user.id"]), (&403.into(), &"sb-a!b1|c".into()));
        assert!(!said.to_string().contains("s3cret"));
    }
}
