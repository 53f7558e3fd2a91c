//! Events: told while they are worth it, in the log all the same.

use driftlog_core::notice::WriteStatus;
use driftlog_core::protocol::Code;
use driftlog_core::protocol::frame::MarkedStatus;
use driftlog_tests::disk::Loss;
use driftlog_tests::sim::board::{self, add, event, vote};
use driftlog_tests::sim::story::Story;

#[test]
fn an_event_that_expires_before_it_is_delivered_is_a_gap_and_its_author_is_told() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "milk"));
    story.run_until_quiet();
    alice.offline();
    bob.offline();
    let before = alice.act(add("b", "bread"));
    let rang = alice.act(event("ring", 60_000));
    let rang_again = alice.act(event("ring", 60_000));
    let behind = alice.act(add("c", "tea"));
    story.run_for(120_000);
    alice.online();
    story.run_for(5_000);
    for write in [rang, rang_again] {
        match alice.told(write) {
            Some(WriteStatus::Accepted(accepted)) => assert_eq!(accepted.outcome, Some(MarkedStatus::Expired)),
            other => panic!("{other:?}"),
        }
    }
    bob.online();
    // Bob comes back, carol is new, alice starts again; each of them has the same offsets and the same chain.
    let carol = story.person("carol");
    alice.reload();
    story.run_until_quiet();
    assert!(alice.is_accepted(before) && alice.is_accepted(behind));
    assert_eq!((story.entries(), bob.ids(), carol.ids()), (5, alice.ids(), alice.ids()));
}

#[test]
fn what_has_expired_leaves_a_device_whose_page_closes_while_it_is_purged() {
    let begin = || {
        let story = Story::begin();
        let alice = story.person("alice");
        alice.offline();
        alice.act(event("code-123456", 60_000));
        alice.act(add("a", "milk"));
        story.run_for(70_000);
        alice.online();
        (story, alice)
    };
    let (story, alice) = begin();
    let mut purged_ms = 0;
    while alice.holds("code-123456") {
        story.run_for(1);
        purged_ms += 1;
    }
    for before_ms in 0..40 {
        let (story, alice) = begin();
        story.run_for(purged_ms - before_ms);
        alice.reload();
        story.run_for(3_700_000);
        assert!(!alice.holds("code-123456"), "closed {before_ms} ms before its end");
    }
}

#[test]
fn what_expires_while_a_device_is_purged_is_needed_until_a_snapshot_has_it() {
    for latency in (20..300).step_by(40) {
        let story = Story::begin();
        let alice = story.person("alice");
        alice.act(add("a", "milk"));
        // More rows than are looked at in one step.
        for _ in 0..300 {
            alice.act(vote("a", 1));
            story.run_for(50);
        }
        alice.act(event("code-123456", 60_000));
        story.run_for(58_800);
        alice.offline();
        alice.act(event("code-654321", 2_000));
        alice.act(add("b", "bread"));
        story.run_for(500);
        alice.close();
        story.run_for(500);
        (story.world().weather.storage, story.world().weather.latency) = ((100, 101), (latency, latency + 1));
        alice.open_tab();
        alice.online();
        // The second is accepted while the first one leaves.
        story.run_for(20_000);
        alice.offline();
        alice.reload();
        story.run_for(20_000);
        assert_eq!(alice.ids(), ["a", "b"], "{latency} ms");
        alice.online();
        story.run_for(121_000);
        assert!(!alice.holds("code-123456") && !alice.holds("code-654321"), "{latency} ms");
    }
}

#[test]
fn what_has_expired_leaves_a_device_that_hears_of_it_under_a_fresh_actor() {
    let story = Story::begin();
    let alice = story.person("alice");
    alice.act(add("a", "milk"));
    story.run_until_quiet();
    alice.offline();
    alice.act(event("code-123456", 60_000));
    story.run_for(500);
    let copy = alice.copy();
    copy.open_tab();
    copy.act(add("b", "bread"));
    alice.act(add("c", "tea"));
    story.run_for(70_000);
    alice.online();
    story.run_until_quiet();
    story.run_for(120_000);
    assert!(!alice.holds("code-123456") && !copy.holds("code-123456"));
    assert_eq!(alice.ids(), ["a", "b", "c"]);
}

