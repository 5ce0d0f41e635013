//! Writes of little in several pieces as one: a system call that gathers costs more than a copy.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is little: a head with a short body.
const LITTLE: usize = 2 * 1024;

/// A connection whose pieces are joined.
#[derive(Debug)]
pub struct Joined<I>(pub I);

impl<I: AsyncRead + Unpin> AsyncRead for Joined<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Joined<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let io = Pin::new(&mut self.0);
        if let [piece] = pieces {
            return io.poll_write(cx, piece);
        }
        let mut joined = [0; LITTLE];
        match join(pieces, &mut joined) {
            Some(length) => io.poll_write(cx, &joined[..length]),
            None => io.poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Copies all pieces to the beginning of `joined`; their length together, if there is room for it.
fn join(pieces: &[IoSlice<'_>], joined: &mut [u8]) -> Option<usize> {
    let mut length = 0;
    for piece in pieces {
        let end = length + piece.len();
        joined.get_mut(length..end)?.copy_from_slice(piece);
        length = end;
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_joined_as_far_as_there_is_room() {
        let pieces = [IoSlice::new(b"head"), IoSlice::new(b""), IoSlice::new(b"body")];
        let mut joined = [0; 8];
        assert_eq!(join(&pieces, &mut joined), Some(8));
        assert_eq!(&joined, b"headbody");
        assert_eq!(join(&pieces, &mut joined[..7]), None);
    }
}
