//! One log within a server session: where its reader stands, and what it needs next.

use std::sync::Arc;

use crate::chain::Cursor;
use crate::id::{EpochId, LogId, LogName, Offset, Seq};
use crate::limits;
use crate::protocol::frame::{Frame, LogNumber, Opened, SnapshotBegun, SnapshotPart, SubscribeLog};
use crate::session::server::request::{LogFacts, ReadFrom, RequestId, SnapshotRead};

/// A reader this far behind the newest snapshot gets the snapshot instead of the entries.
const BEHIND_MAX: u64 = 5_000;

/// A log that the session has subscribed.
pub(super) struct Subscription {
    pub(super) name: LogName,
    /// The request that opened it: tells this subscription from an earlier one under the same number.
    pub(super) request: RequestId,
    pub(super) append: bool,
    pub(super) held: Seq,
    /// The own seq from which on the last push was left undecided.
    pub(super) held_at: Option<Seq>,
    pub(super) end: Offset,
    /// Bytes sent, divided by weight: the subscription with the least goes next.
    pub(super) pass: u64,
    weight: u64,
    /// Bytes of it that were handed out to be sent, and what the client takes of it in total.
    sent: u64,
    credit: u64,
    asked: Asked,
    /// It is history up to here that is fetched; none: the log is followed.
    until: Option<Offset>,
    start: Option<Cursor>,
    reading: Reading,
}

struct Asked {
    read: bool,
    log_id: Option<LogId>,
    cursor: Option<Cursor>,
    epoch: Option<(EpochId, Offset)>,
    /// What the client has of a snapshot, until one is sent.
    begun: Option<SnapshotBegun>,
}

enum Reading {
    /// Not open yet, not a reader, or stopped by a fork.
    Not,
    Snapshot,
    Parts(SnapshotRead),
    At(Cursor),
}

impl Subscription {
    pub(super) fn new(request: RequestId, subscribe: SubscribeLog, append: bool) -> Self {
        let SubscribeLog { name, log_id, cursor, epoch, read, held, priority, end: until, begun, .. } = subscribe;
        let weight = u64::from(priority) + 1;
        let asked = Asked { read, log_id, cursor, epoch, begun };
        let (held_at, end, start, reading) = (None, Offset(0), None, Reading::Not);
        let (pass, sent, credit) = (0, 0, limits::CREDIT_BYTES_OF_LOG);
        Self { name, request, append, held, held_at, end, pass, weight, sent, credit, asked, until, start, reading }
    }

    /// The log is open. Returns why the client's position is of another history, if it is.
    pub(super) fn open(&mut self, facts: &LogFacts) -> Option<String> {
        self.end = self.end.max(facts.end);
        let start = Cursor::start(facts.log_id);
        self.start = Some(start);
        if let Some(fork) = self.fork(facts) {
            return Some(fork);
        }
        if self.is_gone(facts) {
            return None;
        }
        if self.asked.read {
            self.reading = match (self.asked.cursor, facts.snapshot) {
                (None, Some(_)) => Reading::Snapshot,
                (None, None) => Reading::At(start),
                (Some(cursor), _) if cursor.next < facts.first_retained => Reading::Snapshot,
                // What was begun with is gone on with, also where the entries are still there.
                (Some(_), Some(_)) if self.asked.begun.is_some() && self.until.is_none() => Reading::Snapshot,
                (Some(cursor), Some(end)) if self.until.is_none() && cursor.next.0 + BEHIND_MAX < end.0 => {
                    Reading::Snapshot
                }
                (Some(cursor), _) => Reading::At(cursor),
            };
        }
        None
    }

    /// Whether history is asked for that is not there any more.
    pub(super) fn is_gone(&self, facts: &LogFacts) -> bool {
        self.until.is_some() && self.asked.cursor.is_none_or(|cursor| cursor.next < facts.first_retained)
    }

    fn fork(&self, facts: &LogFacts) -> Option<String> {
        let Asked { log_id, cursor, epoch, .. } = &self.asked;
        if log_id.is_some_and(|known| known != facts.log_id) {
            return Some("the log has another identity".to_owned());
        }
        let cursor = (*cursor)?;
        if facts.chain_at_cursor == Some(cursor.chain) {
            // Everything before it is the same. A reader may follow a log into an epoch that it was not told of.
            return None;
        }
        if let Some((epoch, _)) = epoch.filter(|(epoch, _)| *epoch != EpochId::NONE) {
            let Some(at) = facts.epochs.iter().position(|(known, _)| *known == epoch) else {
                return Some(format!("epoch {epoch} is not part of this history"));
            };
            if facts.epochs.get(at + 1).is_some_and(|(_, successor)| cursor.next > *successor) {
                return Some(format!("epoch {epoch} ends before offset {}", cursor.next));
            }
        }
        match facts.chain_at_cursor {
            None if cursor.next > facts.end => Some(format!("the log ends at {}", facts.end)),
            Some(chain) if chain != cursor.chain => Some(format!("the log chain at {} is another one", cursor.next)),
            _ => None,
        }
    }

