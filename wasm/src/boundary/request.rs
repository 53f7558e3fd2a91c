//! What TypeScript asks for, parsed.

use std::fmt;
use std::marker::PhantomData;

use driftlog_core::draft::{Draft, DraftFieldOp, DraftOp};
use driftlog_core::engine::{Own, Trap};
use driftlog_core::id::{LogName, Name, Offset, Seq, WriteId};
use driftlog_core::op::DeletePolicy;
use driftlog_core::outbox::BacklogBound;
use driftlog_core::rich::Splice;
use driftlog_core::session::client::Priority;
use driftlog_core::value::Value;
use driftlog_core::view::Schema;
use driftlog_core::witness::Work;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::answer::Entry;
use super::{BadRequest, decode};

/// `WireOptions`: how to open a client.
#[derive(Debug, PartialEq, Deserialize)]
pub(crate) struct Options {
    pub(crate) name: String,
    pub(crate) url: Option<String>,
    pub(crate) storage: StorageChoice,
    pub(crate) token: bool,
    pub(crate) device: Option<String>,
    pub(crate) backlog: Backlog,
    /// The last write id of this page, if an engine before this one gave it: ids go on behind it.
    pub(crate) after: Option<String>,
    /// Whether the app wants to stay offline for now.
    pub(crate) offline: bool,
    /// What the engine before did not come back from, as far as it is known.
    pub(crate) trap: Option<Trapped>,
}

/// How much of each log may wait for the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Backlog {
    pub(crate) entries: Option<u64>,
    pub(crate) bytes: Option<u64>,
}

impl From<Backlog> for BacklogBound {
    fn from(Backlog { entries, bytes }: Backlog) -> Self {
        Self { entries, bytes }
    }
}

/// `WireTrap`: one of the last three says what was worked on.
#[derive(Debug, PartialEq, Deserialize)]
pub(crate) struct Trapped {
    log: LogName,
    reason: String,
    own: Option<String>,
    confirmed: Option<u64>,
    snapshot: Option<bool>,
}

impl Trapped {
    /// The trap as core takes it; none if nothing is known of the work.
    pub(crate) fn trap(self) -> Option<Trap> {
        let own = self.own.and_then(|own| WriteId::parse(&own)).map(Work::Own);
        let confirmed = self.confirmed.map(|offset| Work::Confirmed(Offset(offset)));
        let work = own.or(confirmed).or(self.snapshot.map(|_| Work::Snapshot(())))?;
        Some(Trap { log: self.log, work, reason: self.reason })
    }
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

/// Request of `open`: the log, how to read its collections, and its priority, if the app says one.
#[derive(Debug, PartialEq, Deserialize)]
pub(crate) struct Open(pub(crate) LogName, pub(crate) Schema, pub(crate) Option<PriorityChoice>);

/// How much of the way a log gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PriorityChoice {
    /// It may come last.
    Low,
    /// As any.
    Normal,
    /// The user waits for it.
    High,
}

impl From<PriorityChoice> for Priority {
    fn from(choice: PriorityChoice) -> Self {
        match choice {
            PriorityChoice::Low => Self::Low,
            PriorityChoice::Normal => Self::Normal,
            PriorityChoice::High => Self::High,
        }
    }
}

/// `WireAct`: name, args, ops, lifetime.
#[derive(Debug, Deserialize)]
struct WireAct(Name, Option<Value>, Vec<WireOp>, Option<u64>);

/// Parses the request of `act`.
///
/// # Errors
/// [`BadRequest`] with the place that does not fit.
pub(crate) fn draft(bytes: &[u8]) -> Result<Draft, BadRequest> {
    let WireAct(name, args, ops, lifetime_ms) = decode(bytes)?;
    let ops = ops.into_iter().map(|WireOp(op)| op).collect();
    Ok(Draft { name, args, ops, lifetime_ms })
}

#[derive(Debug)]
struct WireOp(DraftOp);

#[derive(Debug)]
struct WireFieldOp(DraftFieldOp);

/// At, how many are deleted, what is inserted; in UTF-16 code units.
#[derive(Debug, Deserialize)]
struct WireSplice(usize, usize, String);

/// `WireEntryFilter`.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct EntryFilter {
    pub(crate) action: Option<String>,
    pub(crate) status: Option<Vec<String>>,
    /// Of dead letters alone, those from this seq on.
    pub(crate) from: u64,
}

impl EntryFilter {
    /// What must be looked through for it.
    pub(crate) fn which(&self) -> Own {
        match &self.status {
            Some(wanted) if wanted.iter().all(|status| status == "refused") => Own::Refused(Seq(self.from)),
            Some(wanted) if !wanted.iter().any(|status| status == "accepted") => Own::NotAccepted,
            _ => Own::All,
        }
    }

    /// Whether the entry is wanted.
    pub(crate) fn admits(&self, entry: &Entry) -> bool {
        self.action.as_ref().is_none_or(|action| *action == entry.action)
            && self.status.as_ref().is_none_or(|status| status.iter().any(|status| status == entry.status))
    }
}

impl<'de> Deserialize<'de> for WireOp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Tagged::<Self>(PhantomData))
    }
}

/// What a delete does to changes that it has not seen, where the app does not leave them to the delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum DeletionChoice {
    /// They bring the record back.
    #[serde(rename = "update-wins")]
    UpdateWins,
}

impl From<DeletionChoice> for DeletePolicy {
    fn from(choice: DeletionChoice) -> Self {
        match choice {
            DeletionChoice::UpdateWins => Self::UPDATE_WINS,
        }
    }
}

