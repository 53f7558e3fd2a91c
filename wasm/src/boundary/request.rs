//! What TypeScript asks for, parsed.

use std::fmt;
use std::marker::PhantomData;

use driftlog_core::id::{LogName, Name, RecordId};
use driftlog_core::value::Value;
use driftlog_core::view::Schema;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// `WireOptions`: how to open a client.
#[derive(Debug, PartialEq, Deserialize)]
pub(crate) struct Options {
    pub(crate) name: String,
    pub(crate) url: Option<String>,
    pub(crate) storage: StorageChoice,
    pub(crate) token: bool,
}

/// Where the rows are to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StorageChoice {
    /// IndexedDB if it opens, else memory.
    Auto,
    /// IndexedDB, or fail.
    IndexedDb,
    /// Memory, whatever there is.
    Memory,
}

/// Request of `open`: the log and how to read its collections.
#[derive(Debug, PartialEq, Deserialize)]
pub(crate) struct Open(pub(crate) LogName, pub(crate) Schema);

/// `WireAct`: name, args, ops, lifetime.
#[derive(Debug, PartialEq, Deserialize)]
pub(crate) struct Act(pub(crate) Name, pub(crate) Option<Value>, pub(crate) Vec<ActOp>, pub(crate) Option<u64>);

/// `WireOp`.
#[derive(Debug, PartialEq)]
pub(crate) enum ActOp {
    Insert { collection: Name, record: RecordId, fields: Vec<(Name, ActFieldOp)> },
    Update { collection: Name, record: RecordId, field: Name, op: ActFieldOp },
    Delete { collection: Name, record: RecordId },
}

/// `WireFieldOp`.
#[derive(Debug, PartialEq)]
pub(crate) enum ActFieldOp {
    Set(Value),
    Increment(i64),
    Add(Vec<Value>),
    Remove(Vec<Value>),
    InitialText(String),
    Splice(Vec<Splice>),
}

/// One replacement in a text, in UTF-16 code units: at, how many are deleted, what is inserted.
#[derive(Debug, PartialEq, Deserialize)]
pub(crate) struct Splice(pub(crate) u32, pub(crate) u32, pub(crate) String);

/// `WireEntryFilter`.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct EntryFilter {
    pub(crate) action: Option<String>,
    pub(crate) status: Option<Vec<String>>,
}

impl<'de> Deserialize<'de> for ActOp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Tagged::<Self>(PhantomData))
    }
}

impl FromTagged for ActOp {
    const WHAT: &'static str = "an op";

    fn parse<'de, A: SeqAccess<'de>>(word: &str, rest: &mut Rest<A>) -> Result<Option<Self>, A::Error> {
        Ok(Some(match word {
            "insert" => ActOp::Insert { collection: rest.next()?, record: rest.next()?, fields: rest.next()? },
            "update" => {
                ActOp::Update { collection: rest.next()?, record: rest.next()?, field: rest.next()?, op: rest.next()? }
            }
            "delete" => ActOp::Delete { collection: rest.next()?, record: rest.next()? },
            _ => return Ok(None),
        }))
    }
}

impl<'de> Deserialize<'de> for ActFieldOp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Tagged::<Self>(PhantomData))
    }
}

impl FromTagged for ActFieldOp {
    const WHAT: &'static str = "an op of a field";

    fn parse<'de, A: SeqAccess<'de>>(word: &str, rest: &mut Rest<A>) -> Result<Option<Self>, A::Error> {
        Ok(Some(match word {
            "set" => ActFieldOp::Set(rest.next()?),
            "increment" => ActFieldOp::Increment(rest.next()?),
            "add" => ActFieldOp::Add(rest.next()?),
            "remove" => ActFieldOp::Remove(rest.next()?),
            "initial" => ActFieldOp::InitialText(rest.next()?),
            "text" => ActFieldOp::Splice(rest.next()?),
            _ => return Ok(None),
        }))
    }
}

