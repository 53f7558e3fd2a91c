//! Tokens, users, and copies of a profile.

use driftlog_core::session::link::LinkState;
use driftlog_tests::sim::board::add;
use driftlog_tests::sim::story::Story;

#[test]
fn a_token_that_ends_in_mid_queue_is_asked_for_again_and_the_queue_goes_on() {
    let story = Story::begin();
    let alice = story.person("alice");
    story.world().devices[alice.device()].token_ms = 5_000;
    alice.offline();
    for at in 0..200 {
        alice.act(add(&format!("a{at}"), "milk"));
    }
    alice.online();
    for at in 0..40 {
        alice.act(add(&format!("b{at}"), "milk"));
        story.run_for(1_000);
    }
    story.run_until_quiet();
    assert_eq!(story.entries(), 240);
}

#[test]
fn stale_tokens_stop_nothing_for_good() {
    let story = Story::begin();
    let alice = story.person("alice");
    story.world().weather.tokens_stale = 600;
    for at in 0..10 {
        alice.offline();
        alice.act(add(&format!("a{at}"), "milk"));
        alice.online();
        story.run_for(10_000);
    }
    story.run_until_quiet();
    assert_eq!(story.entries(), 10);
}

#[test]
fn nothing_of_a_database_is_shipped_under_another_users_token() {
    let story = Story::begin();
    let alice = story.person("alice");
    alice.act(add("a", "milk"));
    story.run_until_quiet();
    alice.offline();
    alice.act(add("b", "bread"));
    story.run_for(500);
    alice.close();
    story.world().devices[alice.device()].user = "mallory".to_owned();
    alice.online();
    alice.open_tab();
    story.run_for(120_000);
    assert_eq!((alice.link(), story.entries(), alice.outbox()), (LinkState::Blocked, 1, 1));
    alice.close();
    story.world().devices[alice.device()].user = "alice".to_owned();
    alice.open_tab();
    story.run_until_quiet();
    assert_eq!(story.entries(), 2, "the queue is intact");
}

#[test]
fn copies_of_a_profile_never_pass_for_each_other() {
    for connected in [false, true] {
        let story = Story::begin();
        let alice = story.person("alice");
        if !connected {
            alice.offline();
        }
        alice.act(add("a", "milk"));
        story.run_for(1_000);
        let copy = alice.copy();
        copy.open_tab();
        alice.act(add("b", "bread"));
        copy.act(add("c", "tea"));
        alice.online();
        story.run_for(300_000);
        assert!(alice.ids().contains(&"b".to_owned()));
        assert!(copy.ids().contains(&"c".to_owned()), "both works are still there");
    }
}
