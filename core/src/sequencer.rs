//! The authority over one log: what is pushed becomes entries at offsets, or durable refusals.
//!
//! Pure: the shell reads what a decision needs ([`Sequencer::wanted`]), asks for it ([`Sequencer::decide`]), commits
//! everything that it brings in one transaction, and only then lets the verdicts leave. A failed commit ends the
//! server, so nothing decided is ever taken back.
//!
//! **Invariant:** every seq is decided once. The same bytes again get the same verdict, other bytes an error.

mod author;
mod binding;
mod erase;
mod gate;
mod policy;
mod redrive;
mod reroot;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::chain::{Chain, Cursor};
use crate::entry::{Digest, Entry, Logged, Replaced};
use crate::id::{ActorId, EntryId, EpochId, LogName, Offset, Seq, UserId};
use crate::limits;
use crate::op::{Edit, Erase, FieldOp, Op};
use crate::packed::{Pushed, Void};
use crate::protocol::Code;
use crate::protocol::frame::MarkedStatus;
use crate::random::Random;
use crate::state::{Outcome, State};
use crate::time::{self, Time, WallMs};

pub use author::{AuthorRow, Verdicts};
pub use binding::{BindError, Binding};
pub use gate::{Refusal, admit, rich_changes};
pub use policy::{AllowAll, Case, Policy, Ruling};
pub use redrive::{Redrive, RedriveError, Redriven};
pub use reroot::{Grown, Rerooting};

/// How long the rest of a push waits whose rich changes have many ops. The ops before it take the writer less.
const RICH_PAUSE: Duration = Duration::from_millis(500);

/// One log's authority.
pub struct Sequencer {
    state: State,
    policy: Option<(LogName, Arc<dyn Policy>)>,
}

/// Who pushes.
#[derive(Clone, Copy, Debug)]
pub struct Author<'a> {
    /// The actor.
    pub actor: ActorId,
    /// The user it is bound to.
    pub user: &'a UserId,
}

/// A push as the session took it from its frame.
#[derive(Clone, Debug, PartialEq)]
pub struct PushItems {
    /// The seq of the first item.
    pub first: Seq,
    /// The actor chain after the last.
    pub chain: Chain,
    /// The items, ascending.
    pub items: Vec<Pushed>,
}

/// What the shell must read before a decision.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Wanted {
    /// Already decided seqs that the push repeats: first and last.
    pub decided: Option<(Seq, Seq)>,
    /// Entries that pushed entries re-issue.
    pub replaces: Vec<Replaced>,
}

/// What the shell read for a decision.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Of the wanted seqs, those in the log.
    pub places: BTreeMap<Seq, Place>,
    /// Of the wanted seqs, digests of refused entries that are still kept.
    pub refused: BTreeMap<Seq, Digest>,
    /// Of the wanted replacements, those whose target is in the log with that digest, or was replaced before.
    pub replaced: BTreeSet<Replaced>,
    /// Of entries that are not decided under their own id, what became of them before under another one.
    pub before: BTreeMap<Seq, Before>,
    /// Entries of the push whose rich changes were read before the push came here: the number of their ops, or why
    /// the entry is refused. Empty where nothing reads them before.
    pub read: BTreeMap<Seq, Result<usize, String>>,
}

/// What became of an entry that was pushed before under another id: by another copy of its author's database, or by
/// the actor that took over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    /// It is in the log, at this place.
    Logged(Place),
    /// It was refused, and is so again.
    Refused(Code, String),
    /// It was decided, and how is not known any more.
    Unknown,
}

/// Where an entry stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its offset.
    pub offset: Offset,
    /// When it was taken.
    pub accepted: Time,
    /// The digest of what its author pushed.
    pub digest: Digest,
}

