//! Sends token requests for all who need one, and reads the answers.

use super::Clock;
use crate::crypto::jwks::KeySet;
use crate::domain::artifact::Secrets;
use crate::domain::exchange::{self, Answer, Granted, Trouble};
use crate::domain::target::Target;
use crate::net::outbound::{OutboundError, Policy, Sending, call, get};
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

    /// A provider's key set.
    pub async fn key_set(&self, url: &Target) -> Result<KeySet, String> {
        let answered = get(url, &self.policy.load_full()).await.map_err(|error| error.to_string())?;
        match answered.status {
            200 => KeySet::parse(&answered.body).map_err(|error| error.to_string()),
            status => Err(format!("it answered {status}")),
        }
    }

    /// One exchange. `secrets` never come back in what is told of a failure.
    pub async fn send(&self, sending: Sending<'_>, secrets: &Secrets) -> Result<Granted, Trouble> {
        let policy = self.policy.load_full();
        let answered = call(sending, &policy).await.map_err(|error| unanswered(&error))?;
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