#[test]
fn what_has_expired_leaves_a_device_that_cannot_learn_whether_it_was_accepted() {
    let story = Story::begin();
    story.keep_no_history();
    story.refuse("refused");
    let alice = story.person("alice");
    alice.act(add("a", "milk"));
    alice.act(event("refused", 3_600_000));
    story.run_until_quiet();
    alice.offline();
    alice.act(event("code-123456", 3_600_000));
    story.run_for(500);
    let copy = alice.copy();
    copy.open_tab();
    for _ in 0..40 {
        copy.act(vote("a", 1));
        story.run_for(300);
    }
    story.run_until_quiet();
    assert!(story.kept().1 > 2, "the entry that the copy brought is gone");
    alice.online();
    story.run_until_quiet();
    let codes = || alice.dead_letters().into_iter().map(|(_, code)| code).collect::<Vec<_>>();
    assert_eq!(codes(), [Some(Code::OutcomeUnknown), Some(Code::EntryForbidden)], "somebody may still want it");
    story.run_for(3_600_000);
    story.run_for(61_000);
    assert!(!alice.holds("code-123456") && !copy.holds("code-123456"));
    assert_eq!(codes(), [Some(Code::EntryForbidden)], "what was refused stays until somebody discards it");
}

#[test]
fn what_has_expired_leaves_a_device_that_the_server_has_forgotten() {
    let story = Story::begin();
    let backup = story.world().host.backup();
    let alice = story.person("alice");
    alice.act(add("a", "milk"));
    story.run_until_quiet();
    alice.offline();
    alice.act(event("code-123456", 3_600_000));
    story.run_for(500);
    story.world().crash_server(Loss::Nothing);
    story.world().restore_server(&backup);
    story.world().start_server();
    alice.online();
    story.run_until_quiet();
    assert!(alice.dead_letters().iter().any(|(_, code)| *code == Some(Code::OutcomeUnknown)), "somebody may want it");
    assert!(alice.holds("code-123456"));
    // A device that starts again knows what is to leave.
    alice.reload();
    story.run_for(3_600_000);
    story.run_for(61_000);
    assert!(!alice.holds("code-123456"));
}

#[test]
fn what_has_expired_leaves_a_device_whose_clock_was_set_right_while_it_was_connected() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    // It hears how far it is ahead of the server, and then it is not any more.
    alice.set_clock(3_600_000);
    alice.reload();
    alice.act(add("a", "milk"));
    story.run_until_quiet();
    alice.set_clock(0);
    alice.act(event("code-123456", 60_000));
    bob.act(event("code-654321", 60_000));
    story.run_until_quiet();
    assert!(alice.holds("code-123456") && alice.holds("code-654321"));
    story.run_for(121_000);
    assert!(!alice.holds("code-123456") && !alice.holds("code-654321"));
}

#[test]
fn what_has_expired_leaves_a_device_whose_clock_was_wrong_when_it_was_looked_at() {
    let story = Story::begin();
    let alice = story.person("alice");
    // Connected, so that nobody tells it that it is ahead: it dates what it does a year later, and believes it.
    alice.set_clock(31_536_000_000);
    alice.act(event("code-123456", 600_000));
    story.run_for(180_000);
    alice.offline();
    story.run_for(1_000);
    alice.online();
    story.run_for(600_000);
    assert!(!alice.holds("code-123456"));
}

#[test]
fn what_has_expired_leaves_a_device_that_was_connected_when_the_servers_clock_was_set_right() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    // A day that the server's clock skips: no device hears of it but by what is accepted since.
    bob.act(event("code-123456", 86_400_000));
    story.run_until_quiet();
    assert!(alice.holds("code-123456"));
    story.world().set_server_clock(90_000_000);
    bob.act(add("a", "milk"));
    story.run_for(121_000);
    assert!(!alice.holds("code-123456") && !bob.holds("code-123456"));
}

