//! A certificate reduced to what decisions need: names, life, usages, fingerprint. The bytes come
//! from strangers, so whatever does not parse is an error and never "no name".

use super::digest::{Digest, hex, sha256};
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::CertificateDer;
use std::fmt::Write;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};
use x509_parser::public_key::PublicKey;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("there is no certificate between BEGIN CERTIFICATE and END CERTIFICATE")]
    NotPem,
    #[error("the certificate is not valid X.509 DER")]
    NotDer,
    #[error("the certificate's {0} cannot be read")]
    Unreadable(&'static str),
    #[error("an extension of the certificate is malformed or there twice")]
    Extension,
}

/// What a certificate says, read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub der: CertificateDer<'static>,
    pub fingerprint: Digest,
    /// RFC 4514 text for people; identity is compared on `subject_der` and `issuer_der`.
    pub subject: String,
    pub issuer: String,
    pub subject_der: Vec<u8>,
    pub issuer_der: Vec<u8>,
    /// Hexadecimal, as the bytes stand: a serial number fits no integer type.
    pub serial: String,
    /// Unix seconds.
    pub not_before: i64,
    pub not_after: i64,
    pub is_ca: bool,
    pub usages: Usages,
    /// Bits of the modulus, for RSA keys.
    pub rsa_bits: Option<usize>,
}

/// Key usages that matter here; absent extensions stay absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usages {
    pub digital_signature: Option<bool>,
    pub key_cert_sign: Option<bool>,
    pub client_auth: Option<bool>,
}

impl Certificate {
    pub fn from_der(der: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| CertificateError::NotDer)?;
        if !rest.is_empty() {
            return Err(CertificateError::NotDer);
        }
        let name = |name: &X509Name<'_>, what| rfc4514(name).ok_or(CertificateError::Unreadable(what));
        let validity = parsed.validity();
        Ok(Self {
            fingerprint: sha256(der),
            subject: name(parsed.subject(), "subject")?,
            issuer: name(parsed.issuer(), "issuer")?,
            subject_der: parsed.subject().as_raw().to_vec(),
            issuer_der: parsed.issuer().as_raw().to_vec(),
            serial: hex(parsed.raw_serial()),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            is_ca: parsed.is_ca(),
            usages: usages(&parsed)?,
            rsa_bits: rsa_bits(&parsed)?,
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
}

/// Every certificate in a text, in order. Tolerant where service keys are handled by people: line
/// breaks may be missing or stand as the two characters `\n`, and the last dashes may be cut off.
pub fn chain(text: &str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let text = text.replace("\\r", "").replace("\\n", "\n");
    let mut out = Vec::new();
    for block in text.split(BEGIN).skip(1) {
        let body = block.split("-----").next().unwrap_or_default();
        let base64: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let der = STANDARD.decode(base64).map_err(|_| CertificateError::NotPem)?;
        out.push(CertificateDer::from(der));
    }
    if out.is_empty() { Err(CertificateError::NotPem) } else { Ok(out) }
}

fn usages(certificate: &X509Certificate<'_>) -> Result<Usages, CertificateError> {
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
            ParsedExtension::ExtendedKeyUsage(usage) => usages.client_auth = Some(usage.client_auth),
            ParsedExtension::ParseError { .. } => return Err(CertificateError::Extension),
            _ => {}
        }
    }
    Ok(usages)
}

fn rsa_bits(certificate: &X509Certificate<'_>) -> Result<Option<usize>, CertificateError> {
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => {
            let start = key.modulus.iter().position(|byte| *byte != 0).unwrap_or(key.modulus.len());
            Ok(Some((key.modulus.len() - start) * 8))
        }
        Ok(_) => Ok(None),
        Err(_) => Err(CertificateError::Unreadable("public key")),
    }
}

/// RFC 4514: the most specific name first, special characters escaped.
fn rfc4514(name: &X509Name<'_>) -> Option<String> {
    let mut out = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for (index, rdn) in parts.iter().rev().enumerate() {
        for (at, attribute) in rdn.iter().enumerate() {
            if index > 0 || at > 0 {
                out.push(if at > 0 { '+' } else { ',' });
            }
            let oid = attribute.attr_type().to_id_string();
            let label = SHORT.iter().find(|(id, _)| *id == oid).map_or(oid.as_str(), |(_, short)| short);
            let _ = write!(out, "{label}=");
            escape(attribute.as_str().ok()?, &mut out);
        }
    }
    Some(out)
}

const SHORT: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.5", "SERIALNUMBER"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("0.9.2342.19200300.100.1.25", "DC"),
];

fn escape(value: &str, out: &mut String) {
    for (at, c) in value.chars().enumerate() {
        let edge = at == 0 || at + 1 == value.chars().count();
        match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => out.extend(['\\', c]),
            '#' if at == 0 => out.extend(['\\', c]),
            ' ' if edge => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\{:02X}", u32::from(c) & 0xff);
            }
            c => out.push(c),
        }
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
