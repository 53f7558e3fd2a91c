//! The local database and its tabs.

use driftlog_core::id::Offset;
use driftlog_core::notice::{LogStatus, WriteStatus};
use driftlog_tests::database::{Fault, Room};
use driftlog_tests::sim::board::{add, rename, tag, untag};
use driftlog_tests::sim::story::Story;

#[test]
fn a_full_quota_takes_an_action_and_what_needs_it_out_of_the_view_and_leaves_no_gap() {
    let story = Story::begin();
    let alice = story.person("alice");
    alice.act(add("a", "milk"));
    story.run_until_quiet();
    alice.database().full = true;
    let lost = [alice.act(add("b", "bread")), alice.act(rename("b", "rye"))];
    story.run_for(500);
    assert!(lost.iter().all(|write| matches!(alice.told(*write), Some(WriteStatus::Failed(..)))));
    assert_eq!(alice.ids(), ["a"]);
    alice.database().full = false;
    alice.act(add("c", "tea"));
    story.run_until_quiet();
    assert_eq!((alice.ids(), alice.database().own_seqs()), (vec!["a".to_owned(), "c".to_owned()], vec![1, 2]));
}

#[test]
fn acks_and_cursors_get_through_when_the_quota_is_full_again() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "milk"));
    story.run_for(8);
    alice.database().full = true;
    bob.act(add("b", "bread"));
    story.run_for(120_000);
    alice.database().full = false;
    story.run_until_quiet();
    assert_eq!((alice.ids(), alice.outbox()), (vec!["a".to_owned(), "b".to_owned()], 0));
}

#[test]
fn an_unknown_outcome_is_read_before_it_is_decided() {
    for written in [false, true] {
        let story = Story::begin();
        let alice = story.person("alice");
        alice.database().lose_next_answer = Some(written);
        // Only appends are hit by it, so the story needs no more than the action.
        let write = alice.act(add("a", "milk"));
        assert_eq!(alice.ids(), ["a"], "in view meanwhile");
        story.run_until_quiet();
        assert!(alice.is_accepted(write));
        assert_eq!(story.entries(), 1, "neither lost nor doubled: {:?}", Fault::Unknown { written });
    }
}

#[test]
fn every_commit_of_a_client_may_fail_or_be_of_unknown_outcome() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    story.world().weather.commits_failed = 150;
    story.world().weather.commits_unknown = 150;
    story.world().weather.reads_failed = 150;
    for at in 0..60 {
        alice.act(add(&format!("a{at}"), "milk"));
        story.run_for(300);
        if at % 20 == 19 {
            alice.close();
            story.world().open_tab(alice.device());
            story.run_for(20_000);
        }
    }
    story.world().calm_down();
    story.run_until_quiet();
    assert_eq!(alice.ids(), bob.ids());
}

#[test]
fn the_second_action_of_a_tick_names_the_first() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "milk"));
    alice.act(rename("a", "bread"));
    story.run_until_quiet();
    assert_eq!(bob.field("a", "title"), "bread");
}

#[test]
fn two_tabs_never_give_the_same_seq_and_one_ships_for_both() {
    let story = Story::begin();
    let alice = story.person("alice");
    let (one, two) = (alice.tab(), alice.open_tab());
    for at in 0..30 {
        alice.act_in(one, add(&format!("a{at}"), "milk"));
        alice.act_in(two, add(&format!("b{at}"), "bread"));
        story.run_for(at % 4);
    }
    story.run_until_quiet();
    assert_eq!(alice.database().own_seqs(), (1..=60).collect::<Vec<_>>());
}

#[test]
fn a_tab_frozen_for_long_acts_on_what_it_showed_and_gives_no_seq_twice() {
    let story = Story::begin();
    let alice = story.person("alice");
    let old = alice.tab();
    alice.act(add("a", "milk"));
    alice.act(tag("a", "red"));
    story.run_until_quiet();
    let new = alice.open_tab();
    story.world().freeze(alice.device(), old);
    story.run_for(10 * 60_000);
    alice.act_in(new, tag("a", "red"));
    story.run_until_quiet();
    story.world().thaw(alice.device(), old);
    // It acts before it has read anything.
    alice.act_in(old, untag("a", "red"));
    story.run_until_quiet();
    assert_eq!(alice.field("a", "tags"), "red", "what it did not show stays");
    assert!(alice.database().own_seqs().windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn a_tab_whose_database_is_ahead_of_its_view_has_the_base_of_its_view() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "milk"));
    alice.act(tag("a", "red"));
    story.run_until_quiet();
    let two = alice.open_tab();
    story.world().freeze(alice.device(), two);
    let before = story.entries();
    bob.act(tag("a", "red"));
    bob.act(add("b", "tea"));
    story.run_until_quiet();
    story.world().thaw(alice.device(), two);
    // The rows have what bob did; this tab has read none of it.
    let write = alice.act_in(two, untag("a", "red"));
    story.run_until_quiet();
    let logged = story
        .logged()
        .into_iter()
        .find(|logged| (logged.entry.header.run, logged.entry.header.n) == (write.run, write.n));
    assert_eq!(logged.map(|logged| logged.entry.header.base.end), Some(Offset(before)));
    assert_eq!((alice.field("a", "tags"), bob.field("a", "tags")), ("red".into(), "red".into()));
}

