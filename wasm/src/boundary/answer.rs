//! What the engine tells TypeScript, as it is written.

use serde::ser::{SerializeMap, SerializeTuple};
use serde::{Serialize, Serializer};

/// `WireNotice`. `W` is a row as core shows it, written by [`Serialize`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Notice<R> {
    /// The rows of a query changed.
    Patch { handle: u32, query: u32, patches: Vec<Patch<R>> },
    /// A write got further.
    Write { handle: u32, write: String, status: WriteStatus, detail: WriteDetail },
    /// The connection changed.
    Connection(Connection),
    /// A log's state changed.
    Log { handle: u32, state: LogState },
    /// The dead letters of a log changed.
    DeadLetters { handle: u32 },
    /// The next hello waits for a token.
    TokenWanted { reason: String },
}

/// `WirePatch`: indexes hold after the patches before it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Patch<R> {
    Insert(u32, R),
    Remove(u32),
    Update(u32, R),
}

/// How far a write got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WriteStatus {
    Stored,
    Accepted,
    Refused,
    /// Not recorded, and gone from the view.
    Failed,
}

/// `WireWriteDetail`: what is absent is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WriteDetail {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) accepted_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) author: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) number: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) entry_id: Option<String>,
}

/// `WireConnection`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Connection {
    pub(crate) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
}

/// `WireLogState`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogState {
    pub(crate) status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) end: Option<u64>,
    pub(crate) outbox: u64,
    pub(crate) dead_letters: u64,
}

/// `WireEntry`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    pub(crate) write_id: String,
    pub(crate) action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) args: Option<driftlog_core::value::Value>,
    pub(crate) status: &'static str,
    pub(crate) time: u64,
    /// Offset, outcome, code and the like.
    #[serde(flatten)]
    pub(crate) detail: WriteDetail,
}

/// `WireStorage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Storage {
    pub(crate) mode: &'static str,
    pub(crate) durable: bool,
    pub(crate) tabs: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

impl<R: Serialize> Serialize for Notice<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Notice::Patch { handle, query, patches } => ("patch", handle, query, patches).serialize(serializer),
            Notice::Write { handle, write, status, detail } => {
                ("write", handle, write, status, detail).serialize(serializer)
            }
            Notice::Connection(connection) => ("connection", connection).serialize(serializer),
            Notice::Log { handle, state } => ("log", handle, state).serialize(serializer),
            Notice::DeadLetters { handle } => ("deadLetters", handle).serialize(serializer),
            Notice::TokenWanted { reason } => ("token-wanted", reason).serialize(serializer),
        }
    }
}

impl<R: Serialize> Serialize for Patch<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Patch::Insert(index, row) => ("insert", index, row).serialize(serializer),
            Patch::Remove(index) => ("remove", index).serialize(serializer),
            Patch::Update(index, row) => ("update", index, row).serialize(serializer),
        }
    }
}

/// `[writeId, notices…]`: the answer to `act`.
pub(crate) struct Acted<'a, R> {
    pub(crate) write: &'a str,
    pub(crate) notices: &'a [Notice<R>],
}

impl<R: Serialize> Serialize for Acted<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(1 + self.notices.len())?;
        tuple.serialize_element(self.write)?;
        self.notices.iter().try_for_each(|notice| tuple.serialize_element(notice))?;
        tuple.end()
    }
}

/// `WireRow`: the fields beside `id` and `$`, in one map.
pub(crate) fn serialize_row<'a, S: Serializer, V: Serialize + 'a>(
    serializer: S,
    id: &str,
    about: &impl Serialize,
    fields: impl ExactSizeIterator<Item = (&'a str, V)>,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(fields.len() + 2))?;
    map.serialize_entry("id", id)?;
    map.serialize_entry("$", about)?;
    for (name, value) in fields {
        map.serialize_entry(name, &value)?;
    }
    map.end()
}

#[cfg(test)]
mod tests {
    use driftlog_core::value::Value;

    use super::super::{decode, encode};
    use super::*;

    fn check(answer: &impl Serialize, expected: &str) {
        let value: Value = decode(&encode(answer)).unwrap();
        assert_eq!(serde_json::to_string(&value).unwrap(), expected);
    }

    #[test]
    fn notices_are_arrays_with_a_word_in_front() {
        let patches = vec![Patch::Insert(0, 7), Patch::Update(1, 8), Patch::Remove(2)];
        let patch = Notice::Patch { handle: 1, query: 2, patches };
        check(&patch, r#"["patch",1,2,[["insert",0,7],["update",1,8],["remove",2]]]"#);
        let detail = WriteDetail { offset: Some(5), accepted_at: Some(9), ..WriteDetail::default() };
        let write = Notice::<u8>::Write { handle: 1, write: "r-1".into(), status: WriteStatus::Accepted, detail };
        check(&write, r#"["write",1,"r-1","accepted",{"acceptedAt":9,"offset":5}]"#);
        check(
            &Acted { write: "r-1", notices: &[write] },
            r#"["r-1",["write",1,"r-1","accepted",{"acceptedAt":9,"offset":5}]]"#,
        );
        check(&Notice::<u8>::TokenWanted { reason: "expired".into() }, r#"["token-wanted","expired"]"#);
    }

    #[test]
    fn absent_values_are_left_out() {
        let state = LogState { status: "local", reason: None, end: Some(3), outbox: 1, dead_letters: 0 };
        check(
            &Notice::<u8>::Log { handle: 4, state },
            r#"["log",4,{"deadLetters":0,"end":3,"outbox":1,"status":"local"}]"#,
        );
        let detail = WriteDetail { code: Some("forbidden"), ..WriteDetail::default() };
        let entry =
            Entry { write_id: "r-1".into(), action: "a".into(), args: None, status: "refused", time: 1, detail };
        check(&entry, r#"{"action":"a","code":"forbidden","status":"refused","time":1,"writeId":"r-1"}"#);
    }
}
