//! A certificate held against the rules one by one, for people who ask before they connect. The
//! verdict itself is `Trust`'s; this tells all that speaks against a certificate, not just the first.

use super::trust::{Distrust, Trust, Unfit, fit, fit_alone, fit_key};
use super::x509::Certificate;
use rustls_pki_types::CertificateDer;

/// What one rule says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub rule: &'static str,
    /// What was found, or why it does not do.
    pub outcome: Result<String, String>,
}

/// Everything there is to say about a certificate.
#[derive(Debug)]
pub struct Examination {
    pub certificate: Certificate,
    pub findings: Vec<Finding>,
    /// As a client certificate that a trusted CA vouches for.
    pub by_path: Result<(), Distrust>,
    /// As a client certificate that a service key pins.
    pub by_pin: Result<(), Distrust>,
    /// As a trusted CA.
    pub as_authority: Result<(), Unfit>,
}

/// Examines the first certificate of a chain at `now` (Unix seconds); the others may be needed on
/// the way to a trusted CA.
pub fn examine(trust: &Trust, chain: &[CertificateDer<'_>], now: i64) -> Result<Examination, Distrust> {
    let leaf = chain.first().ok_or(Distrust::Nothing)?;
    let one = Certificate::from_der(leaf)?;
    let by_path = trust.verify(chain, now).map(|_| ());
    let usages = one.usages;
    let found = |rule, fine: bool, text: &str, why: Distrust| Finding {
        rule,
        outcome: if fine { Ok(text.to_owned()) } else { Err(why.to_string()) },
    };
    let mut findings = vec![
        found("begun", one.not_before <= now, "its life has begun", Distrust::NotYetValid),
        found("not ended", one.not_after >= now, "its life has not ended", Distrust::Expired),
        found("subject", !one.subject.is_empty(), &one.subject, Distrust::NoSubject),
        Finding {
            rule: "public key",
            outcome: fit_key(&one).map(|()| one.key.kind.clone()).map_err(|why| why.to_string()),
        },
        found("no CA", !one.is_ca, "basicConstraints says no CA", Distrust::IsCa),
        found(
            "key usage",
            usages.digital_signature != Some(false),
            if usages.digital_signature.is_some() { "digitalSignature" } else { "not restricted" },
            Distrust::NoDigitalSignature,
        ),
        found("extended key usage", usages.client_auth == Some(true), "clientAuth", Distrust::NoClientAuth),
    ];
    findings.push(Finding {
        rule: "critical extensions",
        outcome: match &one.unknown_critical {
            None => Ok("all understood".into()),
            Some(oid) => Err(Distrust::Critical(oid.clone()).to_string()),
        },
    });
    findings.push(Finding {
        rule: "path",
        outcome: match &by_path {
            Ok(()) => Ok(format!("leads to a trusted CA; issued by {}", one.issuer)),
            Err(distrust) => Err(distrust.to_string()),
        },
    });
    let by_pin = match &by_path {
        Err(distrust) if !distrust.pin_helps() => Err(distrust.clone()),
        _ => fit_alone(&one, now),
    };
    Ok(Examination { as_authority: fit(&one), certificate: one, findings, by_path, by_pin })
}
