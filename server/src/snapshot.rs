//! Snapshots: a log's confirmed state at a cursor, folded in the background from what the store holds.
//!
//! The maker has a connection of its own and folds beside the writer, which only stores the finished bytes. It also
//! looks up what retention lets go, which the writer then deletes.

use std::sync::{Arc, mpsc};

use driftlog_core::id::Offset;
use driftlog_core::sequencer::{Grown, Rerooting};
use driftlog_core::snapshot::{decode, encode};
use driftlog_core::state::State;
use driftlog_core::time::{self, WallMs};

use crate::environment::Environment;
use crate::retention::{self, Pins, Retention, Step};
use crate::store::{LogRow, ReadPool, Reads, Snapshot, SnapshotRow, StoreError, StoredSnapshot};
use crate::writer::{Request, WriterHandle};

/// Entries folded between two looks at the store.
const FOLD_ENTRIES: usize = 1_000;
const FOLD_BYTES: usize = 4 * 1024 * 1024;
/// Snapshots that may wait to be made; more are asked for again by the next push to their log.
const JOBS_MAX: usize = 64;

/// A log's state, folded from its newest snapshot and the entries behind it.
pub(crate) struct Folded {
    pub(crate) state: State,
    pub(crate) snapshot_end: Offset,
    pub(crate) snapshot_bytes: u64,
    pub(crate) tail_bytes: u64,
    /// The stored snapshot did not read, and is to be made again.
    pub(crate) snapshot_damaged: bool,
}

/// Folds a log up to its end.
pub(crate) fn fold(reads: Reads<'_>, log: &LogRow) -> Result<Folded, StoreError> {
    let mut folded = newest(reads, log)?;
    if folded.state.cursor().next < reads.folds_from(log)? {
        return Err(StoreError::corrupt("snapshots", "no whole one is left, and the entries before it are not kept"));
    }
    folded.state.set_epochs(reads.epochs(log)?);
    let (end, _) = reads.end(log)?;
    while folded.state.cursor().next < end.next {
        let next = folded.state.cursor().next;
        let placed = reads.entries(log, next, FOLD_ENTRIES, FOLD_BYTES)?;
        if placed.is_empty() {
            return Err(StoreError::corrupt("entries", format!("no entry at offset {next}")));
        }
        for (logged, cursor) in &placed {
            folded.state.fold(logged).map_err(|error| StoreError::corrupt("entries", error))?;
            if folded.state.cursor() != *cursor {
                return Err(StoreError::corrupt("entries", format!("the chain breaks at offset {}", logged.offset)));
            }
            folded.tail_bytes += logged.entry.to_bytes().len() as u64;
        }
    }
    Ok(folded)
}

/// The newest state of a log that is stored whole; the state of an empty log if none is.
fn newest(reads: Reads<'_>, log: &LogRow) -> Result<Folded, StoreError> {
    let (snapshots, mut snapshot_damaged) = reads.snapshots(log.key)?;
    for snapshot in snapshots {
        match decoded(reads, log, snapshot) {
            Ok((state, bytes)) => {
                let (snapshot_end, snapshot_bytes) = (state.cursor().next, bytes);
                return Ok(Folded { state, snapshot_end, snapshot_bytes, tail_bytes: 0, snapshot_damaged });
            }
            // Derived bytes may always be made again from what is before them.
            Err(error) if error.is_corruption() => {
                tracing::error!(log = %log.name, %error, "a damaged snapshot is left out, and made again");
                snapshot_damaged = true;
            }
            Err(error) => return Err(error),
        }
    }
    let state = State::new(log.log_id);
    Ok(Folded { state, snapshot_end: Offset(0), snapshot_bytes: 0, tail_bytes: 0, snapshot_damaged })
}

/// The state of a stored snapshot, and how many bytes it takes.
pub(crate) fn decoded(reads: Reads<'_>, log: &LogRow, snapshot: SnapshotRow) -> Result<(State, u64), StoreError> {
    let Snapshot { cursor, bytes } = reads.snapshot(snapshot)?;
    let state = decode(&bytes).map_err(|error| StoreError::corrupt("snapshots", error))?;
    if state.cursor() != cursor || state.log() != log.log_id {
        return Err(StoreError::corrupt("snapshots", "it is of another place"));
    }
    Ok((state, bytes.len() as u64))
}

