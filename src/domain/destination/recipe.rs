//! The token request of a lookup: what is asked of a destination's token service, and the key under
//! which the answer may be kept.

use super::directory::Item;
use super::meaning::{Destination, Keystore, TokenService};
use super::properties::Properties;
use crate::crypto::digest::{Digest, sha256};
use crate::crypto::identity::{Identity, IdentityError};
use crate::crypto::x509;
use crate::domain::artifact::{Authentication, BasicEncoding, ContentType, Part, Secrets};
use crate::domain::exchange::{Ask, BadRequest, Client, Parts, TokenRequest};
use crate::domain::target::{BadTarget, Target};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;

/// Everything that it takes to get one token.
pub struct Errand {
    pub target: Target,
    pub request: TokenRequest,
    pub identity: Option<Identity>,
    /// CAs that count besides the system's and the configuration's.
    pub cas: Vec<CertificateDer<'static>>,
    /// What must not come back in what is told of a failure.
    pub secrets: Secrets,
    /// Seconds.
    pub connect: u64,
    /// Seconds.
    pub answer: u64,
    /// Through the connectivity proxy, to this location.
    pub on_premise: Option<Option<String>>,
}

#[derive(Debug, thiserror::Error)]
pub enum NoErrand {
    #[error("there is no certificate `{0}` on this level; store it first")]
    NoCertificate(String),
    #[error("certificate `{0}`: {1}")]
    Certificate(String, IdentityError),
    #[error("certificate `{0}` is not base64")]
    NotBase64(String),
    #[error("tokenServiceURL: {0}")]
    Target(#[from] BadTarget),
    #[error(transparent)]
    Request(#[from] BadRequest),
    #[error("the destination has no token service")]
    NoService,
    #[error("clientSecret is missing, and neither a certificate nor a client assertion takes its place")]
    NoSecret,
}

/// The grant of a lookup, with what the caller brought for it.
pub enum Wanted {
    ClientCredentials,
    Password,
    Refresh(SecretString),
    Code { code: SecretString, redirect_uri: Option<String>, verifier: Option<SecretString> },
}

/// What a lookup adds to a destination's own words.
pub struct Terms {
    pub wanted: Wanted,
    pub subdomain: String,
    /// Type and value of a client assertion.
    pub assertion: Option<(String, SecretString)>,
    pub keystore: Option<Arc<Item>>,
    pub trust: Option<Arc<Item>>,
}

impl Terms {
    /// Of everything that changes the answer. `facts` digests the destination's properties.
    pub fn key(&self, facts: &Digest) -> Digest {
        let mut text = facts.to_vec();
        let mut add = |part: &[u8]| {
            text.extend_from_slice(&(part.len() as u64).to_be_bytes());
            text.extend_from_slice(part);
        };
        add(self.subdomain.as_bytes());
        match &self.wanted {
            Wanted::ClientCredentials | Wanted::Password => add(b""),
            Wanted::Refresh(token) => add(token.expose_secret().as_bytes()),
            Wanted::Code { code, redirect_uri, verifier } => {
                add(code.expose_secret().as_bytes());
                add(redirect_uri.as_deref().unwrap_or_default().as_bytes());
                add(verifier.as_ref().map_or("", |text| text.expose_secret()).as_bytes());
            }
        }
        let assertion = self.assertion.as_ref();
        let (kind, assertion) = assertion.map_or(("", ""), |(kind, value)| (kind.as_str(), value.expose_secret()));
        add(kind.as_bytes());
        add(assertion.as_bytes());
        for item in [&self.keystore, &self.trust] {
            add(item.as_ref().map_or(&[], |item| &item.facts.digest));
        }
        sha256(&text)
    }

    /// Whether the answer may be kept: a code is good for one.
    pub fn kept(&self) -> bool {
        !matches!(self.wanted, Wanted::Code { .. })
    }

    /// The request, byte for byte, and how it is sent.
    pub fn errand(&self, destination: &Destination, now: i64) -> Result<Errand, NoErrand> {
        let service = destination.service().ok_or(NoErrand::NoService)?;
        let target = service.target(&self.subdomain)?;
        let mut parts = Parts::of(self.ask(destination)?);
        if let Some(scope) = &service.scope {
            parts.put("scope", scope);
        }
        let secrets = self.secrets(destination, service);
        let (id, mut identity) = (&service.client_id, None);
        match (&self.assertion, self.keystore.as_deref().zip(service.keystore.as_ref()), &service.client_secret) {
            (Some((kind, assertion)), ..) => parts.assert(id, kind, assertion.expose_secret()),
            (None, Some((item, keystore)), _) => {
                identity = Some(open(item, keystore)?);
                parts.put("client_id", id);
            }
            (None, None, None) => return Err(NoErrand::NoSecret),
            (None, None, Some(_)) => {
                // one Authorization header is all that there is room for
                let body = service.in_body || service.login.is_some();
                let authentication = if body { Authentication::Body } else { Authentication::Header };
                let client = Client { id, authentication, basic_encoding: BasicEncoding::Form, token_url: &target };
                parts.authenticate(&client, &secrets, "", now)?;
            }
        }
        if let Some((user, password)) = &service.login {
            parts.basic(user, password.expose_secret())?;
        }
        for (part, name, value) in &service.custom {
            match part {
                // the operator's word on a parameter of ours wins
                Part::Body => parts.set(name, value.expose_secret()),
                _ => parts.send(*part, name, value.expose_secret())?,
            }
        }
        let cas = match self.trust.as_deref().zip(destination.trust.as_ref()) {
            Some((item, keystore)) => authorities(item, keystore)?,
            None => Vec::new(),
        };
        let request = parts.assemble(&target, ContentType::Form);
        let (connect, answer, on_premise) = (service.connect, service.answer, service.on_premise.clone());
        Ok(Errand { target, request, identity, cas, secrets, connect, answer, on_premise })
    }

    fn ask<'a>(&'a self, destination: &'a Destination) -> Result<Ask<'a>, NoErrand> {
        Ok(match &self.wanted {
            Wanted::ClientCredentials => Ask::ClientCredentials,
            Wanted::Password => {
                let (user, password) = destination.login.as_ref().ok_or(NoErrand::NoService)?;
                Ask::Password { user, password }
            }
            Wanted::Refresh(token) => Ask::Refresh { token },
            Wanted::Code { code, redirect_uri, verifier } => {
                Ask::Code { code, redirect_uri: redirect_uri.as_deref(), verifier: verifier.as_ref() }
            }
        })
    }

    fn secrets(&self, destination: &Destination, service: &TokenService) -> Secrets {
        let mut custom: Vec<_> = service.custom.iter().map(|(_, _, value)| value.clone()).collect();
        custom.extend(self.assertion.as_ref().map(|(_, value)| value.clone()));
        custom.extend(service.login.as_ref().map(|(_, password)| password.clone()));
        custom.extend(destination.login.as_ref().map(|(_, password)| password.clone()));
        match &self.wanted {
            Wanted::ClientCredentials | Wanted::Password => {}
            Wanted::Refresh(token) => custom.push(token.clone()),
            Wanted::Code { code, verifier, .. } => {
                custom.extend([Some(code), verifier.as_ref()].into_iter().flatten().cloned());
            }
        }
        Secrets { client_secret: service.client_secret.clone(), custom, ..Secrets::default() }
    }
}

/// The bytes of a certificate entry.
pub fn content(properties: &Properties) -> Option<Vec<u8>> {
    let text: String = properties.get("Content")?.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(text).ok()
}

fn file(item: &Item) -> Result<Vec<u8>, NoErrand> {
    content(&item.properties).ok_or_else(|| NoErrand::NotBase64(item.name.clone()))
}

fn open(item: &Item, keystore: &Keystore) -> Result<Identity, NoErrand> {
    let bytes = file(item)?;
    let opened = if keystore.packed() {
        Identity::from_p12(&bytes, &keystore.secret())
    } else {
        let text = SecretString::from(String::from_utf8_lossy(&bytes).into_owned());
        Identity::from_pem(text.expose_secret(), &text)
    };
    opened.map_err(|error| NoErrand::Certificate(item.name.clone(), error))
}

fn authorities(item: &Item, keystore: &Keystore) -> Result<Vec<CertificateDer<'static>>, NoErrand> {
    let bytes = file(item)?;
    let bad = |error| NoErrand::Certificate(item.name.clone(), error);
    if keystore.packed() {
        return Identity::authorities_from_p12(&bytes, &keystore.secret()).map_err(bad);
    }
    // a single certificate may come as DER
    match std::str::from_utf8(&bytes) {
        Ok(text) => x509::chain(text).map_err(|error| bad(error.into())),
        Err(_) => Ok(vec![CertificateDer::from(bytes)]),
    }
}
