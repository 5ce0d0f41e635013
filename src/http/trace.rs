//! Request ids and W3C trace context: unique, not secret, so they are counted and not drawn.

use crate::crypto::random;
use crate::net::headers::{TRACEPARENT, X_REQUEST_ID};
use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderValue};
use std::cell::{Cell, RefCell};

const PAGE: usize = 4_096;

/// A lane's ids: a random beginning and a counter.
pub struct Ids {
    start: u64,
    trace: u64,
    next: Cell<u64>,
    /// Where ids are written: many share one allocation, since each request needs two.
    page: RefCell<BytesMut>,
}

impl Ids {
    pub fn new() -> Self {
        let number = || u64::from_be_bytes(random::bytes());
        // an all-zero trace id is invalid
        Self { start: number(), trace: number() | 1, next: Cell::new(number()), page: RefCell::default() }
    }

    /// The request's id and traceparent: its own where the peer is believed and they are sane.
    pub fn of(&self, headers: &HeaderMap, believed: bool) -> (HeaderValue, HeaderValue) {
        let count = self.next.get();
        self.next.set(count.wrapping_add(1));
        let own = |name| headers.get(name).filter(|_| believed);
        let request_id = own(X_REQUEST_ID).filter(|value| sane_id(value)).cloned();
        let traceparent = own(TRACEPARENT).filter(|value| sane_trace(value)).cloned();
        (
            request_id.unwrap_or_else(|| self.write(&[&hex(self.start), b"-", &hex(count)])),
            traceparent.unwrap_or_else(|| {
                self.write(&[b"00-", &hex(self.trace), &hex(count), b"-", &hex(count | 1 << 63), b"-01"])
            }),
        )
    }

    fn write(&self, parts: &[&[u8]]) -> HeaderValue {
        let mut page = self.page.borrow_mut();
        let length = parts.iter().map(|part| part.len()).sum();
        if page.capacity() < length {
            *page = BytesMut::with_capacity(PAGE);
        }
        for part in parts {
            page.put_slice(part);
        }
        let text = page.split().freeze();
        HeaderValue::from_maybe_shared(text).unwrap_or_else(|_| HeaderValue::from_static("none"))
    }
}

fn hex(number: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|at| DIGITS[(number >> (60 - 4 * at)) as usize & 15])
}

fn sane_id(value: &HeaderValue) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    (1..=128).contains(&value.len()) && value.as_bytes().iter().all(allowed)
}

/// `version-traceid-parentid-flags`, lower-case hexadecimal (W3C Trace Context, 3.2).
fn sane_trace(value: &HeaderValue) -> bool {
    let text = value.to_str().unwrap_or_default();
    let parts: Vec<_> = text.split('-').collect();
    let hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let lengths: Vec<_> = parts.iter().map(|part| part.len()).collect();
    lengths == [2, 32, 16, 2]
        && parts.iter().all(|part| hex(part))
        && parts[0] != "ff"
        && !zero(parts[1])
        && !zero(parts[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        [(http::HeaderName::from_static(name), HeaderValue::from_static(value))].into_iter().collect()
    }

    #[test]
    fn ids_are_unique_and_well_formed() {
        let ids = Ids::new();
        let (first, trace) = ids.of(&HeaderMap::new(), true);
        let (second, _) = ids.of(&HeaderMap::new(), true);
        assert_ne!(first, second);
        assert!(sane_id(&first) && sane_trace(&trace), "{trace:?}");
    }

    #[test]
    fn only_a_believed_peer_names_its_request() {
        let ids = Ids::new();
        let sent = headers("x-request-id", "abc-1");
        assert_eq!(ids.of(&sent, true).0, "abc-1");
        assert_ne!(ids.of(&sent, false).0, "abc-1");
        let odd = headers("x-request-id", "a b\"c");
        assert_ne!(ids.of(&odd, true).0, "a b\"c");
    }

    #[test]
    fn a_sane_traceparent_of_a_believed_peer_goes_on() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let ids = Ids::new();
        assert_eq!(ids.of(&headers("traceparent", good), true).1, good);
        let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        assert_ne!(ids.of(&headers("traceparent", zero), true).1, zero);
    }
}
