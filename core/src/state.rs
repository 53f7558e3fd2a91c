//! Confirmed state: the fold of one log's prefix, strictly in offset order.
//!
//! ```text
//! Logged ──fold──► records (living values with stamps) ──► overlay, view, snapshot
//!             └──► cursor, per-actor folded seqs, times
//! ```
//!
//! Promises: replicas that folded the same prefix have the same [`State::digest`], whatever batches, snapshots or
//! reloads were in between; one entry counts whole or not at all; nothing is ever taken back out. It leaves to others
//! what is pending (`overlay`), what the app's schema makes of a field (`view`), and its bytes (`snapshot`).

mod digest;
mod documents;
mod erasing;
mod field;
#[cfg(test)]
pub(crate) mod fixture;
mod plain;
mod record;
mod slot;
mod stamp;
pub(crate) mod text;
mod tombstone;

use std::collections::BTreeMap;

pub use erasing::Erasure;
pub(crate) use erasing::has_erased;
pub use field::{Elements, Field, Living};
pub(crate) use record::Effect;
pub use record::{FieldKey, Record, RecordKey};
pub(crate) use slot::Slot;
pub use stamp::{Author, Stamp};
pub use text::{Text, TextError};
pub use tombstone::Tombstone;

use crate::chain::Cursor;
use crate::entry::Logged;
use crate::id::{ActorId, Base, EntryId, EpochId, LogId, Name, Offset, RecordId, Seq, UserId};
use crate::op::Op;
use crate::packed::Gap;
use crate::time::Time;

/// The records of one collection.
pub type Collection = BTreeMap<RecordId, Record>;

/// What confirmed state knows of one actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded {
    /// The last seq of it that was folded.
    pub seq: Seq,
    /// The user it is bound to.
    pub user: UserId,
}

/// What folding one entry did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fold {
    /// The entry.
    pub id: EntryId,
    /// Its position.
    pub offset: Offset,
    /// Whether everything its author asked for could be done.
    pub outcome: Outcome,
    /// The records it touched, ascending; also those whose grace after a delete was over before it.
    pub touched: Vec<RecordKey>,
    /// Whether it may count differently than it did while pending: the log changed its time or base, or a grace was over.
    pub adjusted: bool,
}

/// What became of an accepted entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All ops count.
    Applied,
    /// These ops, by their place in the entry, were void: their record is gone.
    RecordGone(Vec<usize>),
}

/// The entry cannot be folded; the state is as before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FoldError {
    /// This build is older than the entry: stop the log, visibly (`update-needed`).
    #[error("op kind {0} is unknown to this build")]
    UnknownKind(u8),
    /// Refetch from the cursor.
    #[error("offset {got} where {expected} is next")]
    Offset {
        /// The cursor's next.
        expected: Offset,
        /// The entry's.
        got: Offset,
    },
    /// The log is damaged: refetch, or restart from a snapshot.
    #[error("seq {got} of an actor whose seq {folded} is folded already")]
    Seq {
        /// The last folded.
        folded: Seq,
        /// The entry's.
        got: Seq,
    },
}

/// The confirmed state of one log.
#[derive(Debug, Clone)]
pub struct State {
    pub(crate) log: LogId,
    pub(crate) cursor: Cursor,
    pub(crate) epochs: Vec<(EpochId, Offset)>,
    pub(crate) accepted_last: Time,
    pub(crate) effective_max: Time,
    pub(crate) actors: BTreeMap<ActorId, Folded>,
    pub(crate) collections: BTreeMap<Name, Collection>,
    pub(crate) tombstones: tombstone::Tombstones,
    pub(crate) documents: documents::Documents,
    pub(crate) erasures: Vec<Erasure>,
}

impl State {
    /// The empty state of a log.
    pub fn new(log: LogId) -> Self {
        Self {
            log,
            cursor: Cursor::start(log),
            epochs: Vec::new(),
            accepted_last: Time::MIN,
            effective_max: Time::MIN,
            actors: BTreeMap::new(),
            collections: BTreeMap::new(),
            tombstones: tombstone::Tombstones::default(),
            documents: documents::Documents::default(),
            erasures: Vec::new(),
        }
    }

