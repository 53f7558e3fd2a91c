//! Snapshots: a log's confirmed state at a cursor, folded in the background from what the store holds.
//!
//! The maker has a connection of its own and folds beside the writer, which only stores the finished bytes.

use std::sync::mpsc;

use driftlog_core::id::Offset;
use driftlog_core::snapshot::{decode, encode};
use driftlog_core::state::State;

use crate::store::{LogRow, ReadPool, Reads, StoreError, StoredSnapshot};
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
    let state = State::new(log.log_id);
    let mut folded =
        Folded { state, snapshot_end: Offset(0), snapshot_bytes: 0, tail_bytes: 0, snapshot_damaged: false };
    match stored(reads, log) {
        Ok(Some((state, bytes))) => {
            (folded.snapshot_end, folded.snapshot_bytes) = (state.cursor().next, bytes);
            folded.state = state;
        }
        Ok(None) => {}
        // Derived bytes may always be made again from the entries.
        Err(error) if error.is_corruption() => {
            tracing::error!(log = %log.name, %error, "a damaged snapshot is left out, and made again");
            folded.snapshot_damaged = true;
        }
        Err(error) => return Err(error),
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

/// The state of a log's snapshot, if there is one, and how many bytes it takes.
fn stored(reads: Reads<'_>, log: &LogRow) -> Result<Option<(State, u64)>, StoreError> {
    let Some(StoredSnapshot { cursor, bytes }) = reads.snapshot(log.key)? else { return Ok(None) };
    let state = decode(&bytes).map_err(|error| StoreError::corrupt("snapshots", error))?;
    if state.cursor() != cursor || state.log() != log.log_id {
        return Err(StoreError::corrupt("snapshots", "it is of another place"));
    }
    Ok(Some((state, bytes.len() as u64)))
}

/// Ask for a snapshot of this log.
pub(crate) struct Job {
    pub(crate) log: LogRow,
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

/// Starts the maker. It ends with the writer that asks it.
pub(crate) fn start(
    jobs: mpsc::Receiver<Job>,
    pool: std::sync::Arc<ReadPool>,
    writer: WriterHandle,
) -> std::io::Result<()> {
    std::thread::Builder::new().name("snapshots".to_owned()).spawn(move || {
        while let Ok(job) = jobs.recv() {
            match pool.read(|reads| make(reads, &job.log)) {
                Ok(snapshot) => drop(writer.send(Request::Snapshot { log: job.log.key, snapshot })),
                Err(error) => tracing::warn!(log = %job.log.name, %error, "no snapshot was made"),
            }
        }
    })?;
    Ok(())
}

/// Folds a log and encodes its state.
pub(crate) fn make(reads: Reads<'_>, log: &LogRow) -> Result<StoredSnapshot, StoreError> {
    let mut folded = fold(reads, log)?;
    let bytes = encode(&mut folded.state);
    Ok(StoredSnapshot { cursor: folded.state.cursor(), bytes })
}
