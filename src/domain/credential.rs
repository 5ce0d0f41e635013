//! How an artifact fares: the token that it has, when the next is due, and what went wrong. The
//! plan is pure; whoever carries it out asks again.

use super::artifact::Artifact;
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
    /// The artifact's version for which it was got.
    #[serde(default)]
    pub version: u64,
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
    /// What an authorization brought.
    #[serde(default)]
    pub refresh: Option<Refresh>,
}

/// A refresh token. It outlives access tokens, and some providers let it be used only once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refresh {
    /// The token, sealed for `credential-refresh/<id>`.
    pub sealed: String,
    /// Unix seconds.
    pub obtained: i64,
    pub expires: Option<i64>,
    /// Since when an exchange with it is under way whose answer has not been written down.
    pub attempt: Option<i64>,
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
const FORCED: i64 = 30;

/// The longest that a server's Retry-After brings about.
const LONGEST_PAUSE: i64 = 900;

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
    /// A user has to authorise it first.
    Authorise,
}

impl CredentialState {
    pub fn place(id: &str) -> String {
        format!("credential-state/{id}")
    }

    pub fn refresh_place(id: &str) -> String {
        format!("credential-refresh/{id}")
    }

    /// What an artifact needs; `jitter` (0 to 99) spreads the renewals of many.
    pub fn need(&self, artifact: &Artifact, jitter: u8, now: i64) -> Need {
        match artifact.authorization_code() {
            Some(_) => self.need_of_code(artifact.version, jitter, now),
            None => self.need_of_token(artifact.version, jitter, now),
        }
    }