    /// Folds the next entry.
    ///
    /// # Errors
    /// [`FoldError`]; nothing of the entry counts then.
    pub fn fold(&mut self, logged: &Logged) -> Result<Fold, FoldError> {
        let id = logged.id();
        self.check(logged, id)?;
        let author = Author::of(logged);
        let mut touched = self.outlive(logged.accepted);
        let outlived = !touched.is_empty();
        let mut gone = Vec::new();
        for (at, op) in logged.entry.body.ops.iter().enumerate() {
            if let Op::Erase(what) = op {
                touched.extend(self.erase(logged.offset, what));
                continue;
            }
            match self.lay(&author, op) {
                Effect::Gone => gone.push(at),
                _ => {
                    self.follow(op);
                    touched.extend(RecordKey::of(op));
                }
            }
        }
        if touched.len() > 1 {
            touched.sort_unstable();
            touched.dedup();
        }
        self.advance(logged, id);
        let header = &logged.entry.header;
        Ok(Fold {
            id,
            offset: logged.offset,
            outcome: if gone.is_empty() { Outcome::Applied } else { Outcome::RecordGone(gone) },
            touched,
            adjusted: outlived || logged.effective() != header.time || logged.base != header.base.end,
        })
    }

    /// Passes over offsets whose entries are not delivered; the state is then the same as if they had been folded. Gives
    /// the records whose grace after a delete is over with that.
    ///
    /// # Errors
    /// [`FoldError::Offset`] if it does not lead forward.
    pub fn skip(&mut self, gap: &Gap) -> Result<Vec<RecordKey>, FoldError> {
        if gap.end <= self.cursor.next {
            return Err(FoldError::Offset { expected: self.cursor.next, got: gap.end });
        }
        self.cursor = Cursor { next: gap.end, chain: gap.chain };
        self.accepted_last = self.accepted_last.max(gap.accepted);
        self.effective_max = self.effective_max.max(gap.effective);
        for (actor, user, seq) in &gap.authors {
            let folded = self.actors.entry(*actor).or_insert_with(|| Folded { seq: *seq, user: user.clone() });
            folded.seq = folded.seq.max(*seq);
        }
        Ok(self.outlive(gap.accepted))
    }

    /// Notes the history's epochs, as the server told them; they are kept in snapshots.
    pub fn set_epochs(&mut self, epochs: Vec<(EpochId, Offset)>) {
        self.epochs = epochs;
    }

    /// The log's identity.
    pub fn log(&self) -> LogId {
        self.log
    }

    /// The position behind the folded prefix.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The history's epochs with their first offsets.
    pub fn epochs(&self) -> &[(EpochId, Offset)] {
        &self.epochs
    }

    /// A base brought down to what its author can really have seen of this history.
    pub fn effective_base(&self, base: Base) -> Offset {
        let Some(at) = self.epochs.iter().position(|(epoch, _)| *epoch == base.epoch) else { return Offset(0) };
        let fork = self.epochs.get(at + 1).map_or(Offset(u64::MAX), |(_, first)| *first);
        base.end.min(fork).min(self.cursor.next)
    }

    /// Accepted time of the last folded entry.
    pub fn accepted_last(&self) -> Time {
        self.accepted_last
    }

    /// The largest effective time: what a clock must be after.
    pub fn effective_max(&self) -> Time {
        self.effective_max
    }

    /// The last folded seq of an actor; 0 if there is none.
    pub fn folded(&self, actor: ActorId) -> Seq {
        self.actors.get(&actor).map_or(Seq(0), |folded| folded.seq)
    }

    /// The user an actor is bound to, if an entry of it was folded.
    pub fn user(&self, actor: ActorId) -> Option<&UserId> {
        self.actors.get(&actor).map(|folded| &folded.user)
    }

    /// Every actor with its last folded seq and user.
    pub fn actors(&self) -> impl ExactSizeIterator<Item = (&ActorId, &Folded)> {
        self.actors.iter()
    }

