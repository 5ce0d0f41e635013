//! One line per request, without secrets: no query, no bodies, and of headers only what the combined
//! format has a place for. Lines gather in the lane and leave in blocks, so that logging adds no
//! system call to a request; when the writer cannot keep up, lines are dropped and counted, never a
//! request delayed.

use super::log_format::{self, Line};
use crate::config::AccessLog as Setting;
use crate::config::file::LogFormat;
use jiff::Timestamp;
use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

const BLOCK: usize = 32 * 1024;
/// Bytes that may wait for the writer, in how many blocks: a block ends with the line that fills it.
const WAITING: usize = 8 << 20;
const BLOCKS: usize = WAITING / BLOCK;
/// Written blocks that are kept.
const EMPTY: usize = 16;

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
    format: LogFormat,
    /// Lines with their number.
    blocks: SyncSender<(Vec<u8>, u64)>,
    waiting: Arc<AtomicUsize>,
    /// Blocks that were written and may be filled again.
    empty: Arc<Mutex<Vec<Vec<u8>>>>,
    dropped: Arc<AtomicU64>,
    reopen: Arc<AtomicBool>,
}

impl LogWriter {
    /// Starts the thread that writes blocks to the configured file, or to `stream` where there is
    /// none; it ends with the last writer.
    pub fn start(setting: &Setting, stream: Box<dyn Write + Send>) -> std::io::Result<Self> {
        let file = setting.file.clone();
        let (blocks, incoming) = sync_channel::<(Vec<u8>, u64)>(BLOCKS);
        let mut out = match &file {
            Some(path) => Box::new(append(path)?),
            None => stream,
        };
        let this = Self {
            format: setting.format,
            blocks,
            waiting: Arc::default(),
            empty: Arc::default(),
            dropped: Arc::default(),
            reopen: Arc::default(),
        };
        let (empty, dropped, reopen) = (this.empty.clone(), this.dropped.clone(), this.reopen.clone());
        let waiting = this.waiting.clone();
        let write = move || {
            for (mut block, lines) in incoming {
                if let (Some(path), true) = (&file, reopen.swap(false, Ordering::Relaxed)) {
                    match append(path) {
                        Ok(fresh) => out = Box::new(fresh),
                        Err(error) => {
                            tracing::error!(file = %path.display(), %error, "the access log cannot be opened again; the one before goes on");
                        }
                    }
                }
                // a full disk may have room again later
                if out.write_all(&block).and_then(|()| out.flush()).is_err() {
                    dropped.fetch_add(lines, Ordering::Relaxed);
                }
                waiting.fetch_sub(block.len(), Ordering::Relaxed);
                block.clear();
                let mut empty = empty.lock().unwrap_or_else(PoisonError::into_inner);
                if empty.len() < EMPTY && block.capacity() < 2 * BLOCK {
                    empty.push(block);
                }
            }
        };
        std::thread::Builder::new().name("access-log".into()).spawn(write)?;
        Ok(this)
    }

    /// A block to fill.
    fn block(&self) -> Vec<u8> {
        let kept = self.empty.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| Vec::with_capacity(BLOCK + 1024))
    }

    /// Lines that were lost since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The file has been moved away: the next lines go to a new one of its name.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

impl AccessLog {
    pub fn new(writer: LogWriter) -> Self {
        Self { block: RefCell::new(writer.block()), lines: Cell::new(0), second: RefCell::default(), writer }
    }

    /// Whether a line has a place for the headers Referer and User-Agent.
    pub fn has_headers(&self) -> bool {
        self.writer.format == LogFormat::Combined
    }

    pub fn write(&self, line: &Line<'_>) {
        let mut second = self.second.borrow_mut();
        if second.0 != line.now {
            *second = (line.now, Timestamp::from_second(line.now).unwrap_or_default().to_string());
        }
        let mut block = self.block.borrow_mut();
        let start = block.len();
        if log_format::write(self.writer.format, line, &second.1, &mut block).is_ok() {
            block.push(b'\n');
            self.lines.set(self.lines.get() + 1);
        } else {
            block.truncate(start);
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
        let full = std::mem::replace(&mut *block, self.writer.block());
        let lines = self.lines.take();
        let length = full.len();
        let room = self.writer.waiting.fetch_add(length, Ordering::Relaxed) + length <= WAITING;
        if !room || self.writer.blocks.try_send((full, lines)).is_err() {
            self.writer.waiting.fetch_sub(length, Ordering::Relaxed);
            self.writer.dropped.fetch_add(lines, Ordering::Relaxed);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}