    /// How an artifact stands, in the model's words.
    pub fn status(&self, artifact: &Artifact, now: i64) -> &'static str {
        match artifact.authorization_code() {
            Some(_) => self.status_of_code(artifact.version, now),
            None => self.status_of_token(artifact.version, now),
        }
    }

    /// What an operator should know before a caller notices.
    pub fn warning(&self, artifact: &Artifact, now: i64) -> Option<String> {
        let name = &artifact.name;
        let ends = self.refresh.as_ref().and_then(|refresh| refresh.expires);
        let life = self.expires - self.obtained;
        let code = artifact.authorization_code().is_some();
        match (self.status(artifact, now), ends) {
            (status @ ("Error" | "Expiring" | "Refreshing" | "Unauthorized"), _) => {
                let why = self.last_error.as_deref().unwrap_or("nobody has authorised it yet");
                Some(format!("credential {name} is {status}: {why}"))
            }
            (_, Some(end)) if end - now < BEFORE_END => {
                Some(format!("the consent to credential {name} ends in less than two days; authorise it again"))
            }
            _ if code && self.usable(artifact.version, now) && life < SHORT => Some(format!(
                "access tokens of credential {name} live {life} seconds; let the provider give at least 30 minutes, better an hour"
            )),
            _ => None,
        }
    }

    /// The same for an artifact that lives by a refresh token, which has ends and turns of its own.
    fn need_of_code(&self, version: u64, jitter: u8, now: i64) -> Need {
        let Some(refresh) = &self.refresh else { return Need::Authorise };
        if refresh.expires.is_some_and(|end| end <= now) {
            return Need::Authorise;
        }
        match self.need_of_token(version, jitter, now) {
            Need::Nothing if refresh.due().is_some_and(|due| now >= due) && now >= self.next_try => Need::Renew,
            need => need,
        }
    }

    /// Whether the token may be used: not ended, and got for the artifact as it is.
    pub fn usable(&self, version: u64, now: i64) -> bool {
        !self.sealed.is_empty() && self.expires > now && self.version == version
    }

    fn need_of_token(&self, version: u64, jitter: u8, now: i64) -> Need {
        // a pause longer than any is the work of a clock that was ahead
        let may_try = now >= self.next_try || self.next_try > now + 2 * LONGEST_PAUSE || self.version != version;
        if !self.usable(version, now) {
            return if may_try { Need::Fetch } else { Need::Wait };
        }
        // a tenth of its life before the end, and up to another tenth earlier
        let tenth = (self.expires - self.obtained) / 10;
        let early = tenth + tenth * i64::from(jitter) / 100;
        let due = self.expires - early.max(MARGIN.min((self.expires - self.obtained) / 2));
        if now >= due && may_try { Need::Renew } else { Need::Nothing }
    }

    /// After a token was got.
    pub fn got(&self, version: u64, sealed: String, expires: i64, now: i64) -> Self {
        Self {
            id: self.id.clone(),
            version,
            sealed,
            serial: self.serial + 1,
            obtained: now,
            expires,
            forced: self.forced,
            refresh: self.refresh.clone(),
            ..Self::default()
        }
    }

    /// After an authorization or a refresh. Without a new refresh token the old one goes on: some
    /// providers never give another.
    pub fn refreshed(&self, token: Option<Refresh>) -> Self {
        let old = self.refresh.clone().map(|refresh| Refresh { attempt: None, ..refresh });
        Self { refresh: token.or(old), ..self.clone() }
    }

    /// An exchange with the refresh token begins: written down before anything is sent.
    pub fn attempting(&self, now: i64) -> Self {
        let refresh = self.refresh.clone();
        Self { refresh: refresh.map(|refresh| Refresh { attempt: Some(now), ..refresh }), ..self.clone() }
    }

    /// The provider has said that the refresh token is no good any more. Why that may be is told as
    /// far as it is known.
    pub fn ended(&self, trouble: &Trouble, cut_off: Option<i64>, now: i64) -> Self {
        let early = self
            .refresh
            .as_ref()
            .filter(|refresh| refresh.expires.is_some_and(|end| now < refresh.obtained + (end - refresh.obtained) / 5));
        let why = match (cut_off, early) {
            (Some(_), _) => "; an earlier refresh was cut off, so its answer with the next token may have been lost",
            (None, Some(_)) => {
                "; it died before a fifth of its life: another credential or system may use the same client and user"
            }
            (None, None) => "",
        };
        let text = format!("{}{why}; authorise it again", trouble.text);
        let failed = self.failed(self.version, &Trouble::lasting(text), 0, now);
        Self { refresh: None, ..failed }
    }

    /// The exchange that was under way has been answered.
    pub fn answered(&self) -> Self {
        self.refreshed(None)
    }

    /// An authorization came to nothing. A consent that there is goes on undisturbed.
    pub fn unauthorised(&self, version: u64, trouble: &Trouble, now: i64) -> Self {
        match self.refresh {
            Some(_) => Self { last_error: Some(trouble.text.clone()), ..self.clone() },
            None => self.failed(version, trouble, 0, now),
        }
    }

    /// After a try that brought none. The token that there is stays.
    pub fn failed(&self, version: u64, trouble: &Trouble, jitter: u8, now: i64) -> Self {
        let failures = self.failures.saturating_add(1);
        let doubled = FIRST_PAUSE << failures.min(9).saturating_sub(1);
        let pause = trouble.retry_after.unwrap_or(0).max(doubled.min(LAST_PAUSE));
        let pause = if trouble.passing { pause } else { pause.max(LAST_PAUSE / 10) };
        Self {
            // a token of another version is not kept beside a failure of this one
            sealed: if self.version == version { self.sealed.clone() } else { String::new() },
            version,
            last_error: Some(trouble.text.clone()),
            lasting: !trouble.passing,
            failures,
            next_try: now + pause + pause * i64::from(jitter) / 200,
            ..self.clone()
        }
    }

    /// The target has refused the token: another is to be fetched, and the refusal remembered. The
    /// token stays until there is another. None if the one before was refused a moment ago: then
    /// another will not help.
    pub fn rejected(&self, now: i64) -> Option<Self> {
        let moment = (0..FORCED).contains(&(now - self.forced));
        (!moment).then(|| Self { forced: now, next_try: 0, ..self.clone() })
    }

    fn status_of_code(&self, version: u64, now: i64) -> &'static str {
        match self.need_of_code(version, 0, now) {
            Need::Authorise if self.last_error.is_some() => "Error",
            Need::Authorise => "Unauthorized",
            _ => match self.status_of_token(version, now) {
                "Stored" => "Deployed",
                other => other,
            },
        }
    }

    fn status_of_token(&self, version: u64, now: i64) -> &'static str {
        match (self.usable(version, now), self.failures > 0) {
            (true, false) => "Deployed",
            (true, true) if self.expires - now < (self.expires - self.obtained) / 20 => "Expiring",
            (true, true) => "Refreshing",
            (false, true) => "Error",
            (false, false) => "Stored",
        }
    }
}

/// Seconds that an access token of an authorization code artifact should live (the model's least).
const SHORT: i64 = 1_800;
/// Seconds before its end at which, at the latest, a refresh token is used for another.
const BEFORE_END: i64 = 2 * 86_400;

