//! A history at the server that is another one than here: where the two part, and going back to there.

use std::collections::BTreeMap;

use crate::entry::{Entry, Logged};
use crate::id::{ActorId, EntryId, EpochId, LogId, Offset, Seq, WriteId};
use crate::notice::{LogStatus, Notice, Refused, WriteStatus};
use crate::overlay::Touched;
use crate::packed::{Item, Void};
use crate::protocol::Code;
use crate::protocol::frame::{MarkedStatus, Opened};
use crate::state::State;
use crate::storage::own::Damaged;
use crate::storage::row::{DeadLetter, Received, Verdicts, Voids};
use crate::time::WallMs;

use super::places::Places;
use super::{Replica, write_of};

/// Why an entry is a dead letter, for people.
const LOST: &str = "the server was put back to a state in which it does not have this entry";
/// Why a seq is not offered again.
const REFUSED: &str = "refused before the server was put back to a backup";
const GONE: &str = "the server has lost it, and it is not on this device any more";

/// What is undone, apart from the log's name.
#[derive(Debug)]
pub struct Rewound {
    /// The verdicts that the server still has.
    pub verdicts: Verdicts,
    /// Own seqs that are not offered again.
    pub voids: Vec<Void>,
    /// What is lost.
    pub letters: BTreeMap<EntryId, DeadLetter>,
}

impl Replica {
    /// The offset at which this log's history at the server parts from the one that is confirmed here, as far as epochs
    /// and ends tell it: an epoch that the server does not know, or that ended there before what was read here. Whether
    /// they part at all the server says, which compares the chain.
    pub fn parts_at(&self, opened: &Opened) -> Option<Offset> {
        if !self.met {
            return None;
        }
        if opened.log_id != self.state.log() {
            return Some(Offset(0));
        }
        // A reader may follow a log into an epoch that it was not told of.
        let ours: Vec<_> = self.state.epochs().iter().filter(|(epoch, _)| *epoch != EpochId::NONE).copied().collect();
        let place = |epoch| opened.epochs.iter().position(|(known, _)| *known == epoch);
        let common = ours.iter().rposition(|(epoch, _)| place(*epoch).is_some());
        let unknown = ours.get(common.map_or(0, |at| at + 1)).map(|(_, first)| *first);
        let successor = match common.and_then(|at| place(ours[at].0)) {
            Some(at) => opened.epochs.get(at + 1).map(|(_, first)| *first),
            None => opened.epochs.first().map(|(_, first)| *first).filter(|_| !ours.is_empty()),
        };
        let end = successor.unwrap_or(opened.end).min(unknown.unwrap_or(Offset(u64::MAX))).min(opened.end);
        (self.state.cursor().next > end).then_some(end)
    }

    /// What is undone now that the server stands as `opened` says. `parts_at` is where confirmed state is another one.
    pub fn undone(
        &self,
        opened: &Opened,
        parts_at: Option<Offset>,
        (own, received): (&[Entry], &[Received]),
        now: WallMs,
    ) -> Rewound {
        let before = self.outbox.verdicts();
        let mut verdicts = before.clone();
        if opened.seq < before.through {
            let begins = self.outbox.begins_behind();
            (verdicts.through, verdicts.chain) = match opened.seq < begins {
                true => (begins, self.outbox.chain_of_beginning(&self.name)),
                false => (opened.seq, opened.chain),
            };
            verdicts.marked.retain(|(seq, _)| *seq <= verdicts.through);
            verdicts.settled = verdicts.settled.min(verdicts.through);
        }
        verdicts.rewound += 1;
        let mut rewound = Rewound { verdicts, voids: Vec::new(), letters: BTreeMap::new() };
        let held: BTreeMap<Seq, &Entry> = own.iter().map(|entry| (entry.header.seq, entry)).collect();
        let mut gone: Option<(Seq, Seq)> = None;
        for seq in (rewound.verdicts.through.0 + 1..=before.through.0).map(Seq) {
            if self.outbox.void_at(seq).is_some() {
                continue;
            }
            if before.mark(seq).is_some_and(|mark| !mark.is_accepted()) {
                rewound.voids.push(Void { from: seq, through: seq, reason: REFUSED.to_owned() });
            } else if !held.contains_key(&seq) {
                gone = match gone.filter(|(_, last)| last.next() == seq) {
                    Some((first, _)) => Some((first, seq)),
                    None => {
                        rewound.lose(self.actor, gone.take(), now);
                        Some((seq, seq))
                    }
                };
            }
        }
        rewound.lose(self.actor, gone, now);
        if let Some(at) = parts_at {
            self.keep_lost(at, &held, received, now, &mut rewound.letters);
        }
        rewound
    }

