//! Bodies on their way: a request's, counted against the route's limit; an answer's, which brings
//! its connection back to the pool when it has been read to the end.

use super::pool::Lent;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// How long, and for how many bytes, an answered request's body is still taken in.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 4 << 20;

/// What became of a request body that did not arrive whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    TooLarge,
    /// The client went away or broke the framing.
    Client,
}

/// A request's body, held until the answer has been sent: dropped earlier, HTTP/2 would cancel the
/// stream and the client would lose the answer (RFC 9113, 8.1).
#[derive(Debug)]
pub struct Upload {
    incoming: RefCell<Incoming>,
    broken: Cell<Option<Broken>>,
}

impl Upload {
    /// The body of a request, if it has one.
    pub fn of(incoming: Incoming) -> Option<Rc<Self>> {
        let empty = incoming.is_end_stream();
        (!empty).then(|| Rc::new(Self { incoming: RefCell::new(incoming), broken: Cell::new(None) }))
    }

    /// Bytes of the body, where the client says so.
    pub fn length(&self) -> Option<u64> {
        self.incoming.borrow().size_hint().exact()
    }

    pub fn broken(&self) -> Option<Broken> {
        self.broken.get()
    }

    fn poll(&self, cx: &mut Context<'_>, left: &mut u64) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match ready!(Pin::new(&mut *self.incoming.borrow_mut()).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.broken.set(Some(Broken::Client));
                return Poll::Ready(Some(Err(BodyError::Client(error))));
            }
        };
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        match left.checked_sub(length) {
            Some(rest) => {
                *left = rest;
                Poll::Ready(Some(Ok(frame)))
            }
            None => {
                self.broken.set(Some(Broken::TooLarge));
                Poll::Ready(Some(Err(BodyError::TooLarge)))
            }
        }
    }

    /// Reads on for a while after the answer. A client that is still sending when its stream is
    /// reset may never look at what it was told.
    pub fn linger(self: Rc<Self>) {
        let forwarding = Rc::strong_count(&self) > 1;
        if forwarding || self.incoming.borrow().is_end_stream() {
            return;
        }
        tokio::task::spawn_local(async move {
            let mut left = LINGER_BYTES;
            let discard =
                async { while let Some(Ok(_)) = std::future::poll_fn(|cx| self.poll(cx, &mut left)).await {} };
            let _ = tokio::time::timeout(LINGER, discard).await;
        });
    }

    /// The whole body, if it is no larger than `most`.
    pub async fn read(&self, most: usize) -> Result<Vec<u8>, BodyError> {
        let mut left = most as u64;
        let mut out = Vec::new();
        while let Some(frame) = std::future::poll_fn(|cx| self.poll(cx, &mut left)).await {
            if let Ok(data) = frame?.into_data() {
                out.extend_from_slice(&data);
            }
        }
        Ok(out)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the request body is larger than is allowed here")]
    TooLarge,
    #[error("the request body broke off: {0}")]
    Client(hyper::Error),
}

/// A request body under way to a backend, counted against the route's limit.
#[derive(Debug)]
pub enum Outgoing {
    Empty,
    Counted { upload: Rc<Upload>, left: u64 },
}

impl Outgoing {
    pub fn new(upload: Option<Rc<Upload>>, limit: u64) -> Self {
        upload.map_or(Self::Empty, |upload| Self::Counted { upload, left: limit })
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Counted { upload, left } => upload.poll(cx, left),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Counted { upload, .. } => upload.incoming.borrow().is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Counted { upload, .. } => upload.incoming.borrow().size_hint(),
        }
    }
}

/// A backend's answer under way to the client.
#[derive(Debug)]
pub struct Answer {
    inner: Incoming,
    lent: Option<Lent>,
}

impl Answer {
    pub(super) fn new(inner: Incoming, lent: Lent) -> Self {
        let mut answer = Self { inner, lent: Some(lent) };
        if answer.inner.is_end_stream() {
            answer.finish();
        }
        answer
    }

    fn finish(&mut self) {
        if let Some(lent) = self.lent.take() {
            lent.give_back();
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        if frame.is_none() || this.inner.is_end_stream() {
            this.finish();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
