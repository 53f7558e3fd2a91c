//! What came from the server and is not applied yet: checked, resolved, waiting for its commit.
//!
//! Entries are stored before they are applied, so that any tab that reads an own entry with some base also reads the
//! confirmed entries below that base.

use std::collections::BTreeMap;

use crate::chain::Cursor;
use crate::entry::Logged;
use crate::id::{EntryId, EpochId, LogId, Offset, Seq, UserId};
use crate::op::Op;
use crate::outbox::Outbox;
use crate::packed::{Item, Packed, Stub, UnpackError, Void};
use crate::protocol::frame::{Ack, AckRange, MarkedStatus};
use crate::storage::row::{DeadLetter, Received, Verdicts};
use crate::time::WallMs;

/// What arrived and waits.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// Where the next arrival must begin; none: at the applied cursor.
    next: Option<Cursor>,
    waiting: Batch,
    storing: Option<Batch>,
    /// Verdicts that end where the actor chain is not known, or that wait for entries: they count together with the next
    /// ones.
    unfinished: Option<Ack>,
    /// Where the log ended when its record of this device's work could not be compared: verdicts wait for the entries
    /// before, which tell whose work it is.
    doubted: Option<Offset>,
}

/// What one commit stores and then applies.
#[derive(Debug, Default)]
pub struct Batch {
    /// Rows as they came.
    pub rows: Vec<Received>,
    /// Their items, own entries resolved.
    pub items: Vec<Item>,
    /// Verdicts after the batch.
    pub verdicts: Option<Verdicts>,
    /// Places of accepted own entries.
    pub places: Vec<AckRange>,
    /// Refused own entries.
    pub letters: Vec<(Seq, DeadLetter)>,
    /// Dead letters of own entries that were given up here, and that the server had decided otherwise.
    pub revived: Vec<Seq>,
    /// Bytes of credit to give back when it is worked off.
    pub cost: u64,
    /// Bytes the rows take in the tail.
    pub tail: usize,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.verdicts.is_none() && self.cost == 0
    }

    /// Takes its verdicts out, with what belongs to them.
    fn take_verdicts(&mut self) -> Self {
        Self {
            verdicts: self.verdicts.take(),
            places: std::mem::take(&mut self.places),
            letters: std::mem::take(&mut self.letters),
            revived: std::mem::take(&mut self.revived),
            ..Self::default()
        }
    }

    /// Adds what came later.
    fn append(&mut self, later: Self) {
        self.rows.extend(later.rows);
        self.items.extend(later.items);
        self.verdicts = later.verdicts.or(self.verdicts.take());
        self.places.extend(later.places);
        self.letters.extend(later.letters);
        self.revived.extend(later.revived);
        self.cost += later.cost;
        self.tail += later.tail;
    }

    /// A verdict holds against a void: what the server had accepted is no dead letter, what it had refused is one for
    /// its reason.
    fn settle_void(&mut self, void: &Void, letter: &DeadLetter, verdicts: &Verdicts, ack: &Ack) {
        let mut absent: Vec<(Seq, DeadLetter)> = Vec::new();
        for seq in (void.from.0..=void.through.0).map(Seq) {
            let Some(status) = verdicts.mark(seq).filter(|mark| !mark.is_accepted()) else { continue };
            if let Some((first, last)) = absent.last_mut().filter(|(_, last)| last.status == status)
                && last.last(*first).next() == seq
            {
                last.seqs += 1;
                continue;
            }
            let mark = ack.marked.iter().find(|mark| mark.seq == seq && status != MarkedStatus::Void);
            let (code, reason) = (mark.and_then(|mark| mark.code), mark.map(|mark| mark.reason.clone()));
            let (code, reason) = (code.or(letter.code), reason.unwrap_or(letter.reason.clone()));
            let mut part = letter.standing_for(1);
            (part.status, part.code, part.reason) = (status, code, reason);
            absent.push((seq, part));
        }
        let unchanged = matches!(&absent[..], [(_, only)] if only.seqs == letter.seqs && only.status == letter.status);
        if !unchanged {
            // Only what is accepted comes back to life: a letter at the same seq takes the place of the one before.
            if absent.first().is_none_or(|(first, _)| *first != void.from) {
                self.revived.push(void.from);
            }
            self.letters.extend(absent);
        }
    }
}

/// Two acks that follow each other, as one.
fn joined(mut first: Ack, second: &Ack) -> Ack {
    first.through = first.through.max(second.through);
    first.accepted.extend(&second.accepted);
    first.marked.extend(second.marked.iter().cloned());
    first
}

