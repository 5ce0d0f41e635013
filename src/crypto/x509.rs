//! A certificate reduced to what decisions need: names, life, usages, fingerprint. The bytes come
//! from strangers, so whatever does not parse is an error and never "no name".

use super::digest::{Digest, hex, sha256};
use super::dn::Dn;
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate, X509Name};
use x509_parser::public_key::PublicKey;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("there is no certificate between BEGIN CERTIFICATE and END CERTIFICATE")]
    NotPem,
    #[error("the certificate is not valid X.509 DER")]
    NotDer,
    #[error(
        "this holds a private key: nobody but its owner may have it. Nothing was kept; consider the key exposed, replace it, and give the certificate alone"
    )]
    PrivateKey,
    #[error("the revocation list is not valid X.509 DER")]
    NotCrl,
    #[error("the certificate's {0} cannot be read")]
    Unreadable(&'static str),
    #[error("an extension of the certificate is malformed or there twice")]
    Extension,
    #[error("the certificate has more than 64 extensions")]
    Extensions,
}

/// What a certificate says, read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub der: CertificateDer<'static>,
    pub fingerprint: Digest,
    /// RFC 4514 text for people.
    pub subject: String,
    pub issuer: String,
    pub names: Names,
    /// As encoded: a path is built on equal bytes.
    pub subject_der: Vec<u8>,
    pub issuer_der: Vec<u8>,
    /// Hexadecimal, as the bytes stand: a serial number fits no integer type.
    pub serial: String,
    /// Unix seconds.
    pub not_before: i64,
    pub not_after: i64,
    pub is_ca: bool,
    pub usages: Usages,
    /// Alternative names, and constraints on those of certificates below: each of the one is held
    /// against each of the other.
    pub alternative_names: usize,
    pub constraints: usize,
    /// A critical extension that nothing here understands, as its dotted number.
    pub unknown_critical: Option<String>,
    pub key: PublicKeyFacts,
}

/// Subject and issuer, equal where RFC 5280 calls the names equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Names {
    pub subject: Digest,
    pub issuer: Digest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKeyFacts {
    /// Such as `RSA 2048` or `P-256`.
    pub kind: String,
    /// Bits of the modulus, for RSA keys.
    pub rsa_bits: Option<usize>,
}

/// Key usages that matter here; absent extensions stay absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usages {
    pub digital_signature: Option<bool>,
    pub key_cert_sign: Option<bool>,
    pub client_auth: Option<bool>,
    pub server_auth: Option<bool>,
}

