//! The server's crashes and restarts.

use std::time::Duration;

use driftlog_server::{Keep, Retention};
use driftlog_tests::database::Database;
use driftlog_tests::disk::{Fault, Loss, Moment};
use driftlog_tests::sim::board::{self, add};
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
fn entries_grow_too_old_to_be_kept_though_nobody_writes() {
    let story = Story::begin();
    let keep = Keep::Age(Duration::from_secs(24 * 60 * 60));
    story.world().host.config_mut().retention = Retention::default().with("*", keep);
    story.world().stop_server();
    story.world().start_server();
    let alice = story.person("alice");
    for at in 0..200 {
        alice.act(add(&format!("a{at}"), "milk"));
        story.run_for(200);
    }
    story.run_until_quiet();
    story.leave_alone_for(60_000);
    assert_eq!(story.kept().1, 0, "they are young");
    story.leave_alone_for(24 * 60 * 60 * 1_000);
    assert!(story.kept().1 > 40, "the first of {} that are kept", story.kept().1);
    let bob = story.person("bob");
    story.run_until_quiet();
    assert_eq!(bob.ids().len(), 200);
}

/// Devices of as many users, each with one of a hundred logs.
const MANY: u64 = 1_000;

#[test]
fn a_thousand_devices_come_back_at_once_each_with_work() {
    let story = Story::begin();
    let log = |at: u64| board::log(2 + at % 100);
    let devices: Vec<_> = (0..MANY)
        .map(|at| {
            let mut world = story.world();
            let name = format!("p{at}");
            let device = world.add_device(&name, &name, Database::default());
            world.devices[device].logs = vec![log(at)];
            world.checker.watch(&log(at));
            let tab = world.open_tab(device);
            (device, tab)
        })
        .collect();
    story.run_until_quiet();
    story.world().crash_server(Loss::Unsynced);
    story.run_for(1_000);
    for (at, (device, tab)) in (0..).zip(&devices) {
        story.world().act(*device, *tab, &log(at), add(&format!("a{at}"), "milk")).unwrap();
    }
    story.world().start_server();
    let begun = story.world().now();
    story.run_until_quiet();
    let took = story.world().now() - begun;
    let logs = 2..=101;
    let entries: u64 = logs.map(|number| story.world().server_end(&board::log(number)).0).sum();
    assert_eq!(entries, MANY);
    assert!(took < 60_000, "everybody has everything after {took} ms");
}
