//! Reads the source and holds its one rule: imports point left. It reads text and can be evaded on
//! purpose; it is there for accidents.

use std::path::{Path, PathBuf};

/// From left to right. Rooms of one place do not know each other.
const ORDER: [&[&str]; 9] = [
    &["crypto"],
    &["domain"],
    &["config"],
    &["store", "net"],
    &["gateway"],
    &["http"],
    &["serve"],
    &["cli"],
    &["main"],
];

/// Words that a room refuses to know.
const BANNED: [(&str, &[&str]); 8] = [
    ("crypto", &["tokio::", "hyper::", "std::fs", "std::env", "SystemTime", "async fn", "sqlx"]),
    (
        "domain",
        &["tokio::", "hyper::", "std::fs", "std::env", "std::net", "SystemTime", "async fn", "sqlx", "Timestamp::now"],
    ),
    ("config", &["tokio::", "hyper::", "std::env", "SystemTime", "async fn", "sqlx", "Timestamp::now"]),
    ("store", &["hyper::", "axum::", "StatusCode", "http::", "Timestamp::now", "RoleName", "Instance"]),
    ("net", &["sqlx", "axum::", "RoleName", "Instance", "grant_type", "client_credentials", "Timestamp::now"]),
    ("gateway", &["StatusCode", "axum::", "hyper::", "clap", "println!", "sqlx", "Timestamp::now"]),
    ("http", &["sqlx", "clap", "println!", "SigningKey", "Vault", "crate::store"]),
    ("serve", &["sqlx", "clap", "println!", "StatusCode"]),
];

const MOST_LINES: usize = 500;

fn files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            out.push(path);
        }
    }
}

/// Every file with its room and its text up to the tests.
fn sources() -> Vec<(PathBuf, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    files(&root, &mut paths);
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("text");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
        let inside = path.strip_prefix(&root).expect("inside").to_owned();
        let home = inside
            .components()
            .next()
            .expect("a room")
            .as_os_str()
            .to_string_lossy()
            .trim_end_matches(".rs")
            .to_owned();
        (inside, home, code)
    };
    paths.into_iter().map(read).filter(|(path, _, _)| !path.ends_with("tests.rs")).collect()
}

fn place(room: &str) -> usize {
    ORDER.iter().position(|rooms| rooms.contains(&room)).unwrap_or_else(|| panic!("`{room}` is no room"))
}

#[test]
fn imports_point_left() {
    let mut wrong = Vec::new();
    for (path, room, code) in sources().into_iter().filter(|(_, room, _)| room != "lib") {
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for import in line.match_indices("crate::").map(|(at, word)| &line[at + word.len()..]) {
                let other: String = import.chars().take_while(char::is_ascii_alphanumeric).collect();
                if other != room && place(&other) >= place(&room) {
                    wrong.push(format!("{}: {}", path.display(), line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports that do not point left:\n{}", wrong.join("\n"));
}

#[test]
fn rooms_do_not_know_what_they_refuse_to_know() {
    let mut wrong = Vec::new();
    for (path, room, code) in sources() {
        let banned = BANNED.iter().find(|(name, _)| *name == room).map_or(&[][..], |(_, words)| words);
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            wrong.extend(
                banned
                    .iter()
                    .filter(|word| line.contains(**word))
                    .map(|word| format!("{}: `{word}` in {}", path.display(), line.trim())),
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_its_purpose_and_is_short() {
    for (path, _, code) in sources() {
        let shown = path.display();
        assert!(code.starts_with("//! "), "{shown} does not begin with its purpose");
        let lines = code.lines().count();
        assert!(lines <= MOST_LINES, "{shown} has {lines} lines, at most {MOST_LINES} are allowed");
    }
}
