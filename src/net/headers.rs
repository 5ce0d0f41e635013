//! Header hygiene in both directions, pure: hop-by-hop fields out, client-sent identity out, ours
//! in. Nothing that a client lists under `Connection` can switch a check off, since judging comes
//! before stripping.

use super::peer::Peer;
use crate::domain::csrf::X_CSRF_TOKEN;
use crate::domain::decision::Identity;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Version, request};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const X_AUTH_CLIENT_ID: HeaderName = HeaderName::from_static("x-auth-client-id");
const X_AUTH_ROLES: HeaderName = HeaderName::from_static("x-auth-roles");
const X_AUTH_ISSUER: HeaderName = HeaderName::from_static("x-auth-issuer");
const SAP_USER: HeaderName = HeaderName::from_static("sapauthenticatedusername");

/// What a forwarded request says of itself besides its caller's identity.
pub struct Introduction<'a> {
    pub peer: &'a Peer,
    pub request_id: &'a HeaderValue,
    pub traceparent: &'a HeaderValue,
    pub identity: Option<&'a Identity>,
    pub keep_token: bool,
    /// Whether the token against forged calls was ours.
    pub csrf: bool,
    /// A header with a credential of ours.
    pub credential: Option<&'a (HeaderName, HeaderValue)>,
}

/// Rewrites the head of a request for the backend. The body's framing is set by the caller.
pub fn to_backend(parts: &mut request::Parts, intro: &Introduction<'_>) {
    let host = host(parts);
    let came_forwarded = if intro.peer.trusted { Forwarded::of(&parts.headers) } else { Forwarded::default() };
    let forwarded = intro.peer.certificate_header.as_ref().map_or("", |header| header.name().as_str());
    let certificate = |name: &str| !forwarded.is_empty() && same_but_dashes(name, forwarded);
    let credential = |name: &str| intro.credential.is_some_and(|(ours, _)| same_but_dashes(name, ours.as_str()));
    let trailers = takes_trailers(&parts.headers);
    strip(&mut parts.headers, |name| hop_by_hop(name) || reserved(name) || certificate(name) || credential(name));
    let headers = &mut parts.headers;
    headers.remove(header::EXPECT);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if !intro.keep_token || intro.credential.is_some() {
        headers.remove(header::AUTHORIZATION);
    }
    if intro.csrf {
        headers.remove(X_CSRF_TOKEN);
    }
    if let Some((name, value)) = intro.credential {
        headers.insert(name, value.clone());
    }
    let scheme = HeaderValue::from_static(if intro.peer.secure { "https" } else { "http" });
    headers.insert(X_FORWARDED_FOR, chain(came_forwarded.chain.as_ref(), intro.peer));
    headers.insert(X_FORWARDED_PROTO, came_forwarded.proto.unwrap_or(scheme));
    headers.insert(X_FORWARDED_PORT, came_forwarded.port.unwrap_or_else(|| intro.peer.local_port.clone()));
    if let Some(host) = came_forwarded.host.or(host) {
        headers.insert(X_FORWARDED_HOST, host);
    }
    headers.insert(X_REQUEST_ID, intro.request_id.clone());
    headers.insert(TRACEPARENT, intro.traceparent.clone());
    if let Some(identity) = intro.identity {
        headers.insert(X_AUTH_CLIENT_ID, identity.client_id.clone());
        headers.insert(X_AUTH_ROLES, identity.roles.clone());
        if let Some(issuer) = &identity.issuer {
            headers.insert(X_AUTH_ISSUER, issuer.clone());
        }
        headers.insert(SAP_USER, identity.client_id.clone());
    }
    headers.append(header::VIA, via(parts.version));
}

/// Removes from a backend's answer what belongs to its connection.
pub fn to_client(headers: &mut HeaderMap) {
    strip(headers, hop_by_hop);
}

/// Removes from what comes after a request's body all that may not come before it either, and what
/// would change how it was framed or who sent it (RFC 9110, 6.5.1).
pub fn clean_trailers(trailers: &mut HeaderMap) {
    strip(trailers, |name| {
        hop_by_hop(name) || reserved(name) || matches!(name, "authorization" | "host" | "content-length" | "cookie")
    });
}

