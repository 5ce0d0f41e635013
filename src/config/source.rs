//! The YAML text as a tree that remembers where each value stands, and the `${..}` in its values.

use super::fault::{Faults, Place};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::{Location, Spanned};
use std::{collections::HashMap, fmt, path::Path};

/// A value with its place.
#[derive(Debug, Clone)]
pub struct Node {
    pub place: Place,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub enum Kind {
    /// Null, a truth value or a number.
    Plain(Value),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// The text of a map key.
    pub fn key(&self) -> &str {
        match &self.kind {
            Kind::Text(text) => text,
            _ => "",
        }
    }

    pub fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::Plain(Value::Null) => "nothing",
            Kind::Plain(Value::Bool(_)) => "a truth value",
            Kind::Plain(_) => "a number",
            Kind::Text(_) => "a text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a section",
        }
    }
}

/// Parses a file. A syntax error is the one fault that hides all others.
pub fn parse(text: &str, faults: &mut Faults) -> Option<Node> {
    let mut options = serde_saphyr::Options::default();
    options.strict_booleans = true;
    options.with_snippet = false;
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(root) => Some(node(root, &Lines::of(text))),
        Err(error) => {
            let place = error.location().map_or_else(Place::default, |at| Lines::of(text).place(&at));
            let message = error.to_string().lines().next().unwrap_or_default().to_owned();
            faults.error(
                place,
                format!("this is not valid YAML: {message}"),
                "correct the syntax; each key once, blanks for indentation",
            );
            None
        }
    }
}

