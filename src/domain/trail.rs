//! What was looked at and how it went. The phases of `admit` and `issue` fill it; log line, metric
//! and error body are renderings of it.

use super::reason::Reason;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Route,
    Authenticate,
    Role,
    Csrf,
    Size,
    Rate,
    Credential,
    Forward,
    Request,
    Grant,
    Scope,
    Sign,
}

impl Step {
    pub fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Authenticate => "authenticate",
            Self::Role => "role",
            Self::Csrf => "csrf",
            Self::Size => "size",
            Self::Rate => "rate",
            Self::Credential => "credential",
            Self::Forward => "forward",
            Self::Request => "request",
            Self::Grant => "grant",
            Self::Scope => "scope",
            Self::Sign => "sign",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    /// The step does not apply, such as the role on an open route.
    Skipped,
    Refused(Reason),
}

/// A small fixed list: no allocation on the request path.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trail {
    steps: [Option<(Step, Verdict)>; 8],
    len: usize,
}

impl Trail {
    pub fn note(&mut self, step: Step, verdict: Verdict) {
        if let Some(slot) = self.steps.get_mut(self.len) {
            *slot = Some((step, verdict));
            self.len += 1;
        }
    }

    pub fn passed(&mut self, step: Step) {
        self.note(step, Verdict::Passed);
    }

    /// Notes how a step ended and hands the outcome on.
    pub fn of<T>(&mut self, step: Step, outcome: Result<T, Refusal>) -> Result<T, Refusal> {
        let verdict = outcome.as_ref().map_or_else(|refusal| Verdict::Refused(refusal.reason), |_| Verdict::Passed);
        self.note(step, verdict);
        outcome
    }

    pub fn steps(&self) -> impl Iterator<Item = (Step, Verdict)> + '_ {
        self.steps.iter().flatten().copied()
    }

    /// Why the request was refused, if it was.
    pub fn refused(&self) -> Option<Reason> {
        self.steps().find_map(|(_, verdict)| match verdict {
            Verdict::Refused(reason) => Some(reason),
            Verdict::Passed | Verdict::Skipped => None,
        })
    }
}

/// A refusal: its reason, what the log should know besides, and what a challenge must name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    /// For the log alone; never shown to the caller.
    pub detail: Option<String>,
    /// The scope that was needed (RFC 6750, 3).
    pub scope: Option<String>,
    /// Seconds after which another try may fare better.
    pub wait: Option<u32>,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: None, scope: None, wait: None }
    }
}

impl Refusal {
    pub fn because(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: Some(detail.into()), ..reason.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trail_tells_the_steps_in_order_and_the_refusal() {
        let mut trail = Trail::default();
        trail.passed(Step::Route);
        let outcome: Result<(), _> = trail.of(Step::Authenticate, Err(Reason::TokenExpired.into()));
        assert!(outcome.is_err());
        assert_eq!(trail.steps().map(|(step, _)| step.name()).collect::<Vec<_>>(), ["route", "authenticate"]);
        assert_eq!(trail.refused(), Some(Reason::TokenExpired));
    }
}
