//! The framing of an HTTP/1.1 request, judged on its head as it came. The parser would resolve what
//! is ambiguous in its own way (RFC 9112, 2.2 and 6.3); another one in front of us or behind us may
//! resolve it in another, so it is refused.

use crate::domain::reason::Reason;
use http::{HeaderMap, HeaderValue, Method, Uri};

/// Judges a head that begins with its request line. Bytes that are not this request's head say
/// nothing about it.
pub fn judge(bytes: &[u8], method: &Method) -> Result<(), Reason> {
    // RFC 9112, 2.2: empty lines before the request line are ignored
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    let bytes = &bytes[start..];
    let named = bytes.strip_prefix(method.as_str().as_bytes()).is_some_and(|rest| rest.first() == Some(&b' '));
    if !named {
        return Ok(());
    }
    let (mut lengths, mut codings, mut at) = (0, 0, 0);
    while let Some(end) = memchr::memchr(b'\n', &bytes[at..]) {
        let line = &bytes[at..at + end];
        let Some(line) = line.strip_suffix(b"\r") else { return Err(Reason::FramingLine) };
        if line.is_empty() {
            break;
        }
        match line.first().map(u8::to_ascii_lowercase) {
            Some(b'c') if value(line, b"content-length").is_some() => lengths += 1,
            Some(b't') => {
                if let Some(coding) = value(line, b"transfer-encoding") {
                    codings += 1;
                    if !coding.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                        return Err(Reason::TransferCoding);
                    }
                }
            }
            _ => {}
        }
        at += end + 1;
    }
    if lengths + codings > 1 { Err(Reason::FramingLength) } else { Ok(()) }
}

/// Judges what the HTTP/2 library lets through: values that HTTP/1.1 would read otherwise, and a target
/// that names a user (RFC 9113, 8.2.1 and 8.3.1).
pub fn judge_http2(uri: &Uri, headers: &HeaderMap) -> Result<(), Reason> {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let padded = |value: &HeaderValue| blank(value.as_bytes().first()) || blank(value.as_bytes().last());
    let odd = uri.authority().is_some_and(|authority| {
        authority.as_str().contains('@')
            || (uri.path_and_query().is_some() && uri.scheme_str().is_none_or(str::is_empty))
    });
    if odd || headers.values().any(padded) {
        return Err(Reason::FieldMalformed);
    }
    Ok(())
}

/// What a line says, if it is of that field.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (field, rest) = line.split_at_checked(name.len())?;
    field.eq_ignore_ascii_case(name).then(|| rest.strip_prefix(b":"))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn judged(head: &str) -> Result<(), Reason> {
        judge(head.as_bytes(), &Method::POST)
    }

    #[test]
    fn what_can_be_framed_in_two_ways_is_refused() {
        for (fields, want) in [
            ("", Ok(())),
            ("Content-Length: 5\r\n", Ok(())),
            ("Transfer-Encoding: Chunked \r\n", Ok(())),
            ("X-Content-Length: 5\r\nContent-Length: 5\r\n", Ok(())),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Err(Reason::FramingLength)),
            ("content-length: 5\r\nTRANSFER-ENCODING: chunked\r\n", Err(Reason::FramingLength)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(Reason::FramingLength)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(Reason::TransferCoding)),
            ("Transfer-Encoding: identity\r\n", Err(Reason::TransferCoding)),
            ("A: b\nContent-Length: 5\r\n", Err(Reason::FramingLine)),
        ] {
            assert_eq!(judged(&format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\nbody")), want, "{fields}");
        }
        assert_eq!(judged("POST /x HTTP/1.1\n\n"), Err(Reason::FramingLine));
    }

    #[test]
    fn a_body_is_no_part_of_the_head() {
        assert_eq!(judged("POST /x HTTP/1.1\r\nContent-Length: 9\r\n\r\na\nContent-Length: 5\r\n"), Ok(()));
        assert_eq!(judged("rest of a body\nGET / HTTP/1.1\n\n"), Ok(()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = judge(&bytes, &Method::GET);
        }

        #[test]
        fn one_length_and_crlf_always_pass(name in "[a-z]{1,12}", value in "[ -~]{0,40}", length: u32) {
            prop_assume!(name != "te");
            let head = format!("POST / HTTP/1.1\r\nx-{name}: {value}\r\nContent-Length: {length}\r\n\r\n");
            prop_assert_eq!(judged(&head), Ok(()));
        }
    }
}
