//! Dead letters that are made again, from whichever side and in whichever tab.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use driftlog_core::protocol::Code;
use driftlog_core::sequencer::{Case, Ruling};
use driftlog_tests::sim::board::{self, add, rename};
use driftlog_tests::sim::network::Cut;
use driftlog_tests::sim::story::{Person, Story};

/// A story whose server refuses everything until the door is open.
fn door() -> (Story, Arc<AtomicBool>) {
    let (story, open) = (Story::begin(), Arc::new(AtomicBool::new(false)));
    let door = Arc::clone(&open);
    story.set_policy(move |_: &Case<'_>| match door.load(Ordering::Relaxed) {
        true => Ruling::Allow,
        false => Ruling::Refuse { code: Code::EntryForbidden, reason: "the door is closed".into() },
    });
    (story, open)
}

fn server_letters(story: &Story) -> Vec<u64> {
    story.world().server_letters(&board::log(1))
}

fn letters(person: &Person) -> Vec<u64> {
    person.dead_letters().iter().map(|(id, _)| id.seq.0).collect()
}

#[test]
fn what_is_redriven_at_the_server_and_by_its_author_counts_once() {
    for server_first in [false, true] {
        let (story, open) = door();
        let (alice, bob) = (story.person("alice"), story.person("bob"));
        alice.act(add("a", "milk"));
        story.run_until_quiet();
        let (letter, at_server) = (alice.dead_letters()[0].0, server_letters(&story)[0]);
        open.store(true, Ordering::Relaxed);
        if server_first {
            story.world().operator_redrives(at_server);
        }
        alice.redrive(letter, None);
        story.run_for(if server_first { 0 } else { 200 });
        story.world().operator_redrives(at_server);
        story.run_until_quiet();
        assert_eq!((story.entries(), bob.ids()), (1, vec!["a".to_owned()]), "server first: {server_first}");
        assert_eq!(server_letters(&story), Vec::<u64>::new());
    }
}

#[test]
fn of_a_line_of_refused_replacements_one_is_let_in_whoever_redrives_which() {
    for server_first in [false, true] {
        let (story, open) = door();
        let (alice, bob) = (story.person("alice"), story.person("bob"));
        alice.act(add("a", "milk"));
        story.run_until_quiet();
        let first = alice.dead_letters()[0].0;
        alice.redrive(first, Some(add("b", "bread")));
        story.run_until_quiet();
        assert_eq!((letters(&alice), server_letters(&story).len()), (vec![1, 2], 2));
        open.store(true, Ordering::Relaxed);
        let second_at_server = server_letters(&story)[1];
        if server_first {
            story.world().operator_redrives(second_at_server);
            story.run_for(200);
            // Alice did not wait for it.
            alice.cut(Cut::Silent);
        }
        if let Some((letter, _)) = alice.dead_letters().first().copied() {
            alice.redrive(letter, Some(add("c", "tea")));
        }
        story.run_until_quiet();
        story.world().operator_redrives(second_at_server);
        story.run_until_quiet();
        let shown = if server_first { "b" } else { "c" };
        assert_eq!((story.entries(), bob.ids()), (1, vec![shown.to_owned()]), "server first: {server_first}");
        assert_eq!((letters(&alice), server_letters(&story)), (vec![], vec![]));
    }
}

#[test]
fn a_letter_that_is_changed_in_one_tab_and_discarded_in_another_counts_once_at_most() {
    let (story, open) = door();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    let one = alice.tab();
    let two = alice.open_tab();
    alice.act_in(one, add("a", "milk"));
    story.run_until_quiet();
    open.store(true, Ordering::Relaxed);
    let letter = alice.dead_letters()[0].0;
    let log = board::log(1);
    let changed = story.world().redrive(alice.device(), one, &log, letter, Some(add("a", "oat milk"))).unwrap();
    story.world().discard(alice.device(), two, &log, letter).unwrap();
    story.run_until_quiet();
    assert!(alice.is_accepted(changed));
    assert_eq!((bob.field("a", "title"), letters(&alice)), ("oat milk".to_owned(), vec![]));
}

#[test]
fn a_redrive_meets_a_crash_of_either_side_at_any_moment() {
    for gap in 0..30 {
        let (story, open) = door();
        let (alice, bob) = (story.person("alice"), story.person("bob"));
        alice.act(add("a", "milk"));
        story.run_until_quiet();
        open.store(true, Ordering::Relaxed);
        alice.redrive(alice.dead_letters()[0].0, None);
        story.run_for(gap);
        if gap % 2 == 0 {
            alice.lose_power();
        } else {
            story.world().crash_and_restart_server(driftlog_tests::disk::Loss::Unsynced);
        }
        story.run_until_quiet();
        // The power may have gone before it was stored: then it is a dead letter as before.
        let expected = if letters(&alice).is_empty() { 1 } else { 0 };
        assert_eq!((story.entries(), bob.ids().len()), (expected, expected as usize), "after {gap} ms");
    }
}

#[test]
fn what_is_given_up_here_and_was_accepted_there_is_no_dead_letter() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    // The server dies after its commit, before it has said anything.
    story.world().weather.answers_lost = 1_000;
    let write = alice.act(add("a", "milk"));
    let needs_it = alice.act(rename("a", "oat milk"));
    while story.world().host.server.is_some() {
        story.run_for(1);
    }
    story.world().weather.answers_lost = 0;
    alice.offline();
    alice.park(write);
    story.run_for(100);
    assert_eq!((letters(&alice), alice.outbox()), (vec![1], 1), "given up for now");
    alice.online();
    story.run_until_quiet();
    assert_eq!((letters(&alice), alice.outbox(), story.entries()), (vec![], 0, 2), "the verdict holds");
    assert!(alice.is_accepted(needs_it));
    assert_eq!((alice.field("a", "title"), bob.field("a", "title")), ("oat milk".into(), "oat milk".into()));
}

#[test]
fn a_damaged_row_in_the_middle_of_the_outbox_is_parked_and_what_is_behind_it_goes_on() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.offline();
    let writes: Vec<_> = ["a", "b", "c", "d"]
        .into_iter()
        .map(|record| {
            let write = alice.act(add(record, "milk"));
            story.run_for(50);
            write
        })
        .collect();
    alice.close();
    alice.damage(writes[1]);
    alice.open_tab();
    assert_eq!((letters(&alice), alice.ids()), (vec![2], vec!["a".into(), "c".into(), "d".into()]));
    alice.online();
    story.run_until_quiet();
    assert_eq!((story.entries(), bob.ids()), (3, vec!["a".into(), "c".into(), "d".into()]));
    assert_eq!((alice.dead_letters()[0].1, alice.outbox()), (Some(Code::Damaged), 0));
}
