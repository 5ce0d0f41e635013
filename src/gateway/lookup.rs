//! Programs that look destinations up or manage them: who they are, and what they may.

use super::Gateway;
use super::administer::destinations::Change;
use super::admit::Call;
use super::cache::LaneTokens;
use super::control::Managed;
use super::finder::{Found, Unfound};
use crate::domain::decision::{Answer, Caller};
use crate::domain::destination::question::{Named, Question};
use crate::domain::destination::{Level, Sort};
use crate::domain::instance::Plan;
use crate::domain::issuer::Accepted;
use crate::domain::reason::Reason;
use crate::domain::trail::Refusal;
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;

impl Gateway {
    /// The caller behind a bearer token of an instance of plan `destination`, and the instance's id.
    pub fn program(&self, tokens: &LaneTokens, call: &Call<'_>) -> Result<(Arc<Caller>, String), Refusal> {
        let (now, epoch) = (self.clock.now(), self.state.epoch());
        let caller = match self.bearer(tokens, call, &Accepted::default(), epoch, now) {
            Answer::Proven(caller) => caller,
            Answer::Refused(refusal) => return Err(refusal),
            Answer::Nothing => return Err(Reason::TokenMissing.into()),
        };
        let instance = caller.claims.as_ref().map(|claims| claims.instance_id.clone()).unwrap_or_default();
        let clients = self.state.clients.load();
        match clients.find_instance(&instance).map(|client| client.instance.plan) {
            Some(Plan::Destination) => Ok((caller, instance)),
            _ => Err(Reason::PlanOther.into()),
        }
    }

    /// Whether a user's token is one of this server, at this moment.
    pub fn user(&self, tokens: &LaneTokens, token: &SecretString) -> Result<(), Refusal> {
        self.caller(tokens, token.expose_secret(), self.state.epoch(), self.clock.now()).map(drop)
    }

    pub async fn find(&self, instance: &str, name: &Named, question: &Question) -> Result<Found, Unfound> {
        self.finder.find(instance, name, question).await
    }

    /// Changes entries; each succeeds or fails on its own.
    pub async fn manage(&self, sort: Sort, level: Level, changes: Vec<Change>) -> Result<Vec<Managed>, Refusal> {
        self.control.manage(sort, level, changes).await
    }
}
