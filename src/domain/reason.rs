//! The one table of reasons. Every refusal has an inner reason (log, metric, explain) and a coarse
//! public code; status, paragraph and remedy follow from the reason and stand nowhere else.

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    /// The inner reason, as logs and metrics name it.
    pub name: &'static str,
    /// What the caller may read.
    pub code: &'static str,
    pub status: u16,
    /// The paragraph that asks for this answer.
    pub source: &'static str,
    /// What the operator or the caller can do; in logs and explanations.
    pub remedy: &'static str,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident: $name:literal, $code:literal, $status:literal, $source:literal, $remedy:literal;)+) => {
        /// Why a request was refused or failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)+ }

        impl Reason {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            pub fn row(self) -> &'static Row {
                match self {
                    $(Self::$variant => &Row { name: $name, code: $code, status: $status, source: $source, remedy: $remedy },)+
                }
            }
        }
    };
}

reasons! {
    // the request itself
    PathAmbiguous: "path-ambiguous", "bad_path", 400, "RFC 3986 6.2.2", "send the path without encoded slashes, backslashes, NUL, `;` or doubly encoded characters";
    PathEscapes: "path-escapes-root", "bad_path", 400, "RFC 3986 5.2.4", "send a path that does not climb above the root";
    TargetTooLong: "target-too-long", "target_too_long", 414, "RFC 9110 15.5.15", "shorten path and query, or raise limits.target";
    TargetForm: "target-form", "bad_request", 400, "RFC 9112 3.2", "send a path; this is no forward proxy";
    MethodUnsupported: "method-unsupported", "method_not_allowed", 405, "RFC 9110 15.5.6", "use an ordinary HTTP method";
    HostInvalid: "host-invalid", "bad_request", 400, "RFC 9112 3.2", "send one valid Host header that agrees with the target";
    FramingLength: "framing-length", "bad_framing", 400, "RFC 9112 6.3", "send one Content-Length, or Transfer-Encoding: chunked, not both and neither twice";
    FramingLine: "framing-line", "bad_framing", 400, "RFC 9112 2.2", "end each line of the head with CR LF";
    FieldMalformed: "field-malformed", "bad_request", 400, "RFC 9113 8.1.1", "send field values without blanks around them, and a target with a scheme and without a user";
    TransferCoding: "transfer-coding", "unknown_coding", 501, "RFC 9112 6.1", "send the body with Content-Length or Transfer-Encoding: chunked";
    Overloaded: "overloaded", "overloaded", 503, "RFC 9110 15.6.4", "more requests are under way than limits.requests allows; add capacity, or raise it";
    NoRoute: "no-route", "no_such_flow", 404, "RFC 9110 15.5.5", "compare the path with the routes in config.yaml";
    // who calls
    AuthorizationRepeated: "authorization-repeated", "invalid_request", 400, "RFC 6750 2", "send one Authorization header";
    TokenInQuery: "token-in-query", "invalid_request", 400, "RFC 6750 2.3", "send the token in the Authorization header, not in the query";
    TokenMissing: "token-missing", "token_required", 401, "RFC 6750 3", "get a token at the tokenurl and send it as Authorization: Bearer";
    SchemeUnsupported: "scheme-unsupported", "token_required", 401, "RFC 6750 3", "send Authorization: Bearer with a token; this route takes nothing else";
    TokenTooLong: "token-too-long", "invalid_token", 401, "RFC 6750 3.1", "a token from this server is never that long";
    TokenMalformed: "token-malformed", "invalid_token", 401, "RFC 7515 5.2", "send the access token exactly as the token endpoint returned it";
    TokenHeaderUnsupported: "token-header-unsupported", "invalid_token", 401, "RFC 8725 3.10", "send a token of this server; it uses no crit, b64, embedded keys or nesting";
    TokenType: "token-type", "invalid_token", 401, "RFC 8725 3.11", "send an access token (typ JWT)";
    TokenKeyUnknown: "token-key-unknown", "invalid_token", 401, "RFC 7515 4.1.4", "get a new token: its signing key is unknown here, was retired or purged";
    TokenAlgorithm: "token-algorithm", "invalid_token", 401, "RFC 8725 3.1", "send a token of this server; its algorithm is fixed by the key";
    TokenSignature: "token-signature", "invalid_token", 401, "RFC 7515 5.2", "send the token unaltered; its signature does not verify";
    TokenClaims: "token-claims", "invalid_token", 401, "RFC 7519 4.1", "send a token of this server; a claim is missing, of the wrong type or out of bounds";
    TokenIssuer: "token-issuer", "invalid_token", 401, "RFC 8725 3.8", "get the token at this server's tokenurl";
    TokenAudience: "token-audience", "invalid_token", 401, "RFC 8725 3.9", "get a token meant for this gateway";
    TokenTenant: "token-tenant", "invalid_token", 401, "RFC 8725 3.9", "get a token of this tenant";
    TokenExpired: "token-expired", "invalid_token", 401, "RFC 7519 4.1.4", "get a new token";
    TokenNotYetValid: "token-not-yet-valid", "invalid_token", 401, "RFC 7519 4.1.5", "compare the clocks of the machines";
    TokenRevoked: "token-revoked", "invalid_token", 401, "RFC 7009 2", "get a new token; this one was revoked";
    TokenCertificateMissing: "token-certificate-missing", "invalid_token", 401, "RFC 8705 3", "the token is bound to a certificate: call over a connection with that certificate";
    TokenCertificateOther: "token-certificate-other", "invalid_token", 401, "RFC 8705 3", "the token is bound to another certificate than this connection's; get a token over this connection";
    CertificateMissing: "certificate-missing", "certificate_required", 401, "RFC 8446 4.4.2", "the route takes client certificates alone; connect with one (a client whose key type is not offered sends none)";
    CertificateNotListed: "certificate-not-listed", "forbidden", 403, "RFC 9110 15.5.4", "add the certificate's subject and issuer to the route's list, as `flowgate trusted-ca inspect` shows them";
    ClientGone: "client-gone", "invalid_token", 401, "RFC 6750 3.1", "the service instance was deleted; ask the operator for a new service key";
    KeyGone: "key-gone", "invalid_token", 401, "RFC 6750 3.1", "the service key behind the token was deleted; use the key that replaced it";
    // what it may
    RoleMissing: "role-missing", "insufficient_scope", 403, "RFC 6750 3.1", "add the route's user role to the service instance, then get a new token";
    RoleWithdrawn: "role-withdrawn", "insufficient_scope", 403, "RFC 6750 3.1", "the instance no longer has the route's user role; add it again with `flowgate instance update`";
    CsrfMissing: "csrf-missing", "csrf_token_required", 403, "RFC 9110 15.5.4", "fetch a token first: GET or HEAD the path with X-CSRF-Token: fetch, then send it with the changing call";
    CsrfOther: "csrf-other", "csrf_token_required", 403, "RFC 9110 15.5.4", "the token is of another caller or route, or over; fetch another";
    BodyTooLarge: "body-too-large", "body_too_large", 413, "RFC 9110 15.5.14", "send a smaller body, or raise the route's max_body";
    BodyTooSlow: "body-too-slow", "body_too_slow", 408, "RFC 9110 15.5.9", "send the body without long pauses, or raise the route's body_gap and body_time";
    RouteRate: "route-rate", "rate_exceeded", 429, "RFC 6585 4", "the route's `rate` is used up by its callers together; wait as Retry-After says, or raise it";
    ClientRate: "client-rate", "rate_exceeded", 429, "RFC 6585 4", "the client has used up its `client_rate`; wait as Retry-After says, or raise it";
    // the token endpoint
    TokenRate: "token-rate", "rate_exceeded", 429, "RFC 6585 4", "keep a token until it ends instead of asking for another; or raise limits.token_rate";
    MethodNotAllowed: "method-not-allowed", "invalid_request", 405, "RFC 6749 3.2", "use POST";
    RequestTooLarge: "token-request-too-large", "invalid_request", 413, "RFC 9110 15.5.14", "a token request is a few hundred bytes";
    RequestTooSlow: "token-request-too-slow", "invalid_request", 408, "RFC 9110 15.5.9", "send the request without pauses";
    ContentType: "content-type", "invalid_request", 400, "RFC 6749 3.2", "send the parameters as application/x-www-form-urlencoded";
    ParameterMalformed: "parameter-malformed", "invalid_request", 400, "RFC 6749 B", "percent-encode the parameters as UTF-8";
    ParameterRepeated: "parameter-repeated", "invalid_request", 400, "RFC 6749 3.2", "send each parameter once";
    ParametersTooMany: "parameters-too-many", "invalid_request", 400, "RFC 6749 3.2", "a token request has a handful of parameters";
    SecretInQuery: "secret-in-query", "invalid_request", 400, "RFC 6749 2.3.1", "send client_secret in the body or by Basic, never in the query, where logs keep it";
    ClientAuthTwice: "client-auth-twice", "invalid_request", 400, "RFC 6749 2.3", "authenticate in one way: Basic or body parameters";
    ClientAuthMissing: "client-auth-missing", "invalid_client", 401, "RFC 6749 5.2", "send clientid and clientsecret, or call with the service key's client certificate";
    BasicMalformed: "basic-malformed", "invalid_client", 401, "RFC 7617 2", "send Authorization: Basic with base64 of clientid:clientsecret";
    ClientAuthUnsupported: "client-auth-unsupported", "invalid_client", 401, "RFC 6749 2.3", "authenticate by Basic, body parameters or a client certificate";
    ClientUnknown: "client-unknown", "invalid_client", 401, "RFC 6749 5.2", "compare the clientid with `flowgate instance list`";
    SecretWrong: "secret-wrong", "invalid_client", 401, "RFC 6749 5.2", "the secret belongs to no key of the instance; it may have been deleted";
    CertificateUnknown: "certificate-unknown", "invalid_client", 401, "RFC 8705 2", "the certificate belongs to no service key; create one with key type certificate_external";
    CertificateDistrusted: "certificate-distrusted", "invalid_client", 401, "RFC 5280 6.1", "no CA that counts here vouches for the certificate at this moment; see the detail, or ask `flowgate trusted-ca inspect`";
    CertificateSuperseded: "certificate-superseded", "invalid_client", 401, "RFC 8705 2", "the key has accepted a certificate of the same names that was issued later; present that one";
    CertificateToBind: "certificate-to-bind", "invalid_request", 400, "RFC 8705 3", "the instance's tokens are bound to a certificate: ask for them over a connection with a client certificate";
    CertificateHeader: "certificate-header", "bad_request", 400, "RFC 9440 2", "the proxy's certificate header must be there at most once and hold a certificate; correct the proxy's configuration";
    ClientIdMismatch: "client-id-mismatch", "invalid_client", 401, "RFC 6749 2.3", "client_id names another client than the one that authenticated";
    GrantMissing: "grant-missing", "invalid_request", 400, "RFC 6749 4.4.2", "send grant_type=client_credentials";
    GrantNotAllowed: "grant-not-allowed", "unauthorized_client", 400, "RFC 6749 5.2", "use grant_type=client_credentials; the client is registered for nothing else";
    GrantUnsupported: "grant-unsupported", "unsupported_grant_type", 400, "RFC 6749 5.2", "use grant_type=client_credentials, spelled exactly so";
    ScopeMalformed: "scope-malformed", "invalid_scope", 400, "RFC 6749 3.3", "send scopes separated by single blanks";
    ScopeNotHeld: "scope-not-held", "invalid_scope", 400, "RFC 6749 5.2", "ask by full name (xsappname.role) for roles that the instance has, or leave scope out";
    TokenParameterMissing: "token-parameter-missing", "invalid_request", 400, "RFC 7662 2.1", "send the token in the parameter `token`";
    RevokeForeign: "revoke-foreign", "unauthorized_client", 400, "RFC 7009 2.1", "a client may revoke only tokens issued to it";
    SignerBusy: "signer-busy", "temporarily_unavailable", 503, "RFC 9110 15.6.4", "try again shortly; tokens.algorithm ES256 signs thirty times as fast";
    StoreUnavailable: "store-unavailable", "temporarily_unavailable", 503, "RFC 9110 15.6.4", "look at the gateway's log: the store does not take writes";
    // destinations
    PlanOther: "plan-other", "wrong_plan", 403, "RFC 6750 3.1", "use a service key of an instance of plan destination: flowgate instance create NAME --plan destination";
    LookupMalformed: "lookup-malformed", "bad_lookup", 400, "RFC 9110 15.5.1", "see the message, and README for what goes together";
    EntryUnknown: "entry-unknown", "no_such_entry", 404, "RFC 9110 15.5.5", "compare the name, case included, with `flowgate destination list`";
    EntryTaken: "entry-taken", "entry_taken", 409, "RFC 9110 15.5.10", "replace it with PUT, or choose another name";
    EntryChanged: "entry-changed", "entry_changed", 412, "RFC 9110 15.5.13", "get the entry again and repeat the change with its new ETag";
    EntryMalformed: "entry-malformed", "bad_entry", 400, "RFC 9110 15.5.1", "see the message; README lists the properties";
    EntriesTooLarge: "entries-too-large", "body_too_large", 413, "RFC 9110 15.5.14", "send fewer or smaller entries; a request may have 1 MiB";
    // the backend
    CredentialUnavailable: "credential-unavailable", "credential_unavailable", 503, "RFC 9110 15.6.4", "the route's outbound credential has no token; `flowgate credential list` tells why";
    BackendUnreachable: "backend-unreachable", "backend_unreachable", 502, "RFC 9110 15.6.3", "start the backend, or correct its address in config.yaml";
    BackendFailed: "backend-failed", "backend_failed", 502, "RFC 9110 15.6.3", "the backend broke off or did not speak HTTP; look at its log";
    BackendTimeout: "backend-timeout", "backend_timeout", 504, "RFC 9110 15.6.5", "the backend did not answer in time; raise the backend's timeout if it may take longer";
    BackendBusy: "backend-busy", "backend_busy", 503, "RFC 9110 15.6.4", "every server has as many calls as its backend's max_requests or max_connections allows";
    BackendOut: "backend-out", "backend_unreachable", 503, "RFC 9110 15.6.4", "every server has failed again and again and is tried four times a second until it answers; look at the backend";
    TunnelRefused: "tunnel-refused", "backend_failed", 502, "RFC 6455 4.1", "the backend did not agree to the WebSocket as RFC 6455 asks; look at its log";
    ClientAborted: "client-aborted", "client_aborted", 400, "RFC 9112 8", "the caller went away or sent a broken body";
    Draining: "draining", "draining", 503, "RFC 9110 15.6.4", "the gateway is stopping; try another replica or again shortly";
    Internal: "internal", "internal", 500, "RFC 9110 15.6.1", "a fault of the gateway; report it with the request id";
}

