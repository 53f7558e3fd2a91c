//! Deletes that let updates win, against the definition: a plain list of everything that was done to a record, where a
//! deleted record is never taken away and every entry asks the clock for itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use driftlog_core::entry::{Body, Entry, Header, Logged, Salt};
use driftlog_core::id::{ActorId, Base, EpochId, LogId, Offset, RunId, Seq, UserId};
use driftlog_core::op::{FieldOp, Op};
use driftlog_core::snapshot;
use driftlog_core::state::{Field, State};
use driftlog_core::time::Time;
use proptest::prelude::*;

use crate::model::{delete, delete_unless_changed, from_scratch, id, insert, name, update};

const AUTHORS: usize = 4;
const RECORDS: u8 = 2;

#[derive(Clone, Debug)]
enum Does {
    Insert,
    Vote,
    Delete,
    DeleteUnlessChanged(u64),
}

/// One entry: who, how much it reads before, when, what on which record, and whether some replica restarts behind it.
#[derive(Clone, Debug)]
struct Step {
    author: usize,
    reads: u64,
    pause_ms: u64,
    record: u8,
    does: Does,
    restarts: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let does = prop_oneof![
        3 => Just(Does::Insert),
        6 => Just(Does::Vote),
        1 => Just(Does::Delete),
        4 => (0..30u64).prop_map(Does::DeleteUnlessChanged),
    ];
    let pause = prop_oneof![3 => Just(0u64), 3 => 0..10u64, 1 => 0..40u64];
    (0..AUTHORS, 0..6u64, pause, 0..RECORDS, does, proptest::bool::weighted(0.2)).prop_map(
        |(author, reads, pause_ms, record, does, restarts)| Step { author, reads, pause_ms, record, does, restarts },
    )
}

/// An entry as the definition sees it.
#[derive(Clone, Copy)]
struct Mark {
    offset: u64,
    base: u64,
    author: usize,
    accepted_ms: u64,
}

impl Mark {
    fn saw(self, other: Self) -> bool {
        other.offset < self.base || other.author == self.author
    }
}

/// A record, deleted or not.
struct Known {
    inserts: Vec<Mark>,
    edits: Vec<Mark>,
    votes: i64,
    /// The deletes that left it, each with its grace.
    deletes: Vec<(Mark, u64)>,
}

impl Known {
    fn new(mark: Mark) -> Self {
        Self { inserts: vec![mark], edits: vec![mark], votes: 0, deletes: Vec::new() }
    }

    /// Whether the record counts as there, deleted or not, for this entry.
    fn is_there_for(&self, mark: Mark) -> bool {
        let in_grace = |(delete, grace_ms): &(Mark, u64)| mark.accepted_ms - delete.accepted_ms <= *grace_ms;
        let unseen = self.deletes.iter().all(|(delete, _)| !mark.saw(*delete));
        self.deletes.is_empty() || (unseen && self.deletes.iter().any(in_grace))
    }

    fn is_known_to(&self, mark: Mark) -> bool {
        self.inserts.iter().any(|insert| mark.saw(*insert))
    }

    /// Whether it is deleted already, or a delete has seen every edit of it.
    fn gives_way_to(&self, mark: Mark) -> bool {
        !self.deletes.is_empty() || self.edits.iter().all(|edit| mark.saw(*edit))
    }

    fn edit(&mut self, mark: Mark) {
        self.edits.push(mark);
        self.deletes.clear();
    }
}

/// Whether the record is there, by definition.
fn apply(known: &mut Option<Known>, mark: Mark, does: &Does) {
    let there = known.as_ref().is_some_and(|known| known.is_there_for(mark));
    let Some(record) = known.as_mut().filter(|_| there) else {
        if matches!(does, Does::Insert) {
            *known = Some(Known::new(mark));
        }
        return;
    };
    let knows = record.is_known_to(mark);
    match does {
        Does::Insert => {
            record.inserts.push(mark);
            record.edit(mark);
        }
        Does::Vote if knows => {
            record.votes += 1;
            record.edit(mark);
        }
        Does::Delete if knows => *known = None,
        Does::DeleteUnlessChanged(grace_ms) if knows && record.gives_way_to(mark) => {
            record.deletes.push((mark, *grace_ms));
        }
        _ => {}
    }
}

fn ops(record: u8, does: &Does) -> Vec<Op> {
    let record = format!("r{record}");
    vec![match does {
        Does::Insert => insert(&record, vec![]),
        Does::Vote => update(&record, "votes", FieldOp::Increment(1)),
        Does::Delete => delete(&record),
        Does::DeleteUnlessChanged(grace_ms) => delete_unless_changed(&record, *grace_ms),
    }]
}

fn logged(mark: Mark, seq: u64, ops: Vec<Op>) -> Logged {
    let author = mark.author as u8 + 1;
    let base = Base { epoch: EpochId::NONE, end: Offset(mark.base) };
    let accepted = Time::from_ms(mark.accepted_ms);
    let header = Header::new(RunId([author; 8]), seq, Seq(seq), base, accepted);
    let entry = Entry::new(header, Arc::new(Body::new(name("act"), None, ops, None, Salt::default()))).expect("valid");
    let user = UserId::new("user").expect("a user");
    Logged { offset: Offset(mark.offset), actor: ActorId([author; 16]), user, accepted, base: base.end, entry }
}

/// The votes of a record; none if it is not there.
fn votes(state: &State, record: u8) -> Option<i64> {
    let record = state.record(&name("todos"), &id(&format!("r{record}")))?;
    Some(record.field(&name("votes")).and_then(Field::counter).unwrap_or(0))
}

proptest! {
    #[test]
    fn deletes_that_let_updates_win_fold_as_they_are_defined(steps in prop::collection::vec(step(), 1..60)) {
        let (mut state, mut restarted) = (State::new(LogId([7; 16])), State::new(LogId([7; 16])));
        let mut known: BTreeMap<u8, Option<Known>> = BTreeMap::new();
        let (mut now_ms, mut read, mut seqs) = (1_000, [0; AUTHORS], [0; AUTHORS]);
        let mut log = Vec::new();
        for Step { author, reads, pause_ms, record, does, restarts } in steps {
            let offset = log.len() as u64;
            now_ms += pause_ms;
            read[author] = offset.min(read[author] + reads);
            seqs[author] += 1;
            let mark = Mark { offset, base: read[author], author, accepted_ms: now_ms };
            apply(known.entry(record).or_default(), mark, &does);
            let entry = logged(mark, seqs[author], ops(record, &does));
            state.fold(&entry).expect("the next entry");
            restarted.fold(&entry).expect("the next entry");
            log.push(entry);
            if restarts {
                restarted = snapshot::decode(&snapshot::encode(&mut restarted)).expect("decodes");
            }
            for (record, known) in &known {
                let expected = known.as_ref().filter(|known| known.deletes.is_empty()).map(|known| known.votes);
                prop_assert_eq!(votes(&state, *record), expected, "record {} behind {}", record, offset);
            }
            let left = |known: &&Option<Known>| known.as_ref().is_some_and(|known| !known.deletes.is_empty());
            prop_assert!(state.tombstones().len() <= known.values().filter(left).count(), "no more than there can be");
            prop_assert_eq!(restarted.digest(), state.digest());
        }
        prop_assert_eq!(from_scratch(&log).digest(), state.digest());
    }
}
