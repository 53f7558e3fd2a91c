//! Erasing: what an erase takes out of confirmed state, and what it keeps out from then on.
//!
//! An erase is an entry of the log itself, so every replica carries it out at the same place. Nobody folds across it
//! from before it once the bodies are gone: who comes later begins with a snapshot that lies behind it. What was erased
//! stays listed in the state, since ops on it that come later are void.

use std::collections::BTreeSet;

use super::{Author, Record, RecordKey, State};
use crate::entry::Entry;
use crate::id::{ActorId, Offset, UserId};
use crate::op::{Erase, Op};

/// An erase that was folded, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Erasure {
    /// Its offset.
    pub offset: Offset,
    /// What it erased.
    pub what: Erase,
}

impl Erasure {
    fn is_of(&self, op: &Op) -> bool {
        matches!(&self.what, Erase::Record((collection, record)) if op.target() == Some((collection, record)))
    }

    fn is_of_author(&self, actor: ActorId, base: Offset) -> bool {
        match &self.what {
            Erase::Log(()) => self.offset >= base,
            Erase::Authors(authors) => authors.contains(&actor),
            Erase::Record(_) | Erase::Late(()) | Erase::Unknown(..) => false,
        }
    }
}

impl State {
    /// Every erase that was folded, ascending; of those of the same thing the last.
    pub fn erasures(&self) -> &[Erasure] {
        &self.erasures
    }

    /// Behind the last erase that was folded; 0 if there was none.
    pub fn erased_end(&self) -> Offset {
        self.erasures.last().map_or(Offset(0), |erasure| erasure.offset.next())
    }

    /// Whether an erase makes an op of this author void: it is on a record that was erased, or in a log that was, by an
    /// author who had not seen that.
    pub fn is_erased(&self, author: &Author, op: &Op) -> bool {
        let (actor, base) = (author.stamp.actor(), author.base);
        self.erasures.iter().any(|erasure| erasure.is_of(op) || erasure.is_of_author(actor, base))
    }

    /// Whether an entry has content that was erased, whether it came before that or came late. `base` is the end of what
    /// its author had seen. An erase itself has none.
    pub fn has_erased(&self, actor: ActorId, base: Offset, entry: &Entry) -> bool {
        has_erased(&self.erasures, actor, base, entry)
    }

    /// Erases; the records that it changed.
    pub(super) fn erase(&mut self, offset: Offset, what: &Erase) -> Vec<RecordKey> {
        let touched = match what {
            Erase::Record((collection, record)) => {
                let key = RecordKey { collection: collection.clone(), record: record.clone() };
                self.remove(&key);
                vec![key]
            }
            Erase::Log(()) => {
                let keys = self.keys();
                keys.iter().for_each(|key| self.remove(key));
                keys
            }
            Erase::Authors(authors) => self.erase_authors(&authors.iter().copied().collect()),
            Erase::Late(()) | Erase::Unknown(..) => Vec::new(),
        };
        self.erasures.retain(|erasure| erasure.what != *what);
        self.erasures.push(Erasure { offset, what: what.clone() });
        touched
    }

    fn remove(&mut self, key: &RecordKey) {
        self.documents.close(key);
        drop(self.take(key));
    }

    /// Every record, those among them that are deleted and may come back.
    fn keys(&self) -> Vec<RecordKey> {
        let deleted = self.tombstones.iter().map(|(key, _)| key.clone());
        let keys = self.collections.iter().flat_map(|(collection, records)| {
            records.keys().map(|record| RecordKey { collection: collection.clone(), record: record.clone() })
        });
        keys.chain(deleted).collect()
    }

    /// Values that these authors wrote go, and nobody knows any more who they were. Sums stay, which say of nobody what
    /// he did, and so do texts, which several write together.
    fn erase_authors(&mut self, authors: &BTreeSet<ActorId>) -> Vec<RecordKey> {
        for actor in authors {
            if let Some(folded) = self.actors.get_mut(actor) {
                folded.user = UserId::erased();
            }
        }
        let mut touched = Vec::new();
        for (collection, records) in &mut self.collections {
            for (id, record) in records {
                if record.stamps().any(|stamp| authors.contains(&stamp.actor())) {
                    record.erase_authors(authors);
                    touched.push(RecordKey { collection: collection.clone(), record: id.clone() });
                }
            }
        }
        for (key, record) in self.tombstones.records_mut() {
            if record.stamps().any(|stamp| authors.contains(&stamp.actor())) {
                record.erase_authors(authors);
                touched.push(key.clone());
            }
        }
        touched
    }
}

/// See [`State::has_erased`].
pub(crate) fn has_erased(erasures: &[Erasure], actor: ActorId, base: Offset, entry: &Entry) -> bool {
    let ops = &entry.body.ops;
    let erases = |erasure: &Erasure| erasure.is_of_author(actor, base) || ops.iter().any(|op| erasure.is_of(op));
    erasures.iter().any(erases) && !ops.iter().any(|op| matches!(op, Op::Erase(_)))
}

