//! All entries, as lookups read them.

use super::meaning::{BadDestination, Destination};
use super::properties::Properties;
use super::{Entry, Level, Sort, entry};
use crate::crypto::digest::{Digest, hex, sha256};
use imbl::OrdMap;
use std::fmt;
use std::sync::Arc;

/// An entry, unsealed and read.
pub struct Item {
    pub sort: Sort,
    pub level: Level,
    pub name: String,
    /// Unix seconds.
    pub modified: i64,
    pub properties: Properties,
    pub facts: Arc<Facts>,
}

/// Properties with what follows from them.
pub struct Facts {
    pub digest: Digest,
    /// The properties as JSON, whole and without secrets.
    pub full: String,
    pub masked: String,
    /// What they mean, of a destination.
    pub meaning: Result<Destination, BadDestination>,
}

/// Values may be secrets: names alone are told.
impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Item({})", Entry::id_of(self.sort, &self.level, &self.name))
    }
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Facts({})", etag(&self.digest))
    }
}

impl Facts {
    /// Of a destination.
    pub fn of(properties: &Properties) -> Self {
        let meaning = Destination::read(properties).map(|(destination, _)| destination);
        Self::shown(properties, &properties.masked(), meaning)
    }

    fn shown(properties: &Properties, masked: &Properties, meaning: Result<Destination, BadDestination>) -> Self {
        let full = properties.to_json();
        Self { digest: sha256(full.as_bytes()), masked: masked.to_json(), full, meaning }
    }
}

/// Tells one state of an entry from another (RFC 9110, 8.8.3).
pub fn etag(digest: &Digest) -> String {
    format!("\"{}\"", hex(&digest[..16]))
}

impl Item {
    pub fn new(entry: &Entry, properties: Properties) -> Self {
        let facts = Arc::new(match entry.sort {
            Sort::Certificate => {
                Facts::shown(&properties, &entry::public(&properties), Err(BadDestination::NotADestination))
            }
            Sort::Destination | Sort::Fragment => Facts::of(&properties),
        });
        let (sort, level, name) = (entry.sort, entry.level.clone(), entry.name.clone());
        Self { sort, level, name, modified: entry.modified, properties, facts }
    }
}

/// By id, so that the entries of a sort and level stand together in the order of their names.
#[derive(Debug, Clone, Default)]
pub struct Directory(OrdMap<String, Arc<Item>>);

impl Directory {
    pub fn put(&mut self, item: Item) {
        self.0.insert(Entry::id_of(item.sort, &item.level, &item.name), Arc::new(item));
    }

    pub fn remove(&mut self, id: &str) {
        self.0.remove(id);
    }

    pub fn get(&self, sort: Sort, level: &Level, name: &str) -> Option<&Arc<Item>> {
        self.0.get(&Entry::id_of(sort, level, name))
    }

    /// On the instance's own level first, then on everybody's.
    pub fn find(&self, sort: Sort, instance: &str, name: &str) -> Option<&Arc<Item>> {
        let own = Level::Instance(instance.to_owned());
        self.get(sort, &own, name).or_else(|| self.get(sort, &Level::Subaccount, name))
    }

    /// In the order of their names.
    pub fn list<'a>(&'a self, sort: Sort, level: &'a Level) -> impl Iterator<Item = &'a Arc<Item>> {
        let start = Entry::id_of(sort, level, "");
        let items = self.0.range(start.clone()..);
        items.map_while(move |(id, item)| id.starts_with(&start).then_some(item))
    }
}
