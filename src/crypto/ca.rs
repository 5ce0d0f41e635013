//! Issuing certificates: flowgate's own client CA, the leaves of service keys of type
//! Certificate, and the server certificate that the demo starts with.

use super::random;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize, SerialNumber,
};
use secrecy::{ExposeSecret, SecretString};

#[derive(Debug, thiserror::Error)]
#[error("a certificate cannot be made: {0}")]
pub struct CaError(#[from] rcgen::Error);

/// A certificate with its private key, both as PEM.
#[derive(Debug, Clone)]
pub struct Issued {
    pub certificate: String,
    pub key: SecretString,
}

/// The first and the last second of a certificate's life.
#[derive(Debug, Clone, Copy)]
pub struct Validity {
    pub not_before: i64,
    pub not_after: i64,
}

impl Validity {
    const DAY: i64 = 86_400;

    /// From a minute before `now`, since clocks differ, for so many days.
    pub fn days(now: i64, days: i64) -> Self {
        Self { not_before: now - 60, not_after: now + days * Self::DAY }
    }
}

/// The subject of a certificate, from the most general to the common name.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    pub organization: &'a str,
    pub unit: Option<&'a str>,
    pub common_name: &'a str,
}

/// A new self-signed CA.
pub fn authority(subject: &Subject<'_>, validity: Validity) -> Result<Issued, CaError> {
    let mut params = params(subject, validity);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    Ok(Issued { certificate: certificate.pem(), key: SecretString::from(key.serialize_pem()) })
}

/// A client certificate with an RSA key of `bits` (2048, 3072 or 4096).
pub fn client(ca: &Issued, subject: &Subject<'_>, validity: Validity, bits: u16) -> Result<Issued, CaError> {
    let size = match bits {
        4096 => RsaKeySize::_4096,
        3072 => RsaKeySize::_3072,
        _ => RsaKeySize::_2048,
    };
    let mut params = params(subject, validity);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    leaf(ca, params, &KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, size)?)
}

/// A server certificate for names and addresses.
pub fn server(ca: &Issued, subject: &Subject<'_>, validity: Validity, names: &[&str]) -> Result<Issued, CaError> {
    let mut params = params(subject, validity);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let alternatives = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
    params.subject_alt_names = alternatives.subject_alt_names;
    leaf(ca, params, &KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

/// rcgen's own defaults are a life from 1975 to 4096 and no key identifiers: all of it is set here.
fn params(subject: &Subject<'_>, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, subject.organization);
    if let Some(unit) = subject.unit {
        name.push(DnType::OrganizationalUnitName, unit);
    }
    name.push(DnType::CommonName, subject.common_name);
    params.distinguished_name = name;
    let date = |seconds: i64| time_of(seconds).unwrap_or_else(|| rcgen::date_time_ymd(2049, 12, 31));
    params.not_before = date(validity.not_before);
    params.not_after = date(validity.not_after);
    params.serial_number = Some(serial());
    params.use_authority_key_identifier_extension = true;
    params
}

fn time_of(seconds: i64) -> Option<time::OffsetDateTime> {
    time::OffsetDateTime::from_unix_timestamp(seconds).ok()
}

/// 20 octets, positive, never zero (RFC 5280, 4.1.2.2).
fn serial() -> SerialNumber {
    let mut bytes = random::bytes::<20>();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn leaf(ca: &Issued, mut params: CertificateParams, key: &KeyPair) -> Result<Issued, CaError> {
    params.is_ca = IsCa::ExplicitNoCa;
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate, KeyPair::from_pem(ca.key.expose_secret())?)?;
    let certificate = params.signed_by(key, &issuer)?;
    Ok(Issued { certificate: certificate.pem(), key: SecretString::from(key.serialize_pem()) })
}