/// What must be committed in one transaction, and what may be said after it.
#[derive(Debug, Default)]
pub struct Decided {
    /// New entries of the log, each with the cursor behind it; those that a policy added are of [`ActorId::LOG`].
    pub appended: Vec<(Logged, Cursor)>,
    /// Refused entries, kept whole.
    pub refused: Vec<Refused>,
    /// The first entry that the policy would see later. It and what follows it are undecided.
    pub held: Option<Held>,
    /// The answer for the author.
    pub verdicts: Verdicts,
    /// Whether the author's row changed.
    pub advanced: bool,
}

/// An entry that was refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// The entry.
    pub entry: Entry,
    /// Why, as a number.
    pub code: Code,
    /// Why, for people.
    pub reason: String,
}

/// An entry that stays undecided for now: no verdict, and never a refusal by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which seq; everything before it is decided.
    pub seq: Seq,
    /// Why, for people.
    pub reason: String,
    /// When to push it again.
    pub delay: Duration,
}

/// The push as a whole cannot be decided; nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// Push from `expected` on.
    #[error("the next seq is {expected}; the push has {got}")]
    ExpectedSeq {
        /// The next seq the log takes from this actor.
        expected: Seq,
        /// What was there instead.
        got: Seq,
    },
    /// The client is a copy, or was restored: it takes a fresh actor.
    #[error("seq {seq} was decided with other bytes")]
    BytesDiffer {
        /// The first such seq.
        seq: Seq,
    },
    /// Compare chains with the checkpoints of `opened`.
    #[error("the actor chain after seq {through} is another one")]
    ChainMismatch {
        /// The last seq of the push.
        through: Seq,
    },
    /// Only the log writer writes as the log itself.
    #[error("nobody may push under the log's own actor")]
    ReservedActor,
    /// The log's stored bytes do not read: an operator must mend it. Other logs go on.
    #[error("the log is damaged at the server: {reason}")]
    LogDamaged {
        /// What does not read.
        reason: String,
    },
    /// Give up at most so many seqs in one item.
    #[error("a void of {got} seqs; at most {max} are allowed")]
    VoidTooLong {
        /// Seqs found.
        got: u64,
        /// Seqs allowed.
        max: u64,
    },
}

impl PushError {
    /// Its number on the wire.
    pub fn code(&self) -> Code {
        match self {
            Self::ExpectedSeq { .. } => Code::ExpectedSeq,
            Self::BytesDiffer { .. } => Code::BytesDiffer,
            Self::ChainMismatch { .. } => Code::ChainMismatch,
            Self::ReservedActor => Code::ActorTaken,
            Self::LogDamaged { .. } => Code::StorageFailed,
            Self::VoidTooLong { .. } => Code::MalformedEntry,
        }
    }

    /// The next seq the log takes, where that is the trouble.
    pub fn expected(&self) -> Option<Seq> {
        match self {
            Self::ExpectedSeq { expected, .. } => Some(*expected),
            _ => None,
        }
    }
}

impl PushItems {
    /// The last seq of the push; the one before `first` when it is empty.
    pub fn through(&self) -> Seq {
        self.items.last().map_or(Seq(self.first.0.saturating_sub(1)), |item| span(item).1)
    }
}

