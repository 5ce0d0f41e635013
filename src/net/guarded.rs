//! The bytes of a client's connection on their way: notes whether they move, and reads them
//! beside the parser, which forgives what RFC 9112 and RFC 9113 have a server refuse.

use super::frames::{Fault, Frames};
use super::framing::{self, Framing};
use super::joined::Joined;
use crate::domain::reason::Reason;
use std::fmt;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::yield_now;

/// Interim answers that may wait.
const MOST: usize = 64 * 1024;
/// Octets of HTTP/2 that are read before others have their turn: they may be thousands of frames.
const TURN: usize = 32 * 1024;
/// A code of GOAWAY (RFC 9113, 7).
const PROTOCOL_ERROR: u8 = 1;

/// What is known of a connection's bytes.
#[derive(Default)]
pub struct Traffic {
    framing: Mutex<Framing>,
    /// Its requests end where they say.
    http2: AtomicBool,
    blocked: AtomicBool,
    written: AtomicU32,
    /// Interim answers that are still to be written, and whether there are any.
    interim: Mutex<Vec<u8>>,
    interrupted: AtomicBool,
}

impl Traffic {
    /// Notes what has come; what follows the first line if that tells of HTTP/2.
    pub(super) fn read<'a>(&self, bytes: &'a [u8]) -> std::result::Result<Option<&'a [u8]>, framing::Fault> {
        let rest = lock(&self.framing).read(bytes)?;
        if rest.is_some() {
            self.http2.store(true, Relaxed);
        }
        Ok(rest)
    }

    pub(super) fn wrote(&self, some: bool) {
        self.blocked.store(!some, Relaxed);
        if some {
            self.written.fetch_add(1, Relaxed);
        }
    }

    /// Judges the head of the request that has just come.
    pub fn judge(&self) -> std::result::Result<(), Reason> {
        if self.http2.load(Relaxed) { Ok(()) } else { lock(&self.framing).judge() }
    }

    /// What follows is a tunnel's.
    pub fn end(&self) {
        lock(&self.framing).end();
    }

    /// Whether there are bytes of a head without its end.
    pub fn head_begun(&self) -> bool {
        lock(&self.framing).begun()
    }

    pub fn blocked(&self) -> bool {
        self.blocked.load(Relaxed)
    }

    /// Moves on with every write.
    pub fn written(&self) -> u32 {
        self.written.load(Relaxed)
    }

    /// Has an interim answer written before all that is not written yet. There is none where the
    /// end of the answer before is still on its way, since it would get in between.
    pub fn interrupt(&self, head: &[u8]) {
        let mut interim = lock(&self.interim);
        if !self.http2.load(Relaxed) && !self.blocked() && interim.len() + head.len() <= MOST {
            interim.extend_from_slice(head);
            self.interrupted.store(true, Relaxed);
        }
    }

    fn poll_interim<I: AsyncWrite + Unpin>(&self, io: &mut I, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if !self.interrupted.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let mut interim = lock(&self.interim);
        while !interim.is_empty() {
            match Pin::new(&mut *io).poll_write(cx, &interim) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => drop(interim.drain(..written)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.wrote(false);
                    return Poll::Pending;
                }
            }
        }
        // few connections have another one
        *interim = Vec::new();
        self.interrupted.store(false, Relaxed);
        self.wrote(true);
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Traffic {
    /// Without bytes: some are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Traffic({} writes)", self.written())
    }
}

fn lock<T>(part: &Mutex<T>) -> MutexGuard<'_, T> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the parser is told in place of bytes that it would not understand as others do.
fn broken() -> Poll<Result<()>> {
    Poll::Ready(Err(Error::new(ErrorKind::InvalidData, "a line of a chunked body is none (RFC 9112, 7.1)")))
}

/// A connection whose traffic is noted.
pub struct Guarded<I> {
    io: Joined<I>,
    traffic: Arc<Traffic>,
    /// Once it is HTTP/2.
    frames: Option<Box<Frames>>,
    /// Octets that were read in one go.
    turn: usize,
    /// Whether what comes is not to be read.
    broken: bool,
}

impl<I> Guarded<I> {
    pub fn new(io: I, traffic: Arc<Traffic>) -> Self {
        Self { io: Joined(io), traffic, frames: None, turn: 0, broken: false }
    }

    fn noted(&self, outcome: Poll<Result<usize>>) -> Poll<Result<usize>> {
        self.traffic.wrote(outcome.is_ready());
        outcome
    }
}

impl<I: AsyncWrite + Unpin> Guarded<I> {
    /// Looks at what has come; how much of it may be read.
    fn look(&mut self, bytes: &[u8]) -> std::result::Result<usize, Fault> {
        if let Some(frames) = &mut self.frames {
            return frames.read(bytes).map(|()| bytes.len());
        }
        match self.traffic.read(bytes) {
            Ok(None) => Ok(bytes.len()),
            Ok(Some(rest)) => {
                let frames = self.frames.insert(Box::default());
                frames.read(rest).map(|()| bytes.len())
            }
            Err(fault) => {
                self.broken = true;
                Ok(fault.before)
            }
        }
    }

    /// Tells the client that the connection ends, where nothing else is on its way (RFC 9113, 5.4.1).
    fn go_away(&mut self, cx: &mut Context<'_>) {
        let mut goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, PROTOCOL_ERROR];
        let Some(frames) = &self.frames else { return };
        goaway[9..13].copy_from_slice(&frames.latest().to_be_bytes());
        if !self.traffic.blocked() {
            let _ = Pin::new(&mut self.io).poll_write(cx, &goaway);
        }
    }

    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.traffic.poll_interim(&mut self.io, cx)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if self.frames.is_some() && self.turn > TURN {
            self.turn = 0;
            return pin!(yield_now()).poll(cx).map(Ok);
        }
        if self.broken {
            return broken();
        }
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.io).poll_read(cx, buf);
        self.turn = if outcome.is_ready() { self.turn + buf.filled().len() - before } else { 0 };
        match self.look(&buf.filled()[before..]) {
            Ok(0) if self.broken => return broken(),
            Ok(length) => buf.set_filled(before + length),
            Err(fault) => {
                self.go_away(cx);
                return Poll::Ready(Err(Error::new(ErrorKind::InvalidData, fault)));
            }
        }
        outcome
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Guarded<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        ready!(self.poll_interim(cx))?;
        let outcome = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.noted(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        ready!(self.poll_interim(cx))?;
        let outcome = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.noted(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        // the library flushes when it has nothing to write, which is when an answer is awaited
        ready!(self.poll_interim(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
