//! Own entries go behind a snapshot once they are decided; what is pending, and what others need, never does.

use driftlog_core::engine::{Hint, Own};
use driftlog_core::entry::Entry;
use driftlog_core::id::{Offset, Seq, WriteId};
use driftlog_core::notice::LogStatus;
use driftlog_core::storage;
use driftlog_core::storage::row::DeadLetter;
use driftlog_tests::database::Database;

use crate::authority::Authority;
use crate::device::{Device, log};
use crate::server::BAD;

const VERDICTS: u8 = 0x13;
const SNAPSHOT: u8 = 0x14;
const RUN: u8 = 0x16;

/// A leader that has done so much, each in a group of its own, all of it accepted; it keeps as little as it may.
fn worked(actions: u64) -> (Device, usize, Vec<WriteId>) {
    let mut device = Device::with(Database::default(), Authority::default(), 1);
    device.own_kept_bytes = 0;
    let tab = device.tab();
    device.open(tab);
    device.elect(tab);
    device.online();
    let act = |at| {
        let write = device.add(tab, &format!("todo {at:03}"));
        device.run();
        write
    };
    let writes = (0..actions).map(act).collect();
    (device, tab, writes)
}

/// The leader makes a snapshot of what it has.
fn snapshot(device: &mut Device, tab: usize) {
    device.hint(tab, &Hint::Damaged((log(), Offset(0))));
    device.run();
}

fn rows_of(database: &Database, table: u8) -> usize {
    database.rows().filter(|(key, _)| key[0] == table).count()
}

/// Starts on a database, offline first.
fn start(database: Database, authority: Authority) -> (Device, usize) {
    let mut device = Device::with(database, authority, 2);
    device.own_kept_bytes = 0;
    let tab = device.tab();
    device.open(tab);
    device.elect(tab);
    (device, tab)
}

fn check_synced(device: &mut Device, tab: usize, titles: usize, case: &str) {
    assert_eq!(device.outbox(tab), 0, "{case}");
    assert_eq!(device.state(tab).status, LogStatus::Synced, "{case}");
    assert_eq!(device.titles(tab).len(), titles, "{case}");
    assert_eq!(device.replica(tab).state().digest(), device.authority().digest(), "{case}");
    assert_eq!(device.dead_letters(tab), [], "{case}");
}

#[test]
fn what_is_accepted_and_in_a_snapshot_goes_and_what_is_pending_stays() {
    // More than one step deletes.
    let (mut device, tab, writes) = worked(600);
    assert_eq!(device.database.own_seqs().len(), 600);
    snapshot(&mut device, tab);
    assert_eq!(device.database.own_seqs(), [600], "the row that may reach beyond stays");
    assert_eq!(rows_of(&device.database, RUN), 1);
    device.offline();
    let pending: Vec<_> = (0..3).map(|at| device.add(tab, &format!("more {at}"))).collect();
    device.run();
    snapshot(&mut device, tab);
    assert_eq!(device.database.own_seqs(), [600, 601, 602, 603]);
    let (database, authority) = (device.database.clone(), device.authority().copy());
    let (mut device, tab) = start(database, authority);
    assert_eq!((device.titles(tab).len(), device.outbox(tab)), (603, 3));
    assert_eq!(device.dead_letters(tab), []);
    assert_eq!(device.entries(tab, Own::All).len(), 4, "what is still there is listed");
    assert_eq!(device.entry(tab, writes[0]), None);
    assert!(device.entry(tab, pending[0]).is_some());
    device.online();
    check_synced(&mut device, tab, 603, "after a start");
}

