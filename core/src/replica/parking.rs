//! Own pending entries that are given up on this device: dead letters here, voids to the server.

use crate::chain::Chain;
use crate::id::{EntryId, Seq, WriteId};
use crate::notice::{Notice, Refused, WriteStatus};
use crate::overlay::Touched;
use crate::packed::Void;
use crate::protocol::Code;
use crate::protocol::frame::{MarkedStatus, Opened};
use crate::storage::commit::Park;
use crate::storage::own::Damaged;
use crate::storage::row::{DeadLetter, Voids};
use crate::time::WallMs;

use super::Replica;

impl Replica {
    /// What it takes to give up an own pending entry for good, although its bytes are whole; none if it is decided,
    /// or not stored yet.
    pub fn park(&self, seq: Seq, code: Code, reason: &str, now: WallMs) -> Option<Park> {
        let entry = self.outbox.stored(seq).filter(|_| seq > self.outbox.verdicts().through)?;
        let letter = DeadLetter::new(entry, MarkedStatus::Void, Some(code), reason.to_owned(), now);
        Some(Park { log: self.name.clone(), actor: self.actor, letters: vec![(seq, letter)] })
    }

    /// What it takes to give up own entries whose bytes are damaged; none if all of them are decided.
    pub fn park_damaged(&mut self, damaged: Vec<Damaged>, now: WallMs) -> Option<Park> {
        let damaged = self.outbox.damaged(damaged, self.covered());
        if damaged.is_empty() {
            return None;
        }
        let letters = damaged.into_iter().map(|part| (*part.seqs.start(), DeadLetter::damaged(part, now))).collect();
        Some(Park { log: self.name.clone(), actor: self.actor, letters })
    }

    /// Whether the server's record of this device's work is ours, as far as what is left here can tell.
    ///
    /// The bytes of a damaged entry may have been decided before they were damaged. Then only the chain before it can
    /// be compared, and what is whole between two of the server's checkpoints. For the rest the server's word is taken:
    /// where the log is read, when it is read, since it may have the work of a copy there.
    pub fn agree(&mut self, opened: &Opened, is_read: bool) -> bool {
        self.outbox.set_anchor(None);
        let through = self.outbox.verdicts().through;
        if opened.seq < through {
            // A successor begins with voids that nobody has decided yet.
            let begins = through <= self.outbox.begins_behind();
            return begins && self.outbox.begins_with(&self.name, (opened.seq, opened.chain));
        }
        if self.outbox.chain_at(opened.seq) == Some(opened.chain) {
            return true;
        }
        // Nothing here wrote so much.
        if opened.seq > self.outbox.highest() {
            return false;
        }
        let Some(void) = self.outbox.first_void(opened.seq) else { return false };
        let comparable = |(seq, _): &&(Seq, Chain)| *seq >= self.outbox.verdicts().through && *seq < void;
        let differs = |(seq, chain): &(Seq, Chain)| self.outbox.chain_at(*seq).is_some_and(|ours| ours != *chain);
        if opened.checkpoints.iter().filter(comparable).any(differs) || self.outbox.goes_on_otherwise(opened) {
            return false;
        }
        self.outbox.set_anchor(Some((opened.seq, opened.chain)));
        if is_read && self.arrivals.next(self.state.cursor()).next < opened.end {
            self.arrivals.doubt(opened.end);
        }
        true
    }

    /// Takes note of seqs that are given up for good, with the dead letters for them: their entries leave the view.
    /// Returns the first seq that is new among them.
    pub fn parked(&mut self, voids: &Voids, letters: Vec<(Seq, DeadLetter)>) -> Option<Seq> {
        let is_new = |void: &&Void| self.outbox.void_at(void.from).is_none();
        let new: Vec<_> = voids.stretches.iter().filter(is_new).collect();
        let mut touched = Touched::new();
        for void in &new {
            for entry in self.outbox.give_up(void) {
                let write = WriteId { run: entry.header.run, n: entry.header.n };
                touched.extend(self.overlay.drop(&self.state, write));
                let id = EntryId { actor: self.actor, seq: entry.header.seq };
                let code = letters.iter().find(|(seq, _)| *seq == void.from).and_then(|(_, letter)| letter.code);
                let refused = Refused { id, status: MarkedStatus::Void, code, reason: void.reason.clone() };
                self.notices.push(Notice::Write(self.name.clone(), write, WriteStatus::Refused(refused)));
            }
        }
        let undecided = |seq: &Seq| *seq > self.outbox.verdicts().through && new.iter().any(|void| void.from == *seq);
        let letters = letters.into_iter().filter(|(seq, _)| undecided(seq)).collect();
        let first = new.first().map(|void| void.from);
        self.add_letters(letters);
        if first.is_some() {
            self.refresh(&touched);
            self.progress();
        }
        first
    }
}
