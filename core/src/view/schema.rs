//! The app's schema: how to read each field.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::id::Name;
use crate::value::Value;

/// What a field's writes merge by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// The value with the latest effective time.
    Register,
    /// The sum of increments.
    Counter,
    /// The elements added and not removed.
    Set,
    /// A text that many edit.
    Text,
}

/// How to read one field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FieldSchema {
    /// Its strategy.
    pub strategy: Strategy,
    /// What a register reads as before it is written; none: it is left out of the row.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
}

/// A default that is given as null is a default all the same.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// How to read one collection.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CollectionSchema {
    /// Whether it always has exactly one record, with the empty id.
    #[serde(default)]
    pub single: bool,
    /// Its fields.
    pub fields: BTreeMap<Name, FieldSchema>,
}

/// How to read a log: its collections, as a map.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schema {
    /// The collections.
    pub collections: BTreeMap<Name, CollectionSchema>,
}
