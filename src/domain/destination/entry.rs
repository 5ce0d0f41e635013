//! Entries as they are given: checked by their sort before anything is stored.

use super::meaning::{BadDestination, Destination};
use super::properties::{BadProperties, Properties};
use super::recipe::content;
use super::{Level, Sort};
use crate::crypto::identity::{Identity, IdentityError};
use crate::crypto::keyring::pem;
use crate::crypto::x509::{self, Certificate};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use secrecy::SecretString;
use serde_json::Value;

/// Entries of one sort and level.
pub const MOST_ENTRIES: usize = 1_000;

/// An entry that may be stored, with what is odd about it.
#[derive(Debug)]
pub struct Checked {
    pub name: String,
    pub properties: Properties,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    #[error(transparent)]
    Properties(#[from] BadProperties),
    #[error(transparent)]
    Destination(#[from] BadDestination),
    #[error("a certificate's Name ends in .pem, .crt, .cer, .p12 or .pfx")]
    Ending,
    #[error(
        "a Java keystore (.jks) cannot be read; convert it: keytool -importkeystore -srckeystore {0} -destkeystore {1}.p12 -deststoretype PKCS12"
    )]
    Jks(String, String),
    #[error("Content must be the file in base64")]
    Content,
    #[error("this is no PKCS#12 file")]
    Container,
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(
        "destination `{name}` (level {level}) is where `{by}` takes its client assertions from; change that one first"
    )]
    Used { name: String, level: Level, by: String },
    #[error("clientAssertion.destinationName is the destination itself")]
    OwnProvider,
    #[error("there are {MOST_ENTRIES} entries of this sort and level already, and no more are kept")]
    TooMany,
    #[error("securityMaterial is for the operator to set: flowgate destination put")]
    OperatorsOwn,
}

impl Checked {
    /// As a program may store it. A credential that an operator has deployed is not for every program
    /// to take a token of.
    pub fn of_program(sort: Sort, json: &Value) -> Result<Self, BadEntry> {
        let checked = Self::parse(sort, json)?;
        match checked.properties.get("securityMaterial") {
            Some(_) => Err(BadEntry::OperatorsOwn),
            None => Ok(checked),
        }
    }

    pub fn parse(sort: Sort, json: &Value) -> Result<Self, BadEntry> {
        let properties = Properties::parse(json, sort)?;
        let name = properties.get(sort.name_property()).unwrap_or_default().to_owned();
        let warnings = match sort {
            Sort::Fragment => Vec::new(),
            Sort::Certificate => {
                certificate(&name, &properties)?;
                Vec::new()
            }
            Sort::Destination => {
                if properties.get("clientAssertion.destinationName") == Some(name.as_str()) {
                    return Err(BadEntry::OwnProvider);
                }
                Destination::read(&properties)?.1
            }
        };
        Ok(Self { name, properties, warnings })
    }
}

fn certificate(name: &str, properties: &Properties) -> Result<(), BadEntry> {
    let (stem, ending) = name.rsplit_once('.').unwrap_or((name, ""));
    let ending = ending.to_ascii_lowercase();
    if ending == "jks" {
        return Err(BadEntry::Jks(name.to_owned(), stem.to_owned()));
    }
    let bytes = content(properties).filter(|bytes| !bytes.is_empty()).ok_or(BadEntry::Content)?;
    match ending.as_str() {
        // its password comes with the destination that uses it
        "p12" | "pfx" if bytes.first() == Some(&0x30) => Ok(()),
        "p12" | "pfx" => Err(BadEntry::Container),
        "pem" | "crt" | "cer" => {
            let Ok(text) = std::str::from_utf8(&bytes) else {
                let der = CertificateDer::from(bytes);
                return Certificate::from_der(&der).map(drop).map_err(|error| IdentityError::from(error).into());
            };
            let chain = x509::chain(text).map_err(IdentityError::from)?;
            chain.iter().try_for_each(|der| Certificate::from_der(der).map(drop)).map_err(IdentityError::from)?;
            if text.contains("PRIVATE KEY-----") {
                Identity::from_pem(text, &SecretString::from(text))?;
            }
            Ok(())
        }
        _ => Err(BadEntry::Ending),
    }
}

/// A certificate entry without what only its owner may have: a private key, or a file that may hold
/// one.
pub fn public(properties: &Properties) -> Properties {
    let bytes = content(properties).unwrap_or_default();
    let chain = std::str::from_utf8(&bytes).ok().and_then(|text| x509::chain(text).ok());
    let own = chain.map(|chain| STANDARD.encode(chain.iter().map(|der| pem("CERTIFICATE", der)).collect::<String>()));
    properties.masked().with("Content", own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::ca::{self, Subject, Validity};
    use secrecy::ExposeSecret;
    use serde_json::json;

    fn stored(name: &str, bytes: &[u8]) -> Result<Checked, BadEntry> {
        Checked::parse(Sort::Certificate, &json!({ "Name": name, "Content": STANDARD.encode(bytes) }))
    }

    #[test]
    fn certificates_are_read_before_they_are_stored() {
        let subject = |common_name| Subject { organization: "x", unit: None, common_name };
        let one = ca::authority(&subject("one"), Validity::days(0, 9)).expect("made");
        let other = ca::authority(&subject("other"), Validity::days(0, 9)).expect("made");
        let with = |key: &SecretString| format!("{}{}", one.certificate, key.expose_secret());
        let checked = stored("a.pem", with(&one.key).as_bytes()).expect("fits");
        let shown = public(&checked.properties);
        let shown = content(&shown).expect("the certificate");
        assert_eq!(String::from_utf8(shown).expect("text").trim(), one.certificate.trim());
        for (name, bytes, says) in [
            ("a.pem", with(&other.key).into_bytes(), "do not belong together"),
            ("a.pem", b"nothing".to_vec(), "BEGIN CERTIFICATE"),
            ("a.pem", Vec::new(), "base64"),
            ("a.p12", b"nothing".to_vec(), "PKCS#12"),
            ("a.jks", b"\xfe\xed\xfe\xed".to_vec(), "keytool -importkeystore -srckeystore a.jks -destkeystore a.p12"),
            ("a.txt", b"x".to_vec(), "ends in"),
        ] {
            let error = stored(name, &bytes).expect_err("refused").to_string();
            assert!(error.contains(says), "{name}: {error}");
        }
    }

    #[test]
    fn a_keystore_is_never_shown() {
        let checked = stored("a.p12", &[0x30, 0x82, 1, 2]).expect("taken");
        assert_eq!(public(&checked.properties).get("Content"), None);
    }
}
