//! The overlay: own pending entries laid on confirmed state, by the same functions that fold the log.
//!
//! ```text
//! act ──push──► pending ──assign (durable)──► stored ──settle (confirmed state covers its seq)──► gone
//!                  └──────────drop (refused, not appended)────────────────────────────────────► gone
//! ```
//!
//! An entry leaves when confirmed state covers its seq, never because of an ack. The overlay is indexed by record, and
//! what changes a record's confirmed form or its list of pending ops lays that record again, once per batch. An own
//! entry that is confirmed as the first pending one of a record, with nothing foreign before it, changes nothing
//! that is shown, and nothing is laid again for it.
//!
//! Who folds calls [`Overlay::folded`] after each fold and [`Overlay::settle`] once behind the batch; reads in between
//! show the batch before. After confirmed state was replaced by another one, [`Overlay::reset`].

mod kept;
mod laid;
mod live;
mod succession;
mod visible;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use kept::{Kept, Refusal};
pub use live::DraftError;
pub use visible::{Conflict, Status, Visible};

use crate::entry::Body;
use crate::id::{ActorId, Name, Offset, RecordId, Seq, UserId, WriteId};
use crate::op::{FieldOp, Op};
use crate::state::{Author, Fold, Outcome, RecordKey, Stamp, State};
use crate::time::Time;
use crate::witness::Marker;
use laid::Laid;
use live::Documents;

/// Records whose visible form may have changed.
pub type Touched = BTreeSet<RecordKey>;

/// An own entry that confirmed state does not cover yet.
#[derive(Debug, Clone)]
pub struct Pending {
    /// Its name from the call on.
    pub write: WriteId,
    /// Its author.
    pub actor: ActorId,
    /// Its seq; none until its append is durable.
    pub seq: Option<Seq>,
    /// End of the confirmed prefix its author had seen.
    pub base: Offset,
    /// Through which seq its author had seen the client's other tabs.
    pub own_seen: Seq,
    /// Its author's clock.
    pub time: Time,
    /// What it does.
    pub body: Arc<Body>,
}

/// The order in which pending entries are laid: by seq, those without one last, in the order they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    seq: Seq,
    rank: u64,
}

impl Place {
    fn new(seq: Option<Seq>, rank: u64) -> Self {
        Self { seq: seq.unwrap_or(Seq(u64::MAX)), rank }
    }

    fn is_sequenced(self) -> bool {
        self.seq.0 != u64::MAX
    }
}

#[derive(Debug, Clone)]
struct Held {
    author: Author,
    body: Arc<Body>,
    /// Confirmed state has folded it as it was laid.
    folded: bool,
}

/// Own pending entries of one log, and what they make of the records they touch.
#[derive(Debug, Clone, Default)]
pub struct Overlay {
    entries: BTreeMap<Place, Held>,
    places: BTreeMap<WriteId, Place>,
    sequenced: BTreeMap<ActorId, BTreeMap<Seq, u64>>,
    records: BTreeMap<Name, BTreeMap<RecordId, Laid>>,
    documents: Documents,
    /// Records to lay again.
    dirty: Touched,
    /// Records that an entry left, whose place may be empty now.
    left: Touched,
    rank_last: u64,
    user: Option<UserId>,
    /// How often the list of pending entries changed.
    changes: u64,
    marker: Marker,
}

impl Overlay {
    /// No pending entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// No pending entries; the work on those to come is told.
    pub fn watched(marker: Marker) -> Self {
        Self { marker, ..Self::default() }
    }

    /// The user of this client, as far as it is known: shown as the author of pending work.
    pub fn set_user(&mut self, user: Option<UserId>) -> Touched {
        self.user = user;
        self.keys()
    }

    /// Lays an entry on top. One that is known already, or that confirmed state covers, is passed over.
    pub fn push(&mut self, state: &State, pending: Pending) -> Touched {
        let mut touched = Touched::new();
        self.take(state, pending, &mut touched);
        self.lay_dirty(state);
        touched
    }

    /// Lays many entries, such as all that a store held.
    pub fn push_all(&mut self, state: &State, all: impl IntoIterator<Item = Pending>) -> Touched {
        let mut touched = Touched::new();
        all.into_iter().for_each(|pending| self.take(state, pending, &mut touched));
        self.lay_dirty(state);
        touched
    }

