//! Somebody without a network for thirty days, who went on working: how the device starts then, what it sends, and
//! whether each action comes into the log once, in order, and on what its author saw.
//!
//! The month is driven by hand, on a server that is told the time and an engine that is told the time, so that its
//! entries are as old as they say. Then the real server serves the same directory on a real socket, and the real engine
//! comes back to it; it is killed in the middle of that and starts again.

mod device;
mod month;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use driftlog_core::id::{ActorId, LogName, Offset, Seq, WriteId};
use driftlog_core::limits;
use driftlog_core::notice::{Notice, WriteStatus};
use driftlog_core::witness::{self, Witness};
use driftlog_server::stepped::{Moment, Server};
use driftlog_server::{Access, Config, serve};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::database::{Database, Work};
use crate::native::{self, NativeClient};
use crate::process::{processor_time, resident_bytes};
use crate::sim::board;
use device::{Device, Peer};
use month::{Month, shown};

/// The longest that an upload may take here.
const PATIENCE: Duration = Duration::from_secs(600);
/// What a server may be sent before it answers: its credit, and one frame beyond.
const UNANSWERED_BYTES_MAX: u64 = limits::CREDIT_BYTES + limits::FRAME_BYTES_MAX as u64;

/// What a process holds that has done nothing yet, and more.
const RESIDENT_BYTES: u64 = 64 * 1024 * 1024;

const ALICE: u8 = 1;
const BOB: u8 = 2;
const CAROL: u8 = 3;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What was seen.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Actions that were made without a network.
    pub actions: u64,
    /// From the start of the engine on its database until every row of the log is in view.
    pub start: Duration,
    /// Time of a processor that this took, in steps of 10 ms: what it takes where nothing else runs. Not known everywhere.
    pub start_processor: Option<Duration>,
    /// From the first start that may connect until the last verdict is here, the kill in the middle included.
    pub upload: Duration,
    /// What the process holds of memory as the log is in view, its database in memory included.
    pub resident_bytes: u64,
    /// Keys and values of its database then.
    pub database_bytes: u64,
    /// What it sent to a server that answers nothing.
    pub unanswered_bytes: u64,
    /// What it sent to the one that answers, over both runs.
    pub sent_bytes: u64,
    /// Actions that the author was told are accepted, by either run.
    pub accepted: u64,
    /// … that are refused.
    pub refused: u64,
    /// Actions that are in the log more than once.
    pub doubled: u64,
    /// Actions that are not in the log, or not behind the one before, or not on what their author saw.
    pub astray: u64,
    /// What the database did while the actions were made.
    pub making: Work,
    /// What it did for the start.
    pub starting: Work,
    /// What it did for the upload.
    pub uploading: Work,
    /// Entries that the engine laid, packed or folded for the upload, each counted as often as it was.
    pub steps: u64,
}

/// Counts what an engine works on.
#[derive(Debug, Default)]
struct Steps(AtomicU64);

impl Witness for Steps {
    fn works_on(&self, _: &LogName, work: Option<witness::Work>) {
        self.0.fetch_add(u64::from(work.is_some()), Ordering::Relaxed);
    }
}

impl Report {
    /// What is not as promised, in words. What is done for an action may cost no more where there are more of them.
    pub fn broken(&self) -> Vec<String> {
        let Self { actions, accepted, refused, doubled, astray, unanswered_bytes, .. } = *self;
        let (making, starting, uploading) = (self.making, self.starting, self.uploading);
        let mut broken = Vec::new();
        let mut look = |is_kept: bool, what: &str| {
            if !is_kept {
                broken.push(what.to_owned());
            }
        };
        look(accepted == actions, "not every action was accepted");
        look(refused == 0, "an action was refused");
        look(doubled == 0, "an action is in the log twice");
        look(astray == 0, "an action is not in its place in the log");
        look(unanswered_bytes > 0, "nothing was pushed");
        look(unanswered_bytes <= UNANSWERED_BYTES_MAX, "more was pushed than the server gave credit for");
        look(making.bytes_written <= 1_000 * actions, "making an action writes too much");
        look(starting.rows_read <= actions + actions / 10, "a start reads too many rows");
        look(uploading.rows_read <= 5 * actions, "the upload reads too many rows");
        look(uploading.rows_written <= 2 * actions, "the upload writes too many rows");
        look(uploading.bytes_written <= 500 * actions, "the upload writes too much");
        look(self.steps <= 10 * actions, "the upload takes entries into its hands too often");
        broken
    }

    /// Whether the process held no more than its actions account for. Only of one that did nothing else.
    pub fn is_small(&self) -> bool {
        self.resident_bytes <= RESIDENT_BYTES + 4_096 * self.actions
    }
}