    /// A record.
    pub fn record(&self, collection: &Name, record: &RecordId) -> Option<&Record> {
        self.collections.get(collection)?.get(record)
    }

    /// The records of a collection; none if there are no records.
    pub fn collection(&self, name: &Name) -> Option<&Collection> {
        self.collections.get(name)
    }

    /// Every collection that holds records.
    pub fn collections(&self) -> impl ExactSizeIterator<Item = (&Name, &Collection)> {
        self.collections.iter()
    }

    /// What is left of deleted records that an edit may still bring back, by record.
    pub fn tombstones(&self) -> impl ExactSizeIterator<Item = (&RecordKey, &Tombstone)> {
        self.tombstones.iter()
    }

    /// The place of a record, to lay pending entries on.
    pub(crate) fn slot(&self, key: &RecordKey) -> Slot {
        self.slot_at(key, Time::MIN, Record::without_rich_content)
    }

    /// The place of a record for an entry that is accepted now, without any field.
    pub(crate) fn outline(&self, key: &RecordKey, accepted: Time) -> Slot {
        self.slot_at(key, accepted, Record::outline)
    }

    fn slot_at(&self, key: &RecordKey, accepted: Time, copy: impl Fn(&Record) -> Record) -> Slot {
        if let Some(record) = self.record(&key.collection, &key.record) {
            return Slot::Living(copy(record));
        }
        let tombstone = self.tombstones.get(key).filter(|tombstone| accepted <= tombstone.until);
        tombstone.map_or(Slot::Absent, |tombstone| Slot::Deleted(tombstone.with(copy(&tombstone.record))))
    }

    fn check(&self, logged: &Logged, id: EntryId) -> Result<(), FoldError> {
        if logged.offset != self.cursor.next {
            return Err(FoldError::Offset { expected: self.cursor.next, got: logged.offset });
        }
        if let Some(kind) = logged.entry.body.ops.iter().find_map(unknown_kind) {
            return Err(FoldError::UnknownKind(kind));
        }
        match self.folded(id.actor) {
            folded if id.seq <= folded => Err(FoldError::Seq { folded, got: id.seq }),
            _ => Ok(()),
        }
    }

    fn advance(&mut self, logged: &Logged, id: EntryId) {
        self.cursor = self.cursor.after(logged);
        self.accepted_last = self.accepted_last.max(logged.accepted);
        self.effective_max = self.effective_max.max(logged.effective());
        match self.actors.get_mut(&id.actor) {
            Some(folded) => folded.seq = id.seq,
            None => {
                self.actors.insert(id.actor, Folded { seq: id.seq, user: logged.user.clone() });
            }
        }
    }

    /// Like [`Slot::lay`], in place: most ops touch a record that is there.
    fn lay(&mut self, author: &Author, op: &Op) -> Effect {
        let Some((collection, id)) = op.target().filter(|_| !self.is_erased(author, op)) else {
            return Effect::Gone;
        };
        if let (Op::Insert(_) | Op::Update(_), Some(records)) = (op, self.collections.get_mut(collection))
            && let Some(record) = records.get_mut(id)
        {
            return record.lay(author, op);
        }
        let key = RecordKey { collection: collection.clone(), record: id.clone() };
        let mut slot = self.take(&key);
        if let Slot::Deleted(_) = slot {
            // What the gate has open may be of the record before, or of the next.
            self.documents.close(&key);
        }
        let effect = slot.lay(author, op);
        match slot {
            Slot::Absent => {}
            Slot::Living(record) => {
                drop(self.collections.entry(key.collection).or_default().insert(key.record, record))
            }
            Slot::Deleted(tombstone) => self.tombstones.put(key, tombstone),
        }
        effect
    }

