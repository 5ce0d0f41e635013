//! One JSON line per request, without secrets: no query, no header values, no bodies. Lines gather
//! in the lane and leave in blocks, so that logging adds no system call to a request; when the
//! writer cannot keep up, lines are dropped and counted, never a request delayed.

use super::Told;
use crate::crypto::digest::{Digest, hex};
use crate::domain::trail::Verdict;
use http::{HeaderValue, Version};
use jiff::Timestamp;
use serde::Serialize;
use std::cell::{Cell, RefCell};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

const BLOCK: usize = 32 * 1024;
/// Blocks that may wait for the writer: 8 MiB.
const WAITING: usize = 256;

/// A lane's log.
pub struct AccessLog {
    block: RefCell<Vec<u8>>,
    lines: Cell<u64>,
    /// The second of the last line and its text: many lines share one.
    second: RefCell<(i64, String)>,
    writer: LogWriter,
}

/// The way to the writing thread.
#[derive(Clone)]
pub struct LogWriter {
    blocks: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

impl LogWriter {
    /// Starts the thread that writes blocks to `out`; it ends with the last writer.
    pub fn start(mut out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (blocks, waiting) = sync_channel::<Vec<u8>>(WAITING);
        let write = move || {
            for block in waiting {
                if out.write_all(&block).and_then(|()| out.flush()).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("access-log".into()).spawn(write)?;
        Ok(Self { blocks, dropped: Arc::default() })
    }

    /// Lines that were lost since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

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

impl AccessLog {
    pub fn new(writer: LogWriter) -> Self {
        Self {
            block: RefCell::new(Vec::with_capacity(BLOCK + 1024)),
            lines: Cell::new(0),
            second: RefCell::default(),
            writer,
        }
    }

    pub fn write(&self, line: &Line<'_>) {
        let mut second = self.second.borrow_mut();
        if second.0 != line.now {
            *second = (line.now, Timestamp::from_second(line.now).unwrap_or_default().to_string());
        }
        let mut block = self.block.borrow_mut();
        if serde_json::to_writer(&mut *block, &fields(line, &second.1)).is_ok() {
            block.push(b'\n');
            self.lines.set(self.lines.get() + 1);
        }
        let full = block.len() >= BLOCK;
        drop(block);
        if full {
            self.flush();
        }
    }

    pub fn flush(&self) {
        let mut block = self.block.borrow_mut();
        if block.is_empty() {
            return;
        }
        let full = std::mem::replace(&mut *block, Vec::with_capacity(BLOCK + 1024));
        let lines = self.lines.take();
        if self.writer.blocks.try_send(full).is_err() {
            self.writer.dropped.fetch_add(lines, Ordering::Relaxed);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
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
