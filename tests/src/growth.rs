//! What storage comes to when the same fields are overwritten, or one note is edited, again and again; and how long a
//! new client takes to open the log then.
//!
//! A real server on real sockets, with its file on the disk; a real engine, whose database is in memory and counted in
//! bytes of keys and values. The server keeps of each log what its snapshots do not cover.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use driftlog_core::draft::{Draft, DraftFieldOp, DraftOp};
use driftlog_core::engine::Engine;
use driftlog_core::id::{LogName, Name, RecordId};
use driftlog_core::rich::Splice;
use driftlog_core::sequencer::Rerooting;
use driftlog_core::state::{FieldKey, RecordKey};
use driftlog_core::value::Value;
use driftlog_core::view::{CollectionSchema, FieldSchema, Query, Schema, Strategy};
use driftlog_server::{Access, Config, Keep, Retention, ServeError, serve};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::database::Database;
use crate::http;
use crate::native::NativeClient;

/// Fields of one record.
const RECORD_FIELDS: u64 = 10;
/// Actions made between two looks at what waits for the server.
const BATCH: u64 = 50;
/// Actions that may wait for the server.
const WAITING_MAX: u64 = 4_000;
/// … where each is an edit of one note.
const WAITING_EDITS_MAX: u64 = 200;
/// Looks at the server's file that have to be alike.
const LOOKS: u32 = 60;
/// Time between two of them.
const LOOK: Duration = Duration::from_millis(25);
/// How long nobody writes to a log before it is looked after without a push, and how often that is done: here sooner than
/// by default, since it is waited for.
const QUIET: Duration = Duration::from_secs(2);
const PURGE: Duration = Duration::from_secs(1);
/// How long it may take until it rests, beyond the graces of two new roots.
const REST_MAX: Duration = Duration::from_secs(60);
/// New clients whose median counts.
const OPENINGS: usize = 9;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is typed into a note at once.
const WORD_BYTES: usize = 12;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Actions, each of which sets one field, or types a word into the note.
    pub actions: u64,
    /// What is written.
    pub subject: Subject,
    /// How long changes of an old root of the note are translated.
    pub grace: Duration,
    /// Bytes of each value, or of the note, which is cut where it was written first as it grows beyond.
    pub value_bytes: u64,
}

/// What is written again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// So many fields, which take turns.
    Fields(u64),
    /// One note.
    Note,
}

impl Plan {
    fn records(&self) -> u64 {
        match self.subject {
            Subject::Fields(fields) => fields.div_ceil(RECORD_FIELDS),
            Subject::Note => 1,
        }
    }

    /// As many actions as make everything there is.
    fn actions_min(&self) -> u64 {
        match self.subject {
            Subject::Fields(fields) => fields,
            Subject::Note => 1,
        }
    }

    /// How many actions may wait for the server.
    fn waiting_max(&self) -> u64 {
        match self.subject {
            Subject::Fields(_) => WAITING_MAX,
            Subject::Note => WAITING_EDITS_MAX,
        }
    }

    /// Takes an action by its number; the first ones make what is written.
    fn act(&self, engine: &mut Engine, log: &LogName, at: u64, now: u64) {
        let draft = match self.subject {
            Subject::Fields(fields) => set(fields, self.value_bytes, at),
            Subject::Note if at == 0 => noted(self.value_bytes as usize),
            Subject::Note => typed(self.value_bytes as usize, note_length(engine, log), at),
        };
        engine.act(log, draft, now).expect("nothing bounds the backlog");
    }
}

/// What was seen.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Actions that were made, and are in the log.
    pub actions: u64,
    /// The log's records, as JSON.
    pub live_bytes: u64,
    /// The server's database and the client's right behind the last action: old roots are in their grace then.
    pub written_bytes: (u64, u64),
    /// The server's files after nobody wrote for as long as time alone changed something, and it ended.
    pub server_bytes: u64,
    /// Keys and values of the client's database then.
    pub client_bytes: u64,
    /// What the client sent.
    pub sent_bytes: u64,
    /// How long a new client takes from connecting to the first full view, where no more actions than needed made it …
    pub open_small: Duration,
    /// … and where all of them did.
    pub open_large: Duration,
}

impl Report {
    /// Whether storage is within so many times of what lives, on both sides.
    pub fn is_within(&self, factor: u64) -> bool {
        self.server_bytes.max(self.client_bytes) <= self.live_bytes * factor
    }
}

