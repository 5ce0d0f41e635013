//! Forwarding one permitted request. Takes the permit by value: it is spent here and nowhere else.

use super::body::{Answer, Broken, Outgoing, Upload};
use super::headers::{self, Introduction};
use super::peer::Peer;
use super::pool::{Lent, Pool};
use crate::domain::decision::Permit;
use crate::domain::reason::Reason;
use crate::domain::route::{Backend, Server};
use crate::domain::trail::Refusal;
use http::header::{HOST, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri, Version, request};
use http_body::Body;
use hyper::body::Incoming;
use std::cell::Cell;
use std::rc::Rc;

/// What travels with a request besides its permit.
pub struct Journey<'a> {
    pub peer: &'a Peer,
    pub request_id: &'a HeaderValue,
    pub traceparent: &'a HeaderValue,
}

/// A lane's way to the backends.
#[derive(Debug)]
pub struct Forwarder {
    pool: Rc<Pool>,
    turn: Cell<usize>,
}

impl Forwarder {
    pub fn new(idle_connections: usize) -> Self {
        Self { pool: Pool::new(idle_connections), turn: Cell::new(0) }
    }

    pub fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// Sends the request and returns the head of the answer with its body still under way.
    pub async fn forward(
        &self,
        permit: Permit,
        mut parts: request::Parts,
        upload: Option<Rc<Upload>>,
        journey: &Journey<'_>,
    ) -> Result<Response<Answer>, Refusal> {
        let backend = permit.backend().clone();
        let body = Outgoing::new(upload.clone(), permit.max_body());
        headers::to_backend(
            &mut parts,
            &Introduction {
                peer: journey.peer,
                request_id: journey.request_id,
                traceparent: journey.traceparent,
                identity: permit.identity(),
                keep_token: permit.keep_token(),
                csrf: permit.csrf(),
                credential: permit.credential(),
            },
        );
        // a length that is not known must be framed, whatever the method
        if !body.is_end_stream() && body.size_hint().exact().is_none() {
            parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        parts.version = Version::HTTP_11;
        let target = permit.target().path_and_query().clone();
        let sending = self.send(&backend, &target, Request::from_parts(parts, body));
        let outcome = match tokio::time::timeout(backend.timeout, sending).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Refusal::because(Reason::BackendTimeout, format!("backend {}", backend.name))),
        };
        let (mut response, lent) = outcome.map_err(|refusal| blame(refusal, upload.as_deref()))?;
        headers::to_client(response.headers_mut());
        Ok(response.map(|body| Answer::new(body, lent)))
    }

    async fn send(
        &self,
        backend: &Backend,
        target: &PathAndQuery,
        mut request: Request<Outgoing>,
    ) -> Result<(Response<Incoming>, Lent), Refusal> {
        let failed = |reason, detail: String| Refusal::because(reason, format!("backend {}: {detail}", backend.name));
        // an idle connection may have ended unnoticed: then the request was not sent and comes back
        for _ in 0..=2 {
            let (server, mut lent) = self.connection(backend).await?;
            address(&mut request, server, target).map_err(|detail| failed(Reason::Internal, detail))?;
            match lent.sender().try_send_request(request).await {
                Ok(response) => return Ok((response, lent)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) if lent.reused => request = unsent,
                    _ => return Err(failed(Reason::BackendFailed, error.error().to_string())),
                },
            }
        }
        Err(failed(Reason::BackendFailed, "connections end before a request can be sent".into()))
    }

    /// A connection to the server whose turn it is, or to the next one that takes it.
    async fn connection<'b>(&self, backend: &'b Backend) -> Result<(&'b Server, Lent), Refusal> {
        let count = backend.servers.len();
        let start = self.turn.replace(self.turn.get().wrapping_add(1));
        let mut last = String::new();
        for offset in 0..count {
            let server = &backend.servers[(start.wrapping_add(offset)) % count];
            if let Some(lent) = self.pool.idle(&server.authority) {
                return Ok((server, lent));
            }
            match self.pool.connect(&server.authority).await {
                Ok(lent) => return Ok((server, lent)),
                Err(error) => last = format!("{}: {error}", server.authority),
            }
        }
        Err(Refusal::because(Reason::BackendUnreachable, format!("backend {}: {last}", backend.name)))
    }
}

/// Points the request at a server: its base path before the target, its name as Host.
fn address(request: &mut Request<Outgoing>, server: &Server, target: &PathAndQuery) -> Result<(), String> {
    let path = if server.base_path.is_empty() {
        target.clone()
    } else {
        PathAndQuery::try_from(format!("{}{target}", server.base_path)).map_err(|error| error.to_string())?
    };
    *request.uri_mut() = Uri::from(path);
    request.headers_mut().insert(HOST, server.host.clone());
    Ok(())
}

/// A body that broke off is not the backend's fault.
fn blame(refusal: Refusal, upload: Option<&Upload>) -> Refusal {
    match upload.and_then(Upload::broken) {
        Some(Broken::TooLarge) => Reason::BodyTooLarge.into(),
        Some(Broken::Client) => Reason::ClientAborted.into(),
        None => refusal,
    }
}
