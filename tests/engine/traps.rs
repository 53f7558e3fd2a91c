//! Engines that take the place of one that trapped: what they give up after three times, and what they never skip.

use std::sync::{Arc, Mutex};

use driftlog_core::engine::Input;
use driftlog_core::id::{LogName, Offset, WriteId};
use driftlog_core::notice::LogStatus;
use driftlog_core::witness::{Witness, Work};
use driftlog_tests::database::Database;

use crate::authority::Authority;
use crate::device::Device;

/// Remembers everything it is told.
#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<Option<Work>>>);

impl Witness for Recorder {
    fn works_on(&self, _log: &LogName, work: Option<Work>) {
        self.0.lock().unwrap().push(work);
    }
}

/// Fails the test when this is worked on.
#[derive(Debug)]
struct Forbids(Work);

impl Witness for Forbids {
    fn works_on(&self, _log: &LogName, work: Option<Work>) {
        assert_ne!(work, Some(self.0), "it was given up");
    }
}

impl Recorder {
    /// What was worked on, each thing once.
    fn take(&self) -> Vec<Work> {
        let mut told = std::mem::take(&mut *self.0.lock().unwrap());
        assert_eq!(told.last(), Some(&None), "it ends with nothing");
        told.dedup();
        told.into_iter().flatten().collect()
    }
}

/// A device with one leading tab, and a server that has two entries of another author.
fn start() -> (Device, usize) {
    let mut device = Device::with(Database::default(), Authority::default(), 1);
    device.authority().insert(1_700_000_000_000, "eggs");
    device.authority().insert(1_700_000_000_001, "rice");
    let tab = device.tab();
    device.open(tab);
    device.elect(tab);
    (device, tab)
}

/// Another engine after a trap, with its log open and the lead.
fn again(device: &mut Device, tab: usize, work: Work) -> usize {
    let tab = device.trapped(tab, work, "1");
    device.open(tab);
    device.elect(tab);
    tab
}

fn three_times(device: &mut Device, mut tab: usize, work: Work) -> usize {
    for _ in 0..3 {
        tab = again(device, tab, work);
    }
    tab
}

#[test]
fn own_pending_entry_that_trapped_three_times_is_a_dead_letter_and_the_others_are_accepted() {
    let (mut device, tab) = start();
    let (milk, poison) = (device.add(tab, "milk"), device.add(tab, "poison"));
    let tea = device.add(tab, "tea");
    device.run();
    let work = Work::Own(poison);
    let tab = again(&mut device, tab, work);
    let tab = again(&mut device, tab, work);
    assert_eq!(device.titles(tab), ["milk", "poison", "tea"], "twice it is tried again");
    assert_eq!(device.dead_letters(tab), []);
    let tab = again(&mut device, tab, work);
    assert_eq!(device.titles(tab), ["milk", "tea"]);
    assert_eq!(device.dead_letters(tab), [(2, 1, "trapped")]);
    device.online();
    assert_eq!(
        (device.outbox(tab), device.titles(tab)),
        (0, ["eggs", "milk", "rice", "tea"].map(String::from).to_vec())
    );
    assert_eq!(device.authority().voids.len(), 1, "its seq went to the server as a void");
    assert!(device.entry(tab, milk).is_some() && device.entry(tab, tea).is_some());
    let letter = device.letters(tab)[0].0;
    device.redrive(tab, letter, None).unwrap();
    device.run();
    assert_eq!(device.titles(tab).len(), 5, "the user may try it once more");
}

#[test]
fn count_outlives_a_tab_that_ends_and_is_forgotten_by_another_build() {
    let (mut device, tab) = start();
    let poison = device.add(tab, "poison");
    device.run();
    let tab = again(&mut device, tab, Work::Own(poison));
    let tab = again(&mut device, tab, Work::Own(poison));
    let tab = device.reload(tab);
    let tab = again(&mut device, tab, Work::Own(poison));
    assert_eq!(device.dead_letters(tab), [(1, 1, "trapped")], "two before the reload, one behind it");

    let (mut device, tab) = start();
    let poison = device.add(tab, "poison");
    device.run();
    let tab = again(&mut device, tab, Work::Own(poison));
    let tab = again(&mut device, tab, Work::Own(poison));
    let tab = device.trapped(tab, Work::Own(poison), "2");
    device.open(tab);
    assert_eq!(device.dead_letters(tab), [], "a build that never trapped on it tries it itself");
}

