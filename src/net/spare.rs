//! The head of a call that may have to be made again. Few are, and all would pay for a copy: it is
//! kept in memory that one call leaves to the next.

use super::body::Outgoing;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use std::cell::RefCell;
use std::fmt;

/// Copies that wait for another call.
const WAITING: usize = 256;
/// What a copy of an unusual size takes up is given back.
const LARGE: usize = 8 * 1024;

/// A request without a body, but for its target, which is another one at each server.
#[derive(Default)]
pub struct Spare {
    method: Method,
    fields: Vec<Field>,
    /// Of all fields, in their order.
    values: Vec<u8>,
}

struct Field {
    name: HeaderName,
    /// Where its value ends.
    end: usize,
    sensitive: bool,
}

impl Spare {
    fn keep<B>(&mut self, request: &Request<B>) {
        self.method.clone_from(request.method());
        for (name, value) in request.headers() {
            self.values.extend_from_slice(value.as_bytes());
            let field = Field { name: name.clone(), end: self.values.len(), sensitive: value.is_sensitive() };
            self.fields.push(field);
        }
    }

    /// The request again.
    pub fn request(&self) -> Request<Outgoing> {
        let mut headers = HeaderMap::with_capacity(self.fields.len());
        let mut start = 0;
        for Field { name, end, sensitive } in &self.fields {
            // what was a value is one
            if let Ok(mut value) = HeaderValue::from_bytes(&self.values[start..*end]) {
                value.set_sensitive(*sensitive);
                headers.append(name, value);
            }
            start = *end;
        }
        let mut request = Request::new(Outgoing::Empty);
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = headers;
        request
    }
}

impl fmt::Debug for Spare {
    /// Without its values: some are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spare({}, {} fields)", self.method, self.fields.len())
    }
}

/// A lane's copies.
#[derive(Debug, Default)]
pub struct Spares(RefCell<Vec<Spare>>);

impl Spares {
    pub fn keep<B>(&self, request: &Request<B>) -> Spare {
        let mut spare = self.0.borrow_mut().pop().unwrap_or_default();
        spare.keep(request);
        spare
    }

    /// Takes back what is needed no longer.
    pub fn reuse(&self, mut spare: Spare) {
        // a name may be a part of what a client sent, all of which it would keep
        spare.fields.clear();
        spare.values.clear();
        let mut waiting = self.0.borrow_mut();
        if waiting.len() < WAITING && spare.values.capacity() <= LARGE {
            waiting.push(spare);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_kept_comes_back_and_nothing_of_the_call_before(
            heads in prop::collection::vec(prop::collection::vec(("x-[a-c]", "[ -~]{0,9}"), 0..6), 1..4),
        ) {
            let spares = Spares::default();
            for fields in heads {
                let mut request = Request::delete("/").body(()).expect("a request");
                for (name, value) in &fields {
                    let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
                    let mut value = HeaderValue::from_str(value).expect("a value");
                    value.set_sensitive(value.len().is_multiple_of(2));
                    request.headers_mut().append(name, value);
                }
                let spare = spares.keep(&request);
                let again = spare.request();
                prop_assert_eq!((again.method(), again.headers()), (request.method(), request.headers()));
                let sensitive = |one: &HeaderMap| one.values().map(HeaderValue::is_sensitive).collect::<Vec<_>>();
                prop_assert_eq!(sensitive(again.headers()), sensitive(request.headers()));
                spares.reuse(spare);
            }
        }
    }
}
