//! Destinations, fragments and certificates: created, replaced, deleted. What a program asks for in
//! one request is one transaction, in which each change is made or refused on its own.

use super::{AdminError, Administration};
use crate::crypto::digest::sha256;
use crate::domain::destination::directory::etag;
use crate::domain::destination::entry::{BadEntry, Checked, MOST_ENTRIES};
use crate::domain::destination::properties::Properties;
use crate::domain::destination::{Entry, Level, Sort};
use crate::domain::record::Record;
use crate::store::{StoreError, Writing};
use serde_json::Value;
use std::collections::HashMap;
use std::fmt;

/// What to do about an entry.
pub enum Change {
    Create(Value),
    /// In place of the one that is there, if it is as the condition says.
    Replace(Value, Condition),
    Delete(String, Condition),
}

impl Change {
    /// Which entry it is about, as far as that can be told.
    pub fn name(&self, sort: Sort) -> String {
        match self {
            Self::Create(json) | Self::Replace(json, _) => {
                json.get(sort.name_property()).and_then(Value::as_str).unwrap_or_default().to_owned()
            }
            Self::Delete(name, _) => name.clone(),
        }
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Change(..)")
    }
}

/// What If-Match says of the state that is to be changed (RFC 9110, 13.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    None,
    /// `*`
    Any,
    /// One of these tags; none if they could not be read.
    Tags(Vec<String>),
}

impl Condition {
    /// Whether an entry with this tag, or none, may be changed.
    pub fn holds(&self, etag: Option<&str>) -> bool {
        match (self, etag) {
            (Self::None, _) | (Self::Any, Some(_)) => true,
            (Self::Any | Self::Tags(_), None) => false,
            (Self::Tags(tags), Some(present)) => tags.iter().any(|tag| tag == present),
        }
    }
}

/// An entry as it is now stored.
#[derive(Debug)]
pub struct Stored {
    pub name: String,
    pub etag: String,
    pub warnings: Vec<String>,
}

/// The entries of one sort and level within a transaction.
struct Stock<'a, 'w> {
    admin: &'a Administration<'a>,
    writing: &'a mut Writing<'w>,
    sort: Sort,
    level: &'a Level,
    /// By name.
    entries: HashMap<String, Properties>,
}

impl Administration<'_> {
    /// Changes that a program asks for.
    pub async fn change_entries(
        &self,
        sort: Sort,
        level: &Level,
        changes: Vec<Change>,
    ) -> Result<Vec<Result<Stored, AdminError>>, AdminError> {
        let mut writing = self.store.write().await?;
        let mut stock = self.stock(&mut writing, sort, level).await?;
        let mut rows = Vec::with_capacity(changes.len());
        for change in changes {
            rows.push(match stock.change(change).await {
                Err(AdminError::Store(error)) => return Err(error.into()),
                row => row,
            });
        }
        writing.commit().await?;
        Ok(rows)
    }

    /// Creates an entry, or replaces the one that is there, as an operator may.
    pub async fn put_entry(&self, sort: Sort, level: &Level, json: &Value) -> Result<Stored, AdminError> {
        let checked = Checked::parse(sort, json)?;
        let mut writing = self.store.write().await?;
        let stored = self.stock(&mut writing, sort, level).await?.put(checked).await?;
        writing.commit().await?;
        Ok(stored)
    }

    pub async fn delete_entry(&self, sort: Sort, level: &Level, name: &str) -> Result<(), AdminError> {
        let mut writing = self.store.write().await?;
        self.stock(&mut writing, sort, level).await?.delete(name, &Condition::None).await?;
        Ok(writing.commit().await?)
    }

    /// All entries with their properties.
    pub async fn list_entries(&self) -> Result<Vec<(Entry, Properties)>, AdminError> {
        let all = self.store.list::<Entry>().await?.into_iter();
        all.map(|entry| Ok((entry.clone(), self.open_entry(&entry)?))).collect()
    }

    async fn stock<'a, 'w>(
        &'a self,
        writing: &'a mut Writing<'w>,
        sort: Sort,
        level: &'a Level,
    ) -> Result<Stock<'a, 'w>, AdminError> {
        let all = writing.list::<Entry>().await?;
        let own = all.into_iter().filter(|entry| (entry.sort, &entry.level) == (sort, level));
        let entries = own.map(|entry| Ok((entry.name.clone(), self.open_entry(&entry)?)));
        let entries = entries.collect::<Result<_, AdminError>>()?;
        Ok(Stock { admin: self, writing, sort, level, entries })
    }

    fn open_entry(&self, entry: &Entry) -> Result<Properties, AdminError> {
        let plain = self.store.vault().unseal(&entry.id(), &entry.sealed).map_err(StoreError::from)?;
        Ok(Properties::from_json(&plain).unwrap_or_default())
    }
}

impl Stock<'_, '_> {
    async fn change(&mut self, change: Change) -> Result<Stored, AdminError> {
        match change {
            Change::Create(json) => {
                let checked = Checked::of_program(self.sort, &json)?;
                if self.entries.contains_key(&checked.name) {
                    return Err(AdminError::Exists { what: self.sort.word(), name: checked.name });
                }
                self.put(checked).await
            }
            Change::Replace(json, condition) => {
                let checked = Checked::of_program(self.sort, &json)?;
                self.present(&checked.name, &condition)?;
                self.put(checked).await
            }
            Change::Delete(name, condition) => self.delete(&name, &condition).await,
        }
    }

    async fn put(&mut self, checked: Checked) -> Result<Stored, AdminError> {
        let Checked { name, properties, warnings } = checked;
        if self.entries.len() >= MOST_ENTRIES && !self.entries.contains_key(&name) {
            return Err(BadEntry::TooMany.into());
        }
        let (id, json) = (Entry::id_of(self.sort, self.level, &name), properties.to_json());
        let sealed = self.admin.store.vault().seal(&id, json.as_bytes());
        let (sort, level, modified) = (self.sort, self.level.clone(), self.admin.now);
        self.writing.put(&Entry { sort, level, name: name.clone(), modified, sealed }).await?;
        self.entries.insert(name.clone(), properties);
        Ok(Stored { name, etag: etag(&sha256(json.as_bytes())), warnings })
    }

    async fn delete(&mut self, name: &str, condition: &Condition) -> Result<Stored, AdminError> {
        let etag = self.present(name, condition)?;
        // others may live by a destination's assertions
        let uses = |properties: &Properties| properties.get("clientAssertion.destinationName") == Some(name);
        if let Some((by, _)) = self.entries.iter().find(|(_, properties)| uses(properties)) {
            let (name, level, by) = (name.to_owned(), self.level.clone(), by.clone());
            return Err(BadEntry::Used { name, level, by }.into());
        }
        self.writing.delete::<Entry>(&Entry::id_of(self.sort, self.level, name)).await?;
        self.entries.remove(name);
        Ok(Stored { name: name.to_owned(), etag, warnings: Vec::new() })
    }

    /// The tag of the entry that is there, if it is as the condition says.
    fn present(&self, name: &str, condition: &Condition) -> Result<String, AdminError> {
        let found = self.entries.get(name).map(|properties| etag(&sha256(properties.to_json().as_bytes())));
        if !condition.holds(found.as_deref()) {
            return Err(AdminError::Changed);
        }
        let name = || name.chars().take(200).collect();
        found.ok_or_else(|| AdminError::NotFound { what: "destination", name: name() })
    }
}
