//! What bounds a client: framing, time, rates, and how much may be under way at once.

use crate::world::{Reply, World, connect};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A world whose configuration has these lines below `limits`.
fn world(routes: &str, limits: &str) -> World {
    World::changed(routes, |text| text.replace("\nroutes:", &format!("\nlimits: {{ {limits} }}\nroutes:")))
}

const OPEN: &str = "
routes:
  - { name: open, path: /open/*, authorization: none, backend: echo }
  - { name: slow, path: /slow, authorization: none, backend: slow }
";

#[test]
fn a_request_that_can_be_framed_in_two_ways_is_refused_and_its_connection_closed() {
    let world = World::new();
    let cases = [
        ("Content-Length: 4\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 4", 400),
        ("Content-Length: 4\r\nContent-Length: 4", 400),
        ("Content-Length: 4\r\nContent-Length: 5", 400),
        ("Content-Length: +4", 400),
        ("Content-Length: 4, 4", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: gzip, chunked", 501),
        ("Transfer-Encoding: x-other", 400),
        ("Content-Length: 4\nX-A: b", 400),
        ("X-A: b\r\n c\r\nContent-Length: 4", 400),
        ("Content-Length : 4", 400),
        ("X-A: a\0b\r\nContent-Length: 4", 400),
        ("X-A: a\rb\r\nContent-Length: 4", 400),
    ];
    for (fields, status) in cases {
        let mut stream = connect(world.plain);
        let twice =
            format!("POST /open/x HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n4\r\nwxyz\r\n0\r\n\r\n").repeat(2);
        let _ = stream.write_all(twice.as_bytes());
        let reply = Reply::read(&mut stream, true);
        assert_eq!(reply.status, status, "{fields}: {}", reply.text());
        assert!(!reply.text().contains("HTTP/1.1"), "{fields}: the connection goes on");
    }
    assert_eq!(world.backend.hits(), 0, "a refusal reached the backend");
    let chunked =
        "POST /open/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nConnection: close\r\n\r\n0\r\n\r\n";
    assert_eq!(world.raw(chunked.as_bytes()).status, 200);
}

#[test]
fn framing_is_judged_on_every_request_of_a_kept_connection() {
    let world = World::new();
    let mut kept = world.connection();
    let part = "\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for _ in 0..3 {
        let good = format!("POST /open/x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{part}", part.len());
        assert_eq!(kept.send(&good).status, 200, "a body that looks like a head is a body");
    }
    let bad = "POST /open/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(kept.send(bad).status, 400);
    assert_eq!(world.backend.hits(), 3);
    for before in ["Content-Length: 5\r\n\r\norder", "Transfer-Encoding: chunked\r\n\r\n5\r\norder\r\n0\r\n\r\n"] {
        let mut piped = world.connection();
        let good = format!("POST /open/x HTTP/1.1\r\nHost: a\r\n{before}");
        assert_eq!(piped.send(&format!("{good}{bad}")).status, 200);
        assert_eq!(Reply::read_one(&mut piped.0).status, 400, "a request that came with another one");
    }
    assert_eq!(world.backend.hits(), 5);
}

#[test]
fn a_chunked_body_whose_end_can_be_read_in_two_ways_is_the_last_thing_of_its_connection() {
    let world = World::new();
    let head = "POST /open/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let next = "GET /open/next HTTP/1.1\r\nHost: a\r\n\r\n";
    for body in ["0\r\n\n", "0\r\nA: b\n\r\n", "0\n\r\n", "5\norder\r\n0\r\n\r\n", "no size\r\n0\r\n\r\n"] {
        for pieces in [vec![format!("{head}{body}{next}{next}")], vec![head.into(), format!("{body}{next}{next}")]] {
            let mut stream = connect(world.plain);
            for piece in &pieces {
                let _ = stream.write_all(piece.as_bytes());
            }
            let reply = Reply::read(&mut stream, true);
            assert!([0, 400].contains(&reply.status), "{body:?}: {} {}", reply.status, reply.text());
            assert!(!reply.text().contains("HTTP/1.1"), "{body:?}: the connection goes on");
        }
    }
    assert_eq!(world.get("/open/x", "").status, 200);
}

/// How long it takes until the gateway has closed the connection.
fn closed_after(stream: &mut TcpStream) -> Duration {
    let start = Instant::now();
    let _ = stream.read_to_end(&mut Vec::new());
    start.elapsed()
}

#[test]
fn connections_that_say_nothing_or_do_not_end_what_they_say_are_closed() {
    let world = world(OPEN, "header_time: 1s, idle_time: 3s");
    let (mut silent, mut begun) = (connect(world.plain), connect(world.plain));
    begun.write_all(b"GET /open/x HTTP/1.1\r\nHost:").expect("sent");
    let mut kept = world.connection();
    assert_eq!(kept.send("GET /open/x HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    assert!(closed_after(&mut begun) < Duration::from_secs(4));
    assert_eq!(kept.send("GET /open/x HTTP/1.1\r\nHost: a\r\n\r\n").status, 200, "it was not idle for long");
    assert!(closed_after(&mut silent) < Duration::from_secs(8));
    assert!(closed_after(&mut kept.0) < Duration::from_secs(8));
}

#[test]
fn a_body_that_stands_still_is_answered_408_and_one_that_crawls_as_well() {
    let routes = "
routes:
  - { name: gap, path: /gap, authorization: none, backend: echo, body_gap: 300ms }
  - { name: time, path: /time, authorization: none, backend: echo, body_time: 600ms }
";
    let world = World::with(routes, "");
    for path in ["/gap", "/time"] {
        let mut stream = connect(world.plain);
        write!(stream, "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n").expect("sent");
        let mut crawling = stream.try_clone().expect("cloned");
        let crawl = std::thread::spawn(move || {
            // as fast as the gap allows, until nobody listens any more
            while path == "/time" && crawling.write_all(b"x").is_ok() {
                std::thread::park_timeout(Duration::from_millis(50));
            }
        });
        let reply = Reply::read(&mut stream, true);
        assert_eq!((reply.status, reply.json()["code"].as_str()), (408, Some("body_too_slow")), "{path}");
        drop(stream);
        crawl.join().expect("ended");
    }
    assert_eq!(world.backend.hits(), 0);
}

#[test]
fn an_address_has_no_more_connections_than_it_may_and_gets_room_again() {
    let world = world(OPEN, "connections_per_address: 2");
    let mut kept: Vec<_> = (0..2).map(|_| world.connection()).collect();
    let get = "GET /open/x HTTP/1.1\r\nHost: a\r\n\r\n";
    for one in &mut kept {
        assert_eq!(one.send(get).status, 200);
    }
    assert_eq!(world.get("/open/x", "").status, 0, "closed without an answer");
    kept.pop();
    crate::world::until("there is room again", || world.get("/open/x", "").status == 200);
}

#[test]
fn callers_behind_a_proxy_header_are_counted_by_their_own_address() {
    let world = World::changed(OPEN, |text| {
        let behind = "- { address: \"127.0.0.1:0\", trusted_proxies: [127.0.0.1], proxy_protocol: true }";
        text.replacen("- { address: \"127.0.0.1:0\" }", behind, 1)
            .replace("\nroutes:", "\nlimits: { connections_per_address: 2 }\nroutes:")
    });
    let ask = |caller: &str| {
        let mut stream = connect(world.plain);
        let request = "GET /open/x HTTP/1.1\r\nHost: a\r\n\r\n";
        let _ = write!(stream, "PROXY TCP4 {caller} 127.0.0.1 4660 80\r\n{request}");
        let mut first = [0; 12];
        let answered = stream.read_exact(&mut first).is_ok() && &first == b"HTTP/1.1 200";
        (stream, answered)
    };
    let mut kept: Vec<_> = (0..2).map(|_| ask("203.0.113.9")).collect();
    assert!(kept.iter().all(|(_, answered)| *answered));
    assert!(!ask("203.0.113.9").1, "one more is closed");
    assert!(ask("203.0.113.10").1, "others have their own");
    kept.pop();
    crate::world::until("there is room again", || ask("203.0.113.9").1);
}

#[test]
fn what_comes_above_the_number_of_requests_is_shed_while_the_admin_side_answers() {
    let world = world(OPEN, "requests: 4");
    let waiting: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = connect(world.plain);
            stream.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("sent");
            stream
        })
        .collect();
    assert_eq!(world.admin("/healthz").status, 200);
    let replies: Vec<_> = waiting.into_iter().map(|mut stream| Reply::read(&mut stream, true)).collect();
    let shed: Vec<_> = replies.iter().filter(|reply| reply.status == 503).collect();
    assert!(shed.len() >= 30, "{}", shed.len());
    assert!(shed.iter().all(|reply| reply.header("retry-after") == Some("1")));
    assert!(replies.iter().any(|reply| reply.status == 504), "the others wait for the backend");
    assert_eq!(world.get("/open/x", "").status, 200);
}

#[test]
fn a_client_that_calls_too_often_is_told_how_long_to_wait_and_others_are_not() {
    let routes = "
routes:
  - { name: each, path: /each, backend: echo, client_rate: 3/h }
  - { name: all, path: /all, authorization: none, backend: echo, rate: 2/h }
";
    let world = World::with(routes, "");
    let tokens = ["one", "other"].map(|name| world.token(&world.sender(name, "ESBMessaging.send")));
    for left in ["2", "1", "0"] {
        let reply = world.call("/each", &tokens[0]);
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("ratelimit-policy"), Some("\"default\";q=3;w=3600"));
        assert!(reply.header("ratelimit").expect("a header").starts_with(&format!("\"default\";r={left};t=")));
    }
    let refused = world.call("/each", &tokens[0]);
    assert_eq!((refused.status, refused.json()["code"].as_str()), (429, Some("rate_exceeded")));
    let wait: u64 = refused.header("retry-after").expect("a time").parse().expect("a number");
    assert!((1_100..=1_200).contains(&wait), "a third of an hour, not {wait}");
    assert_eq!(world.call("/each", &tokens[1]).status, 200);
    let open: Vec<_> = (0..3).map(|_| world.get("/all", "").status).collect();
    assert_eq!(open, [200, 200, 429]);
    assert_eq!(world.backend.hits(), 6);
}

#[test]
fn guessing_at_secrets_uses_up_nothing_of_the_rightful_clients() {
    let world = world(OPEN, "token_rate: 20/h");
    let sender = world.sender("rightful", "ESBMessaging.send");
    let ask = |headers: &str| world.post("/oauth/token", headers, "grant_type=client_credentials");
    let wrong = crate::world::basic(&sender.id, "wrong");
    let answers: Vec<_> = (0..25).map(|_| ask(&wrong)).collect();
    assert!(answers.iter().all(|answer| matches!(answer.status, 401 | 429)));
    let last = answers.last().expect("an answer");
    assert_eq!((last.status, last.json()["error"].as_str()), (429, Some("rate_exceeded")));
    assert!(last.header("retry-after").is_some() && last.header("ratelimit").is_some());
    assert_eq!(ask(&sender.basic()).status, 200);
    let mut good = 0;
    while ask(&sender.basic()).status == 200 {
        good += 1;
        assert!(good < 25, "its own rate holds as well");
    }
}
