//! WebSockets through the gateway, with a real client and a real server.

use crate::world::{HOLD, Sender, World, connect, runtime, server, until};
use futures_util::{SinkExt, StreamExt};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

type Socket = WebSocketStream<TcpStream>;

/// Says every message back.
async fn echo_server(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async {
            let Ok(socket) = accept_async(stream).await else { return };
            let (sink, source) = socket.split();
            let _ = source.forward(sink).await;
        });
    }
}

fn world() -> (World, Sender, String) {
    let routes = "
routes:
  - { name: socket, path: /socket, backend: socket }
  - { name: stays, path: /stays, backend: socket, websocket: stay }
  - { name: none, path: /none, backend: socket, websocket: refuse }
  - { name: quiet, path: /quiet, backend: quiet }
";
    let address = server(echo_server);
    let more = format!(
        "  socket: {{ servers: [\"http://{address}\"] }}\n  quiet: {{ servers: [\"http://{address}\"], idle_timeout: 300ms }}\n"
    );
    let world = World::with(routes, &more);
    let sender = world.sender("caller", "ESBMessaging.send");
    let token = world.token(&sender);
    (world, sender, token)
}

async fn open(world: &World, path: &str, token: &str) -> Result<Socket, Error> {
    let stream = TcpStream::connect(world.plain).await.expect("connected");
    let mut request = format!("ws://localhost{path}").into_client_request()?;
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().expect("a value"));
    client_async(request, stream).await.map(|(socket, _)| socket)
}

async fn says_back(socket: &mut Socket, text: &str) -> bool {
    socket.send(Message::text(text)).await.is_ok()
        && matches!(socket.next().await, Some(Ok(Message::Text(said))) if said.as_str() == text)
}

/// The status with which the gateway answers in place of a tunnel.
fn status(outcome: Result<Socket, Error>) -> u16 {
    match outcome {
        Err(Error::Http(response)) => response.status().as_u16(),
        other => panic!("no answer: {other:?}"),
    }
}

#[test]
fn a_websocket_needs_the_routes_role_and_then_carries_what_both_ends_say() {
    let (world, _, token) = world();
    let outsider = world.token(&world.sender("outsider", "Other.role"));
    runtime().block_on(async {
        assert_eq!(status(open(&world, "/socket", "junk").await), 401);
        assert_eq!(status(open(&world, "/socket", &outsider).await), 403);
        assert_eq!(status(open(&world, "/none", &token).await), 502, "a server of sockets takes no ordinary call");
        let mut socket = open(&world, "/socket", &token).await.expect("opened");
        for text in ["one", "two"] {
            assert!(says_back(&mut socket, text).await);
        }
        let large = Message::binary(vec![7; 1 << 20]);
        socket.send(large.clone()).await.expect("sent");
        assert_eq!(socket.next().await.expect("a message").expect("whole"), large);
        socket.close(None).await.expect("closed");
        assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
    });
    let line = world.logged(|line| line["status"] == 101);
    assert!(line["bytes"].as_u64() > Some(1 << 20), "{line}");
    assert!(line.get("cut").is_none(), "{line}");
}

#[test]
fn a_websocket_ends_when_its_caller_loses_the_token_and_another_one_stays() {
    let (world, sender, token) = world();
    runtime().block_on(async {
        let mut follows = open(&world, "/socket", &token).await.expect("opened");
        let mut stays = open(&world, "/stays", &token).await.expect("opened");
        assert!(says_back(&mut follows, "hello").await && says_back(&mut stays, "hello").await);
        assert_eq!(world.post("/oauth/revoke", &sender.basic(), &format!("token={token}")).status, 200);
        let start = Instant::now();
        assert!(!matches!(follows.next().await, Some(Ok(_))));
        assert!(start.elapsed() < 2 * HOLD, "{:?}", start.elapsed());
        assert!(says_back(&mut stays, "still here").await);
    });
    let line = world.logged(|line| line["path"] == "/socket");
    assert_eq!((&line["status"], &line["cut"]), (&101.into(), &true.into()));
    assert_eq!(line["detail"], "its caller may not use it any longer");
}

#[test]
fn a_websocket_in_which_nothing_moves_is_closed() {
    let (world, _, token) = world();
    runtime().block_on(async {
        let mut socket = open(&world, "/quiet", &token).await.expect("opened");
        assert!(says_back(&mut socket, "hello").await);
        let ended = tokio::time::timeout(Duration::from_secs(5), socket.next()).await.expect("it ends");
        assert!(!matches!(ended, Some(Ok(_))));
    });
}

#[test]
fn a_tunnel_is_a_connection_of_its_address_until_it_ends() {
    let (world, _, token) = world();
    let path = world.file("config.yaml");
    let text = std::fs::read_to_string(&path).expect("read");
    std::fs::write(&path, text.replace("\nroutes:", "\nlimits: { connections_per_address: 1 }\nroutes:"))
        .expect("written");
    runtime().block_on(async {
        until("the bound is taken", || {
            let _one = connect(world.plain);
            world.get("/nowhere", "").status == 0
        });
        let socket = loop {
            if let Ok(socket) = open(&world, "/stays", &token).await {
                break socket;
            }
        };
        assert_eq!(world.get("/nowhere", "").status, 0);
        drop(socket);
        until("there is room again", || world.get("/nowhere", "").status == 404);
    });
}

#[test]
fn tunnels_count_as_calls_of_their_server_until_they_end() {
    let (world, _, token) = world();
    let metrics = || world.admin("/metrics").text();
    let calls = |count: u32| {
        metrics().lines().any(|line| {
            line.starts_with("flowgate_backend_calls{backend=\"socket\"") && line.ends_with(&format!(" {count}"))
        })
    };
    runtime().block_on(async {
        let _socket = open(&world, "/socket", &token).await.expect("opened");
        until("the tunnel is counted", || calls(1));
    });
    until("the tunnel is counted no more", || calls(0));
}
