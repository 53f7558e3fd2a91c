//! Dead letters: redriven, edited, discarded, in any tab and over reloads; whatever is tried, it counts once.

use driftlog_core::engine::CallError;
use driftlog_core::id::{EntryId, WriteId};
use driftlog_core::replica::RedriveError;

use crate::device::Device;

/// A leader with one dead letter, which wanted to add "bad tea".
fn refused() -> (Device, usize, WriteId, EntryId) {
    let mut device = Device::new(1);
    let tab = device.tab();
    device.open(tab);
    device.lead(tab);
    device.add(tab, "milk");
    let write = device.add(tab, "bad tea");
    device.run();
    assert_eq!(device.titles(tab), ["milk"]);
    let [(letter, false)] = device.letters(tab)[..] else { panic!("one letter: {:?}", device.letters(tab)) };
    (device, tab, write, letter)
}

#[test]
fn an_edited_dead_letter_is_redriven_and_goes_when_it_is_accepted() {
    let (mut device, tab, _, letter) = refused();
    let again = device.reload(tab);
    device.open(again);
    assert_eq!(device.letters(again), [(letter, false)], "it is kept over a reload");
    device.redrive(again, letter, None).expect("it is known here");
    assert_eq!(device.titles(again), ["bad tea", "milk"], "in view at once");
    assert_eq!(device.letters(again), [(letter, true)]);
    let twice = device.redrive(again, letter, None);
    assert_eq!(twice, Err(CallError::Redrive(RedriveError::UnderWay(letter))));
    device.run();
    device.lead(again);
    let letters = device.letters(again);
    assert_eq!(letters.len(), 2, "refused again: the letter is back, and so is what was tried: {letters:?}");
    assert!(letters.iter().all(|(_, under_way)| !under_way));
    assert_eq!(device.titles(again), ["milk"]);
    let (other, _) = letters[1];
    // The record of the first write is known to the first tab only; another id does as well.
    let fresh = device.add(again, "cocoa");
    device.redrive(again, other, Some((fresh, "good tea"))).expect("edited");
    device.run();
    assert_eq!(device.logged(), ["milk", "cocoa", "good tea"]);
    assert_eq!(device.letters(again), [], "the whole line is redeemed");
    let third = device.reload(again);
    device.open(third);
    assert_eq!(device.letters(third), []);
    let gone = device.redrive(third, letter, None);
    assert_eq!(gone, Err(CallError::Redrive(RedriveError::NotADeadLetter(letter))));
}

#[test]
fn a_redrive_survives_a_crash_and_counts_once() {
    let (mut device, tab, _, letter) = refused();
    device.cut(tab);
    let cocoa = device.add(tab, "cocoa");
    device.redrive(tab, letter, Some((cocoa, "good tea"))).expect("edited");
    device.run();
    let again = device.reload(tab);
    device.open(again);
    assert_eq!(device.letters(again), [(letter, true)], "marked in the transaction that appended the replacement");
    assert_eq!(device.redrive(again, letter, None), Err(CallError::Redrive(RedriveError::UnderWay(letter))));
    device.lead(again);
    assert_eq!(device.logged(), ["milk", "cocoa", "good tea"]);
    assert_eq!(device.letters(again), []);
}

#[test]
fn a_redrive_that_cannot_be_stored_leaves_the_letter_as_it_was() {
    let (mut device, tab, _, letter) = refused();
    device.database.full = true;
    let write = device.redrive(tab, letter, None).expect("known");
    device.run();
    assert!(device.failed(tab, write));
    assert_eq!(device.letters(tab), [(letter, false)]);
    device.database.full = false;
    device.redrive(tab, letter, None).expect("it can be tried again");
}

#[test]
fn two_tabs_that_redrive_at_once_count_once() {
    let (mut device, tab, _, letter) = refused();
    let other = device.tab();
    device.open(other);
    let (cocoa, salt) = (device.add(tab, "cocoa"), device.add(other, "salt"));
    device.run();
    device.redrive(tab, letter, Some((cocoa, "good tea"))).expect("known");
    device.redrive(other, letter, Some((salt, "better tea"))).expect("known there too");
    device.run();
    let teas = device.logged().iter().filter(|title| title.ends_with("tea")).count();
    assert_eq!(teas, 1, "{:?}", device.logged());
    for tab in [tab, other] {
        assert!(!device.letters(tab).iter().any(|(id, _)| *id == letter), "redeemed in every tab");
    }
}

#[test]
fn a_discarded_letter_is_gone_in_every_tab() {
    let (mut device, tab, write, letter) = refused();
    let other = device.tab();
    device.open(other);
    assert_eq!(device.letters(other), [(letter, false)]);
    device.discard(other, letter);
    for tab in [tab, other] {
        assert_eq!((device.letters(tab), device.state(tab).dead_letters), (vec![], 0));
    }
    assert!(device.entry(tab, write).is_some(), "what became of it can still be asked");
    let again = device.reload(tab);
    device.open(again);
    assert_eq!(device.letters(again), []);
}
