//! Dead letters of one log: own entries that are not in it, kept whole until somebody redrives or discards them.
//!
//! ```text
//! refused ──► dead ──redrive (marked in the append of the replacement)──► under way ──accepted──► gone
//!              ▲                                                             │
//!              └──────────────────────── refused ────────────────────────────┘
//! ```
//!
//! How a marked letter stands follows from the verdict on the entry that the mark names, so a crash between mark and
//! verdict, or between verdict and deletion, changes nothing. A redrive of what was itself a redrive replaces the first
//! entry of the line: the server accepts one replacement of an entry at most, so whatever is tried, it counts once.

use std::collections::BTreeMap;

use crate::draft::{Draft, DraftFieldOp, DraftOp};
use crate::entry::{Entry, InvalidEntry, Replaced};
use crate::id::{EntryId, Seq, WriteId};
use crate::notice::Notice;
use crate::op::{Delete, DeletePolicy, Edit, FieldOp, Op};
use crate::packed::Item;
use crate::random::Random;
use crate::storage::row::DeadLetter;
use crate::time::{Clock, WallMs};

use super::act::{Again, Reissue};
use super::leaving::{look_at, may_be_logged};
use super::{ActError, Replica};

/// A dead letter cannot be redriven; nothing was recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedriveError {
    /// It was discarded, or its replacement was accepted.
    #[error("{0} is no dead letter")]
    NotADeadLetter(EntryId),
    /// Wait for the verdict on its replacement.
    #[error("{0} is being redriven already")]
    UnderWay(EntryId),
    /// Its ops cannot be issued again as they are: give arguments.
    #[error("{0} changes a text or does what this version does not know: redrive it with arguments")]
    NeedsArguments(EntryId),
    /// Its bytes are damaged.
    #[error(transparent)]
    Damaged(#[from] InvalidEntry),
    /// The new action cannot be taken.
    #[error(transparent)]
    Act(#[from] ActError),
}

pub(super) fn line_of(id: EntryId, entry: &Entry) -> Replaced {
    entry.line(EntryId { seq: entry.header.seq, ..id })
}

impl Replica {
    /// Issues a dead letter again: with a new draft, or with the old one's ops as they are.
    ///
    /// # Errors
    /// [`RedriveError`]; nothing was recorded.
    pub fn redrive(
        &mut self,
        id: EntryId,
        draft: Option<Draft>,
        n: u64,
        now: WallMs,
        clock: &mut Clock,
        random: &mut Random,
    ) -> Result<WriteId, RedriveError> {
        let letter = self.dead_letters.get(&id).ok_or(RedriveError::NotADeadLetter(id))?;
        if self.is_under_way(id) {
            return Err(RedriveError::UnderWay(id));
        }
        let entry = Entry::from_bytes(&letter.entry)?;
        let draft = match draft {
            Some(draft) => draft,
            None => draft_of(&entry).ok_or(RedriveError::NeedsArguments(id))?,
        };
        let reissue = Some(Reissue { replaces: line_of(id, &entry), letter: id });
        let write = self.act_again(draft, n, now, clock, random, Again { reissue, seen: None })?;
        self.redriving.insert(id, write);
        self.letters_changed(id.seq);
        Ok(write)
    }

    /// Whether a replacement of this dead letter is undecided.
    pub fn is_under_way(&self, id: EntryId) -> bool {
        let marked = self.dead_letters.get(&id).and_then(|letter| letter.redriven);
        self.redriving.contains_key(&id) || marked.is_some_and(|seq| seq > self.outbox.verdicts().through)
    }

    /// A replacement is durable, and the row of its letter is marked.
    pub(super) fn marked_redriven(&mut self, entry: &Entry) {
        let write = WriteId { run: entry.header.run, n: entry.header.n };
        let Some(id) = self.redriving.iter().find(|(_, redriving)| **redriving == write).map(|(id, _)| *id) else {
            return;
        };
        self.redriving.remove(&id);
        if let Some(letter) = self.dead_letters.get_mut(&id) {
            letter.redriven = Some(entry.header.seq);
        }
    }

    /// A replacement was not recorded: its letter is dead as before.
    pub(super) fn not_redriven(&mut self, write: WriteId) {
        let letter = self.redriving.iter().find(|(_, redriving)| **redriving == write).map(|(id, _)| *id);
        if let Some(id) = letter {
            self.redriving.remove(&id);
            self.letters_changed(id.seq);
        }
    }

    /// Letters that what is being stored redeems: a replacement of their line is accepted.
    pub fn redeemed(&self) -> Vec<EntryId> {
        if self.dead_letters.is_empty() {
            return Vec::new();
        }
        let Some(batch) = self.arrivals.storing() else { return Vec::new() };
        // What a restored server had lost comes again under its own id, and what nobody knew of is there after all.
        let again = self.dead_letters.values().any(may_be_logged);
        let logged = batch.items.iter().filter_map(|item| match item {
            Item::Entry(logged) if again => Some(logged.entry.line(logged.id())),
            Item::Entry(logged) => logged.entry.header.replaces.clone(),
            _ => None,
        });
        let accepted = batch.verdicts.iter().flat_map(|verdicts| {
            let fresh = self.outbox.stored_behind(self.outbox.verdicts().through);
            let decided = fresh.take_while(|entry| entry.header.seq <= verdicts.through);
            let accepted =
                decided.filter(|entry| verdicts.mark(entry.header.seq).is_none_or(|mark| mark.is_accepted()));
            accepted.filter_map(|entry| entry.header.replaces.clone())
        });
        let kin = |line: &Replaced| again || line.id.actor.origin() == self.actor.origin();
        let lines: Vec<_> = logged.chain(accepted).filter(kin).collect();
        // Asked for each batch, and nearly none re-issues anything: the letters are read only for one that does.
        if lines.is_empty() {
            return Vec::new();
        }
        let letters = self.dead_letters.iter().filter(|(id, letter)| {
            Entry::from_bytes(&letter.entry).is_ok_and(|entry| lines.contains(&line_of(**id, &entry)))
        });
        letters.map(|(id, _)| *id).collect()
    }

    /// Letters are gone, since something of their line is in the log.
    pub fn redeem_letters(&mut self, letters: &[EntryId]) {
        self.forget_letters(letters, true);
    }

    /// Letters are gone because somebody said so.
    pub fn discard_letters(&mut self, letters: &[EntryId]) {
        self.forget_letters(letters, false);
    }

    fn forget_letters(&mut self, letters: &[EntryId], redeemed: bool) {
        let gone: Vec<_> = letters.iter().filter_map(|id| Some((*id, self.dead_letters.remove(id)?))).collect();
        if let Some(first) = gone.iter().map(|(id, _)| id.seq).min() {
            let own = gone.iter().all(|(id, _)| id.actor == self.actor);
            self.letters_changed(if own { first } else { Seq(0) });
            gone.iter().for_each(|(id, letter)| self.moved_is_over(*id, letter, redeemed));
            self.progress();
        }
    }

    /// Keeps dead letters that are stored. One whose replacement is among them is dead again.
    pub(super) fn add_letters(&mut self, letters: Vec<(Seq, DeadLetter)>) {
        let Some(first) = letters.iter().map(|(seq, _)| *seq).min() else { return };
        let back = self.dead_letters.iter().find(|(_, letter)| letter.redriven.is_some_and(|seq| seq >= first));
        self.letters_changed(back.map_or(first, |(id, _)| id.seq.min(first)));
        self.leaves_by(look_at(letters.iter().map(|(_, letter)| letter)));
        let id = |seq| EntryId { actor: self.actor, seq };
        self.dead_letters.extend(letters.into_iter().map(|(seq, letter)| (id(seq), letter)));
    }

    /// Letters of an earlier actor are not in the order of this one's seqs: with them the list is read as a whole.
    pub(super) fn letters_changed(&mut self, from: Seq) {
        let mixed = self.dead_letters.keys().any(|id| id.actor != self.actor);
        let from = if mixed { Seq(0) } else { from };
        self.notices.push(Notice::DeadLetters(self.name.clone(), from));
    }

    /// Takes the dead letters as the rows hold them, which were read when verdicts were recorded through `through`.
    pub fn load_dead_letters(&mut self, letters: Vec<(EntryId, DeadLetter)>, through: Seq) {
        let mut all: BTreeMap<_, _> = letters.into_iter().collect();
        // Recorded since, so the reading does not know them.
        let newer = self.dead_letters.iter().filter(|(id, _)| id.actor == self.actor && id.seq > through);
        all.extend(newer.map(|(id, letter)| (*id, letter.clone())));
        self.outbox.recall(&all);
        if all != self.dead_letters {
            let before = std::mem::replace(&mut self.dead_letters, all);
            self.letters_changed(Seq(0));
            let gone = before.iter().filter(|(id, _)| self.is_untold(**id) && !self.dead_letters.contains_key(id));
            for (id, letter) in gone.collect::<Vec<_>>() {
                self.moved_is_over(*id, letter, false);
            }
            self.tell_moved();
            let leaves = look_at(self.dead_letters.values());
            self.leaves_by(leaves);
        }
    }

    /// The own entry that replaces a dead letter, if it is held here.
    pub(super) fn replacement_of(&self, id: EntryId, letter: &DeadLetter) -> Option<Seq> {
        let line = line_of(id, &Entry::from_bytes(&letter.entry).ok()?);
        let replaces = |entry: &&Entry| entry.header.replaces.as_ref() == Some(&line);
        self.outbox.held().find(replaces).map(|entry| entry.header.seq)
    }

    /// Dead letters, ascending by seq.
    pub fn dead_letters(&self) -> impl Iterator<Item = (&EntryId, &DeadLetter)> {
        self.dead_letters.iter()
    }

    /// Dead letters with a seq from one on, of any actor.
    pub fn dead_letters_from(&self, seq: Seq) -> impl Iterator<Item = (&EntryId, &DeadLetter)> {
        self.dead_letters.iter().filter(move |(id, _)| id.seq >= seq)
    }

    /// One dead letter.
    pub fn dead_letter(&self, id: EntryId) -> Option<&DeadLetter> {
        self.dead_letters.get(&id)
    }
}

/// The draft that makes these ops again; none if it cannot be told here what they do.
fn draft_of(entry: &Entry) -> Option<Draft> {
    let body = &entry.body;
    let ops = body.ops.iter().map(|op| {
        Some(match op {
            Op::Insert(op) => {
                let fields = op.fields.iter().map(|(field, op)| Some((field.clone(), field_op(op)?)));
                DraftOp::Insert(op.collection.clone(), op.record.clone(), fields.collect::<Option<_>>()?)
            }
            Op::Update(op) => {
                DraftOp::Update(op.collection.clone(), op.record.clone(), op.field.clone(), field_op(&op.op)?)
            }
            Op::Delete(op) => delete_op(op)?,
            Op::Erase(_) | Op::Unknown(..) => return None,
        })
    });
    let ops = ops.collect::<Option<_>>()?;
    Some(Draft { name: body.name.clone(), args: body.args.clone(), ops, lifetime_ms: body.lifetime_ms })
}

/// None if its policy is not known here.
pub(super) fn delete_op(op: &Delete) -> Option<DraftOp> {
    let known = !matches!(op.policy, DeletePolicy::Unknown(..));
    known.then(|| DraftOp::Delete(op.collection.clone(), op.record.clone(), op.policy.clone()))
}

pub(super) fn field_op(op: &FieldOp) -> Option<DraftFieldOp> {
    Some(match op {
        FieldOp::Set(value) => DraftFieldOp::Set(value.clone()),
        FieldOp::Increment(by) => DraftFieldOp::Increment(*by),
        FieldOp::Add(values) => DraftFieldOp::Add(values.clone()),
        FieldOp::Remove(values) => DraftFieldOp::Remove(values.clone()),
        FieldOp::Edit(Edit::InitialText(text)) => DraftFieldOp::InitialText(text.clone()),
        // Bytes of a change are bound to their author's line of changes, which a refusal ends.
        FieldOp::Edit(_) | FieldOp::Unknown(..) => return None,
    })
}
