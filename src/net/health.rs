//! Health checks: each server of a backend that wants them is asked in its own rhythm.

use super::client;
use super::connect::{self, Purpose};
use crate::domain::backend::{Backend, Health, Protocol, Server};
use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io::Error;
use std::sync::Arc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Checks the servers of a backend until `stop`.
pub fn watch(backend: &Arc<Backend>, stop: &CancellationToken) {
    if backend.health.is_none() {
        return;
    }
    for at in 0..backend.servers.len() {
        let (backend, stop) = (backend.clone(), stop.clone());
        tokio::spawn(async move {
            if let Some(health) = &backend.health {
                let work = rounds(&backend, &backend.servers[at], health);
                stop.run_until_cancelled(work).await;
            }
        });
    }
}

async fn rounds(backend: &Backend, server: &Server, health: &Health) {
    let mut ticks = interval(health.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut good, mut bad) = (0, 0);
    loop {
        ticks.tick().await;
        let outcome = match timeout(health.timeout, ask(backend, server, health)).await {
            Ok(Ok(status)) if (200..400).contains(&status.as_u16()) => Ok(()),
            Ok(Ok(status)) => Err(format!("it answers {status}")),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it does not answer in time".to_owned()),
        };
        (good, bad) = if outcome.is_ok() { (good + 1, 0) } else { (0, bad + 1) };
        let (name, authority) = (&backend.name, &*server.authority);
        match outcome {
            Ok(()) if good >= health.up_after && server.standing.checked(true) => {
                tracing::info!(backend = name, server = authority, "a server is well again");
            }
            Err(why) if bad >= health.down_after && server.standing.checked(false) => {
                tracing::warn!(backend = name, server = authority, why, "a server is not well and gets no calls");
            }
            _ => {}
        }
    }
}

async fn ask(backend: &Backend, server: &Server, health: &Health) -> Result<StatusCode, Failure> {
    let wire = connect::connect(server, Purpose::Calls, backend.times.connect).await?;
    let request = Request::builder().header(USER_AGENT, "flowgate");
    if backend.protocol == Protocol::Http2 || connect::chose_http2(&wire) {
        let scheme = if server.tls.is_some() { "https" } else { "http" };
        let request = request.uri(format!("{scheme}://{}{}", server.authority, health.path));
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(wire)).await?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request.body(Full::<Bytes>::default())?).await;
        connection.abort();
        return Ok(response?.status());
    }
    let request = request.uri(health.path.as_str()).header(HOST, server.host.clone());
    let (head, _) = client::exchange(wire, request.body(Full::default())?).await.map_err(Error::other)?;
    Ok(head.status)
}
