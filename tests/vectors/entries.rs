//! Entries: every kind of op, every option of the header, and what breaks a rule of the format.

use std::sync::Arc;

use driftlog_core::codec::{self, Opaque, to_bytes};
use driftlog_core::entry::{Body, Digest, Entry, Header, Replaced, Salt};
use driftlog_core::id::{ActorId, Base, EntryId, EpochId, Name, Offset, RecordId, RunId, Seq};
use driftlog_core::limits;
use driftlog_core::op::{Delete, DeletePolicy, Edit, Erase, FieldOp, Insert, Moved, Op, RichChange, Root, Update};
use driftlog_core::time::Time;
use driftlog_core::value::{INT_MAX, Value};
use serde::Serialize;

use crate::described::json;
use crate::{Vector, hex, quoted, values};

pub(crate) const RUN: RunId = RunId([0x52; 8]);
pub(crate) const EPOCH: EpochId = EpochId([0xe1; 8]);
pub(crate) const NOW: u64 = 1_750_000_000_000;

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn record(text: &str) -> RecordId {
    RecordId::new(text).unwrap()
}

pub(crate) fn header(seq: u64) -> Header {
    Header::new(RUN, seq, Seq(seq), Base { epoch: EPOCH, end: Offset(40 + seq) }, Time::from_parts(NOW + seq, 0))
}

pub(crate) fn body(action: &str, args: Option<Value>, ops: Vec<Op>) -> Body {
    Body::new(name(action), args, ops, None, Salt([0x5a; 8]))
}

pub(crate) fn update(field: &str, op: FieldOp) -> Op {
    Op::Update(Update { collection: name("todos"), record: record("t1"), field: name(field), op })
}

pub(crate) fn insert() -> Op {
    let fields = vec![
        (name("title"), FieldOp::Set(Value::from("Milk"))),
        (name("done"), FieldOp::Set(Value::from(false))),
        (name("votes"), FieldOp::Increment(0)),
        (name("tags"), FieldOp::Add(vec![Value::from("home")])),
        (name("note"), FieldOp::Edit(Edit::InitialText("whole milk".to_owned()))),
    ];
    Op::Insert(Insert { collection: name("todos"), record: record("t1"), fields })
}

pub(crate) fn entry(header: Header, body: Body) -> Entry {
    Entry::new(header, Arc::new(body)).unwrap()
}

/// An entry that does what `ops` say.
pub(crate) fn acting(seq: u64, ops: Vec<Op>) -> Entry {
    entry(header(seq), body("act", None, ops))
}

/// The JSON of an entry.
pub(crate) fn described(entry: &Entry) -> String {
    format!("{{\"header\": {}, \"body\": {}}}", json(&entry.header), json(&*entry.body))
}

fn vector(name: &str, note: &'static str, entry: Entry) -> Vector {
    let is = described(&entry);
    let digest = quoted(&hex(&entry.digest().0));
    Vector::decodes(name, note, entry.to_bytes(), entry, is, Entry::from_bytes).with("digest", digest)
}

pub(crate) fn vectors() -> Vec<Vector> {
    let mut vectors = ops();
    vectors.extend(headers());
    vectors.extend(unknown());
    vectors.extend(refused());
    vectors
}

