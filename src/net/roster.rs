//! The open connections of a lane. A sweep once a second finds those that make no headway, so that
//! none of them needs timers of its own; the drain asks all of them to end, and waits.

use super::framing;
use super::guarded::Traffic;
use crate::domain::reason::Reason;
use http::{Request, Version};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;

/// How long connections may do nothing, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Without a request.
    pub idle: u64,
    /// Between the first byte of a head and its end.
    pub head: u64,
    /// With bytes to send that the client does not take.
    pub write: u64,
    /// Requests that one connection may cancel in a second.
    pub resets: u32,
}

/// How long a drain waits for the first request of who has just connected, in seconds.
const UNHEARD: u64 = 1;

#[derive(Debug, Default)]
pub struct Roster {
    open: RefCell<HashMap<u64, Rc<Conduct>>>,
    next: Cell<u64>,
    left: Notify,
}

/// How a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// After what is under way.
    Graceful,
    Now,
}

/// What a connection is doing, shared by its requests and those who watch it.
pub struct Conduct {
    roster: Rc<Roster>,
    id: u64,
    /// What the bytes of a connection tell; a tunnel has none and minds its own idleness.
    traffic: Option<Arc<Traffic>>,
    /// What is taken up as long as this or a tunnel of it lives.
    room: Rc<dyn Any>,
    active: Cell<u32>,
    begun: Cell<u32>,
    /// Answers of which the client has yet to take a piece, each with the sweeps that it has not.
    offered: RefCell<Vec<(u32, u64)>>,
    resets: Cell<u32>,
    most_resets: Cell<u32>,
    ending: Cell<Option<Ending>>,
    waker: RefCell<Option<Waker>>,
    seen: Cell<Seen>,
}

/// What the last sweep saw, and for how many sweeps nothing has changed.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    begun: u32,
    written: u32,
    idle: u64,
    head: u64,
    blocked: u64,
}

impl Roster {
    /// Notes a connection with the room that it takes up, or a tunnel where there is no traffic to watch.
    pub fn enter(self: &Rc<Self>, traffic: Option<Arc<Traffic>>, room: Rc<dyn Any>) -> Rc<Conduct> {
        let id = self.next.replace(self.next.get() + 1);
        let conduct = Rc::new(Conduct {
            roster: self.clone(),
            id,
            traffic,
            room,
            active: Cell::new(0),
            begun: Cell::new(0),
            offered: RefCell::default(),
            resets: Cell::new(0),
            most_resets: Cell::new(u32::MAX),
            ending: Cell::new(None),
            waker: RefCell::default(),
            seen: Cell::default(),
        });
        self.open.borrow_mut().insert(id, conduct.clone());
        conduct
    }

    pub fn leave(&self, conduct: &Conduct) {
        self.open.borrow_mut().remove(&conduct.id);
        self.left.notify_waiters();
    }

    /// One look at all connections. To be taken once a second.
    pub fn sweep(&self, patience: &Patience) {
        for conduct in self.open.borrow().values() {
            if let Some(ending) = conduct.swept(patience) {
                conduct.end(ending);
            }
        }
    }

    /// Asks all connections to end, and waits for as long as `time` until they have.
    pub async fn drain(&self, time: Duration) -> bool {
        self.end(Ending::Graceful);
        let empty = async {
            loop {
                let left = self.left.notified();
                if self.open.borrow().is_empty() {
                    break;
                }
                left.await;
            }
        };
        let drained = tokio::time::timeout(time, empty).await.is_ok();
        self.end(Ending::Now);
        drained
    }

    fn end(&self, ending: Ending) {
        self.open.borrow().values().for_each(|conduct| conduct.end(ending));
    }
}

impl Conduct {
    /// Judges how the request that has just come was framed.
    pub fn judge<B>(&self, request: &Request<B>) -> Result<(), Reason> {
        if request.version() == Version::HTTP_2 {
            return framing::judge_http2(request.uri(), request.headers());
        }
        self.traffic.as_ref().map_or(Ok(()), |traffic| traffic.judge())
    }