#[test]
fn confirmed_entry_that_traps_is_passed_only_by_a_snapshot_that_covers_it() {
    let (mut device, tab) = start();
    device.online();
    assert_eq!(device.titles(tab), ["eggs", "rice"]);
    device.offline();
    device.add(tab, "milk");
    device.run();
    let tab = three_times(&mut device, tab, Work::Confirmed(Offset(1)));
    let state = device.state(tab);
    assert_eq!((state.status, state.end), (LogStatus::Degraded, Offset(0)), "the row with it is not touched");
    assert_eq!(device.titles(tab), ["milk"], "local work goes on");
    device.add(tab, "tea");
    device.online();
    let state = device.state(tab);
    assert_eq!((state.status, state.end, state.outbox), (LogStatus::Degraded, Offset(0), 0), "and is shipped");
    assert_eq!(device.titles(tab), ["milk", "tea"], "nothing confirmed is applied past it");
    device.authority().snapshots = true;
    device.pass(60_000);
    device.pass(60_000);
    let state = device.state(tab);
    assert_eq!((state.status, state.reason.as_str()), (LogStatus::Synced, ""));
    assert_eq!(device.titles(tab), ["eggs", "milk", "rice", "tea"]);
    assert_eq!(device.replica(tab).state().digest(), device.authority().digest());
    device.offline();
    let tab = device.reload(tab);
    device.open(tab);
    assert_eq!(device.titles(tab), ["eggs", "milk", "rice", "tea"], "and it stays so");
}

#[test]
fn another_tab_goes_on_from_the_snapshot_of_a_leader_that_is_past_the_entry() {
    let (mut device, tab) = start();
    device.online();
    let other = device.tab();
    device.open(other);
    let mut follower = other;
    for _ in 0..3 {
        follower = device.trapped(follower, Work::Confirmed(Offset(0)), "1");
        device.open(follower);
    }
    assert_eq!(device.titles(follower), ["eggs", "rice"]);
    assert!(!device.state(follower).status.is_stopped());
    assert_eq!(device.titles(tab), ["eggs", "rice"]);
}

#[test]
fn local_snapshot_that_traps_is_had_again_from_the_server() {
    let (mut device, tab) = start();
    device.authority().snapshots = true;
    device.online();
    let tab = three_times(&mut device, tab, Work::Snapshot(()));
    device.online();
    assert_eq!(device.titles(tab), ["eggs", "rice"]);
    assert_eq!(device.state(tab).status, LogStatus::Synced);
}

#[test]
fn what_was_given_up_is_not_worked_on_again() {
    let (mut device, tab) = start();
    device.online();
    device.offline();
    let own = device.add(tab, "poison");
    device.rename(tab, own, "still poison");
    device.run();
    for work in [Work::Own(own), Work::Confirmed(Offset(0)), Work::Snapshot(())] {
        let (mut device, mut tab) = (Device::with(device.database.clone(), device.authority().copy(), 2), 0);
        device.authority().snapshots = true;
        for _ in 0..2 {
            tab = device.trapped(tab, work, "1");
            device.open(tab);
        }
        tab = device.trapped_again(tab, work, Arc::new(Forbids(work)));
        device.open(tab);
        device.elect(tab);
        device.online();
        assert_eq!((device.state(tab).status, device.outbox(tab)), (LogStatus::Synced, 0), "{work:?}");
        assert_eq!(device.titles(tab).len(), if work == Work::Own(own) { 2 } else { 3 }, "{work:?}");
    }
}

#[test]
fn witness_is_told_of_each_entry_before_it_is_worked_on() {
    let (mut device, first) = start();
    let own: Vec<WriteId> = ["milk", "tea"].map(|title| device.add(first, title)).to_vec();
    device.run();
    let witness = Arc::new(Recorder::default());
    let tab = device.watched_tab(witness.clone());
    device.open(tab);
    let told = witness.take();
    assert!(own.iter().all(|write| told.contains(&Work::Own(*write))), "laid: {told:?}");
    device.input(first, Input::Unseated);
    device.elect(tab);
    device.online();
    let told = witness.take();
    for offset in 0..4 {
        assert!(told.contains(&Work::Confirmed(Offset(offset))), "{offset} of {told:?}");
    }
}
