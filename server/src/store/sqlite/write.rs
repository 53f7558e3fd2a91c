//! Writes, all inside the writer's transaction.

use std::fs::File;

use driftlog_core::codec;
use driftlog_core::entry::Digest;
use driftlog_core::id::{ActorId, EpochId, LogId, LogName, Offset, Seq};
use driftlog_core::protocol::Code;
use driftlog_core::sequencer::{AuthorRow, Binding, Refused};
use driftlog_core::time::WallMs;
use rusqlite::{Connection, params};

use super::read::{Reads, signed};
use crate::store::{AuthorKey, LogKey, LogRow, Placed, StoreError, StoredSnapshot};

/// Bytes that were never an entry: newest so many are kept.
const FRAMES_KEPT: i64 = 1_000;

/// The one connection that writes.
pub(crate) struct Writer {
    connection: Connection,
    /// Held as long as this writes; a VFS has none.
    _lock: Option<File>,
}

/// Refused entries kept of one actor in one log after it has recorded their verdicts.
const REFUSED_KEPT: i64 = 1_000;

/// An open transaction of the writer.
#[derive(Clone, Copy)]
pub(crate) struct Writes<'c>(&'c Connection);

impl Writer {
    pub(super) fn new(connection: Connection, lock: Option<File>) -> Self {
        Self { connection, _lock: lock }
    }

    /// Runs writes in one transaction; when this returns, they are durable.
    pub(crate) fn commit<T>(
        &mut self,
        writes: impl FnOnce(Writes<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let transaction = self.connection.transaction()?;
        let answer = writes(Writes(&transaction))?;
        transaction.commit()?;
        Ok(answer)
    }
}

impl<'c> Writes<'c> {
    /// Reads that see what this transaction has written.
    pub(crate) fn reads(self) -> Reads<'c> {
        Reads(self.0)
    }

    pub(crate) fn create_log(self, name: &LogName, log_id: LogId) -> Result<LogRow, StoreError> {
        self.0
            .prepare_cached("INSERT INTO logs (name, log_id) VALUES (?1, ?2)")?
            .execute(params![name.as_str(), &log_id.0[..]])?;
        Ok(LogRow { key: LogKey(self.0.last_insert_rowid()), name: name.clone(), log_id })
    }

