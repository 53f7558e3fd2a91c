//! A history at the server that is another one than here: where the two part, and going back to there.

use std::collections::BTreeMap;

use crate::entry::Entry;
use crate::id::{ActorId, EntryId, EpochId, LogId, Offset, Seq};
use crate::notice::LogStatus;
use crate::packed::{Item, Void};
use crate::protocol::Code;
use crate::protocol::frame::{MarkedStatus, Opened};
use crate::state::State;
use crate::storage::own::Damaged;
use crate::storage::row::{DeadLetter, Received, Verdicts, Voids};
use crate::time::WallMs;

use super::Replica;
use super::places::Places;

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
                    let code = Some(Code::LostByServer);
                    letters.insert(id, DeadLetter::new(entry, MarkedStatus::Void, code, LOST.to_owned(), now));
                }
            }
        }
    }

    /// Goes back to what the rows hold now: own entries are learned from them again, and where confirmed state is to be
    /// rebuilt, it comes from the server.
    pub fn rewind(&mut self, verdicts: Verdicts, voids: &Voids, rebuild: bool) {
        self.outbox.rewind(verdicts, voids);
        if rebuild {
            self.purged_to(Offset(0));
            let mut keys = self.visible_keys();
            self.state = State::new(LogId::default());
            self.met = false;
            self.places = Places::default();
            self.unplaced.clear();
            self.covered_untold.clear();
            self.elsewhere.clear();
            self.met_elsewhere.clear();
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
            let damaged = Damaged { seqs: from..=through, bytes: Vec::new(), reason: GONE.to_owned() };
            let mut letter = DeadLetter::damaged(damaged, now);
            letter.code = Some(Code::LostByServer);
            self.letters.insert(EntryId { actor, seq: from }, letter);
        }
    }
}
