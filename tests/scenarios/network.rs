//! Sockets that break, and devices that are away.

use driftlog_core::session::link::LinkState;
use driftlog_tests::sim::board::{add, rename, tag, untag, vote};
use driftlog_tests::sim::network::Cut;
use driftlog_tests::sim::story::Story;

#[test]
fn a_lost_ack_counts_once() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "milk"));
    story.run_until_quiet();
    let write = alice.act(vote("a", 1));
    while story.entries() == 1 {
        story.run_for(1);
    }
    alice.cut(Cut::Silent);
    story.run_until_quiet();
    assert!(alice.is_accepted(write));
    assert_eq!((alice.field("a", "votes"), bob.field("a", "votes")), ("1".to_owned(), "1".to_owned()));
}

#[test]
fn late_bytes_of_an_old_socket_change_nothing() {
    let story = Story::begin();
    let alice = story.person("alice");
    for at in 0..20 {
        alice.act(add(&format!("a{at}"), "milk"));
        story.run_for(3);
        alice.vanish();
        story.run_for(40_000);
        alice.online();
        story.run_for(500);
    }
    story.run_until_quiet();
    assert_eq!(story.entries(), 20);
}

#[test]
fn a_month_offline_merges_with_what_was_seen_then() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "milk"));
    alice.act(tag("a", "red"));
    story.run_until_quiet();
    bob.offline();
    alice.close();
    for at in 0..500 {
        bob.act(vote("a", 1));
        if at % 50 == 0 {
            // Nobody is there in between, so that a month costs no more than a minute.
            story.run_for(500);
            bob.close();
            story.run_for(3 * 24 * 3_600_000);
            bob.open_tab();
        }
    }
    alice.open_tab();
    story.run_for(5_000);
    bob.act(untag("a", "red"));
    story.run_for(1_000);
    alice.act(tag("a", "red"));
    story.run_until_quiet();
    bob.online();
    story.run_until_quiet();
    assert_eq!(alice.field("a", "votes"), "500");
    assert_eq!(alice.field("a", "tags"), "red", "the add was never seen by the remove");
}

#[test]
fn an_upload_that_fails_once_is_tried_again_without_a_new_action() {
    let story = Story::begin();
    let alice = story.person("alice");
    let write = alice.act(add("a", "milk"));
    story.run_for(4);
    alice.cut(Cut::Told);
    story.run_for(60_000);
    assert!(alice.is_accepted(write));
}

#[test]
fn pings_that_are_answered_do_not_hide_that_nothing_is_synced() {
    let story = Story::begin();
    let alice = story.person("alice");
    story.run_for(5 * 60_000);
    let write = alice.act(add("a", "milk"));
    story.run_for(5_000);
    assert!(alice.is_accepted(write), "a socket that was idle for long still syncs");
}

#[test]
fn an_old_state_that_arrives_while_actions_wait_takes_nothing_out_of_the_view() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    bob.act(add("a", "milk"));
    story.run_until_quiet();
    alice.offline();
    alice.act(rename("a", "bread"));
    alice.act(add("b", "tea"));
    story.run_for(500);
    alice.online();
    for _ in 0..400 {
        story.run_for(5);
        assert_eq!((alice.field("a", "title"), alice.ids().len()), ("bread".to_owned(), 2));
    }
    story.run_until_quiet();
}

#[test]
fn created_offline_edited_offline_and_both_arrive() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.offline();
    alice.act(add("a", "milk"));
    story.run_for(500);
    alice.reload();
    alice.act(rename("a", "bread"));
    story.run_for(500);
    alice.online();
    story.run_until_quiet();
    assert_eq!(bob.field("a", "title"), "bread");
}

#[test]
fn a_reader_that_stops_reading_delays_nobody_and_catches_up() {
    let story = Story::begin();
    let (alice, bob, slow) = (story.person("alice"), story.person("bob"), story.person("slow"));
    let tab = slow.tab();
    story.world().freeze(slow.device(), tab);
    for at in 0..300 {
        let write = alice.act(add(&format!("a{at}"), &"milk ".repeat(40)));
        story.run_for(100);
        assert!(alice.is_accepted(write));
    }
    assert_eq!(bob.ids().len(), 300);
    story.world().thaw(slow.device(), tab);
    story.run_until_quiet();
    assert_eq!(slow.ids().len(), 300);
}

#[test]
fn a_device_that_is_downgraded_with_work_pending_comes_back_and_nothing_counts_twice() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "milk"));
    story.run_until_quiet();
    for _ in 0..5 {
        let write = alice.act(vote("a", 1));
        story.run_for(3);
        assert!(story.world().downgrade(alice.device(), Some(5_000)), "it was active");
        alice.act(vote("a", 1));
        story.run_for(1_000);
        assert_eq!(alice.link(), LinkState::BackingOff);
        bob.act(vote("a", 1));
        story.run_until_quiet();
        assert!(alice.is_accepted(write));
    }
    assert_eq!((alice.field("a", "votes"), bob.field("a", "votes")), ("15".to_owned(), "15".to_owned()));
}
