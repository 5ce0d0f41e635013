//! Service keys: one credential of an instance each, and the JSON in which a key is shown once.

use super::instance::{Instance, Plan, Suggestion};
use super::name::KeyName;
use super::record::{Claim, Record};
use super::tenant::Tenant;
use crate::crypto::digest::Digest;
use crate::crypto::x509::{Certificate, CertificateError, Names};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Days that an issued certificate may live.
pub const VALIDITY_DAYS: std::ops::RangeInclusive<i64> = 1..=365;
pub const KEY_LENGTHS: [u16; 3] = [2048, 3072, 4096];

/// One credential of an instance, as it is stored: never with a secret or a private key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    pub id: String,
    pub instance_id: String,
    pub name: KeyName,
    /// Unix seconds.
    pub created: i64,
    pub credential: Credential,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// The keyed digest of a generated secret, hexadecimal.
    Secret { digest: String },
    /// A certificate issued here.
    Certificate(CertificateDetails),
    /// A certificate of the partner's own.
    CertificateExternal { details: CertificateDetails, matching: Matching },
}

/// How a presented certificate is known to be a partner's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Matching {
    /// This one certificate, for which a trusted CA vouches.
    Pinned,
    /// This one certificate, for which its pin alone vouches.
    PinnedAlone,
    /// Any certificate of the same names that was issued later than the one accepted last, which
    /// the details tell of. The ones before it, latest first.
    Names { earlier: Vec<CertificateDetails> },
}

/// Earlier certificates that a key remembers.
const HISTORY: usize = 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateDetails {
    /// SHA-256 of the certificate, hexadecimal.
    pub fingerprint: String,
    pub subject: String,
    pub issuer: String,
    pub serial: String,
    /// Unix seconds.
    pub valid_from: i64,
    /// Unix seconds.
    pub valid_until: i64,
    /// Subject and issuer for comparison, hexadecimal: equal where RFC 5280 calls the names equal.
    pub names: String,
}

impl CertificateDetails {
    pub fn of(certificate: &Certificate) -> Self {
        Self {
            fingerprint: crate::crypto::digest::hex(&certificate.fingerprint),
            subject: certificate.subject.clone(),
            issuer: certificate.issuer.clone(),
            serial: certificate.serial.clone(),
            valid_from: certificate.not_before,
            valid_until: certificate.not_after,
            names: names_text(&certificate.names),
        }
    }

    fn shown(&self) -> Value {
        json!({
            "issuerdn": self.issuer,
            "subjectdn": self.subject,
            "serialnumber": format!("0x{}", self.serial.to_ascii_uppercase()),
            "validuntil": model_time(self.valid_until),
        })
    }
}

/// Subject and issuer in one text, as claims and records hold them.
pub fn names_text(names: &Names) -> String {
    format!("{}{}", crate::crypto::digest::hex(&names.subject), crate::crypto::digest::hex(&names.issuer))
}

impl Record for Key {
    const KIND: &'static str = "key";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn claims(&self) -> Vec<Claim> {
        let mut claims = vec![Claim::new("key-name", format!("{}/{}", self.instance_id, self.name))];
        if let Some(details) = self.certificate() {
            claims.push(Claim::new("certificate", &*details.fingerprint));
            // of one pair of names there is one unpinned key or any number of pinned ones
            claims.push(match self.unpinned() {
                Some(_) => Claim::new("certificate-names", &*details.names),
                None => Claim::new("pinned-names", format!("{}/{}", details.names, self.id)),
            });
        }
        claims
    }
}

impl Key {
    pub fn certificate(&self) -> Option<&CertificateDetails> {
        match &self.credential {
            Credential::Secret { .. } => None,
            Credential::Certificate(details) | Credential::CertificateExternal { details, .. } => Some(details),
        }
    }

    /// The certificate accepted last and those before it, for a key that goes by names.
    pub fn unpinned(&self) -> Option<(&CertificateDetails, &[CertificateDetails])> {
        match &self.credential {
            Credential::CertificateExternal { details, matching: Matching::Names { earlier } } => {
                Some((details, earlier))
            }
            _ => None,
        }
    }

