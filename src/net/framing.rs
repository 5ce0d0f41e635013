//! Where the requests of an HTTP/1.1 connection begin and end, told from its bytes as they come. The
//! parser would resolve what is ambiguous in its own way (RFC 9112, 2.2 and 6.3); another one in front
//! of us or behind us may resolve it in another, so it is refused.

use crate::domain::reason::Reason;
use http::{HeaderMap, HeaderValue, Uri};
use std::collections::VecDeque;
use std::mem;

/// A line that is longer is nobody's: the parser has given up before.
const MOST: usize = 1 << 20;

/// How far a connection has been read.
#[derive(Default)]
pub struct Framing {
    at: Place,
    /// A line without its end.
    line: Vec<u8>,
    fields: Fields,
    /// Of requests whose heads have come, and that nobody has asked for yet.
    verdicts: VecDeque<Verdict>,
}

type Verdict = Result<(), Reason>;

/// A line of a chunked body is none (RFC 9112, 7.1): the parser and others would not agree on where the
/// next request begins. What comes before it may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Bytes of the last read.
    pub before: usize,
}

/// What comes next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    /// The connection's first line, which may say that it is HTTP/2.
    #[default]
    Preface,
    RequestLine,
    Field,
    /// Content of so many bytes.
    Content(u64),
    ChunkSize,
    /// A chunk of so many bytes, its end included.
    Chunk(u64),
    Trailer,
    /// What is not to be read.
    Nothing,
}

/// What a head has said of its content so far.
#[derive(Debug, Default)]
struct Fields {
    fault: Option<Reason>,
    lengths: u32,
    codings: u32,
    length: u64,
}