enum Raw {
    Plain(Value),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Plain(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Plain(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Plain(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Plain(Value::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Plain(Value::from(value)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Plain(Value::from(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut out = Vec::new();
        while let Some(item) = items.next_element()? {
            out.push(item);
        }
        Ok(Raw::List(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Raw, A::Error> {
        let mut out = Vec::new();
        while let Some(member) = members.next_entry()? {
            out.push(member);
        }
        Ok(Raw::Map(out))
    }
}

fn node(raw: Spanned<Raw>, lines: &Lines<'_>) -> Node {
    let place = lines.place(&raw.referenced);
    let kind = match raw.value {
        Raw::Plain(value) => Kind::Plain(value),
        Raw::Text(value) => Kind::Text(value),
        Raw::List(items) => Kind::List(items.into_iter().map(|item| node(item, lines)).collect()),
        Raw::Map(members) => {
            let key = |key: Spanned<String>| Node { place: lines.place(&key.referenced), kind: Kind::Text(key.value) };
            Kind::Map(members.into_iter().map(|(name, value)| (key(name), node(value, lines))).collect())
        }
    };
    Node { place, kind }
}

/// A text and where its lines begin, so that finding a place does not walk through all before it.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// A place whose bytes end with the line: what follows is another value.
    fn place(&self, at: &Location) -> Place {
        let index = at.line().saturating_sub(1) as usize;
        let line_start = self.starts.get(index).copied().unwrap_or(self.text.len());
        let line = self.text.get(line_start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let column = at.column().saturating_sub(1) as usize;
        let start = line.char_indices().nth(column).map_or(line.len(), |(offset, _)| offset);
        let length = at.span().byte_len().unwrap_or(1).max(1) as usize;
        let visible = line.get(start..).map_or(0, |rest| rest.trim_end().len());
        let end = line_start + start + length.min(visible.max(1));
        let bytes = line_start + start..end.min(self.text.len());
        Place { line: at.line(), column: at.column(), bytes, hidden: false }
    }
}

/// Where each value of a file stands, by JSON pointer.
#[derive(Debug, Default)]
pub struct Places(HashMap<String, Place>);

impl Places {
    pub fn put(&mut self, pointer: &str, place: Place) {
        self.0.insert(pointer.to_owned(), place);
    }

    /// The place of a value, or of the nearest thing around it that was written.
    pub fn of(&self, pointer: &str) -> Place {
        let mut at = pointer;
        loop {
            if let Some(place) = self.0.get(at) {
                return place.clone();
            }
            match at.rfind('/') {
                Some(end) => at = &at[..end],
                None => return Place { line: 1, column: 1, bytes: 0..1, hidden: false },
            }
        }
    }
}

/// What `${..}` may read.
pub struct Surroundings<'a> {
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The folder of the file: relative paths start there.
    pub base: &'a Path,
}

/// A `${file:PATH}` whose file does not exist, told apart since the master key may be made later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    #[error("the file {0} does not exist")]
    NoFile(String),
    #[error("the file {0} cannot be read: {1}")]
    BadFile(String, String),
    #[error("the environment variable {0} is not set")]
    NoVariable(String),
    #[error("a `${{` is not closed")]
    Open,
}

/// Resolves `${NAME}`, `${NAME:-default}` and `${file:PATH}`; `$$` stands for one dollar sign.
/// Done per value after parsing, so that no value can change the structure of the file.
pub fn interpolate(text: &str, around: &Surroundings<'_>) -> Result<String, Unresolved> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('{') {
            let end = inner.find('}').ok_or(Unresolved::Open)?;
            out.push_str(&resolve(&inner[..end], around)?);
            rest = &inner[end + 1..];
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn resolve(name: &str, around: &Surroundings<'_>) -> Result<String, Unresolved> {
    if let Some(path) = name.strip_prefix("file:") {
        return super::disk::text(&around.base.join(path)).map(|text| text.trim_end().to_owned()).map_err(|error| {
            match error.kind() {
                std::io::ErrorKind::NotFound => Unresolved::NoFile(path.to_owned()),
                _ => Unresolved::BadFile(path.to_owned(), error.to_string()),
            }
        });
    }
    let (name, default) = name.split_once(":-").map_or((name, None), |(name, default)| (name, Some(default)));
    let found = (around.env)(name).or_else(|| default.map(str::to_owned));
    found.ok_or_else(|| Unresolved::NoVariable(name.to_owned()))
}

/// An object out of members.
pub fn object(members: Vec<(String, Value)>) -> Value {
    Value::Object(members.into_iter().collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(base: &Path) -> Surroundings<'_> {
        Surroundings { env: &|name| (name == "PORT").then(|| "8443".to_owned()), base }
    }

    #[test]
    fn variables_defaults_and_files_are_resolved_per_value() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("secret"), "s3cret\n").expect("written");
        let around = around(dir.path());
        for (text, want) in [
            ("plain", "plain"),
            ("127.0.0.1:${PORT}", "127.0.0.1:8443"),
            ("${HOST:-localhost}:${PORT}", "localhost:8443"),
            ("${file:secret}", "s3cret"),
            ("a$$b$c", "a$b$c"),
        ] {
            assert_eq!(interpolate(text, &around).as_deref(), Ok(want));
        }
        assert_eq!(interpolate("${X}", &around), Err(Unresolved::NoVariable("X".into())));
        assert_eq!(interpolate("${file:none}", &around), Err(Unresolved::NoFile("none".into())));
        assert_eq!(interpolate("${X", &around), Err(Unresolved::Open));
    }

    #[test]
    fn every_value_knows_its_line_and_column() {
        let text = "a: 1\nb:\n  - x: yes it is\n";
        let mut faults = Faults::new("f", text);
        let root = parse(text, &mut faults).expect("parses");
        let Kind::Map(members) = &root.kind else { panic!("a section") };
        let Kind::List(items) = &members[1].1.kind else { panic!("a list") };
        let Kind::Map(inner) = &items[0].kind else { panic!("a section") };
        let place = &inner[0].1.place;
        assert_eq!((place.line, place.column), (3, 8));
        assert_eq!(&text[place.bytes.clone()], "yes it is");
    }

    #[test]
    fn broken_yaml_is_one_fault_with_its_place() {
        for text in ["a: [1", "a: 1\na: 2\n", "a:\n\t- b"] {
            let mut faults = Faults::new("f", text);
            assert!(parse(text, &mut faults).is_none(), "{text}");
            assert_eq!(faults.errors(), 1);
        }
    }
}
