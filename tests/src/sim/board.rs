//! The app of the simulator: a board of todos with a field of every strategy, and drafts of its actions.

use driftlog_core::draft::{Draft, DraftFieldOp, DraftOp};
use driftlog_core::id::{LogName, Name, RecordId};
use driftlog_core::op::DeletePolicy;
use driftlog_core::rich::Splice;
use driftlog_core::value::Value;
use driftlog_core::view::{CollectionSchema, FieldSchema, Schema, Strategy};

/// The board with this number.
///
/// # Panics
/// Never: such a name is short.
pub fn log(number: u64) -> LogName {
    LogName::new(&format!("board/{number}")).expect("a log's name")
}

/// A name of the app.
///
/// # Panics
/// If it is no name.
pub fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// The id of a todo.
///
/// # Panics
/// If the text is no id.
pub fn id(text: &str) -> RecordId {
    RecordId::new(text).expect("a record's id")
}

/// What the app knows of its logs.
pub fn schema() -> Schema {
    let field = |strategy| FieldSchema { strategy, default: None };
    let fields = [
        ("title", Strategy::Register),
        ("votes", Strategy::Counter),
        ("tags", Strategy::Set),
        ("note", Strategy::Text),
    ];
    let fields = fields.into_iter().map(|(field_name, strategy)| (name(field_name), field(strategy))).collect();
    Schema { collections: [(name("todos"), CollectionSchema { single: false, fields })].into() }
}

fn draft(action: &str, ops: Vec<DraftOp>) -> Draft {
    Draft { name: name(action), args: None, ops, lifetime_ms: None }
}

fn update(action: &str, record: &str, field: &str, op: DraftFieldOp) -> Draft {
    draft(action, vec![DraftOp::Update(name("todos"), id(record), name(field), op)])
}

/// Creates a todo, or merges into it.
pub fn add(record: &str, title: &str) -> Draft {
    let fields = vec![(name("title"), DraftFieldOp::Set(Value::text(title)))];
    draft("addTodo", vec![DraftOp::Insert(name("todos"), id(record), fields)])
}

/// Creates a todo whose note begins with this text.
pub fn add_with_note(record: &str, title: &str, note: &str) -> Draft {
    let fields = vec![
        (name("title"), DraftFieldOp::Set(Value::text(title))),
        (name("note"), DraftFieldOp::InitialText(note.to_owned())),
    ];
    draft("addTodo", vec![DraftOp::Insert(name("todos"), id(record), fields)])
}

/// Sets the title.
pub fn rename(record: &str, title: &str) -> Draft {
    update("rename", record, "title", DraftFieldOp::Set(Value::text(title)))
}

/// Adds to the counter.
pub fn vote(record: &str, by: i64) -> Draft {
    update("vote", record, "votes", DraftFieldOp::Increment(by))
}

/// Adds a tag.
pub fn tag(record: &str, tag: &str) -> Draft {
    update("tag", record, "tags", DraftFieldOp::Add(vec![Value::text(tag)]))
}

/// Takes a tag away.
pub fn untag(record: &str, tag: &str) -> Draft {
    update("untag", record, "tags", DraftFieldOp::Remove(vec![Value::text(tag)]))
}

/// Types into the note; positions are UTF-16 code units.
pub fn splice(record: &str, at: usize, delete: usize, insert: &str) -> Draft {
    let splice = Splice { at, delete, insert: insert.to_owned() };
    update("type", record, "note", DraftFieldOp::Splice(vec![splice]))
}

/// Removes a todo.
pub fn delete(record: &str) -> Draft {
    draft("removeTodo", vec![DraftOp::Delete(name("todos"), id(record), DeletePolicy::Wins)])
}

/// Removes a todo, unless somebody changes it who had not heard of that and is accepted within the grace.
pub fn delete_unless_changed(record: &str, grace_ms: u64) -> Draft {
    draft("removeTodo", vec![DraftOp::Delete(name("todos"), id(record), DeletePolicy::UpdateWins { grace_ms })])
}

/// An action that changes nothing.
pub fn nothing() -> Draft {
    draft("look", Vec::new())
}

/// Something that is told and changes nothing, and after so many milliseconds is not worth telling.
pub fn event(action: &str, lifetime_ms: u64) -> Draft {
    Draft { lifetime_ms: Some(lifetime_ms), ..draft(action, Vec::new()) }
}

/// An action that the server does not allow, where its policy says so: it names itself.
pub fn named(action: &str, record: &str, title: &str) -> Draft {
    Draft { name: name(action), ..add(record, title) }
}