    /// How its certificate is known, in words.
    pub fn matching(&self) -> Option<&'static str> {
        match &self.credential {
            Credential::Secret { .. } => None,
            Credential::Certificate(_) => Some("issued here"),
            Credential::CertificateExternal { matching, .. } => Some(match matching {
                Matching::Pinned => "pin",
                Matching::PinnedAlone => "pin alone",
                Matching::Names { .. } => "names",
            }),
        }
    }

    /// Whether the key's pin is all that vouches for its certificate.
    pub fn pinned_alone(&self) -> bool {
        matches!(self.credential, Credential::CertificateExternal { matching: Matching::PinnedAlone, .. })
    }

    /// The key after a renewal of its certificate; None if the certificate is no renewal of it.
    pub fn renewed(&self, fresh: &CertificateDetails) -> Option<Self> {
        let (last, earlier) = self.unpinned()?;
        if last.names != fresh.names || fresh.valid_from <= last.valid_from {
            return None;
        }
        let earlier = std::iter::once(last).chain(earlier).take(HISTORY).cloned().collect();
        let credential =
            Credential::CertificateExternal { details: fresh.clone(), matching: Matching::Names { earlier } };
        Some(Self { credential, ..self.clone() })
    }

    pub fn secret_digest(&self) -> Option<Digest> {
        match &self.credential {
            Credential::Secret { digest } => digest_of_hex(digest),
            _ => None,
        }
    }

    /// The key type as the model spells it.
    pub fn key_type(&self) -> &'static str {
        match self.credential {
            Credential::Secret { .. } => "clientid-secret",
            Credential::Certificate(_) => "certificate",
            Credential::CertificateExternal { .. } => "certificate_external",
        }
    }
}

pub fn digest_of_hex(text: &str) -> Option<Digest> {
    let mut out = [0; 32];
    for (index, slot) in out.iter_mut().enumerate() {
        *slot = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    (text.len() == 64).then_some(out)
}

/// What kind of key is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    Secret,
    Certificate { days: i64, bits: u16 },
    External { pem: String, pinned: bool },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the key parameters are not a JSON object")]
    NotAnObject,
    #[error("unknown key parameter `{0}`{1}")]
    Unknown(String, Suggestion),
    #[error("key parameter `{0}` must be {1}")]
    Type(&'static str, &'static str),
    #[error("there is no key type `{0}`; use clientid-secret, certificate or certificate_external")]
    KeyType(String),
    #[error("validity is {0}; a certificate lives 1 to 365 days")]
    Validity(i64),
    #[error("key-length is {0}; use 2048, 3072 or 4096")]
    Length(i64),
    #[error("key type certificate_external needs the certificate as PEM in `X.509`")]
    NoCertificate,
    #[error("upload one certificate, the sender's own; {0} were given (the chain is sent by the client)")]
    ManyCertificates(usize),
    #[error("the certificate cannot be used: {0}")]
    Certificate(#[from] CertificateError),
}

impl Wanted {
    const KNOWN: [&str; 5] = ["key-type", "validity", "key-length", "X.509", "certificate-pinning"];

    /// Reads the model's JSON; `{}` asks for clientid and clientsecret.
    pub fn parse(json: &Value) -> Result<Self, KeyError> {
        let members = json.as_object().ok_or(KeyError::NotAnObject)?;
        if let Some(name) = members.keys().find(|name| !Self::KNOWN.contains(&name.as_str())) {
            return Err(KeyError::Unknown(name.clone(), Suggestion::of(name, Self::KNOWN)));
        }
        let number = |name: &'static str, default: i64| match members.get(name) {
            None => Ok(default),
            Some(value) => value.as_i64().ok_or(KeyError::Type(name, "a whole number")),
        };
        let kind = members.get("key-type").map_or(Some("clientid-secret"), Value::as_str);
        match kind.ok_or(KeyError::Type("key-type", "a text"))? {
            "clientid-secret" => Ok(Self::Secret),
            "certificate" => Self::certificate(number("validity", 365)?, number("key-length", 2048)?),
            "certificate_external" => {
                let pem = members.get("X.509").and_then(Value::as_str).ok_or(KeyError::NoCertificate)?;
                let pinning = members.get("certificate-pinning").map_or(Some(true), Value::as_bool);
                Self::external(pem, pinning.ok_or(KeyError::Type("certificate-pinning", "true or false"))?)
            }
            other => Err(KeyError::KeyType(other.to_owned())),
        }
    }

    pub fn certificate(days: i64, bits: i64) -> Result<Self, KeyError> {
        if !VALIDITY_DAYS.contains(&days) {
            return Err(KeyError::Validity(days));
        }
        let known = KEY_LENGTHS.into_iter().find(|length| i64::from(*length) == bits);
        Ok(Self::Certificate { days, bits: known.ok_or(KeyError::Length(bits))? })
    }

    pub fn external(pem: &str, pinned: bool) -> Result<Self, KeyError> {
        match crate::crypto::x509::uploaded(pem)?.len() {
            1 => Ok(Self::External { pem: pem.to_owned(), pinned }),
            many => Err(KeyError::ManyCertificates(many)),
        }
    }
}

