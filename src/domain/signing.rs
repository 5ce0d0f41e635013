//! The life of signing keys as a plan: which key to make next, which to drop. Pure; the caller
//! carries a step out and asks again.

use super::record::Record;
use crate::crypto::keyring::Algorithm;
use serde::{Deserialize, Serialize};

/// A key is published this long before it signs, so that verifiers that cache the key set (the
/// XSUAA libraries do for up to 15 minutes, others for an hour) know it in time. Seconds.
pub const LEAD: i64 = 2 * 3_600;
/// A key stays published this long after its successor signs: the longest life of a token, and an
/// hour for clocks and caches. Seconds.
pub const KEEP: i64 = 86_400 + 3_600;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKeyRecord {
    pub kid: String,
    pub algorithm: Algorithm,
    /// PKCS#8, sealed for `signing-key/<kid>`.
    pub sealed: String,
    /// Unix seconds.
    pub created: i64,
    pub active_from: i64,
}

impl Record for SigningKeyRecord {
    const KIND: &'static str = "signing-key";

    fn id(&self) -> String {
        self.kid.clone()
    }
}

/// Where a key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// In the key set, not signing yet.
    Published,
    Signing,
    /// Verifies what it signed, signs no more.
    Retiring,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Signing => "signing",
            Self::Retiring => "retiring",
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    Nothing,
    Create { active_from: i64 },
    Drop { kid: String },
}

/// The key that signs at `now`.
fn signing(keys: &[SigningKeyRecord], now: i64) -> Option<&SigningKeyRecord> {
    keys.iter().filter(|key| key.active_from <= now).max_by_key(|key| (key.active_from, key.created))
}

pub fn phase(keys: &[SigningKeyRecord], key: &SigningKeyRecord, now: i64) -> Phase {
    match signing(keys, now) {
        Some(current) if current.kid == key.kid => Phase::Signing,
        _ if key.active_from > now => Phase::Published,
        _ => Phase::Retiring,
    }
}

/// The next step of upkeep. `rotate_every` in seconds, `algorithm` as configured now: a change of
/// algorithm is a rotation too, with the same lead.
pub fn plan(keys: &[SigningKeyRecord], algorithm: Algorithm, rotate_every: i64, now: i64) -> Next {
    let Some(current) = signing(keys, now) else {
        return Next::Create { active_from: now };
    };
    let successor = keys.iter().any(|key| key.active_from > now && key.algorithm == algorithm);
    let due = current.active_from + rotate_every - LEAD <= now || current.algorithm != algorithm;
    if due && !successor {
        let from = (current.active_from + rotate_every).max(now + LEAD);
        let from = if current.algorithm == algorithm { from } else { now + LEAD };
        return Next::Create { active_from: from };
    }
    match keys.iter().find(|key| key.active_from < current.active_from && current.active_from + KEEP <= now) {
        Some(old) => Next::Drop { kid: old.kid.clone() },
        None => Next::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONTH: i64 = 30 * 86_400;

    fn key(kid: &str, active_from: i64) -> SigningKeyRecord {
        SigningKeyRecord {
            kid: kid.into(),
            algorithm: Algorithm::RS256,
            sealed: String::new(),
            created: active_from,
            active_from,
        }
    }

    #[test]
    fn the_first_key_signs_at_once_and_later_ones_are_published_ahead() {
        assert_eq!(plan(&[], Algorithm::RS256, MONTH, 50), Next::Create { active_from: 50 });
        let keys = [key("a", 0)];
        assert_eq!(plan(&keys, Algorithm::RS256, MONTH, MONTH - LEAD - 1), Next::Nothing);
        assert_eq!(plan(&keys, Algorithm::RS256, MONTH, MONTH - LEAD), Next::Create { active_from: MONTH });
        let late = MONTH + 100;
        assert_eq!(plan(&keys, Algorithm::RS256, MONTH, late), Next::Create { active_from: late + LEAD });
    }

    #[test]
    fn a_change_of_algorithm_is_a_rotation_with_lead() {
        let keys = [key("a", 0)];
        assert_eq!(plan(&keys, Algorithm::ES256, MONTH, 1000), Next::Create { active_from: 1000 + LEAD });
    }

    #[test]
    fn a_key_is_dropped_when_no_token_of_it_can_live() {
        let keys = [key("a", 0), key("b", MONTH)];
        assert_eq!(plan(&keys, Algorithm::RS256, MONTH, MONTH + KEEP - 1), Next::Nothing);
        assert_eq!(plan(&keys, Algorithm::RS256, MONTH, MONTH + KEEP), Next::Drop { kid: "a".into() });
    }

    #[test]
    fn phases_follow_the_clock() {
        let keys = [key("a", 0), key("b", 100), key("c", 200)];
        let phases = |now| keys.iter().map(|key| phase(&keys, key, now)).collect::<Vec<_>>();
        assert_eq!(phases(150), [Phase::Retiring, Phase::Signing, Phase::Published]);
    }
}