/// Parsed from an array whose first element says which shape the others have.
trait FromTagged: Sized {
    const WHAT: &'static str;

    /// `None`: the word is none of these.
    fn parse<'de, A: SeqAccess<'de>>(word: &str, rest: &mut Rest<A>) -> Result<Option<Self>, A::Error>;
}

/// What follows the word.
struct Rest<A> {
    elements: A,
    what: &'static str,
}

impl<'de, A: SeqAccess<'de>> Rest<A> {
    fn next<T: Deserialize<'de>>(&mut self) -> Result<T, A::Error> {
        self.elements
            .next_element()?
            .ok_or_else(|| de::Error::custom(format_args!("{} has too few elements", self.what)))
    }
}

struct Tagged<T>(PhantomData<T>);

impl<'de, T: FromTagged> Visitor<'de> for Tagged<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::WHAT)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<T, A::Error> {
        let mut rest = Rest { elements, what: T::WHAT };
        let word: String = rest.next()?;
        let parsed = T::parse(&word, &mut rest)?;
        parsed.ok_or_else(|| de::Error::custom(format_args!("{word:?} is not {}", T::WHAT)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use driftlog_core::view::{FieldSchema, Strategy};

    use super::super::decode;
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn record(text: &str) -> RecordId {
        RecordId::new(text).unwrap()
    }

    #[test]
    fn acts_parse_into_their_ops() {
        let fields = [("title", ("set", "milk")), ("note", ("initial", "cold"))];
        let splices = [(0u32, 1u32, "M")];
        let act = (
            "addTodo",
            Some("args"),
            (
                ("insert", "todos", "t1", fields),
                ("update", "todos", "t1", "note", ("text", splices)),
                ("update", "todos", "t1", "votes", ("increment", -2)),
                ("delete", "todos", "t0"),
            ),
            None::<u64>,
        );
        let parsed: Act = decode(&rmp_serde::to_vec(&act).unwrap()).unwrap();
        let update =
            |field: &str, op| ActOp::Update { collection: name("todos"), record: record("t1"), field: name(field), op };
        let expected = vec![
            ActOp::Insert {
                collection: name("todos"),
                record: record("t1"),
                fields: vec![
                    (name("title"), ActFieldOp::Set(Value::text("milk"))),
                    (name("note"), ActFieldOp::InitialText("cold".into())),
                ],
            },
            update("note", ActFieldOp::Splice(vec![Splice(0, 1, "M".into())])),
            update("votes", ActFieldOp::Increment(-2)),
            ActOp::Delete { collection: name("todos"), record: record("t0") },
        ];
        assert_eq!(parsed, Act(name("addTodo"), Some(Value::text("args")), expected, None));
    }

    #[test]
    fn unknown_words_and_short_arrays_are_refused() {
        let refused = |op: Vec<&str>| {
            let act = ("x", None::<u8>, [op], None::<u64>);
            decode::<Act>(&rmp_serde::to_vec(&act).unwrap()).unwrap_err().to_string()
        };
        assert!(refused(vec!["move", "a"]).contains("\"move\" is not an op"));
        assert!(refused(vec!["delete", "a"]).contains("too few elements"));
    }

    #[test]
    fn schemas_and_filters_parse() {
        let field = BTreeMap::from([("strategy", "counter")]);
        let schema = BTreeMap::from([("todos", BTreeMap::from([("fields", BTreeMap::from([("votes", field)]))]))]);
        let Open(log, schema) = decode(&rmp_serde::to_vec(&("board/42", schema)).unwrap()).unwrap();
        assert_eq!(log.as_str(), "board/42");
        let todos = &schema.collections[&name("todos")];
        assert_eq!(todos.fields[&name("votes")], FieldSchema { strategy: Strategy::Counter, default: None });
        let filter: EntryFilter =
            decode(&rmp_serde::to_vec_named(&BTreeMap::from([("action", "a")])).unwrap()).unwrap();
        assert_eq!(filter, EntryFilter { action: Some("a".into()), status: None });
    }
}
