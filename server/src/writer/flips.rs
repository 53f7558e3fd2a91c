//! One bit after the other of everything that a small store holds: what is flipped is found, and never told.

use std::collections::BTreeMap;

use driftlog_core::chain::Chain;
use driftlog_core::entry::{Body, Entry, Header, Replaced, Salt};
use driftlog_core::id::{Base, ClientId, EntryId, EpochId, Name, Offset, RecordId, RunId, UserId};
use driftlog_core::op::{FieldOp, Insert, Op};
use driftlog_core::packed::{Pushed, Void};
use driftlog_core::protocol::frame::{Hello, Nonce};
use driftlog_core::sequencer::{PushItems, Refused};
use driftlog_core::snapshot::encode;
use driftlog_core::time::Time;
use driftlog_core::value::Value;
use rusqlite::types::Value as Cell;
use rusqlite::{Connection, params_from_iter};

use super::*;
use crate::config::Access;
use crate::environment::System;
use crate::snapshot;
use crate::store::{Reads, Snapshot, Store, StoredSnapshot};
use crate::verify::{Report, check_log, check_tables};

/// Tables and how many of their first columns are their key.
const TABLES: [(&str, usize); 8] = [
    ("logs", 1),
    ("epochs", 2),
    ("bindings", 1),
    ("entries", 2),
    ("actors", 2),
    ("replacements", 4),
    ("snapshots", 2),
    ("dead_letters", 1),
];

const LOGS: [&str; 2] = ["board/1", "board/2"];
const NAMES: [u8; 2] = [1, 2];
/// No divisor of anything here, so that every column has its turn.
const TOLD_EVERY: u64 = 37;

fn log_name(name: &str) -> LogName {
    LogName::new(name).expect("a name")
}

fn user() -> UserId {
    UserId::new("alice").expect("a user")
}

fn hello(actor: u8, nonces: &[Nonce]) -> Hello {
    Hello {
        protocol_min: 1,
        protocol_max: 1,
        client: ClientId([actor; 16]),
        actor: ActorId([actor; 16]),
        predecessor: None,
        user: None,
        nonces: nonces.to_vec(),
        device: String::new(),
        token: None,
        now: 0,
    }
}

fn entry(seq: u64, ops: Vec<Op>, replaces: Option<Replaced>) -> Entry {
    let base = Base { epoch: EpochId::NONE, end: Offset(0) };
    let mut header = Header::new(RunId([7; 8]), seq, Seq(seq), base, Time::from_ms(1_000));
    header.replaces = replaces;
    let name = Name::new("act").expect("a name");
    Entry::new(header, Arc::new(Body::new(name, None, ops, None, Salt([7; 8])))).expect("an entry")
}

fn insert(record: &str) -> Vec<Op> {
    let (collection, title) = (Name::new("todos").expect("a name"), Name::new("title").expect("a name"));
    let record = RecordId::new(record).expect("an id");
    vec![Op::Insert(Insert { collection, record, fields: vec![(title, FieldOp::Set(Value::from("x")))] })]
}

/// What one actor pushes: an entry, a refused one, one that replaces another, a void.
fn push(actor: u8, log: &str) -> PushItems {
    let target = EntryId { actor: ActorId([9; 16]), seq: Seq(4) };
    let replaced = Replaced { id: target, digest: driftlog_core::entry::Digest([5; 32]) };
    let entries = [
        entry(1, insert("a"), None),
        entry(2, vec![Op::Unknown(99, driftlog_core::codec::Opaque::NIL)], None),
        entry(3, insert("b"), (actor == 1).then_some(replaced)),
    ];
    let start = Chain::actor_start(ActorId([actor; 16]), &log_name(log));
    let chain = entries.iter().fold(start, |chain, entry| chain.with_pushed(entry.header.seq, entry.digest()));
    let void = Void { from: Seq(4), through: Seq(5), reason: "gone".to_owned() };
    let chain = chain.with_void(void.through, &void.reason);
    let items = entries.into_iter().map(Pushed::Entry).chain([Pushed::Void(void)]).collect();
    PushItems { first: Seq(1), chain, items }
}

/// A writer that has just started.
fn writer(config: &Config) -> LogWriter {
    let (jobs, _) = crate::snapshot::jobs();
    LogWriter::new(config, Arc::new(System::new()), jobs)
}