    /// Notes the seq of an entry whose append is durable.
    pub fn assign(&mut self, state: &State, write: WriteId, seq: Seq) -> Touched {
        let mut touched = Touched::new();
        let Some(old) = self.places.get(&write).copied().filter(|place| !place.is_sequenced()) else { return touched };
        let Some(held) = self.entries.remove(&old) else { return touched };
        let new = Place { seq, rank: old.rank };
        held.author.stamp.assign(seq);
        for key in keys(&held.body) {
            if let Some(laid) = self.laid_mut(&key)
                && laid.rename(old, new)
            {
                self.dirty.insert(key.clone());
            }
            touched.insert(key);
        }
        self.changes += 1;
        self.sequenced.entry(held.author.stamp.actor()).or_default().insert(seq, old.rank);
        self.places.insert(write, new);
        self.entries.insert(new, held);
        self.lay_dirty(state);
        touched
    }

    /// Takes an entry out as if it had never been: it was refused, or could not be appended.
    pub fn drop(&mut self, state: &State, write: WriteId) -> Touched {
        let mut touched = Touched::new();
        if let Some(place) = self.places.get(&write).copied() {
            self.leave(place, &mut touched);
        }
        self.lay_dirty(state);
        touched
    }

    /// Notes what the fold of one entry touched. Shown is the state before until [`Overlay::settle`].
    pub fn folded(&mut self, fold: &Fold) {
        let own = self.sequenced.get(&fold.id.actor).and_then(|seqs| seqs.get(&fold.id.seq));
        let own = own.map(|rank| Place { seq: fold.id.seq, rank: *rank });
        if let Some(held) = own.and_then(|place| self.entries.get_mut(&place)) {
            held.author.stamp.confirm(fold.offset);
            held.folded = true;
            if let Outcome::RecordGone(gone) = &fold.outcome {
                let body = held.body.clone();
                self.part_with(gone.iter().filter_map(|at| body.ops.get(*at)));
            }
        }
        for key in &fold.touched {
            let Some(laid) = self.laid_mut(key) else { continue };
            let as_laid = own.is_some_and(|place| !fold.adjusted && laid.is_first(place));
            match own {
                Some(place) if as_laid => laid.remove(place),
                _ => drop(self.dirty.insert(key.clone())),
            }
        }
    }

    /// Notes records whose grace after a delete was over while confirmed state passed over a gap, like
    /// [`Overlay::folded`].
    pub fn outlived(&mut self, records: &[RecordKey]) {
        let laid = records.iter().filter(|key| self.laid(key).is_some()).cloned();
        self.dirty.extend(laid.collect::<Vec<_>>());
    }