/// A server in this process.
struct Server {
    address: String,
    directory: TempDir,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    async fn start(plan: Plan) -> io::Result<Self> {
        let (listener, directory) = (TcpListener::bind("127.0.0.1:0").await?, TempDir::new()?);
        let address = listener.local_addr()?.to_string();
        let mut config = Config::new(directory.path(), Access::Development);
        config.retention = Retention::default().with("*", Keep::Last(0));
        config.rerooting = Rerooting { grace: plan.grace, quiet: QUIET, ..config.rerooting };
        config.purge = PURGE;
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve(listener, config, async {
            let _ = stopped.await;
        }));
        Ok(Self { address, directory, stop, task })
    }

    fn client(&self) -> NativeClient {
        NativeClient::start(&format!("ws://{}/sync", self.address), None, Database::default())
    }

    fn connection(&self) -> rusqlite::Result<Connection> {
        let path = self.directory.path().join("driftlog.sqlite");
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    /// Bytes of its database.
    fn bytes(&self) -> Result<u64, Failure> {
        let sql = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
        Ok(self.connection()?.query_row(sql, [], |row| row.get::<_, i64>(0))?.cast_unsigned())
    }

    /// Waits until time alone changes nothing in what it keeps of its logs: no text waits for a quiet moment, no old root
    /// for the end of its grace, and no entries for a reader of a snapshot.
    async fn at_rest(&self, grace: Duration) -> Result<(), Failure> {
        let (connection, begun) = (self.connection()?, Instant::now());
        let sql = "SELECT (SELECT count(rests) FROM snapshots) + (SELECT count(*) FROM logs
                   WHERE first < (SELECT min(next) FROM snapshots WHERE snapshots.log = logs.log))";
        let waiting = || connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        while waiting()? > 0 {
            if begun.elapsed() > 2 * grace + REST_MAX {
                return Err("the server's log does not come to rest".into());
            }
            tokio::time::sleep(LOOK).await;
        }
        self.settled().await
    }

    /// Waits until it has done what it does behind the pushes: what it keeps of its logs stays as it is.
    async fn settled(&self) -> Result<(), Failure> {
        let connection = self.connection()?;
        let sql = "SELECT total(first), total(kept_bytes), (SELECT total(number) FROM snapshots),
                   (SELECT page_count FROM pragma_page_count) FROM logs";
        let look =
            || connection.query_row(sql, [], |row| Ok((row.get::<_, f64>(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
        let (mut seen, mut alike): ((f64, f64, f64, u32), _) = (look()?, 0);
        while alike < LOOKS {
            tokio::time::sleep(LOOK).await;
            let now = look()?;
            alike = if now == seen { alike + 1 } else { 0 };
            seen = now;
        }
        Ok(())
    }

    /// Ends in good order; the bytes of its files then.
    async fn end(self) -> Result<u64, Failure> {
        drop(self.stop);
        self.task.await??;
        // Who still read when it ended kept SQLite's log as it was: the next one to open the file cuts it.
        let connection = Connection::open(self.directory.path().join("driftlog.sqlite"))?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        drop(connection);
        Ok(bytes_in(self.directory.path())?)
    }
}

/// What is stored in a directory: not the index of SQLite's log, which is there while somebody has the file open.
fn bytes_in(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for file in std::fs::read_dir(directory)? {
        let file = file?;
        if !file.file_name().to_string_lossy().ends_with("-shm") {
            bytes += file.metadata()?.len();
        }
    }
    Ok(bytes)
}

/// Does it.
///
/// # Errors
/// The server's, or the system's.
pub async fn run(plan: Plan) -> Result<Report, Failure> {
    let log = LogName::new("log")?;
    let (server, client) = started(&log, plan, plan.actions_min()).await?;
    let open_small = opened(&server, &log, plan, plan.actions_min()).await;
    client.kill().await;
    server.end().await?;
    let (server, client) = started(&log, plan, plan.actions).await?;
    let sent_bytes = client.sent_bytes();
    let open_large = opened(&server, &log, plan, plan.actions).await;
    let live_bytes = live_bytes(&server.address, &log).await?;
    server.settled().await?;
    let written_bytes = (server.bytes()?, client.stored_bytes().await);
    server.at_rest(plan.grace).await?;
    at_rest(&client, &log).await;
    let client_bytes = client.kill().await.bytes();
    let server_bytes = server.end().await?;
    let Plan { actions, .. } = plan;
    Ok(Report { actions, live_bytes, written_bytes, server_bytes, client_bytes, sent_bytes, open_small, open_large })
}

/// A server with a log that so many actions made, and the client that made them.
async fn started(log: &LogName, plan: Plan, actions: u64) -> Result<(Server, NativeClient), Failure> {
    let server = Server::start(plan).await?;
    let client = server.client();
    client.open(log, schema(plan)).await;
    let behind_grace = (actions / 10).min(actions - plan.actions_min().min(actions));
    write(&client, log, plan, 0..actions - behind_grace).await;
    if plan.subject == Subject::Note && behind_grace > 0 {
        tokio::time::sleep(plan.grace).await;
    }
    write(&client, log, plan, actions - behind_grace..actions).await;
    Ok((server, client))
}

async fn live_bytes(address: &str, log: &LogName) -> Result<u64, Failure> {
    let body = http::get(address, &format!("/logs/{log}/snapshot")).await?;
    let json: serde_json::Value = serde_json::from_str(&body)?;
    Ok(json["collections"].to_string().len() as u64)
}

/// Waits until the client has what the server has, and no old root whose grace is over.
async fn at_rest(client: &NativeClient, log: &LogName) {
    client.quiet(log).await;
    let name = log.clone();
    client.until(move |engine| engine.replica(&name).ok()?.rests_at().is_none().then_some(())).await;
}

/// Takes these actions, no faster than the server takes it.
async fn write(client: &NativeClient, log: &LogName, plan: Plan, actions: Range<u64>) {
    let mut made = actions.start;
    while made < actions.end {
        let (name, from, through) = (log.clone(), made, actions.end.min(made + BATCH));
        client
            .call(move |engine, now| {
                for at in from..through {
                    plan.act(engine, &name, at, now);
                }
            })
            .await;
        made = through;
        let name = log.clone();
        let waits =
            move |engine: &mut Engine| engine.replica(&name).map_or(0, |replica| replica.outbox().backlog().entries);
        client.until(move |engine| (waits(engine) < plan.waiting_max()).then_some(())).await;
    }
    client.quiet(log).await;
}

/// From connecting to a view of every record as the log has it: the median of some new clients.
async fn opened(server: &Server, log: &LogName, plan: Plan, actions: u64) -> Duration {
    let records = plan.records() as usize;
    let mut times = Vec::new();
    for _ in 0..OPENINGS {
        let begun = Instant::now();
        let client = server.client();
        client.open(log, schema(plan)).await;
        let name = log.clone();
        let is_full = move |engine: &mut Engine| {
            let replica = engine.replica(&name).ok()?;
            if replica.state().cursor().next.0 < actions {
                return None;
            }
            let (view, visible) = replica.view_mut()?;
            let rows = view.select(visible, Query::all(word("rows"))).ok()?;
            (rows.len() == records).then_some(())
        };
        client.until(is_full).await;
        times.push(begun.elapsed());
        client.kill().await;
    }
    times.sort_unstable();
    times[OPENINGS / 2]
}

fn word(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn schema(plan: Plan) -> Schema {
    let field = |name, strategy| (name, FieldSchema { strategy, default: None });
    let fields = match plan.subject {
        Subject::Fields(fields) => {
            (0..fields.min(RECORD_FIELDS)).map(|at| field(field_name(at), Strategy::Register)).collect()
        }
        Subject::Note => [field(word("note"), Strategy::Text)].into(),
    };
    Schema { collections: [(word("rows"), CollectionSchema { single: false, fields })].into() }
}

fn field_name(at: u64) -> Name {
    word(&format!("field{at}"))
}

/// Sets a field; the first round makes the records.
fn set(fields: u64, value_bytes: u64, at: u64) -> Draft {
    let field = at % fields;
    let (record, field) = (field / RECORD_FIELDS, field_name(field % RECORD_FIELDS));
    let record = RecordId::new(&format!("row{record}")).expect("an id");
    let mut value = format!("{at} ");
    while (value.len() as u64) < value_bytes {
        value.push(char::from(b'a' + (value.len() as u64 * 7 + at) as u8 % 26));
    }
    let op = DraftFieldOp::Set(Value::text(&value));
    let op = match at < fields {
        true => DraftOp::Insert(word("rows"), record, vec![(field, op)]),
        false => DraftOp::Update(word("rows"), record, field, op),
    };
    Draft { name: word("set"), args: None, ops: vec![op], lifetime_ms: None }
}

/// The record with the note.
fn note() -> FieldKey {
    let record = RecordId::new("row0").expect("an id");
    FieldKey { key: RecordKey { collection: word("rows"), record }, field: word("note") }
}

/// A word by its number, with a space behind it.
fn a_word(number: u64) -> String {
    // As many as people use.
    const WORDS: u64 = 1_000;
    let mut random = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % WORDS + 1;
    let mut letter = || {
        random = random.rotate_left(23).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        char::from(b'a' + (random >> 40) as u8 % 26)
    };
    (1..WORD_BYTES).map(|_| letter()).chain([' ']).collect()
}

/// The note as it is begun: as long as it is to be, of words that make way for what is typed.
fn noted(note_bytes: usize) -> Draft {
    let FieldKey { key, field } = note();
    let words: String = (0..note_bytes.div_ceil(WORD_BYTES)).map(|at| a_word(at as u64)).collect();
    let fields = vec![(field, DraftFieldOp::InitialText(words))];
    let ops = vec![DraftOp::Insert(key.collection, key.record, fields)];
    Draft { name: word("write"), args: None, ops, lifetime_ms: None }
}

/// Code units of the note as it is shown.
fn note_length(engine: &mut Engine, log: &LogName) -> usize {
    let replica = engine.replica(log).expect("an open log");
    let (_, visible) = replica.view_mut().expect("a log that is shown");
    visible.text_len_utf16(&note()).expect("a text that reads")
}

/// Types a word somewhere into the note; once it is long enough, a word at its beginning goes for it.
fn typed(note_bytes: usize, length: usize, at: u64) -> Draft {
    let FieldKey { key, field } = note();
    let place = (at as usize * 7_919) % (length / WORD_BYTES + 1) * WORD_BYTES;
    let mut splices = vec![Splice { at: place, delete: 0, insert: a_word(at) }];
    if length >= note_bytes {
        splices.push(Splice { at: 0, delete: WORD_BYTES, insert: String::new() });
    }
    let ops = vec![DraftOp::Update(key.collection, key.record, field, DraftFieldOp::Splice(splices))];
    Draft { name: word("type"), args: None, ops, lifetime_ms: None }
}
