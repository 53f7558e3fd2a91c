//! The checker: it hears what every app is told and sees every commit of the server, and stops the run when the two do
//! not fit, or when anything is lost, doubled, reordered or without bound. [`super::quiet`] looks at the whole.

use std::collections::{BTreeMap, BTreeSet};

use driftlog_core::chain::Cursor;
use driftlog_core::entry::{Digest, Logged, Replaced};
use driftlog_core::id::{EntryId, LogName, Offset, Seq, WriteId};
use driftlog_core::limits;
use driftlog_core::notice::WriteStatus;
use driftlog_core::protocol::Code;
use driftlog_core::protocol::frame::MarkedStatus;
use driftlog_core::replica::Replica;
use driftlog_core::time::Time;
use driftlog_server::Erased;
use driftlog_server::stepped::Server;

use super::device::{DeviceNumber, TabNumber};
use super::erasing::log_of;
use super::reroot;

/// Bytes of answers that the server lets wait for a page that does not read.
const ANSWERS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Entries in the server's logs.
    pub entries: u64,
    /// Actions that a device said are stored.
    pub stored: u64,
    /// Actions whose author was told that they are accepted.
    pub accepted: u64,
    /// Actions whose author was told that they are refused.
    pub refused: u64,
    /// Dead letters that came into a log after all.
    pub redriven: u64,
    /// Texts that were given a new root.
    pub rerooted: u64,
    /// Entries that the gate translated.
    pub translated: u64,
    /// Bits that flipped on devices.
    pub flipped: u64,
    /// Servers whose disk was rotten.
    pub rotted: u64,
    /// What went wrong first, by its kind and in words.
    pub violation: Option<(&'static str, String)>,
}

/// Looks whether all is well.
#[derive(Default)]
pub struct Checker {
    report: Report,
    pub(super) logs: BTreeMap<LogName, Record>,
    pub(super) told: BTreeMap<(LogName, WriteId), Told>,
    told_in: BTreeSet<(TabNumber, LogName, WriteId)>,
    /// The lines of entries that were made again: their devices may have let go of what they replaced.
    pub(super) remade: BTreeMap<(LogName, WriteId), Replaced>,
    /// The line that each stored entry belongs to.
    pub(super) lines: BTreeMap<(LogName, WriteId), Replaced>,
    /// Dead letters that their user discarded: first and last seq of each.
    pub(super) discarded: BTreeSet<(LogName, EntryId, Seq)>,
    /// Actions whose bytes are damaged on their device.
    pub(super) struck: BTreeSet<(LogName, WriteId)>,
    /// Logs of which something was erased: what their devices kept of it besides the log may be gone.
    pub(super) erased: BTreeSet<LogName>,
    /// Events with a lifetime: nobody keeps them when it is over.
    pub(super) passing: BTreeSet<(LogName, WriteId)>,
    /// The disk was put back to a backup: the next start may know less.
    restoring: bool,
    restored: bool,
    /// Bits of the server's disk have flipped.
    rotten: bool,
}

/// What the checker saw of one log at the server.
#[derive(Default)]
pub(super) struct Record {
    pub(super) ends: Vec<Cursor>,
    /// Every entry, also those that the server has let go since.
    pub(super) entries: Vec<Logged>,
    pub(super) writes: BTreeMap<WriteId, Offset>,
    ids: BTreeMap<EntryId, (Offset, Digest)>,
    /// Entries that others in the log replace, and where those stand.
    pub(super) replaced: BTreeMap<Replaced, Offset>,
    /// Entries whose replacement went with a restored backup.
    pub(super) replaced_gone: BTreeSet<Replaced>,
    /// Entries that went with a restored backup.
    pub(super) gone: BTreeSet<WriteId>,
    /// Of those, the ones that came again: a device that has the old history still tells their old place.
    regained: BTreeSet<WriteId>,
    /// Everything that ever went, and what was refused before: its author is told anew what becomes of it.
    lost: BTreeSet<WriteId>,
    accepted_last: Time,
}