impl Refresh {
    /// When it should be used for another, whether or not anybody needs an access token: half-way,
    /// at least two days before its end, not before a fifth of its life (the provider's rule).
    pub fn due(&self) -> Option<i64> {
        let life = self.expires? - self.obtained;
        let half = self.obtained + life / 2;
        Some(half.min(self.expires? - BEFORE_END).max(self.obtained + life / 5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> CredentialState {
        CredentialState { id: "i".into(), ..CredentialState::default() }.got(0, "sealed".into(), 4_600, 1_000)
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
            assert_eq!(state.need_of_token(0, jitter, now), want, "{now}");
        }
        assert_eq!(state.need_of_token(1, 0, 1_002), Need::Fetch, "the artifact was changed");
        let rejected = state.rejected(1_002).expect("the first refusal");
        let other = rejected.got(0, "sealed".into(), 4_700, 1_003);
        assert!(other.rejected(1_031).is_none() && other.rejected(1_032).is_some());
        let short = CredentialState::default().got(0, "s".into(), 1_010, 1_000);
        assert_eq!((short.need_of_token(0, 0, 1_004), short.need_of_token(0, 0, 1_005)), (Need::Nothing, Need::Renew));
    }

    #[test]
    fn failures_pause_longer_each_time_within_bounds() {
        let trouble = Trouble::passing("gone");
        let mut state = CredentialState::default();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            state = state.failed(0, &trouble, 0, 1_000);
            pauses.push(state.next_try - 1_000);
        }
        assert_eq!(pauses[..5], [1, 2, 4, 8, 16]);
        assert_eq!(pauses[11], 256);
        assert_eq!(state.need_of_token(0, 0, 1_001), Need::Wait);
        assert_eq!(state.need_of_token(0, 0, 1_256), Need::Fetch);
        let told = Trouble { retry_after: Some(7), ..trouble };
        assert_eq!(CredentialState::default().failed(0, &told, 0, 1_000).next_try, 1_007);
    }

    #[test]
    fn a_refresh_token_is_used_in_time_and_its_end_is_told() {
        let day = 86_400;
        let token = |expires| Some(Refresh { sealed: "r".into(), obtained: 0, expires, attempt: None });
        let due = |days: i64| token(Some(days * day)).expect("one").due().expect("it ends") / day;
        assert_eq!((due(90), due(3), due(10)), (45, 1, 5));
        let state = CredentialState::default().got(0, "sealed".into(), 99 * day, 1).refreshed(token(Some(90 * day)));
        assert_eq!(state.need_of_code(0, 0, 44 * day), Need::Nothing);
        assert_eq!(state.need_of_code(0, 0, 45 * day), Need::Renew);
        assert_eq!(state.need_of_code(0, 0, 90 * day), Need::Authorise);
        let never = state.refreshed(token(None));
        assert_eq!(never.need_of_code(0, 0, 80 * day), Need::Nothing);
        assert_eq!(never.refreshed(None).refresh, never.refresh, "the old one goes on");
        let none = CredentialState::default();
        assert_eq!((none.need_of_code(0, 0, 1), none.status_of_code(0, 1)), (Need::Authorise, "Unauthorized"));
        let refused = never.unauthorised(0, &Trouble::lasting("no"), 80 * day);
        assert_eq!((refused.next_try, refused.status_of_code(0, 80 * day)), (never.next_try, "Deployed"));
        let trouble = Trouble::lasting("invalid_grant");
        let ended = state.attempting(5).ended(&trouble, Some(5), 6);
        assert_eq!((ended.refresh.clone(), ended.status_of_code(0, 99 * day)), (None, "Error"));
        assert!(ended.last_error.expect("told").contains("cut off"));
        assert!(state.ended(&trouble, None, day).last_error.expect("told").contains("before a fifth"));
    }

    #[test]
    fn the_status_tells_the_truth() {
        let trouble = Trouble::lasting("no");
        let none = CredentialState::default();
        assert_eq!(none.status_of_token(0, 1), "Stored");
        assert_eq!(none.failed(0, &trouble, 0, 1).status_of_token(0, 1), "Error");
        assert_eq!(held().status_of_token(0, 2_000), "Deployed");
        assert_eq!(held().failed(0, &trouble, 0, 4_300).status_of_token(0, 4_300), "Refreshing");
        assert_eq!(held().failed(0, &trouble, 0, 4_500).status_of_token(0, 4_590), "Expiring");
        assert_eq!(held().status_of_token(0, 5_000), "Stored");
    }
}