fn ops() -> Vec<Vector> {
    let args = Value::Map([("id".to_owned(), Value::from("t1")), ("title".to_owned(), Value::from("Milk"))].into());
    let single = Op::Insert(Insert {
        collection: name("settings"),
        record: RecordId::single(),
        fields: vec![(name("theme"), FieldOp::Set(Value::from("dark")))],
    });
    let delete = deleting(DeletePolicy::Wins);
    let change = RichChange { root: 0, incarnation: 1, bytes: vec![0x85, 0x6f, 0x4a, 0x83, 0, 1, 2, 3] };
    let root = Root { root: 40, content: "é😀".to_owned(), until: Time::from_ms(1_700_000_000_000) };
    let moved = Moved { original: change.clone(), root: 40, bytes: vec![0x85, 0x6f, 0x4a, 0x83, 4, 5, 6] };
    let deep = update("deep", FieldOp::Set(values::nested(32)));
    let every = update("tags", FieldOp::Add(values::ascending()));
    let erase = Op::Erase;
    let erased = Erase::Record((name("todos"), record("t1")));
    vec![
        vector(
            "insert",
            "a record with a field of every strategy",
            entry(header(1), body("addTodo", Some(args), vec![insert()])),
        ),
        vector("insert into a single", "its one record has the empty id", acting(2, vec![single])),
        vector(
            "set",
            "a register takes a value",
            acting(3, vec![update("title", FieldOp::Set(Value::from("Oat milk")))]),
        ),
        vector("increment", "a counter", acting(4, vec![update("votes", FieldOp::Increment(1))])),
        vector("decrement by the most", "", acting(5, vec![update("votes", FieldOp::Increment(-INT_MAX))])),
        vector("add", "values of every kind in a set, in the order the app gave them", acting(6, vec![every])),
        vector("remove", "", acting(7, vec![update("tags", FieldOp::Remove(vec![Value::from("home")]))])),
        vector(
            "initial text",
            "first content, from which every replica derives the same change",
            acting(8, vec![update("note", FieldOp::Edit(Edit::InitialText("é😀".to_owned())))]),
        ),
        vector(
            "rich change",
            "opaque to the entry; whether it is a change is the gate's question",
            acting(9, vec![update("note", FieldOp::Edit(Edit::Change(change)))]),
        ),
        vector(
            "root",
            "a text begins anew: only the log itself says so",
            acting(17, vec![update("note", FieldOp::Edit(Edit::Root(root)))]),
        ),
        vector(
            "moved change",
            "a change of the root before, and what the gate made of it",
            acting(18, vec![update("note", FieldOp::Edit(Edit::Moved(moved)))]),
        ),
        vector("delete", "", acting(10, vec![delete.clone()])),
        vector("delete where updates win", "with its grace", acting(29, vec![deleting(DeletePolicy::UPDATE_WINS)])),
        vector(
            "several ops",
            "one action is atomic",
            acting(11, vec![delete, insert(), update("votes", FieldOp::Increment(2))]),
        ),
        vector("a deep value", "", acting(12, vec![deep])),
        vector("erase a record", "only the log itself erases", acting(13, vec![erase(erased)])),
        vector("erase the log", "", acting(14, vec![erase(Erase::Log(()))])),
        vector("erase authors", "", acting(15, vec![erase(Erase::Authors(vec![ActorId([0xa1; 16])]))])),
        vector("erase what came late", "", acting(16, vec![erase(Erase::Late(()))])),
    ]
}

fn headers() -> Vec<Vector> {
    let event = |lifetime_ms| Body::new(name("say"), Some(Value::from("hello")), vec![], lifetime_ms, Salt([0; 8]));
    let first = Header::new(RUN, 1, Seq(1), Base::default(), Time::from_parts(NOW, 7));
    let mut own = header(20);
    (own.n, own.own) = (3, Some(Seq(17)));
    let mut blind = header(21);
    blind.own = Some(Seq(0));
    let mut needs = header(22);
    needs.needs = vec![Seq(1), Seq(20), Seq(21)];
    let mut replaces = header(23);
    let id = EntryId { actor: ActorId([0xa1; 16]), seq: Seq(4) };
    replaces.replaces = Some(Replaced { id, digest: Digest([0xd1; 32]) });
    let base = Base { epoch: EPOCH, end: Offset(u64::MAX) };
    let largest = Header::new(RUN, u64::MAX, Seq(u64::MAX), base, Time::MAX);
    vec![
        vector("first entry of a new client", "no epoch known, base 0", entry(first, event(None))),
        vector("event", "no ops", entry(header(18), event(None))),
        vector("event with a lifetime", "", entry(header(19), event(Some(60_000)))),
        vector("own", "entries 18 and 19 are another tab's, not seen", entry(own, event(None))),
        vector("own of nothing", "no entry of another tab was seen", entry(blind, event(None))),
        vector("needs", "builds on own undecided entries", entry(needs, event(None))),
        vector("replaces", "re-issues an entry", entry(replaces, event(None))),
        vector("largest numbers", "", entry(largest, event(Some(u64::MAX)))),
    ]
}

