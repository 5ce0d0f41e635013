//! What lanes ask of the control runtime, which alone writes to the store. The work is done in a
//! task of its own: a caller that goes away does not undo it.

use super::administer::AdminError;
use super::administer::destinations::{Change, Stored};
use crate::domain::destination::{Level, Sort};
use crate::domain::key::Key;
use crate::domain::reason::Reason;
use crate::domain::token::Revocation;
use crate::domain::trail::Refusal;
use tokio::sync::{mpsc, oneshot};

/// Writes that may wait.
const QUEUE: usize = 1_024;
/// Requests to manage destinations that may wait; each may be a megabyte.
const MANAGING: usize = 16;

/// A change that lanes ask for.
#[derive(Debug)]
pub enum Order {
    Revoke(Revocation),
    /// A key as a renewed certificate makes it.
    Renew(Key),
}

/// An order, and who waits for it.
#[derive(Debug)]
pub struct Request {
    pub order: Order,
    pub done: Option<oneshot::Sender<bool>>,
}

/// Changes to destinations and their like, each told of on its own.
#[derive(Debug)]
pub struct Managing {
    pub sort: Sort,
    pub level: Level,
    pub changes: Vec<Change>,
    pub done: oneshot::Sender<Vec<Managed>>,
}

/// What became of one change.
pub type Managed = Result<Stored, AdminError>;

#[derive(Debug, Clone)]
pub struct Control {
    orders: mpsc::Sender<Request>,
    managing: mpsc::Sender<Managing>,
}

/// The control runtime's end.
#[derive(Debug)]
pub struct Inbox {
    pub orders: mpsc::Receiver<Request>,
    pub managing: mpsc::Receiver<Managing>,
}

impl Control {
    pub fn new() -> (Self, Inbox) {
        let (orders, taken) = mpsc::channel(QUEUE);
        let (managing, managed) = mpsc::channel(MANAGING);
        (Self { orders, managing }, Inbox { orders: taken, managing: managed })
    }

    /// Returns when the changes that could be made are on disk and hold in this process.
    pub async fn manage(&self, sort: Sort, level: Level, changes: Vec<Change>) -> Result<Vec<Managed>, Refusal> {
        let (done, answer) = oneshot::channel();
        let managing = Managing { sort, level, changes, done };
        self.managing.try_send(managing).map_err(|_| Reason::StoreUnavailable)?;
        answer.await.map_err(|_| Reason::StoreUnavailable.into())
    }

    /// Returns when the change is on disk and holds in this process; false if meanwhile it no
    /// longer applies.
    pub async fn done(&self, order: Order) -> Result<bool, Refusal> {
        let (done, answer) = oneshot::channel();
        self.orders.try_send(Request { order, done: Some(done) }).map_err(|_| Reason::StoreUnavailable)?;
        answer.await.map_err(|_| Reason::StoreUnavailable.into())
    }

    /// Asks for a change without waiting: a lane's call goes on. False if the queue is full.
    pub fn ask(&self, order: Order) -> bool {
        self.orders.try_send(Request { order, done: None }).is_ok()
    }
}
