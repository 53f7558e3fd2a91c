//! The place of one record: nothing, the record, or what a delete left of it.
//!
//! ```text
//!            insert                    delete
//! Absent ─────────────► Living ───────────────────► Absent
//!   ▲                   │    ▲
//!   │   delete, updates │    │ insert or update whose author had not seen the delete: as it was, and changed
//!   │   win, all seen   ▼    │
//!   └──────────────── Deleted ── insert whose author had seen it: a new record
//!     grace is over, erase, delete that wins
//! ```
//!
//! A delete that lets updates win does nothing while there is an edit that its author had not seen, and an edit that
//! comes behind it unseen brings the record back: in either order the record is there, with all its fields
//! (docs/decisions/0160-updates-that-win-over-a-delete.md).

use super::record::{Effect, Record, is_edit};
use super::stamp::Author;
use super::tombstone::Tombstone;
use crate::op::{DeletePolicy, Op};

/// What stands under one id.
#[derive(Debug, Clone, Default)]
pub(crate) enum Slot {
    /// Nothing.
    #[default]
    Absent,
    /// The record.
    Living(Record),
    /// What is left of it.
    Deleted(Tombstone),
}

impl From<Option<Record>> for Slot {
    fn from(record: Option<Record>) -> Self {
        record.map_or(Self::Absent, Self::Living)
    }
}

impl Slot {
    /// The record, if it is there.
    pub(crate) fn record(&self) -> Option<&Record> {
        match self {
            Self::Living(record) => Some(record),
            Self::Absent | Self::Deleted(_) => None,
        }
    }

    /// Lays one op.
    pub(crate) fn lay(&mut self, author: &Author, op: &Op) -> Effect {
        let effect = self.stand(author, op);
        if let (true, Self::Living(record)) = (effect.counts(), self) {
            record.lay_fields(author, op);
        }
        effect
    }

    /// Decides what an op does to the record; its fields stay as they are.
    pub(crate) fn stand(&mut self, author: &Author, op: &Op) -> Effect {
        match (std::mem::take(self), op) {
            (Self::Living(record), Op::Delete(delete)) if record.is_known_to(author) => {
                *self = deleted(record, author, &delete.policy);
                Effect::Applied
            }
            (Self::Living(mut record), op) => {
                let effect = record.stand(author, op);
                *self = Self::Living(record);
                effect
            }
            (Self::Deleted(tombstone), op) if tombstone.concerns(author, op) => self.stand_on(tombstone, author, op),
            (_, Op::Insert(_)) => {
                *self = Self::Living(Record::new(author));
                Effect::Begun
            }
            (before, _) => {
                *self = before;
                Effect::Gone
            }
        }
    }

    /// An op of an author who had not seen that the record was deleted.
    fn stand_on(&mut self, mut tombstone: Tombstone, author: &Author, op: &Op) -> Effect {
        match op {
            Op::Delete(delete) => {
                if let DeletePolicy::UpdateWins { grace_ms } = delete.policy {
                    tombstone.delete(author, grace_ms);
                    *self = Self::Deleted(tombstone);
                }
                Effect::Applied
            }
            _ => {
                let mut record = tombstone.record;
                record.stand(author, op);
                *self = Self::Living(record);
                Effect::Revived
            }
        }
    }
}

/// What a delete by an author who knew the record leaves.
fn deleted(record: Record, author: &Author, policy: &DeletePolicy) -> Slot {
    match policy {
        DeletePolicy::UpdateWins { .. } if record.has_news_for(author) => Slot::Living(record),
        DeletePolicy::UpdateWins { grace_ms } => Slot::Deleted(Tombstone::new(record, author, *grace_ms)),
        // Kinds that this build does not know were turned away before.
        DeletePolicy::Wins | DeletePolicy::Unknown(..) => Slot::Absent,
    }
}

