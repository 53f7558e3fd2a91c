//! Copies of a database of which bytes are damaged as well.

use driftlog_core::storage;
use driftlog_tests::sim::board::{self, add, vote};
use driftlog_tests::sim::story::Story;

use crate::copies::all_is_well;

#[test]
fn a_copy_is_found_behind_an_entry_whose_bytes_are_damaged() {
    let story = Story::begin();
    let alice = story.person("alice");
    alice.act(add("a", "milk"));
    story.run_until_quiet();
    alice.offline();
    let damaged = alice.act(vote("a", 1));
    story.run_for(500);
    let copy = alice.copy();
    copy.open_tab();
    for _ in 0..3 {
        copy.act(vote("a", 10));
        story.run_for(2_000);
    }
    let own: Vec<_> = (0..3).map(|_| alice.act(vote("a", 100))).collect();
    story.run_for(500);
    alice.damage(damaged);
    alice.reload();
    alice.online();
    story.run_until_quiet();
    assert!(own.into_iter().all(|write| alice.is_accepted(write)));
    assert_eq!((alice.field("a", "votes"), copy.field("a", "votes")), ("331".to_owned(), "331".to_owned()));
}

#[test]
fn a_copy_is_found_wherever_it_wrote_around_an_entry_whose_bytes_are_damaged() {
    let cases = (0..48).map(|case| (1 + case % 4, case / 4 % 3, case / 12 % 2, case / 24 % 2 == 1));
    for (written, before, behind, at_once) in cases {
        let case = format!("{written} written by the copy, at once: {at_once}; {before} here, and {behind} behind");
        let story = Story::begin();
        let alice = story.person("alice");
        alice.act(add("a", "milk"));
        story.run_until_quiet();
        alice.offline();
        let copy = alice.copy();
        // Each in its row.
        let act = |votes| {
            let write = alice.act(vote("a", votes));
            story.run_for(500);
            write
        };
        let mut own: Vec<_> = (0..before).map(|_| act(100)).collect();
        let damaged = act(1);
        own.extend((0..behind).map(|_| act(100)));
        if at_once {
            copy.offline();
        }
        copy.open_tab();
        for _ in 0..written {
            copy.act(vote("a", 10));
            story.run_for(2_000);
        }
        copy.online();
        story.run_for(2_000);
        alice.damage(damaged);
        alice.reload();
        alice.online();
        story.run_until_quiet();
        assert!(own.into_iter().all(|write| alice.is_accepted(write)), "{case}");
        let votes = (10 * written + 100 * (before + behind)).to_string();
        assert_eq!((alice.field("a", "votes"), copy.field("a", "votes")), (votes.clone(), votes), "{case}");
    }
}

#[test]
fn what_was_told_before_its_verdict_was_damaged_is_not_told_again_under_a_fresh_actor() {
    let story = Story::begin();
    let alice = story.person("alice");
    alice.act(add("a", "milk"));
    story.run_until_quiet();
    let copy = alice.copy();
    copy.offline();
    copy.database().flip(&storage::verdicts_key(&board::log(1)), 40);
    copy.open_tab();
    copy.act(vote("a", 10));
    alice.act(vote("a", 1));
    story.run_until_quiet();
    copy.online();
    all_is_well(&story, &[&alice, &copy]);
    assert_eq!((copy.field("a", "votes"), story.entries()), ("11".into(), 3));
}

#[test]
fn verdicts_that_are_damaged_behind_a_fresh_actor_are_not_taken_from_its_beginning() {
    let story = Story::begin();
    let alice = story.person("alice");
    let before = [alice.act(add("a", "milk")), alice.act(vote("a", 1))];
    story.run_until_quiet();
    let copy = alice.copy();
    alice.reload();
    story.run_until_quiet();
    copy.open_tab();
    copy.act(vote("a", 10));
    all_is_well(&story, &[&alice, &copy]);
    copy.close();
    copy.database().flip(&storage::verdicts_key(&board::log(1)), 40);
    copy.open_tab();
    all_is_well(&story, &[&alice, &copy]);
    assert_eq!(copy.field("a", "votes"), "11");
    assert!(before.iter().all(|write| copy.is_accepted(*write)));
}
