//! The server's crashes, restarts and backups.

use driftlog_core::notice::LogStatus;
use driftlog_core::session::link::LinkState;
use driftlog_tests::disk::{Fault, Loss, Moment};
use driftlog_tests::sim::board::add;
use driftlog_tests::sim::story::Story;

#[test]
fn power_goes_at_every_moment_of_the_server_and_nothing_acknowledged_is_lost() {
    for loss in Loss::ALL {
        let story = Story::begin();
        let (alice, bob) = (story.person("alice"), story.person("bob"));
        for at in 0..25 {
            alice.act(add(&format!("a{at}"), "milk"));
            story.run_for(at);
            story.world().crash_and_restart_server(loss);
            story.run_for(6_000);
        }
        story.run_until_quiet();
        assert_eq!((story.entries(), bob.ids().len()), (25, 25), "{loss:?}");
    }
}

#[test]
fn a_disk_that_fails_or_is_full_ends_the_server_and_its_next_start_goes_on() {
    for fault in [Fault::Io, Fault::Full, Fault::PowerOff] {
        let story = Story::begin();
        let alice = story.person("alice");
        for at in 0..12 {
            story.world().host.disk.reset_counters();
            story.world().host.disk.fail(Moment::Change(1 + at), fault);
            alice.act(add(&format!("a{at}"), "milk"));
            story.run_for(20_000);
        }
        story.world().host.disk.reset_counters();
        story.run_until_quiet();
        assert_eq!(story.entries(), 12, "{fault:?}");
    }
}

#[test]
fn a_restart_in_good_order_loses_nothing() {
    let story = Story::begin();
    let alice = story.person("alice");
    for at in 0..10 {
        alice.act(add(&format!("a{at}"), "milk"));
        story.run_for(at);
        story.world().stop_server();
        story.run_for(1_000);
        story.world().start_server();
    }
    story.run_until_quiet();
    assert_eq!(story.entries(), 10);
}

#[test]
fn a_snapshot_slower_than_the_log_grows_still_brings_a_new_client_up() {
    let story = Story::begin();
    story.world().weather.snapshot = (20_000, 20_000);
    let alice = story.person("alice");
    for at in 0..300 {
        alice.act(add(&format!("a{at}"), "milk"));
        story.run_for(200);
    }
    let bob = story.person("bob");
    story.run_until_quiet();
    assert_eq!(bob.ids().len(), 300);
}

#[test]
fn a_server_restored_from_a_backup_and_overtaken_never_mixes_histories() {
    let story = Story::begin();
    let (alice, bob) = (story.person("alice"), story.person("bob"));
    alice.act(add("a", "milk"));
    story.run_until_quiet();
    let backup = story.world().host.backup();
    alice.act(add("b", "bread"));
    story.run_until_quiet();
    bob.offline();
    alice.close();
    story.world().crash_server(Loss::Nothing);
    story.world().restore_server(&backup);
    story.world().start_server();
    let carol = story.person("carol");
    for at in 0..5 {
        carol.act(add(&format!("c{at}"), "tea"));
    }
    story.run_for(5_000);
    bob.online();
    story.run_for(30_000);
    assert!(bob.status() == LogStatus::Degraded || bob.link() == LinkState::Blocked, "{:?}", bob.status());
    assert_eq!(bob.ids(), ["a", "b"], "what it has is still shown");
    alice.open_tab();
    story.run_for(30_000);
    assert!(alice.status() == LogStatus::Degraded || alice.link() == LinkState::Blocked, "{:?}", alice.status());
    story.run_until_quiet();
    assert_eq!(carol.ids().len(), 6);
}

#[test]
fn ten_devices_come_back_at_once() {
    let story = Story::begin();
    let people: Vec<_> = (0..10).map(|at| story.person(&format!("p{at}"))).collect();
    for (at, person) in people.iter().enumerate() {
        person.act(add(&format!("a{at}"), "milk"));
    }
    story.world().crash_and_restart_server(Loss::Unsynced);
    story.run_until_quiet();
    assert_eq!(story.entries(), 10);
}
