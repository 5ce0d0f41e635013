//! Interim answers (RFC 9110, 15.2) on their way from a backend to a client, both of HTTP/1.1: the
//! HTTP libraries read them and write none.

use super::guarded::Traffic;
use super::headers;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request, StatusCode};
use hyper::ext::on_informational;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

/// Hands the interim answers to a request on to the client whose task this is.
pub async fn pass_on<B>(request: &mut Request<B>, client: &Arc<Traffic>) {
    let client = client.clone();
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    on_informational(request, move |answer| {
        // nobody was asked to continue but us, who have answered that
        if answer.status() != StatusCode::CONTINUE {
            client.interrupt(&head(answer.status(), answer.headers()));
            waker.wake_by_ref();
        }
    });
}

/// An interim answer as it is written.
fn head(status: StatusCode, fields: &HeaderMap) -> Vec<u8> {
    let mut fields = fields.clone();
    headers::to_client(&mut fields);
    fields.remove(CONTENT_LENGTH);
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in &fields {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::{CONNECTION, LINK};

    #[test]
    fn an_interim_answer_has_its_fields_and_nothing_of_its_connection() {
        let mut fields = HeaderMap::new();
        fields.append(LINK, HeaderValue::from_static("</a.css>; rel=preload"));
        fields.append(LINK, HeaderValue::from_static("</b.css>; rel=preload"));
        fields.insert(CONNECTION, HeaderValue::from_static("x-own"));
        fields.insert("x-own", HeaderValue::from_static("1"));
        fields.insert(CONTENT_LENGTH, HeaderValue::from_static("5"));
        let text = String::from_utf8(head(StatusCode::EARLY_HINTS, &fields)).expect("text");
        let want = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.css>; rel=preload\r\n\r\n";
        assert_eq!(text, want);
    }
}
