//! Client certificates that a load balancer puts into a header: Envoy's `X-Forwarded-Client-Cert`,
//! `Client-Cert` with `Client-Cert-Chain` (RFC 9440), and PEM or base64 in a header of any other
//! name, as nginx, HAProxy and Traefik write it. Pure; who is believed is decided elsewhere.

use crate::crypto::x509::{self, CertificateError};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use rustls_pki_types::CertificateDer;
use sfv::{Item, List, ListEntry, Parser};

const XFCC: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
const CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");

/// Where a listener's proxies put their callers' certificates. The name decides the form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateHeader(HeaderName);

/// Why a certificate header is no good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    #[error("the header {0} is there twice")]
    Twice(HeaderName),
    #[error("the header {0} tells of several callers; have the proxy replace it, not add to it")]
    Several(HeaderName),
    #[error("the header {0} names no certificate; have the proxy send the whole certificate (Cert)")]
    NoCertificate(HeaderName),
    #[error("the header {0} cannot be read: {1}")]
    Unreadable(HeaderName, String),
}

impl CertificateHeader {
    pub fn new(name: HeaderName) -> Self {
        Self(name)
    }

    pub fn name(&self) -> &HeaderName {
        &self.0
    }

    /// What stands for the certificate, to know it again by; None if the caller showed none.
    pub fn raw(&self, headers: &HeaderMap) -> Result<Option<Vec<u8>>, BadHeader> {
        let Some(value) = one(headers, &self.0)? else { return Ok(None) };
        let mut raw = value.as_bytes().to_vec();
        if self.0 == CLIENT_CERT {
            for part in headers.get_all(CLIENT_CERT_CHAIN) {
                raw.push(b'\n');
                raw.extend_from_slice(part.as_bytes());
            }
        }
        Ok(Some(raw))
    }

    /// The chain, leaf first.
    pub fn chain(&self, headers: &HeaderMap) -> Result<Vec<CertificateDer<'static>>, BadHeader> {
        let unreadable = |why: String| BadHeader::Unreadable(self.0.clone(), why);
        let value = one(headers, &self.0)?.ok_or_else(|| BadHeader::NoCertificate(self.0.clone()))?;
        let text = value.to_str().map_err(|error| unreadable(error.to_string()))?;
        if self.0 == XFCC {
            return envoy(text);
        }
        if self.0 == CLIENT_CERT {
            return rfc9440(text, headers).map_err(unreadable);
        }
        loose(text).map_err(|error| unreadable(error.to_string()))
    }
}

/// The one value of a field. What proxies write for "no certificate" counts as none.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, BadHeader> {
    let mut values = headers.get_all(name).iter();
    let (first, second) = (values.next(), values.next());
    if second.is_some() {
        return Err(BadHeader::Twice(name.clone()));
    }
    Ok(first.filter(|value| !matches!(value.as_bytes(), b"" | b"\"\"" | b"-" | b"(null)")))
}

/// `By=..;Hash=..;Cert="..";Chain="..";Subject="..",` one element per hop; the certificate is
/// percent-encoded PEM.
fn envoy(text: &str) -> Result<Vec<CertificateDer<'static>>, BadHeader> {
    let unreadable = |why: &str| BadHeader::Unreadable(XFCC, why.to_owned());
    let elements = outside_quotes(text, ',').ok_or_else(|| unreadable("a quotation mark is not closed"))?;
    let [element] = elements.as_slice() else { return Err(BadHeader::Several(XFCC)) };
    let (mut leaf, mut chain) = (None, None);
    for pair in outside_quotes(element, ';').unwrap_or_default() {
        let (key, value) = pair.split_once('=').ok_or_else(|| unreadable("an entry has no `=`"))?;
        let value = value.trim().trim_matches('"');
        let slot = match key.trim().to_ascii_lowercase().as_str() {
            "cert" => &mut leaf,
            "chain" => &mut chain,
            _ => continue,
        };
        if slot.replace(value).is_some() {
            return Err(unreadable("an entry is there twice"));
        }
    }
    let pem = |text: &str| loose(text).map_err(|error| unreadable(&error.to_string()));
    let leaf = pem(leaf.ok_or(BadHeader::NoCertificate(XFCC))?)?;
    let [leaf] = leaf.as_slice() else { return Err(unreadable("Cert holds more than one certificate")) };
    let mut out = vec![leaf.clone()];
    // Envoy's Chain begins with the leaf again
    if let Some(chain) = chain {
        out.extend(pem(chain)?.into_iter().filter(|one| one != leaf));
    }
    Ok(out)
}

