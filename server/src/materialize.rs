//! A log's records as JSON, without the app's schema: each field shows the most granular strategy it was written by.
//!
//! Source: docs/protocol.md, "HTTP". A text is its string, a set an array in the order of values, a counter its sum, a
//! register the latest value. Bytes have no form of their own in JSON and are `{"$bytes": "…"}` in base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use driftlog_core::state::{Field, FieldKey, RecordKey, State, TextError};
use driftlog_core::value::Value;
use serde_json::{Map, json};

/// The whole state with its position.
pub(crate) fn json(state: &State) -> Result<serde_json::Value, TextError> {
    let mut collections = Map::new();
    for (collection, records) in state.collections() {
        let mut rows = Map::new();
        for (id, record) in records {
            let mut row = Map::new();
            for (name, field) in record.fields() {
                let key = RecordKey { collection: collection.clone(), record: id.clone() };
                let at = FieldKey { key, field: name.clone() };
                row.insert(name.as_str().to_owned(), field_json(state, &at, field)?);
            }
            rows.insert(id.as_str().to_owned(), row.into());
        }
        collections.insert(collection.as_str().to_owned(), rows.into());
    }
    let cursor = state.cursor();
    let chain: String = cursor.chain.0.0.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(json!({
        "log_id": state.log().to_string(),
        "end": cursor.next.0,
        "chain": chain,
        "accepted_ms": state.accepted_last().ms(),
        "collections": collections,
    }))
}

fn field_json(state: &State, at: &FieldKey, field: &Field) -> Result<serde_json::Value, TextError> {
    if field.is_text() {
        return state.text(at).map(Into::into);
    }
    if let Some(elements) = field.set() {
        return Ok(elements.map(value_json).collect());
    }
    Ok(match (field.counter(), field.shown()) {
        (Some(sum), _) => sum.into(),
        (None, Some(living)) => value_json(&living.value),
        (None, None) => serde_json::Value::Null,
    })
}

pub(crate) fn value_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::Text(value) => value.as_str().into(),
        Value::Bytes(bytes) => json!({ "$bytes": STANDARD.encode(bytes) }),
        Value::Array(values) => values.iter().map(value_json).collect(),
        Value::Map(entries) => {
            entries.iter().map(|(key, value)| (key.clone(), value_json(value))).collect::<Map<_, _>>().into()
        }
    }
}