impl Framing {
    /// Reads on. What follows the first line of a connection if that says that it is HTTP/2.
    pub fn read<'a>(&mut self, all: &'a [u8]) -> Result<Option<&'a [u8]>, Fault> {
        let mut bytes = all;
        while !bytes.is_empty() {
            match self.at {
                Place::Content(left) => {
                    (self.at, bytes) = pass(bytes, left, Place::Content, Place::RequestLine);
                }
                Place::Chunk(left) => (self.at, bytes) = pass(bytes, left, Place::Chunk, Place::ChunkSize),
                Place::Nothing => return Ok(None),
                _ => {
                    let Some(end) = memchr::memchr(b'\n', bytes) else {
                        self.keep(bytes);
                        return Ok(None);
                    };
                    let before = all.len() - bytes.len();
                    let (piece, rest) = bytes.split_at(end);
                    bytes = &rest[1..];
                    let next = if self.line.is_empty() {
                        self.take(piece)
                    } else {
                        let mut line = mem::take(&mut self.line);
                        line.extend_from_slice(piece);
                        self.take(&line)
                    };
                    let Some(next) = next else {
                        self.end();
                        return Err(Fault { before });
                    };
                    self.at = next;
                    if self.at == Place::Preface {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
        Ok(None)
    }

    /// What is to be said of the next request. One whose head has not been seen cannot be told from
    /// its neighbours.
    pub fn judge(&mut self) -> Verdict {
        self.verdicts.pop_front().unwrap_or(Err(Reason::FramingLength))
    }

    /// Whether a head has begun and not ended.
    pub fn begun(&self) -> bool {
        match self.at {
            Place::Field => true,
            Place::Preface | Place::RequestLine => !self.line.is_empty(),
            _ => false,
        }
    }

    /// Reads no further: what comes is no HTTP.
    pub fn end(&mut self) {
        *self = Self { at: Place::Nothing, ..Self::default() };
    }

    fn keep(&mut self, piece: &[u8]) {
        self.line.extend_from_slice(piece);
        if self.line.len() > MOST {
            self.end();
        }
    }

    /// What comes after a line, which is without its LF; nothing can after one that is none.
    fn take(&mut self, line: &[u8]) -> Option<Place> {
        let (text, whole) = line.strip_suffix(b"\r").map_or((line, false), |text| (text, true));
        Some(match self.at {
            // the parser would go on to the next CR LF
            Place::ChunkSize | Place::Trailer if !whole => return None,
            Place::Preface if text == b"PRI * HTTP/2.0" => Place::Preface,
            // empty lines before the request line are ignored (RFC 9112, 2.2), one ends a chunked body
            Place::Preface | Place::RequestLine | Place::Trailer if text.is_empty() => Place::RequestLine,
            Place::Preface | Place::RequestLine => {
                self.fields.check_end(whole);
                Place::Field
            }
            Place::Field if text.is_empty() => {
                self.fields.check_end(whole);
                self.end_head()
            }
            Place::Field => {
                self.fields.check_end(whole);
                self.fields.take(text);
                Place::Field
            }
            Place::ChunkSize => match chunk_size(text) {
                Some(0) => Place::Trailer,
                Some(size) => Place::Chunk(size.saturating_add(2)),
                None => return None,
            },
            other => other,
        })
    }

    fn end_head(&mut self) -> Place {
        let fields = mem::take(&mut self.fields);
        let ambiguous = fields.lengths + fields.codings > 1;
        let fault = fields.fault.or(ambiguous.then_some(Reason::FramingLength));
        self.verdicts.push_back(fault.map_or(Ok(()), Err));
        match fields {
            _ if fault.is_some() => Place::Nothing,
            Fields { codings: 1, .. } => Place::ChunkSize,
            Fields { length: 0, .. } => Place::RequestLine,
            Fields { length, .. } => Place::Content(length),
        }
    }
}

impl Fields {
    fn check_end(&mut self, whole: bool) {
        if !whole {
            self.fault.get_or_insert(Reason::FramingLine);
        }
    }

    fn take(&mut self, line: &[u8]) {
        match line.first().map(u8::to_ascii_lowercase) {
            Some(b'c') => {
                if let Some(length) = value(line, b"content-length") {
                    self.lengths += 1;
                    match number(length.trim_ascii(), 10) {
                        Some(length) => self.length = length,
                        None => drop(self.fault.get_or_insert(Reason::FramingLength)),
                    }
                }
            }
            Some(b't') => {
                if let Some(coding) = value(line, b"transfer-encoding") {
                    self.codings += 1;
                    if !coding.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                        self.fault.get_or_insert(Reason::TransferCoding);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Passes over as much as there is of what is left, and says what comes then.
fn pass(bytes: &[u8], left: u64, rest: fn(u64) -> Place, next: Place) -> (Place, &[u8]) {
    let passed = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    let left = left - passed as u64;
    (if left == 0 { next } else { rest(left) }, &bytes[passed..])
}

/// The size of a chunk, before its extensions (RFC 9112, 7.1).
fn chunk_size(line: &[u8]) -> Option<u64> {
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    number(&line[..end], 16)
}

/// Digits alone: no sign and no blanks.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let plain = digits.iter().all(u8::is_ascii_hexdigit);
    std::str::from_utf8(digits).ok().filter(|_| plain).and_then(|digits| u64::from_str_radix(digits, radix).ok())
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
    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::{BodyExt, Full};
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use proptest::prelude::*;
    use std::cell::Cell;
    use tokio::io::AsyncWriteExt;

    fn read(bytes: &[u8]) -> Framing {
        let mut framing = Framing::default();
        assert!(framing.read(bytes).is_ok());
        framing
    }

    fn judged(head: &str) -> Verdict {
        read(head.as_bytes()).judge()
    }

    #[test]
    fn what_can_be_framed_in_two_ways_is_refused() {
        for (fields, want) in [
            ("", Ok(())),
            ("Content-Length: 5\r\n", Ok(())),
            ("Transfer-Encoding: Chunked \r\n", Ok(())),
            ("X-Content-Length: 5\r\nContent-Length: 5\r\n", Ok(())),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Err(Reason::FramingLength)),
            ("Content-Length: 5, 5\r\n", Err(Reason::FramingLength)),
            ("Content-Length: +5\r\n", Err(Reason::FramingLength)),
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
    fn a_request_is_judged_by_its_own_head_though_others_come_before_it_at_once() {
        let ambiguous = "POST /b HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        for before in [
            "GET /a HTTP/1.1\r\n\r\n",
            "\r\n\r\nGET /a HTTP/1.1\r\n\r\n\r\n",
            "POST /a HTTP/1.1\r\nContent-Length: 7\r\n\r\na\nb\r\n\r\n",
            "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\n\r\n\r\nA\r\n0123456789\r\n0\r\nA: b\r\n\r\n",
        ] {
            let mut framing = read(format!("{before}{ambiguous}").as_bytes());
            assert_eq!((framing.judge(), framing.judge()), (Ok(()), Err(Reason::FramingLength)), "{before}");
        }
    }

    #[test]
    fn a_request_whose_head_was_not_seen_is_refused() {
        assert_eq!(Framing::default().judge(), Err(Reason::FramingLength));
        let mut framing = read(b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!((framing.judge(), framing.judge()), (Ok(()), Err(Reason::FramingLength)));
    }

    #[test]
    fn a_chunked_body_ends_where_everybody_says() {
        let head = "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for body in ["no size\r\n", "\r\n", "5\norder\r\n", "0\n", "0\r\n\n", "0\r\nA: b\n\r\n", "0\r\nA: b\r\n\n"] {
            let bytes = format!("{head}{body}");
            let outcome = Framing::default().read(bytes.as_bytes());
            assert!(outcome.is_err_and(|fault| fault.before >= head.len()), "{body:?}");
        }
    }

    #[test]
    fn a_head_has_begun_from_its_first_byte_to_its_last() {
        let mut framing = Framing::default();
        for (piece, begun) in
            [("\r\n", false), ("G", true), ("ET / HTTP/1.1\r\n", true), ("A: b\r\n\r", true), ("\n", false)]
        {
            assert!(framing.read(piece.as_bytes()).is_ok());
            assert_eq!(framing.begun(), begun, "{piece:?}");
        }
        assert!(!read(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nbo").begun());
    }

    #[test]
    fn http2_begins_with_the_first_line_of_a_connection_and_nowhere_else() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        assert_eq!(Framing::default().read(preface), Ok(Some(&b"\r\nSM\r\n\r\n"[..])));
        let mut framing = read(&preface[..9]);
        assert_eq!(framing.read(&preface[9..16]), Ok(Some(&b""[..])));
        assert_eq!(read(b"GET / HTTP/1.1\r\n\r\n").read(preface), Ok(None));
    }

    /// How many requests the parser hands over, and whether it has read all without an error.
    fn parsed(bytes: &[u8]) -> (usize, bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(64 * 1024);
            client.write_all(bytes).await.expect("sent");
            client.shutdown().await.expect("sent");
            let count = Cell::new(0);
            let service = service_fn(|request: Request<Incoming>| {
                count.set(count.get() + 1);
                async { request.into_body().collect().await.map(|_| Response::new(Full::<Bytes>::default())) }
            });
            let outcome = http1::Builder::new().serve_connection(TokioIo::new(server), service).await;
            (count.get(), outcome.is_ok())
        })
    }

    const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    const PIECES: &[&str] = &[
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\norder",
        CHUNKED,
        "5;x=y\r\norder\r\n",
        "0\r\n",
        "A: b\r\n",
        "\r\n",
        "\n",
        "\r",
        " ",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn the_parser_finds_the_requests_that_are_judged_and_no_others(
            pieces in prop::collection::vec(prop::sample::select(PIECES), 0..10),
        ) {
            let bytes = format!("{CHUNKED}{}", pieces.concat());
            let mut framing = Framing::default();
            let fault = framing.read(bytes.as_bytes()).is_err();
            let (count, whole) = parsed(bytes.as_bytes());
            if !fault {
                prop_assert!(count <= framing.verdicts.len(), "{count} requests in {bytes:?}");
                prop_assert!(!whole || count == framing.verdicts.len(), "{count} requests in {bytes:?}");
            }
        }

        #[test]
        fn no_bytes_make_it_panic_and_it_does_not_matter_how_they_come(
            bytes in "([a-c:]|[0-9]|[ ]|\r\n|\n|Content-Length: |Transfer-Encoding: chunked){0,60}",
            size in 1usize..9,
        ) {
            let (mut pieces, mut whole) = (Framing::default(), Framing::default());
            let by_piece = bytes.as_bytes().chunks(size).try_for_each(|piece| pieces.read(piece).map(|_| ()));
            prop_assert_eq!(by_piece.is_ok(), whole.read(bytes.as_bytes()).is_ok());
            prop_assert_eq!((pieces.at, pieces.line, pieces.verdicts), (whole.at, whole.line, whole.verdicts));
        }

        #[test]
        fn one_length_and_crlf_always_pass(name in "[a-z]{1,12}", value in "[ -~]{0,40}", length: u32) {
            let head = format!("POST / HTTP/1.1\r\nx-{name}: {value}\r\nContent-Length: {length}\r\n\r\n");
            prop_assert_eq!(judged(&head), Ok(()));
        }
    }
}