/// The secret half of a new key, shown once.
pub enum Shown {
    Secret(SecretString),
    Certificate { chain: String, key: Option<SecretString>, details: CertificateDetails },
}

/// Where the gateway is reached, for the addresses in a service key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// `https://host:port`, without a path.
    pub url: String,
    /// Where clients with certificates connect, if that is another origin.
    pub mtls_url: Option<String>,
}

impl Origin {
    pub fn token_url(&self) -> String {
        format!("{}/oauth/token", self.url)
    }

    /// Where providers send browsers back to.
    pub fn callback_url(&self) -> String {
        format!("{}/oauth/callback", self.url)
    }

    /// The origin for those who show a certificate.
    pub fn for_certificates(&self) -> &str {
        self.mtls_url.as_deref().unwrap_or(&self.url)
    }

    /// Host and port, as the XSUAA libraries want it.
    pub fn domain(&self) -> &str {
        self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest)
    }
}

/// The service key as the model displays it; the plan decides the shape.
pub fn render(instance: &Instance, key: &Key, shown: &Shown, origin: &Origin, tenant: &Tenant) -> Value {
    let mut members = json!({ "clientid": instance.client_id });
    match shown {
        Shown::Secret(secret) => members["clientsecret"] = json!(secret.expose_secret()),
        Shown::Certificate { chain, key, details } => {
            members["certificate"] = json!(chain);
            if let Some(key) = key {
                members["key"] = json!(key.expose_secret());
            }
            members["certificatedetails"] = details.shown();
        }
    }
    let certified = matches!(shown, Shown::Certificate { .. });
    if instance.plan != Plan::Destination {
        let at = if certified { origin.for_certificates() } else { &origin.url };
        members["tokenurl"] = json!(format!("{at}/oauth/token"));
        members["url"] = json!(at);
        members["createdate"] = json!(model_time(key.created));
        return json!({ "oauth": members });
    }
    if certified {
        members["certurl"] = json!(origin.for_certificates());
    }
    for (name, value) in [
        ("url", origin.url.as_str()),
        ("uri", origin.url.as_str()),
        ("uaadomain", origin.domain()),
        ("xsappname", tenant.xsappname.as_str()),
        ("identityzone", tenant.subdomain.as_str()),
        ("tenantid", tenant.zid.as_str()),
        ("instanceid", instance.id.as_str()),
    ] {
        members[name] = json!(value);
    }
    members
}

/// `2026-11-21T12:00:00.000Z`, the model's way to write a time.
pub fn model_time(seconds: i64) -> String {
    let time = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}

/// A service key that the model itself displayed, read for import.
#[derive(Debug)]
pub struct Foreign {
    pub client_id: String,
    pub credential: ForeignCredential,
}

#[derive(Debug)]
pub enum ForeignCredential {
    Secret(SecretString),
    Certificate(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    #[error("the file holds no service key: expected a JSON object with `clientid`, alone or below `oauth`")]
    NotAKey,
    #[error("the service key holds neither `clientsecret` nor `certificate`")]
    NoCredential,
    #[error(
        "the secret is not of the model's shape (<uuid>$<43 characters>=): only such random secrets may be kept as a digest; create a new key instead"
    )]
    WeakSecret,
    #[error("the clientid is not printable ASCII of at most 256 characters")]
    ClientId,
}

impl Foreign {
    /// Reads any shape that the model displays. A private key in it is not looked at.
    pub fn parse(json: &Value) -> Result<Self, ImportError> {
        let members = json.get("oauth").unwrap_or(json);
        let text = |name| members.get(name).and_then(Value::as_str);
        let client_id = text("clientid").ok_or(ImportError::NotAKey)?;
        if client_id.is_empty() || client_id.len() > 256 || !client_id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ImportError::ClientId);
        }
        let credential = match (text("clientsecret"), text("certificate")) {
            (Some(secret), _) if strong(secret) => ForeignCredential::Secret(SecretString::from(secret)),
            (Some(_), _) => return Err(ImportError::WeakSecret),
            (None, Some(pem)) => ForeignCredential::Certificate(pem.to_owned()),
            (None, None) => return Err(ImportError::NoCredential),
        };
        Ok(Self { client_id: client_id.to_owned(), credential })
    }
}

