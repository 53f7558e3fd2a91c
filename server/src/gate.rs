//! The gate in front of the log writer: rich changes are read in a worker process before their push goes on.
//!
//! ```text
//!  session ──push──► lane of (log, actor) ──► worker process: reads every rich change ──► writer ──► offset
//!     │                                           │ dies, hangs, swells: killed
//!     └── no rich change, nothing before it ──►   └─► its entries alone, one by one; the guilty one is refused
//! ```
//!
//! A push without rich changes goes on at once unless one of its lane is being checked; so the order within a lane is
//! kept, and other authors and other logs overtake a slow check. A user whose push brought a worker down is suspected:
//! its pushes are checked entry by entry in a worker set aside for suspects, until enough of them were good.
//!
//! **Invariant:** no push with rich changes passes unread. While no worker can be had, such pushes wait, and so does
//! who sent them, since the credit for them is not given back; everything else goes on.

mod pool;
mod wire;
mod worker;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use driftlog_core::entry::{Digest, Entry};
use driftlog_core::id::{ActorId, LogName, Seq, UserId};
use driftlog_core::packed::Pushed;
use driftlog_core::sequencer::rich_changes;
use driftlog_core::session::server::Append;
use driftlog_core::time::WallMs;

use crate::room::{Claim, Place, Share};
use crate::writer::{Mailbox, Request, WriterHandle};

use pool::{Death, Pool};
use wire::{Change, Found, Task};
pub use worker::{Inspect, run as gate_worker};

/// Entries that a suspect's pushes must bring through before they are checked like anybody's again.
const CLEAN_ENTRIES: u32 = 256;
/// How often an entry must bring a fresh worker down, alone, before it is refused: once may be the machine's fault.
const DEATHS_MAX: u32 = 2;
/// Suspects and guilty entries that are remembered.
const REMEMBERED_MAX: usize = 1_024;

/// Where the rich changes of clients are read before they reach the log writer.
#[derive(Debug, Clone, Default)]
pub enum Gate {
    /// In this process, by the log writer. For tests and for embedding: a panic costs only the entry, but nothing
    /// bounds the time and memory that a change may take.
    #[default]
    InProcess,
    /// In processes of their own with bounds, which are killed when they exceed them. What the binary does.
    Workers(GateWorkers),
}

/// Worker processes of the gate.
#[derive(Debug, Clone)]
pub struct GateWorkers {
    /// The program; it must call [`gate_worker`](crate::gate_worker).
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Processes at once, besides one for suspects. They are started when they are first needed.
    pub count: usize,
    /// How long the check of one push may take before the worker is killed. A keystroke takes microseconds.
    pub patience: Duration,
}

impl GateWorkers {
    /// Two workers with two seconds each.
    pub fn new(program: impl Into<PathBuf>, arguments: impl IntoIterator<Item = OsString>) -> Self {
        let arguments = arguments.into_iter().collect();
        Self { program: program.into(), arguments, count: 2, patience: Duration::from_secs(2) }
    }
}

/// Takes pushes from sessions and hands them to the writer.
#[derive(Clone)]
pub(crate) struct Stage {
    writer: WriterHandle,
    checked: Option<Arc<Checked>>,
}

/// What was found in the entries of a push that carry rich changes: the number of ops, or why one is refused.
type Read = BTreeMap<Seq, Result<usize, String>>;

/// A push on its way.
struct Waiting {
    append: Append,
    user: UserId,
    reply: Mailbox,
    claim: Claim,
    since: WallMs,
}

/// Pushes of one actor to one log: one is under check, the others wait behind it.
struct Lane {
    since: WallMs,
    behind: VecDeque<Waiting>,
}

/// What only a gate with workers has.
struct Checked {
    healthy: Pool,
    alone: Pool,
    /// Lanes with a push under check.
    lanes: Mutex<BTreeMap<(LogName, ActorId), Lane>>,
    record: Mutex<Record>,
}