/// What apps were told of one action.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) device: DeviceNumber,
    pub(super) id: Option<EntryId>,
    /// Under which ids it is or was known: a successor, or a copy, has another one.
    pub(super) ids: BTreeSet<EntryId>,
    pub(super) stored: bool,
    pub(super) verdict: Option<Verdict>,
    last: Option<WriteStatus>,
}

/// How it was decided, as far as an app was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accepted,
    Refused,
}

impl Record {
    /// Whether the entry that begins a line is itself in the log.
    pub(super) fn has_first(&self, line: &Replaced) -> bool {
        self.ids.get(&line.id).is_some_and(|(_, digest)| *digest == line.digest)
    }
}

impl Checker {
    /// An entry is stored: it belongs to this line.
    pub(super) fn stored_in_line(&mut self, log: &LogName, write: WriteId, line: Replaced) {
        self.lines.insert((log.clone(), write), line);
    }

    /// Whether another entry of an action's line is in the log: an app is told of the action what became of that.
    pub(super) fn is_remade(&self, log: &LogName, write: WriteId, id: Option<EntryId>) -> bool {
        let Some(record) = self.logs.get(log).filter(|record| !record.writes.contains_key(&write)) else {
            return false;
        };
        let has = |line: &Replaced| {
            record.has_first(line) || record.replaced.contains_key(line) || record.replaced_gone.contains(line)
        };
        // A page that closed at once did not hear that it is stored.
        let by_id = id.is_some_and(|id| record.replaced.keys().any(|target| target.id == id));
        by_id || self.lines.get(&(log.clone(), write)).is_some_and(has)
    }

    /// Whether nothing was found wrong.
    pub fn is_well(&self) -> bool {
        self.report.violation.is_none()
    }

    /// What the run came to so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Whether the server was ever put back to a backup.
    pub fn was_restored(&self) -> bool {
        self.restored
    }

    /// Entries that the server has of a log.
    pub fn end(&self, log: &LogName) -> Offset {
        Offset(self.logs.get(log).map_or(0, |record| record.ends.len() as u64))
    }

    /// Looks after a log from now on.
    pub fn watch(&mut self, log: &LogName) {
        self.logs.entry(log.clone()).or_default();
    }

    /// Something is wrong; the first thing counts.
    pub fn violated(&mut self, kind: &'static str, what: String) {
        self.report.violation.get_or_insert((kind, what));
    }

    /// The server committed: what is new must continue what was there.
    pub fn committed(&mut self, server: &Server) {
        let names: Vec<_> = self.logs.keys().cloned().collect();
        for name in names {
            while self.is_well() {
                let from = self.end(&name);
                match server.entries(&name, from) {
                    Ok(entries) if entries.is_empty() => break,
                    Ok(entries) => entries.into_iter().for_each(|(logged, end)| self.grew(&name, &logged, end)),
                    // What does not read is told to nobody.
                    Err(_) if self.rotten => break,
                    Err(error) => self.violated("acked-lost", format!("{name} does not read at the server: {error}")),
                }
            }
        }
    }

