//! What lanes ask of the control runtime, which alone writes to the store. The work is done in a
//! task of its own: a caller that goes away does not undo it.

use crate::domain::reason::Reason;
use crate::domain::token::Revocation;
use crate::domain::trail::Refusal;
use tokio::sync::{mpsc, oneshot};

/// Writes that may wait.
const QUEUE: usize = 1_024;

/// A change that a caller waits for.
#[derive(Debug)]
pub struct Revoke {
    pub revocation: Revocation,
    pub done: oneshot::Sender<bool>,
}

#[derive(Debug, Clone)]
pub struct Control(mpsc::Sender<Revoke>);

impl Control {
    pub fn new() -> (Self, mpsc::Receiver<Revoke>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// Returns when the revocation is on disk and holds in this process.
    pub async fn revoke(&self, revocation: Revocation) -> Result<(), Refusal> {
        let (done, answer) = oneshot::channel();
        self.0.try_send(Revoke { revocation, done }).map_err(|_| Reason::StoreUnavailable)?;
        match answer.await {
            Ok(true) => Ok(()),
            _ => Err(Reason::StoreUnavailable.into()),
        }
    }
}
