//! A scripted HTTP server: answers as a test says and keeps a journal of what it was sent.

use serde_json::json;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Method and target.
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

pub type Script = dyn Fn(usize, &Seen) -> String + Send + Sync;

pub struct Stub {
    pub address: SocketAddr,
    journal: Arc<Mutex<Vec<Seen>>>,
    script: Arc<Mutex<Arc<Script>>>,
}

impl Stub {
    /// `script` gets the number of requests before and the request; it gives the whole response.
    pub fn new(script: impl Fn(usize, &Seen) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
        let address = listener.local_addr().expect("an address");
        let journal = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Mutex<Arc<Script>>> = Arc::new(Mutex::new(Arc::new(script)));
        let (kept, said) = (journal.clone(), script.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (kept, said) = (kept.clone(), said.clone());
                std::thread::spawn(move || serve(stream, &kept, &said));
            }
        });
        Self { address, journal, script }
    }

    /// From now on; gives what was said before.
    pub fn say(&self, script: impl Fn(usize, &Seen) -> String + Send + Sync + 'static) -> Arc<Script> {
        std::mem::replace(&mut *self.script.lock().expect("unpoisoned"), Arc::new(script))
    }

    /// As before.
    pub fn resume(&self, script: Arc<Script>) {
        *self.script.lock().expect("unpoisoned") = script;
    }

    pub fn journal(&self) -> Vec<Seen> {
        self.journal.lock().expect("unpoisoned").clone()
    }
}

pub fn reply(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A backend that tells which token it was called with.
pub fn echo() -> Stub {
    Stub::new(|_, seen| {
        reply(
            "200 OK",
            &json!({ "authorization": seen.header("authorization"), "x-token": seen.header("x-token"), "twin": seen.header("x_token") }).to_string(),
        )
    })
}

/// The members of a form or a query.
pub fn form(text: &str) -> HashMap<String, String> {
    url::form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

fn serve(stream: TcpStream, journal: &Mutex<Vec<Seen>>, script: &Mutex<Arc<Script>>) {
    let mut out = stream.try_clone().expect("cloned");
    let mut reader = BufReader::new(stream);
    while let Some(seen) = read(&mut reader) {
        let before = {
            let mut journal = journal.lock().expect("unpoisoned");
            journal.push(seen.clone());
            journal.len() - 1
        };
        let script = script.lock().expect("unpoisoned").clone();
        if out.write_all(script(before, &seen).as_bytes()).is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut line = String::new();
    let mut next = |reader: &mut BufReader<TcpStream>| {
        line.clear();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        Some(line.trim_end().to_owned())
    };
    let first = next(reader)?;
    let mut headers = Vec::new();
    loop {
        let line = next(reader)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut seen = Seen { line: first, headers, body: String::new() };
    let length = seen.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    seen.body = String::from_utf8(body).ok()?;
    Some(seen)
}