    fn grew(&mut self, name: &LogName, logged: &Logged, end: Cursor) {
        let Some(record) = self.logs.get_mut(name) else { return };
        let (expected, id) = (record.ends.len() as u64, logged.id());
        let write = WriteId { run: logged.entry.header.run, n: logged.entry.header.n };
        let replaces = logged.entry.header.replaces.clone();
        let line = logged.entry.line(id);
        let is_there =
            |target: &&Replaced| record.ids.get(&target.id).is_some_and(|(_, digest)| *digest == target.digest);
        let last_seq = record.ids.range(..=id).next_back().filter(|(last, _)| last.actor == id.actor);
        let trouble = if logged.offset.0 != expected {
            Some(("order", format!("offset {} follows {expected}", logged.offset)))
        } else if logged.accepted < record.accepted_last {
            Some(("order", format!("offset {expected} was accepted before the entry before it")))
        } else if let Some(before) = record.writes.get(&write) {
            Some(("doubled", format!("{write} stands at offset {before} and again at {expected}")))
        } else if record.ids.contains_key(&id) {
            Some(("doubled", format!("{id} stands twice, at last at offset {expected}")))
        } else if let Some(before) = record.replaced.get(&line) {
            Some(("doubled", format!("{id} at offset {expected} is, or replaces, what was replaced at {before}")))
        } else if let Some(target) = replaces.as_ref().filter(is_there) {
            Some(("doubled", format!("{id} at offset {expected} replaces {}, which is in the log", target.id)))
        } else if let Some((last, _)) = last_seq.filter(|(last, _)| last.seq >= id.seq) {
            Some(("order", format!("{id} follows {last}")))
        } else if record.ends.last().is_some_and(|before| before.after(logged) != end) {
            Some(("order", format!("the chain breaks at offset {expected}")))
        } else {
            None
        };
        if let Some((kind, what)) = trouble {
            return self.violated(kind, format!("{name}: {what}"));
        }
        record.ends.push(end);
        record.entries.push(logged.clone());
        record.writes.insert(write, logged.offset);
        record.ids.insert(id, (logged.offset, logged.entry.pushed_digest()));
        self.report.rerooted += u64::from(reroot::is_root(logged));
        self.report.translated += u64::from(logged.entry.is_translated());
        self.report.redriven += u64::from(replaces.is_some());
        record.replaced.extend(replaces.map(|target| (target, logged.offset)));
        if record.gone.remove(&write) {
            record.regained.insert(write);
        }
        record.accepted_last = logged.accepted;
        self.report.entries += 1;
    }

    /// Bits of the server's disk are not as they were written, or are again.
    pub(super) fn server_rots(&mut self, rotten: bool) {
        self.rotten = rotten;
        self.report.rotted += u64::from(rotten);
    }

    /// The server's disk was put back to a backup.
    pub(super) fn server_restored(&mut self) {
        (self.restoring, self.restored) = (true, true);
    }

    /// The server started: what it ever committed must be there.
    pub(super) fn server_started(&mut self, server: Option<&Server>) {
        let Some(server) = server.filter(|_| !self.rotten) else { return };
        let restoring = std::mem::take(&mut self.restoring);
        let names: Vec<_> = self.logs.keys().cloned().collect();
        for name in names {
            let (first, ends) = match ends(server, &name) {
                Ok(found) => found,
                Err(error) => return self.violated("acked-lost", format!("{name} does not read: {error}")),
            };
            let Some(record) = self.logs.get_mut(&name) else { continue };
            // What was let go is known by the cursor behind it.
            let known = record.ends.iter().skip(first.saturating_sub(1));
            let alike = known.zip(&ends).take_while(|(ours, theirs)| ours == theirs).count();
            let common = if alike == 0 { 0 } else { first.saturating_sub(1) + alike };
            if common == record.ends.len() {
                continue;
            }
            if restoring {
                record.cut(common);
                // A refusal may have gone as well, and the entry is decided anew.
                let refused =
                    self.told.iter().filter(|((log, _), told)| *log == name && told.verdict == Some(Verdict::Refused));
                record.lost.extend(refused.map(|((_, write), _)| *write));
            } else {
                let had = record.ends.len();
                self.violated(
                    "acked-lost",
                    format!("{name} had {had} entries before the start, and {common} after it"),
                );
            }
        }
        self.committed(server);
    }

