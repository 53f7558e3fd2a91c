//! A log whose own entries the server would see later: nothing is pushed until then, and nothing is lost.

use driftlog_core::chain::Chain;
use driftlog_core::engine::{Input, OnlineWish};
use driftlog_core::id::{EpochId, LogId, Offset, Seq, UserId};
use driftlog_core::notice::LogStatus;
use driftlog_core::packed::Pushed;
use driftlog_core::protocol::Frame;
use driftlog_core::protocol::frame::{Ack, AckRange, Held, LogNumber, Nonce, Opened, Welcome};
use driftlog_core::time::Time;

use crate::device::{Device, log};

/// Answers what the tab says on a fresh socket; gives the log's number.
pub(crate) fn welcome(device: &mut Device, tab: usize, seq: u64, chain: Chain) -> LogNumber {
    welcome_with(device, tab, (seq, chain), 1 << 20)
}

/// The same with so much credit for pushes.
pub(crate) fn welcome_with(device: &mut Device, tab: usize, (seq, chain): (u64, Chain), credit: u64) -> LogNumber {
    let user = UserId::new("alice").unwrap();
    let (now, nonce) = (device.now(), Nonce([1; 16]));
    let welcome = Welcome { protocol: 1, user, nonce, now, idle_ms: 60_000, credit };
    device.receive(tab, &Frame::Welcome(welcome));
    let subscribed = device.sent(tab).into_iter().find_map(|frame| match frame {
        Frame::Subscribe(subscribe) => subscribe.logs.first().map(|log| log.log),
        _ => None,
    });
    let number = subscribed.expect("the log is asked for");
    let opened = Opened {
        log: number,
        log_id: LogId([2; 16]),
        epochs: vec![(EpochId([3; 8]), Offset(0))],
        end: Offset(0),
        accepted: Time::MIN,
        seq: Seq(seq),
        chain,
        checkpoints: Vec::new(),
        append: true,
        backed_up: None,
    };
    device.receive(tab, &Frame::Opened(opened));
    number
}

/// Seqs pushed since the last look, and the chain announced last.
pub(crate) fn pushed(device: &mut Device, tab: usize) -> (Vec<u64>, Option<Chain>) {
    let actor = device.actor(tab);
    let (mut seqs, mut chain) = (Vec::new(), None);
    for frame in device.sent(tab) {
        let Frame::Push(push) = frame else { continue };
        chain = Some(push.chain);
        for item in push.entries.unpack_pushed(actor).unwrap() {
            let Pushed::Entry(entry) = item else { panic!("an entry") };
            seqs.push(entry.header.seq.0);
        }
    }
    (seqs, chain)
}

pub(crate) fn ack(log: LogNumber, through: u64) -> Frame {
    let (count, accepted) = (through as u32, Time::from_ms(1));
    let range = AckRange { seq: Seq(1), offset: Offset(0), count, accepted };
    Frame::Ack(Ack { log, through: Seq(through), accepted: vec![range], marked: Vec::new() })
}

fn held(log: LogNumber, seq: u64) -> Frame {
    Frame::Held(Held { log, seq: Seq(seq), reason: "the prices are loading".into(), retry_ms: 5_000 })
}

/// A device with two tabs that show the log, of which the first leads and is welcome: the tabs, and the log's number.
fn two_tabs() -> (Device, [usize; 2], LogNumber) {
    let mut device = Device::new(1);
    let (tab, other) = (device.tab(), device.tab());
    device.open(tab);
    device.open(other);
    device.elect(tab);
    let start = Chain::actor_start(device.actor(tab), &log());
    let number = welcome(&mut device, tab, 0, start);
    (device, [tab, other], number)
}

