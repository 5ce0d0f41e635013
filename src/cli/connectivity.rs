//! `connectivity-test`: what a TLS server shows to those who connect, and the certificates that a
//! sender must import to trust it.

use super::run::{now, read};
use super::{ConnectivityTest, Failure, Outcome, output};
use crate::crypto::digest::hex;
use crate::crypto::identity::Identity;
use crate::crypto::keyring::pem;
use crate::crypto::x509::Certificate;
use crate::domain::key::model_time;
use crate::net::probe::{self, Seen};
use rustls_pki_types::CertificateDer;
use secrecy::SecretString;
use std::fmt::Write;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use zip::write::SimpleFileOptions;

const PORT: u16 = 443;

pub async fn run(test: ConnectivityTest) -> Outcome {
    let (host, port) = target(&test.target)?;
    let auth = client(test.client_certificate.as_deref(), test.client_key.as_deref())?;
    let with_client = auth.is_some();
    let seen = probe::probe(host, port, auth).await?;
    let roots = rustls_native_certs::load_native_certs().certs;
    let chain = seen.chain.iter().map(Certificate::from_der).collect::<Result<Vec<_>, _>>()?;
    let root = completing(&chain, &roots);
    let named = seen.chain.first().map_or(Err("no certificate was sent".to_owned()), |leaf| probe::named(leaf, host));
    let trusted = probe::trusted(&seen.chain, &roots, now());
    let mut told = String::new();
    report(&mut told, &test.target, &seen, &chain, with_client);
    let fine =
        |verdict: &Result<(), String>| verdict.as_ref().map_or_else(|why| format!("no: {why}"), |()| "yes".into());
    let _ = writeln!(told, "valid for {host}: {}", fine(&named));
    let _ = writeln!(told, "trusted by this system: {}", fine(&trusted));
    let _ = writeln!(told, "root: {}", root_text(&chain, root.as_ref()));
    output::print(&told)?;
    if let Some(path) = &test.out {
        save(path, &chain, root.as_ref())?;
        output::print(&format!("written: {}\n", path.display()))?;
    }
    if let Some(why) = seen.refused {
        return Err(Failure::text(format!("the server refused the client certificate: {why}")));
    }
    match named.and(trusted) {
        Err(why) if !test.no_verify => Err(Failure::text(format!("the server's certificate is not valid here: {why}"))),
        _ => Ok(()),
    }
}

/// A bare host name, with a port if it is not 443.
fn target(text: &str) -> Result<(&str, u16), Failure> {
    let shape = || Failure::text(format!("`{text}` is no host: write HOST or HOST:PORT, without scheme and path"));
    if text.contains('/') {
        return Err(shape());
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().map_err(|_| shape())?),
        _ => (text, PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() { Err(shape()) } else { Ok((host, port)) }
}

fn client(certificate: Option<&Path>, key: Option<&Path>) -> Result<Option<Identity>, Failure> {
    let (Some(certificate), Some(key)) = (certificate, key) else { return Ok(None) };
    let identity = Identity::from_pem(&read(certificate)?, &SecretString::from(read(key)?));
    let shown = |error| Failure::text(format!("{} with {}: {error}", certificate.display(), key.display()));
    Ok(Some(identity.map_err(shown)?))
}

fn report(text: &mut String, target: &str, seen: &Seen, chain: &[Certificate], with_client: bool) {
    let _ = writeln!(text, "{target} is reachable: {}, {}", seen.version, seen.cipher);
    let asked = match (seen.asked, with_client, &seen.refused) {
        (false, ..) => "not asked for",
        (true, false, _) => "asked for, none was sent",
        (true, true, Some(_)) => "sent and refused",
        (true, true, None) => "sent and taken",
    };
    let _ = writeln!(text, "client certificate: {asked}");
    for (at, one) in chain.iter().enumerate() {
        let usages = usages(one);
        let _ = writeln!(
            text,
            "certificate {}\n  subject      {}\n  issuer       {}\n  valid        {} to {}\n  key          {}\n  usages       {}\n  fingerprint  {}",
            at + 1,
            one.subject,
            one.issuer,
            model_time(one.not_before),
            model_time(one.not_after),
            one.key.kind,
            usages,
            hex(&one.fingerprint),
        );
    }
}

pub(super) fn usages(one: &Certificate) -> String {
    let usages = one.usages;
    let possible = [
        (one.is_ca, "CA"),
        (usages.digital_signature == Some(true), "digitalSignature"),
        (usages.key_cert_sign == Some(true), "keyCertSign"),
        (usages.server_auth == Some(true), "serverAuth"),
        (usages.client_auth == Some(true), "clientAuth"),
    ];
    let names: Vec<_> = possible.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect();
    if names.is_empty() { "not restricted".into() } else { names.join(", ") }
}

/// The root that the system knows for a chain that does not bring one.
fn completing(chain: &[Certificate], roots: &[CertificateDer<'static>]) -> Option<Certificate> {
    let top = top(chain)?;
    if top.self_issued() {
        return None;
    }
    let read = roots.iter().filter_map(|root| Certificate::from_der(root).ok());
    read.into_iter().find(|root| top.issued_by(root))
}

fn top(chain: &[Certificate]) -> Option<&Certificate> {
    let mut at = chain.first()?;
    for _ in chain {
        match chain.iter().find(|one| one.subject_der == at.issuer_der && !at.self_issued()) {
            Some(above) => at = above,
            None => break,
        }
    }
    Some(at)
}

fn root_text(chain: &[Certificate], found: Option<&Certificate>) -> String {
    match (top(chain), found) {
        (Some(top), _) if top.self_issued() => {
            format!("{} (sent by the server; this is what a sender imports)", top.subject)
        }
        (Some(_), Some(root)) => format!("{} (not sent; this system has it)", root.subject),
        (Some(top), None) => {
            format!("{} was not sent, and this system does not have it; ask the server's operator for it", top.issuer)
        }
        (None, _) => "none".into(),
    }
}

/// One PEM file a certificate, named by its place and subject.
fn save(path: &Path, chain: &[Certificate], root: Option<&Certificate>) -> Outcome {
    let failed = |error: zip::result::ZipError| Failure::text(format!("{} cannot be written: {error}", path.display()));
    let mut archive = zip::ZipWriter::new(File::create(path)?);
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (at, one) in chain.iter().chain(root).enumerate() {
        let word = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        let name = one.subject.split(',').next().unwrap_or_default().trim_start_matches("CN=");
        let name: String = name.chars().take(64).map(word).collect();
        let root = if one.self_issued() { "-root" } else { "" };
        archive.start_file(format!("{}-{name}{root}.cer", at + 1), stored).map_err(failed)?;
        archive.write_all(pem("CERTIFICATE", &one.der).as_bytes())?;
    }
    archive.finish().map_err(failed)?;
    Ok(())
}