/// Handles requests and gives the answers, as they would leave after the commit.
fn ask(writer: &mut LogWriter, writes: Writes<'_>, requests: Vec<Request>, feeds: &Feeds) -> Result<(), StoreError> {
    for request in requests {
        if let Some(effect) = writer.handle(writes, request)? {
            effect(feeds);
        }
    }
    Ok(())
}

/// Everything that a server tells of its store, each answer as a text, or nothing where it says that it cannot.
fn told(config: &Config, writes: Writes<'_>) -> Result<BTreeMap<String, Option<String>>, StoreError> {
    let mut told = BTreeMap::new();
    let feeds = Feeds::new(config.tail_bytes, config.tails_bytes);
    for actor in NAMES {
        let mut writer = writer(config);
        let (reply, mut answers) = tokio_mpsc::unbounded_channel();
        let bind = Request::Bind {
            hello: Box::new(hello(actor, &[Nonce([3; 16])])),
            user: user(),
            nonce: Nonce([4; 16]),
            reply: reply.clone(),
        };
        ask(&mut writer, writes, vec![bind], &feeds)?;
        let bound = match answers.try_recv().expect("answered") {
            Answer::Bound(Err(BindError::Damaged)) => None,
            answer => Some(format!("{answer:?}")),
        };
        told.insert(format!("bind {actor}"), bound);
        for log in LOGS {
            let open = Open {
                request: 1,
                log: 1,
                name: log_name(log),
                actor: ActorId([actor; 16]),
                append: false,
                read: true,
                decided: Seq(0),
                cursor: None,
            };
            let append = Append {
                request: 2,
                name: log_name(log),
                actor: ActorId([actor; 16]),
                push: push(actor, log),
                bytes: 0,
            };
            let requests = vec![
                Request::Open { open, reply: reply.clone() },
                Request::Append { append, read: BTreeMap::new(), reply: reply.clone() },
            ];
            ask(&mut writer, writes, requests, &feeds)?;
            for what in ["open", "push"] {
                let answer = match answers.try_recv().expect("answered") {
                    Answer::Opened(_, Err(Refusal { code: Code::StorageFailed, .. }))
                    | Answer::Committed(_, _, Err(PushError::LogDamaged { .. })) => None,
                    // A snapshot that is not offered is a slower start and nothing else; a start has its own epoch.
                    Answer::Opened(_, Ok(mut facts)) => {
                        (facts.snapshot, facts.epochs) = (None, facts.epochs[..1].to_vec());
                        Some(format!("{facts:?}"))
                    }
                    answer => Some(format!("{answer:?}")),
                };
                told.insert(format!("{what} {log} {actor}"), answer);
            }
        }
    }
    for log in LOGS {
        told.insert(format!("read {log}"), sound(read(writes.reads(), log))?);
    }
    told.insert("snapshot".to_owned(), sound(read_snapshot(writes.reads(), LOGS[0]))?);
    Ok(told)
}

fn sound(read: Result<String, StoreError>) -> Result<Option<String>, StoreError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.is_corruption() => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(reads: Reads<'_>, log: &str) -> Result<String, StoreError> {
    let Some(log) = reads.log(&log_name(log))? else { return Err(StoreError::corrupt("logs", "not found by name")) };
    let placed = reads.entries(&log, Offset(0), usize::MAX >> 1, usize::MAX)?;
    let folded = snapshot::fold(reads, &log)?;
    Ok(format!("{placed:?} {:?} {:?}", reads.end(&log)?, folded.state.digest()))
}

fn read_snapshot(reads: Reads<'_>, log: &str) -> Result<String, StoreError> {
    let Some(log) = reads.log(&log_name(log))? else { return Err(StoreError::corrupt("logs", "not found by name")) };
    // To do without one is a slower start and nothing else.
    let newest = reads.snapshots(log.key)?.0.first().copied();
    let stored = reads.snapshot(newest.ok_or_else(|| StoreError::corrupt("snapshots", "gone"))?)?;
    Ok(format!("{:?} {:?}", stored.cursor, stored.bytes))
}

