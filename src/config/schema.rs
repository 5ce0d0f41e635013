//! Holds a file's tree against the schema generated from `file::File`: unknown keys, wrong types
//! and missing values, all of them, so that there is one description of the format.

use super::fault::{Faults, Place};
use super::source::{Kind, Node, Places, Surroundings, Unresolved, interpolate, object};
use crate::domain::name::did_you_mean;
use serde_json::Value;

/// Values that are never shown, not even the line that they stand in.
const HIDDEN: [&str; 1] = ["/store/master_key"];

pub struct Walk<'a> {
    pub schema: &'a Value,
    pub around: Surroundings<'a>,
    pub faults: &'a mut Faults,
    pub places: &'a mut Places,
}

impl Walk<'_> {
    /// The tree as JSON, without what is at fault.
    pub fn value(&mut self, node: &Node, schema: &Value, pointer: &str) -> Option<Value> {
        let schema = self.resolve(schema, node).clone();
        let mut place = node.place.clone();
        place.hidden = HIDDEN.contains(&pointer);
        self.places.put(pointer, place.clone());
        match &node.kind {
            // an empty file is a configuration without anything in it, not one of defaults
            Kind::Plain(Value::Null) if pointer.is_empty() => self.map(&[], &schema, pointer, &place),
            Kind::Plain(Value::Null) => None,
            Kind::Map(members) => self.map(members, &schema, pointer, &place),
            Kind::List(items) if allows(&schema, "array") => {
                let item = schema.get("items").cloned().unwrap_or(Value::Bool(true));
                let values = items.iter().enumerate();
                let values = values.filter_map(|(at, one)| self.value(one, &item, &format!("{pointer}/{at}")));
                Some(Value::Array(values.collect()))
            }
            Kind::Text(text) => self.text(text, &schema, pointer, place),
            Kind::Plain(value) => self.plain(value, node, &schema, place),
            Kind::List(_) => self.wrong(node, &schema, place),
        }
    }

    fn map(&mut self, members: &[(Node, Node)], schema: &Value, pointer: &str, place: &Place) -> Option<Value> {
        if !allows(schema, "object") {
            let node = Node { place: place.clone(), kind: Kind::Map(Vec::new()) };
            return self.wrong(&node, schema, place.clone());
        }
        let known = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
        let others = schema.get("additionalProperties").filter(|more| more.is_object()).cloned();
        let mut out = Vec::new();
        for (key, value) in members {
            let name = key.key();
            let Some(inner) = known.get(name).or(others.as_ref()) else {
                let meant = did_you_mean(name, known.keys().map(String::as_str));
                let hint = meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
                let list = known.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                self.faults.error(
                    key.place.clone(),
                    format!("unknown key `{name}`{hint}"),
                    format!("known here: {list}"),
                );
                continue;
            };
            if let Some(value) = self.value(value, inner, &format!("{pointer}/{name}")) {
                out.push((name.to_owned(), value));
            }
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        for name in required.filter(|name| !members.iter().any(|(key, _)| key.key() == *name)) {
            self.faults.error(place.clone(), format!("`{name}` is missing"), format!("add `{name}:` here"));
        }
        Some(object(out))
    }

    fn text(&mut self, text: &str, schema: &Value, pointer: &str, place: Place) -> Option<Value> {
        let resolved = match interpolate(text, &self.around) {
            Ok(resolved) => resolved,
            // made at the first start of an empty store
            Err(Unresolved::NoFile(path)) if HIDDEN.contains(&pointer) => {
                return Some(Value::String(format!("file:{path}")));
            }
            Err(error) => {
                self.faults.error(place, error.to_string(), "set it, or give a default as ${NAME:-default}");
                return None;
            }
        };
        if resolved != text {
            let typed = serde_json::from_str::<Value>(&resolved).ok();
            if let Some(value) = typed.filter(|value| !value.is_string() && fits(value, schema)) {
                return Some(value);
            }
        }
        let value = Value::String(resolved);
        if let Some(choices) = choices(schema) {
            if choices.contains(&value) {
                return Some(value);
            }
            let names: Vec<_> = choices.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            let given = value.as_str().unwrap_or_default();
            let meant = did_you_mean(given, names.iter().map(String::as_str));
            let hint = meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
            self.faults.error(
                place,
                format!("`{given}` is not possible here{hint}"),
                format!("use one of: {}", names.join(", ")),
            );
            return None;
        }
        if fits(&value, schema) {
            return Some(value);
        }
        self.faults.error(place, format!("expected {}, found a text", expectation(schema)), "correct the value");
        None
    }

    fn plain(&mut self, value: &Value, node: &Node, schema: &Value, place: Place) -> Option<Value> {
        if fits(value, schema) {
            return Some(value.clone());
        }
        if value.is_number() && allows(schema, "string") {
            return Some(Value::String(value.to_string()));
        }
        self.wrong(node, schema, place)
    }

    fn wrong(&mut self, node: &Node, schema: &Value, place: Place) -> Option<Value> {
        let message = format!("expected {}, found {}", expectation(schema), node.describe());
        self.faults.error(place, message, "correct the value");
        None
    }

    /// Follows references, and takes the first alternative that is not null, or better one that is of
    /// the node's kind.
    fn resolve<'s>(&'s self, schema: &'s Value, node: &Node) -> &'s Value {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            let target = name.strip_prefix('#').and_then(|pointer| self.schema.pointer(pointer));
            return target.map_or(schema, |target| self.resolve(target, node));
        }
        let Some(all) = schema.get("anyOf").and_then(Value::as_array) else { return schema };
        let real = all.iter().map(|one| self.resolve(one, node)).filter(|one| types(one) != ["null"]);
        let kind = match node.kind {
            Kind::Map(_) => "object",
            Kind::List(_) => "array",
            _ => "string",
        };
        let fitting = real.clone().find(|one| allows(one, kind));
        fitting.or_else(|| real.clone().next()).unwrap_or(schema)
    }
}

fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn allows(schema: &Value, kind: &str) -> bool {
    let types = types(schema);
    types.is_empty() || types.contains(&kind)
}

fn fits(value: &Value, schema: &Value) -> bool {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let inside = value.as_f64().is_none_or(|number| {
        bound("minimum").is_none_or(|least| number >= least) && bound("maximum").is_none_or(|most| number <= most)
    });
    allows(schema, kind) && inside
}

fn choices(schema: &Value) -> Option<Vec<Value>> {
    if let Some(list) = schema.get("enum").and_then(Value::as_array) {
        return Some(list.clone());
    }
    let all = schema.get("oneOf").and_then(Value::as_array)?;
    all.iter().map(|one| one.get("const").cloned()).collect()
}

fn expectation(schema: &Value) -> String {
    let name = match types(schema).into_iter().find(|kind| *kind != "null") {
        Some("object") => "a section",
        Some("array") => "a list",
        Some("integer") => "a whole number",
        Some("boolean") => "true or false",
        Some("string") => "a text",
        _ => "another value",
    };
    match (schema.get("minimum"), schema.get("maximum")) {
        (Some(least), Some(most)) => format!("{name} from {least} to {most}"),
        _ => name.to_owned(),
    }
}
