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
    /// Why it is not, where it was the gateway who ended it.
    pub cut: Option<&'static str>,
    pub elapsed: Duration,
    pub told: &'a Told,
    /// Kept for the combined format alone.
    pub referer: Option<&'a HeaderValue>,
    pub user_agent: Option<&'a HeaderValue>,
}

/// What a line tells, in the order in which it does.
struct Fields<'a> {
    time: &'a str,
    request_id: &'a str,
    trace_id: &'a str,
    peer: &'a str,
    certificate: Option<String>,
    protocol: &'static str,
    method: &'a str,
    path: &'a str,
    status: u16,
    bytes: u64,
    cut: bool,
    elapsed: Duration,
    route: Option<&'a str>,
    endpoint: Option<&'static str>,
    client: Option<&'a str>,
    key: Option<&'a str>,
    jti: Option<&'a str>,
    step: Option<&'static str>,
    reason: Option<&'static str>,
    detail: Option<&'a str>,
    remedy: Option<&'static str>,
}

/// Writes a line without its end; `time` is its second as RFC 3339 has it.
pub fn write(format: LogFormat, line: &Line<'_>, time: &str, out: &mut Vec<u8>) -> std::io::Result<()> {
    let fields = fields(line, time);
    match format {
        LogFormat::Json => json(&fields, out),
        LogFormat::Ecs => ecs(&fields, out),
        LogFormat::Combined => combined(line, &fields, out),
    }
}

