//! More than the server can take, from real sockets: what it takes is measured, then ten times as much is offered.
//!
//! Writers do what clients do: what their users do piles up with them, and is pushed as credit allows. One reader of
//! each log sees to it that everything accepted is delivered, once and in order. Meanwhile the memory of the server's
//! process is watched, and afterwards how long it takes until a writer alone is served as quickly as before.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use driftlog_core::id::LogName;
use driftlog_core::protocol::Frame;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::peer::{Peer, Socket};
use crate::process::Process;

mod reader;
mod writer;

/// Logs that are written to at once.
const LOGS: usize = 4;
/// Pushes of the lone writer whose median is compared.
const PROBES: usize = 25;
/// The lone writer is served as before when it takes no longer than so many times what it took …
const LATENCY_FACTOR: u32 = 3;
/// … or than this, which a machine takes for itself.
const LATENCY_FLOOR: Duration = Duration::from_millis(50);
/// How often the process is looked at, and work is offered.
const TICK: Duration = Duration::from_millis(20);
/// The lone writer is served as before within this, or never.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What to do.
pub struct Plan {
    /// The server.
    pub binary: PathBuf,
    /// Where its data stands.
    pub directory: PathBuf,
    /// Writers while it is measured what the server takes, and while more than that is offered.
    pub writers: (usize, usize),
    /// How much.
    pub amount: Amount,
}

/// How much is offered.
#[derive(Clone, Copy, Debug)]
pub enum Amount {
    /// Ten times what the server takes, for so long. It is measured for a tenth of that time.
    For(Duration),
    /// So many entries to measure by, and then ten times as many at once; all of them are accepted in the end.
    Entries(u64),
}

/// What was seen.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// How long more was offered than the server takes.
    pub seconds: f64,
    /// Entries a second that the server takes.
    pub capacity: f64,
    /// Entries that users made; those by which it was measured and those that the others are about count too.
    pub offered: u64,
    /// Entries that the server accepted; the others wait where they were made.
    pub accepted: u64,
    /// Entries that arrived at a reader, in order and once.
    pub delivered: u64,
    /// Bytes of memory of the server's process before the load …
    pub rss_start: u64,
    /// … at the most under it …
    pub rss_max: u64,
    /// … and at the end.
    pub rss_end: u64,
    /// How long after the load a writer alone was served as before; none: it was not.
    pub recovered: Option<Duration>,
    /// The most that waited in the server, and its bound, in bytes of pushes.
    pub waiting: (u64, u64),
}

/// A number of entries that one task counts and another waits for.
#[derive(Default)]
struct Count {
    entries: AtomicU64,
    changed: Notify,
}

