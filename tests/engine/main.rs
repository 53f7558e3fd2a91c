//! The engine of a client by behaviour: tabs over one database, with and without a server.
#![allow(clippy::unwrap_used, missing_docs)]

mod authority;
mod dead_letters;
mod device;
mod held;
mod integrity;
mod kept;
mod lookup;
mod newer;
mod pressure;
mod prune;
mod quota;
mod server;
mod settling;
mod traps;
mod turns;

use device::Device;
use driftlog_tests::database::Database;

#[test]
fn an_action_is_in_view_at_once_and_stored_when_the_commit_is() {
    let mut device = Device::new(1);
    let tab = device.tab();
    device.open(tab);
    let write = device.add(tab, "milk");
    assert_eq!(device.titles(tab), ["milk"]);
    assert!(!device.stored(tab, write), "nothing is durable before the commit");
    device.run();
    assert!(device.stored(tab, write));
}

#[test]
fn a_reload_brings_back_what_was_stored() {
    let mut device = Device::new(1);
    let tab = device.tab();
    device.open(tab);
    device.add(tab, "milk");
    device.add(tab, "bread");
    device.run();
    let again = device.reload(tab);
    device.open(again);
    assert_eq!(device.titles(again), ["bread", "milk"]);
    assert_eq!(device.outbox(again), 2);
}

#[test]
fn two_tabs_never_give_the_same_seq_and_see_each_other() {
    let mut device = Device::new(1);
    let (one, two) = (device.tab(), device.tab());
    device.open(one);
    device.open(two);
    for at in 0..50 {
        device.add(one, &format!("a{at:02}"));
        device.add(two, &format!("b{at:02}"));
        if at % 7 == 0 {
            device.run();
        }
    }
    device.run();
    assert_eq!(device.database.own_seqs(), (1..=100).collect::<Vec<_>>());
    assert_eq!(device.titles(one).len(), 100);
    assert_eq!(device.titles(one), device.titles(two));
}

#[test]
fn a_frozen_tab_that_thaws_reads_before_it_knows() {
    let mut device = Device::new(1);
    let (one, two) = (device.tab(), device.tab());
    device.open(one);
    device.open(two);
    device.freeze(two);
    for at in 0..5 {
        device.add(one, &format!("a{at}"));
    }
    device.run();
    device.add(two, "late");
    device.thaw(two);
    device.run();
    assert_eq!(device.titles(two).len(), 6);
    assert_eq!(device.titles(one), device.titles(two));
    assert_eq!(device.database.own_seqs(), (1..=6).collect::<Vec<_>>());
    let late = device.database.own_entries().pop().unwrap();
    assert_eq!(late.header.own.map(|own| own.0), Some(0), "it had seen nothing of the other tab");
}

#[test]
fn a_full_quota_takes_the_action_out_of_the_view_with_what_needs_it() {
    let mut device = Device::new(1);
    let tab = device.tab();
    device.open(tab);
    device.add(tab, "milk");
    device.run();
    device.database.full = true;
    let bread = device.add(tab, "bread");
    let rename = device.rename(tab, bread, "rye");
    assert_eq!(device.titles(tab), ["milk", "rye"]);
    device.run();
    assert_eq!(device.titles(tab), ["milk"]);
    assert!(device.failed(tab, bread) && device.failed(tab, rename));
    device.database.full = false;
    device.add(tab, "tea");
    device.run();
    assert_eq!(device.titles(tab), ["milk", "tea"]);
    assert_eq!(device.database.own_seqs(), [1, 2], "an aborted transaction gives its seqs back");
}

#[test]
fn an_unknown_outcome_is_read_before_it_is_decided() {
    for written in [false, true] {
        let mut device = Device::new(1);
        let tab = device.tab();
        device.open(tab);
        device.database.lose_next_answer = Some(written);
        let write = device.add(tab, "milk");
        device.run();
        assert!(device.stored(tab, write), "written: {written}");
        assert_eq!(device.titles(tab), ["milk"]);
        assert_eq!(device.database.own_seqs(), [1], "neither lost nor doubled");
    }
}

#[test]
fn the_database_keeps_its_identity() {
    let mut device = Device::new(1);
    let tab = device.tab();
    device.run();
    let first = device.actor(tab);
    let again = device.reload(tab);
    device.run();
    assert_eq!(device.actor(again), first);
    assert_eq!(Database::default().own_seqs(), Vec::<u64>::new());
}