impl Record {
    fn erase_authors(&mut self, authors: &BTreeSet<ActorId>) {
        for (_, field) in &mut self.fields {
            field.register.retain(|living| !authors.contains(&living.stamp.actor()));
            if let Some(elements) = &mut field.set {
                elements.retain(|_, adds| {
                    adds.retain(|add| !authors.contains(&add.actor()));
                    !adds.is_empty()
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::id::ActorId;
    use crate::op::{Erase, FieldOp, Op};
    use crate::state::Outcome;
    use crate::state::fixture::*;

    fn erase(log: &mut Log, what: Erase) -> Vec<crate::state::RecordKey> {
        let mut itself = Tab { actor: ActorId::LOG, seq: log.state.folded(ActorId::LOG).0, ..Tab::new(0) };
        log.act(&mut itself, log.state.cursor().next.0, vec![Op::Erase(what)]).touched
    }

    fn record(text: &str) -> Erase {
        Erase::Record((name("todos"), id(text)))
    }

    #[test]
    fn an_erased_record_is_gone_and_stays_away() {
        let (mut log, mut alice, mut bob) = (Log::new(), Tab::new(1), Tab::new(2));
        log.act(&mut alice, 0, vec![insert("x", vec![("title", set("secret"))]), insert("y", vec![])]);
        assert_eq!(erase(&mut log, record("x")), [key("x")]);
        let late = vec![update("x", "title", set("late")), insert("x", vec![]), update("y", "title", set("on"))];
        assert_eq!(log.act(&mut bob, 1, late).outcome, Outcome::RecordGone(vec![0, 1]));
        let end = log.state.cursor().next.0;
        assert_eq!(log.act(&mut bob, end, vec![insert("x", vec![])]).outcome, Outcome::RecordGone(vec![0]), "for good");
        assert_eq!((log.register("x", "title"), log.register("y", "title")), (None, Some("on".into())));
    }

    #[test]
    fn an_erased_log_takes_what_is_written_by_who_has_seen_it_and_nothing_else() {
        let (mut log, mut alice, mut bob) = (Log::new(), Tab::new(1), Tab::new(2));
        log.act(&mut alice, 0, vec![insert("x", vec![("title", set("secret"))])]);
        let seen = log.state.cursor().next.0;
        erase(&mut log, Erase::Log(()));
        assert_eq!(log.act(&mut bob, seen, vec![insert("y", vec![])]).outcome, Outcome::RecordGone(vec![0]));
        let end = log.state.cursor().next.0;
        assert_eq!(log.act(&mut bob, end, vec![insert("x", vec![])]).outcome, Outcome::Applied);
        assert_eq!(log.register("x", "title"), None);
    }

    #[test]
    fn what_an_erased_author_wrote_goes_and_what_others_wrote_stays() {
        let (mut log, mut alice, mut bob) = (Log::new(), Tab::new(1), Tab::new(2));
        let fields = || vec![("tags", add(&["by alice", "by both"])), ("title", set("alice's"))];
        log.act(&mut alice, 0, vec![insert("x", fields())]);
        log.act(&mut bob, 1, vec![update("x", "tags", add(&["by both"])), update("x", "note", set("bob's"))]);
        log.act(&mut alice, 1, vec![update("x", "votes", FieldOp::Increment(2))]);
        erase(&mut log, Erase::Authors(vec![ActorId([1; 16])]));
        assert_eq!((log.register("x", "title"), log.register("x", "note")), (None, Some("bob's".into())));
        assert_eq!(log.set("x", "tags"), ["by both"]);
        let users: Vec<_> = log.state.actors().map(|(actor, folded)| (actor.0[0], folded.user.as_str())).collect();
        assert_eq!(users.iter().find(|(actor, _)| *actor == 1), Some(&(1, "$erased")));
    }

    #[test]
    fn a_state_keeps_what_was_erased_through_a_snapshot() {
        let (mut log, mut alice) = (Log::new(), Tab::new(1));
        log.act(&mut alice, 0, vec![insert("x", vec![])]);
        erase(&mut log, record("x"));
        erase(&mut log, Erase::Log(()));
        erase(&mut log, record("x"));
        let again = crate::snapshot::decode(&crate::snapshot::encode(&mut log.state)).expect("decodes");
        assert_eq!((again.erasures(), again.digest()), (log.state.erasures(), log.state.digest()));
        let offsets: Vec<_> = again.erasures().iter().map(|erasure| erasure.offset.0).collect();
        assert_eq!(offsets, [2, 3], "the later one of the same thing");
        assert_eq!(again.erased_end(), again.cursor().next);
    }
}