    /// Takes out what stands in the place of a record.
    fn take(&mut self, key: &RecordKey) -> Slot {
        let Some(records) = self.collections.get_mut(&key.collection) else {
            return self.tombstones.take(key).map_or(Slot::Absent, Slot::Deleted);
        };
        let record = records.remove(&key.record);
        if records.is_empty() {
            self.collections.remove(&key.collection);
        }
        match record {
            Some(record) => Slot::Living(record),
            None => self.tombstones.take(key).map_or(Slot::Absent, Slot::Deleted),
        }
    }

    /// Lets go of the tombstones whose grace is over for an entry that is accepted now; their records.
    fn outlive(&mut self, accepted: Time) -> Vec<RecordKey> {
        let passed = self.tombstones.pass(accepted);
        passed.iter().for_each(|key| self.documents.close(key));
        passed
    }
}

/// The number of a kind that this build cannot fold.
pub(crate) fn unknown_kind(op: &Op) -> Option<u8> {
    // Without rich fields an edit is as unknown as a kind of a later version (docs/log-format.md, "Ops": kind 4).
    const EDIT: u8 = 4;
    let edits = !cfg!(feature = "rich") && op.field_ops().any(|(_, op)| matches!(op, crate::op::FieldOp::Edit(_)));
    op.unknown_kind().or(edits.then_some(EDIT))
}

#[cfg(test)]
mod tests {
    use super::fixture::*;
    use super::*;
    use crate::entry::Gone;
    use crate::limits;
    use crate::op::FieldOp;
    use crate::value::Value;

    fn log_with_todo() -> (Log, Tab, Tab) {
        let (mut log, mut alice, bob) = (Log::new(), Tab::new(1), Tab::new(2));
        log.act(&mut alice, 0, vec![insert("x", vec![("title", set("first"))])]);
        (log, alice, bob)
    }

    #[test]
    fn a_writer_replaces_what_it_saw_and_competes_with_what_it_did_not() {
        let (mut log, mut alice, mut bob) = log_with_todo();
        log.act(&mut bob, 1, vec![update("x", "title", set("bob"))]);
        log.act(&mut alice, 1, vec![update("x", "title", set("alice"))]);
        assert_eq!(log.register("x", "title"), Some(Value::from("alice")), "later by time");
        let record = log.state.record(&name("todos"), &id("x")).expect("there");
        assert_eq!(record.field(&name("title")).map(|field| field.living().len()), Some(2), "both live");
        log.act(&mut bob, 3, vec![update("x", "title", set("chosen"))]);
        let record = log.state.record(&name("todos"), &id("x")).expect("there");
        assert_eq!(record.field(&name("title")).map(|field| field.living().len()), Some(1));
    }

    #[test]
    fn a_register_keeps_a_bounded_number_of_living_values() {
        let (mut log, ..) = log_with_todo();
        for actor in 10..40 {
            log.act(&mut Tab::new(actor), 1, vec![update("x", "title", set(&actor.to_string()))]);
        }
        let record = log.state.record(&name("todos"), &id("x")).expect("there");
        let living = record.field(&name("title")).expect("there").living().len();
        assert_eq!(living, limits::REGISTER_VALUES_MAX);
        assert_eq!(log.register("x", "title"), Some(Value::from("39")));
    }

    #[test]
    fn counters_sum_and_sets_keep_concurrent_adds() {
        let (mut log, mut alice, mut bob) = log_with_todo();
        let vote = |by| update("x", "votes", FieldOp::Increment(by));
        log.act(&mut alice, 1, vec![vote(2), update("x", "tags", add(&["a", "b"]))]);
        log.act(&mut bob, 1, vec![vote(-5), update("x", "tags", add(&["b"]))]);
        log.act(&mut alice, 2, vec![update("x", "tags", remove(&["a", "b"]))]);
        assert_eq!(log.set("x", "tags"), ["b"], "the unseen add stays");
        let record = log.state.record(&name("todos"), &id("x")).expect("there");
        assert_eq!(record.field(&name("votes")).and_then(Field::counter), Some(-3));
    }

