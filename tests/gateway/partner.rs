//! Partners' certification authorities, and the certificates they issue, with whatever a test
//! changes about them.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData, RevokedCertParams,
    SerialNumber,
};
use time::{Duration, OffsetDateTime};

/// A chain as PEM, the leaf first, and the leaf's key.
#[derive(Clone)]
pub struct Pair {
    pub chain: String,
    pub key: String,
}

impl Pair {
    /// The same leaf with other certificates behind it.
    pub fn behind(&self, more: &[&str]) -> Self {
        Self { chain: format!("{}{}", self.chain, more.concat()), key: self.key.clone() }
    }
}

/// So many days from now.
pub fn day(offset: i64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::days(offset)
}

pub fn named(name: &str) -> DistinguishedName {
    let mut out = DistinguishedName::new();
    out.push(DnType::CommonName, name);
    out
}

pub struct Partner {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Partner {
    pub fn new(name: &str) -> Self {
        Self::with(name, |_| ())
    }

    pub fn with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (key, params) = (KeyPair::generate().expect("a key"), authority(name, change));
        let pem = params.self_signed(&key).expect("made").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// The CA's own key.
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A CA below this one.
    pub fn below(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (key, params) = (KeyPair::generate().expect("a key"), authority(name, change));
        let pem = params.signed_by(&key, &self.issuer).expect("made").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A client certificate.
    pub fn client(&self, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        self.client_of(&KeyPair::generate().expect("a key"), change)
    }

    pub fn client_of(&self, key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        Pair { chain: self.certify(key, change), key: key.serialize_pem() }
    }

    /// A client certificate for a public key.
    pub fn certify(&self, key: &impl PublicKeyData, change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = named("partner system");
        (params.not_before, params.not_after) = (day(-1), day(30));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.is_ca = IsCa::ExplicitNoCa;
        change(&mut params);
        params.signed_by(key, &self.issuer).expect("made").pem()
    }

    /// A revocation list that ends in so many days.
    pub fn crl(&self, serials: &[u64], ends: i64) -> String {
        self.crl_of(serials, -3, ends)
    }

    /// The same with its first day.
    pub fn crl_of(&self, serials: &[u64], begins: i64, ends: i64) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: day(-1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: day(begins),
            next_update: day(ends),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("made").pem().expect("PEM")
    }
}

fn authority(name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    (params.not_before, params.not_after) = (day(-2), day(60));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    change(&mut params);
    params
}
