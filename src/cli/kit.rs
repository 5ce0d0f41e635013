//! The sender's kit: a new service key with all that its holder needs to call, as files that work
//! as they stand. What is secret is for the owner alone.

use super::{Failure, Outcome, postman};
use crate::config::Config;
use crate::crypto::keyring::pem;
use crate::crypto::random;
use crate::crypto::x509::{self, Certificate};
use crate::domain::route::Authorization;
use p12_keystore::{
    Certificate as P12Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey,
    PrivateKeyChain,
};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

const SECRET: u32 = 0o600;
const SCRIPT: u32 = 0o700;
const PUBLIC: u32 = 0o644;

pub fn write(config: &Config, shown: &Value, dir: &Path) -> Outcome {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let members = shown.get("oauth").unwrap_or(shown);
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    file(dir, "service-key.json", &format!("{shown:#}\n"), SECRET)?;
    if let Some(root) = server_root(config) {
        file(dir, "server-root.pem", &pem("CERTIFICATE", &root.der), PUBLIC)?;
    }
    if let Some(chain) = text("certificate") {
        file(dir, "certificate.pem", chain, PUBLIC)?;
    }
    if let (Some(chain), Some(key)) = (text("certificate"), text("key")) {
        file(dir, "key.pem", key, SECRET)?;
        let password = random::uuid();
        bytes(dir, "sender.p12", &pkcs12(chain, key, &password)?, SECRET)?;
        file(dir, "sender.p12.password", &format!("{password}\n"), SECRET)?;
    }
    let id = text("clientid").unwrap_or_default();
    let credentials = match text("clientsecret") {
        Some(secret) => format!("user = \"{}\"\n", quoted(&format!("{id}:{secret}"))),
        // the key of an external certificate stays with its owner, who puts it beside
        None => format!(
            "cert = \"certificate.pem\"\nkey = \"key.pem\"\ndata-urlencode = \"{}\"\n",
            quoted(&format!("client_id={id}"))
        ),
    };
    file(dir, "sender.curl", &credentials, SECRET)?;
    let origin = if text("clientsecret").is_some() { &config.origin.url } else { config.origin.for_certificates() };
    file(dir, "call.sh", &script(config, origin), SCRIPT)?;
    postman::write_files(config, &dir.join("service-key.json"), dir)
}

/// The certificate that a sender must trust: the top of the server's chain, or the system's root
/// above it.
fn server_root(config: &Config) -> Option<Certificate> {
    let chain = config.listeners.iter().find_map(|listener| listener.tls.as_ref()).map(|tls| &tls.identity.chain)?;
    let top = Certificate::from_der(chain.last()?).ok()?;
    if top.self_issued() {
        return Some(top);
    }
    let roots = rustls_native_certs::load_native_certs().certs;
    roots.iter().filter_map(|root| Certificate::from_der(root).ok()).find(|root| top.issued_by(root))
}

fn pkcs12(chain: &str, key: &str, password: &str) -> Result<Vec<u8>, Failure> {
    let failed = |error: p12_keystore::error::Error| Failure::text(format!("the PKCS#12 file cannot be made: {error}"));
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| Failure::text(error.to_string()))?;
    let key = PrivateKey::from_der(key.secret_der()).map_err(failed)?;
    let chain: Result<Vec<_>, _> = x509::chain(chain)?.iter().map(|der| P12Certificate::from_der(der)).collect();
    let mut store = KeyStore::new();
    let entry = PrivateKeyChain::new(random::bytes::<20>().to_vec(), key, chain.map_err(failed)?);
    store.add_entry("sender", KeyStoreEntry::PrivateKeyChain(entry));
    let writer = store.writer(password).encryption_algorithm(EncryptionAlgorithm::PbeWithHmacSha256AndAes256);
    writer.mac_algorithm(MacAlgorithm::HmacSha256).write().map_err(failed)
}

/// Gets a token and calls a path with it. Neither secret nor token is an argument of any process.
fn script(config: &Config, origin: &str) -> String {
    let route = config.routes.iter().find(|route| matches!(route.authorization, Authorization::UserRole(_)));
    let path =
        route.map_or_else(|| "/".to_owned(), |route| route.pattern.to_string().trim_end_matches("/*").to_owned());
    let url = origin.replace('\'', "'\\''");
    format!(
        r#"#!/bin/sh
# Gets an access token and calls a path with it: ./call.sh [PATH] [more curl arguments]
set -eu
cd "$(dirname "$0")"
path=${{1:-{path}}}
[ $# -gt 0 ] && shift
[ -f server-root.pem ] && trust=server-root.pem || trust=
answer=$(curl -sS ${{trust:+--cacert "$trust"}} -K sender.curl -d grant_type=client_credentials '{url}/oauth/token')
token=$(printf '%s' "$answer" | sed -n 's/.*"access_token":"\([^"]*\)".*/\1/p')
[ -n "$token" ] || {{ printf 'no token: %s\n' "$answer" >&2; exit 1; }}
printf 'header = "Authorization: Bearer %s"\n' "$token" |
    curl -sS --fail-with-body ${{trust:+--cacert "$trust"}} -K - "$@" '{url}'"$path"
"#
    )
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

fn file(dir: &Path, name: &str, text: &str, mode: u32) -> Outcome {
    bytes(dir, name, text.as_bytes(), mode)
}

/// In place of what is there, and never readable for others in between.
fn bytes(dir: &Path, name: &str, bytes: &[u8], mode: u32) -> Outcome {
    let path = dir.join(name);
    let _ = std::fs::remove_file(&path);
    let mut out = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    Ok(out.write_all(bytes)?)
}