impl Known {
    /// What was found in an entry's rich changes. `ops` counts those of the push: much at once would keep everybody
    /// else waiting, so the rest is held for a moment.
    fn read(&self, seq: Seq, ops: &mut usize) -> Result<(), Declined> {
        match self.read.get(&seq) {
            Some(Err(reason)) => Err(Declined::Refused(Code::RichChange, reason.clone())),
            Some(Ok(more)) if *ops > 0 && *ops + more > limits::RICH_PUSH_OPS_MAX => {
                Err(Declined::Held("a large change of a text goes in parts".to_owned(), RICH_PAUSE))
            }
            Some(Ok(more)) => {
                *ops += more;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Sequencer {
    /// Resumes a log from the fold of everything it holds, with every epoch of its history.
    pub fn resume(mut state: State, epochs: Vec<(EpochId, Offset)>) -> Self {
        state.set_epochs(epochs);
        Self { state, policy: None }
    }

    /// Puts every entry to this policy, which is told the log's name. Without one everything is allowed.
    #[must_use]
    pub fn governed_by(mut self, log: LogName, policy: Arc<dyn Policy>) -> Self {
        self.policy = Some((log, policy));
        self
    }

    /// Begins an epoch at the log's end. It must be durable before anybody hears of it.
    pub fn begin_epoch(&mut self, epoch: EpochId) -> (EpochId, Offset) {
        let begun = (epoch, self.state.cursor().next);
        let mut epochs = self.state.epochs().to_vec();
        epochs.push(begun);
        self.state.set_epochs(epochs);
        begun
    }

    /// What [`Sequencer::decide`] must know of the past for this push.
    pub fn wanted(row: &AuthorRow, push: &PushItems) -> Wanted {
        let last = push.through().min(row.seq);
        let decided = (push.first <= last && push.first.0 > 0).then_some((push.first, last));
        let replaces = push.items.iter().filter_map(|item| match item {
            Pushed::Entry(entry) => entry.header.replaces.clone(),
            Pushed::Void(_) => None,
        });
        Wanted { decided, replaces: replaces.collect() }
    }

    /// Decides a push: entries get offsets, refusals their codes, and the author's row moves on, up to an entry that
    /// the policy would see later. `random` gives the salts of entries that a policy adds.
    ///
    /// # Errors
    /// [`PushError`]; neither the log nor the row has changed.
    pub fn decide(
        &mut self,
        now: WallMs,
        author: Author<'_>,
        row: &mut AuthorRow,
        push: PushItems,
        known: &Known,
        random: &mut Random,
    ) -> Result<Decided, PushError> {
        let (first, through) = (push.first, push.through());
        let fresh = check_push(author, row, &push, known)?;
        let mut decided = Decided::default();
        let accepted = time::accepted(now, self.state.accepted_last());
        let mut places = BTreeMap::new();
        let mut replaced = known.replaced.clone();
        let (mut reached, mut rich_ops, mut late) = (None, 0, false);
        for (item, chain) in fresh {
            let last = span(&item).1;
            match item {
                Pushed::Void(void) => {
                    row.mark(void.from, void.through, MarkedStatus::Void, Some((Code::Void, &shortened(&void.reason))))
                }
                Pushed::Entry(entry) if known.before.contains_key(&entry.header.seq) => {
                    let seq = entry.header.seq;
                    if let Some(place) = known.before.get(&seq).and_then(|before| as_before(row, seq, before)) {
                        places.insert(seq, place);
                    }
                }
                Pushed::Entry(entry) => {
                    let seq = entry.header.seq;
                    let read = known.read(seq, &mut rich_ops);
                    match read.and_then(|()| self.take(author, row, &entry, &replaced, (now, accepted), random)) {
                        Ok(taken) => {
                            late |= self.has_erased(author.actor, &entry);
                            places.insert(seq, (taken.entry.0.offset, accepted));
                            replaced.extend(entry.header.replaces);
                            if let Some(status) = taken.mark {
                                row.mark(seq, seq, status, None);
                            }
                            decided.appended.push(taken.entry);
                            decided.appended.extend(taken.added);
                        }
                        Err(Declined::Refused(code, reason)) => {
                            row.mark(seq, seq, MarkedStatus::Refused, Some((code, &reason)));
                            late |= self.has_erased(author.actor, &entry);
                            decided.refused.push(Refused { entry, code, reason });
                        }
                        Err(Declined::Held(reason, delay)) => {
                            decided.held = Some(Held { seq, reason, delay });
                            break;
                        }
                    }
                }
            }
            reached = Some((last, chain));
        }
        if late {
            decided.appended.push(self.append_erase(Erase::Late(()), accepted, random));
        }
        if let Some((last, chain)) = reached {
            decided.advanced = true;
            row.advance(last, chain);
        }
        let before = known.places.iter().map(|(seq, place)| (*seq, place.offset, place.accepted));
        let after = places.into_iter().map(|(seq, (offset, accepted))| (seq, offset, accepted));
        decided.verdicts = row.verdicts(first, through, before.chain(after));
        Ok(decided)
    }

    /// Takes one entry into the log, with what the policy adds to it.
    fn take(
        &mut self,
        author: Author<'_>,
        row: &AuthorRow,
        entry: &Entry,
        replaced: &BTreeSet<Replaced>,
        (now, accepted): (WallMs, Time),
        random: &mut Random,
    ) -> Result<Taken, Declined> {
        judge(row, author.actor, entry, replaced)?;
        let seq = self.state.folded(ActorId::LOG).next();
        let addition = self.rule(author, entry, (now, accepted), seq, random)?;
        let (logged, mark) = self.append(author, entry.clone(), accepted)?;
        let entry = (logged, self.state.cursor());
        let added = addition.map(|own| self.append_own(own));
        Ok(Taken { entry, mark, added })
    }

    /// Gives an entry its place and folds it, if its rich changes pass the gate.
    fn append(
        &mut self,
        author: Author<'_>,
        entry: Entry,
        accepted: Time,
    ) -> Result<(Logged, Option<MarkedStatus>), (Code, String)> {
        let base = self.state.effective_base(entry.header.base);
        let Author { actor, user } = author;
        let offset = self.state.cursor().next;
        let logged = Logged { offset, actor, user: user.clone(), accepted, base, entry };
        let logged = gate::admit(&mut self.state, logged)?;
        // Kinds were checked, and offset and seq are ours: what does not fold is kept out, whatever it is.
        let fold = self.state.fold(&logged).map_err(|error| (Code::MalformedEntry, error.to_string()))?;
        let mark = match fold.outcome {
            _ if logged.gone(accepted.ms()).is_some() => Some(MarkedStatus::Expired),
            Outcome::RecordGone(_) => Some(MarkedStatus::RecordGone),
            Outcome::Applied => None,
        };
        Ok((logged, mark))
    }

    /// The fold of everything before the end.
    pub fn state(&self) -> &State {
        &self.state
    }
}

/// An entry that is in the log, and what the policy added behind it.
struct Taken {
    entry: (Logged, Cursor),
    mark: Option<MarkedStatus>,
    added: Option<(Logged, Cursor)>,
}

/// Why an entry is not in the log.
enum Declined {
    Refused(Code, String),
    Held(String, Duration),
}

impl From<(Code, String)> for Declined {
    fn from((code, reason): (Code, String)) -> Self {
        Self::Refused(code, reason)
    }
}

/// Decides an entry as it was decided before under another id; gives its place, if it has one.
fn as_before(row: &mut AuthorRow, seq: Seq, before: &Before) -> Option<(Offset, Time)> {
    match before {
        Before::Logged(place) => {
            row.mark(seq, seq, MarkedStatus::Elsewhere, None);
            return Some((place.offset, place.accepted));
        }
        Before::Refused(code, reason) => row.mark(seq, seq, MarkedStatus::Refused, Some((*code, reason))),
        Before::Unknown => {
            let reason = "it was decided under the actor before, and how is not known any more";
            row.mark(seq, seq, MarkedStatus::Refused, Some((Code::OutcomeUnknown, reason)));
        }
    }
    None
}

/// Whether an entry may enter the log, apart from its place in its author's sequence.
fn judge(row: &AuthorRow, actor: ActorId, entry: &Entry, replaced: &BTreeSet<Replaced>) -> Result<(), (Code, String)> {
    if let Some(kind) = entry.body.ops.iter().find_map(|op| op.unknown_kind()) {
        return Err((Code::UnknownOp, format!("op kind or policy {kind} is not known to this server")));
    }
    if entry.body.ops.iter().any(|op| matches!(op, Op::Erase(_))) {
        return Err((Code::EntryForbidden, "only the log itself erases".to_owned()));
    }
    if entry.body.ops.iter().flat_map(Op::field_ops).any(|(_, op)| is_of_the_log(op)) {
        return Err((
            Code::MalformedEntry,
            "only the log itself gives a text a new root or translates to it".to_owned(),
        ));
    }
    // First: what counts already does so whatever became of what it builds on.
    let line = entry.line(EntryId { actor, seq: entry.header.seq });
    if replaced.contains(&line) {
        return Err((Code::AlreadyReplaced, format!("{} is in the log, or was replaced before", line.id)));
    }
    match entry.header.needs.iter().find(|need| row.is_absent(**need)) {
        Some(need) => Err((Code::DependsOn, format!("seq {need}, which it builds on, is not in the log"))),
        None => Ok(()),
    }
}

/// What only the log writer makes.
fn is_of_the_log(op: &FieldOp) -> bool {
    matches!(op, FieldOp::Edit(Edit::Root(_) | Edit::Moved(_)))
}

/// An item that was not decided before, and the actor chain behind it.
type Fresh = (Pushed, Chain);

/// Checks everything that concerns the push as a whole; returns the items that were not decided before.
fn check_push(author: Author<'_>, row: &AuthorRow, push: &PushItems, known: &Known) -> Result<Vec<Fresh>, PushError> {
    if author.actor == ActorId::LOG {
        return Err(PushError::ReservedActor);
    }
    let next = row.seq.next();
    if push.first > next || push.first.0 == 0 {
        return Err(PushError::ExpectedSeq { expected: next, got: push.first });
    }
    let (mut expected, mut chain, mut fresh) = (push.first, row.chain, Vec::new());
    for item in &push.items {
        let (from, through) = span(item);
        if from != expected {
            return Err(PushError::ExpectedSeq { expected: next.max(expected), got: from });
        }
        expected = through.next();
        match item {
            Pushed::Entry(entry) if from < next => check_repeated(entry, row, known)?,
            Pushed::Entry(entry) => {
                chain = chain.with_pushed(from, entry.pushed_digest());
                fresh.push((item.clone(), chain));
            }
            Pushed::Void(void) if through >= next => {
                check_void(void)?;
                chain = chain.with_void(through, &void.reason);
                fresh.push((Pushed::Void(Void { from: from.max(next), ..void.clone() }), chain));
            }
            Pushed::Void(_) => {}
        }
    }
    if !fresh.is_empty() && chain != push.chain {
        return Err(PushError::ChainMismatch { through: push.through() });
    }
    Ok(fresh)
}

fn check_void(void: &Void) -> Result<(), PushError> {
    let (got, max) = ((void.through.0 - void.from.0).saturating_add(1), limits::VOID_SEQS_MAX);
    if got > max { Err(PushError::VoidTooLong { got, max }) } else { Ok(()) }
}

/// A decided seq again: it must say the same as then, as far as that is still known.
fn check_repeated(entry: &Entry, row: &AuthorRow, known: &Known) -> Result<(), PushError> {
    let seq = entry.header.seq;
    let digest = known.places.get(&seq).map(|place| place.digest).or_else(|| known.refused.get(&seq).copied());
    let void = row.marked(seq) == Some(MarkedStatus::Void);
    if void || digest.is_some_and(|digest| digest != entry.pushed_digest()) {
        return Err(PushError::BytesDiffer { seq });
    }
    Ok(())
}

/// First and last seq of an item.
fn span(item: &Pushed) -> (Seq, Seq) {
    match item {
        Pushed::Entry(entry) => (entry.header.seq, entry.header.seq),
        Pushed::Void(void) => (void.from, void.through),
    }
}

fn shortened(reason: &str) -> String {
    reason.chars().take(limits::REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
