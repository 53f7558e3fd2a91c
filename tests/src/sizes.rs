//! What there may be a lot of: records in one log, logs on one client, connections of one server. Each is built on the
//! server's own process, and looked at from a process that does nothing else, so that each one's memory is its own.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use driftlog_core::draft::Draft;
use driftlog_core::engine::Engine;
use driftlog_core::id::LogName;
use driftlog_core::notice::LogStatus;
use driftlog_core::view::Query;
use tempfile::TempDir;
use tokio::process::Command;

use crate::database::Database;
use crate::herd;
use crate::native::NativeClient;
use crate::peer::{Peer, Socket};
use crate::process::{Process, binary, resident_bytes};
use crate::sim::board;

/// Records that one action makes.
const RECORDS_AN_ACTION: u64 = 100;
/// Actions that may wait for the server.
const WAITING_MAX: u64 = 200;
/// Clients that come to be registered at once.
const AT_ONCE: usize = 100;
/// The longest that one step may take.
const PATIENCE: Duration = Duration::from_secs(1_200);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Figures, by their names.
pub type Figures = Vec<(&'static str, f64)>;

/// One log of so many records, and a client that opens it: from the server, and then from its own database.
///
/// # Errors
/// The system's, or a process that failed.
pub async fn large_log(records: u64) -> Result<Figures, Failure> {
    many_rows(1, records).await
}

/// So many logs of ten records each, and a client that opens all of them.
///
/// # Errors
/// The system's, or a process that failed.
pub async fn many_logs(logs: u64) -> Result<Figures, Failure> {
    many_rows(logs, 10).await
}

async fn many_rows(logs: u64, records: u64) -> Result<Figures, Failure> {
    let directory = TempDir::new()?;
    let server = Process::start(&binary(), directory.path(), &[]).await?;
    let begun = Instant::now();
    write(&format!("ws://{}/sync", server.url), logs, records).await;
    let write = begun.elapsed();
    let printed = of_reader(&server.url, logs, records).await?;
    println!("{printed}");
    let server_resident_bytes = server.resident_bytes()?;
    server.kill().await;
    Ok(vec![
        ("logs", logs as f64),
        ("records", (logs * records) as f64),
        ("write_s", write.as_secs_f64()),
        ("server_rss_bytes", server_resident_bytes as f64),
        ("server_bytes", bytes_in(directory.path())? as f64),
    ])
}

/// What a reader in a process of its own prints.
async fn of_reader(address: &str, logs: u64, records: u64) -> Result<String, Failure> {
    let own: PathBuf = std::env::current_exe()?;
    let args = ["reader".to_owned(), address.to_owned(), logs.to_string(), records.to_string()];
    let output = Command::new(own).args(args).stderr(Stdio::inherit()).output().await?;
    if !output.status.success() {
        return Err("the reader failed".into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What the reader's process does: see [`large_log`].
///
/// # Errors
/// The system's.
pub async fn read(address: &str, logs: u64, records: u64) -> Result<Figures, Failure> {
    let url = format!("ws://{address}/sync");
    let before = resident_bytes(std::process::id())?;
    let begun = Instant::now();
    let client = NativeClient::start(&url, None, Database::default());
    open_all(&client, logs).await;
    until_all(&client, logs, |replica| replica.status() == LogStatus::Synced).await;
    let rows = rows(&client, logs).await;
    let open = begun.elapsed();
    let resident = resident_bytes(std::process::id())?;
    let database = client.kill().await;
    let database_bytes = database.bytes();
    let begun = Instant::now();
    // Nobody is there: everything comes from its own database.
    let client = NativeClient::start("ws://127.0.0.1:1/sync", None, database);
    open_all(&client, logs).await;
    let again = self::rows(&client, logs).await;
    let start = begun.elapsed();
    client.kill().await;
    if (rows, again) != (logs * records, logs * records) {
        return Err(format!("{rows} rows, and {again} after a restart, where there are {}", logs * records).into());
    }
    Ok(vec![
        ("open_ms", open.as_secs_f64() * 1_000.0),
        ("start_ms", start.as_secs_f64() * 1_000.0),
        ("client_rss_bytes", resident.saturating_sub(before) as f64),
        ("client_bytes", database_bytes as f64),
    ])
}

/// So many clients that a server knows, and some of them with a socket at the same time.
///
/// # Errors
/// The system's.
pub async fn connections(registered: usize, active: usize) -> Result<Figures, Failure> {
    const ENTRIES: u64 = 100;
    let directory = TempDir::new()?;
    let server = Process::start(&binary(), directory.path(), &[]).await?;
    let mut writer = Peer::new("writer");
    let (mut socket, _) = writer.open_to_push(&server.url).await;
    let entries: Vec<_> = (0..ENTRIES).map(|at| writer.act(Peer::insert(&format!("todo {at}")))).collect();
    socket.send(&writer.push(&entries)).await;
    socket.ack().await;
    // What all share is there when somebody was.
    drop(come(&server.url, 0..AT_ONCE, ENTRIES).await);
    let before = server.resident_bytes()?;
    let mut at = AT_ONCE;
    while at < registered {
        drop(come(&server.url, at..registered.min(at + AT_ONCE), ENTRIES).await);
        at += AT_ONCE;
    }
    let known = server.resident_bytes()?;
    let mut sockets = Vec::new();
    while sockets.len() < active {
        let from = sockets.len();
        sockets.extend(come(&server.url, from..active.min(from + AT_ONCE), ENTRIES).await);
    }
    let connected = server.resident_bytes()?;
    drop((sockets, socket));
    server.kill().await;
    Ok(vec![
        ("registered", registered as f64),
        ("active", active as f64),
        ("before_bytes", before as f64),
        ("registered_bytes", known as f64),
        ("active_bytes", connected as f64),
        ("bytes_a_registered", known.saturating_sub(before) as f64 / registered as f64),
        ("bytes_an_active", connected.saturating_sub(known) as f64 / active as f64),
    ])
}

/// Clients with these numbers, each of which has read the log up to its end.
async fn come(url: &str, numbers: std::ops::Range<usize>, end: u64) -> Vec<Socket> {
    let begun = Instant::now();
    let tasks: Vec<_> = numbers
        .map(|number| {
            let url = url.to_owned();
            tokio::spawn(async move { herd::come(&url, number, end, begun).await.0 })
        })
        .collect();
    let mut sockets = Vec::new();
    for task in tasks {
        sockets.push(task.await.expect("it comes to its end"));
    }
    sockets
}

fn log(number: u64) -> LogName {
    board::log(number)
}

fn filled(first: u64, count: u64) -> Draft {
    let drafts = (first..first + count).map(|at| board::add(&format!("row{at}"), &format!("row number {at}")));
    Draft { ops: drafts.flat_map(|draft| draft.ops).collect(), ..board::nothing() }
}

async fn write(url: &str, logs: u64, records: u64) {
    let client = NativeClient::start(url, None, Database::default());
    for number in 0..logs {
        let name = log(number);
        client.call(move |engine, now| engine.open(&name, board::schema(), now)).await;
    }
    until_all(&client, logs, |_| true).await;
    for number in 0..logs {
        let mut at = 0;
        while at < records {
            let count = RECORDS_AN_ACTION.min(records - at);
            client.act(&log(number), filled(at, count)).await.expect("nothing bounds the backlog");
            at += count;
            let name = log(number);
            let backlog =
                move |engine: &mut Engine| engine.replica(&name).ok().map(|open| open.outbox().backlog().entries);
            let waits = move |engine: &mut Engine| backlog(engine).filter(|entries| *entries < WAITING_MAX);
            client.until_within(PATIENCE, waits).await;
        }
    }
    until_all(&client, logs, |replica| replica.outbox().is_empty()).await;
    client.kill().await;
}

async fn open_all(client: &NativeClient, logs: u64) {
    for number in 0..logs {
        let name = log(number);
        client.call(move |engine, now| engine.open(&name, board::schema(), now)).await;
    }
    until_all(client, logs, |_| true).await;
}

/// Waits until every log is open and something is so of it.
async fn until_all(
    client: &NativeClient,
    logs: u64,
    is_so: impl Fn(&driftlog_core::replica::Replica) -> bool + Copy + Send + Sync + 'static,
) {
    for number in 0..logs {
        let name = log(number);
        let ask = move |engine: &mut Engine| engine.replica(&name).ok().filter(|open| is_so(open)).map(|_| ());
        client.until_within(PATIENCE, ask).await;
    }
}

/// Rows that all logs show.
async fn rows(client: &NativeClient, logs: u64) -> u64 {
    client
        .call(move |engine, _| {
            let shown = |number| {
                let (view, visible) = engine.replica(&log(number)).ok()?.view_mut()?;
                Some(view.select(visible, Query::all(board::name("todos"))).ok()?.len() as u64)
            };
            (0..logs).filter_map(shown).sum()
        })
        .await
}

fn bytes_in(directory: &Path) -> io::Result<u64> {
    std::fs::read_dir(directory)?.map(|file| Ok(file?.metadata()?.len())).sum()
}