#[test]
fn what_no_backup_of_the_server_has_stays() {
    let (mut device, tab, _) = worked(40);
    device.authority().backed_up = Some(Seq(10));
    device.offline();
    device.online();
    snapshot(&mut device, tab);
    assert_eq!(device.database.own_seqs().first(), Some(&10), "the row that may reach beyond it stays too");
    device.authority().backed_up = Some(Seq(40));
    let (database, authority) = (device.database.clone(), device.authority().copy());
    let (mut device, tab) = start(database, authority);
    snapshot(&mut device, tab);
    assert_eq!(device.database.own_seqs().len(), 31, "nobody has heard the server yet");
    device.online();
    snapshot(&mut device, tab);
    assert_eq!(device.database.own_seqs(), [40]);
}

#[test]
fn the_newest_stay_as_far_as_they_fit() {
    let (mut device, tab, _) = worked(40);
    let last = storage::own_key(&log(), device.actor(tab), Seq(40));
    let row = device.database.rows().find(|(key, _)| **key == last).expect("the last group").1.len();
    // Only a new tab takes the new bound.
    device.own_kept_bytes = row * 10;
    let again = device.reload(tab);
    device.open(again);
    device.elect(again);
    device.add(again, "one more");
    device.run();
    snapshot(&mut device, again);
    let seqs = device.database.own_seqs();
    assert!((8..=11).contains(&seqs.len()) && seqs.last() == Some(&41), "{seqs:?}");
}

#[test]
fn rows_that_went_are_never_taken_for_damaged() {
    let (mut device, tab, _) = worked(40);
    snapshot(&mut device, tab);
    for table in [VERDICTS, SNAPSHOT] {
        let (mut database, authority) = (device.database.clone(), device.authority().copy());
        let (key, _) = database.rows().find(|(key, _)| key[0] == table).expect("a row");
        let key = key.clone();
        database.flip(&key, 100);
        let (mut device, tab) = start(database, authority);
        assert_eq!(device.dead_letters(tab), [], "table {table:x}");
        device.add(tab, "later");
        device.run();
        device.online();
        check_synced(&mut device, tab, 41, &format!("table {table:x}"));
    }
}

#[test]
fn refusals_keep_their_own_bytes_where_the_row_of_verdicts_is_damaged() {
    let mut device = Device::with(Database::default(), Authority::default(), 1);
    device.own_kept_bytes = 0;
    let tab = device.tab();
    device.open(tab);
    device.elect(tab);
    device.online();
    for at in 0..9 {
        device.add(tab, &if at % 4 == 0 { BAD.to_owned() } else { format!("todo {at}") });
        device.run();
    }
    snapshot(&mut device, tab);
    let letters = |device: &mut Device, tab| -> Vec<_> {
        let seq_of = |letter: &DeadLetter| Entry::from_bytes(&letter.entry).map(|entry| entry.header.seq.0);
        device.replica(tab).dead_letters().map(|(id, letter)| (id.seq.0, seq_of(letter).expect("whole"))).collect()
    };
    let refused = vec![(1, 1), (5, 5), (9, 9)];
    assert_eq!(letters(&mut device, tab), refused);
    let (mut database, authority) = (device.database.clone(), device.authority().copy());
    database.flip(&storage::verdicts_key(&log()), 100);
    let (mut device, tab) = start(database, authority);
    device.online();
    assert_eq!(letters(&mut device, tab), refused);
    assert_eq!(device.titles(tab).len(), 6);
}

#[test]
fn a_tab_that_was_behind_falls_back_to_the_snapshot_row() {
    let (mut device, tab, _) = worked(3);
    let follower = device.tab();
    device.open(follower);
    assert_eq!(device.titles(follower).len(), 3);
    device.freeze(follower);
    for at in 0..30 {
        device.add(tab, &format!("unseen {at}"));
        device.run();
    }
    snapshot(&mut device, tab);
    assert_eq!(device.database.own_seqs(), [33]);
    device.thaw(follower);
    device.run();
    assert_eq!(device.titles(follower).len(), 33);
    assert_eq!(device.dead_letters(follower), []);
    device.add(follower, "from the follower");
    device.run();
    assert_eq!(device.titles(tab).len(), 34);
    check_synced(&mut device, tab, 34, "the leader");
}