/// Whether the checks of a table, and of what is read through it, find damage.
fn is_found(reads: Reads<'_>, field: &Field) -> bool {
    let read = |log: &str| -> Result<(), StoreError> {
        let Some(log) = reads.log(&log_name(log))? else { return Err(StoreError::corrupt("logs", "gone")) };
        match field.table {
            "entries" => drop(reads.entries(&log, Offset(0), usize::MAX >> 1, usize::MAX)?),
            _ => {
                for snapshot in reads.snapshots(log.key)?.0 {
                    reads.snapshot(snapshot)?;
                }
            }
        }
        Ok(())
    };
    match (field.table, field.column.as_str()) {
        ("entries", _) | ("snapshots", "bytes") => LOGS.into_iter().any(|log| read(log).is_err()),
        (table, _) => !reads.damaged_rows_of(|wanted| wanted == table).expect("reads").is_empty(),
    }
}

fn scrubbed(reads: Reads<'_>) -> Report {
    let mut report = Report::default();
    check_tables(reads, &mut report).expect("reads");
    for log in reads.log_names().unwrap_or_default() {
        check_log(reads, &log, &mut report, &mut |_| {}).expect("reads");
    }
    report
}

/// A store with two logs that two actors wrote to, and a snapshot of the first.
fn filled(config: &Config) -> Writer {
    let mut store = Store::open(&config.directory, None).expect("opens").writer().expect("opens");
    let feeds = Feeds::new(config.tail_bytes, config.tails_bytes);
    let mut writer = writer(config);
    let (reply, mut answers) = tokio_mpsc::unbounded_channel();
    let mut requests = Vec::new();
    for actor in NAMES {
        requests.push(Request::Bind {
            hello: Box::new(hello(actor, &[])),
            user: user(),
            nonce: Nonce([3; 16]),
            reply: reply.clone(),
        });
        for log in LOGS {
            let open = Open {
                request: 1,
                log: 1,
                name: log_name(log),
                actor: ActorId([actor; 16]),
                append: true,
                read: true,
                decided: Seq(0),
                cursor: None,
            };
            requests.push(Request::Open { open, reply: reply.clone() });
            let append = Append {
                request: 2,
                name: log_name(log),
                actor: ActorId([actor; 16]),
                push: push(actor, log),
                bytes: 0,
            };
            requests.push(Request::Append { append, read: BTreeMap::new(), reply: reply.clone() });
        }
    }
    let (source, reason) = ("socket".to_owned(), "no frame".to_owned());
    requests.push(Request::Keep { bytes: vec![1, 2, 3], source, code: Code::MalformedFrame, reason });
    let filled = store.commit(|writes| {
        ask(&mut writer, writes, requests, &feeds)?;
        let log = writes.reads().log(&log_name(LOGS[0]))?.expect("there");
        let mut state = snapshot::fold(writes.reads(), &log)?.state;
        let snapshot = Snapshot { cursor: state.cursor(), bytes: encode(&mut state) };
        writes.put_snapshot(log.key, &StoredSnapshot::of(snapshot, None)).map(drop)
    });
    filled.expect("commits");
    while let Ok(answer) = answers.try_recv() {
        assert!(
            !matches!(&answer, Answer::Opened(_, Err(_)) | Answer::Committed(_, _, Err(_)) | Answer::Bound(Err(_))),
            "{answer:?}"
        );
    }
    store
}

/// One cell of a row: what stands there, and how to put another value in.
struct Field {
    table: &'static str,
    column: String,
    update: String,
    key: Vec<Cell>,
    value: Cell,
}

fn fields(connection: &Connection) -> Vec<Field> {
    let mut fields = Vec::new();
    for (table, keys) in TABLES {
        let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).expect("reads");
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut rows = statement.query([]).expect("reads");
        while let Some(row) = rows.next().expect("reads") {
            let cells: Vec<Cell> = (0..columns.len()).map(|at| row.get(at).expect("reads")).collect();
            let found: Vec<_> = (0..keys).map(|at| format!("{} = ?{}", columns[at], at + 2)).collect();
            for (column, value) in columns.iter().zip(&cells) {
                let value_in = if matches!(value, Cell::Text(_)) { "CAST(?1 AS TEXT)" } else { "?1" };
                let update = format!("UPDATE {table} SET {column} = {value_in} WHERE {}", found.join(" AND "));
                fields.push(Field {
                    table,
                    column: column.clone(),
                    update,
                    key: cells[..keys].to_vec(),
                    value: value.clone(),
                });
            }
        }
    }
    fields
}

