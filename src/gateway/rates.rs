//! Rates: how often a route or a client may call, and how often a client may ask for tokens. Kept in
//! memory by each process; what has recovered is forgotten.

use super::Gateway;
use crate::domain::decision::Caller;
use crate::domain::rate::{Allowance, Rate};
use crate::domain::reason::Reason;
use crate::domain::route::Route;
use crate::domain::trail::{Refusal, Step, Trail};
use crate::net::addresses::one_of;
use crate::net::peer::Peer;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

type Limiter = RateLimiter<String, DefaultKeyedStateStore<String>, DefaultClock, StateInformationMiddleware>;

/// By the rate, what each of its subjects has used up.
#[derive(Debug, Default)]
pub struct Rates(RwLock<HashMap<Rate, Arc<Limiter>>>);

impl Rates {
    /// Uses up one request of a subject's rate. The allowance tells what is left; without anything
    /// left it comes with the time to wait.
    fn spend(&self, rate: Rate, subject: &String) -> (Allowance, Option<Duration>) {
        let limiter = self.limiter(rate);
        let allowance = |left: u32| {
            let used = rate.requests.get().saturating_sub(left);
            Allowance { rate, left, full_in: whole(rate.pace() * used) }
        };
        match limiter.check_key(subject) {
            Ok(state) => (allowance(state.remaining_burst_capacity()), None),
            Err(not) => (allowance(0), Some(not.wait_time_from(DefaultClock::default().now()))),
        }
    }

    fn limiter(&self, rate: Rate) -> Arc<Limiter> {
        if let Some(known) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&rate) {
            return known.clone();
        }
        let quota = Quota::with_period(rate.pace()).unwrap_or(Quota::per_second(rate.requests));
        let fresh = || Arc::new(RateLimiter::keyed(quota.allow_burst(rate.requests)).with_middleware());
        self.0.write().unwrap_or_else(PoisonError::into_inner).entry(rate).or_insert_with(fresh).clone()
    }

    /// Forgets the subjects that have their whole rate again, and rates that nobody has.
    pub fn forget(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|_, limiter| {
            limiter.retain_recent();
            limiter.shrink_to_fit();
            !limiter.is_empty()
        });
    }
}

/// Seconds, the begun one included.
fn whole(time: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX)
}

impl Gateway {
    /// Uses up what an admitted call costs: of its client's rates, then of its route's. `allowance`
    /// tells of the one with the least left.
    pub fn spend(
        &self,
        route: &Route,
        caller: Option<&Caller>,
        peer: &Peer,
        allowance: &mut Option<Allowance>,
        trail: &mut Trail,
    ) -> Result<(), Refusal> {
        let everywhere = self.state.limits.load().client_rate;
        if (everywhere, route.rates.all, route.rates.each_client) == (None, None, None) {
            return Ok(());
        }
        let client = match caller {
            Some(caller) => format!("{} {}", caller.issuer().map_or("", |name| name), caller.client_id),
            // nobody else is known on an open route
            None => one_of(peer.address.ip()).to_string(),
        };
        let rates = [
            (everywhere, format!("client {client}"), Reason::ClientRate),
            (route.rates.each_client, format!("route {} {client}", route.name), Reason::ClientRate),
            (route.rates.all, format!("route {}", route.name), Reason::RouteRate),
        ];
        for (rate, subject, reason) in rates {
            if let Some(rate) = rate {
                trail.of(Step::Rate, self.take(rate, &subject, reason, allowance))?;
            }
        }
        Ok(())
    }

    /// The same for a token request: of a client that has proven itself, or of an address that fails
    /// to. So whoever guesses uses up nothing of the rightful client's.
    pub(super) fn spend_token<T>(
        &self,
        outcome: Result<T, Refusal>,
        client: impl FnOnce(&T) -> String,
        peer: &Peer,
        allowance: &mut Option<Allowance>,
    ) -> Result<T, Refusal> {
        let Some(rate) = self.state.limits.load().token_rate else { return outcome };
        let subject = match &outcome {
            Ok(proof) => format!("token {}", client(proof)),
            Err(_) => format!("failure {}", one_of(peer.address.ip())),
        };
        self.take(rate, &subject, Reason::TokenRate, allowance)?;
        outcome
    }

    fn take(
        &self,
        rate: Rate,
        subject: &String,
        reason: Reason,
        allowance: &mut Option<Allowance>,
    ) -> Result<(), Refusal> {
        let (fresh, wait) = self.rates.spend(rate, subject);
        if allowance.is_none_or(|known| fresh.left <= known.left) {
            *allowance = Some(fresh);
        }
        match wait {
            None => Ok(()),
            Some(wait) => Err(Refusal { wait: Some(whole(wait).max(1)), ..reason.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_used_up_by_each_subject_alone_and_forgotten_when_it_has_recovered() {
        let (rates, rate) = (Rates::default(), "3/s".parse().expect("a rate"));
        let spend = |subject: &str| rates.spend(rate, &subject.into());
        let lefts: Vec<_> = (0..3).map(|_| spend("a").0.left).collect();
        assert_eq!(lefts, [2, 1, 0]);
        let (allowance, wait) = spend("a");
        assert_eq!((allowance.left, allowance.full_in), (0, 1));
        assert!(wait.is_some_and(|wait| wait <= rate.pace()));
        assert!(spend("b").1.is_none());
        rates.forget();
        assert!(spend("a").1.is_some(), "it has not recovered yet");
    }
}
