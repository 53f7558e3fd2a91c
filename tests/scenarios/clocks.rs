//! Clocks that are wrong and jump.

use driftlog_core::notice::LogStatus;
use driftlog_core::session::link::LinkState;
use driftlog_tests::sim::board::{add, rename};
use driftlog_tests::sim::story::Story;

const YEAR_MS: i64 = 365 * 24 * 3_600_000;

#[test]
fn a_server_clock_that_steps_back_does_not_undo_who_saw_whom() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "first"));
    story.run_until_quiet();
    story.world().set_server_clock(-2_000);
    bob.act(rename("a", "second"));
    assert_eq!(bob.field("a", "title"), "second");
    story.run_until_quiet();
    assert_eq!((alice.field("a", "title"), bob.field("a", "title")), ("second".to_owned(), "second".to_owned()));
}

#[test]
fn a_server_clock_that_jumps_a_year_and_back_goes_on() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    for (ahead, title) in [(0, "one"), (YEAR_MS, "two"), (0, "three")] {
        story.world().set_server_clock(ahead);
        alice.act(add("a", title));
        story.run_until_quiet();
        bob.act(rename("a", &format!("{title} of bob")));
        story.run_until_quiet();
        assert_eq!(alice.field("a", "title"), format!("{title} of bob"));
    }
}

#[test]
fn a_client_clock_a_year_ahead_wins_only_up_to_now() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.set_clock(YEAR_MS);
    alice.act(add("a", "from the future"));
    story.run_until_quiet();
    bob.act(rename("a", "now"));
    story.run_until_quiet();
    assert_eq!((alice.field("a", "title"), bob.field("a", "title")), ("now".to_owned(), "now".to_owned()));
}

#[test]
fn a_client_clock_that_steps_back_a_year_does_not_wait_a_year() {
    let story = Story::begin();
    let alice = story.person("alice");
    alice.offline();
    let write = alice.act(add("a", "milk"));
    story.run_for(2_000);
    alice.set_clock(-YEAR_MS);
    {
        // The network comes back, and nobody tells the page.
        let mut world = story.world();
        world.devices[alice.device()].network = driftlog_tests::sim::device::Network::On;
    }
    story.run_for(3 * 60_000);
    assert!(alice.is_accepted(write));
}

#[test]
fn a_short_token_lasts_as_long_as_it_says_after_the_server_clock_was_set_back() {
    let story = Story::begin();
    story.world().set_server_clock(-60_000);
    let alice = story.person("alice");
    let device = alice.device();
    story.world().devices[device].token_ms = 30_000;
    alice.reload();
    alice.act(add("a", "milk"));
    story.run_until_quiet();
    story.run_for(20_000);
    assert_eq!((alice.link(), alice.status()), (LinkState::Live, LogStatus::Synced));
}
