//! The outbox: groups, verdicts, what is released and what a successor takes over.

use std::sync::Arc;

use super::*;
use crate::entry::{Body, Salt};
use crate::id::{Base, ClientId, Name};
use crate::protocol::frame::Marked;
use crate::storage::commit::{Commit, Committed};
use crate::storage::row::{self, Identity};
use crate::time::Time;

const ACTOR: ActorId = ActorId([1; 16]);

fn log() -> LogName {
    LogName::new("board/1").expect("name")
}

fn outbox() -> Outbox {
    Outbox::new(&log(), ACTOR, RunId([2; 8]))
}

fn prepared(n: u64, needs: Vec<Need>) -> Prepared {
    let body = Body::new(Name::new("act").expect("name"), None, vec![], None, Salt([n as u8; 8]));
    let (base, time) = (Base::default(), Time::from_ms(n));
    Prepared { n, base, own: Seq(0), time, needs, replaces: None, letter: None, body: Arc::new(body) }
}

fn run(append: Append, next: u64) -> Vec<Entry> {
    let identity = row::encode_twice(&Identity::new(ClientId([9; 16]), ACTOR));
    match Commit::Append(append).decide(&[Some(identity), Some(row::encode_twice(&Seq(next)))]) {
        Ok((_, Committed::Appended(entries))) => entries,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_arrives_during_an_append_is_the_next_group() {
    let mut outbox = outbox();
    outbox.prepare(prepared(1, vec![]));
    let first = outbox.next_group(&log()).expect("a group");
    outbox.prepare(prepared(2, vec![Need::Earlier(1)]));
    assert!(outbox.next_group(&log()).is_none(), "one group in flight");
    outbox.appended(&run(first, 1));
    let second = outbox.next_group(&log()).expect("the next");
    assert_eq!(second.entries[0].needs, [Need::Seq(Seq(1))]);
}

#[test]
fn a_failed_append_takes_what_needs_it_along() {
    let mut outbox = outbox();
    outbox.prepare(prepared(1, vec![]));
    outbox.next_group(&log()).expect("a group");
    outbox.prepare(prepared(2, vec![Need::Earlier(1)]));
    outbox.prepare(prepared(3, vec![]));
    outbox.prepare(prepared(4, vec![Need::Earlier(2)]));
    let failed: Vec<_> = outbox.append_failed().iter().map(|write| write.n).collect();
    assert_eq!(failed, [1, 2, 4]);
    assert_eq!(outbox.backlog().entries, 1);
    assert_eq!(outbox.next_group(&log()).expect("the rest").entries[0].n, 3);
}

#[test]
fn an_ack_decides_through_its_seq_and_keeps_the_chain() {
    let mut outbox = outbox();
    (1..=3).for_each(|n| outbox.prepare(prepared(n, vec![])));
    let entries = run(outbox.next_group(&log()).expect("a group"), 1);
    outbox.appended(&entries);
    let expected = outbox.chain_at(Seq(3)).expect("all here");
    let mark = |seq| Marked { seq, status: MarkedStatus::Refused, code: None, reason: String::new() };
    let ack = Ack { log: 0, through: Seq(3), accepted: vec![], marked: vec![mark(Seq(2))] };
    let verdicts = outbox.with_ack(outbox.verdicts(), &ack).expect("news");
    assert_eq!(verdicts.chain, expected, "refused ones are in the chain too");
    let decided = outbox.decide(verdicts);
    let marks: Vec<_> = decided.iter().map(|decided| (decided.seq.0, decided.mark.is_some())).collect();
    assert_eq!(marks, [(1, false), (2, true), (3, false)]);
    assert!(outbox.is_empty());
    assert_eq!(outbox.backlog(), Backlog::default());
    outbox.release(Seq(1));
    assert_eq!(outbox.held().map(|entry| entry.header.seq.0).collect::<Vec<_>>(), [3], "not folded yet");
}

#[test]
fn verdicts_one_by_one_cost_the_same_however_many_entries_wait_for_the_fold() {
    const ENTRIES: u64 = 30_000;
    let mut outbox = outbox();
    let mut next = 1;
    (1..=ENTRIES).for_each(|n| outbox.prepare(prepared(n, vec![])));
    while let Some(append) = outbox.next_group(&log()) {
        let entries = run(append, next);
        next += entries.len() as u64;
        outbox.appended(&entries);
    }
    // Looking at all that are decided each time would be 450 million looks.
    for seq in 1..=ENTRIES {
        let ack = Ack { log: 0, through: Seq(seq), accepted: vec![], marked: vec![] };
        let verdicts = outbox.with_ack(outbox.verdicts(), &ack).expect("news");
        outbox.decide(verdicts);
        outbox.release(Seq(0));
    }
    assert_eq!((outbox.len(), outbox.held().count() as u64), (0, ENTRIES));
    outbox.release(Seq(ENTRIES));
    assert_eq!(outbox.held().count(), 0);
}

#[test]
fn a_successor_issues_again_what_is_undecided_though_confirmed_state_covers_its_seq() {
    let mut outbox = outbox();
    (1..=3).for_each(|n| outbox.prepare(prepared(n, vec![])));
    let entries = run(outbox.next_group(&log()).expect("a group"), 1);
    outbox.appended(&entries);
    // A copy wrote five entries under this actor, and a snapshot covers them.
    let to = (&log(), ActorId([3; 16]), Seq(4));
    let inherited = outbox.inherit(to, Heritage::Reissued, Seq(5), &BTreeMap::new(), 0).expect("all is read");
    let again: Vec<_> = inherited.entries.iter().map(|entry| entry.header.seq.0).collect();
    assert_eq!((inherited.verdicts.through, again), (Seq(0), vec![1, 2, 3]));
    let letters = outbox.inherit(to, Heritage::Unknown, Seq(5), &BTreeMap::new(), 0).expect("all is read").letters;
    assert_eq!(letters.len(), 3, "and nobody knows of them if the server has forgotten");
}
