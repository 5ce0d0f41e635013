//! The gateway: who gets through, what the backend sees, what a failing backend looks like.

use crate::world::{Reply, World, connect};
use std::io::Write;

#[test]
fn a_protected_route_wants_a_token_for_changing_calls_and_gives_it_to_reading_ones() {
    let routes = "
routes:
  - { name: safe, path: /safe/*, backend: echo, csrf: protect }
  - { name: other, path: /other, backend: echo, csrf: protect }
  - { name: plain, path: /plain, backend: echo }
";
    let world = World::with(routes, "");
    let token = world.token(&world.sender("browser", "ESBMessaging.send"));
    let send = |method: &str, path: &str, header: &str| {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n");
        world.raw(format!("{head}{header}Content-Length: 0\r\nConnection: close\r\n\r\n").as_bytes())
    };
    let refused = send("POST", "/safe/x", "");
    assert_eq!((refused.status, refused.header("x-csrf-token")), (403, Some("Required")));
    assert_eq!(refused.json()["code"], "csrf_token_required");
    for method in ["GET", "HEAD"] {
        let fetched = send(method, "/safe/x", "X-CSRF-Token: Fetch\r\n");
        assert_eq!((fetched.status, fetched.header("cache-control")), (200, Some("no-store")));
        assert_eq!(world.backend.hits(), 0, "the flow does not see it");
        assert!(fetched.header("x-csrf-token").expect("a token").len() > 50);
    }
    let fetched = send("GET", "/safe/x", "X-CSRF-Token: fetch\r\n");
    let header = format!("X-CSRF-Token: {}\r\n", fetched.header("x-csrf-token").expect("a token"));
    let passed = send("POST", "/safe/y", &header);
    assert!(passed.status == 200 && !passed.text().to_ascii_lowercase().contains("x-csrf-token"));
    assert_eq!(send("DELETE", "/other", &header).status, 403, "it is of another route");
    assert_eq!(send("GET", "/safe/x", "").status, 200, "reading needs none");
    let unknown = world.raw(b"GET /safe/x HTTP/1.1\r\nHost: x\r\nX-CSRF-Token: fetch\r\nConnection: close\r\n\r\n");
    assert_eq!((unknown.status, unknown.header("x-csrf-token")), (401, None), "who is unknown gets none");
    assert!(send("POST", "/plain", "X-CSRF-Token: theirs\r\n").text().contains("theirs"), "the backend's own");
}

#[test]
fn a_call_gets_through_only_with_the_routes_role() {
    let world = World::new();
    let (holder, outsider) = (world.sender("holder", "ESBMessaging.send"), world.sender("outsider", "Other.role"));
    let (token, other) = (world.token(&holder), world.token(&outsider));
    let before = world.backend.hits();
    let missing = world.get("/http/orders/1", "");
    assert_eq!((missing.status, missing.header("www-authenticate")), (401, Some("Bearer realm=\"flowgate\"")));
    let refused = world.call("/http/orders/1", &other);
    assert_eq!(refused.status, 403);
    let challenge = refused.header("www-authenticate").expect("a challenge");
    assert!(
        challenge.contains("error=\"insufficient_scope\"")
            && challenge.contains("scope=\"it-rt-test!b1.ESBMessaging.send\"")
    );
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    assert_eq!(refused.json()["code"], "insufficient_scope");
    assert_eq!(world.call("/http/orders/admin/1", &token).status, 403);
    assert_eq!(world.call("/http/nothing", &token).status, 404);
    assert_eq!(world.backend.hits(), before, "a refusal reached the backend");
    assert_eq!(world.call("/HTTP/Orders/1", &token).status, 200);
    assert_eq!(world.backend.hits(), before + 1);
}

#[test]
fn the_backend_sees_path_and_query_as_they_came_and_who_called() {
    let world = World::new();
    let sender = world.sender("s", "ESBMessaging.send");
    let token = world.token(&sender);
    let headers = format!(
        "Authorization: bearer {token}\r\nX-Auth-Client-Id: evil\r\nx_auth_roles: evil\r\nSapAuthenticatedUserName: evil\r\nX-Request-Id: evil\r\nConnection: x-secret\r\nX-Secret: evil\r\nCamelHttpUri: evil\r\nX-Own: mine\r\n"
    );
    let seen = world.get("/http/Orders/a%20b/./c//d?Q=1&q=%2F", &headers).text();
    assert!(seen.starts_with("GET /http/Orders/a%20b/c/d?Q=1&q=%2F HTTP/1.1\r\n"), "{seen}");
    assert!(!seen.contains("evil") && !seen.contains(&token), "{seen}");
    for part in [
        format!("x-auth-client-id: {}", sender.id),
        "x-auth-roles: ESBMessaging.send".into(),
        format!("sapauthenticatedusername: {}", sender.id),
        "x-forwarded-for: 127.0.0.1".into(),
        "x-forwarded-host: localhost".into(),
        "x-forwarded-proto: http\r\n".into(),
        "traceparent: 00-".into(),
        "x-own: mine".into(),
        format!("host: {}", world.backend.address),
    ] {
        assert!(seen.contains(&part), "{part}: {seen}");
    }
    assert!(world.call("/kept", &token).text().contains(&token), "keep_token forwards it");
}

#[test]
fn connection_authorization_switches_nothing_off() {
    let world = World::new();
    assert_eq!(world.get("/http/orders/1", "Connection: authorization, close\r\n").status, 401);
    let sender = world.sender("s", "Other.role");
    let token = world.token(&sender);
    assert_eq!(
        world.get("/http/orders/1", &format!("Connection: authorization\r\nAuthorization: Bearer {token}\r\n")).status,
        403
    );
}

#[test]
fn bodies_pass_in_both_framings_and_with_expect() {
    let world = World::new();
    let post = |headers: &str, body: &str| {
        let request = format!("POST /open/x HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n{body}");
        world.raw(request.as_bytes())
    };
    let sized = post("Content-Length: 5\r\n", "hello");
    assert!(sized.text().contains("content-length: 5") && sized.text().ends_with("hello"), "{}", sized.text());
    let chunked = post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n");
    assert!(chunked.text().contains("transfer-encoding: chunked") && chunked.text().contains("hello"));
    let expected = post("Expect: 100-continue\r\nContent-Length: 5\r\n", "hello");
    assert!(expected.status == 200 && !expected.text().contains("expect:"), "{}", expected.text());
    let get = world.raw(b"GET /open/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    assert!(get.text().contains("hello"), "{}", get.text());
}

#[test]
fn expect_is_answered_by_the_refusal_and_the_body_never_asked_for() {
    let world = World::new();
    let mut stream = connect(world.plain);
    stream
        .write_all(b"POST /http/orders/1 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .expect("sent");
    assert_eq!(Reply::read_one(&mut stream).status, 401);
}

#[test]
fn head_and_chunked_answers_pass() {
    let world = World::new();
    let head = world.raw(b"HEAD /open/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!((head.status, head.header("content-length"), head.header("x-head")), (200, Some("4711"), Some("yes")));
    let chunked = world.get("/open/chunked", "");
    assert!(chunked.text().contains("GET /open/chunked"));
    assert!(chunked.header("x-gone").is_none(), "what Connection lists stays behind");
}

#[test]
fn a_body_that_is_too_large_is_refused_announced_or_not() {
    let world = World::new();
    let before = world.backend.hits();
    let announced =
        world.raw(b"POST /open/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\nConnection: close\r\n\r\n");
    assert_eq!(announced.status, 413);
    let chunk = format!("{:x}\r\n{}\r\n", 65536, "a".repeat(65536)).repeat(17);
    let streamed = world.raw(format!("POST /open/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{chunk}0\r\n\r\n").as_bytes());
    assert_eq!(streamed.status, 413);
    assert_eq!(world.backend.hits(), before, "no whole request reached the backend");
}

#[test]
fn a_failing_backend_is_told_from_a_slow_one() {
    let world = World::new();
    for (path, status, code, reason) in [
        ("/gone", 502, "backend_unreachable", "backend-unreachable"),
        ("/open/reset", 502, "backend_failed", "backend-failed"),
        ("/slow", 504, "backend_timeout", "backend-timeout"),
    ] {
        let reply = world.get(path, "");
        assert_eq!((reply.status, reply.json()["code"].as_str()), (status, Some(code)), "{path}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        world.logged(|line| line["reason"] == reason);
    }
    assert_eq!(world.get("/open/x", "").status, 200, "and others go on");
}

#[test]
fn one_token_from_one_place() {
    let world = World::new();
    let sender = world.sender("s", "ESBMessaging.send");
    let token = world.token(&sender);
    let before = world.backend.hits();
    let twice =
        world.get("/http/orders/1", &format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n"));
    assert_eq!(twice.status, 400);
    for query in [format!("access_token={token}"), format!("a=1&access%5Ftoken={token}")] {
        assert_eq!(world.call(&format!("/http/orders/1?{query}"), &token).status, 400);
    }
    for header in [
        sender.basic(),
        "Authorization: Digest x\r\n".into(),
        "Authorization: Bearer\r\n".into(),
        "Authorization: \r\n".into(),
    ] {
        assert_eq!(world.get("/http/orders/1", &header).status, 401, "{header}");
    }
    assert_eq!(world.backend.hits(), before);
}

#[test]
fn ambiguous_paths_and_hosts_are_refused() {
    let world = World::new();
    let before = world.backend.hits();
    for path in [
        "/open/a%2fb",
        "/open/..%2fhttp/orders",
        "/open/%2e%2e%2fx",
        "/open\\x",
        "/open/a;b",
        "/open/%00",
        "/open/%252e%252e/x",
        "/../x",
        "/open/%c0%ae",
    ] {
        assert_eq!(world.get(path, "").status, 400, "{path}");
    }
    for request in [
        "GET /open/x HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET /open/x HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
        "GET http://a/open/x HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n",
        "GET /open/x HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n",
        "TRACE /open/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nConnection: close\r\n\r\n",
    ] {
        let status = world.raw(request.as_bytes()).status;
        assert!((400..=405).contains(&status), "{status}: {request}");
    }
    let long = world.get(&format!("/open/{}", "a".repeat(9_000)), "");
    assert_eq!(long.status, 414);
    assert_eq!(world.backend.hits(), before);
}

#[test]
fn a_path_is_judged_in_the_form_in_which_it_is_forwarded() {
    let world = World::new();
    let sender = world.sender("s", "ESBMessaging.send");
    let token = world.token(&sender);
    for path in [
        "/http/orders//admin/x",
        "/http/orders/./admin/x",
        "/http/orders/y/../admin/x",
        "/http/orders/%61dmin/x",
        "/http/orders/ADMIN/x",
    ] {
        assert_eq!(world.call(path, &token).status, 403, "{path}");
    }
}

#[test]
fn http2_calls_pass_and_refusals_with_a_body_are_seen() {
    let world = World::new();
    let ca = world.file("ca.pem");
    std::fs::write(&ca, &world.ca.certificate).expect("written");
    let curl = |arguments: &[&str]| {
        let port = world.tls.port().to_string();
        let mut command = std::process::Command::new("curl");
        command
            .args([
                "-sS",
                "-o",
                "/dev/null",
                "-w",
                "%{http_version} %{http_code}",
                "--resolve",
                &format!("localhost:{port}:127.0.0.1"),
                "--cacert",
            ])
            .arg(&ca);
        let output = command.args(arguments).output().expect("curl runs");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let url = |path: &str| format!("https://localhost:{}{path}", world.tls.port());
    assert_eq!(curl(&["--http2", &url("/open/x")]), "2 200");
    assert_eq!(curl(&["--http2", "-d", "hello", &url("/open/x")]), "2 200");
    assert_eq!(curl(&["--http2", "-d", "hello", &url("/http/orders/1")]), "2 401");
    assert_eq!(curl(&["--http2", "-d", "hello", &url("/gone")]), "2 502");
    assert_eq!(curl(&["--http2", "-I", &url("/http/orders/1")]), "2 401");
    assert_eq!(curl(&["--http1.1", "-d", "hello", &url("/http/orders/1")]), "1.1 401");
}