    /// Entries behind an offset that nobody will offer again from here: others', and those of the actors before.
    fn keep_lost(
        &self,
        at: Offset,
        held: &BTreeMap<Seq, &Entry>,
        received: &[Received],
        now: WallMs,
        letters: &mut BTreeMap<EntryId, DeadLetter>,
    ) {
        for row in received.iter().filter(|row| row.after.next > at) {
            for item in row.entries.unpack(row.from).unwrap_or_default() {
                let (offset, id, entry) = match &item {
                    Item::Entry(logged) => (logged.offset, logged.id(), Some(&logged.entry)),
                    Item::Stub(stub) => (stub.offset, stub.id, held.get(&stub.id.seq).copied()),
                    Item::Gap(_) => continue,
                };
                let again = id.actor == self.actor || id.actor == ActorId::LOG;
                if let Some(entry) = entry.filter(|_| offset >= at && !again) {
                    letters.insert(id, lost_letter(entry, now));
                }
            }
        }
    }

    /// What is lost of what this database wrote under the actors before: they were accepted, and a log that went back and
    /// is up to date again does not have them. None offers them again; `own` are those that are still held.
    pub fn lost_of_before(&self, own: &[Entry], now: WallMs) -> Rewound {
        let held: BTreeMap<Seq, &Entry> = own.iter().map(|entry| (entry.header.seq, entry)).collect();
        let verdicts = self.outbox.verdicts().clone();
        let mut rewound = Rewound { verdicts, voids: Vec::new(), letters: BTreeMap::new() };
        rewound.verdicts.rewound += 1;
        for (actor, seqs) in self.uncovered_of_before() {
            let mut gone: Option<(Seq, Seq)> = None;
            for seq in seqs {
                let expired = self.outbox.verdicts().mark(seq) == Some(MarkedStatus::Expired);
                rewound.verdicts.marked.retain(|(marked, _)| *marked != seq);
                rewound.verdicts.marked.push((seq, MarkedStatus::Void));
                let id = EntryId { actor, seq };
                match held.get(&seq) {
                    _ if expired || self.dead_letters.contains_key(&id) => {}
                    Some(entry) => drop(rewound.letters.insert(id, lost_letter(entry, now))),
                    None => match &mut gone {
                        Some((_, last)) if last.next() == seq => *last = seq,
                        _ => rewound.list_gone(actor, gone.replace((seq, seq)), now),
                    },
                }
            }
            rewound.list_gone(actor, gone, now);
        }
        rewound.verdicts.marked.sort_by_key(|(seq, _)| *seq);
        rewound
    }

    /// Whether something is lost that was written under the actors before; known once the log is up to date again. It
    /// may be lost without going back: accepted, never read here, and not in the backup that the server was put back to.
    pub fn has_lost_of_before(&self) -> bool {
        self.status == LogStatus::Synced
            && self.elsewhere.is_empty()
            && self.uncovered_of_before().any(|(_, mut seqs)| seqs.next().is_some())
    }

    /// Whether the log has, under a seq of an actor before, something else than what was accepted here: a restored server
    /// had lost that, and a copy of the database wrote there.
    pub(super) fn is_taken(&mut self, logged: &Logged) -> bool {
        let seq = logged.entry.header.seq;
        let own = self.outbox.stored(seq).filter(|_| seq <= self.outbox.begins_behind());
        let write = own.map(write_of).filter(|own| *own != write_of(&logged.entry));
        self.taken.extend(write.map(|write| (seq, write)));
        write.is_some()
    }

    /// Whether something is lost that only this device has: until it is a dead letter, its rows are needed.
    pub fn has_taken(&self) -> bool {
        !self.taken.is_empty()
    }

    /// Seqs of the actors before that were accepted under them, and that confirmed state does not have.
    fn uncovered_of_before(&self) -> impl Iterator<Item = (ActorId, impl Iterator<Item = Seq>)> {
        let verdicts = self.outbox.verdicts();
        // Where the row of verdicts is damaged, nobody here knows what was accepted.
        let known = verdicts.through >= self.outbox.begins_behind();
        let earlier = self.outbox.earlier().iter().filter(move |_| known);
        let mut first = Seq(1);
        earlier.map(move |(actor, last)| {
            let from = first.max(self.state.folded(*actor).next());
            let taken = self.taken.range(first..from.min(last.next())).map(|(seq, _)| *seq);
            first = last.next();
            let seqs = taken.chain((from.0..=last.0).map(Seq));
            (*actor, seqs.filter(|seq| verdicts.mark(*seq).is_none_or(MarkedStatus::is_logged)))
        })
    }

