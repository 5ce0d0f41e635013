//! The bytes of a client's connection on their way: notes whether they move, and keeps the head of
//! an HTTP/1.1 request as it came, since the parser forgives what RFC 9112 lets a server refuse.

use super::framing;
use super::joined::Joined;
use crate::domain::reason::Reason;
use http::Method;
use std::io::{ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A head that came in one piece is no larger; more is not kept.
const MOST: usize = 64 * 1024;
/// Room for a head that stays with an idle connection.
const KEPT: usize = 2 * 1024;

/// What is known of a connection's bytes.
#[derive(Debug, Default)]
pub struct Traffic {
    /// What has come since the last request was over.
    head: Mutex<Vec<u8>>,
    /// Whether what comes is not kept: the body of a request, or HTTP/2.
    past: AtomicBool,
    http2: AtomicBool,
    blocked: AtomicBool,
    written: AtomicU32,
    /// Interim answers that are still to be written, and whether there are any.
    interim: Mutex<Vec<u8>>,
    interrupted: AtomicBool,
}

impl Traffic {
    /// The handshake has agreed on HTTP/2, whose frames are strict enough.
    pub fn agree_on_http2(&self) {
        self.past.store(true, Relaxed);
        self.http2.store(true, Relaxed);
    }

    pub(super) fn read(&self, bytes: &[u8]) {
        if bytes.is_empty() || self.past.load(Relaxed) {
            return;
        }
        let mut head = lock(&self.head);
        let room = MOST - head.len();
        head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if head.starts_with(b"PRI * HTTP/2.0\r\n") {
            self.agree_on_http2();
            *head = Vec::new();
        }
    }

    pub(super) fn wrote(&self, some: bool) {
        self.blocked.store(!some, Relaxed);
        if some {
            self.written.fetch_add(1, Relaxed);
        }
    }

    /// Judges the head of the request that has just come. What follows is its body.
    pub fn judge(&self, method: &Method) -> std::result::Result<(), Reason> {
        if self.http2.load(Relaxed) {
            return Ok(());
        }
        self.past.store(true, Relaxed);
        let mut head = lock(&self.head);
        let verdict = framing::judge(&head, method);
        head.clear();
        head.shrink_to(KEPT);
        verdict
    }

    /// The next bytes are the head of another request.
    pub fn await_head(&self) {
        self.past.store(self.http2.load(Relaxed), Relaxed);
    }

    /// Whether there are bytes of a head without its end.
    pub fn head_begun(&self) -> bool {
        !lock(&self.head).is_empty()
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
        self.interrupted.store(false, Relaxed);
        Poll::Ready(Ok(()))
    }
}

fn lock(bytes: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    bytes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection whose traffic is noted.
#[derive(Debug)]
pub struct Guarded<I> {
    io: Joined<I>,
    traffic: Arc<Traffic>,
}

impl<I> Guarded<I> {
    pub fn new(io: I, traffic: Arc<Traffic>) -> Self {
        Self { io: Joined(io), traffic }
    }

    fn noted(&self, outcome: Poll<Result<usize>>) -> Poll<Result<usize>> {
        self.traffic.wrote(outcome.is_ready());
        outcome
    }
}

impl<I: AsyncWrite + Unpin> Guarded<I> {
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.traffic.poll_interim(&mut self.io, cx)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Guarded<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.io).poll_read(cx, buf);
        self.traffic.read(&buf.filled()[before..]);
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
