//! Faults of a configuration: all of them at once, each with its place and the remedy.

use crate::crypto::digest::Digest;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use std::{fmt, ops::Range};

/// Where something stands in the file. Lines and columns count from one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    pub line: u64,
    pub column: u64,
    pub bytes: Range<usize>,
    /// The value is a secret, so its line is not shown.
    pub hidden: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub place: Place,
    pub message: String,
    pub remedy: String,
    pub warning: bool,
}

/// Everything that is wrong with one file, in the order of the lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Faults {
    file: String,
    source: String,
    list: Vec<Fault>,
    /// A digest of what was read, so that the same faults are not told twice.
    pub seen: Digest,
}

impl Faults {
    pub fn new(file: &str, source: &str) -> Self {
        Self { file: file.to_owned(), source: source.to_owned(), list: Vec::new(), seen: Digest::default() }
    }

    pub fn error(&mut self, place: Place, message: impl Into<String>, remedy: impl Into<String>) {
        self.list.push(Fault { place, message: message.into(), remedy: remedy.into(), warning: false });
    }

    pub fn warn(&mut self, place: Place, message: impl Into<String>, remedy: impl Into<String>) {
        self.list.push(Fault { place, message: message.into(), remedy: remedy.into(), warning: true });
    }

    pub fn sort(&mut self) {
        self.list.sort_by_key(|fault| (fault.place.line, fault.place.column));
    }

    pub fn list(&self) -> &[Fault] {
        &self.list
    }

    pub fn errors(&self) -> usize {
        self.list.iter().filter(|fault| !fault.warning).count()
    }

    /// One line for a log: the first error and how many there are.
    pub fn summary(&self) -> String {
        let first = self.list.iter().find(|fault| !fault.warning);
        let first = first.map_or_else(String::new, |fault| {
            format!("{}:{}:{}: {}", self.file, fault.place.line, fault.place.column, fault.message)
        });
        match self.errors() {
            0 | 1 => first,
            many => format!("{first} (and {} more; `flowgate check` shows all)", many - 1),
        }
    }

    fn render(&self, fault: &Fault) -> String {
        let level = if fault.warning { Level::WARNING } else { Level::ERROR };
        let help = Level::HELP.message(fault.remedy.as_str());
        let title = level.primary_title(fault.message.as_str());
        let report = if fault.place.hidden || fault.place.line == 0 {
            let origin = Origin::path(self.file.as_str());
            let origin = origin.line(fault.place.line as usize).char_column(fault.place.column as usize);
            Group::with_title(title).element(origin).element(help)
        } else {
            let annotation = AnnotationKind::Primary.span(fault.place.bytes.clone());
            let snippet = Snippet::source(self.source.as_str()).path(self.file.as_str()).annotation(annotation);
            Group::with_title(title).element(snippet).element(help)
        };
        Renderer::plain().render(&[report])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.list {
            writeln!(f, "{}\n", self.render(fault))?;
        }
        Ok(())
    }
}