    /// These ops were laid here and are void in the log: their edits are in no confirmed document.
    fn part_with<'a>(&mut self, ops: impl Iterator<Item = &'a Op>) {
        for op in ops {
            let Some(key) = RecordKey::of(op) else { continue };
            let edits = op.field_ops().filter(|(_, op)| matches!(op, FieldOp::Edit(_)));
            edits.for_each(|(field, _)| self.documents.restart_field(&key, field));
            self.dirty.insert(key);
        }
    }

    /// Lets go of what confirmed state covers, and lays again what the batch before touched.
    pub fn settle(&mut self, state: &State) -> Touched {
        let mut touched = Touched::new();
        let actors: Vec<_> = self.sequenced.keys().copied().collect();
        for actor in actors {
            let Some(seqs) = self.sequenced.get(&actor) else { continue };
            let covered: Vec<_> = seqs.range(..=state.folded(actor)).map(|(seq, rank)| (*seq, *rank)).collect();
            covered.into_iter().for_each(|(seq, rank)| self.leave(Place { seq, rank }, &mut touched));
        }
        touched.extend(self.dirty.iter().cloned());
        self.lay_dirty(state);
        touched
    }

    /// Lays everything again: confirmed state was replaced.
    pub fn reset(&mut self, state: &State) -> Touched {
        self.documents.clear();
        for (collection, records) in &self.records {
            let keys =
                records.keys().map(|record| RecordKey { collection: collection.clone(), record: record.clone() });
            self.dirty.extend(keys);
        }
        self.settle(state)
    }

    /// Own pending entries that an entry with these ops builds on: what created a record it touches, if nothing
    /// confirmed did, and the last ones that edited a rich field it edits. Bounded; edits come first.
    pub fn needs(&self, ops: &[Op]) -> Vec<WriteId> {
        let mut needs = BTreeSet::new();
        let laid = ops.iter().filter_map(|op| Some((op, self.laid(&RecordKey::of(op)?)?)));
        laid.clone().for_each(|(op, laid)| self.edits_before(op, laid, &mut needs));
        for (_, laid) in laid {
            if needs.len() >= crate::limits::ENTRY_NEEDS_MAX {
                break;
            }
            needs.extend(laid.creator());
        }
        let stamps = needs.into_iter().filter_map(|place| self.entries.get(&place));
        stamps.map(|held| held.author.stamp.write()).take(crate::limits::ENTRY_NEEDS_MAX).collect()
    }

    /// The last pending edits, one of each run, of the rich fields that `op` edits. Those that build on a refused edit
    /// are no part of the document, so nothing builds on them.
    fn edits_before(&self, op: &Op, laid: &Laid, needs: &mut BTreeSet<Place>) {
        let Some(key) = RecordKey::of(op) else { return };
        for (field, op) in op.field_ops() {
            if let FieldOp::Edit(_) = op {
                let fits = |place: &&Place| {
                    let held = self.entries.get(*place);
                    held.is_some_and(|held| !self.documents.is_misfit(&key, field, held.author.stamp.write()))
                };
                needs.extend(laid.edits_of(field).filter_map(|places| places.iter().rev().find(fits).copied()));
            }
        }
    }

    /// Pending entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether an entry is pending here.
    pub fn holds(&self, write: WriteId) -> bool {
        self.places.contains_key(&write)
    }

    /// The names of all pending entries, in the order in which they are laid.
    pub fn writes(&self) -> impl Iterator<Item = WriteId> {
        self.entries.values().map(|held| held.author.stamp.write())
    }

    /// All pending entries in the order in which they are laid: what is known of each, and what it does.
    pub fn pending(&self) -> impl Iterator<Item = (&Stamp, &Arc<Body>)> {
        self.entries.values().map(|held| (&*held.author.stamp, &held.body))
    }

    /// A number that is another one whenever the list of pending entries is.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Every record with pending ops.
    fn keys(&self) -> Touched {
        let key =
            |collection: &Name, record: &RecordId| RecordKey { collection: collection.clone(), record: record.clone() };
        let records = self.records.iter();
        records.flat_map(|(collection, records)| records.keys().map(move |record| key(collection, record))).collect()
    }

    fn take(&mut self, state: &State, pending: Pending, touched: &mut Touched) {
        let Pending { write, actor, seq, base, own_seen, time, body } = pending;
        let covered = seq.is_some_and(|seq| seq <= state.folded(actor));
        if covered || self.places.contains_key(&write) {
            return;
        }
        self.changes += 1;
        self.rank_last += 1;
        let rank = self.rank_last;
        let place = Place::new(seq, rank);
        let stamp = Arc::new(Stamp::pending(actor, write, seq, time, rank));
        let author = Author { stamp, base, own: own_seen, accepted: Time::MAX };
        self.marker.own(write);
        for (at, op) in body.ops.iter().enumerate() {
            let Some(key) = RecordKey::of(op) else { continue };
            let dirty = self.dirty.contains(&key);
            let records = self.records.entry(key.collection.clone()).or_default();
            let laid = records.entry(key.record.clone()).or_insert_with(|| Laid::on(state, &key));
            let on_top = laid.push(place, at, op, write.run);
            if on_top && !dirty {
                let effect = laid.lay(&author, op, place, at);
                let created = laid.visible().map(live::identity);
                self.documents.follow(&key, op, effect, created, write);
            } else {
                self.dirty.insert(key.clone());
                self.documents.forget(&key);
            }
            touched.insert(key);
        }
        if let Some(seq) = seq {
            self.sequenced.entry(actor).or_default().insert(seq, rank);
        }
        self.places.insert(write, place);
        self.entries.insert(place, Held { author, body, folded: false });
    }

    /// Takes an entry out of every index. Unless it was folded as it was laid, its records are laid again.
    fn leave(&mut self, place: Place, touched: &mut Touched) {
        let Some(held) = self.entries.remove(&place) else { return };
        self.changes += 1;
        self.places.remove(&held.author.stamp.write());
        if place.is_sequenced()
            && let Some(seqs) = self.sequenced.get_mut(&held.author.stamp.actor())
        {
            seqs.remove(&place.seq);
            if seqs.is_empty() {
                self.sequenced.remove(&held.author.stamp.actor());
            }
        }
        for key in keys(&held.body) {
            if let Some(laid) = self.laid_mut(&key)
                && laid.holds(place)
            {
                laid.remove(place);
                self.dirty.insert(key.clone());
                if !held.folded {
                    self.documents.restart(&key, &held.body, held.author.stamp.write());
                }
            }
            self.left.insert(key.clone());
            touched.insert(key);
        }
    }

    fn lay_dirty(&mut self, state: &State) {
        let (dirty, left) = (std::mem::take(&mut self.dirty), std::mem::take(&mut self.left));
        for key in &dirty {
            let Some(laid) = self.records.get_mut(&key.collection).and_then(|records| records.get_mut(&key.record))
            else {
                continue;
            };
            if laid.lay_again(state, key, &self.entries, &self.marker) {
                self.documents.restart_fields(key, laid.edited());
            }
        }
        for key in dirty.union(&left) {
            let Some(laid) = self.laid(key) else { continue };
            if !laid.is_empty() {
                let created = laid.visible().map(live::identity);
                self.documents.catch_up(state, key, created);
                continue;
            }
            self.documents.close(state, key);
            if let Some(records) = self.records.get_mut(&key.collection) {
                records.remove(&key.record);
                if records.is_empty() {
                    self.records.remove(&key.collection);
                }
            }
        }
        self.marker.done();
    }

    fn laid(&self, key: &RecordKey) -> Option<&Laid> {
        self.records.get(&key.collection)?.get(&key.record)
    }

    fn laid_mut(&mut self, key: &RecordKey) -> Option<&mut Laid> {
        self.records.get_mut(&key.collection)?.get_mut(&key.record)
    }
}

