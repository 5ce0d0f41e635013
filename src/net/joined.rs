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
        if pieces.iter().map(|piece| piece.len()).sum::<usize>() > LITTLE {
            return io.poll_write_vectored(cx, pieces);
        }
        let mut joined = [0; LITTLE];
        let length = join(pieces, &mut joined);
        io.poll_write(cx, &joined[..length])
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

/// Copies all pieces to the beginning of `joined`, which has room for them; their length together.
fn join(pieces: &[IoSlice<'_>], joined: &mut [u8]) -> usize {
    pieces.iter().fold(0, |length, piece| {
        let end = length + piece.len();
        joined[length..end].copy_from_slice(piece);
        end
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_joined_in_their_order() {
        let pieces = [IoSlice::new(b"head"), IoSlice::new(b""), IoSlice::new(b"body")];
        let mut joined = [0; 9];
        assert_eq!(join(&pieces, &mut joined), 8);
        assert_eq!(&joined, b"headbody\0");
    }
}