#[test]
fn a_held_log_pushes_again_after_its_time_and_loses_nothing() {
    let (mut device, [tab, other], number) = two_tabs();
    device.add(tab, "milk");
    device.run();
    let (_, after_one) = pushed(&mut device, tab);
    device.add(tab, "bread");
    device.run();
    pushed(&mut device, tab);
    device.receive(tab, &ack(number, 1));
    device.receive(tab, &held(number, 2));
    let retry_at = Some(device.now() + 5_000);
    for tab in [tab, other] {
        let state = device.state(tab);
        let shown = (state.status, state.reason.as_str(), state.retry_at);
        assert_eq!(shown, (LogStatus::Held, "the prices are loading", retry_at), "in every tab");
    }
    device.add(other, "tea");
    device.run();
    device.pass(5_000 - 1 - 1);
    assert!(pushed(&mut device, tab).0.is_empty(), "nothing is pushed while it is held");
    device.pass(1);
    let (seqs, chain) = pushed(&mut device, tab);
    assert_eq!(seqs, [2, 3], "from the held one on, with what came meanwhile");
    assert!(chain.is_some() && chain != after_one);
    let state = device.state(tab);
    assert_eq!((state.status, state.retry_at, state.outbox), (LogStatus::Held, None, 2), "until its verdict comes");

    device.receive(tab, &held(number, 2));
    device.pass(5_000);
    assert_eq!(pushed(&mut device, tab).0, [2, 3], "as often as it takes");
    device.receive(tab, &ack(number, 3));
    for tab in [tab, other] {
        let state = device.state(tab);
        assert_eq!((state.status, state.outbox), (LogStatus::Synced, 0));
        assert_eq!(device.titles(tab), ["bread", "milk", "tea"]);
    }
}

#[test]
fn a_new_session_pushes_what_was_held_at_once() {
    let mut device = Device::new(1);
    let tab = device.tab();
    device.open(tab);
    device.elect(tab);
    let start = Chain::actor_start(device.actor(tab), &log());
    let number = welcome(&mut device, tab, 0, start);
    device.add(tab, "milk");
    device.run();
    pushed(&mut device, tab);
    device.receive(tab, &held(number, 1));
    assert_eq!(device.state(tab).status, LogStatus::Held);
    device.input(tab, Input::SocketClosed("cut".into()));
    assert_eq!(device.state(tab).status, LogStatus::Local);
    device.input(tab, Input::Woken);
    let number = welcome(&mut device, tab, 0, start);
    assert_eq!(pushed(&mut device, tab).0, [1]);
    device.receive(tab, &ack(number, 1));
    assert_eq!(device.state(tab).status, LogStatus::Synced);
}

#[test]
fn a_tab_that_takes_the_lead_offline_waits_for_nothing_that_was_held() {
    let (mut device, [tab, other], number) = two_tabs();
    device.add(tab, "milk");
    device.run();
    device.receive(tab, &held(number, 1));
    device.freeze(tab);
    device.input(other, Input::Online(OnlineWish::Disconnected));
    assert_eq!(device.state(other).status, LogStatus::Held);
    device.elect(other);
    let state = device.state(other);
    assert!(state.status != LogStatus::Held && state.retry_at.is_none(), "{state:?}");
    device.pass(10_000);
    assert_eq!(device.state(other).outbox, 1, "kept, and shipped when the app wants the connection");
}

#[test]
fn what_is_held_waits_no_longer_when_a_call_finds_the_clock_stepped_back() {
    let (mut device, [tab, _], number) = two_tabs();
    let milk = device.add(tab, "milk");
    let bread = device.add(tab, "bread");
    device.run();
    pushed(&mut device, tab);
    device.receive(tab, &held(number, 1));
    device.step_back(3_600_000);
    device.park(tab, bread, "it cannot be carried on with");
    device.pass(5_000);
    assert_eq!(device.state(tab).retry_at, None, "milk is tried again");
    assert!(device.stored(tab, milk) && device.refused(tab, bread));
    assert!(device.sent(tab).iter().any(|frame| matches!(frame, Frame::Push(_))));
}