/// What is asked of the maker.
pub(crate) enum Job {
    /// A snapshot of this log.
    Snapshot(LogRow),
    /// A look at what of this log may go.
    Truncate(LogRow),
}

/// Where snapshots are asked for.
pub(crate) struct SnapshotJobs(mpsc::SyncSender<Job>);

/// A bounded queue of jobs.
pub(crate) fn jobs() -> (SnapshotJobs, mpsc::Receiver<Job>) {
    let (sender, receiver) = mpsc::sync_channel(JOBS_MAX);
    (SnapshotJobs(sender), receiver)
}

impl SnapshotJobs {
    /// Asks for a snapshot; never waits. Whether it will be made.
    pub(crate) fn request(&self, job: Job) -> bool {
        self.0.try_send(job).is_ok()
    }
}

/// What the maker works with.
#[derive(Clone)]
pub(crate) struct Maker {
    pub(crate) pool: Arc<ReadPool>,
    pub(crate) environment: Arc<dyn Environment>,
    pub(crate) retention: Retention,
    pub(crate) pins: Arc<Pins>,
    pub(crate) rerooting: Rerooting,
}

impl Maker {
    /// Does a job; what the writer has to do about it, if anything.
    ///
    /// # Errors
    /// [`StoreError`]: it is not done, and asked for again by the next push.
    pub(crate) fn carry_out(&self, job: Job) -> Result<Option<Request>, StoreError> {
        match job {
            Job::Snapshot(log) => {
                let now = self.environment.now();
                let (snapshot, grown) = self.pool.read(|reads| make(reads, &log, &self.rerooting, now))?;
                Ok(Some(Request::Snapshot { log, snapshot, grown }))
            }
            Job::Truncate(log) => {
                let (keep, now) = (self.retention.of(&log.name), (self.environment.now(), self.environment.steady()));
                let next = self.pool.read(|reads| retention::next(reads, &log, keep, &self.pins, now))?;
                match next {
                    Step::Nothing => Ok(None),
                    Step::Truncate(below) => Ok(Some(Request::Truncate { log, below })),
                    Step::Snapshot => self.carry_out(Job::Snapshot(log)),
                }
            }
        }
    }

    /// Starts a thread that does what is asked for. It ends with the writer that asks it.
    pub(crate) fn start(self, jobs: mpsc::Receiver<Job>, writer: WriterHandle) -> std::io::Result<()> {
        std::thread::Builder::new().name("snapshots".to_owned()).spawn(move || {
            while let Ok(job) = jobs.recv() {
                let name = match &job {
                    Job::Snapshot(log) | Job::Truncate(log) => log.name.clone(),
                };
                match self.carry_out(job) {
                    Ok(Some(request)) => drop(writer.send(request)),
                    Ok(None) => {}
                    Err(error) => tracing::warn!(log = %name, %error, "no snapshot was made, or nothing truncated"),
                }
            }
        })?;
        Ok(())
    }
}

/// Folds a log and encodes its state; names the texts that have grown far beyond their content.
pub(crate) fn make(
    reads: Reads<'_>,
    log: &LogRow,
    rerooting: &Rerooting,
    now: WallMs,
) -> Result<(StoredSnapshot, Vec<Grown>), StoreError> {
    let mut state = fold(reads, log)?.state;
    // Changes of them that come nevertheless, since a clock stepped back, are refused as if they came later.
    state.forget_old_roots(time::accepted(now, state.accepted_last()), |_, _| false);
    // First, since texts that were read for it need not be opened by whoever starts from the snapshot.
    let grown = rerooting.grown(&mut state, now);
    let (bytes, rests_at) = (encode(&mut state), rerooting.rests_at(&state, &grown));
    Ok((StoredSnapshot::of(Snapshot { cursor: state.cursor(), bytes }, rests_at), grown))
}