/// Who and what brought workers down.
#[derive(Default)]
struct Record {
    /// Suspects, with the entries that each brought through since.
    suspects: BTreeMap<UserId, u32>,
    /// Guilty entries, so that the same bytes again cost no worker; oldest first.
    guilty: VecDeque<(Digest, String)>,
}

impl Stage {
    pub(crate) fn new(gate: &Gate, writer: WriterHandle) -> Self {
        let checked = match gate {
            Gate::InProcess => None,
            Gate::Workers(workers) => Some(Arc::new(Checked {
                healthy: Pool::new(workers.clone(), workers.count.max(1)),
                alone: Pool::new(workers.clone(), 1),
                lanes: Mutex::default(),
                record: Mutex::default(),
            })),
        };
        Self { writer, checked }
    }

    /// Takes a push; it reaches the writer behind every earlier one of its actor and log.
    pub(crate) fn append(&self, append: Append, user: UserId, reply: Mailbox, share: &Arc<Share>, since: WallMs) {
        let bytes = append.bytes;
        let Some(checked) = &self.checked else {
            let claim = share.claim(Place::Writer, bytes);
            return self.hand_on(append, Read::new(), reply, claim);
        };
        let claim = share.claim(Place::Gate, bytes);
        let lane = (append.name.clone(), append.actor);
        {
            let mut lanes = lock(&checked.lanes);
            match lanes.get_mut(&lane) {
                Some(Lane { behind, .. }) => {
                    // The client of a session that is gone sends them again, and has not yet.
                    behind.retain(|waiting| !waiting.reply.is_closed());
                    return behind.push_back(Waiting { append, user, reply, claim, since });
                }
                None if entries(&append).next().is_none() => {
                    // Under the lock: a later push of the lane must not overtake it.
                    return self.hand_on(append, Read::new(), reply, claim);
                }
                None => drop(lanes.insert(lane.clone(), Lane { since, behind: VecDeque::new() })),
            }
        }
        let (stage, checked) = (self.clone(), Arc::clone(checked));
        tokio::spawn(async move { stage.drive(&checked, lane, Waiting { append, user, reply, claim, since }).await });
    }

    /// Checks the pushes of one lane one after the other until none is left.
    async fn drive(&self, checked: &Checked, lane: (LogName, ActorId), first: Waiting) {
        let mut next = Some(first);
        while let Some(Waiting { append, user, reply, claim, .. }) = next {
            if let Some(read) = checked.check(&user, &append, &reply).await {
                self.hand_on(append, read, reply, claim);
            }
            let mut lanes = lock(&checked.lanes);
            next = lanes.get_mut(&lane).and_then(|lane| lane.behind.pop_front());
            match (&next, lanes.get_mut(&lane)) {
                (Some(next), Some(lane)) => lane.since = next.since,
                _ => drop(lanes.remove(&lane)),
            }
        }
    }

    /// How many pushes wait here for a worker or its answer, and since when the oldest does, in steady time.
    pub(crate) fn waits(&self) -> (usize, Option<WallMs>) {
        let Some(checked) = &self.checked else { return (0, None) };
        let lanes = lock(&checked.lanes);
        let count = lanes.values().map(|lane| 1 + lane.behind.len()).sum();
        (count, lanes.values().map(|lane| lane.since).min())
    }

    fn hand_on(&self, append: Append, read: Read, reply: Mailbox, mut claim: Claim) {
        claim.hand_on();
        self.writer.send_claimed(Request::Append { append, read, reply }, claim);
    }
}

