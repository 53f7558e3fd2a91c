//! Refusals: recorded at once, settled when a power loss cannot take them any more.

use driftlog_core::engine::Input;
use driftlog_core::id::Seq;
use driftlog_core::protocol::Frame;

use crate::device::Device;

/// What the server says of a bad title.
const CODE: &str = "not-allowed";

/// A leader whose second action was refused just now.
fn refused() -> (Device, usize) {
    let mut device = Device::new(1);
    let tab = device.tab();
    device.open(tab);
    device.lead(tab);
    device.add(tab, "milk");
    device.add(tab, "bad tea");
    device.run();
    assert_eq!(device.dead_letters(tab), [(2, 1, CODE)]);
    (device, tab)
}

fn settled(device: &mut Device, tab: usize) -> Vec<Seq> {
    let sent = device.sent(tab).into_iter();
    sent.filter_map(|frame| if let Frame::Settled(settled) = frame { Some(settled.through) } else { None }).collect()
}

#[test]
fn a_refusal_that_a_power_loss_takes_is_told_again_with_its_reason() {
    let (mut device, tab) = refused();
    assert_eq!(settled(&mut device, tab), []);
    device.database.lose_power(0);
    let again = device.reload(tab);
    device.open(again);
    assert_eq!((device.dead_letters(again), device.outbox(again)), (vec![], 2), "undecided, as far as is known here");
    device.lead(again);
    assert_eq!((device.dead_letters(again), device.outbox(again)), (vec![(2, 1, CODE)], 0));
    assert_eq!(device.titles(again), ["milk"]);
}

#[test]
fn a_settled_refusal_survives_a_power_loss() {
    let (mut device, tab) = refused();
    device.pass(4_999);
    assert_eq!(settled(&mut device, tab), []);
    device.pass(1);
    assert_eq!(settled(&mut device, tab), [Seq(2)]);
    device.database.lose_power(0);
    let again = device.reload(tab);
    device.open(again);
    assert_eq!(device.dead_letters(again), [(2, 1, CODE)], "the server would not tell why");
    device.lead(again);
    assert_eq!(settled(&mut device, again), [Seq(2)], "the last word may have been lost");
    device.pass(60_000);
    assert_eq!(settled(&mut device, again), [], "there is nothing new");
}

#[test]
fn what_a_run_leaves_unsettled_is_settled_by_the_next() {
    let (mut device, tab) = refused();
    device.database.flush();
    let again = device.reload(tab);
    device.open(again);
    device.lead(again);
    assert_eq!(settled(&mut device, again), []);
    device.pass(5_000);
    assert_eq!(settled(&mut device, again), [Seq(2)]);
}

#[test]
fn a_letter_discarded_before_it_is_settled_stays_gone() {
    let (mut device, tab) = refused();
    let letter = device.letters(tab)[0].0;
    device.discard(tab, letter);
    device.pass(5_000);
    assert_eq!(settled(&mut device, tab), [Seq(2)]);
    let again = device.reload(tab);
    device.open(again);
    assert_eq!(device.dead_letters(again), []);
}

#[test]
fn many_refusals_are_settled_in_parts_and_none_before_it_is_written() {
    let (mut device, tab) = refused();
    for at in 0..300 {
        device.add(tab, &format!("bad {at}"));
    }
    device.run();
    device.sent(tab);
    device.pass(5_000);
    device.pass(5_000);
    assert_eq!(settled(&mut device, tab), [Seq(257), Seq(302)]);
    device.database.lose_power(0);
    let again = device.reload(tab);
    device.open(again);
    assert_eq!(device.dead_letters(again).len(), 301);
}

#[test]
fn what_cannot_be_settled_for_now_is_settled_later() {
    let (mut device, tab) = refused();
    device.database.full = true;
    device.pass(5_000);
    assert_eq!(settled(&mut device, tab), []);
    device.database.full = false;
    device.pass(30_000);
    assert_eq!(settled(&mut device, tab), [Seq(2)]);
}

#[test]
fn a_tab_that_leads_again_does_not_wait_for_what_another_one_settled() {
    let (mut device, one) = refused();
    let two = device.tab();
    device.open(two);
    device.input(one, Input::Unseated);
    device.lead(two);
    device.add(two, "bad bread");
    device.run();
    device.pass(5_000);
    assert_eq!(settled(&mut device, two), [Seq(3)]);
    device.add(two, "tea");
    device.run();
    device.pass(60_000);
    device.input(two, Input::Unseated);
    device.lead(one);
    device.sent(one);
    for _ in 0..3 {
        let before = device.now();
        device.wait(one);
        assert!(device.now() > before, "what it waits for lies ahead");
    }
}
