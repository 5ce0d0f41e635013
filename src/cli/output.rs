//! How listings are shown: a table for people, JSON for programs.

use super::Outcome;
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use std::io::Write;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

/// Rows of named columns, in either format. JSON members are named as the columns are, in lower
/// case with underscores.
pub fn listing(format: Format, columns: &[&str], rows: Vec<Vec<Value>>) -> Outcome {
    if format == Format::Json {
        let named = rows.into_iter().map(|row| {
            let names = columns.iter().map(|name| name.to_ascii_lowercase().replace(' ', "_"));
            Value::Object(names.zip(row).collect())
        });
        return json(&Value::Array(named.collect()));
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|name| name.to_uppercase()));
    for row in rows {
        table.add_row(row.iter().map(cell));
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim().to_owned()).collect();
    print(&format!("{}\n", lines.join("\n")))
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

pub fn json(value: &Value) -> Outcome {
    print(&format!("{value:#}\n"))
}

/// Writes to stdout; a reader that has gone away is no failure.
pub fn print(text: &str) -> Outcome {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
