//! A full quota while the session is open: what arrives waits, verdicts first, and nothing needs another connection.

use driftlog_core::notice::LogStatus;
use driftlog_core::session::link::LinkState;
use driftlog_tests::database::Room;

use crate::device::Device;

/// A leader with two more actions that the server has decided; its answer met the given room.
fn pushed_into(room: Room) -> (Device, usize) {
    let mut device = Device::new(1);
    let tab = device.tab();
    device.open(tab);
    device.lead(tab);
    device.add(tab, "milk");
    device.run();
    assert_eq!(device.state(tab).status, LogStatus::Synced);
    device.database.room = room;
    device.add(tab, "bread");
    device.add(tab, "bad tea");
    device.run();
    (device, tab)
}

/// Lets timers come until everything is stored; no connection is lost on the way.
fn synced(device: &mut Device, tab: usize) {
    for _ in 0..20 {
        assert_eq!(device.link(tab), LinkState::Live);
        if device.state(tab).status == LogStatus::Synced {
            return;
        }
        device.wait(tab);
    }
    panic!("it is not tried again: {:?}", device.state(tab));
}

#[test]
fn verdicts_that_do_not_fit_are_stored_by_the_open_session_once_there_is_space() {
    let (mut device, tab) = pushed_into(Room::NoArrivals);
    for _ in 0..5 {
        device.wait(tab);
        let state = device.state(tab);
        assert_eq!((state.status, state.outbox, state.dead_letters), (LogStatus::Behind, 2, 0));
        assert!(state.reason.contains("quota"), "{}", state.reason);
    }
    assert_eq!(device.titles(tab), ["bad tea", "bread", "milk"], "nothing is decided here before it is stored");
    assert_eq!(device.link(tab), LinkState::Live, "the session stays open");
    device.database.room = Room::Plenty;
    synced(&mut device, tab);
    let state = device.state(tab);
    assert_eq!((state.status, state.outbox, state.dead_letters), (LogStatus::Synced, 0, 1));
    assert_eq!(device.titles(tab), ["bread", "milk"]);
    let again = device.reload(tab);
    device.open(again);
    assert_eq!(device.titles(again), ["bread", "milk"]);
    assert_eq!(device.state(again).dead_letters, 1);
}

#[test]
fn verdicts_get_through_where_received_entries_do_not_fit() {
    let (mut device, tab) = pushed_into(Room::NoReceivedEntries);
    let state = device.state(tab);
    assert_eq!((state.status, state.outbox, state.dead_letters), (LogStatus::Behind, 0, 1));
    assert_eq!(device.titles(tab), ["bread", "milk"], "what was accepted stays, what was refused is gone");
    let again = device.reload(tab);
    device.open(again);
    assert_eq!((device.state(again).outbox, device.state(again).dead_letters), (0, 1), "they are stored");
    assert_eq!(device.titles(again), ["bread", "milk"]);
    device.lead(again);
    device.wait(again);
    assert_eq!(device.state(again).end.0, 1, "the entries still do not fit");
    device.database.room = Room::Plenty;
    synced(&mut device, again);
    let state = device.state(again);
    assert_eq!((state.status, state.end.0, state.outbox), (LogStatus::Synced, 2, 0));
}
