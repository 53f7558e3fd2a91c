//! Snapshots: a log's confirmed state at a cursor, folded in the background from what the store holds.
//!
//! The maker has a connection of its own and folds beside the writer, which only stores the finished bytes.

use std::sync::mpsc;

use driftlog_core::chain::Cursor;
use driftlog_core::id::{LogId, Offset};
use driftlog_core::sequencer::Confirmed;
use driftlog_core::time::Time;

use crate::store::{LogRow, ReadPool, Reads, StoreError, StoredSnapshot};
use crate::writer::{Request, WriterHandle};

/// Entries folded between two looks at the store.
const FOLD_ENTRIES: usize = 1_000;
const FOLD_BYTES: usize = 4 * 1024 * 1024;
/// Snapshots that may wait to be made; more are asked for again by the next push to their log.
const JOBS_MAX: usize = 64;

/// A log's state, folded from its newest snapshot and the entries behind it.
pub(crate) struct Folded {
    pub(crate) confirmed: Confirmed,
    pub(crate) cursor: Cursor,
    pub(crate) accepted: Time,
    pub(crate) snapshot_end: Offset,
    pub(crate) snapshot_bytes: u64,
    pub(crate) tail_bytes: u64,
}

/// Folds a log up to its end, or up to `until`.
pub(crate) fn fold(reads: Reads<'_>, log: &LogRow, until: Option<Offset>) -> Result<Folded, StoreError> {
    let stored = reads.snapshot(log.key)?;
    let (end, accepted) = reads.end(log)?;
    let mut folded = Folded {
        confirmed: Confirmed::new(log.log_id),
        cursor: Cursor::start(log.log_id),
        accepted,
        snapshot_end: Offset(0),
        snapshot_bytes: 0,
        tail_bytes: 0,
    };
    if let Some(StoredSnapshot { cursor, bytes }) = stored {
        match Confirmed::from_snapshot(&bytes) {
            Ok(confirmed) => {
                folded.confirmed = confirmed;
                (folded.cursor, folded.snapshot_end) = (cursor, cursor.next);
                folded.snapshot_bytes = bytes.len() as u64;
            }
            // Derived bytes may always be made again from the entries.
            Err(error) => tracing::warn!(log = %log.name, %error, "a snapshot is left out"),
        }
    }
    let until = until.map_or(end.next, |until| until.min(end.next));
    while folded.cursor.next < until {
        let placed = reads.entries(log.key, folded.cursor.next, FOLD_ENTRIES, FOLD_BYTES)?;
        if placed.is_empty() {
            return Err(StoreError::corrupt("entries", format!("the log ends before offset {until}")));
        }
        for (logged, cursor) in &placed {
            folded.confirmed.fold(logged);
            folded.cursor = *cursor;
        }
        folded.tail_bytes += placed.iter().map(|(logged, _)| logged.entry.to_bytes().len() as u64).sum::<u64>();
    }
    Ok(folded)
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
                Ok(snapshot) => writer.send(Request::Snapshot { log: job.log.key, snapshot }),
                Err(error) => tracing::warn!(log = %job.log.name, %error, "no snapshot was made"),
            }
        }
    })?;
    Ok(())
}

fn make(reads: Reads<'_>, log: &LogRow) -> Result<StoredSnapshot, StoreError> {
    let mut folded = fold(reads, log, None)?;
    let bytes = folded.confirmed.to_snapshot().map_err(|error| StoreError::corrupt("snapshots", error))?;
    Ok(StoredSnapshot { cursor: folded.cursor, bytes })
}

/// A log's records as JSON, with the position they stand at (docs/protocol.md, "HTTP").
pub(crate) fn materialize(log_id: LogId, folded: &Folded) -> serde_json::Value {
    let chain: String = folded.cursor.chain.0.0.iter().map(|byte| format!("{byte:02x}")).collect();
    serde_json::json!({
        "log_id": log_id.to_string(),
        "end": folded.cursor.next.0,
        "chain": chain,
        "collections": {},
    })
}