    /// An app was told how far an action came.
    pub(super) fn told(
        &mut self,
        device: DeviceNumber,
        tab: TabNumber,
        log: &LogName,
        write: WriteId,
        status: &WriteStatus,
    ) {
        let id = match status {
            WriteStatus::Accepted(accepted) => Some(accepted.id),
            _ => None,
        };
        let remade = self.is_remade(log, write, id);
        let told = self.told.entry((log.clone(), write)).or_insert(Told {
            device,
            id: None,
            ids: BTreeSet::new(),
            stored: false,
            verdict: None,
            last: None,
        });
        let record = self.logs.get(log);
        let offset = record.and_then(|record| record.writes.get(&write)).copied();
        let gone = record.is_some_and(|record| record.gone.contains(&write));
        let regained = record.is_some_and(|record| record.regained.contains(&write));
        let lost = record.is_some_and(|record| record.lost.contains(&write));
        let struck = self.struck.contains(&(log.clone(), write));
        let before = told.clone();
        told.last = Some(status.clone());
        match status {
            WriteStatus::Stored(id) => {
                (told.stored, told.id) = (true, Some(*id));
                told.ids.insert(*id);
            }
            WriteStatus::Accepted(_) => told.verdict = Some(Verdict::Accepted),
            WriteStatus::Refused(refused) => {
                // Who does not know whether it counts may learn that it does.
                if refused.code != Some(Code::OutcomeUnknown) {
                    told.verdict = Some(Verdict::Refused);
                }
                told.ids.insert(refused.id);
            }
            WriteStatus::Failed(..) => {}
        }
        let trouble = match status {
            WriteStatus::Stored(_) if before.stored => None,
            WriteStatus::Stored(_) => {
                self.report.stored += 1;
                None
            }
            WriteStatus::Failed(..) if before.stored || offset.is_some() => {
                Some(("stored-lost", "was stored, and then it is said that it failed".to_owned()))
            }
            WriteStatus::Failed(..) => None,
            // What was made again by itself is told as of itself.
            WriteStatus::Accepted(_) if remade => None,
            WriteStatus::Refused(refused) if remade && refused.code == Some(Code::AlreadyReplaced) => None,
            // What was given up for its damaged bytes may have been accepted before: then that holds.
            WriteStatus::Accepted(_) if before.verdict == Some(Verdict::Refused) && !struck && !lost => {
                Some(("verdict", "was refused, and then accepted".to_owned()))
            }
            WriteStatus::Accepted(accepted) => {
                self.report.accepted += u64::from(before.verdict.is_none());
                let place = accepted.offset.or(offset);
                if gone {
                    None
                } else if offset.is_none() {
                    Some(("acked-lost", "is said to be accepted, and the server does not have it".to_owned()))
                } else if place != offset && !regained {
                    Some(("order", format!("is said to stand at {place:?}, and stands at {offset:?}")))
                } else {
                    None
                }
            }
            WriteStatus::Refused(refused) if refused.status == MarkedStatus::Void && struck => None,
            // A copy may have been decided under the actor before, and its entry be truncated: nobody knows any more.
            WriteStatus::Refused(refused) if refused.code == Some(Code::OutcomeUnknown) => None,
            WriteStatus::Refused(_) if offset.is_some() => {
                Some(("verdict", format!("is said to be refused, and stands at {offset:?}")))
            }
            WriteStatus::Refused(_) if before.verdict == Some(Verdict::Accepted) && !lost => {
                Some(("verdict", "was accepted, and then refused".to_owned()))
            }
            WriteStatus::Refused(_) => {
                self.report.refused += u64::from(before.verdict.is_none());
                None
            }
        };
        if let Some((kind, what)) = trouble {
            self.violated(kind, format!("{log} {write} {what}"));
        }
        // Whether an entry of a forgotten actor counts is not known any more, also where it was told before.
        let unknown = matches!(status, WriteStatus::Refused(refused) if refused.code == Some(Code::OutcomeUnknown));
        let end = !unknown && !matches!(status, WriteStatus::Stored(_));
        // A log that goes back to what a restored server has folds it again, and says the same again.
        let again = self.restored && before.last.as_ref() == Some(status);
        if end && !struck && !lost && !self.told_in.insert((tab, log.clone(), write)) && !again {
            self.violated("verdict", format!("{log} {write}: tab {tab} is told its end twice, at last {status:?}"));
        }
    }

