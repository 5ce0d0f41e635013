//! Sends token requests for all who need one, and reads the answers.

use super::Clock;
use crate::domain::artifact::Secrets;
use crate::domain::exchange::{self, Answer, Granted, Trouble};
use crate::net::outbound::{OutboundError, Policy, Sending, post};
use arc_swap::ArcSwap;
use std::sync::Arc;

pub struct Exchanger {
    pub policy: ArcSwap<Policy>,
    pub clock: Arc<dyn Clock>,
}

impl Exchanger {
    pub fn new(policy: Policy, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { policy: ArcSwap::from_pointee(policy), clock })
    }

    /// One exchange. `secrets` never come back in what is told of a failure.
    pub async fn send(&self, sending: Sending<'_>, secrets: &Secrets) -> Result<Granted, Trouble> {
        let policy = self.policy.load_full();
        let answered = post(sending, &policy).await.map_err(|error| unanswered(&error))?;
        let answer = Answer {
            status: answered.status,
            retry_after: answered.header("retry-after"),
            location: answered.header("location"),
            body: &answered.body,
        };
        exchange::read(&answer, secrets, self.clock.now())
    }
}

/// Whether anything was sent decides what a provider may have made of a refresh token.
fn unanswered(error: &OutboundError) -> Trouble {
    let sent = matches!(error, OutboundError::Http(..) | OutboundError::Body(_) | OutboundError::Late(..));
    let text: String = error.to_string().chars().take(300).collect();
    match error {
        OutboundError::Refused(..) | OutboundError::Tls(_) | OutboundError::Host(_) => Trouble::lasting(text),
        _ => Trouble { answered: !sent, ..Trouble::passing(text) },
    }
}
