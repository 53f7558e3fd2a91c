//! Reading without a schema: what the log's records hold, for people and other programs.

use std::collections::BTreeMap;

use super::{Field, FieldKey, RecordKey, State, TextError};
use crate::id::Name;
use crate::value::Value;

impl State {
    /// Collection → record id → field → value. A field that several strategies wrote reads as text before set before
    /// counter before register.
    ///
    /// # Errors
    /// [`TextError`] if a text is damaged.
    pub fn plain(&self) -> Result<Value, TextError> {
        let mut collections = BTreeMap::new();
        for (collection, records) in &self.collections {
            let mut rows = BTreeMap::new();
            for (id, record) in records {
                let key = RecordKey { collection: collection.clone(), record: id.clone() };
                let mut row = BTreeMap::new();
                for (name, field) in record.fields() {
                    if let Some(value) = self.plain_field(&key, name, field)? {
                        row.insert(name.as_str().to_owned(), value);
                    }
                }
                rows.insert(id.as_str().to_owned(), Value::Map(row));
            }
            collections.insert(collection.as_str().to_owned(), Value::Map(rows));
        }
        Ok(Value::Map(collections))
    }

    fn plain_field(&self, key: &RecordKey, name: &Name, field: &Field) -> Result<Option<Value>, TextError> {
        if field.is_text() {
            let field = FieldKey { key: key.clone(), field: name.clone() };
            return self.text(&field).map(|text| Some(Value::Text(text)));
        }
        if let Some(elements) = field.set() {
            return Ok(Some(Value::Array(elements.cloned().collect())));
        }
        let counter = field.counter().map(Value::Int);
        Ok(counter.or_else(|| field.shown().map(|living| living.value.clone())))
    }
}