/// What the next commit may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storable {
    /// Everything that waits.
    Everything,
    /// Verdicts alone: received entries did not fit, and verdicts must not wait for their space.
    Verdicts,
}

/// What arrived cannot be used; fetch it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArrivalError {
    /// It does not unpack.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// It does not begin where the last one ended.
    #[error("entries from offset {got} where {expected} is next")]
    Offset {
        /// Next here.
        expected: Offset,
        /// First there.
        got: Offset,
    },
    /// The running hash does not match: something was damaged, or the history is another.
    #[error("the log chain at offset {0} does not match")]
    Chain(Offset),
    /// This build is older than an entry: stop the log, visibly.
    #[error("op kind {0} is unknown to this build")]
    UnknownKind(u8),
    /// Under an own seq there is something else: a copy of this database wrote it.
    #[error("what the log has under own seqs is not what was written here")]
    Copied,
    /// An own entry came back without its body, and the body is not here.
    #[error("own seq {0} came back without its body, which is not here")]
    NotHeld(Seq),
}

impl Arrivals {
    /// Checks entries and queues them.
    ///
    /// # Errors
    /// [`ArrivalError`]: nothing of them is used.
    #[allow(clippy::too_many_arguments)]
    pub fn entries(
        &mut self,
        applied: Cursor,
        (user, outbox): (Option<&UserId>, &Outbox),
        (log_id, epoch): (LogId, (EpochId, Offset)),
        (from, after, packed): (Offset, Cursor, Packed),
        (cost, tail): (u64, usize),
    ) -> Result<(), ArrivalError> {
        let at = self.next.unwrap_or(applied);
        if from != at.next {
            return Err(ArrivalError::Offset { expected: at.next, got: from });
        }
        let items = resolve(at, &packed, after, (user, outbox)).map_err(|error| match error {
            // The bodies that were put back are not those of the log.
            ArrivalError::Chain(_) if self.doubted.is_some() => ArrivalError::Copied,
            error => error,
        })?;
        if self.doubted.is_some() && items.iter().any(|item| differs(item, outbox)) {
            return Err(ArrivalError::Copied);
        }
        self.next = Some(after);
        self.waiting.items.extend(items);
        self.waiting.rows.push(Received { log_id, epoch, from, after, entries: packed });
        self.waiting.cost += cost;
        self.waiting.tail += tail;
        Ok(())
    }

    /// Queues verdicts. `letters` are the dead letters there are.
    pub fn ack(&mut self, outbox: &Outbox, letters: &BTreeMap<EntryId, DeadLetter>, ack: &Ack, now: WallMs) {
        let base = self.waiting.verdicts.as_ref().or(self.storing.as_ref().and_then(|batch| batch.verdicts.as_ref()));
        let base = base.unwrap_or(outbox.verdicts()).clone();
        let ack = match self.unfinished.take() {
            Some(before) => joined(before, ack),
            None => ack.clone(),
        };
        if self.doubted.is_some() {
            self.unfinished = Some(ack);
            return;
        }
        let Some(verdicts) = outbox.with_ack(&base, &ack) else {
            self.unfinished = Some(ack).filter(|ack| ack.through > base.through);
            return;
        };
        let letter_of = |seq| letters.get(&EntryId { actor: verdicts.actor, seq });
        for mark in ack.marked.iter().filter(|mark| mark.seq > base.through && !mark.status.is_accepted()) {
            // One that is there already says more than a verdict whose details were released.
            if let (Some(entry), None) = (outbox.stored(mark.seq), letter_of(mark.seq)) {
                let letter = DeadLetter::new(entry, mark.status, mark.code, mark.reason.clone(), now);
                self.waiting.letters.push((mark.seq, letter));
            }
        }
        for void in outbox.voids_between(base.through, ack.through) {
            // Refusals in a stretch that was decided long ago have each a letter of their own.
            if let Some(letter) = letter_of(void.from).filter(|letter| letter.last(void.from) == void.through) {
                self.waiting.settle_void(void, letter, &verdicts, &ack);
            }
        }
        self.waiting.places.extend(&ack.accepted);
        self.waiting.verdicts = Some(verdicts);
    }

    /// Verdicts wait until entries have come through an offset.
    pub fn doubt(&mut self, end: Offset) {
        self.doubted = Some(end);
    }

