//! A fresh actor takes over in a replica that is in use, and own actions that stand in the log under another id.
//!
//! An action keeps its run and number whoever pushes it. So one that is pending here and comes from the log under the
//! id of a copy, or of the actor that took over there, is the same, and counts once.

use crate::entry::{Entry, Logged};
use crate::id::{ActorId, EntryId, Offset, Seq, WriteId};
use crate::notice::{Accepted, Notice, Refused, WriteStatus};
use crate::outbox::{Decided, Heritage};
use crate::overlay::Touched;
use crate::protocol::frame::AckRange;
use crate::storage::row::{DeadLetter, Verdicts, Voids};
use crate::storage::succession::Inherited;
use crate::time::WallMs;

use super::{Replica, pending, write_of};

impl Replica {
    /// The last own seq that confirmed state covers, whichever actor's it is.
    pub(crate) fn covered(&self) -> Seq {
        let folded = self.state.folded(self.actor);
        let earlier = self.outbox.earlier().iter().rev().map(|(actor, last)| self.state.folded(*actor).min(*last));
        std::iter::once(folded).chain(earlier).find(|seq| *seq > Seq(0)).unwrap_or_default()
    }

    /// Takes note of the actors before this one, before anything own is read.
    pub fn begin_behind(&mut self, earlier: Vec<(ActorId, Seq)>) {
        self.outbox.begin_behind(earlier);
    }

    /// Takes entries of earlier actors as rows hold them, as far as they are not in confirmed state yet.
    pub fn learn_earlier(&mut self, entries: Vec<Entry>) {
        let learned = self.outbox.learn_earlier(entries, self.covered());
        let outbox = &self.outbox;
        let laid = learned.iter().map(|entry| pending(outbox.author_of(entry.header.seq), entry));
        let touched = self.overlay.push_all(&self.state, laid);
        self.refresh(&touched);
    }

    /// What a successor takes over; none while not everything is read that was appended before `next`.
    pub fn inherit(&self, to: ActorId, next: Seq, heritage: Heritage, now: WallMs) -> Option<Inherited> {
        self.outbox.inherit((&self.name, to, next), heritage, self.covered(), &self.dead_letters, now)
    }

    /// Goes on under the actor that has taken over, with what the rows hold of it. Nothing that is shown changes, but
    /// for what became a dead letter.
    pub fn succeed(
        &mut self,
        actor: ActorId,
        voids: &Voids,
        verdicts: Verdicts,
        entries: Vec<Entry>,
        letters: Vec<(EntryId, DeadLetter)>,
    ) {
        self.actor = actor;
        self.outbox.succeed(actor, voids, &verdicts, entries.clone());
        // What is issued again is told when that is folded.
        let last = self.outbox.begins_behind();
        self.covered_untold.retain(|seq| *seq <= last);
        let mut touched = self.overlay.succeed(&self.state, self.outbox.begins_behind(), actor);
        let laid = entries.iter().filter(|entry| !self.unlaid.contains(&write_of(entry)));
        touched.extend(self.overlay.push_all(&self.state, laid.map(|entry| pending(actor, entry))));
        self.refresh(&touched);
        self.load_dead_letters(letters, Seq(u64::MAX));
        self.drop_unknown(&verdicts);
        // Those that are inherited are on the entries of the actor before.
        self.decide_behind(Seq(0), verdicts, &[], Vec::new());
    }

    /// What was accepted, is not confirmed here, and may be lost with the server's memory of it, is a dead letter by now.
    fn drop_unknown(&mut self, verdicts: &Verdicts) {
        let through = self.outbox.verdicts().through;
        let unknown = self.dead_letters.iter().filter(|(id, _)| id.seq <= through && verdicts.mark(id.seq).is_some());
        let unknown: Vec<_> = unknown.filter_map(|(id, letter)| Some((*id, letter.write?, letter.clone()))).collect();
        let mut touched = Touched::new();
        for (id, write, letter) in unknown {
            if !self.overlay.holds(write) {
                continue;
            }
            touched.extend(self.overlay.drop(&self.state, write));
            let refused = Refused { id, status: letter.status, code: letter.code, reason: letter.reason };
            self.notices.push(Notice::Write(self.name.clone(), write, WriteStatus::Refused(refused)));
        }
        self.refresh(&touched);
    }

    /// An entry of another actor of this database's origin was folded: it may be an action that is pending here.
    pub(super) fn folded_elsewhere(&mut self, logged: &Logged) -> Touched {
        let write = write_of(&logged.entry);
        let kin = logged.actor.origin() == self.actor.origin();
        let own = logged.actor == self.outbox.author_of(logged.entry.header.seq);
        if own || !kin || !self.overlay.holds(write) {
            return Touched::new();
        }
        self.elsewhere.remove(&write);
        if let Some(seq) = self.outbox.seq_of(write).filter(|seq| *seq > self.outbox.verdicts().through) {
            self.told_by_fold.insert(seq, write);
            let place = (logged.offset, logged.accepted.ms());
            self.tell_elsewhere(seq, write, Some(place));
        }
        self.overlay.drop(&self.state, write)
    }

    /// The server has an own entry under another id: it stays in view until confirmed state has it.
    pub(super) fn decided_elsewhere(&mut self, decided: &Decided, write: WriteId, places: &[AckRange]) {
        let within =
            |range: &&AckRange| decided.seq >= range.seq && decided.seq.0 < range.seq.0 + u64::from(range.count);
        let place = places.iter().find(within);
        let offset = place.map(|range| Offset(range.offset.0 + decided.seq.0 - range.seq.0));
        if self.told_by_fold.get(&decided.seq) != Some(&write) {
            self.tell_elsewhere(decided.seq, write, offset.zip(place.map(|range| range.accepted.ms())));
        }
        if self.overlay.holds(write) {
            self.elsewhere.insert(write, offset.map_or(self.server_end, Offset::next));
        }
    }

    fn tell_elsewhere(&mut self, seq: Seq, write: WriteId, place: Option<(Offset, WallMs)>) {
        let (offset, accepted) = place.unzip();
        let id = EntryId { actor: self.outbox.author_of(seq), seq };
        let author = self.state.user(self.actor).cloned();
        let accepted = Accepted { id, offset, accepted, author, outcome: None };
        self.notices.push(Notice::Write(self.name.clone(), write, WriteStatus::Accepted(accepted)));
    }

    /// Lets go of what confirmed state has under another id by now.
    pub(super) fn settle_elsewhere(&mut self) -> Touched {
        let at = self.state.cursor().next;
        let confirmed: Vec<_> = self.elsewhere.iter().filter(|(_, end)| **end <= at).map(|(write, _)| *write).collect();
        let mut touched = Touched::new();
        for write in confirmed {
            self.elsewhere.remove(&write);
            touched.extend(self.overlay.drop(&self.state, write));
        }
        if self.elsewhere.is_empty() {
            self.note_closed();
        }
        touched
    }
}