    /// A request has come; its number on this connection.
    pub fn begin(&self) -> u32 {
        self.active.set(self.active.get() + 1);
        self.begun.set(self.begun.get().wrapping_add(1));
        self.begun.get()
    }

    /// A request is over: answered, or cancelled by its client.
    pub fn finish(&self, cancelled: bool) {
        let active = self.active.get().saturating_sub(1);
        self.active.set(active);
        if cancelled {
            self.resets.set(self.resets.get() + 1);
            if self.resets.get() > self.most_resets.get() {
                tracing::info!("a connection cancels requests too fast; it is closed");
                self.end(Ending::Now);
            }
        }
    }

    /// The answer to a request, by its number, has a piece for the client, or the client has taken it.
    /// HTTP/2 may hold an answer back without holding up the connection.
    pub fn offered(&self, request: u32, offered: bool) {
        let mut all = self.offered.borrow_mut();
        if offered {
            all.push((request, 0));
        } else if let Some(at) = all.iter().position(|(known, _)| *known == request) {
            all.swap_remove(at);
        }
    }

    /// For how many sweeps the client has left the piece untaken that has waited longest.
    fn untaken(&self) -> u64 {
        let mut all = self.offered.borrow_mut();
        all.iter_mut().for_each(|(_, sweeps)| *sweeps += 1);
        all.iter().map(|(_, sweeps)| *sweeps).max().unwrap_or(0)
    }

    /// What the bytes of the connection tell, but for a tunnel's.
    pub fn traffic(&self) -> Option<&Arc<Traffic>> {
        self.traffic.as_ref()
    }

    /// A tunnel that began on this connection.
    pub fn tunnel(&self) -> Rc<Self> {
        self.roster.enter(None, self.room.clone())
    }

    pub fn leave(&self) {
        self.roster.leave(self);
    }

    /// How the connection is to end, if it is; whoever asks is woken when that changes.
    pub fn ending(&self, cx: &Context<'_>) -> Option<Ending> {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.ending.get()
    }

    /// Whether the connection is to end, and has had a request, or HTTP/2 the server's first words.
    pub fn may_part(&self) -> bool {
        let greeted = || self.traffic.as_ref().is_some_and(|traffic| traffic.written() > 0);
        self.ending.get() == Some(Ending::Graceful) && (self.begun.get() > 0 || greeted())
    }

    /// Until the connection is to end at once.
    pub async fn cut(&self) {
        std::future::poll_fn(|cx| if self.ending(cx) == Some(Ending::Now) { Poll::Ready(()) } else { Poll::Pending })
            .await;
    }

