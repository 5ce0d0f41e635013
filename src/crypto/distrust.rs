//! Why a certificate is not believed, or unfit to vouch for others, each with the remedy; and the
//! bounds on what is looked at.

use super::x509::CertificateError;

/// Certificates a peer may present, its own included. The longest path has six intermediates.
pub const MAX_PRESENTED: usize = 8;
/// Presented certificates that may share one subject: eight same-named CAs that sign each other
/// cost 0.4 s of CPU to search (path building is exponential in twins).
pub const MAX_NAMESAKES: usize = 2;
/// Bytes of all presented certificates.
pub const MAX_PRESENTED_BYTES: usize = 48 * 1024;

/// Comparisons of names with constraints: a certificate has a few names, a CA a few constraints,
/// and thousands of both cost 0.07 s of CPU.
pub const MAX_COMPARISONS: usize = 5_000;

/// Why a chain is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    #[error("no certificate was presented")]
    Nothing,
    #[error(
        "{0} certificates were presented, at most {MAX_PRESENTED} are looked at; send the leaf and its intermediates only"
    )]
    TooMany(usize),
    #[error("the presented certificates have {0} bytes, at most {MAX_PRESENTED_BYTES} are looked at")]
    TooLarge(usize),
    #[error("more than {MAX_NAMESAKES} presented certificates share the subject {0}; send each CA once")]
    Namesakes(String),
    #[error(
        "its alternative names and the name constraints above it are too many to compare (at most {MAX_COMPARISONS} pairs); use a certificate with fewer names"
    )]
    Comparisons,
    #[error("the certificate cannot be read: {0}")]
    Unreadable(#[from] CertificateError),
    #[error("there is no trusted CA to judge by; add its certificate to trusted_cas")]
    NoAuthorities,
    #[error(
        "no trusted CA vouches for it: the issuer {0} is neither trusted nor among the presented certificates; add that CA to trusted_cas or send the missing intermediate"
    )]
    UnknownIssuer(String),
    #[error(
        "its signature does not verify with the key of the trusted CA {0}: another CA of the same name issued it, or it was altered; add the CA that did, if it is to be trusted"
    )]
    OtherKey(String),
    #[error(
        "its issuer name {0} is written in another encoding than the CA's own name, which path building takes for another name; add the CA directly above the certificate to trusted_cas, or pin the certificate"
    )]
    Spelling(String),
    #[error("it has expired, or a CA above it has")]
    Expired,
    #[error("it is not yet valid, or a CA above it is not")]
    NotYetValid,
    #[error(
        "it is marked as a CA (CA:TRUE), which a client certificate may not be; make it with basicConstraints=CA:FALSE"
    )]
    IsCa,
    #[error("its extended key usage lacks clientAuth; ask the CA for a certificate with clientAuth")]
    NoClientAuth,
    #[error("its key usage lacks digitalSignature")]
    NoDigitalSignature,
    #[error("it has an RSA key of {0} bits; use 2048 or more")]
    WeakKey(usize),
    #[error(
        "its key is of a kind that is not taken ({0}); use RSA of 2048 bits or more, P-256, P-384, P-521 or Ed25519"
    )]
    KeyKind(String),
    #[error("it has the critical extension {0}, which nothing here understands (RFC 5280, 4.2)")]
    Critical(String),
    #[error("it has no subject, so there is no name to know it by")]
    NoSubject,
    #[error("it, or a CA above it, is on the revocation list of its CA")]
    Revoked,
    #[error(
        "the revocation list of its CA has passed its next update; put a current one beside the CA, or set revocation.expired_crl: accept"
    )]
    CrlExpired,
    #[error("the revocation list of its CA cannot be used: {0}; put a good one beside the CA")]
    CrlUnusable(String),
    #[error("there is no revocation list of its CA, and revocation.without_crl is refuse; put one beside the CA")]
    CrlMissing,
    #[error("its path does not verify: {0}")]
    Path(String),
}

impl Distrust {
    /// Whether the certificate itself may be in order, and only its path is not: then its pin can
    /// stand for the path.
    pub fn pin_helps(&self) -> bool {
        matches!(
            self,
            Self::NoAuthorities
                | Self::UnknownIssuer(_)
                | Self::OtherKey(_)
                | Self::Spelling(_)
                | Self::IsCa
                | Self::Path(_)
                | Self::NoClientAuth
        )
    }
}

/// Why a certificate is unfit as a trusted CA.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("{0}")]
    Unreadable(#[from] CertificateError),
    #[error(
        "{0} is not a CA (basicConstraints CA:TRUE is missing): whatever is trusted here may issue certificates for any name"
    )]
    NotCa(String),
    #[error("{0} may not sign certificates (its key usage lacks keyCertSign)")]
    MayNotSign(String),
    #[error("{0} has an RSA key of {1} bits; nothing below 2048 verifies")]
    WeakKey(String, usize),
    #[error("{0} is restricted to usages other than clientAuth")]
    NoClientAuth(String),
    #[error("{0} has the critical extension {1}, which nothing here understands (RFC 5280, 4.2)")]
    Extension(String, String),
    #[error("{0} cannot serve as a trust anchor: {1}")]
    Anchor(String, String),
    #[error(
        "the revocation list of {0} cannot be used: {1}; it must be of version 2 with a CRL number (openssl: crlnumber and crl_extensions)"
    )]
    Crl(String, String),
}