impl Certificate {
    pub fn from_der(der: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| CertificateError::NotDer)?;
        if !rest.is_empty() {
            return Err(CertificateError::NotDer);
        }
        let name = |name: &X509Name<'_>, what| Dn::of(name).ok_or(CertificateError::Unreadable(what));
        let (subject, issuer) = (name(parsed.subject(), "subject")?, name(parsed.issuer(), "issuer")?);
        let validity = parsed.validity();
        Ok(Self {
            fingerprint: sha256(der),
            names: Names { subject: subject.identity, issuer: issuer.identity },
            subject: subject.text,
            issuer: issuer.text,
            subject_der: parsed.subject().as_raw().to_vec(),
            issuer_der: parsed.issuer().as_raw().to_vec(),
            serial: hex(parsed.raw_serial()),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            is_ca: parsed.is_ca(),
            usages: usages(&parsed)?,
            alternative_names: alternative_names(&parsed),
            constraints: constraints(&parsed),
            unknown_critical: unknown_critical(&parsed),
            key: key_facts(&parsed),
            der: der.clone().into_owned(),
        })
    }

    /// Reads the one certificate in a text; more than one is an error of the caller's.
    pub fn from_pem(text: &str) -> Result<Self, CertificateError> {
        Self::from_der(chain(text)?.first().ok_or(CertificateError::NotPem)?)
    }

    pub fn self_issued(&self) -> bool {
        self.subject_der == self.issuer_der
    }

    /// Whether a CA's name and key stand behind its signature.
    pub fn issued_by(&self, authority: &Self) -> bool {
        let read = |der| X509Certificate::from_der(der).ok().map(|(_, parsed)| parsed);
        let (Some(own), Some(above)) = (read(&self.der), read(&authority.der)) else { return false };
        self.issuer_der == authority.subject_der && own.verify_signature(Some(above.public_key())).is_ok()
    }

    /// Whether `now` (Unix seconds) lies in its life, both ends included (RFC 5280, 4.1.2.5).
    pub fn current(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

/// Every certificate in a text, in order. Tolerant where service keys are handled by people: line
/// breaks may be missing or stand as the two characters `\n`, and the last dashes may be cut off.
pub fn chain(text: &str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let out = blocks(text, "CERTIFICATE")?;
    if out.is_empty() { Err(CertificateError::NotPem) } else { Ok(out.into_iter().map(CertificateDer::from).collect()) }
}

/// The same for a text that somebody uploads, where a private key is a mishap.
pub fn uploaded(text: &str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    if text.contains("PRIVATE KEY-----") { Err(CertificateError::PrivateKey) } else { chain(text) }
}

/// Every revocation list in a text.
pub fn crls(text: &str) -> Result<Vec<Crl>, CertificateError> {
    blocks(text, "X509 CRL")?.iter().map(|der| Crl::from_der(der)).collect()
}

fn blocks(text: &str, label: &str) -> Result<Vec<Vec<u8>>, CertificateError> {
    let text = text.replace("\\r", "").replace("\\n", "\n");
    let begin = format!("-----BEGIN {label}-----");
    let decode = |block: &str| {
        let body = block.split("-----").next().unwrap_or_default();
        let base64: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        STANDARD.decode(base64).map_err(|_| CertificateError::NotPem)
    };
    text.split(begin.as_str()).skip(1).map(decode).collect()
}

/// Extensions of one certificate; ordinary ones have a dozen.
const MAX_EXTENSIONS: usize = 64;

fn usages(certificate: &X509Certificate<'_>) -> Result<Usages, CertificateError> {
    if certificate.extensions().len() > MAX_EXTENSIONS {
        return Err(CertificateError::Extensions);
    }
    let mut seen = Vec::new();
    let mut usages = Usages::default();
    for extension in certificate.extensions() {
        if seen.contains(&&extension.oid) {
            return Err(CertificateError::Extension);
        }
        seen.push(&extension.oid);
        match extension.parsed_extension() {
            ParsedExtension::KeyUsage(usage) => {
                usages.digital_signature = Some(usage.digital_signature());
                usages.key_cert_sign = Some(usage.key_cert_sign());
            }
            ParsedExtension::ExtendedKeyUsage(usage) => {
                usages.client_auth = Some(usage.client_auth);
                usages.server_auth = Some(usage.server_auth);
            }
            ParsedExtension::ParseError { .. } => return Err(CertificateError::Extension),
            _ => {}
        }
    }
    Ok(usages)
}

/// Extensions that this crate or the path check reads (RFC 5280, 4.2.1); policies are read by
/// neither, but as part of a trusted CA they restrict nothing that is decided here.
const KNOWN: [&str; 12] = [
    "2.5.29.14",
    "2.5.29.15",
    "2.5.29.17",
    "2.5.29.19",
    "2.5.29.30",
    "2.5.29.31",
    "2.5.29.32",
    "2.5.29.33",
    "2.5.29.35",
    "2.5.29.36",
    "2.5.29.37",
    "2.5.29.54",
];

fn unknown_critical(certificate: &X509Certificate<'_>) -> Option<String> {
    let critical = certificate.extensions().iter().filter(|extension| extension.critical);
    critical.map(|extension| extension.oid.to_id_string()).find(|oid| !KNOWN.contains(&oid.as_str()))
}

fn alternative_names(certificate: &X509Certificate<'_>) -> usize {
    let names = certificate.extensions().iter().filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(names.general_names.len()),
        _ => None,
    });
    names.sum()
}

fn constraints(certificate: &X509Certificate<'_>) -> usize {
    let lists = certificate.extensions().iter().filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::NameConstraints(lists) => Some([&lists.permitted_subtrees, &lists.excluded_subtrees]),
        _ => None,
    });
    lists.flatten().flatten().map(Vec::len).sum()
}