/// The value with each of its bits flipped.
fn flipped(value: &Cell) -> Vec<Cell> {
    let bytes = match value {
        Cell::Integer(number) => return (0..64).map(|bit| Cell::Integer(number ^ 1 << bit)).collect(),
        Cell::Text(text) => text.as_bytes(),
        Cell::Blob(bytes) => bytes,
        _ => &[],
    };
    let flip = |bit: usize| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        Cell::Blob(bytes)
    };
    (0..bytes.len() * 8).map(flip).collect()
}

#[test]
fn every_flipped_bit_of_a_stored_row_is_found_and_never_told() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let config = Config::new(directory.path(), Access::Development);
    let mut store = filled(&config);
    let undo = || StoreError::corrupt("nothing", "only a rehearsal");
    let mut expected = BTreeMap::new();
    let mut all = Vec::new();
    let rehearsed = store.commit(|writes| -> Result<(), StoreError> {
        assert_eq!(scrubbed(writes.reads()).findings, []);
        all = fields(writes.connection());
        expected = told(&config, writes)?;
        Err(undo())
    });
    assert!(matches!(rehearsed, Err(StoreError::CorruptRow { table: "nothing", .. })), "{rehearsed:?}");
    assert!(expected.values().all(Option::is_some), "{expected:?}");
    let (mut flips, mut refused) = (0_u64, 0);
    for field in &all {
        for value in flipped(&field.value) {
            let place = || format!("{}.{} of {:?} as {value:?}", field.table, field.column, field.key);
            let tried = store.commit(|writes| -> Result<(), StoreError> {
                let values = std::iter::once(&value).chain(&field.key);
                match writes.connection().execute(&field.update, params_from_iter(values)) {
                    Ok(count) => assert_eq!(count, 1, "{}", place()),
                    // The key of another row: such a table cannot be.
                    Err(_) => {
                        refused += 1;
                        return Err(undo());
                    }
                }
                flips += 1;
                assert!(is_found(writes.reads(), field), "{} is not found", place());
                // The answers come from the same checks; one flip of so many is also told.
                if flips % TOLD_EVERY != 0 {
                    return Err(undo());
                }
                assert!(!scrubbed(writes.reads()).is_sound(), "{} is not found by a scrub", place());
                for (what, answer) in told(&config, writes.restarted()?)? {
                    assert!(answer.is_none() || answer == expected[&what], "{}: {what}: {answer:?}", place());
                }
                Err(undo())
            });
            assert!(matches!(tried, Err(StoreError::CorruptRow { table: "nothing", .. })), "{}: {tried:?}", place());
        }
    }
    assert!(flips > 20_000 && refused < 200, "{flips} flips, {refused} impossible");
}

/// What no flipped bit makes: rows that are sound each for itself, and tell of the same work twice.
#[test]
fn a_dead_letter_of_an_accepted_entry_and_a_replacement_of_one_are_found() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let config = Config::new(directory.path(), Access::Development);
    let mut store = filled(&config);
    let report = store.commit(|writes| {
        assert!(scrubbed(writes.reads()).is_sound());
        let (log, id) = (log_name(LOGS[1]), EntryId { actor: ActorId([1; 16]), seq: Seq(1) });
        let log = writes.reads().log(&log)?.expect("there");
        let (author, _) = writes.reads().binding(id.actor)?.expect("bound");
        let accepted = entry(1, insert("a"), None);
        let digest = accepted.digest();
        let refused = Refused { entry: accepted, code: Code::UnknownOp, reason: String::new() };
        writes.keep_refused(1, log.key, (author, id.actor), &refused)?;
        let (end, time) = writes.reads().end(&log)?;
        let entry = entry(1, insert("c"), Some(Replaced { id, digest }));
        let (offset, base) = (end.next, end.next);
        let logged = Logged { offset, actor: ActorId::LOG, user: user(), accepted: time, base, entry };
        let after = end.after(&logged);
        writes.append(log.key, writes.log_author()?, &(logged, after))?;
        writes.set_end(&log, after, time, 0)?;
        Ok::<_, StoreError>(scrubbed(writes.reads()))
    });
    let found: Vec<_> = report.expect("reads").findings.into_iter().map(|found| (found.table, found.what)).collect();
    let [(entries, replaces), (letters, letter)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((*entries, *letters), ("entries", "dead_letters"));
    assert!(
        replaces.contains("replaces an entry that is in the log") && letter.contains("was not refused"),
        "{found:?}"
    );
}
