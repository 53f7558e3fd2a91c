//! What the app is told of own entries: accepted by the fold or by a verdict, refused by a verdict, each once. A log that
//! goes back to what a restored server has folds it again, and may say the same again.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use crate::entry::{Entry, Logged, Replaced};
use crate::id::{EntryId, Offset, Seq, WriteId};
use crate::notice::{Accepted, LogStatus, Notice, Refused, WriteStatus};
use crate::outbox::Decided;
use crate::overlay::Touched;
use crate::protocol::Code;
use crate::protocol::frame::{AckRange, MarkedStatus};
use crate::state::Outcome;
use crate::storage::row::{DeadLetter, Verdicts};
use crate::time::WallMs;

use super::Replica;
use super::dead_letters::line_of;
use super::leaving::event_ends;

/// Why nobody here knows what became of an entry.
const LETTER_WENT: &str = "its dead letter was dealt with in another tab before this one heard of it";

/// When an own entry that is decided has to leave the rows, if ever: confirmed state may have come past it before. Where
/// nobody says when it was accepted, the next look tells.
fn leaves_by(entry: &Entry, mark: Option<MarkedStatus>) -> Option<WallMs> {
    let untimed = matches!(mark, Some(MarkedStatus::Expired | MarkedStatus::Elsewhere | MarkedStatus::Void));
    event_ends(entry).map(|end| if untimed { 1 } else { end })
}

impl Replica {
    /// Takes verdicts that are stored, with what is known of the places of accepted entries.
    pub fn decide(&mut self, verdicts: Verdicts, places: &[AckRange], letters: Vec<(Seq, DeadLetter)>) {
        // What this actor's verdicts say of the seqs before it says nothing of the entries there.
        self.decide_behind(self.outbox.begins_behind(), verdicts, places, letters);
    }

    /// Takes verdicts on entries behind a seq.
    pub(super) fn decide_behind(
        &mut self,
        seq: Seq,
        verdicts: Verdicts,
        places: &[AckRange],
        letters: Vec<(Seq, DeadLetter)>,
    ) {
        let folded = self.covered();
        self.add_letters(letters);
        places.iter().for_each(|range| self.places.note(range));
        let (mut touched, again) = (Touched::new(), OnceCell::new());
        for decided in self.outbox.decide(verdicts).into_iter().filter(|decided| decided.seq > seq) {
            let leaves = self.outbox.stored(decided.seq).and_then(|entry| leaves_by(entry, decided.mark));
            self.leaves_by(leaves);
            touched.extend(self.decided(decided, folded, places, &again));
        }
        self.told_by_fold = self.told_by_fold.split_off(&self.outbox.verdicts().through.next());
        self.outbox.release(folded);
        self.note_closed();
        self.tell_moved();
        if self.hold.as_ref().is_some_and(|hold| hold.seq <= self.outbox.verdicts().through) {
            self.hold = None;
        }
        self.refresh(&touched);
        self.progress();
    }

    /// The entries that own ones issue again, each with the last that does.
    fn issued_again(&self) -> BTreeMap<Replaced, Seq> {
        self.outbox.held().filter_map(|entry| Some((entry.header.replaces.clone()?, entry.header.seq))).collect()
    }

