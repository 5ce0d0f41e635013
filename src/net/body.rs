//! Bodies on their way: a request's, counted against the route's limit; an answer's, which brings
//! its connection back to the pool when it has been read to the end.

use super::headers;
use super::pool::Lent;
use crate::domain::backend::Times;
use crate::domain::route::Arrival;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long, and for how many bytes, an answered request's body is still taken in.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 4 << 20;

/// What became of a request body that did not arrive whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    TooLarge,
    TooSlow,
    /// The client went away or broke the framing.
    Client,
}

/// A request's body, held until the answer has been sent: dropped earlier, HTTP/2 would cancel the
/// stream and the client would lose the answer (RFC 9113, 8.1).
#[derive(Debug)]
pub struct Upload {
    incoming: RefCell<Incoming>,
    broken: Cell<Option<Broken>>,
    gap: Cell<Option<Duration>>,
    deadline: Cell<Option<Instant>>,
    clock: RefCell<Clock>,
    moved: Cell<Instant>,
}

impl Upload {
    /// The body of a request, if it has one.
    pub fn of(incoming: Incoming) -> Option<Rc<Self>> {
        if incoming.is_end_stream() {
            return None;
        }
        Some(Rc::new(Self {
            incoming: RefCell::new(incoming),
            broken: Cell::new(None),
            gap: Cell::new(None),
            deadline: Cell::new(None),
            clock: RefCell::default(),
            moved: Cell::new(Instant::now()),
        }))
    }

    /// How long the body may take from now on.
    pub fn bound(&self, arrival: &Arrival) {
        let some = |time: Duration| (!time.is_zero()).then_some(time);
        self.gap.set(some(arrival.gap));
        self.deadline.set(some(arrival.time).map(|time| Instant::now() + time));
    }

    /// When the last piece came; none while the client is waited for.
    pub fn moved(&self) -> Option<Instant> {
        (!self.clock.borrow().running).then(|| self.moved.get())
    }

    /// Bytes of the body, where the client says so.
    pub fn length(&self) -> Option<u64> {
        self.incoming.borrow().size_hint().exact()
    }

    pub fn broken(&self) -> Option<Broken> {
        self.broken.get()
    }

    fn poll(&self, cx: &mut Context<'_>, left: &mut u64) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut *self.incoming.borrow_mut()).poll_frame(cx);
        let frame = match polled {
            Poll::Pending => return self.wait(cx),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => {
                self.broken.set(Some(Broken::Client));
                return Poll::Ready(Some(Err(BodyError::Client(error))));
            }
        };
        self.clock.borrow_mut().running = false;
        self.moved.set(Instant::now());
        if self.deadline.get().is_some_and(|deadline| deadline <= self.moved.get()) {
            return self.too_slow();
        }
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

    fn wait(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let until = || {
            let gap = self.gap.get().map(|gap| Instant::now() + gap);
            [gap, self.deadline.get()].into_iter().flatten().min()
        };
        ready!(self.clock.borrow_mut().poll(cx, until));
        self.too_slow()
    }

    fn too_slow(&self) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.broken.set(Some(Broken::TooSlow));
        Poll::Ready(Some(Err(BodyError::TooSlow)))
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
    #[error("the request body comes too slowly")]
    TooSlow,
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
            Self::Counted { upload, left } => {
                let mut frame = ready!(upload.poll(cx, left));
                // what may not come as a header may not come after the body either
                if let Some(Ok(frame)) = &mut frame
                    && let Some(trailers) = frame.trailers_mut()
                {
                    headers::clean_trailers(trailers);
                }
                Poll::Ready(frame)
            }
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

/// A timer that is made when it is first needed: most bodies never wait.
#[derive(Debug, Default)]
struct Clock {
    sleep: Option<Pin<Box<Sleep>>>,
    running: bool,
}

impl Clock {
    /// Ready when the time has come that `until` gave when the wait began.
    fn poll(&mut self, cx: &mut Context<'_>, until: impl FnOnce() -> Option<Instant>) -> Poll<()> {
        if !self.running {
            self.running = true;
            match (until(), &mut self.sleep) {
                (None, sleep) => *sleep = None,
                (Some(until), Some(sleep)) => sleep.as_mut().reset(until),
                (Some(until), sleep) => *sleep = Some(Box::pin(sleep_until(until))),
            }
        }
        self.sleep.as_mut().map_or(Poll::Pending, |sleep| sleep.as_mut().poll(cx))
    }
}

/// A backend's answer under way to the client.
#[derive(Debug)]
pub struct Answer {
    inner: Incoming,
    lent: Option<Lent>,
    idle: Duration,
    deadline: Option<Instant>,
    clock: Clock,
}

#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error("the backend broke off its answer: {0}")]
    Broken(#[from] hyper::Error),
    #[error("the backend's answer stands still, or takes longer than its backend's total_timeout")]
    Late,
}

impl Answer {
    /// Of a backend, over a connection that is then given back. `deadline` is for the whole of it.
    pub(super) fn new(inner: Incoming, lent: Option<Lent>, times: &Times, deadline: Option<Instant>) -> Self {
        let mut answer = Self { inner, lent, idle: times.idle, deadline, clock: Clock::default() };
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
    type Error = AnswerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let this = self.get_mut();
        let (idle, deadline) = (this.idle, this.deadline);
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) else {
            let until = || Some(deadline.map_or_else(|| Instant::now() + idle, |end| end.min(Instant::now() + idle)));
            ready!(this.clock.poll(cx, until));
            this.lent = None;
            return Poll::Ready(Some(Err(AnswerError::Late)));
        };
        this.clock.running = false;
        if frame.is_some() && deadline.is_some_and(|end| end <= Instant::now()) {
            return Poll::Ready(Some(Err(AnswerError::Late)));
        }
        if frame.is_none() || this.inner.is_end_stream() {
            this.finish();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