    fn end(&self, ending: Ending) {
        if self.ending.get() < Some(ending) {
            self.ending.set(Some(ending));
            if let Some(waker) = self.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    fn swept(&self, patience: &Patience) -> Option<Ending> {
        let traffic = self.traffic.as_ref()?;
        let before = self.seen.get();
        self.resets.set(0);
        self.most_resets.set(patience.resets);
        let (resting, written) = (self.active.get() == 0, traffic.written());
        let same = before.begun == self.begun.get();
        let blocked = traffic.blocked() && written == before.written;
        let untaken = self.untaken();
        let seen = Seen {
            begun: self.begun.get(),
            written,
            idle: if resting && same { before.idle + 1 } else { 0 },
            head: if resting && same && traffic.head_begun() { before.head + 1 } else { 0 },
            blocked: if blocked { before.blocked + 1 } else { 0 },
        };
        self.seen.set(seen);
        let unheard = self.ending.get().is_some() && seen.begun == 0;
        match seen {
            seen if unheard && seen.idle > UNHEARD => Some(Ending::Now),
            seen if seen.head > patience.head || seen.blocked > patience.write => Some(Ending::Now),
            seen if seen.idle > patience.idle + patience.head => Some(Ending::Now),
            // its other answers may still arrive
            _ if untaken > 2 * patience.write => Some(Ending::Now),
            _ if untaken > patience.write => Some(Ending::Graceful),
            seen if seen.idle > patience.idle => Some(Ending::Graceful),
            _ => None,
        }
    }
}

impl fmt::Debug for Conduct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conduct({}, {} requests)", self.id, self.active.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { idle: 5, head: 2, write: 3, resets: 2 };

    fn ending(conduct: &Conduct) -> Option<Ending> {
        conduct.ending(&Context::from_waker(Waker::noop()))
    }

    fn connection() -> (Rc<Roster>, Arc<Traffic>, Rc<Conduct>) {
        let (roster, traffic) = (Rc::new(Roster::default()), Arc::new(Traffic::default()));
        let conduct = roster.enter(Some(traffic.clone()), Rc::new(()));
        (roster, traffic, conduct)
    }

    /// After how many sweeps the connection is asked to end.
    fn sweeps(roster: &Roster, conduct: &Conduct) -> Option<(u64, Ending)> {
        (1..20).find_map(|count| {
            roster.sweep(&PATIENCE);
            ending(conduct).map(|ending| (count, ending))
        })
    }

    #[test]
    fn a_connection_without_a_request_ends_gracefully_and_then_at_once() {
        let (roster, _, conduct) = connection();
        assert_eq!(sweeps(&roster, &conduct), Some((6, Ending::Graceful)));
        (0..3).for_each(|_| roster.sweep(&PATIENCE));
        assert_eq!(ending(&conduct), Some(Ending::Now));
    }

    #[test]
    fn a_connection_with_a_request_under_way_stays() {
        let (roster, _, conduct) = connection();
        conduct.begin();
        assert_eq!(sweeps(&roster, &conduct), None);
        conduct.finish(false);
        assert!(sweeps(&roster, &conduct).is_some());
    }

    #[test]
    fn a_head_that_does_not_end_is_cut_off() {
        let (roster, traffic, conduct) = connection();
        assert_eq!(traffic.read(b"GET / HT"), Ok(None));
        assert_eq!(sweeps(&roster, &conduct), Some((3, Ending::Now)));
    }

    #[test]
    fn a_client_that_takes_nothing_is_cut_off_and_one_that_takes_little_is_not() {
        let (roster, traffic, conduct) = connection();
        conduct.begin();
        for _ in 0..10 {
            traffic.wrote(false);
            traffic.wrote(true);
            traffic.wrote(false);
            roster.sweep(&PATIENCE);
            assert_eq!(ending(&conduct), None);
        }
        assert_eq!(sweeps(&roster, &conduct), Some((4, Ending::Now)));
    }

    #[test]
    fn a_client_that_takes_no_answer_is_cut_off_though_its_connection_moves() {
        let (roster, traffic, conduct) = connection();
        let (taken, untaken) = (conduct.begin(), conduct.begin());
        let sweep = || {
            conduct.offered(taken, true);
            traffic.wrote(true);
            roster.sweep(&PATIENCE);
            conduct.offered(taken, false);
            ending(&conduct)
        };
        assert!((0..10).all(|_| sweep().is_none()));
        conduct.offered(untaken, true);
        let endings: Vec<_> = (0..7).map(|_| sweep()).collect();
        assert_eq!(endings[..3], [None; 3]);
        assert_eq!(endings[3..6], [Some(Ending::Graceful); 3]);
        assert_eq!(endings[6], Some(Ending::Now));
    }

    #[test]
    fn a_connection_that_cancels_too_many_requests_in_a_second_is_cut_off() {
        let (roster, _, conduct) = connection();
        roster.sweep(&PATIENCE);
        let cancel = |times| {
            (0..times).for_each(|_| {
                conduct.begin();
                conduct.finish(true);
            });
        };
        cancel(2);
        roster.sweep(&PATIENCE);
        cancel(2);
        assert_eq!(ending(&conduct), None);
        cancel(1);
        assert_eq!(ending(&conduct), Some(Ending::Now));
    }

    #[tokio::test]
    async fn the_drain_waits_for_all_and_cuts_off_what_stays() {
        let (roster, _, conduct) = connection();
        let tunnel = conduct.tunnel();
        conduct.leave();
        assert!(!roster.drain(Duration::from_millis(10)).await);
        assert_eq!(ending(&tunnel), Some(Ending::Now));
        tunnel.leave();
        assert!(roster.drain(Duration::from_millis(10)).await);
    }
}
