//! A build that is older than what the log holds: it stops there, visibly, and loses and skips nothing.

use driftlog_core::engine::Input;
use driftlog_core::id::{Offset, UserId};
use driftlog_core::notice::LogStatus;
use driftlog_core::protocol::Frame;
use driftlog_core::protocol::frame::{Nonce, Welcome};
use driftlog_core::session::link::LinkState;
use driftlog_tests::database::Database;

use crate::authority::Authority;
use crate::device::Device;

#[test]
fn an_op_of_a_newer_version_stops_the_log_visibly_while_local_work_goes_on() {
    let mut device = Device::with(Database::default(), Authority::default(), 1);
    let tab = device.tab();
    device.open(tab);
    device.elect(tab);
    device.online();
    device.add(tab, "milk");
    device.run();
    device.offline();
    device.authority().insert_newer(1_700_000_000_000);
    device.online();
    let stopped = |device: &mut Device, tab: usize| {
        let state = device.state(tab);
        assert_eq!((state.status, state.end), (LogStatus::UpdateNeeded, Offset(1)), "nothing is skipped");
        assert!(state.reason.contains("99") && state.reason.contains("update"), "{}", state.reason);
    };
    stopped(&mut device, tab);
    let tea = device.add(tab, "tea");
    device.run();
    assert!(device.stored(tab, tea));
    assert_eq!((device.titles(tab), device.outbox(tab)), (vec!["milk".to_owned(), "tea".to_owned()], 1));
    // Another session does not make this build newer, and neither does another start.
    device.offline();
    device.online();
    stopped(&mut device, tab);
    let again = device.reload(tab);
    device.open(again);
    device.elect(again);
    device.run();
    stopped(&mut device, again);
    assert_eq!((device.titles(again), device.outbox(again)), (vec!["milk".to_owned(), "tea".to_owned()], 1));
}

#[test]
fn a_server_that_answers_in_a_version_that_is_not_spoken_here_is_not_listened_to() {
    let mut device = Device::new(1);
    let tab = device.tab();
    device.open(tab);
    device.elect(tab);
    device.input(tab, Input::SocketOpened);
    let milk = device.add(tab, "milk");
    device.run();
    device.sent(tab);
    let user = UserId::new("alice").unwrap();
    let welcome = Welcome { protocol: 2, user, nonce: Nonce([1; 16]), now: 0, idle_ms: 60_000, credit: 1 << 20 };
    device.receive(tab, &Frame::Welcome(welcome));
    assert_eq!((device.link(tab), device.sent(tab)), (LinkState::Blocked, vec![]), "nothing is said to it");
    assert!(device.stored(tab, milk) && device.outbox(tab) == 1);
}