    /// A page opened a log, and shows it from now on: what the device stored is in it, before any server is asked.
    pub(super) fn opened(&mut self, device: DeviceNumber, log: &LogName, replica: &Replica) {
        // Damaged rows are fetched from the server again, and until then less is shown.
        if self.report.flipped > 0 {
            return;
        }
        let (actor, folded) = (replica.actor(), replica.state().folded(replica.actor()));
        // A log that went back gets what is decided from the server again.
        let verdicts = replica.outbox().verdicts();
        let shown_from = if verdicts.rewound > 0 { verdicts.through.max(folded) } else { folded };
        let is_missing = |write: &WriteId, told: &Told| {
            let Some(id) = told.id.filter(|id| told.device == device && told.stored && id.actor == actor) else {
                return false;
            };
            // What a backup lost that this device had let go of, since it was accepted, is nowhere: its author is told.
            let is_gone = self.logs.get(log).is_some_and(|record| record.gone.contains(write));
            // What was refused before, and made again by itself, was told to nobody.
            let is_void = (is_gone || verdicts.rewound > 0) && replica.outbox().void_at(id.seq).is_some();
            let is_refused = verdicts.mark(id.seq).is_some() || told.verdict == Some(Verdict::Refused);
            let is_off = is_void || is_refused;
            id.seq > shown_from && !is_off && !replica.overlay().holds(*write)
        };
        let mut stored = self.told.iter().filter(|((of, _), _)| of == log);
        if let Some(((_, write), told)) = stored.find(|((_, write), told)| is_missing(write, told)) {
            let id = told.id.map_or(Seq(0), |id| id.seq);
            let what = format!("{log} {write} was stored as seq {id}, and a page that opens shows it up to {folded}");
            self.violated("stored-lost", what);
        }
    }

    /// An operator erased something.
    pub(super) fn erased(&mut self, erased: &Erased) {
        match log_of(erased) {
            Some(log) => drop(self.erased.insert(log.clone())),
            None => self.erased.extend(self.logs.keys().cloned()),
        }
    }

    /// A bit flipped somewhere.
    pub(super) fn flipped(&mut self) {
        self.report.flipped += 1;
    }

    /// What an app was told of an action at last.
    pub fn last_told(&self, log: &LogName, write: WriteId) -> Option<&WriteStatus> {
        self.told.get(&(log.clone(), write))?.last.as_ref()
    }

    /// So many bytes wait in a page that hears nothing.
    pub(super) fn page_holds(&mut self, device: &str, bytes: usize) {
        let bound = limits::CREDIT_BYTES as usize + limits::FRAME_BYTES_MAX + ANSWERS_BYTES_MAX;
        if bytes > bound {
            self.violated("queue", format!("{bytes} bytes wait in a frozen page of {device}; the bound is {bound}"));
        }
    }
}

impl Record {
    /// What came after so many entries is gone with a restored backup.
    fn cut(&mut self, kept: usize) {
        let is_kept = |offset: &Offset| (offset.0 as usize) < kept;
        self.gone.extend(self.writes.iter().filter(|(_, offset)| !is_kept(offset)).map(|(write, _)| *write));
        self.lost.extend(&self.gone);
        self.writes.retain(|_, offset| is_kept(offset));
        self.ids.retain(|_, (offset, _)| is_kept(offset));
        let gone = self.replaced.iter().filter(|(_, offset)| !is_kept(offset)).map(|(target, _)| target.clone());
        self.replaced_gone.extend(gone);
        self.replaced.retain(|_, offset| is_kept(offset));
        self.ends.truncate(kept);
        self.entries.truncate(kept);
        self.accepted_last = Time::MIN;
    }
}

/// The first offset that a server keeps of a log, and the cursors from there on: before the first entry, if any is gone
/// before it, and behind each.
fn ends(server: &Server, name: &LogName) -> Result<(usize, Vec<Cursor>), driftlog_server::StoreError> {
    let Some(first) = server.first_kept(name)? else { return Ok((0, Vec::new())) };
    let (mut next, mut ends) = (first.next, Vec::new());
    if next > Offset(0) {
        ends.push(first);
    }
    loop {
        let entries = server.entries(name, next)?;
        let Some((_, end)) = entries.last() else { return Ok((first.next.0 as usize, ends)) };
        next = end.next;
        ends.extend(entries.into_iter().map(|(_, end)| end));
    }
}