impl Count {
    fn get(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    fn add(&self, entries: u64) {
        self.entries.fetch_add(entries, Ordering::Relaxed);
        self.changed.notify_one();
    }

    fn take(&self, entries_max: u64) -> u64 {
        let taken = self.get().min(entries_max);
        self.entries.fetch_sub(taken, Ordering::Relaxed);
        taken
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// A writer at work, and what it comes to.
type AtWork = JoinHandle<Result<writer::Told, Failure>>;

/// The writers, each a task, with what piles up with it.
struct Crowd {
    writers: Vec<(Arc<Count>, AtWork)>,
    accepted: Arc<Count>,
    end: watch::Sender<bool>,
}

impl Crowd {
    async fn gather(url: &str, names: std::ops::Range<usize>, logs: &[LogName]) -> Result<Self, Failure> {
        let (end, ended) = watch::channel(false);
        let accepted = Arc::<Count>::default();
        let mut writers = Vec::new();
        for name in names {
            let backlog = Arc::<Count>::default();
            let (writer, socket) = writer::Writer::begin(url, name, &logs[name % logs.len()]).await?;
            let run = writer.run(socket, Arc::clone(&backlog), Arc::clone(&accepted), ended.clone());
            writers.push((backlog, tokio::spawn(run)));
        }
        Ok(Self { writers, accepted, end })
    }

    /// Spreads work over all of them.
    fn offer(&self, entries: u64) {
        let count = self.writers.len() as u64;
        for (at, (backlog, _)) in (0..).zip(&self.writers) {
            let part = (entries * (at + 1) / count) - (entries * at / count);
            if part > 0 {
                backlog.add(part);
            }
        }
    }

    /// Offers an amount, at a rate or at once; returns what was offered.
    async fn load(&self, amount: Amount, per_second: f64) -> u64 {
        match amount {
            Amount::Entries(entries) => {
                self.offer(entries);
                while self.accepted.get() < entries {
                    self.accepted.changed().await;
                }
                entries
            }
            Amount::For(time) => {
                let (began, mut offered) = (Instant::now(), 0);
                while began.elapsed() < time {
                    let due = (began.elapsed().as_secs_f64() * per_second) as u64;
                    self.offer(due - offered);
                    offered = due;
                    tokio::time::sleep(TICK).await;
                }
                offered
            }
        }
    }

    /// No more work is made, and what is under way is answered. Returns how many entries each pushed, by log.
    async fn disperse(self, logs: usize) -> Result<Vec<u64>, Failure> {
        let _ = self.end.send(true);
        let mut by_log = vec![0; logs];
        for (_, writer) in self.writers {
            let told = writer.await??;
            by_log[told.name % logs] += told.entries;
        }
        Ok(by_log)
    }
}

/// Runs a plan.
///
/// # Errors
/// The server does not start or breaks its promises: a reader missed an entry, or saw it twice or out of order.
pub async fn run(plan: &Plan) -> Result<Report, Failure> {
    let process = Arc::new(Process::start(&plan.binary, &plan.directory, &[]).await?);
    let url = process.url.clone();
    let logs: Vec<LogName> = (0..LOGS).map(|log| LogName::new(&format!("board/{log}"))).collect::<Result<_, _>>()?;
    let readers = reader::follow_all(&url, &logs);
    let usual = Lone::begin(&url, "lone").await?.median().await?;

    let first = Crowd::gather(&url, 0..plan.writers.0, &logs).await?;
    let (amount, began) = (measured_by(plan.amount), Instant::now());
    first.load(amount, f64::from(u32::MAX)).await;
    let mut by_log = first.disperse(LOGS).await?;
    let before: u64 = by_log.iter().sum();
    // With what was under way at the end: a push may take as long as the measuring does.
    let capacity = before as f64 / began.elapsed().as_secs_f64();

    let crowd = Crowd::gather(&url, plan.writers.0..plan.writers.0 + plan.writers.1, &logs).await?;
    let rss_start = process.resident_bytes()?;
    let watching = Watch::begin(Arc::clone(&process));
    let began = Instant::now();
    let amount = match plan.amount {
        Amount::Entries(entries) => Amount::Entries(10 * entries),
        time @ Amount::For(_) => time,
    };
    let offered = before + plan.writers.1 as u64 + crowd.load(amount, 10.0 * capacity).await;
    let seconds = began.elapsed().as_secs_f64();
    let ended = Instant::now();
    let (recovered, dispersed) = tokio::join!(recovered(&url, usual, ended), crowd.disperse(LOGS));
    for (all, more) in by_log.iter_mut().zip(dispersed?) {
        *all += more;
    }
    let accepted: u64 = by_log.iter().sum();
    let delivered = reader::arrived(readers, &by_log).await?;
    let samples = watching.end().await?;
    Ok(Report {
        seconds,
        capacity,
        offered,
        accepted,
        delivered,
        rss_start,
        rss_max: samples.into_iter().max().unwrap_or(rss_start),
        rss_end: process.resident_bytes()?,
        recovered: recovered?,
        waiting: waiting(&url).await?,
    })
}

fn measured_by(amount: Amount) -> Amount {
    match amount {
        Amount::For(time) => Amount::For(time / 10),
        entries @ Amount::Entries(_) => entries,
    }
}

/// A writer alone, in a log of its own.
struct Lone {
    peer: Peer,
    socket: Socket,
}

impl Lone {
    async fn begin(url: &str, name: &str) -> Result<Self, Failure> {
        let mut peer = Peer::new(name);
        peer.set_log(LogName::new("alone")?);
        let (socket, _) = peer.open_to_push(url).await;
        Ok(Self { peer, socket })
    }

    /// How long one entry takes from the push to its verdict.
    async fn probe(&mut self) -> Result<Duration, Failure> {
        let entry = self.peer.act(Peer::insert("one"));
        let began = Instant::now();
        self.socket.send(&self.peer.push(&[entry])).await;
        loop {
            match self.socket.next().await {
                Frame::Ack(ack) if ack.through == self.peer.seq => return Ok(began.elapsed()),
                Frame::Ack(_) | Frame::Credit(_) => {}
                other => return Err(format!("not expected by the lone writer: {other:?}").into()),
            }
        }
    }

    async fn median(&mut self) -> Result<Duration, Failure> {
        let mut all = Vec::with_capacity(PROBES);
        for _ in 0..PROBES {
            all.push(self.probe().await?);
        }
        all.sort_unstable();
        Ok(all[PROBES / 2])
    }
}

/// How long after a moment one who comes then is served as usual: the beginning of the first probes whose median says so.
async fn recovered(url: &str, usual: Duration, since: Instant) -> Result<Option<Duration>, Failure> {
    let mut lone = Lone::begin(url, "late").await?;
    while since.elapsed() < RECOVERY_MAX {
        let began = since.elapsed();
        if lone.median().await? <= LATENCY_FLOOR.max(usual * LATENCY_FACTOR) {
            return Ok(Some(began));
        }
    }
    Ok(None)
}

/// Looks at the memory of the server's process.
struct Watch {
    samples: JoinHandle<std::io::Result<Vec<u64>>>,
    end: watch::Sender<bool>,
}

impl Watch {
    fn begin(process: Arc<Process>) -> Self {
        let (end, ended) = watch::channel(false);
        let samples = tokio::spawn(async move {
            let mut samples = Vec::new();
            while !*ended.borrow() {
                samples.push(process.resident_bytes()?);
                tokio::time::sleep(TICK).await;
            }
            Ok(samples)
        });
        Self { samples, end }
    }

    async fn end(self) -> Result<Vec<u64>, Failure> {
        let _ = self.end.send(true);
        Ok(self.samples.await??)
    }
}

/// What the server says of its room: the most that waited, and the bound.
async fn waiting(url: &str) -> Result<(u64, u64), Failure> {
    let health: serde_json::Value = serde_json::from_str(&crate::http::get(url, "/health").await?)?;
    let number = |field: &str| health[field].as_u64().ok_or_else(|| format!("no {field} in /health"));
    Ok((number("waiting_bytes_peak")?, number("waiting_bytes_max")?))
}