/// Lives through the month and comes back.
///
/// # Errors
/// The server's or the system's; or what everybody sees at the end is not what was done.
///
/// # Panics
/// What only a broken engine does.
pub async fn run(actions: u64) -> Result<Report, Failure> {
    let month = Month { actions: actions.max(Month::ACTIONS_MIN) };
    let (directory, log) = (TempDir::new()?, board::log(1));
    let today = native::now();
    let (mut database, base) = lived(directory.path(), &log, month, today - Month::MS)?;
    let making = database.take_work();
    let started = started(database, &log, directory.path(), today)?;
    let (listener, mut at) = (TcpListener::bind("127.0.0.1:0").await?, BTreeMap::new());
    let url = format!("ws://{}/sync", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel::<()>();
    let config = Config::new(directory.path(), Access::Development);
    let server = tokio::spawn(serve(listener, config, async { drop(stopped.await) }));
    let begun = Instant::now();
    let steps = Arc::<Steps>::default();
    let half = month.actions / 2;
    let (database, sent_first) = uploaded_to(&url, started.database, &steps, half, &mut at).await;
    let (mut database, sent_second) = uploaded_to(&url, database, &steps, 0, &mut at).await;
    let upload = begun.elapsed();
    let uploading = database.take_work();
    let reader = NativeClient::start(&url, None, Database::default());
    reader.open(&log, board::schema()).await;
    reader.quiet(&log).await;
    let name = log.clone();
    let seen = reader.call(move |engine, _| shown(engine, &name)).await;
    reader.kill().await;
    drop(stop);
    server.await??;
    same(&seen, month, "a new client")?;
    let mut alice = Device::start(ALICE, database, native::now());
    alice.open(&log, native::now(), &mut Peer::Nobody);
    same(&shown(&mut alice.engine, &log), month, "the device itself")?;
    let (doubled, astray) = placed(directory.path(), &log, month, base)?;
    let told = |wanted: &dyn Fn(&WriteStatus) -> bool| at.values().filter(|status| wanted(status)).count() as u64;
    Ok(Report {
        actions: month.actions,
        start: started.time,
        start_processor: started.processor,
        upload,
        resident_bytes: started.resident_bytes,
        database_bytes: started.database_bytes,
        unanswered_bytes: started.unanswered_bytes,
        sent_bytes: sent_first + sent_second,
        accepted: told(&|status| matches!(status, WriteStatus::Accepted(_))),
        refused: told(&|status| !matches!(status, WriteStatus::Accepted(_))),
        doubled,
        astray,
        making,
        starting: started.work,
        uploading,
        steps: steps.0.load(Ordering::Relaxed),
    })
}

/// The month: alice's device as it is at the end, and the end of the log as she saw it last.
fn lived(directory: &Path, log: &LogName, month: Month, begun: u64) -> Result<(Database, Offset), Failure> {
    let moment = |now: u64| Moment { wall: now, steady: now };
    let mut server = Server::open(Config::new(directory, Access::Development), moment(begun), [9; 32])?;
    let mut bob = Device::start(BOB, Database::default(), begun);
    bob.open(log, begun, &mut Peer::Server(&mut server));
    for draft in Month::beginning() {
        bob.act(log, draft, begun, &mut Peer::Server(&mut server));
    }
    let bob = bob.end(&mut Peer::Server(&mut server));
    let mut alice = Device::start(ALICE, Database::default(), begun);
    alice.open(log, begun, &mut Peer::Server(&mut server));
    let base = alice.engine.replica(log)?.state().cursor().next;
    let database = alice.end(&mut Peer::Server(&mut server));

    let mut alice = Device::start(ALICE, database, begun);
    alice.open(log, begun, &mut Peer::Nobody);
    let time = |at: u64| begun + month.time(at);
    for at in 0..month.actions {
        let draft = month.draft(at, &mut alice.engine, log);
        alice.act(log, draft, time(at), &mut Peer::Nobody);
    }
    let database = alice.end(&mut Peer::Nobody);

    // Between what she did before and behind it, by their clocks.
    let middle = time(month.actions / 2) - 1;
    server.set_time(moment(middle));
    let mut bob = Device::start(BOB, bob, middle);
    bob.open(log, middle, &mut Peer::Server(&mut server));
    for draft in Month::middle() {
        bob.act(log, draft, middle, &mut Peer::Server(&mut server));
    }
    if !bob.engine.replica(log)?.outbox().is_empty() {
        return Err("the other's work did not arrive".into());
    }
    bob.end(&mut Peer::Server(&mut server));
    server.end();
    Ok((database, base))
}

struct Started {
    database: Database,
    time: Duration,
    processor: Option<Duration>,
    resident_bytes: u64,
    database_bytes: u64,
    unanswered_bytes: u64,
    work: Work,
}

/// Starts on the database without a network; then meets a server that commits nothing.
fn started(database: Database, log: &LogName, directory: &Path, now: u64) -> Result<Started, Failure> {
    let database_bytes = database.bytes();
    let (begun, processor) = (Instant::now(), processor_time(std::process::id()).ok());
    let mut alice = Device::start(ALICE, database, now);
    alice.open(log, now, &mut Peer::Nobody);
    let (view, visible) = alice.engine.replica(log)?.view_mut().ok_or("the log is not shown")?;
    view.select(visible, driftlog_core::view::Query::all(board::name("todos")))?;
    let time = begun.elapsed();
    let processor = processor.and_then(|before| Some(processor_time(std::process::id()).ok()? - before));
    let resident_bytes = resident_bytes(std::process::id())?;
    let work = alice.database.take_work();
    let moment = Moment { wall: now, steady: now };
    let mut server = Server::open(Config::new(directory, Access::Development), moment, [8; 32])?;
    let mut stalled = Peer::Stalled(&mut server);
    alice.engine.handle(driftlog_core::engine::Input::Woken, now);
    alice.carry_on(now, &mut stalled);
    let unanswered_bytes = alice.pushed_bytes;
    // The server ends, and has written nothing of it.
    let database = alice.end(&mut stalled);
    Ok(Started { database, time, processor, resident_bytes, database_bytes, unanswered_bytes, work })
}

/// Starts the device again and lets it upload until so many actions are left; then it is killed. Notes what the app was
/// told last of each action.
async fn uploaded_to(
    url: &str,
    database: Database,
    steps: &Arc<Steps>,
    left: u64,
    told: &mut BTreeMap<WriteId, WriteStatus>,
) -> (Database, u64) {
    let log = &board::log(1);
    let mut client = NativeClient::watched(url, None, database, Some(Arc::clone(steps) as Arc<dyn Witness>));
    client.open(log, board::schema()).await;
    let name = log.clone();
    let is_there = move |engine: &mut driftlog_core::engine::Engine| {
        let backlog = engine.replica(&name).ok()?.outbox().backlog().entries;
        (backlog <= left).then_some(())
    };
    client.until_within(PATIENCE, is_there).await;
    if left == 0 {
        client.quiet(log).await;
    }
    let sent = client.sent_bytes();
    let (_, nothing) = mpsc::unbounded_channel();
    let mut notices = std::mem::replace(&mut client.notices, nothing);
    let database = client.kill().await;
    while let Ok(notice) = notices.try_recv() {
        if let Notice::Write(_, write, status) = notice
            && !matches!(status, WriteStatus::Stored(_))
        {
            told.insert(write, status);
        }
    }
    (database, sent)
}

fn same(seen: &BTreeMap<String, serde_json::Value>, month: Month, who: &str) -> Result<(), Failure> {
    let wanted = month.outcome();
    let differs = wanted.iter().find(|(id, row)| seen.get(*id) != Some(row));
    if let Some((id, row)) = differs {
        return Err(format!("{who} sees {:?} of {id}, and not {row}", seen.get(id)).into());
    }
    match seen.keys().find(|id| !wanted.contains_key(*id)) {
        Some(id) => Err(format!("{who} sees {id}, which should be gone").into()),
        None => Ok(()),
    }
}

/// How many of alice's actions are in the log more than once, and how many are not in their place.
fn placed(directory: &Path, log: &LogName, month: Month, base: Offset) -> Result<(u64, u64), Failure> {
    let now = native::now();
    let moment = Moment { wall: now, steady: now };
    let server = Server::open(Config::new(directory, Access::Development), moment, [CAROL; 32])?;
    let (mut seen, mut doubled, mut astray) = (BTreeMap::new(), 0, 0);
    let (mut next, mut last) = (Offset(0), Seq(0));
    loop {
        let entries = server.entries(log, next)?;
        let Some((_, cursor)) = entries.last() else { break };
        next = cursor.next;
        for (logged, _) in entries.iter().filter(|(logged, _)| logged.actor == ActorId([ALICE; 16])) {
            let header = &logged.entry.header;
            doubled += u64::from(seen.insert((header.run, header.n), header.seq).is_some());
            astray += u64::from(header.seq != last.next() || logged.base != base);
            last = header.seq;
        }
    }
    Ok((doubled, astray + month.actions.saturating_sub(seen.len() as u64)))
}