fn opaque(content: &impl Serialize) -> Opaque {
    codec::from_canonical(&to_bytes(content)).unwrap()
}

fn deleting(policy: DeletePolicy) -> Op {
    Op::Delete(Delete { collection: name("todos"), record: record("t1"), policy })
}

fn unknown() -> Vec<Vector> {
    let delete = deleting(DeletePolicy::Unknown(2, opaque(&"newer")));
    vec![
        vector(
            "unknown op",
            "a kind of a newer version, which a decoder keeps with its content",
            acting(30, vec![Op::Unknown(77, Opaque::NIL)]),
        ),
        vector("unknown field op", "", acting(31, vec![update("title", FieldOp::Unknown(9, opaque(&"Milk")))])),
        vector("unknown edit", "", acting(32, vec![update("note", FieldOp::Edit(Edit::Unknown(200, opaque(&7))))])),
        vector(
            "unknown op with content",
            "names stand in it as text, packed too",
            acting(34, vec![Op::Unknown(78, opaque(&("todos", "t1", [0.5, -1.5], Some(("a", true)), ())))]),
        ),
        vector("unknown policy of a delete", "", acting(33, vec![delete])),
    ]
}

fn refused() -> Vec<Vector> {
    let refuse = |name: &str, note, header: &Header, body: &Body| {
        let mut bytes = to_bytes(header);
        bytes.extend(to_bytes(body));
        Vector::refused(name, note, bytes, Entry::from_bytes)
    };
    let set = |field: &str| body("act", None, vec![update(field, FieldOp::Set(Value::Null))]);
    let event = body("say", None, vec![]);
    let changed = |seq, change: fn(&mut Header)| {
        let mut header = header(seq);
        change(&mut header);
        header
    };
    let mut lasting = set("title");
    lasting.lifetime_ms = Some(1);
    let far = body("act", None, vec![update("votes", FieldOp::Increment(INT_MAX + 1))]);
    let forever = DeletePolicy::UpdateWins { grace_ms: limits::DELETE_GRACE_MS_MAX + 1 };
    let forever = body("act", None, vec![deleting(forever)]);
    let good = acting(1, vec![insert()]).to_bytes();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    vec![
        refuse("seq 0", "seqs count from 1", &changed(1, |header| header.seq = Seq(0)), &event),
        refuse("n 0", "numbers within a run count from 1", &changed(1, |header| header.n = 0), &event),
        refuse("own not earlier", "", &changed(5, |header| header.own = Some(Seq(5))), &event),
        refuse("needs itself", "", &changed(5, |header| header.needs = vec![Seq(5)]), &event),
        refuse("needs 0", "", &changed(5, |header| header.needs = vec![Seq(0)]), &event),
        refuse("needs out of order", "", &changed(5, |header| header.needs = vec![Seq(2), Seq(1)]), &event),
        refuse("lifetime with ops", "only events expire", &header(5), &lasting),
        refuse("a field named id", "reserved", &header(5), &set("id")),
        refuse("a field named $x", "reserved", &header(5), &set("$x")),
        refuse("an increment beyond 2^53 - 1", "", &header(5), &far),
        refuse("a grace of more than 366 days", "", &header(5), &forever),
        Vector::refused("header of format 2", "", with(1, 2), Entry::from_bytes),
        Vector::refused("a cut entry", "", good[..good.len() - 1].to_vec(), Entry::from_bytes),
        Vector::refused("bytes behind the end", "", [&good[..], &[0xc0]].concat(), Entry::from_bytes),
        Vector::refused("not an array", "", with(0, 0x80), Entry::from_bytes),
    ]
}
