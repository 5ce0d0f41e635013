//! `token get` and `token inspect`. Neither takes a token or a secret as an argument.

use super::run::{Opened, now, read, read_json};
use super::{Failure, Outcome, output};
use crate::crypto::identity::Identity;
use crate::crypto::jws::Compact;
use crate::crypto::x509;
use crate::domain::key::model_time;
use crate::domain::signing::SigningKeyRecord;
use crate::gateway::administer::signing;
use crate::net::client;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use secrecy::SecretString;
use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;
use url::Url;

/// A service key's members, whichever plan shaped it.
pub struct ServiceKey {
    members: Value,
}

impl ServiceKey {
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let json = read_json(path)?;
        let members = json.get("oauth").cloned().unwrap_or(json);
        if members.get("clientid").and_then(Value::as_str).is_none() {
            return Err(Failure::text(format!("{} is no service key: it has no clientid", path.display())));
        }
        Ok(Self { members })
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.members.get(name).and_then(Value::as_str)
    }

    pub fn token_url(&self) -> String {
        let base = || self.text("certurl").or(self.text("url")).unwrap_or_default();
        self.text("tokenurl").map_or_else(|| format!("{}/oauth/token", base()), str::to_owned)
    }

    fn identity(&self) -> Result<Option<Identity>, Failure> {
        let (Some(chain), Some(key), None) = (self.text("certificate"), self.text("key"), self.text("clientsecret"))
        else {
            return Ok(None);
        };
        let identity = Identity::from_pem(chain, &SecretString::from(key));
        Ok(Some(identity.map_err(|error| Failure::text(format!("the service key: {error}")))?))
    }
}

pub async fn get(key: &Path, cacert: Option<&Path>) -> Outcome {
    let key = ServiceKey::read(key)?;
    let url = Url::parse(&key.token_url())
        .map_err(|error| Failure::text(format!("the tokenurl `{}` is no address: {error}", key.token_url())))?;
    let cas = match cacert {
        Some(path) => x509::chain(&read(path)?)?,
        None => Vec::new(),
    };
    let id = key.text("clientid").unwrap_or_default();
    let mut request = Request::post(url.path()).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    if let Some(secret) = key.text("clientsecret") {
        request = request.header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(format!("{id}:{secret}"))));
    }
    let form: String = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "client_credentials")
        .append_pair("client_id", id)
        .finish();
    let (status, body) = client::send(&url, request.body(Full::new(Bytes::from(form)))?, &cas, key.identity()?).await?;
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    match answer.get("access_token").and_then(Value::as_str) {
        Some(token) if status.is_success() => output::print(&format!("{token}\n")),
        _ => {
            let said = answer.get("error_description").and_then(Value::as_str).unwrap_or("no OAuth answer");
            Err(Failure::text(format!("{url} answered {status}: {said}")))
        }
    }
}

/// Bytes of stdin that are read.
const MOST: u64 = 64 * 1024;

pub async fn inspect(config: &Path) -> Outcome {
    let mut token = String::new();
    std::io::stdin().take(MOST).read_to_string(&mut token)?;
    let compact = Compact::parse(token.trim())?;
    let opened = Opened::new(config).await?;
    let record = opened.store.get::<SigningKeyRecord>(&compact.kid).await?;
    let signature = match record {
        None => "signed by a key that this gateway does not have",
        Some(record) => {
            if signing::open(&opened.store, &record)?.verifies(&compact) {
                "valid"
            } else {
                "does not verify"
            }
        }
    };
    let time = |name: &str| compact.claims.get(name).and_then(Value::as_i64);
    let life = match time("exp") {
        Some(end) if end < now() => format!("ended at {}", model_time(end)),
        Some(end) => format!("ends at {}", model_time(end)),
        None => "has no end".to_owned(),
    };
    let header = json!({ "alg": compact.algorithm, "kid": compact.kid, "typ": compact.typ });
    output::json(&json!({ "header": header, "claims": compact.claims, "signature": signature, "life": life }))
}
