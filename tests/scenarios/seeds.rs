//! Drawn worlds: a small share of what `simulate` runs, and whether the checker can fail at all.

use driftlog_tests::disk::Loss;
use driftlog_tests::sim::board::{self, add};
use driftlog_tests::sim::seeds;
use driftlog_tests::sim::story::Story;

#[test]
fn drawn_worlds_keep_every_promise() {
    for seed in 1..=4 {
        let outcome = seeds::run(seed);
        let violation = &outcome.report.violation;
        assert!(violation.is_none(), "seed {seed}: {violation:?}: simulate --seeds 1 --first-seed {seed}");
        assert!(outcome.report.accepted > 0, "seed {seed}: nothing happened");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_does_not() {
    let one = seeds::run(5);
    assert_eq!(one.fingerprint, seeds::run(5).fingerprint);
    assert_ne!(one.fingerprint, seeds::run(6).fingerprint);
}

#[test]
fn a_disk_that_lies_about_strict_commits_is_found_out() {
    let story = Story::begin();
    let alice = story.person("alice");
    alice.offline();
    alice.database().lies = true;
    alice.act(add("a", "milk"));
    story.run_for(1_000);
    alice.close();
    alice.database().lose_power(0);
    let mut world = story.world();
    world.calm_down();
    world.run_until_quiet();
    assert_eq!(world.report().violation.as_ref().map(|(kind, _)| *kind), Some("stored-lost"));
}

#[test]
fn a_server_that_forgets_what_it_acknowledged_is_found_out() {
    let story = Story::begin();
    story.world().host.forgetful = true;
    story.world().stop_server();
    story.world().start_server();
    let alice = story.person("alice");
    let write = alice.act(add("a", "milk"));
    story.run_until_quiet();
    assert!(alice.is_accepted(write));
    let mut world = story.world();
    world.crash_server(Loss::Nothing);
    world.start_server();
    world.run_for(1_000);
    assert_eq!(world.report().violation.as_ref().map(|(kind, _)| *kind), Some("acked-lost"));
}

#[test]
fn a_log_that_never_settles_is_found_out() {
    let story = Story::begin();
    let alice = story.person("alice");
    alice.act(add("a", "milk"));
    let mut world = story.world();
    world.crash_server(Loss::Nothing);
    world.run_until_quiet();
    assert_eq!(world.report().violation.as_ref().map(|(kind, _)| *kind), Some("liveness"));
    assert_eq!(world.server_end(&board::log(1)).0, 0);
}
