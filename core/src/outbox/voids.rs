//! Seqs of an outbox that hold no entry: given up here, damaged, or of the actors before.

use crate::entry::Entry;
use crate::id::Seq;
use crate::packed::Void;
use crate::storage::own::Damaged;

use super::{Outbox, write_of};

impl Outbox {
    /// Takes note of a stretch that is given up; returns the entries that leave for it. Verdicts hold against it.
    pub fn give_up(&mut self, void: &Void) -> Vec<Entry> {
        let undecided = void.from.max(self.verdicts.through.next());
        let gone: Vec<_> = match undecided <= void.through {
            true => self.stored.range(undecided..=void.through).map(|(seq, _)| *seq).collect(),
            false => Vec::new(),
        };
        let gone = gone.into_iter().filter_map(|seq| self.stored.remove(&seq)).collect::<Vec<_>>();
        for entry in &gone {
            self.seqs.remove(&write_of(entry));
            self.backlog.remove(entry.size());
        }
        self.voids.insert(void.from, void.clone());
        self.advance();
        gone
    }

    /// Takes note of seqs whose bytes are damaged or gone. What is decided is passed over, and what is `folded` is; the
    /// rest must be given up, and is returned.
    pub fn damaged(&mut self, damaged: Vec<Damaged>, folded: Seq) -> Vec<Damaged> {
        let mut undecided = Vec::new();
        for stretch in damaged {
            let (from, through) = (*stretch.seqs.start(), *stretch.seqs.end());
            let decided = through.min(self.verdicts.through.max(folded));
            if from <= decided && self.void_at(from).is_none() {
                self.voids.insert(from, Void { from, through: decided, reason: String::new() });
            }
            let from = from.max(decided.next());
            let held = |seq: u64| self.stored.contains_key(&Seq(seq)) || self.void_at(Seq(seq)).is_some();
            if from <= through && !(from.0..=through.0).all(held) {
                undecided.push(Damaged { seqs: from..=through, ..stretch });
            }
        }
        self.advance();
        undecided
    }

    /// The stretch without entries that a seq lies in.
    pub fn void_at(&self, seq: Seq) -> Option<&Void> {
        self.voids.range(..=seq).next_back().map(|(_, void)| void).filter(|void| void.through >= seq)
    }

    /// The first seq without an entry that is not decided, through a seq.
    pub fn first_void(&self, through: Seq) -> Option<Seq> {
        let undecided = |void: &&Void| void.through > self.verdicts.through && void.from <= through;
        self.voids.values().find(undecided).map(|void| void.from)
    }

    /// Stretches that are given up, as far as verdicts move over them between two seqs.
    pub fn voids_between(&self, after: Seq, through: Seq) -> impl Iterator<Item = &Void> {
        self.voids.values().filter(move |void| void.through > after && void.through <= through)
    }
}
