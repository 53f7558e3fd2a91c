//! Logs take turns: a small write never waits behind a bulk transfer of another log, counted in bytes.

use std::collections::BTreeMap;

use driftlog_core::chain::Chain;
use driftlog_core::engine::Input;
use driftlog_core::id::{EpochId, LogId, LogName, Offset, Seq, UserId};
use driftlog_core::limits::FRAME_BYTES_TARGET;
use driftlog_core::protocol::Frame;
use driftlog_core::protocol::frame::{LogNumber, Nonce, Opened, Welcome};
use driftlog_core::time::Time;

use crate::device::Device;

/// What the server says first of a log.
fn opened(device: &Device, tab: usize, log: LogNumber, name: &LogName) -> Frame {
    Frame::Opened(Opened {
        log,
        log_id: LogId([2; 16]),
        epochs: vec![(EpochId([3; 8]), Offset(0))],
        end: Offset(0),
        accepted: Time::MIN,
        seq: Seq(0),
        chain: Chain::actor_start(device.actor(tab), name),
        checkpoints: Vec::new(),
        append: true,
        backed_up: None,
    })
}

#[test]
fn a_small_write_goes_behind_one_frame_of_a_large_backlog_and_not_behind_all_of_it() {
    let names = ["bulk", "small"].map(|name| LogName::new(name).unwrap());
    let mut device = Device::new(1);
    device.slow = true;
    let tab = device.tab();
    names.iter().for_each(|name| device.open_also(tab, name));
    for at in 0..40 {
        device.add_to(tab, &names[0], &format!("todo {at}"), &"x".repeat(60_000));
    }
    device.elect(tab);
    let (user, now) = (UserId::new("alice").unwrap(), device.now());
    let welcome = Welcome { protocol: 1, user, nonce: Nonce([1; 16]), now, idle_ms: 60_000, credit: 1 << 30 };
    device.receive(tab, &Frame::Welcome(welcome));
    let subscribes = device.sent(tab).into_iter().filter_map(|frame| match frame {
        Frame::Subscribe(subscribe) => Some(subscribe.logs),
        _ => None,
    });
    let subscribes: Vec<_> = subscribes.collect();
    assert_eq!(subscribes.len(), 1, "one subscribe names all of them");
    let numbers: BTreeMap<_, _> = subscribes.into_iter().flatten().map(|log| (log.name, log.log)).collect();
    for name in &names {
        let opened = opened(&device, tab, numbers[name], name);
        device.receive(tab, &opened);
    }
    let begun = device.sent(tab).iter().filter(|frame| matches!(frame, Frame::Push(_))).count();
    assert_eq!(begun, 1, "the socket takes no more for now");
    device.add_to(tab, &names[1], "milk", "milk");
    let mut bulk = 0;
    // The socket takes one frame after the other, long before the server has answered.
    for _ in 0..5 {
        device.input(tab, Input::SocketBuffered(0));
        for frame in device.sent(tab) {
            match &frame {
                Frame::Push(push) if push.log == numbers[&names[1]] => {
                    return assert!(bulk <= 2 * FRAME_BYTES_TARGET, "{bulk} bytes went first");
                }
                Frame::Push(_) => bulk += frame.encode().len(),
                _ => {}
            }
        }
    }
    panic!("it is not sent behind {bulk} bytes");
}
