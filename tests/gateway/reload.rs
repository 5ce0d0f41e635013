//! Change without interruption: the file, the certificates, the listeners, the signing keys.

use crate::world::{HOLD, ROUTES, Reply, World, config_text, server_certificate, until};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const MORE: &str = "
  - { name: new, path: /new, authorization: none, backend: echo }
";

fn write(world: &World, text: &str) {
    std::fs::write(world.file("config.yaml"), text).expect("written");
}

fn text(world: &World) -> String {
    std::fs::read_to_string(world.file("config.yaml")).expect("read")
}

#[test]
fn a_new_route_is_taken_and_a_bad_file_changes_nothing() {
    let world = World::new();
    assert_eq!(world.get("/new", "").status, 404);
    write(&world, &format!("{}{MORE}", text(&world).trim_end()));
    until("the route is taken", || world.get("/new", "").status == 200);
    let good = text(&world);
    write(&world, &format!("{good}  - {{ name: broken, path: nonsense, backend: nobody }}\n"));
    until("the fault is told", || world.admin("/metrics").text().contains("flowgate_config_last_reload_successful 0"));
    assert_eq!(world.get("/new", "").status, 200);
    assert!(world.admin("/readyz?verbose").text().contains("the configuration on disk is faulty"));
    assert_eq!(world.admin("/readyz").status, 200);
    write(&world, &good);
    until("and its mending", || world.admin("/metrics").text().contains("flowgate_config_last_reload_successful 1"));
}

#[test]
fn a_link_swapped_beside_the_file_is_noticed() {
    let world = World::new();
    let dir = world.dir.path();
    // the way in which Kubernetes mounts a ConfigMap: file -> ..data/file, ..data -> ..version
    let version = |name: &str, text: &str| {
        std::fs::create_dir(dir.join(name)).expect("a folder");
        std::fs::write(dir.join(name).join("config.yaml"), text).expect("written");
    };
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, dir.join("..tmp")).expect("linked");
        std::fs::rename(dir.join("..tmp"), dir.join(name)).expect("renamed");
    };
    let before = text(&world);
    version("..v1", &before);
    version("..v2", &format!("{}{MORE}", before.trim_end()));
    link("..v1", "..data");
    link("..data/config.yaml", "config.yaml");
    assert_eq!(world.get("/new", "").status, 404);
    link("..v2", "..data");
    until("the swap is noticed", || world.get("/new", "").status == 200);
}

#[test]
fn a_listener_comes_and_goes() {
    let world = World::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("an address").local_addr().expect("an address");
    let before = text(&world);
    let admin = "admin:";
    write(&world, &before.replacen(admin, &format!("  - {{ address: \"{free}\" }}\n{admin}"), 1));
    let answers = || {
        std::net::TcpStream::connect(free).is_ok_and(|mut stream| {
            use std::io::Write;
            let _ = stream.write_all(b"GET /open/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            Reply::read(&mut stream, true).status == 200
        })
    };
    until("it listens", answers);
    write(&world, &before);
    until("it is closed", || std::net::TcpStream::connect(free).is_err());
    assert_eq!(world.get("/open/x", "").status, 200);
}

/// The serial of the certificate that the TLS listener shows.
fn shown(world: &World) -> Vec<u8> {
    use std::io::{Read, Write};
    let mut stream = world.tls(None).expect("connects");
    stream.write_all(b"GET /open/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("sent");
    let _ = stream.read(&mut [0; 1]);
    stream.conn.peer_certificates().expect("shown")[0].to_vec()
}

#[test]
fn nothing_fails_while_configuration_certificate_and_signing_key_change_under_load() {
    let world = World::with(ROUTES, "tokens: { algorithm: ES256 }\n");
    let sender = world.sender("s", "ESBMessaging.send");
    let (stop, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        for worker in 0..4 {
            let (world, sender, stop, calls) = (&world, &sender, &stop, &calls);
            scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let token = world.token(sender);
                    let status = if worker % 2 == 0 {
                        world.call("/http/orders/1", &token).status
                    } else {
                        world.connection().call("/http/orders/1", &token)
                    };
                    assert_eq!(status, 200);
                    calls.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let progress = |more: usize| {
            let from = calls.load(Ordering::SeqCst);
            until("calls go on", || calls.load(Ordering::SeqCst) >= from + more);
        };
        for _ in 0..3 {
            let certificate = shown(&world);
            server_certificate(world.dir.path(), &world.ca);
            until("the new certificate is shown", || shown(&world) != certificate);
            let kid = world.get("/token_key", "").json()["kid"].clone();
            world.done(&["signing-key", "rotate", "--now"]);
            until("the new key signs", || world.get("/token_key", "").json()["kid"] != kid);
            let before = text(&world);
            write(&world, &format!("{}{MORE}", before.trim_end()));
            until("the route is taken", || world.get("/new", "").status == 200);
            write(&world, &before);
            until("the route is gone", || world.get("/new", "").status == 404);
            progress(20);
        }
    });
}

/// Ends the callers when the changes are done, or when one of them failed.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_backend_that_moves_is_found() {
    let world = World::new();
    let second = crate::world::Backend::start();
    write(&world, &config_text(&second, ROUTES, ""));
    let from = second.hits();
    let held = crate::world::time_until("the new backend is called", || {
        world.get("/open/x", "");
        second.hits() > from
    });
    assert!(held < HOLD * 2, "{held:?}");
}