/// What a caller may read about a public code: enough to act on, nothing to learn from.
pub fn public_text(code: &str) -> &'static str {
    match code {
        "bad_path" => "the path can be read in more than one way",
        "target_too_long" => "path and query are too long",
        "bad_request" => "the request is not a valid HTTP request for this server",
        "method_not_allowed" => "this method is not available here",
        "bad_framing" => "where the request ends can be read in more than one way",
        "unknown_coding" => "the transfer coding of the body is not known here",
        "overloaded" => "the gateway has too much to do; try again shortly",
        "body_too_slow" => "the request body came too slowly",
        "rate_exceeded" => "too many requests; wait as long as Retry-After says",
        "backend_busy" => "the service behind this path has too much to do; try again shortly",
        "no_such_flow" => "nothing is published at this path",
        "invalid_request" => "the request is malformed, or says one thing in two ways",
        "token_required" => "this path needs an access token, sent as Authorization: Bearer",
        "invalid_token" => "the access token is not valid here; get a new one at the token endpoint",
        "certificate_required" => "this path needs a client certificate",
        "forbidden" => "the client certificate is not among those that this path takes",
        "insufficient_scope" => "the access token lacks the user role that this path needs",
        "body_too_large" => "the body is larger than this path allows",
        "invalid_client" => "client authentication failed",
        "unauthorized_client" => "the client may not do this",
        "unsupported_grant_type" => "the grant type is not known; use client_credentials",
        "invalid_scope" => "a requested scope is malformed or not held by the client",
        "temporarily_unavailable" => "the server is busy; try again shortly",
        "credential_unavailable" => "the service behind this path cannot be called at this moment",
        "backend_unreachable" => "the service behind this path cannot be reached",
        "backend_failed" => "the service behind this path broke off its answer",
        "backend_timeout" => "the service behind this path did not answer in time",
        "csrf_token_required" => "a changing call needs the token that a reading one has fetched",
        "wrong_plan" => "the token is not of an instance that may look destinations up",
        "bad_lookup" => "this cannot be looked up so",
        "no_such_entry" => "Configuration with the specified name was not found",
        "entry_taken" => "Duplicate key",
        "entry_changed" => "the entry is not as the condition says",
        "bad_entry" => "the entry cannot be stored",
        "client_aborted" => "the request body did not arrive whole",
        "draining" => "the gateway is stopping; try again shortly",
        _ => "the gateway failed; report it with the request id",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_its_own_name_and_a_whole_row() {
        let names: HashSet<_> = Reason::ALL.iter().map(|reason| reason.row().name).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for row in Reason::ALL.iter().map(|reason| reason.row()) {
            assert!((400..600).contains(&row.status) && !row.remedy.is_empty() && !row.source.is_empty());
            assert!(row.code == "internal" || public_text(row.code) != public_text("internal"), "{}", row.code);
            assert!(row.code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        }
    }

    #[test]
    fn an_unknown_client_and_a_wrong_secret_look_the_same_outside() {
        let (unknown, wrong) = (Reason::ClientUnknown.row(), Reason::SecretWrong.row());
        assert_eq!((unknown.code, unknown.status), (wrong.code, wrong.status));
    }
}