fn json(line: &Fields<'_>, out: &mut Vec<u8>) -> std::io::Result<()> {
    out.push(b'{');
    text(out, r#""time":"#, line.time)?;
    text(out, r#","request_id":"#, line.request_id)?;
    text(out, r#","trace_id":"#, line.trace_id)?;
    text(out, r#","peer":"#, line.peer)?;
    said(out, r#","certificate":"#, line.certificate.as_deref())?;
    text(out, r#","protocol":"#, line.protocol)?;
    text(out, r#","method":"#, line.method)?;
    text(out, r#","path":"#, line.path)?;
    number(out, r#","status":"#, line.status)?;
    number(out, r#","bytes":"#, line.bytes)?;
    if line.cut {
        out.extend_from_slice(br#","cut":true"#);
    }
    number(out, r#","ms":"#, (line.elapsed.as_secs_f64() * 1e6).round() / 1e3)?;
    said(out, r#","route":"#, line.route)?;
    said(out, r#","endpoint":"#, line.endpoint)?;
    said(out, r#","client":"#, line.client)?;
    said(out, r#","key":"#, line.key)?;
    said(out, r#","jti":"#, line.jti)?;
    text(out, r#","decision":"#, if line.reason.is_some() { "refuse" } else { "permit" })?;
    said(out, r#","step":"#, line.step)?;
    said(out, r#","reason":"#, line.reason)?;
    said(out, r#","detail":"#, line.detail)?;
    said(out, r#","remedy":"#, line.remedy)?;
    out.push(b'}');
    Ok(())
}

fn ecs(line: &Fields<'_>, out: &mut Vec<u8>) -> std::io::Result<()> {
    let failed = line.reason.is_some() || line.status >= 400;
    out.push(b'{');
    text(out, r#""@timestamp":"#, line.time)?;
    out.extend_from_slice(br#","ecs.version":"8.11.0","event.dataset":"flowgate.access","event.kind":"event""#);
    out.extend_from_slice(br#","event.category":"web""#);
    text(out, r#","event.outcome":"#, if failed { "failure" } else { "success" })?;
    number(out, r#","event.duration":"#, u64::try_from(line.elapsed.as_nanos()).unwrap_or(u64::MAX))?;
    said(out, r#","event.reason":"#, line.reason)?;
    said(out, r#","message":"#, line.remedy)?;
    text(out, r#","http.request.id":"#, line.request_id)?;
    text(out, r#","trace.id":"#, line.trace_id)?;
    text(out, r#","http.request.method":"#, line.method)?;
    text(out, r#","http.version":"#, line.protocol)?;
    number(out, r#","http.response.status_code":"#, line.status)?;
    number(out, r#","http.response.body.bytes":"#, line.bytes)?;
    text(out, r#","url.path":"#, line.path)?;
    text(out, r#","client.address":"#, line.peer)?;
    said(out, r#","user.id":"#, line.client)?;
    said(out, r#","tls.client.hash.sha256":"#, line.certificate.as_deref())?;
    said(out, r#","flowgate.route":"#, line.route)?;
    said(out, r#","flowgate.endpoint":"#, line.endpoint)?;
    said(out, r#","flowgate.key":"#, line.key)?;
    said(out, r#","flowgate.jti":"#, line.jti)?;
    said(out, r#","flowgate.step":"#, line.step)?;
    said(out, r#","flowgate.detail":"#, line.detail)?;
    if line.cut {
        out.extend_from_slice(br#","flowgate.cut":true"#);
    }
    out.push(b'}');
    Ok(())
}

/// A member of an object after its name with all that comes before the value: names are known, so
/// that nothing needs to be found out about them for each line.
fn text(out: &mut Vec<u8>, name: &'static str, value: &str) -> std::io::Result<()> {
    out.extend_from_slice(name.as_bytes());
    // looking at every byte is faster than stopping at the first odd one
    let odd = |odd, byte: u8| odd | u8::from(byte < b' ' || byte == b'"' || byte == b'\\');
    if value.bytes().fold(0, odd) == 0 {
        out.push(b'"');
        out.extend_from_slice(value.as_bytes());
        out.push(b'"');
        return Ok(());
    }
    Ok(serde_json::to_writer(out, value)?)
}

fn said(out: &mut Vec<u8>, name: &'static str, value: Option<&str>) -> std::io::Result<()> {
    value.map_or(Ok(()), |value| text(out, name, value))
}

fn number(out: &mut Vec<u8>, name: &'static str, value: impl Serialize) -> std::io::Result<()> {
    out.extend_from_slice(name.as_bytes());
    Ok(serde_json::to_writer(out, &value)?)
}

/// `host ident user [time] "request" status bytes "referer" "user agent"`, in UTC.
fn combined(line: &Line<'_>, plain: &Fields<'_>, out: &mut Vec<u8>) -> std::io::Result<()> {
    let time = Timestamp::from_second(line.now).unwrap_or_default().to_zoned(TimeZone::UTC);
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
        elapsed: line.elapsed,
        route: told.seen.route.as_ref().map(|route| route.name.as_str()),
        endpoint: told.endpoint,
        client: told.seen.client_id().or(told.client.as_deref()),
        key: caller.map(|caller| caller.key_id.as_str()),
        jti: caller.and_then(|caller| caller.claims.as_ref()).map(|claims| claims.jti.as_str()),
        step: step.map(|(step, _)| step.name()),
        reason: row.map(|row| row.name),
        detail: told.refusal.as_ref().and_then(|refusal| refusal.detail.as_deref()).or(line.cut),
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
            cut: None,
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
    fn no_value_breaks_out_of_its_member() {
        for (value, want) in
            [("a/b ü", r#""a/b ü""#), ("a\"b", r#""a\"b""#), ("a\\", r#""a\\""#), ("\n\0", r#""\n\u0000""#)]
        {
            let mut out = Vec::new();
            text(&mut out, r#""path":"#, value).expect("written");
            assert_eq!(String::from_utf8(out).expect("text"), format!(r#""path":{want}"#));
        }
    }

    #[test]
    fn a_line_is_an_object_with_short_names() {
        let said: Value = serde_json::from_str(&written(LogFormat::Json, "x")).expect("JSON");
        assert_eq!((&said["decision"], &said["reason"]), (&"refuse".into(), &"role-missing".into()));
        assert_eq!((&said["status"], &said["bytes"], &said["ms"]), (&403.into(), &17.into(), &3.0.into()));
        assert!(said.get("cut").is_none() && said.get("jti").is_none());
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
