//! How an artifact fares: the token that it has, when the next is due, and what went wrong. The
//! plan is pure; whoever carries it out asks again.

use super::exchange::Trouble;
use super::record::Record;
use serde::{Deserialize, Serialize};

/// What is known of an artifact's token, shared by all processes on a store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialState {
    /// The artifact's id.
    pub id: String,
    /// The access token, sealed for `credential-state/<id>`; empty if there is none.
    pub sealed: String,
    /// The token's number: one more for each.
    #[serde(default)]
    pub serial: u64,
    /// Unix seconds: when the token was got and when it ends.
    pub obtained: i64,
    pub expires: i64,
    pub last_error: Option<String>,
    /// Whether somebody has to change something before another try can succeed.
    pub lasting: bool,
    pub failures: u32,
    /// Unix seconds: not before this is it tried again.
    pub next_try: i64,
    /// Unix seconds: when a token was fetched last because the target had refused the one before.
    #[serde(default)]
    pub forced: i64,
}

impl Record for CredentialState {
    const KIND: &'static str = "credential-state";

    fn id(&self) -> String {
        self.id.clone()
    }
}

/// Seconds before its end, at least, at which a token is renewed.
const MARGIN: i64 = 30;
/// Seconds between tries: doubled from the first to the last.
const FIRST_PAUSE: i64 = 1;
const LAST_PAUSE: i64 = 300;

/// Seconds between fetches that a target's refusals bring about.
const FORCED: i64 = 10;

/// What an artifact needs at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Its token is good for a while.
    Nothing,
    /// Its token ends soon: renew it, and use it meanwhile.
    Renew,
    /// It has none that can be used.
    Fetch,
    /// It has none, and it is too early to try again.
    Wait,
}

impl CredentialState {
    pub fn place(id: &str) -> String {
        format!("credential-state/{id}")
    }

    /// Whether the token may be used: not ended, and got since the artifact was last changed.
    pub fn usable(&self, updated: i64, now: i64) -> bool {
        !self.sealed.is_empty() && self.expires > now && self.obtained >= updated
    }

    /// `jitter` (0 to 99) spreads the renewals of many artifacts.
    pub fn need(&self, updated: i64, jitter: u8, now: i64) -> Need {
        let may_try = now >= self.next_try || updated > self.next_try.max(self.obtained);
        if !self.usable(updated, now) {
            return if may_try { Need::Fetch } else { Need::Wait };
        }
        // a tenth of its life before the end, and up to another tenth earlier
        let tenth = (self.expires - self.obtained) / 10;
        let early = tenth + tenth * i64::from(jitter) / 100;
        let due = self.expires - early.max(MARGIN.min((self.expires - self.obtained) / 2));
        if now >= due && may_try { Need::Renew } else { Need::Nothing }
    }

    /// After a token was got.
    pub fn got(&self, sealed: String, expires: i64, now: i64) -> Self {
        Self {
            id: self.id.clone(),
            sealed,
            serial: self.serial + 1,
            obtained: now,
            expires,
            forced: self.forced,
            ..Self::default()
        }
    }

    /// After a try that brought none. The token that there is stays.
    pub fn failed(&self, trouble: &Trouble, jitter: u8, now: i64) -> Self {
        let failures = self.failures.saturating_add(1);
        let doubled = FIRST_PAUSE << failures.min(9).saturating_sub(1);
        let pause = trouble.retry_after.unwrap_or(doubled.min(LAST_PAUSE));
        let pause = if trouble.passing { pause } else { pause.max(LAST_PAUSE / 10) };
        Self {
            last_error: Some(trouble.text.clone()),
            lasting: !trouble.passing,
            failures,
            next_try: now + pause + pause * i64::from(jitter) / 200,
            ..self.clone()
        }
    }

    /// The target has refused the token, so that it counts no more. None if it refused the one
    /// before a moment ago: then another will not help.
    pub fn rejected(&self, now: i64) -> Option<Self> {
        (now - self.forced >= FORCED).then(|| Self { sealed: String::new(), forced: now, ..self.clone() })
    }

    /// How it stands, in the model's words.
    pub fn status(&self, updated: i64, now: i64) -> &'static str {
        match (self.usable(updated, now), self.last_error.is_some()) {
            (true, false) => "Deployed",
            (true, true) if self.expires - now < (self.expires - self.obtained) / 20 => "Expiring",
            (true, true) => "Refreshing",
            (false, true) => "Error",
            (false, false) => "Stored",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> CredentialState {
        CredentialState { id: "i".into(), ..CredentialState::default() }.got("sealed".into(), 4_600, 1_000)
    }

    #[test]
    fn a_token_is_used_until_its_end_and_renewed_before() {
        let state = held();
        for (now, jitter, want) in [
            (1_000, 0, Need::Nothing),
            (4_239, 0, Need::Nothing),
            (4_240, 0, Need::Renew),
            (3_884, 99, Need::Renew),
            (4_599, 0, Need::Renew),
            (4_600, 0, Need::Fetch),
        ] {
            assert_eq!(state.need(0, jitter, now), want, "{now}");
        }
        assert_eq!(state.need(1_001, 0, 1_002), Need::Fetch, "the artifact was changed");
        let rejected = state.rejected(1_002).expect("the first refusal");
        assert_eq!(rejected.need(0, 0, 1_002), Need::Fetch);
        let other = rejected.got("sealed".into(), 4_700, 1_003);
        assert!(other.rejected(1_011).is_none() && other.rejected(1_012).is_some());
        let short = CredentialState::default().got("s".into(), 1_010, 1_000);
        assert_eq!((short.need(0, 0, 1_004), short.need(0, 0, 1_005)), (Need::Nothing, Need::Renew));
    }

    #[test]
    fn failures_pause_longer_each_time_within_bounds() {
        let trouble = Trouble::passing("gone");
        let mut state = CredentialState::default();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            state = state.failed(&trouble, 0, 1_000);
            pauses.push(state.next_try - 1_000);
        }
        assert_eq!(pauses[..5], [1, 2, 4, 8, 16]);
        assert_eq!(pauses[11], 256);
        assert_eq!(state.need(0, 0, 1_001), Need::Wait);
        assert_eq!(state.need(0, 0, 1_256), Need::Fetch);
        let told = Trouble { retry_after: Some(7), ..trouble };
        assert_eq!(CredentialState::default().failed(&told, 0, 1_000).next_try, 1_007);
    }

    #[test]
    fn the_status_tells_the_truth() {
        let trouble = Trouble::lasting("no");
        let none = CredentialState::default();
        assert_eq!(none.status(0, 1), "Stored");
        assert_eq!(none.failed(&trouble, 0, 1).status(0, 1), "Error");
        assert_eq!(held().status(0, 2_000), "Deployed");
        assert_eq!(held().failed(&trouble, 0, 4_300).status(0, 4_300), "Refreshing");
        assert_eq!(held().failed(&trouble, 0, 4_500).status(0, 4_590), "Expiring");
        assert_eq!(held().status(0, 5_000), "Stored");
    }
}