/// Whether a client can read fields that come after the body (RFC 9110, 10.1.4).
fn takes_trailers(headers: &HeaderMap) -> bool {
    let listed = |value: &HeaderValue| {
        value.to_str().unwrap_or_default().split(',').any(|word| word.trim().eq_ignore_ascii_case("trailers"))
    };
    headers.get_all(header::TE).iter().any(listed)
}

/// Whether a request is a gRPC call, whose two directions may rest for as long as they like.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// What an HTTP gateway adds to Via (RFC 9110, 7.6.3).
fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_2 => "2 flowgate",
        Version::HTTP_10 => "1.0 flowgate",
        _ => "1.1 flowgate",
    })
}

/// The host that the client meant: the authority of an HTTP/2 or absolute target, else Host.
fn host(parts: &request::Parts) -> Option<HeaderValue> {
    let authority = parts.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    authority.or_else(|| parts.headers.get(header::HOST).cloned())
}

#[derive(Default)]
struct Forwarded {
    chain: Option<HeaderValue>,
    proto: Option<HeaderValue>,
    host: Option<HeaderValue>,
    port: Option<HeaderValue>,
}

impl Forwarded {
    fn of(headers: &HeaderMap) -> Self {
        let get = |name| headers.get(name).cloned();
        Self {
            chain: get(X_FORWARDED_FOR),
            proto: get(X_FORWARDED_PROTO),
            host: get(X_FORWARDED_HOST),
            port: get(X_FORWARDED_PORT),
        }
    }
}

fn chain(before: Option<&HeaderValue>, peer: &Peer) -> HeaderValue {
    let Some(before) = before else { return peer.node.clone() };
    HeaderValue::from_bytes(&[before.as_bytes(), b", ", peer.node.as_bytes()].concat())
        .unwrap_or_else(|_| peer.node.clone())
}

/// Removes the fields that `doomed` names, and those that `Connection` lists.
fn strip(headers: &mut HeaderMap, doomed: impl Fn(&str) -> bool) {
    let mut names: Vec<HeaderName> = headers.keys().filter(|name| doomed(name.as_str())).cloned().collect();
    for value in headers.get_all(header::CONNECTION) {
        let listed = value.to_str().unwrap_or_default().split(',').map(str::trim);
        let listed =
            listed.filter(|name| !name.eq_ignore_ascii_case("keep-alive") && !name.eq_ignore_ascii_case("close"));
        names.extend(listed.filter_map(|name| HeaderName::try_from(name).ok()).filter(|name| !end_to_end(name)));
    }
    for name in &names {
        headers.remove(name);
    }
}

/// Fields that belong to one connection (RFC 9110, 7.6.1).
fn hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Fields that `Connection` may not take away: they are about the message, not the hop.
fn end_to_end(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::HOST | header::CONTENT_LENGTH | header::CONTENT_TYPE | header::AUTHORIZATION | header::COOKIE
    )
}

/// Every field that could be taken for the gateway's own word, its twins with underscores included
/// (many servers read `_` and `-` alike), and Camel's internal headers, which would steer an
/// integration flow from outside.
fn same_but_dashes(a: &str, b: &str) -> bool {
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte };
    a.len() == b.len() && a.bytes().map(dashed).eq(b.bytes().map(dashed))
}

fn reserved(name: &str) -> bool {
    if name.contains('_') { reserved_dashed(&name.replace('_', "-")) } else { reserved_dashed(name) }
}

