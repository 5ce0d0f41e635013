//! What lanes ask of the control runtime, which alone writes to the store. The work is done in a
//! task of its own: a caller that goes away does not undo it.

use crate::domain::key::Key;
use crate::domain::reason::Reason;
use crate::domain::token::Revocation;
use crate::domain::trail::Refusal;
use tokio::sync::{mpsc, oneshot};

/// Writes that may wait.
const QUEUE: usize = 1_024;

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

#[derive(Debug, Clone)]
pub struct Control(mpsc::Sender<Request>);

impl Control {
    pub fn new() -> (Self, mpsc::Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// Returns when the change is on disk and holds in this process; false if meanwhile it no
    /// longer applies.
    pub async fn done(&self, order: Order) -> Result<bool, Refusal> {
        let (done, answer) = oneshot::channel();
        self.0.try_send(Request { order, done: Some(done) }).map_err(|_| Reason::StoreUnavailable)?;
        answer.await.map_err(|_| Reason::StoreUnavailable.into())
    }

    /// Asks for a change without waiting: a lane's call goes on. False if the queue is full.
    pub fn ask(&self, order: Order) -> bool {
        self.0.try_send(Request { order, done: None }).is_ok()
    }
}