    #[test]
    fn ops_on_a_record_that_is_gone_are_void_and_reported() {
        let (mut log, mut alice, mut bob) = log_with_todo();
        log.act(&mut alice, 1, vec![delete("x")]);
        let fold = log.act(&mut bob, 1, vec![update("x", "title", set("late")), insert("y", vec![])]);
        assert_eq!(fold.outcome, Outcome::RecordGone(vec![0]));
        assert_eq!(fold.touched, [key("y")]);
        log.act(&mut alice, 2, vec![insert("x", vec![("title", set("again"))])]);
        let fold = log.act(&mut bob, 2, vec![update("x", "title", set("for the old one")), delete("x")]);
        assert_eq!(fold.outcome, Outcome::RecordGone(vec![0, 1]), "bob knew only the record before");
        assert_eq!(log.register("x", "title"), Some(Value::from("again")));
    }

    #[test]
    fn one_entry_sees_its_own_ops() {
        let (mut log, mut alice) = (Log::new(), Tab::new(1));
        let ops = vec![
            insert("x", vec![("title", set("a"))]),
            update("x", "title", set("b")),
            update("x", "tags", add(&["t"])),
            update("x", "tags", remove(&["t"])),
        ];
        assert_eq!(log.act(&mut alice, 0, ops).outcome, Outcome::Applied);
        assert_eq!(log.register("x", "title"), Some(Value::from("b")));
        assert!(log.set("x", "tags").is_empty());
        let fold = log.act(&mut alice, 1, vec![delete("x"), update("x", "title", set("c"))]);
        assert_eq!(fold.outcome, Outcome::RecordGone(vec![1]));
    }

    #[test]
    fn what_does_not_fit_leaves_the_state_as_it_was() {
        let (mut log, mut alice, _) = log_with_todo();
        let before = log.state.digest();
        let entry = alice.act(1, 5, vec![update("x", "title", set("b"))]);
        let mut logged = log.accept(&alice, entry);
        logged.offset = Offset(7);
        let wrong = FoldError::Offset { expected: Offset(1), got: Offset(7) };
        assert_eq!(log.state.fold(&logged), Err(wrong));
        alice.seq = 0;
        let entry = alice.act(1, 5, vec![delete("x")]);
        let wrong = FoldError::Seq { folded: Seq(1), got: Seq(1) };
        assert_eq!(log.push(&alice, entry), Err(wrong));
        let entry =
            alice.act(1, 5, vec![delete("x"), update("x", "title", FieldOp::Unknown(99, crate::codec::Opaque::NIL))]);
        assert_eq!(log.push(&alice, entry), Err(FoldError::UnknownKind(99)));
        assert_eq!(log.state.digest(), before);
    }

    #[test]
    fn who_passes_over_events_comes_to_the_same_state_as_who_folds_them() {
        let (mut log, mut alice, mut bob) = log_with_todo();
        let mut skipped = log.state.clone();
        let mut gap = Gap::new(Gone::Expired, skipped.cursor());
        for at in 1..4 {
            let tab = if at == 2 { &mut bob } else { &mut alice };
            log.now_ms += 1_000;
            let entry = tab.act(at, 2 * log.now_ms, vec![]);
            let logged = log.accept(tab, entry);
            log.state.fold(&logged).expect("an event folds");
            gap.pass(&logged, log.state.cursor());
        }
        assert!(log.state.effective_max() > skipped.effective_max());
        skipped.skip(&gap).expect("forward");
        assert_eq!(skipped.digest(), log.state.digest());
    }

    #[test]
    fn a_gap_moves_the_cursor() {
        let (mut log, mut alice, _) = log_with_todo();
        let chain = crate::chain::Chain::log_start(LogId([1; 16]));
        let gap = |end| Gap { end: Offset(10), ..Gap::new(Gone::Expired, Cursor { next: Offset(end), chain }) };
        log.state.skip(&gap(10)).expect("forward");
        assert_eq!(log.state.cursor(), Cursor { next: Offset(10), chain });
        assert!(log.state.skip(&gap(10)).is_err());
        log.act(&mut alice, 10, vec![update("x", "title", set("on"))]);
        assert_eq!(log.register("x", "title"), Some(Value::from("on")));
    }
}