impl Checked {
    /// Reads every rich change of a push; gives what was found in each entry. None: the session of a suspect is gone
    /// in the middle. Nothing was said about the push, and its client sends it again when it is back.
    async fn check(&self, user: &UserId, append: &Append, reply: &Mailbox) -> Option<Read> {
        let mut read = Read::new();
        let mut unread = Vec::new();
        for entry in entries(append) {
            match lock(&self.record).verdict(&entry.digest()) {
                Some(reason) => drop(read.insert(entry.header.seq, Err(reason))),
                None => unread.push(entry),
            }
        }
        let suspected = lock(&self.record).suspects.contains_key(user);
        if !suspected && !unread.is_empty() {
            match self.healthy.run(&task(append.actor, &unread)).await {
                Ok(found) => {
                    note(&mut read, append.actor, &unread, found);
                    return Some(read);
                }
                Err(death) => self.suspect(user, append, &death),
            }
        }
        for entry in unread {
            if reply.is_closed() {
                return None;
            }
            match self.alone(append.actor, entry).await {
                Ok(found) => {
                    note(&mut read, append.actor, &[entry], found);
                    lock(&self.record).clear(user);
                }
                Err(death) => {
                    let (seq, reason) = (entry.header.seq, death.to_string());
                    tracing::warn!(%user, log = %append.name, %seq, %reason, "an entry is refused");
                    lock(&self.record).convict(entry.digest(), &reason);
                    read.insert(seq, Err(reason));
                }
            }
        }
        Some(read)
    }

    /// Reads one entry alone.
    async fn alone(&self, actor: ActorId, entry: &Entry) -> Result<Vec<Found>, Death> {
        let task = task(actor, &[entry]);
        let mut deaths = 0;
        loop {
            match self.alone.run(&task).await {
                Ok(found) => return Ok(found),
                Err(death) if deaths + 1 == DEATHS_MAX => return Err(death),
                Err(_) => deaths += 1,
            }
        }
    }

    fn suspect(&self, user: &UserId, append: &Append, death: &Death) {
        tracing::warn!(%user, log = %append.name, %death, "a push brought a gate worker down; its entries are checked alone");
        let mut record = lock(&self.record);
        record.suspects.insert(user.clone(), 0);
        while record.suspects.len() > REMEMBERED_MAX {
            record.suspects.pop_first();
        }
    }
}

impl Record {
    fn verdict(&self, digest: &Digest) -> Option<String> {
        self.guilty.iter().find(|(guilty, _)| guilty == digest).map(|(_, reason)| reason.clone())
    }

    fn convict(&mut self, digest: Digest, reason: &str) {
        self.guilty.push_back((digest, reason.to_owned()));
        if self.guilty.len() > REMEMBERED_MAX {
            self.guilty.pop_front();
        }
    }

    /// A suspect's entry was good.
    fn clear(&mut self, user: &UserId) {
        if let Some(clean) = self.suspects.get_mut(user) {
            *clean += 1;
            if *clean >= CLEAN_ENTRIES {
                self.suspects.remove(user);
            }
        }
    }
}

/// The entries of a push that carry rich changes.
fn entries(append: &Append) -> impl Iterator<Item = &Entry> {
    append.push.items.iter().filter_map(|item| match item {
        Pushed::Entry(entry) => rich_changes(append.actor, entry).next().map(|_| entry),
        Pushed::Void(_) => None,
    })
}

/// Notes of each entry what was found in its changes together.
fn note(read: &mut Read, actor: ActorId, entries: &[&Entry], found: Vec<Found>) {
    let mut found = found.into_iter();
    for entry in entries {
        let of_entry = found.by_ref().take(rich_changes(actor, entry).count());
        // All of them are taken, whatever stands among them: the next entry's follow.
        let of_entry: Vec<Found> = of_entry.collect();
        read.insert(entry.header.seq, of_entry.into_iter().sum());
    }
}

fn task(actor: ActorId, entries: &[&Entry]) -> Task {
    let changes = entries.iter().flat_map(|entry| rich_changes(actor, entry));
    Task { changes: changes.map(|change| Change { actor: change.actor.0, bytes: change.bytes.to_vec() }).collect() }
}

/// Short sections only, and none panics half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