    pub(crate) fn add_epoch(self, log: LogKey, number: usize, epoch: EpochId, first: Offset) -> Result<(), StoreError> {
        self.0
            .prepare_cached("INSERT INTO epochs (log, number, epoch, first) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![log.0, signed(number as u64), &epoch.0[..], signed(first.0)])?;
        Ok(())
    }

    pub(crate) fn put_binding(self, actor: ActorId, binding: &Binding) -> Result<(), StoreError> {
        self.0
            .prepare_cached(
                "INSERT INTO bindings (actor, user, binding) VALUES (?1, ?2, ?3)
                 ON CONFLICT (actor) DO UPDATE SET binding = excluded.binding",
            )?
            .execute(params![&actor.0[..], binding.user.as_str(), codec::to_bytes(binding)])?;
        Ok(())
    }

    /// The log itself as an author, the same number in every log.
    pub(crate) fn log_author(self) -> Result<AuthorKey, StoreError> {
        if let Some((author, _)) = self.reads().binding(ActorId::LOG)? {
            return Ok(author);
        }
        self.put_binding(ActorId::LOG, &Binding::of_the_log())?;
        Ok(AuthorKey(self.0.last_insert_rowid()))
    }

    pub(crate) fn put_author_row(self, log: LogKey, author: AuthorKey, row: &AuthorRow) -> Result<(), StoreError> {
        self.0
            .prepare_cached("INSERT OR REPLACE INTO actors (log, author, row) VALUES (?1, ?2, ?3)")?
            .execute(params![log.0, author.0, codec::to_bytes(row)])?;
        Ok(())
    }

    /// Appends an entry; returns the bytes it takes.
    pub(crate) fn append(self, log: LogKey, author: AuthorKey, placed: &Placed) -> Result<usize, StoreError> {
        let (logged, after) = placed;
        let entry = &logged.entry;
        let bytes = entry.to_bytes();
        self.0
            .prepare_cached(
                "INSERT INTO entries (log, offset, author, seq, accepted, base, digest, chain, bytes)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                log.0,
                signed(logged.offset.0),
                author.0,
                signed(entry.header.seq.0),
                signed(logged.accepted.0),
                signed(logged.base.0),
                &entry.digest().0[..],
                &after.chain.0.0[..],
                bytes,
            ])?;
        if let Some(target) = &entry.header.replaces {
            self.0
                .prepare_cached(
                    "INSERT OR IGNORE INTO replacements (log, actor, seq, digest, offset) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![
                    log.0,
                    &target.id.actor.0[..],
                    signed(target.id.seq.0),
                    &target.digest.0[..],
                    signed(logged.offset.0)
                ])?;
        }
        Ok(bytes.len())
    }

    /// Keeps a refused entry whole.
    pub(crate) fn keep_refused(
        self,
        now: WallMs,
        log: LogKey,
        author: AuthorKey,
        refused: &Refused,
    ) -> Result<(), StoreError> {
        let entry = &refused.entry;
        self.0
            .prepare_cached(
                "INSERT INTO dead_letters
                   (log, author, seq, digest, bytes, source, code, reason, attempts, first_ms, last_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, 'push', ?6, ?7, 1, ?8, ?8)",
            )?
            .execute(params![
                log.0,
                author.0,
                signed(entry.header.seq.0),
                &entry.digest().0[..],
                entry.to_bytes(),
                refused.code.number(),
                refused.reason,
                signed(now),
            ])?;
        Ok(())
    }

    /// Lets go of refused entries whose verdict their author has recorded, except the newest.
    pub(crate) fn release_refused(self, log: LogKey, author: AuthorKey, settled: Seq) -> Result<(), StoreError> {
        self.0
            .prepare_cached(
                "DELETE FROM dead_letters WHERE log = ?1 AND author = ?2 AND seq <=
                   (SELECT seq FROM dead_letters WHERE log = ?1 AND author = ?2 AND seq <= ?3
                    ORDER BY seq DESC LIMIT 1 OFFSET ?4)",
            )?
            .execute(params![log.0, author.0, signed(settled.0), REFUSED_KEPT])?;
        Ok(())
    }

    /// Keeps bytes that were no frame, or counts another attempt with the same bytes.
    pub(crate) fn keep_bytes(
        self,
        now: WallMs,
        source: &str,
        code: Code,
        reason: &str,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let digest = Digest::of(&[bytes]);
        let again = self
            .0
            .prepare_cached(
                "UPDATE dead_letters SET attempts = attempts + 1, last_ms = ?2 WHERE digest = ?1 AND log IS NULL",
            )?
            .execute(params![&digest.0[..], signed(now)])?;
        if again > 0 {
            return Ok(());
        }
        // The first time is known only in memory: by now it is the second.
        self.0
            .prepare_cached(
                "INSERT INTO dead_letters (digest, bytes, source, code, reason, attempts, first_ms, last_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, 2, ?6, ?6)",
            )?
            .execute(params![&digest.0[..], bytes, source, code.number(), reason, signed(now)])?;
        self.0
            .prepare_cached(
                "DELETE FROM dead_letters WHERE log IS NULL AND letter <=
                   (SELECT letter FROM dead_letters WHERE log IS NULL ORDER BY letter DESC LIMIT 1 OFFSET ?1)",
            )?
            .execute([FRAMES_KEPT])?;
        Ok(())
    }

    pub(crate) fn put_snapshot(self, log: LogKey, snapshot: &StoredSnapshot) -> Result<(), StoreError> {
        self.0
            .prepare_cached("INSERT OR REPLACE INTO snapshots (log, next, chain, bytes) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![log.0, signed(snapshot.cursor.next.0), &snapshot.cursor.chain.0.0[..], snapshot.bytes])?;
        Ok(())
    }
}