    /// What an own entry came to. `again`: what is issued again, once somebody asked. Where the letter of what is refused
    /// was dealt with in another tab, and it was issued again there, the app is told what became of that.
    fn decided(
        &mut self,
        decided: Decided,
        folded: Seq,
        places: &[AckRange],
        again: &OnceCell<BTreeMap<Replaced, Seq>>,
    ) -> Touched {
        let Some(entry) = self.outbox.stored(decided.seq) else { return Touched::new() };
        let write = WriteId { run: entry.header.run, n: entry.header.n };
        let id = EntryId { actor: self.outbox.author_of(decided.seq), seq: decided.seq };
        let covered = self.covered_untold.remove(&decided.seq);
        let (status, touched) = match decided.mark {
            Some(mark) if !mark.is_accepted() => {
                let letter = self.dead_letters.get(&id);
                if letter.is_none() {
                    let all = again.get_or_init(|| self.issued_again());
                    if let Some(seq) = all.get(&line_of(id, entry)).copied().filter(|seq| *seq > id.seq) {
                        let mut letter = DeadLetter::new(entry, mark, None, LETTER_WENT.to_owned(), 0);
                        letter.redriven = Some(seq);
                        self.move_later(id, write);
                        self.moved_is_over(id, &letter, false);
                        return self.overlay.drop(&self.state, write);
                    }
                }
                if self.is_moved(entry, id, letter.and_then(|letter| letter.code)) {
                    self.move_later(id, write);
                    return self.overlay.drop(&self.state, write);
                }
                let (code, reason) = match letter {
                    Some(letter) => (letter.code, letter.reason.clone()),
                    // Another tab saw to the letter: somebody discarded it, or the entry was in the log after all.
                    None => (Some(Code::OutcomeUnknown), LETTER_WENT.to_owned()),
                };
                let refused = Refused { id, status: mark, code, reason };
                (WriteStatus::Refused(refused), self.overlay.drop(&self.state, write))
            }
            Some(MarkedStatus::Elsewhere) => {
                self.decided_elsewhere(&decided, write, places);
                return self.settle_elsewhere();
            }
            // The fold told it already, with its place.
            _ if decided.seq <= folded && !covered => return Touched::new(),
            outcome => {
                let place = places
                    .iter()
                    .find(|range| decided.seq >= range.seq && decided.seq.0 < range.seq.0 + u64::from(range.count));
                let fold_will_come = !covered && !self.status.is_stopped() && self.status != LogStatus::AppendOnly;
                if place.is_none() && outcome.is_none() && fold_will_come {
                    self.unplaced.insert(decided.seq);
                    return Touched::new();
                }
                let accepted = Accepted {
                    id,
                    offset: place.map(|range| Offset(range.offset.0 + decided.seq.0 - range.seq.0)),
                    accepted: place.map(|range| range.accepted.ms()),
                    author: self.state.user(id.actor).cloned(),
                    outcome,
                };
                (WriteStatus::Accepted(accepted), Touched::new())
            }
        };
        self.notices.push(Notice::Write(self.name.clone(), write, status));
        touched
    }

    pub(super) fn accepted_by_fold(&mut self, logged: &Logged, outcome: &Outcome) {
        let seq = logged.entry.header.seq;
        let ours = logged.actor == self.outbox.author_of(seq);
        if ours && self.is_taken(logged) {
            return;
        }
        if ours {
            self.places.note_one(seq, logged.offset, logged.accepted);
        }
        if !ours || (seq <= self.outbox.verdicts().through && !self.unplaced.remove(&seq)) {
            return;
        }
        let header = &logged.entry.header;
        let write = WriteId { run: header.run, n: header.n };
        if seq > self.outbox.verdicts().through {
            self.told_by_fold.insert(seq, write);
        }
        let gone = matches!(outcome, Outcome::RecordGone(_));
        let accepted = Accepted {
            id: logged.id(),
            offset: Some(logged.offset),
            accepted: Some(logged.accepted.ms()),
            author: Some(logged.user.clone()),
            outcome: gone.then_some(MarkedStatus::RecordGone),
        };
        self.notices.push(Notice::Write(self.name.clone(), write, WriteStatus::Accepted(accepted)));
    }

    /// No fold will come to tell the places of entries that are known to be accepted.
    pub(super) fn tell_unplaced(&mut self) {
        let through = self.unplaced.last().copied().unwrap_or_default();
        self.tell_covered(through, through);
    }

    /// A snapshot covers entries through `folded`. Those whose acceptance is known are told, at a place that nobody tells.
    /// Of those without a verdict some may have been refused: the server tells it, and it is told then. Through `told` the
    /// fold was there before the snapshot.
    pub(super) fn tell_covered(&mut self, told: Seq, folded: Seq) {
        let known = self.outbox.verdicts().through;
        let undecided = self.outbox.held().map(|entry| entry.header.seq);
        let undecided = undecided.filter(|seq| *seq > known.max(told) && *seq <= folded);
        self.covered_untold.extend(undecided);
        let covered: Vec<_> = self
            .outbox
            .held()
            .filter(|entry| entry.header.seq <= folded && self.unplaced.contains(&entry.header.seq))
            .map(|entry| (entry.header.seq, WriteId { run: entry.header.run, n: entry.header.n }))
            .collect();
        for (seq, write) in covered {
            self.unplaced.remove(&seq);
            let id = EntryId { actor: self.outbox.author_of(seq), seq };
            let author = self.state.user(id.actor).cloned();
            let accepted = Accepted { id, offset: None, accepted: None, author, outcome: None };
            self.notices.push(Notice::Write(self.name.clone(), write, WriteStatus::Accepted(accepted)));
        }
    }
}