#[test]
fn what_has_expired_leaves_a_device_whose_clock_is_right_again_when_its_page_starts() {
    let story = Story::begin();
    let alice = story.person("alice");
    // Connected, so that nobody tells it that it is ahead: what leaves is looked at a year later.
    alice.set_clock(31_536_000_000);
    alice.act(event("code-123456", 600_000));
    story.run_for(180_000);
    alice.set_clock(0);
    alice.reload();
    story.run_for(600_000);
    assert!(!alice.holds("code-123456"));
}

#[test]
fn what_has_expired_leaves_a_device_whose_clock_is_right_again_when_it_opens_the_log() {
    let story = Story::begin();
    let alice = story.person("alice");
    alice.set_clock(31_536_000_000);
    alice.act(event("code-123456", 600_000));
    story.run_for(180_000);
    alice.close();
    alice.set_clock(0);
    // The server says its time while only another log is open.
    for log in [2, 1] {
        story.world().devices[alice.device()].logs = vec![board::log(log)];
        alice.open_tab();
        story.run_for(1_000);
    }
    story.run_for(600_000);
    assert!(!alice.holds("code-123456"));
}

#[test]
fn what_is_dated_ahead_leaves_a_device_that_cannot_learn_whether_it_was_accepted() {
    for is_reloaded in [false, true] {
        let story = Story::begin();
        let backup = story.world().host.backup();
        let alice = story.person("alice");
        alice.act(add("a", "milk"));
        story.run_until_quiet();
        alice.offline();
        alice.set_clock(31_536_000_000);
        alice.act(event("code-123456", 60_000));
        story.run_for(500);
        alice.set_clock(0);
        alice.reload();
        story.world().crash_server(Loss::Nothing);
        story.world().restore_server(&backup);
        story.world().start_server();
        alice.online();
        story.run_until_quiet();
        assert_eq!(alice.dead_letters().len(), 2, "somebody may want it");
        if is_reloaded {
            alice.reload();
        }
        story.run_for(121_000);
        assert!(!alice.holds("code-123456"));
    }
}

#[test]
fn what_has_expired_leaves_the_servers_files_and_every_device() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "milk"));
    alice.act(event("code-123456", 60_000));
    alice.act(event("for-an-hour", 3_600_000));
    alice.act(event("code-654321", 60_000));
    story.run_until_quiet();
    for word in ["code-123456", "code-654321"] {
        assert!(story.server_holds(word) && alice.holds(word) && bob.holds(word));
    }
    story.run_for(61_000);
    story.run_until_purged();
    story.run_for(60_000);
    for word in ["code-123456", "code-654321"] {
        assert!(!story.server_holds(word), "the server");
        assert!(!alice.holds(word), "who said it");
        assert!(!bob.holds(word), "who heard it");
    }
    assert!(story.server_holds("for-an-hour") && alice.holds("for-an-hour"), "its time has not come");
    // Who comes now stands where the others do, also after everybody has started again.
    let carol = story.person("carol");
    alice.act(add("b", "bread"));
    story.run_until_quiet();
    alice.reload();
    bob.reload();
    story.run_until_quiet();
    assert_eq!((story.entries(), carol.ids(), bob.ids()), (5, alice.ids(), alice.ids()));
    story.run_for(3_600_000);
    alice.reload();
    story.run_for(61_000);
    assert!(!alice.holds("for-an-hour"), "a device that starts again knows what is to leave");
}

#[test]
fn an_event_in_time_is_accepted_without_an_outcome_and_gone_for_who_comes_later() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    let rang = alice.act(event("ring", 60_000));
    story.run_until_quiet();
    assert!(matches!(alice.told(rang), Some(WriteStatus::Accepted(accepted)) if accepted.outcome.is_none()));
    bob.act(add("a", "milk"));
    story.run_for(120_000);
    let carol = story.person("carol");
    story.run_until_quiet();
    assert_eq!((story.entries(), carol.ids()), (2, bob.ids()));
}