fn key_facts(certificate: &X509Certificate<'_>) -> PublicKeyFacts {
    let info = certificate.public_key();
    let (kind, rsa_bits) = match info.parsed() {
        Ok(PublicKey::RSA(key)) => {
            let start = key.modulus.iter().position(|byte| *byte != 0).unwrap_or(key.modulus.len());
            let lead = key.modulus.get(start).map_or(0, |byte| byte.leading_zeros() as usize);
            let bits = (key.modulus.len() - start) * 8 - lead;
            (format!("RSA {bits}"), Some(bits))
        }
        Ok(PublicKey::EC(_)) => {
            let curve = info.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
            let curve = curve.map(|oid| oid.to_id_string()).unwrap_or_default();
            let name = CURVES.iter().find(|(oid, _)| *oid == curve).map_or(curve.as_str(), |(_, name)| name);
            (name.to_owned(), None)
        }
        Ok(_) => {
            let oid = info.algorithm.algorithm.to_id_string();
            (if oid == "1.3.101.112" { "Ed25519".to_owned() } else { oid }, None)
        }
        // unknown to the parser, so nothing that could be used
        Err(_) => (info.algorithm.algorithm.to_id_string(), None),
    };
    PublicKeyFacts { kind, rsa_bits }
}

const CURVES: [(&str, &str); 4] = [
    ("1.2.840.10045.3.1.7", "P-256"),
    ("1.3.132.0.34", "P-384"),
    ("1.3.132.0.35", "P-521"),
    ("1.3.132.0.10", "secp256k1"),
];

/// A certificate revocation list, as far as people and clocks need it; the path check reads the
/// rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crl {
    pub der: CertificateRevocationListDer<'static>,
    pub issuer: String,
    /// The issuer's name for comparison.
    pub name: Digest,
    /// Unix seconds.
    pub this_update: i64,
    pub next_update: Option<i64>,
    pub revoked: usize,
}

impl Crl {
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let (rest, parsed) = CertificateRevocationList::from_der(der).map_err(|_| CertificateError::NotCrl)?;
        if !rest.is_empty() {
            return Err(CertificateError::NotCrl);
        }
        let issuer = Dn::of(parsed.issuer()).ok_or(CertificateError::Unreadable("issuer"))?;
        Ok(Self {
            issuer: issuer.text,
            name: issuer.identity,
            this_update: parsed.last_update().timestamp(),
            next_update: parsed.next_update().map(|time| time.timestamp()),
            revoked: parsed.iter_revoked_certificates().count(),
            der: CertificateRevocationListDer::from(der.to_vec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::ca;

    fn certificate() -> String {
        let subject = ca::Subject { organization: "flow, gate", unit: Some("tests"), common_name: "one" };
        ca::authority(&subject, ca::Validity::days(1_700_000_000, 10)).expect("made").certificate
    }

    #[test]
    fn names_are_rendered_most_specific_first_and_escaped() {
        let read = Certificate::from_pem(&certificate()).expect("reads");
        assert_eq!(read.subject, "CN=one,OU=tests,O=flow\\, gate");
        assert!(read.is_ca && read.self_issued());
        assert_eq!(read.not_after - read.not_before, 10 * 86_400 + 60);
        assert_eq!(read.usages.key_cert_sign, Some(true));
    }

    #[test]
    fn a_certificate_reads_however_people_mangle_its_line_breaks() {
        let pem = certificate();
        let whole = Certificate::from_pem(&pem).expect("reads");
        let mangled = [
            pem.replace('\n', ""),
            pem.replace('\n', "\\n"),
            pem.replace('\n', "\r\n"),
            pem.replace('\n', " "),
            pem.trim_end().trim_end_matches('-').to_owned(),
        ];
        for text in mangled {
            assert_eq!(Certificate::from_pem(&text).expect("reads").fingerprint, whole.fingerprint);
        }
    }

    #[test]
    fn what_is_no_certificate_is_an_error() {
        let pem = certificate();
        for text in ["", "hello", "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----", &pem[..200]] {
            assert!(Certificate::from_pem(text).is_err());
        }
        let mut der = chain(&pem).expect("one")[0].to_vec();
        der.push(0);
        assert_eq!(Certificate::from_der(&CertificateDer::from(der)), Err(CertificateError::NotDer));
    }
}