fn outside_quotes(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut out, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c if c == separator && !quoted => {
                out.push(&text[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    (!quoted).then_some(out)
}

/// Byte sequences of structured fields (RFC 9440, 2.2 and 2.3).
fn rfc9440(text: &str, headers: &HeaderMap) -> Result<Vec<CertificateDer<'static>>, String> {
    let not_bytes = || "it is no byte sequence, written :base64:".to_owned();
    let item: Item = Parser::new(text).parse().map_err(|error| error.to_string())?;
    let leaf = item.bare_item.as_byte_sequence().ok_or_else(not_bytes)?;
    let mut out = vec![CertificateDer::from(leaf.to_vec())];
    let parts: Result<Vec<_>, _> = headers.get_all(CLIENT_CERT_CHAIN).iter().map(HeaderValue::to_str).collect();
    let chain = parts.map_err(|error| error.to_string())?.join(",");
    if chain.is_empty() {
        return Ok(out);
    }
    let list: List = Parser::new(&chain).parse().map_err(|error| error.to_string())?;
    for entry in &list {
        let ListEntry::Item(item) = entry else { return Err(not_bytes()) };
        out.push(CertificateDer::from(item.bare_item.as_byte_sequence().ok_or_else(not_bytes)?.to_vec()));
    }
    Ok(out)
}

/// Percent-encoded or plain, PEM or bare base64 with commas between certificates.
fn loose(text: &str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let text = percent_decode_str(text.trim_matches('"')).decode_utf8().map_err(|_| CertificateError::NotPem)?;
    if text.contains("-----BEGIN") {
        return x509::uploaded(&text);
    }
    let decode = |part: &str| {
        let base64: String = part.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        STANDARD.decode(base64).map(CertificateDer::from).map_err(|_| CertificateError::NotPem)
    };
    text.split(',').map(decode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::ca::{Subject, Validity, authority};
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    struct Made {
        pem: String,
        der: CertificateDer<'static>,
    }

    fn made(name: &str) -> Made {
        let subject = Subject { organization: "x", unit: None, common_name: name };
        let pem = authority(&subject, Validity::days(0, 1)).expect("made").certificate;
        let der = x509::chain(&pem).expect("one")[0].clone();
        Made { pem, der }
    }

    fn encoded(text: &str) -> String {
        utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
    }

    fn read(name: &'static str, values: &[(&'static str, String)]) -> Result<Vec<CertificateDer<'static>>, BadHeader> {
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(*name, HeaderValue::try_from(value).expect("a value"));
        }
        CertificateHeader::new(HeaderName::from_static(name)).chain(&headers)
    }

    #[test]
    fn every_proxys_form_is_read() {
        let (leaf, ca) = (made("leaf"), made("ca"));
        let (b64, b64_ca) = (STANDARD.encode(&leaf.der), STANDARD.encode(&ca.der));
        let both = encoded(&format!("{}{}", leaf.pem, ca.pem));
        let envoy = format!(
            "By=spiffe://a;Hash=00;Cert=\"{}\";Chain=\"{both}\";Subject=\"CN=a,O=\\\"b\\\";x\"",
            encoded(&leaf.pem)
        );
        let chain = || vec![leaf.der.clone(), ca.der.clone()];
        for (name, values, want) in [
            ("x-forwarded-client-cert", vec![("x-forwarded-client-cert", envoy)], chain()),
            (
                "x-forwarded-client-cert",
                vec![("x-forwarded-client-cert", format!("cert={}", encoded(&leaf.pem)))],
                vec![leaf.der.clone()],
            ),
            (
                "client-cert",
                vec![("client-cert", format!(":{b64}:")), ("client-cert-chain", format!(":{b64_ca}:"))],
                chain(),
            ),
            ("client-cert", vec![("client-cert", format!(":{b64}:"))], vec![leaf.der.clone()]),
            ("ssl-client-cert", vec![("ssl-client-cert", encoded(&leaf.pem))], vec![leaf.der.clone()]),
            ("x-ssl-cert", vec![("x-ssl-cert", b64.clone())], vec![leaf.der.clone()]),
            ("x-ssl-cert", vec![("x-ssl-cert", format!("\"{b64}\""))], vec![leaf.der.clone()]),
            ("x-tls", vec![("x-tls", format!("{b64},{b64_ca}"))], chain()),
            ("x-tls", vec![("x-tls", leaf.pem.replace('\n', " "))], vec![leaf.der.clone()]),
        ] {
            assert_eq!(read(name, &values), Ok(want), "{values:?}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_or_not_at_all_is_refused() {
        let cert = encoded(&made("leaf").pem);
        let xfcc = |value: String| read("x-forwarded-client-cert", &[("x-forwarded-client-cert", value)]);
        assert!(matches!(xfcc(format!("Cert={cert},Cert={cert}")), Err(BadHeader::Several(_))));
        assert!(matches!(xfcc("Hash=00;Subject=\"CN=a\"".into()), Err(BadHeader::NoCertificate(_))));
        for bad in [
            format!("Cert={cert};Cert={cert}"),
            "Cert=\"x".into(),
            "Cert".into(),
            "Cert=%FF".into(),
            "Cert=AAA!".into(),
        ] {
            assert!(matches!(xfcc(bad.clone()), Err(BadHeader::Unreadable(..))), "{bad}");
        }
        let twice = [("x-tls", cert.clone()), ("x-tls", cert)];
        assert!(matches!(read("x-tls", &twice), Err(BadHeader::Twice(_))));
        for bad in ["text", ":!!:", "1", ":AA==:, :AA==:"] {
            assert!(read("client-cert", &[("client-cert", bad.to_owned())]).is_err(), "{bad}");
        }
        let list = [("client-cert", ":AA==:".to_owned()), ("client-cert-chain", "(:AA==:)".to_owned())];
        assert!(read("client-cert", &list).is_err());
    }

    #[test]
    fn no_certificate_is_none() {
        let header = CertificateHeader::new(HeaderName::from_static("x-tls"));
        for value in ["", "\"\"", "-", "(null)"] {
            let headers: HeaderMap =
                [(HeaderName::from_static("x-tls"), HeaderValue::from_static(value))].into_iter().collect();
            assert_eq!(header.raw(&headers), Ok(None), "{value}");
        }
        assert_eq!(header.raw(&HeaderMap::new()), Ok(None));
    }

    proptest! {
        #[test]
        fn no_header_text_panics(text in "[ -~]{0,80}", name in 0..3usize) {
            let name = ["x-forwarded-client-cert", "client-cert", "x-tls"][name];
            let _ = read(name, &[(name, text)]);
        }
    }
}
