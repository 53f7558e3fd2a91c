//! A read of the store for one session, to be run where blocking is allowed.

use std::sync::Arc;

use driftlog_core::id::{ActorId, LogName, Offset};
use driftlog_core::limits::{FRAME_BYTES_TARGET, FRAME_ENTRIES_MAX};
use driftlog_core::protocol::frame::SnapshotBegun;
use driftlog_core::session::server::{EntriesRead, RequestId, SnapshotRead, entries_frame};
use driftlog_core::time::WallMs;

use crate::fanout::{Feed, Position};
use crate::retention::Pins;
use crate::store::{Reads, Snapshot, StoreError};

/// What must be read.
pub(crate) struct StoreRead {
    pub(super) request: RequestId,
    pub(super) name: LogName,
    pub(super) feed: Arc<Feed>,
    pub(super) now: WallMs,
    /// The time for deadlines.
    pub(super) steady: WallMs,
    pub(super) actor: ActorId,
    pub(super) pins: Arc<Pins>,
    /// Where entries are wanted from; none: the snapshot is wanted.
    pub(super) position: Option<Position>,
    /// Where they end (exclusive), if they are a stretch of history.
    pub(super) until: Option<Offset>,
    /// What the reader has of a snapshot that it was being sent before.
    pub(super) begun: Option<SnapshotBegun>,
}

/// What a read brings.
pub(crate) enum Found {
    Entries(EntriesRead),
    Snapshot(Option<SnapshotRead>),
}

impl StoreRead {
    /// Names the read in its answer.
    pub(crate) fn request(&self) -> RequestId {
        self.request
    }

    /// Reads.
    pub(crate) fn run(&self, reads: Reads<'_>) -> Result<Found, StoreError> {
        match self.position {
            Some(position) => self.entries(reads, position).map(Found::Entries),
            None => self.snapshot(reads).map(Found::Snapshot),
        }
    }

    fn entries(&self, reads: Reads<'_>, at: Position) -> Result<EntriesRead, StoreError> {
        let Some(log) = reads.log(&self.name)? else {
            return Err(StoreError::corrupt("logs", "an open log is gone"));
        };
        let wanted = self.until.map_or(u64::MAX, |until| until.0.saturating_sub(at.from.next.0));
        let count = FRAME_ENTRIES_MAX.min(usize::try_from(wanted).unwrap_or(usize::MAX));
        // In the transaction that the entries are read in: what is truncated meanwhile is never a gap.
        let first = match self.until {
            Some(_) => reads.kept(&log)?.first.next,
            None => reads.folds_from(&log)?,
        };
        if at.from.next < first {
            return Ok(EntriesRead::SnapshotNeeded);
        }
        let placed = reads.entries(&log, at.from.next, count, FRAME_BYTES_TARGET)?;
        self.pins.release(&self.name, self.actor, at.from.next);
        let (end, _) = reads.end(&log)?;
        let entries = placed.iter().map(|(logged, cursor)| (logged, *cursor));
        let frame = match self.until {
            None => self.feed.encode(self.now, at, end.next, entries),
            Some(_) => entries_frame(self.now, at.number, at.from, end.next, Some((at.actor, at.held)), entries),
        };
        Ok(match frame {
            Some(frame) => EntriesRead::Frame(frame),
            None => EntriesRead::End(end.next),
        })
    }

    /// The snapshot that the reader has begun with, else the newest that is whole. Its reader has some time to come for
    /// what follows it.
    fn snapshot(&self, reads: Reads<'_>) -> Result<Option<SnapshotRead>, StoreError> {
        let Some(log) = reads.log(&self.name)? else { return Ok(None) };
        let (mut snapshots, folds_from) = (reads.snapshots(log.key)?.0, reads.folds_from(&log)?);
        // One whose tail is gone would be followed by another.
        let begun = self.begun.map(|begun| begun.cursor.next).filter(|end| *end >= folds_from);
        snapshots.sort_by_key(|snapshot| Some(snapshot.end) != begun);
        for snapshot in snapshots {
            self.pins.set(&self.name, self.actor, snapshot.end, self.steady);
            if let Some((cursor, bytes)) = self.feed.snapshot_at(snapshot.end) {
                return Ok(Some(SnapshotRead::new(cursor, bytes, self.begun)));
            }
            match reads.snapshot(snapshot) {
                Ok(Snapshot { cursor, bytes }) => {
                    let bytes = self.feed.share_snapshot(cursor, bytes);
                    return Ok(Some(SnapshotRead::new(cursor, bytes, self.begun)));
                }
                // The reader gets another one, or the entries.
                Err(error) if error.is_corruption() => {
                    tracing::error!(log = %log.name, %error, "a damaged snapshot is not sent");
                }
                Err(error) => return Err(error),
            }
        }
        match folds_from {
            Offset(0) => Ok(None),
            _ => Err(StoreError::corrupt("snapshots", "no whole one is left, and the entries before it are not kept")),
        }
    }
}