#[test]
fn a_tag_that_one_tab_adds_and_another_sees_and_removes_stays_removed() {
    let story = Story::begin();
    let alice = story.person("alice");
    let one = alice.tab();
    alice.act(add("a", "milk"));
    story.run_until_quiet();
    let two = alice.open_tab();
    alice.offline();
    alice.act_in(one, tag("a", "red"));
    story.run_for(200);
    assert_eq!(alice.field("a", "tags"), "red", "the other tab sees it");
    alice.act_in(two, untag("a", "red"));
    story.run_for(200);
    alice.online();
    story.run_until_quiet();
    assert_eq!(alice.field("a", "tags"), "");
}

#[test]
fn a_log_that_no_tab_has_open_ships_all_the_same() {
    let story = Story::begin();
    let alice = story.person("alice");
    alice.offline();
    alice.act(add("a", "milk"));
    story.run_for(200);
    alice.close();
    story.world().devices[alice.device()].logs.clear();
    alice.online();
    story.world().open_tab(alice.device());
    story.run_for(60_000);
    assert_eq!(story.entries(), 1);
}

#[test]
fn a_leader_that_hangs_is_replaced_and_the_work_of_both_tabs_arrives() {
    let story = Story::begin();
    let alice = story.person("alice");
    let one = alice.tab();
    let two = alice.open_tab();
    alice.act_in(one, add("a", "milk"));
    story.world().freeze(alice.device(), one);
    alice.act_in(two, add("b", "bread"));
    story.run_for(60_000);
    assert_eq!(story.entries(), 2);
    story.world().thaw(alice.device(), one);
    story.run_until_quiet();
}

#[test]
fn a_tab_that_takes_the_lead_after_many_welcomes_is_no_copy() {
    let story = Story::begin();
    let alice = story.person("alice");
    let one = alice.tab();
    let two = alice.open_tab();
    for _ in 0..3 {
        alice.offline();
        alice.online();
        story.run_for(60_000);
    }
    story.world().kill_tab(alice.device(), one);
    alice.act_in(two, add("a", "milk"));
    story.run_until_quiet();
    assert_eq!(story.entries(), 1);
}

#[test]
fn power_goes_at_any_moment_and_what_was_stored_is_there() {
    let story = Story::begin();
    let alice = story.person("alice");
    for at in 0..40 {
        alice.act(add(&format!("a{at}"), "milk"));
        story.run_for(at % 13);
        alice.lose_power();
    }
    story.run_until_quiet();
}

#[test]
fn thousands_of_pending_actions_at_boot_arrive_in_order_and_once() {
    let story = Story::begin();
    let alice = story.person("alice");
    alice.offline();
    for at in 0..20_000 {
        alice.act(add(&format!("a{}", at % 500), "milk"));
        if at % 500 == 0 {
            story.run_for(10);
        }
    }
    story.run_for(1_000);
    alice.reload();
    assert_eq!(alice.outbox(), 20_000);
    alice.online();
    story.run_until_quiet();
    assert_eq!(story.entries(), 20_000);
}

#[test]
fn verdicts_are_stored_and_the_outbox_drains_where_received_entries_do_not_fit() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.database().room = Room::NoReceivedEntries;
    bob.act(add("b", "bread"));
    story.run_for(1_000);
    let write = alice.act(add("a", "milk"));
    story.run_for(30_000);
    assert_eq!((alice.outbox(), alice.status()), (0, LogStatus::Behind), "the outbox drains, visibly behind");
    alice.database().room = Room::Plenty;
    story.run_until_quiet();
    assert!(alice.is_accepted(write));
    assert_eq!(alice.ids(), ["a", "b"]);
}

#[test]
fn a_tab_asleep_while_the_leader_prunes_what_it_did_not_read_catches_up() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    let (one, two) = (alice.tab(), alice.open_tab());
    for round in 0..4 {
        story.world().freeze(alice.device(), two);
        for at in 0..60 {
            bob.act(add(&format!("b{round}{at}"), &"bread ".repeat(800)));
            story.run_for(20);
        }
        story.run_for(5_000);
        story.world().thaw(alice.device(), two);
        story.run_until_quiet();
    }
    let log = driftlog_tests::sim::board::log(1);
    for tab in [one, two] {
        let shown = story.world().rows(alice.device(), tab, &log).map(|rows| rows.len());
        assert_eq!(shown, Some(240), "tab {tab}");
    }
}