    /// What verdicts waited for may have come, also with a snapshot.
    pub fn settle_doubt(
        &mut self,
        applied: Cursor,
        (outbox, letters): (&Outbox, &BTreeMap<EntryId, DeadLetter>),
        now: WallMs,
    ) {
        if self.doubted.take_if(|end| self.next.unwrap_or(applied).next >= *end).is_some()
            && let Some(ack) = self.unfinished.take()
        {
            self.ack(outbox, letters, &ack, now);
        }
    }

    /// The next batch to store, if none is being stored.
    pub fn next_batch(&mut self, storable: Storable) -> Option<&Batch> {
        if self.storing.is_some() || self.waiting.is_empty() {
            return None;
        }
        self.storing = match storable {
            Storable::Everything => Some(std::mem::take(&mut self.waiting)),
            Storable::Verdicts if self.waiting.verdicts.is_none() => None,
            Storable::Verdicts => Some(self.waiting.take_verdicts()),
        };
        self.storing.as_ref()
    }

    /// The batch was not stored: it waits again, before what came since. Tells whether it had entries, and verdicts.
    pub fn not_stored(&mut self) -> (bool, bool) {
        let Some(mut batch) = self.storing.take() else { return (false, false) };
        let had = (!batch.rows.is_empty(), batch.verdicts.is_some());
        batch.append(std::mem::take(&mut self.waiting));
        self.waiting = batch;
        had
    }

    /// The batch is stored: apply it now.
    pub fn stored(&mut self) -> Option<Batch> {
        self.storing.take()
    }

    /// What is being stored.
    pub fn storing(&self) -> Option<&Batch> {
        self.storing.as_ref()
    }

    /// Whether nothing waits and nothing is being stored.
    pub fn is_idle(&self) -> bool {
        self.storing.is_none() && self.waiting.is_empty()
    }

    /// Forgets what is not stored yet: the session is over, or the log restarts.
    pub fn reset(&mut self) {
        self.waiting = Batch::default();
        (self.unfinished, self.doubted) = (None, None);
        // What is being stored will be applied; the next session begins behind it.
        self.next = self.storing.as_ref().and_then(|batch| batch.rows.last()).map(|row| row.after);
    }

    /// Confirmed state was replaced by a snapshot: arrivals begin at its cursor.
    pub fn restart(&mut self) {
        self.waiting.rows.clear();
        self.waiting.items.clear();
        self.next = None;
    }

    /// Where the next arrival must begin.
    pub fn next(&self, applied: Cursor) -> Cursor {
        self.next.unwrap_or(applied)
    }
}

/// Unpacks items, puts own bodies back into stubs, and checks the chain over all of them.
///
/// # Errors
/// [`ArrivalError`].
pub fn resolve(
    at: Cursor,
    packed: &Packed,
    after: Cursor,
    (user, outbox): (Option<&UserId>, &Outbox),
) -> Result<Vec<Item>, ArrivalError> {
    let mut cursor = at;
    let mut unknown = None;
    let mut items = packed.unpack(at.next)?;
    for item in &mut items {
        if let Item::Stub(stub) = item {
            *item = Item::Entry(full(stub, user, outbox)?);
        }
        match item {
            Item::Entry(logged) => {
                cursor = cursor.after(logged);
                unknown = unknown.or(logged.entry.body.ops.iter().find_map(Op::unknown_kind));
            }
            Item::Gap(gap) => cursor = Cursor { next: gap.end, chain: gap.chain },
            Item::Stub(_) => {}
        }
    }
    match unknown {
        _ if cursor != after => Err(ArrivalError::Chain(after.next)),
        Some(kind) => Err(ArrivalError::UnknownKind(kind)),
        None => Ok(items),
    }
}

/// Whether the log has another entry under an own seq.
fn differs(item: &Item, outbox: &Outbox) -> bool {
    let Item::Entry(logged) = item else { return false };
    let seq = logged.entry.header.seq;
    let own = outbox.stored(seq).filter(|_| logged.actor == outbox.author_of(seq));
    own.is_some_and(|own| own.digest() != logged.entry.pushed_digest())
}

fn full(stub: &Stub, user: Option<&UserId>, outbox: &Outbox) -> Result<Logged, ArrivalError> {
    let not_held = ArrivalError::NotHeld(stub.id.seq);
    if stub.id.actor != outbox.author_of(stub.id.seq) {
        return Err(not_held);
    }
    let (Some(entry), Some(user)) = (outbox.stored(stub.id.seq), user) else { return Err(not_held) };
    Ok(Logged {
        offset: stub.offset,
        actor: stub.id.actor,
        user: user.clone(),
        accepted: stub.accepted,
        base: stub.base.unwrap_or(entry.header.base.end),
        entry: entry.clone(),
    })
}