impl Tombstone {
    /// Whether an op does something to what is left: its author had not seen that the record was deleted.
    fn concerns(&self, author: &Author, op: &Op) -> bool {
        let is_known = matches!(op, Op::Insert(_)) || self.record.is_known_to(author);
        is_known && is_edit(op) && !self.was_seen_by(author)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::codec::{from_canonical, to_bytes};
    use crate::entry::{Body, Gone, Salt};
    use crate::id::{ActorId, WriteId};
    use crate::limits;
    use crate::op::{Delete, DeletePolicy, Edit, Erase, FieldOp, Op};
    use crate::overlay::{Overlay, Pending, Visible};
    use crate::packed::Gap;
    use crate::snapshot;
    use crate::state::fixture::*;
    use crate::state::{Field, FieldKey, Outcome};
    use crate::value::Value;

    const GRACE_MS: u64 = 1_000;

    /// A log with a record of every strategy that both tabs know.
    fn log_with_todo() -> (Log, Tab, Tab) {
        let (mut log, mut alice, bob) = (Log::new(), Tab::new(1), Tab::new(2));
        let note = FieldOp::Edit(Edit::InitialText("note".to_owned()));
        let fields =
            vec![("title", set("first")), ("votes", FieldOp::Increment(2)), ("tags", add(&["a"])), ("note", note)];
        log.act(&mut alice, 0, vec![insert("x", fields)]);
        (log, alice, bob)
    }

    /// Title, votes, tags and note.
    type Shown = (Option<Value>, Option<i64>, Vec<String>, String);

    /// What stands of the record.
    fn shown(log: &Log) -> Option<Shown> {
        let record = log.state.record(&name("todos"), &id("x"))?;
        let votes = record.field(&name("votes")).and_then(Field::counter);
        let note = log.state.text(&FieldKey { key: key("x"), field: name("note") }).expect("reads");
        Some((log.register("x", "title"), votes, log.set("x", "tags"), note))
    }

    #[test]
    fn an_unseen_edit_before_or_behind_a_delete_keeps_the_record_as_it_was() {
        let edit = || vec![update("x", "votes", FieldOp::Increment(1))];
        let delete = || vec![delete_unless_changed("x", GRACE_MS)];
        let (mut before, mut alice, mut bob) = log_with_todo();
        before.act(&mut bob, 1, edit());
        assert_eq!(before.act(&mut alice, 1, delete()).outcome, Outcome::Applied);
        let (mut behind, mut alice, mut bob) = log_with_todo();
        behind.act(&mut alice, 1, delete());
        assert_eq!(shown(&behind), None);
        assert_eq!(behind.act(&mut bob, 1, edit()).outcome, Outcome::Applied);
        let expected = Some((Some(Value::from("first")), Some(3), vec!["a".to_owned()], "note".to_owned()));
        assert_eq!((shown(&before), shown(&behind)), (expected.clone(), expected));
        assert_eq!(behind.state.tombstones().len(), 0);
    }

    #[test]
    fn an_unseen_edit_counts_though_a_later_one_was_seen() {
        let (mut log, mut alice, mut bob) = log_with_todo();
        // Bob's clock is behind: by time alone, the last change is one that alice has seen.
        let entry = bob.act(1, 1, vec![update("x", "votes", FieldOp::Increment(1))]);
        log.push(&bob, entry).expect("folds");
        log.act(&mut alice, 1, vec![update("x", "title", set("later by time"))]);
        log.act(&mut alice, 1, vec![delete_unless_changed("x", GRACE_MS)]);
        assert!(shown(&log).is_some(), "the vote was not seen");
    }

    #[test]
    fn who_had_seen_the_delete_changes_nothing_and_an_insert_begins_anew() {
        let (mut log, mut alice, mut bob) = log_with_todo();
        log.act(&mut alice, 1, vec![delete_unless_changed("x", GRACE_MS)]);
        let ops = vec![update("x", "title", set("late")), delete("x"), delete_unless_changed("x", GRACE_MS)];
        assert_eq!(log.act(&mut bob, 2, ops).outcome, Outcome::RecordGone(vec![0, 1, 2]));
        log.act(&mut bob, 2, vec![insert("x", vec![("title", set("new"))])]);
        assert_eq!((log.register("x", "title"), log.state.tombstones().len()), (Some("new".into()), 0));
        assert!(log.set_of("x", "tags").is_none(), "nothing of the record before");
        let late = log.act(&mut Tab::new(3), 1, vec![update("x", "votes", FieldOp::Increment(1))]);
        assert_eq!(late.outcome, Outcome::RecordGone(vec![0]), "it was made on the record before");
    }

    #[test]
    fn an_insert_that_had_not_seen_the_delete_merges_into_the_record_before() {
        let (mut log, mut alice, mut bob) = log_with_todo();
        log.act(&mut alice, 1, vec![delete_unless_changed("x", GRACE_MS)]);
        log.act(&mut bob, 0, vec![insert("x", vec![("title", set("bob's"))])]);
        assert_eq!((log.register("x", "title"), log.set("x", "tags")), (Some("bob's".into()), vec!["a".to_owned()]));
        let known = log.act(&mut Tab::new(3), 1, vec![update("x", "votes", FieldOp::Increment(1))]);
        assert_eq!(known.outcome, Outcome::Applied);
    }

    #[test]
    fn a_delete_that_wins_leaves_nothing_of_what_another_left() {
        let (mut log, mut alice, mut bob) = log_with_todo();
        log.act(&mut alice, 1, vec![delete_unless_changed("x", GRACE_MS)]);
        assert_eq!(log.act(&mut bob, 1, vec![delete("x")]).outcome, Outcome::Applied);
        assert_eq!(log.state.tombstones().len(), 0);
        let late = log.act(&mut Tab::new(3), 1, vec![update("x", "title", set("late"))]);
        assert_eq!(late.outcome, Outcome::RecordGone(vec![0]));
    }

    #[test]
    fn who_had_seen_one_of_two_deletes_begins_anew() {
        let (mut log, mut alice, mut bob) = log_with_todo();
        log.act(&mut alice, 1, vec![delete_unless_changed("x", GRACE_MS)]);
        log.act(&mut bob, 1, vec![delete_unless_changed("x", GRACE_MS)]);
        log.act(&mut bob, 1, vec![insert("x", vec![("title", set("bob's"))])]);
        assert_eq!((log.register("x", "title"), log.set_of("x", "tags")), (Some("bob's".into()), None));
    }

    #[test]
    fn the_grace_runs_in_accepted_time_and_its_last_millisecond_counts() {
        for (late_ms, comes_back) in [(GRACE_MS, true), (GRACE_MS + 1, false)] {
            let (mut log, mut alice, mut bob) = log_with_todo();
            log.act(&mut alice, 1, vec![delete_unless_changed("x", GRACE_MS)]);
            log.now_ms += late_ms - 1;
            let fold = log.act(&mut bob, 1, vec![update("x", "votes", FieldOp::Increment(1))]);
            assert_eq!(shown(&log).is_some(), comes_back, "{late_ms} ms");
            assert_eq!(fold.outcome == Outcome::RecordGone(vec![0]), !comes_back);
            assert_eq!((fold.touched, fold.adjusted), (vec![key("x")], !comes_back));
            assert_eq!(log.state.tombstones().len(), 0);
        }
    }

    #[test]
    fn a_grace_ends_with_an_entry_of_something_else_or_with_a_gap() {
        let (mut log, mut alice, mut bob) = log_with_todo();
        log.act(&mut alice, 1, vec![delete_unless_changed("x", GRACE_MS)]);
        let mut skipped = log.state.clone();
        let mut gap = Gap::new(Gone::Expired, skipped.cursor());
        log.now_ms += 2 * GRACE_MS;
        let entry = bob.act(1, log.now_ms, vec![]);
        let logged = log.accept(&bob, entry);
        assert_eq!(log.state.fold(&logged).expect("an event folds").touched, [key("x")]);
        gap.pass(&logged, log.state.cursor());
        assert_eq!(skipped.skip(&gap).expect("forward"), [key("x")]);
        assert_eq!(skipped.digest(), log.state.digest());
        assert_eq!(log.state.tombstones().len(), 0);
    }

    #[test]
    fn what_was_laid_on_what_is_left_goes_from_view_when_the_grace_ends() {
        for by_gap in [false, true] {
            let (mut log, mut alice, mut bob) = log_with_todo();
            log.act(&mut alice, 1, vec![delete_unless_changed("x", GRACE_MS)]);
            let header = bob.act(1, log.now_ms, vec![]).header;
            let ops = vec![update("x", "title", set("bob's"))];
            let pending = Pending {
                write: WriteId { run: bob.run, n: header.n },
                actor: bob.actor,
                seq: Some(header.seq),
                base: header.base.end,
                own_seen: header.own_seen(),
                time: header.time,
                body: Arc::new(Body::new(name("act"), None, ops, None, Salt::default())),
            };
            let mut overlay = Overlay::new();
            overlay.push(&log.state, pending);
            let is_shown = |log: &Log, overlay: &Overlay| {
                Visible::new(&log.state, overlay).record(&name("todos"), &id("x")).is_some()
            };
            assert!(is_shown(&log, &overlay));
            log.now_ms += 2 * GRACE_MS;
            let entry = alice.act(2, log.now_ms, vec![]);
            let logged = log.accept(&alice, entry);
            if by_gap {
                let mut gap = Gap::new(Gone::Expired, log.state.cursor());
                gap.pass(&logged, log.state.cursor().after(&logged));
                let outlived = log.state.skip(&gap).expect("forward");
                overlay.outlived(&outlived);
            } else {
                overlay.folded(&log.state.fold(&logged).expect("folds"));
            }
            assert_eq!(overlay.settle(&log.state), [key("x")].into());
            assert!(!is_shown(&log, &overlay), "by a gap: {by_gap}");
        }
    }

    #[test]
    fn what_is_left_of_a_record_goes_with_an_erase() {
        for what in [Erase::Record((name("todos"), id("x"))), Erase::Log(())] {
            let (mut log, mut alice, mut bob) = log_with_todo();
            log.act(&mut alice, 1, vec![delete_unless_changed("x", GRACE_MS)]);
            let holds = |log: &mut Log| snapshot::encode(&mut log.state).windows(5).any(|bytes| bytes == b"first");
            assert!(holds(&mut log), "kept in the grace");
            let end = log.state.cursor().next.0;
            let mut itself = Tab { actor: ActorId::LOG, ..Tab::new(0) };
            assert_eq!(log.act(&mut itself, end, vec![Op::Erase(what)]).touched, [key("x")]);
            assert!(!holds(&mut log) && log.state.tombstones().len() == 0);
            let late = log.act(&mut bob, 1, vec![update("x", "title", set("late"))]);
            assert_eq!(late.outcome, Outcome::RecordGone(vec![0]));
        }
        let (mut log, mut alice, mut bob) = log_with_todo();
        log.act(&mut alice, 1, vec![delete_unless_changed("x", GRACE_MS)]);
        let mut itself = Tab { actor: ActorId::LOG, ..Tab::new(0) };
        log.act(&mut itself, 2, vec![Op::Erase(Erase::Authors(vec![ActorId([1; 16])]))]);
        log.act(&mut bob, 1, vec![update("x", "votes", FieldOp::Increment(1))]);
        assert_eq!(shown(&log), Some((None, Some(3), vec![], "note".to_owned())), "sums and texts stay");
    }

    #[test]
    fn what_is_left_of_a_record_stands_in_snapshots() {
        let (mut log, mut alice, mut bob) = log_with_todo();
        log.act(&mut alice, 1, vec![insert("y", vec![]), delete_unless_changed("x", GRACE_MS)]);
        log.act(&mut alice, 2, vec![delete_unless_changed("y", 2 * GRACE_MS)]);
        let bytes = snapshot::encode(&mut log.state);
        let mut again = snapshot::decode(&bytes).expect("decodes");
        assert_eq!((again.digest(), again.tombstones().len()), (log.state.digest(), 2));
        assert_eq!(snapshot::encode(&mut again), bytes);
        log.act(&mut bob, 1, vec![update("x", "votes", FieldOp::Increment(1))]);
        again.fold(&log.entries[3]).expect("folds");
        assert_eq!(again.digest(), log.state.digest());
        assert!(shown(&log).is_some());
    }

    #[test]
    fn a_record_remembers_a_bounded_number_of_edits_and_one_who_saw_them_all_takes_their_place() {
        let (mut log, mut alice, _) = log_with_todo();
        for actor in 10..40 {
            log.act(&mut Tab::new(actor), 1, vec![update("x", "votes", FieldOp::Increment(1))]);
        }
        let edits = |log: &Log| log.state.record(&name("todos"), &id("x")).map(|record| record.edits.len());
        assert_eq!(edits(&log), Some(limits::RECORD_EDITS_MAX));
        log.act(&mut alice, 31, vec![update("x", "votes", FieldOp::Increment(1))]);
        assert_eq!(edits(&log), Some(1));
    }

    #[test]
    fn a_policy_has_one_form() {
        let bytes = |policy: &DeletePolicy| to_bytes(policy);
        assert_eq!(bytes(&DeletePolicy::Wins), [0]);
        assert_eq!(bytes(&DeletePolicy::UpdateWins { grace_ms: 7 }), [0x92, 1, 7]);
        let unknown = from_canonical::<DeletePolicy>(&[0x92, 2, 0xc0]).expect("a newer one");
        let op = |policy| Op::<crate::id::Name>::Delete(Delete { collection: name("todos"), record: id("x"), policy });
        assert_eq!((bytes(&unknown), op(unknown).unknown_kind()), (vec![0x92, 2, 0xc0], Some(2)));
        for wrong in [&[1][..], &[0x92, 0, 0xc0], &[0x91, 1], &[0x93, 1, 7, 7], &[0xc0], &[0x92, 1, 0xff]] {
            assert!(from_canonical::<DeletePolicy>(wrong).is_err(), "{wrong:02x?}");
        }
    }
}
