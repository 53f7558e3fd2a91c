//! Queries: which rows, in which order.
//!
//! In bytes: `[collection, [[field, comparison, value]…], [[field, direction]…], limit?, offset, refused?]`. Comparisons of
//! unlike kinds (a number with a text, anything with an absent value) hold only for `ne`.

use std::cmp::Ordering;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::row::Shown;
use super::schema::Schema;
use crate::id::Name;
use crate::value::Value;

/// What a query looks at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Column {
    /// The record's id, as text.
    Id,
    /// A field.
    Field(Name),
}

impl Serialize for Column {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Id => serializer.serialize_str("id"),
            Self::Field(name) => name.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Column {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Name::deserialize(deserializer)?;
        Ok(if name.as_str() == "id" { Self::Id } else { Self::Field(name) })
    }
}

/// How a column is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Comparison {
    /// Equal.
    Eq,
    /// Not equal, or absent.
    Ne,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
    /// One of the values in an array.
    In,
    /// A set or array that holds the value.
    Has,
    /// Present (true) or absent (false).
    Exists,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Condition(pub Column, pub Comparison, pub Value);

impl Condition {
    pub(super) fn holds(&self, shown: &Shown<'_>) -> bool {
        let Self(column, comparison, value) = self;
        let got = shown.column(column);
        let got = got.as_deref();
        let ordered = |wanted: &[Ordering]| {
            got.is_some_and(|got| got.is_comparable_to(value) && wanted.contains(&got.cmp(value)))
        };
        match comparison {
            Comparison::Eq => got == Some(value),
            Comparison::Ne => got != Some(value),
            Comparison::Gt => ordered(&[Ordering::Greater]),
            Comparison::Gte => ordered(&[Ordering::Greater, Ordering::Equal]),
            Comparison::Lt => ordered(&[Ordering::Less]),
            Comparison::Lte => ordered(&[Ordering::Less, Ordering::Equal]),
            Comparison::In => matches!(value, Value::Array(all) if got.is_some_and(|got| all.contains(got))),
            Comparison::Has => matches!(got, Some(Value::Array(all)) if all.contains(value)),
            Comparison::Exists => got.is_some() == (*value == Value::Bool(true)),
        }
    }
}

/// The direction of one key of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Smallest first; absent values before all.
    Asc,
    /// Largest first; absent values behind all.
    Desc,
}

/// Which rows of one collection, in which order, from where and how many. Ties are broken by id, ascending.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Query {
    /// The collection.
    pub collection: Name,
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// Keys of the order, the most significant first.
    pub order: Vec<(Column, Direction)>,
    /// At most so many rows.
    pub limit: Option<u64>,
    /// Without the first so many.
    pub offset: u64,
    /// What becomes of refused rows.
    #[serde(default)]
    pub refused: Refused,
}

/// What becomes of rows that own actions made which were refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Refused {
    /// They are gone, as if the actions had never been.
    #[default]
    Hide,
    /// They stay as the user left them, marked, until the dead letter is discarded or redriven.
    Keep,
}

/// The query asks for what the schema does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// Name a collection of the schema.
    #[error("the schema has no collection {0}")]
    UnknownCollection(Name),
    /// Name a field of the collection.
    #[error("collection {collection} has no field {field}")]
    UnknownField {
        /// The collection.
        collection: Name,
        /// The field.
        field: Name,
    },
}

impl Query {
    /// All rows of a collection by id.
    pub fn all(collection: Name) -> Self {
        Self { collection, conditions: Vec::new(), order: Vec::new(), limit: None, offset: 0, refused: Refused::Hide }
    }

    /// Whether refused rows stay.
    pub(crate) fn keeps(&self) -> bool {
        self.refused == Refused::Keep
    }

    pub(super) fn check(&self, schema: &Schema) -> Result<(), QueryError> {
        let unknown = || QueryError::UnknownCollection(self.collection.clone());
        let fields = &schema.collections.get(&self.collection).ok_or_else(unknown)?.fields;
        let conditions = self.conditions.iter().map(|Condition(column, ..)| column);
        for column in conditions.chain(self.order.iter().map(|(column, _)| column)) {
            if let Column::Field(field) = column
                && !fields.contains_key(field)
            {
                return Err(QueryError::UnknownField { collection: self.collection.clone(), field: field.clone() });
            }
        }
        Ok(())
    }

    pub(super) fn matches(&self, shown: &Shown<'_>) -> bool {
        self.conditions.iter().all(|condition| condition.holds(shown))
    }
}