/// The records that a body's ops touch.
fn keys(body: &Body) -> BTreeSet<RecordKey> {
    body.ops.iter().filter_map(RecordKey::of).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::entry::{Entry, Logged};
    use crate::id::LogName;
    use crate::state::fixture::*;
    use crate::value::Value;
    use crate::witness::{Witness, Work};

    /// Counts the entries that were laid.
    #[derive(Debug, Default)]
    struct Laid(AtomicU64);

    impl Witness for Laid {
        fn works_on(&self, _: &LogName, work: Option<Work>) {
            self.0.fetch_add(u64::from(work.is_some()), Ordering::Relaxed);
        }
    }

    /// A client that shares the fixture's log: what it folds, and what it lays on top.
    struct Client {
        tab: Tab,
        state: State,
        overlay: Overlay,
        outbox: Vec<Entry>,
    }

    impl Client {
        fn new(actor: u8) -> Self {
            let outbox = Vec::new();
            Self { tab: Tab::new(actor), state: Log::new().state, overlay: Overlay::new(), outbox }
        }

        fn act(&mut self, ms: u64, ops: Vec<Op>) -> WriteId {
            let entry = self.tab.act(self.state.cursor().next.0, ms, ops);
            let write = WriteId { run: self.tab.run, n: entry.header.n };
            self.overlay.push(&self.state, pending(&self.tab, &entry, None));
            self.outbox.push(entry);
            write
        }

        fn store(&mut self) {
            for entry in &self.outbox {
                let write = WriteId { run: entry.header.run, n: entry.header.n };
                self.overlay.assign(&self.state, write, entry.header.seq);
            }
        }

        fn read(&mut self, batch: &[Logged]) -> Touched {
            for logged in batch {
                let fold = self.state.fold(logged).expect("folds");
                self.overlay.folded(&fold);
            }
            self.overlay.settle(&self.state)
        }

        fn field(&self, record: &str, field: &str) -> Option<crate::state::Field> {
            let visible = Visible::new(&self.state, &self.overlay);
            visible.record(&name("todos"), &id(record))?.field(&name(field)).cloned()
        }

        fn title(&self, record: &str) -> Option<Value> {
            self.field(record, "title")?.shown().map(|living| living.value.clone())
        }

        fn status(&self, record: &str) -> Status {
            Visible::new(&self.state, &self.overlay).status(&name("todos"), &id(record))
        }
    }

    fn pending(tab: &Tab, entry: &Entry, seq: Option<Seq>) -> Pending {
        let header = &entry.header;
        Pending {
            write: WriteId { run: header.run, n: header.n },
            actor: tab.actor,
            seq,
            base: header.base.end,
            own_seen: header.own_seen(),
            time: header.time,
            body: entry.body.clone(),
        }
    }

    fn push_all(log: &mut Log, client: &mut Client) -> Vec<Logged> {
        client.outbox.drain(..).for_each(|entry| drop(log.push(&client.tab, entry).expect("folds")));
        log.entries[client.state.cursor().next.0 as usize..].to_vec()
    }

    #[test]
    fn an_entry_is_pending_then_stored_then_accepted() {
        let (mut log, mut alice) = (Log::new(), Client::new(1));
        alice.act(1, vec![insert("x", vec![("title", set("a"))])]);
        assert_eq!((alice.title("x"), alice.status("x")), (Some(Value::from("a")), Status::Pending));
        alice.store();
        assert_eq!(alice.status("x"), Status::Stored);
        let batch = push_all(&mut log, &mut alice);
        assert_eq!(alice.read(&batch), [key("x")].into());
        assert_eq!((alice.title("x"), alice.status("x")), (Some(Value::from("a")), Status::Accepted));
        assert!(alice.overlay.is_empty());
    }

    #[test]
    fn a_refusal_takes_the_entry_out_as_if_it_had_never_been() {
        let mut alice = Client::new(1);
        alice.act(1, vec![insert("x", vec![("title", set("a"))])]);
        let write = alice.act(2, vec![update("x", "title", set("b")), update("x", "votes", FieldOp::Increment(3))]);
        alice.act(3, vec![update("x", "votes", FieldOp::Increment(2))]);
        assert_eq!(alice.overlay.drop(&alice.state, write), [key("x")].into());
        assert_eq!(alice.title("x"), Some(Value::from("a")));
        assert_eq!(alice.field("x", "votes").and_then(|field| field.counter()), Some(2));
    }

    #[test]
    fn remote_work_comes_under_pending_work() {
        let (mut log, mut alice, mut bob) = (Log::new(), Client::new(1), Tab::new(2));
        log.act(&mut bob, 0, vec![insert("x", vec![("title", set("bob"))])]);
        alice.read(&log.entries.clone());
        alice.act(log.now_ms, vec![update("x", "title", set("alice")), update("x", "votes", FieldOp::Increment(1))]);
        log.act(&mut bob, 1, vec![update("x", "votes", FieldOp::Increment(10)), update("x", "title", set("later"))]);
        alice.read(&log.entries[1..]);
        assert_eq!(alice.field("x", "votes").and_then(|field| field.counter()), Some(11));
        assert_eq!(alice.title("x"), Some(Value::from("later")), "alice's time is earlier");
        let conflicts = Visible::new(&alice.state, &alice.overlay).conflicts(&key("x"), &name("title"));
        assert_eq!(
            conflicts.iter().map(|conflict| &conflict.value).collect::<Vec<_>>(),
            [&set_value("later"), &set_value("alice")]
        );
        log.act(&mut bob, 2, vec![delete("x")]);
        alice.read(&log.entries[2..]);
        assert_eq!(alice.title("x"), None, "pending edits of a deleted record are void");
    }

    fn set_value(text: &str) -> Value {
        Value::from(text)
    }

    #[test]
    fn needs_name_the_creator_until_it_is_confirmed() {
        let (mut log, mut alice) = (Log::new(), Client::new(1));
        let created = alice.act(1, vec![insert("x", vec![])]);
        let touch = [update("x", "title", set("a"))];
        assert_eq!(alice.overlay.needs(&touch), [created]);
        alice.store();
        alice.act(2, touch.to_vec());
        assert_eq!(alice.overlay.needs(&touch), [created], "not the register's last writer");
        alice.store();
        let entry = alice.outbox.remove(0);
        log.push(&alice.tab, entry).expect("folds");
        alice.read(&log.entries.clone());
        assert!(alice.overlay.needs(&touch).is_empty());
    }

    #[test]
    fn entries_of_another_tab_stand_by_their_seq() {
        let mut alice = Client::new(1);
        let mine = alice.act(1, vec![insert("x", vec![("title", set("mine"))])]);
        let mut other = Tab { run: crate::id::RunId([9; 8]), ..Tab::new(1) };
        let entry = other.act(0, 1, vec![insert("x", vec![("title", set("other"))])]);
        alice.overlay.push(&alice.state, pending(&other, &entry, Some(Seq(1))));
        assert_eq!(alice.title("x"), Some(Value::from("mine")), "what has no seq yet comes last");
        alice.overlay.assign(&alice.state, mine, Seq(2));
        assert_eq!(alice.title("x"), Some(Value::from("mine")));
        assert_eq!(alice.overlay.writes().collect::<Vec<_>>(), [WriteId { run: other.run, n: 1 }, mine]);
    }

    #[test]
    fn many_pending_entries_settle_one_by_one_without_being_laid_again() {
        let (mut log, mut alice) = (Log::new(), Client::new(1));
        let laid = Arc::<Laid>::default();
        alice.overlay = Overlay::watched(Marker::new(Some(laid.clone()), &LogName::new("board/1").expect("a name")));
        let vote = |_| update("x", "votes", FieldOp::Increment(1));
        alice.act(1, vec![insert("x", vec![])]);
        for ms in 0..20_000 {
            alice.act(2 + ms, vec![vote(ms)]);
        }
        alice.store();
        for logged in push_all(&mut log, &mut alice) {
            alice.read(&[logged]);
        }
        assert_eq!(laid.0.load(Ordering::Relaxed), 20_001, "each was laid as it was made, and never again");
        assert_eq!(alice.field("x", "votes").and_then(|field| field.counter()), Some(20_000));
        assert!(alice.overlay.is_empty());
    }
}