impl FromTagged for WireOp {
    const WHAT: &'static str = "an op";

    fn parse<'de, A: SeqAccess<'de>>(word: &str, rest: &mut Rest<A>) -> Result<Option<Self>, A::Error> {
        Ok(Some(WireOp(match word {
            "insert" => {
                let (collection, record) = (rest.next()?, rest.next()?);
                let fields: Vec<(Name, WireFieldOp)> = rest.next()?;
                let fields = fields.into_iter().map(|(field, WireFieldOp(op))| (field, op)).collect();
                DraftOp::Insert(collection, record, fields)
            }
            "update" => {
                let (collection, record, field) = (rest.next()?, rest.next()?, rest.next()?);
                let WireFieldOp(op) = rest.next()?;
                DraftOp::Update(collection, record, field, op)
            }
            "delete" => {
                let (collection, record) = (rest.next()?, rest.next()?);
                let policy = rest.last::<DeletionChoice>()?.map_or(DeletePolicy::Wins, DeletePolicy::from);
                DraftOp::Delete(collection, record, policy)
            }
            _ => return Ok(None),
        })))
    }
}

impl<'de> Deserialize<'de> for WireFieldOp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Tagged::<Self>(PhantomData))
    }
}

impl FromTagged for WireFieldOp {
    const WHAT: &'static str = "an op of a field";

    fn parse<'de, A: SeqAccess<'de>>(word: &str, rest: &mut Rest<A>) -> Result<Option<Self>, A::Error> {
        Ok(Some(WireFieldOp(match word {
            "set" => DraftFieldOp::Set(rest.next()?),
            "increment" => DraftFieldOp::Increment(rest.next()?),
            "add" => DraftFieldOp::Add(rest.next()?),
            "remove" => DraftFieldOp::Remove(rest.next()?),
            "initial" => DraftFieldOp::InitialText(rest.next()?),
            "text" => {
                let splices: Vec<WireSplice> = rest.next()?;
                let splice = |WireSplice(at, delete, insert)| Splice { at, delete, insert };
                DraftFieldOp::Splice(splices.into_iter().map(splice).collect())
            }
            _ => return Ok(None),
        })))
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

    /// An element that may be left out.
    fn last<T: Deserialize<'de>>(&mut self) -> Result<Option<T>, A::Error> {
        self.elements.next_element()
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

    use driftlog_core::id::RecordId;
    use driftlog_core::view::{FieldSchema, Strategy};

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn record(text: &str) -> RecordId {
        RecordId::new(text).unwrap()
    }

    #[test]
    fn acts_parse_into_drafts() {
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
                ("delete", "todos", "t2", "update-wins"),
            ),
            None::<u64>,
        );
        let parsed = draft(&rmp_serde::to_vec(&act).unwrap()).unwrap();
        let update = |field: &str, op| DraftOp::Update(name("todos"), record("t1"), name(field), op);
        let set = DraftFieldOp::Set(Value::text("milk"));
        let fields = vec![(name("title"), set), (name("note"), DraftFieldOp::InitialText("cold".into()))];
        let ops = vec![
            DraftOp::Insert(name("todos"), record("t1"), fields),
            update("note", DraftFieldOp::Splice(vec![Splice { at: 0, delete: 1, insert: "M".into() }])),
            update("votes", DraftFieldOp::Increment(-2)),
            DraftOp::Delete(name("todos"), record("t0"), DeletePolicy::Wins),
            DraftOp::Delete(name("todos"), record("t2"), DeletePolicy::UPDATE_WINS),
        ];
        assert_eq!(parsed, Draft { name: name("addTodo"), args: Some(Value::text("args")), ops, lifetime_ms: None });
    }

    #[test]
    fn unknown_words_and_short_arrays_are_refused() {
        let refused = |op: Vec<&str>| {
            let act = ("x", None::<u8>, [op], None::<u64>);
            draft(&rmp_serde::to_vec(&act).unwrap()).unwrap_err().to_string()
        };
        assert!(refused(vec!["move", "a"]).contains("\"move\" is not an op"));
        assert!(refused(vec!["delete", "a"]).contains("too few elements"));
    }

    #[test]
    fn schemas_and_filters_parse() {
        let field = BTreeMap::from([("strategy", "counter")]);
        let schema = BTreeMap::from([("todos", BTreeMap::from([("fields", BTreeMap::from([("votes", field)]))]))]);
        let Open(log, schema, priority) = decode(&rmp_serde::to_vec(&("board/42", schema, "low")).unwrap()).unwrap();
        assert_eq!((log.as_str(), priority.map(Priority::from)), ("board/42", Some(Priority::Low)));
        let todos = &schema.collections[&name("todos")];
        assert_eq!(todos.fields[&name("votes")], FieldSchema { strategy: Strategy::Counter, default: None });
        let filter: EntryFilter =
            decode(&rmp_serde::to_vec_named(&BTreeMap::from([("action", "a")])).unwrap()).unwrap();
        assert_eq!(filter, EntryFilter { action: Some("a".into()), status: None, from: 0 });
        assert_eq!(filter.which(), Own::All);
        let of = |status: &[&str]| EntryFilter {
            action: None,
            status: Some(status.iter().map(|status| (*status).to_owned()).collect()),
            from: 7,
        };
        assert_eq!(of(&["refused", "stored"]).which(), Own::NotAccepted, "no rows are read for these");
        assert_eq!(of(&["refused"]).which(), Own::Refused(Seq(7)), "nor is anything undecided looked at");
        assert_eq!(of(&["refused", "accepted"]).which(), Own::All);
    }
}