    pub(super) fn opened(&self, number: LogNumber, facts: &LogFacts) -> Opened {
        Opened {
            log: number,
            log_id: facts.log_id,
            epochs: facts.epochs.clone(),
            end: facts.end,
            accepted: facts.accepted,
            seq: facts.seq,
            chain: facts.chain,
            checkpoints: facts.checkpoints.clone(),
            append: self.append,
            backed_up: facts.backed_up,
        }
    }

    /// It gets this share of the way from now on, and is not held to what it was sent before.
    pub(super) fn prioritize(&mut self, priority: u8, pass: u64) {
        (self.weight, self.pass) = (u64::from(priority) + 1, pass);
    }

    /// The client takes so many bytes of it in total.
    pub(super) fn grant(&mut self, bytes: u64) {
        self.credit = self.credit.max(bytes);
    }

    /// Whether there is something to send or to read, and credit for it: one frame may reach beyond.
    pub(super) fn wants(&self) -> bool {
        self.sent < self.credit && self.has_more()
    }

    fn has_more(&self) -> bool {
        match &self.reading {
            Reading::Not => false,
            Reading::Snapshot | Reading::Parts(_) => true,
            Reading::At(cursor) => cursor.next < self.end.min(self.until.unwrap_or(Offset(u64::MAX))),
        }
    }

    pub(super) fn read_from(&self) -> ReadFrom {
        match &self.reading {
            Reading::At(cursor) => ReadFrom::Cursor(*cursor),
            _ => ReadFrom::Snapshot(self.asked.begun),
        }
    }

    /// Whether the log is followed, or will be once it is open.
    pub(super) fn follows(&self) -> bool {
        self.asked.read && self.until.is_none()
    }

    /// Where its reader stands; none if it reads nothing, or history beside what it follows.
    pub(super) fn place(&self) -> Option<Offset> {
        match (&self.reading, self.until) {
            (Reading::At(cursor), None) => Some(cursor.next),
            // Until the last part is sent it stands where it stood.
            (Reading::Snapshot | Reading::Parts(_), None) => {
                Some(self.asked.cursor.map_or(Offset(0), |cursor| cursor.next))
            }
            _ => None,
        }
    }

    /// What a read must stop before.
    pub(super) fn read_until(&self) -> Option<Offset> {
        self.until
    }

    pub(super) fn advance(&mut self, after: Cursor, bytes: usize) {
        self.count(bytes);
        self.reading = Reading::At(after);
    }

    /// Reads no more until it is subscribed again.
    pub(super) fn stop(&mut self) {
        self.reading = Reading::Not;
    }

    /// The entries it stood at are gone.
    pub(super) fn restart(&mut self) {
        self.reading = Reading::Snapshot;
    }

    pub(super) fn begin_snapshot(&mut self, read: Option<SnapshotRead>) {
        // If it needs another one in the end, the client has that one's beginning no more.
        self.asked.begun = None;
        self.reading = match (read, self.start) {
            (Some(snapshot), _) => Reading::Parts(snapshot),
            (None, Some(start)) => Reading::At(start),
            (None, None) => Reading::Not,
        };
    }

    /// The next part of a snapshot that is being sent.
    pub(super) fn next_part(&mut self, number: LogNumber) -> Option<Arc<[u8]>> {
        let Reading::Parts(snapshot) = &mut self.reading else { return None };
        let (cursor, total) = (snapshot.cursor, snapshot.bytes.len() as u64);
        let (at, bytes) = snapshot.next_part()?;
        let part = SnapshotPart { log: number, cursor, at: at as u64, total, bytes: bytes.to_vec() };
        let done = snapshot.is_done();
        let bytes: Arc<[u8]> = Frame::SnapshotPart(part).encode().into();
        self.count(bytes.len());
        if done {
            self.reading = Reading::At(cursor);
        }
        Some(bytes)
    }

    fn count(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        self.pass += bytes as u64 * 256 / self.weight;
    }
}
