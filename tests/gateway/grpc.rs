//! gRPC through the gateway with tonic at both ends: its streams, its status in the trailers, and what
//! it makes of a refusal.

use crate::world::{World, runtime, server};
use bytes::{Buf, BufMut};
use futures_util::{Stream, StreamExt, stream};
use http::uri::PathAndQuery;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::pin::Pin;
use tokio::net::TcpListener;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

/// Messages as they are, without a schema.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; from.remaining()];
        from.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

type Messages = Pin<Box<dyn Stream<Item = Result<Vec<u8>, Status>> + Send>>;

/// Says each message back as it comes, with who sent it; `fail` ends the stream with a status.
async fn echo(request: Request<Streaming<Vec<u8>>>) -> Result<Response<Messages>, Status> {
    let client = request.metadata().get("x-auth-client-id").cloned();
    let said = move |message: Result<Vec<u8>, Status>| match message?.as_slice() {
        b"fail" => Err(Status::failed_precondition("as asked")),
        b"who" => Ok(client.as_ref().map_or_else(Vec::new, |client| client.as_encoded_bytes().to_vec())),
        other => Ok(other.to_vec()),
    };
    Ok(Response::new(Box::pin(request.into_inner().map(said))))
}

/// Speaks HTTP/2 with prior knowledge and allows few streams on a connection.
async fn grpc_server(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let service = hyper::service::service_fn(|request| async {
            let mut grpc = tonic::server::Grpc::new(Raw);
            Ok::<_, Infallible>(grpc.streaming(tower::service_fn(echo), request).await)
        });
        let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(http.max_concurrent_streams(4).serve_connection(TokioIo::new(stream), service));
    }
}

fn world() -> World {
    let routes = "
routes:
  - { name: grpc, path: /echo.Echo/*, backend: grpc }
  - { name: other, path: /other.Other/*, backend: grpc, user_role: Other.role }
";
    let more = format!("  grpc: {{ servers: [\"http://{}\"], protocol: http2 }}\n", server(grpc_server));
    World::with(routes, &more)
}

async fn client(world: &World) -> Grpc<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", world.plain)).expect("an endpoint");
    let mut grpc = Grpc::new(endpoint.connect().await.expect("connected"));
    grpc.ready().await.expect("ready");
    grpc
}

fn asked<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("a value"));
    request
}

async fn unary(world: &World, path: &'static str, token: &str, message: &str) -> Result<Vec<u8>, Status> {
    let path = PathAndQuery::from_static(path);
    let answer = client(world).await.unary(asked(token, message.as_bytes().to_vec()), path, Raw).await;
    answer.map(Response::into_inner)
}

const ECHO: &str = "/echo.Echo/Say";

#[test]
fn calls_their_status_and_a_refusal_arrive_as_grpc_knows_them() {
    let world = world();
    let sender = world.sender("caller", "ESBMessaging.send");
    let token = world.token(&sender);
    runtime().block_on(async {
        assert_eq!(unary(&world, ECHO, &token, "hello").await.expect("an answer"), b"hello");
        assert_eq!(unary(&world, ECHO, &token, "who").await.expect("an answer"), sender.id.as_bytes());
        let failed = unary(&world, ECHO, &token, "fail").await.expect_err("it fails");
        assert_eq!((failed.code(), failed.message()), (Code::FailedPrecondition, "as asked"));
        let unknown = unary(&world, ECHO, "junk", "hello").await.expect_err("refused");
        assert_eq!(unknown.code(), Code::Unauthenticated, "{unknown:?}");
        let refused = unary(&world, "/other.Other/Say", &token, "hello").await.expect_err("refused");
        assert_eq!(refused.code(), Code::PermissionDenied);
    });
}

#[test]
fn both_directions_of_a_stream_go_on_at_the_same_time() {
    let world = world();
    let token = world.token(&world.sender("caller", "ESBMessaging.send"));
    runtime().block_on(async {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Vec<u8>>(1);
        let sent = stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|one| (one, receiver)) });
        sender.send(b"0".to_vec()).await.expect("sent");
        let path = PathAndQuery::from_static(ECHO);
        let answer = client(&world).await.streaming(asked(&token, sent), path, Raw).await.expect("an answer");
        let mut heard = answer.into_inner();
        for number in 1..200_u32 {
            let said = heard.message().await.expect("a message").expect("one more");
            assert_eq!(said, (number - 1).to_string().into_bytes());
            sender.send(number.to_string().into_bytes()).await.expect("sent");
        }
        drop(sender);
        assert_eq!(heard.message().await.expect("a message").expect("the last"), b"199");
        assert_eq!(heard.message().await.expect("the end"), None);
    });
}

#[test]
fn many_streams_do_not_wait_for_each_other_at_a_server_that_allows_few() {
    let world = world();
    let token = world.token(&world.sender("caller", "ESBMessaging.send"));
    runtime().block_on(async {
        let mut held = Vec::new();
        for _ in 0..24 {
            let (sender, receiver) = tokio::sync::mpsc::channel::<Vec<u8>>(1);
            let sent =
                stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|one| (one, receiver)) });
            sender.send(b"open".to_vec()).await.expect("sent");
            let path = PathAndQuery::from_static(ECHO);
            let answer = client(&world).await.streaming(asked(&token, sent), path, Raw).await.expect("an answer");
            let mut heard = answer.into_inner();
            assert_eq!(heard.message().await.expect("a message").expect("one"), b"open");
            held.push((sender, heard));
        }
        assert_eq!(unary(&world, ECHO, &token, "still there").await.expect("an answer"), b"still there");
    });
}