fn reserved_dashed(name: &str) -> bool {
    match name.as_bytes().first() {
        Some(b'x') => matches!(
            name,
            "x-forwarded-for"
                | "x-forwarded-proto"
                | "x-forwarded-host"
                | "x-forwarded-port"
                | "x-forwarded-prefix"
                | "x-forwarded-client-cert"
                | "x-forwarded-server"
                | "x-real-ip"
                | "x-request-id"
                | "x-auth-client-id"
                | "x-auth-roles"
                | "x-auth-issuer"
                | "x-auth-subject"
                | "x-auth-scopes"
                | "x-auth-method"
                | "x-auth-token-id"
                | "x-client-cert"
                | "x-ssl-cert"
                | "x-ssl-client-cert"
        ),
        Some(b's') => matches!(name, "sapauthenticatedusername" | "sap-authenticated-user-name" | "ssl-client-cert"),
        Some(b'c') => name.starts_with("camel") || matches!(name, "client-cert" | "client-cert-chain"),
        Some(b'f') => name == "forwarded",
        Some(b't') => matches!(name, "traceparent" | "tracestate"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use proptest::prelude::*;

    fn peer(trusted: bool) -> Peer {
        let address = "192.0.2.7:1234".parse().expect("an address");
        Peer::new(address, 8443, true, trusted, address)
    }

    fn rewritten(fields: &[(&str, &str)], trusted: bool) -> HeaderMap {
        let mut request = Request::builder().uri("/x").header("host", "gate.example");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).expect("a request").into_parts();
        let (id, trace) = (HeaderValue::from_static("id-1"), HeaderValue::from_static("00-a-b-01"));
        let identity = Identity {
            client_id: HeaderValue::from_static("sb-1"),
            roles: HeaderValue::from_static("a,b"),
            issuer: None,
        };
        let peer = peer(trusted);
        let intro = Introduction {
            peer: &peer,
            request_id: &id,
            traceparent: &trace,
            identity: Some(&identity),
            keep_token: false,
            csrf: false,
            credential: None,
        };
        to_backend(&mut parts, &intro);
        parts.headers
    }

    #[test]
    fn identity_sent_by_a_client_never_arrives() {
        for name in [
            "X-Auth-Client-Id",
            "x_auth_client_id",
            "X-AUTH_ROLES",
            "SapAuthenticatedUserName",
            "sap_authenticated_user_name",
            "X-Forwarded-Client-Cert",
            "client-cert",
            "CamelHttpUri",
            "camelExecCommand",
            "X-Forwarded-For",
            "forwarded",
            "X_Request_Id",
            "x-forwarded_host",
        ] {
            let headers = rewritten(&[(name, "evil")], false);
            assert!(headers.values().all(|value| value != "evil"), "{name}");
        }
    }

    #[test]
    fn the_backend_learns_who_called_and_how() {
        let headers = rewritten(&[("authorization", "Bearer x")], false);
        for (name, want) in [
            ("x-auth-client-id", "sb-1"),
            ("x-auth-roles", "a,b"),
            ("sapauthenticatedusername", "sb-1"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "gate.example"),
            ("x-forwarded-port", "8443"),
            ("x-request-id", "id-1"),
            ("via", "1.1 flowgate"),
        ] {
            assert_eq!(headers[name], want, "{name}");
        }
        assert!(!headers.contains_key("authorization"));
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_added_to() {
        let headers = rewritten(&[("x-forwarded-for", "198.51.100.1"), ("x-forwarded-proto", "http")], true);
        assert_eq!(headers["x-forwarded-for"], "198.51.100.1, 192.0.2.7");
        assert_eq!(headers["x-forwarded-proto"], "http");
    }

    #[test]
    fn hop_by_hop_fields_and_what_connection_lists_stay_behind() {
        let headers = rewritten(
            &[
                ("connection", "x-drop, content-type, x-auth-roles"),
                ("x-drop", "1"),
                ("te", "gzip, trailers"),
                ("upgrade", "h2c"),
                ("content-type", "text/plain"),
                ("keep-alive", "1"),
            ],
            false,
        );
        assert_eq!(headers["te"], "trailers");
        for name in ["connection", "x-drop", "upgrade", "keep-alive"] {
            assert!(!headers.contains_key(name), "{name}");
        }
        assert_eq!(headers["content-type"], "text/plain");
        assert_eq!(headers["x-auth-roles"], "a,b");
    }

    proptest! {
        #[test]
        fn no_spelling_of_an_identity_header_survives(upper in proptest::collection::vec(any::<bool>(), 16), under in any::<[bool; 3]>()) {
            let mut dashes = under.into_iter();
            let name: String = "x-auth-client-id".chars().zip(upper).map(|(c, up)| match c {
                '-' if dashes.next().unwrap_or(false) => '_',
                c if up => c.to_ascii_uppercase(),
                c => c,
            }).collect();
            let headers = rewritten(&[(name.as_str(), "evil")], false);
            prop_assert!(headers.values().all(|value| value != "evil"));
        }
    }
}