/// Whether a secret has the model's high-entropy shape.
fn strong(secret: &str) -> bool {
    let url_safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    secret.split_once('$').is_some_and(|(head, tail)| {
        head.len() == 36
            && head.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
            && tail.len() == 44
            && tail.strip_suffix('=').is_some_and(|body| body.bytes().all(url_safe))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{ca, random};
    use crate::domain::name::InstanceName;

    fn instance(plan: Plan) -> Instance {
        Instance {
            id: "11111111-2222-4333-8444-555555555555".into(),
            name: InstanceName::parse("orders").expect("a name"),
            plan,
            client_id: "sb-x!b1|it-rt-demo!b1".into(),
            aliases: Vec::new(),
            roles: Vec::new(),
            token_validity: 3600,
            bound_tokens: false,
            trusted_cas: Vec::new(),
            created: 0,
        }
    }

    fn key(credential: Credential) -> Key {
        let name = KeyName::parse("k").expect("a name");
        Key { id: "kid".into(), instance_id: "iid".into(), name, created: 1_751_415_451, credential }
    }

    fn members(value: &Value) -> Vec<&str> {
        value.as_object().expect("an object").keys().map(String::as_str).collect()
    }

    #[test]
    fn a_secret_key_is_shown_in_the_models_shape() {
        let origin = Origin { url: "https://localhost:8443".into(), mtls_url: None };
        let tenant = Tenant::new("demo", None, None);
        let shown = Shown::Secret(SecretString::from("s"));
        let key = key(Credential::Secret { digest: String::new() });
        let json = render(&instance(Plan::IntegrationFlow), &key, &shown, &origin, &tenant);
        assert_eq!(members(&json), ["oauth"]);
        assert_eq!(members(&json["oauth"]), ["clientid", "clientsecret", "createdate", "tokenurl", "url"]);
        assert_eq!(json["oauth"]["tokenurl"], "https://localhost:8443/oauth/token");
        assert_eq!(json["oauth"]["createdate"], "2025-07-02T00:17:31.000Z");
    }

    #[test]
    fn a_destination_key_is_flat() {
        let origin = Origin { url: "https://localhost:8443".into(), mtls_url: None };
        let tenant = Tenant::new("demo", None, None);
        let shown = Shown::Secret(SecretString::from("s"));
        let key = key(Credential::Secret { digest: String::new() });
        let json = render(&instance(Plan::Destination), &key, &shown, &origin, &tenant);
        let want = [
            "clientid",
            "clientsecret",
            "identityzone",
            "instanceid",
            "tenantid",
            "uaadomain",
            "uri",
            "url",
            "xsappname",
        ];
        assert_eq!(members(&json), want);
        assert_eq!(json["uaadomain"], "localhost:8443");
    }

    #[test]
    fn key_parameters_take_the_models_json_and_its_limits() {
        assert_eq!(Wanted::parse(&json!({})), Ok(Wanted::Secret));
        let json = json!({"key-type": "certificate", "validity": 30, "key-length": 4096});
        assert_eq!(Wanted::parse(&json), Ok(Wanted::Certificate { days: 30, bits: 4096 }));
        for bad in [
            json!({"key-type": "certificate", "validity": 0}),
            json!({"key-type": "certificate", "validity": 366}),
            json!({"key-type": "certificate", "key-length": 1024}),
            json!({"key-type": "certificate_external"}),
            json!({"key-type": "cert"}),
            json!({"keytype": "certificate"}),
            json!([]),
        ] {
            assert!(Wanted::parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_external_certificate_is_taken_and_a_chain_is_not() {
        let subject = ca::Subject { organization: "x", unit: None, common_name: "y" };
        let pem = ca::authority(&subject, ca::Validity::days(0, 1)).expect("made").certificate;
        let parse =
            |pem: &str| Wanted::parse(&json!({"key-type": "certificate_external", "X.509": pem, "validity": 365}));
        assert!(parse(&pem.replace('\n', "")).is_ok());
        assert_eq!(parse(&format!("{pem}{pem}")), Err(KeyError::ManyCertificates(2)));
    }

    #[test]
    fn an_imported_secret_must_have_the_models_shape() {
        let strong = random::client_secret();
        let json = json!({"oauth": {"clientid": "sb-1!b2|it-rt-x!b3", "clientsecret": strong.expose_secret()}});
        assert!(Foreign::parse(&json).is_ok());
        let weak = json!({"clientid": "sb-1", "clientsecret": "password"});
        assert_eq!(Foreign::parse(&weak).err(), Some(ImportError::WeakSecret));
        assert_eq!(Foreign::parse(&json!({"a": 1})).err(), Some(ImportError::NotAKey));
    }
}
