//! What storage comes to when the same fields are overwritten again and again, and how long a new client takes to open
//! the log then.
//!
//! A real server on real sockets, with its file on the disk; a real engine, whose database is in memory and counted in
//! bytes of keys and values. The server keeps of each log what its snapshots do not cover.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use driftlog_core::draft::{Draft, DraftFieldOp, DraftOp};
use driftlog_core::engine::Engine;
use driftlog_core::id::{LogName, Name, RecordId};
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
/// Looks at the server's file that have to be alike.
const LOOKS: u32 = 20;
/// Time between two of them.
const LOOK: Duration = Duration::from_millis(25);
/// New clients whose median counts.
const OPENINGS: usize = 9;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Actions, each of which sets one field.
    pub actions: u64,
    /// Fields, which take turns.
    pub fields: u64,
    /// Bytes of each value.
    pub value_bytes: u64,
}

/// What was seen.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Actions that were made, and are in the log.
    pub actions: u64,
    /// The log's records, as JSON.
    pub live_bytes: u64,
    /// The server's files after it ended.
    pub server_bytes: u64,
    /// Keys and values of the client's database.
    pub client_bytes: u64,
    /// What the client sent.
    pub sent_bytes: u64,
    /// How long a new client takes from connecting to the first full view, where as many actions as fields made it …
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
    async fn start() -> io::Result<Self> {
        let (listener, directory) = (TcpListener::bind("127.0.0.1:0").await?, TempDir::new()?);
        let address = listener.local_addr()?.to_string();
        let mut config = Config::new(directory.path(), Access::Development);
        config.retention = Retention::default().with("*", Keep::Last(0));
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve(listener, config, async {
            let _ = stopped.await;
        }));
        Ok(Self { address, directory, stop, task })
    }

    fn client(&self) -> NativeClient {
        NativeClient::start(&format!("ws://{}/sync", self.address), None, Database::default())
    }

    /// Waits until it has done what it does behind the pushes: what it keeps of its logs stays as it is.
    async fn settled(&self) -> Result<(), Failure> {
        let path = self.directory.path().join("driftlog.sqlite");
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let sql = "SELECT total(first), total(kept_bytes), (SELECT total(number) FROM snapshots) FROM logs";
        let look = || connection.query_row(sql, [], |row| Ok((row.get::<_, f64>(0)?, row.get(1)?, row.get(2)?)));
        let (mut seen, mut alike): ((f64, f64, f64), _) = (look()?, 0);
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
        Ok(bytes_in(self.directory.path())?)
    }
}

fn bytes_in(directory: &Path) -> io::Result<u64> {
    std::fs::read_dir(directory)?.map(|file| Ok(file?.metadata()?.len())).sum()
}

/// Does it.
///
/// # Errors
/// The server's, or the system's.
pub async fn run(plan: Plan) -> Result<Report, Failure> {
    let log = LogName::new("log")?;
    let (server, client) = started(&log, plan, plan.fields).await?;
    let open_small = opened(&server, &log, plan, plan.fields).await;
    client.kill().await;
    server.end().await?;
    let (server, client) = started(&log, plan, plan.actions).await?;
    let sent_bytes = client.sent_bytes();
    let open_large = opened(&server, &log, plan, plan.actions).await;
    let client_bytes = database_bytes(client.kill().await);
    let live_bytes = live_bytes(&server.address, &log).await?;
    server.settled().await?;
    let server_bytes = server.end().await?;
    let Plan { actions, .. } = plan;
    Ok(Report { actions, live_bytes, server_bytes, client_bytes, sent_bytes, open_small, open_large })
}

/// A server with a log that so many actions made, and the client that made them.
async fn started(log: &LogName, plan: Plan, actions: u64) -> Result<(Server, NativeClient), Failure> {
    let server = Server::start().await?;
    let client = server.client();
    client.open(log, schema(plan)).await;
    write(&client, log, plan, actions).await;
    Ok((server, client))
}

fn database_bytes(database: Database) -> u64 {
    database.rows().map(|(key, value)| (key.len() + value.len()) as u64).sum()
}

async fn live_bytes(address: &str, log: &LogName) -> Result<u64, Failure> {
    let body = http::get(address, &format!("/logs/{log}/snapshot")).await?;
    let json: serde_json::Value = serde_json::from_str(&body)?;
    Ok(json["collections"].to_string().len() as u64)
}

/// Sets the fields in turn, so many times in all, no faster than the server takes it.
async fn write(client: &NativeClient, log: &LogName, plan: Plan, actions: u64) {
    let mut made = 0;
    while made < actions {
        let (name, from, through) = (log.clone(), made, actions.min(made + BATCH));
        client
            .call(move |engine, now| {
                for at in from..through {
                    engine.act(&name, set(plan, at), now).expect("nothing bounds the backlog");
                }
            })
            .await;
        made = through;
        let name = log.clone();
        let waits =
            move |engine: &mut Engine| engine.replica(&name).map_or(0, |replica| replica.outbox().backlog().entries);
        client.until(move |engine| (waits(engine) < WAITING_MAX).then_some(())).await;
    }
    client.quiet(log).await;
}

/// From connecting to a view of every record as the log has it: the median of some new clients.
async fn opened(server: &Server, log: &LogName, plan: Plan, actions: u64) -> Duration {
    let records = plan.fields.div_ceil(RECORD_FIELDS) as usize;
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
    let names: BTreeSet<u64> = (0..plan.fields.min(RECORD_FIELDS)).collect();
    let field = |at| (field_name(at), FieldSchema { strategy: Strategy::Register, default: None });
    let fields = names.into_iter().map(field).collect();
    Schema { collections: [(word("rows"), CollectionSchema { single: false, fields })].into() }
}

fn field_name(at: u64) -> Name {
    word(&format!("field{at}"))
}

/// An action by its number; the first round makes the records.
fn set(plan: Plan, at: u64) -> Draft {
    let field = at % plan.fields;
    let (record, field) = (field / RECORD_FIELDS, field_name(field % RECORD_FIELDS));
    let record = RecordId::new(&format!("row{record}")).expect("an id");
    let mut value = format!("{at} ");
    while (value.len() as u64) < plan.value_bytes {
        value.push(char::from(b'a' + (value.len() as u64 * 7 + at) as u8 % 26));
    }
    let op = DraftFieldOp::Set(Value::text(&value));
    let op = match at < plan.fields {
        true => DraftOp::Insert(word("rows"), record, vec![(field, op)]),
        false => DraftOp::Update(word("rows"), record, field, op),
    };
    Draft { name: word("set"), args: None, ops: vec![op], lifetime_ms: None }
}
