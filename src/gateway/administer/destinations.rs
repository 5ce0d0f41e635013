//! Destinations, fragments and certificates: created, replaced, deleted. Each is a change of its own.

use super::{AdminError, Administration};
use crate::crypto::digest::sha256;
use crate::domain::destination::directory::etag;
use crate::domain::destination::entry::{BadEntry, Checked};
use crate::domain::destination::properties::Properties;
use crate::domain::destination::{Entry, Level, Sort};
use crate::domain::record::Record;
use crate::store::{StoreError, Writing};
use serde_json::Value;

/// What to do about entries of one sort and level.
#[derive(Debug)]
pub enum Change {
    Create(Value),
    /// In place of the one that is there, if it is as the tag says.
    Replace(Value, Option<String>),
    Delete(String, Option<String>),
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

/// An entry as it is now stored.
#[derive(Debug)]
pub struct Stored {
    pub name: String,
    pub etag: String,
    pub warnings: Vec<String>,
}

impl Administration<'_> {
    /// A change that a program asks for.
    pub async fn change_entry(&self, sort: Sort, level: &Level, change: Change) -> Result<Stored, AdminError> {
        match change {
            Change::Create(json) => {
                let checked = Checked::of_program(sort, &json)?;
                let mut writing = self.store.write().await?;
                if writing.get::<Entry>(&Entry::id_of(sort, level, &checked.name)).await?.is_some() {
                    return Err(AdminError::Exists { what: sort.word(), name: checked.name });
                }
                let stored = self.store_entry(&mut writing, sort, level, checked).await?;
                writing.commit().await?;
                Ok(stored)
            }
            Change::Replace(json, tag) => {
                let checked = Checked::of_program(sort, &json)?;
                let mut writing = self.store.write().await?;
                self.present_entry(&mut writing, sort, level, &checked.name, tag.as_deref()).await?;
                let stored = self.store_entry(&mut writing, sort, level, checked).await?;
                writing.commit().await?;
                Ok(stored)
            }
            Change::Delete(name, tag) => {
                let mut writing = self.store.write().await?;
                let properties = self.present_entry(&mut writing, sort, level, &name, tag.as_deref()).await?;
                self.unused_entry(&mut writing, sort, level, &name).await?;
                writing.delete::<Entry>(&Entry::id_of(sort, level, &name)).await?;
                writing.commit().await?;
                let etag = etag(&sha256(properties.to_json().as_bytes()));
                Ok(Stored { name, etag, warnings: Vec::new() })
            }
        }
    }

    /// Creates an entry, or replaces the one that is there, as an operator may.
    pub async fn put_entry(&self, sort: Sort, level: &Level, json: &Value) -> Result<Stored, AdminError> {
        let checked = Checked::parse(sort, json)?;
        let mut writing = self.store.write().await?;
        let stored = self.store_entry(&mut writing, sort, level, checked).await?;
        writing.commit().await?;
        Ok(stored)
    }

    /// All entries of a sort with their properties.
    pub async fn list_entries(&self, sort: Sort) -> Result<Vec<(Entry, Properties)>, AdminError> {
        let all = self.store.list::<Entry>().await?.into_iter().filter(|entry| entry.sort == sort);
        all.map(|entry| Ok((entry.clone(), self.open_entry(&entry)?))).collect()
    }

    async fn store_entry(
        &self,
        writing: &mut Writing<'_>,
        sort: Sort,
        level: &Level,
        checked: Checked,
    ) -> Result<Stored, AdminError> {
        let Checked { name, properties, warnings } = checked;
        let (id, json) = (Entry::id_of(sort, level, &name), properties.to_json());
        let sealed = self.store.vault().seal(&id, json.as_bytes());
        writing.put(&Entry { sort, level: level.clone(), name: name.clone(), modified: self.now, sealed }).await?;
        Ok(Stored { name, etag: etag(&sha256(json.as_bytes())), warnings })
    }

    /// The entry that is there, if it is as the tag says.
    async fn present_entry(
        &self,
        writing: &mut Writing<'_>,
        sort: Sort,
        level: &Level,
        name: &str,
        tag: Option<&str>,
    ) -> Result<Properties, AdminError> {
        let found = writing.get::<Entry>(&Entry::id_of(sort, level, name)).await?;
        let missing = || AdminError::NotFound { what: sort.word(), name: name.chars().take(200).collect() };
        let properties = self.open_entry(&found.ok_or_else(missing)?)?;
        let present = etag(&sha256(properties.to_json().as_bytes()));
        match tag {
            Some(tag) if tag != "*" && !tag.split(',').any(|one| one.trim() == present) => Err(AdminError::Changed),
            _ => Ok(properties),
        }
    }

    /// Others may live by a destination's assertions.
    async fn unused_entry(
        &self,
        writing: &mut Writing<'_>,
        sort: Sort,
        level: &Level,
        name: &str,
    ) -> Result<(), AdminError> {
        if sort != Sort::Destination {
            return Ok(());
        }
        for other in writing.list::<Entry>().await? {
            if (other.sort, &other.level) != (sort, level) {
                continue;
            }
            if self.open_entry(&other)?.get("clientAssertion.destinationName") == Some(name) {
                let (name, by) = (name.to_owned(), other.name);
                return Err(BadEntry::Used { name, level: level.clone(), by }.into());
            }
        }
        Ok(())
    }

    fn open_entry(&self, entry: &Entry) -> Result<Properties, AdminError> {
        let plain = self.store.vault().unseal(&entry.id(), &entry.sealed).map_err(StoreError::from)?;
        Ok(Properties::from_json(&plain).unwrap_or_default())
    }
}
