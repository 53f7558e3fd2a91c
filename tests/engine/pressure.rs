//! Own work that piles up: the app hears why, and at the bound nothing more is recorded and nothing is lost.

use driftlog_core::chain::Chain;
use driftlog_core::engine::{BacklogFull, CallError};
use driftlog_core::notice::PressureLevel;
use driftlog_core::outbox::BacklogBound;
use driftlog_core::protocol::Frame;
use driftlog_core::protocol::frame::Credit;

use crate::device::{Device, log};
use crate::held::{ack, pushed, welcome_with};

fn bounded(entries: Option<u64>, bytes: Option<u64>) -> (Device, usize) {
    let mut device = Device::new(1);
    device.backlog = BacklogBound { entries, bytes };
    let tab = device.tab();
    device.open(tab);
    (device, tab)
}

fn full(device: &mut Device, tab: usize, title: &str) -> BacklogFull {
    match device.try_add(tab, title) {
        Err(CallError::BacklogFull(full)) => full,
        other => panic!("{other:?}"),
    }
}

#[test]
fn at_the_bound_nothing_more_is_recorded_and_it_goes_on_when_the_server_has_answered() {
    let (mut device, tab) = bounded(Some(4), None);
    for (title, level) in [("a", "none"), ("b", "none"), ("c", "high"), ("d", "full")] {
        device.add(tab, title);
        device.run();
        assert_eq!(device.state(tab).pressure.name(), level, "after {title}");
    }
    let told = full(&mut device, tab, "e");
    assert_eq!((told.log, told.backlog.entries, told.storage_full), (log(), 4, false));
    assert_eq!(device.titles(tab), ["a", "b", "c", "d"], "it was never in view");
    // The bound is of the device: another tab, and a reload, find it reached.
    let other = device.tab();
    device.open(other);
    full(&mut device, other, "e");
    let again = device.reload(tab);
    device.open(again);
    full(&mut device, again, "e");
    assert_eq!(device.titles(again), ["a", "b", "c", "d"]);
    device.lead(again);
    device.run();
    assert_eq!((device.state(again).pressure, device.outbox(again)), (PressureLevel::None, 0));
    device.try_add(again, "e").expect("there is room again");
    device.run();
    assert_eq!(device.logged(), ["a", "b", "c", "d", "e"]);
}

#[test]
fn a_bound_of_bytes_counts_what_waits_and_what_is_stored() {
    let (mut device, tab) = bounded(None, Some(400));
    device.add(tab, &"a".repeat(60));
    let unstored = device.state(tab).outbox_bytes;
    assert!((60..400).contains(&unstored), "{unstored}");
    device.run();
    assert!(device.state(tab).outbox_bytes > unstored, "its header came with the append");
    let mut more = (0..).map(|at| format!("{at:060}"));
    while more.by_ref().take(1).any(|title| device.try_add(tab, &title).is_ok()) {}
    let waits = device.pressure(tab);
    assert_eq!((waits.level, &waits.log), (PressureLevel::Full, &Some(log())));
    assert!(waits.backlog.bytes >= 400 && waits.backlog.entries < 10, "{waits:?}");
}

/// A device whose leader is welcome without credit and has something to push; another tab shows the log too.
fn without_credit() -> (Device, [usize; 2], u32) {
    let mut device = Device::new(1);
    let (tab, other) = (device.tab(), device.tab());
    device.open(tab);
    device.open(other);
    device.elect(tab);
    let start = Chain::actor_start(device.actor(tab), &log());
    let number = welcome_with(&mut device, tab, (0, start), 0);
    device.add(tab, "milk");
    device.run();
    assert!(pushed(&mut device, tab).0.is_empty());
    (device, [tab, other], number)
}

#[test]
fn work_that_waits_for_credit_is_told_in_every_tab_and_sent_with_the_first_credit() {
    let (mut device, tabs, number) = without_credit();
    device.pass(999);
    assert!(tabs.iter().all(|tab| device.pressure(*tab).level == PressureLevel::None), "not at once");
    device.pass(1);
    for tab in tabs {
        let pressure = device.pressure(tab);
        assert_eq!((pressure.level, pressure.backlog.entries), (PressureLevel::Waiting, 1));
        assert_eq!(device.state(tab).pressure, PressureLevel::Waiting);
    }
    device.receive(tabs[0], &Frame::Credit(Credit { bytes: 1, of_log: None }));
    assert_eq!(pushed(&mut device, tabs[0]).0, [1], "one push may reach beyond the credit");
    assert!(tabs.iter().all(|tab| device.pressure(*tab).level == PressureLevel::None));
    // The next one waits from when it came.
    device.add(tabs[1], "bread");
    device.run();
    device.pass(999);
    assert_eq!(device.pressure(tabs[0]).level, PressureLevel::None);
    device.pass(1);
    assert_eq!(device.pressure(tabs[1]).level, PressureLevel::Waiting);
    device.receive(tabs[0], &ack(number, 1));
    device.receive(tabs[0], &Frame::Credit(Credit { bytes: 10_000, of_log: None }));
    assert_eq!(pushed(&mut device, tabs[0]).0, [2]);
    device.receive(tabs[0], &ack(number, 2));
    let pressure = device.pressure(tabs[1]);
    assert_eq!((pressure.level, pressure.log, pressure.backlog.entries), (PressureLevel::None, None, 0));
}

#[test]
fn without_a_connection_the_connection_says_so_and_there_is_no_pressure() {
    let (mut device, [tab, other], _) = without_credit();
    device.pass(1_000);
    assert_eq!(device.pressure(tab).level, PressureLevel::Waiting);
    device.cut(tab);
    assert!([tab, other].iter().all(|tab| device.pressure(*tab).level == PressureLevel::None));
}

#[test]
fn when_the_device_is_full_one_action_tries_it_and_no_other_comes_into_view_meanwhile() {
    let (mut device, tab) = bounded(None, None);
    device.add(tab, "milk");
    device.run();
    device.database.full = true;
    let bread = device.add(tab, "bread");
    device.run();
    assert!(device.failed(tab, bread));
    assert_eq!(device.state(tab).pressure, PressureLevel::StorageFull);
    let tea = device.try_add(tab, "tea").expect("it tries");
    assert!(full(&mut device, tab, "salt").storage_full);
    device.run();
    assert!(device.failed(tab, tea));
    assert_eq!((device.titles(tab), device.outbox(tab)), (vec!["milk".to_owned()], 1), "what was recorded stays");
    device.database.full = false;
    device.try_add(tab, "tea").expect("it tries");
    full(&mut device, tab, "salt");
    device.run();
    assert_eq!(device.state(tab).pressure, PressureLevel::None);
    device.add(tab, "salt");
    device.run();
    assert_eq!(device.titles(tab), ["milk", "salt", "tea"]);
}