    /// What is still laid and will not come back: of the actors before what is lost; and what has become a void, which a
    /// tab hears of here that had not heard before that it was refused.
    fn laid_and_over(&self) -> Vec<(WriteId, Refused)> {
        let (verdicts, last) = (self.outbox.verdicts(), self.outbox.begins_behind());
        let laid = self.overlay.pending().filter_map(|(stamp, _)| {
            let seq = stamp.seq()?;
            let void = self.outbox.void_at(seq).filter(|_| seq > last);
            if void.is_none() && !(seq <= last && verdicts.mark(seq).is_some_and(|mark| !mark.is_logged())) {
                return None;
            }
            let id = EntryId { actor: stamp.actor(), seq };
            let letter = self.dead_letters.get(&id).filter(|_| void.is_some());
            let (status, code, reason) = match letter {
                Some(letter) => (letter.status, letter.code, letter.reason.clone()),
                None if void.is_some_and(|void| void.reason == REFUSED) => (MarkedStatus::Refused, None, String::new()),
                None => (MarkedStatus::Void, Some(Code::LostByServer), LOST.to_owned()),
            };
            Some((stamp.write(), Refused { id, status, code, reason }))
        });
        laid.collect()
    }

    /// Goes back to what the rows hold now: own entries are learned from them again, and where confirmed state is to be
    /// rebuilt, it comes from the server.
    pub fn rewind(&mut self, verdicts: Verdicts, voids: &Voids, rebuild: bool) {
        self.outbox.rewind(verdicts, voids);
        let mut touched = Touched::new();
        for (write, refused) in self.laid_and_over() {
            touched.extend(self.overlay.drop(&self.state, write));
            self.notices.push(Notice::Write(self.name.clone(), write, WriteStatus::Refused(refused)));
        }
        self.refresh(&touched);
        for (seq, write) in std::mem::take(&mut self.taken) {
            let id = EntryId { actor: self.outbox.author_of(seq), seq };
            let (code, reason) = (Some(Code::LostByServer), LOST.to_owned());
            let refused = Refused { id, status: MarkedStatus::Void, code, reason };
            self.notices.push(Notice::Write(self.name.clone(), write, WriteStatus::Refused(refused)));
        }
        if rebuild {
            self.purged_to(Offset(0));
            let mut keys = self.visible_keys();
            self.state = State::new(LogId::default());
            self.met = false;
            self.places = Places::default();
            self.unplaced.clear();
            self.covered_untold.clear();
            self.elsewhere.clear();
            self.told_by_fold.clear();
            (self.tail_bytes, self.snapshot_bytes, self.server_end) = (0, 0, Offset(0));
            self.arrivals.reset();
            self.arrivals.restart();
            self.overlay.reset(&self.state);
            keys.extend(self.visible_keys());
            self.refresh(&keys);
        }
        self.try_again();
        self.set_status(LogStatus::Local, "");
        self.progress();
    }
}

impl Rewound {
    /// Own entries that nobody has any more: their seqs are voids, and the loss is shown.
    fn lose(&mut self, actor: ActorId, seqs: Option<(Seq, Seq)>, now: WallMs) {
        let Some((first, last)) = seqs else { return };
        for (from, through) in Voids::default().without(first, last) {
            self.voids.push(Void { from, through, reason: GONE.to_owned() });
            self.list_gone(actor, Some((from, through)), now);
        }
    }

    /// Shows the loss of entries that neither the server nor this device has any more.
    fn list_gone(&mut self, actor: ActorId, seqs: Option<(Seq, Seq)>, now: WallMs) {
        let Some((from, through)) = seqs else { return };
        let damaged = Damaged { seqs: from..=through, bytes: Vec::new(), reason: GONE.to_owned() };
        let mut letter = DeadLetter::damaged(damaged, now);
        letter.code = Some(Code::LostByServer);
        self.letters.insert(EntryId { actor, seq: from }, letter);
    }
}

/// The server has it no more; it is held here.
fn lost_letter(entry: &Entry, now: WallMs) -> DeadLetter {
    DeadLetter::new(entry, MarkedStatus::Void, Some(Code::LostByServer), LOST.to_owned(), now)
}
