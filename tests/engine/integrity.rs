//! Every single bit of a small client database flipped, one at a time: found, never applied, never a fall, and
//! nothing lost that was whole.
//!
//! By default every bit of an own entry or dead letter is loaded, and one bit of each byte goes the whole way with
//! the server; `DRIFTLOG_EVERY_BIT=1` takes every bit of every row the whole way (a minute or two).

use driftlog_core::engine::Hint;
use driftlog_core::id::{ActorId, Offset, Seq};
use driftlog_core::notice::LogStatus;
use driftlog_core::session::link::LinkState;
use driftlog_tests::database::Database;

use crate::authority::Authority;
use crate::device::{Device, log};

/// Tables by the first byte of their keys.
const OWN: u8 = 0x11;
const RECEIVED: u8 = 0x12;
const VERDICTS: u8 = 0x13;
const DEAD_LETTER: u8 = 0x15;

/// A device that went offline with work pending, and its server.
struct Base {
    database: Database,
    server: Authority,
    actor: ActorId,
    /// What the whole database comes to.
    dead_letters: Vec<(u64, u64, &'static str)>,
    titles: Vec<String>,
    /// First pending seq, and the first that is not given yet.
    pending: (u64, u64),
}

/// Rows of every kind: a snapshot, received rows behind it, an entry given up and one refused for it, pending groups.
fn base() -> Base {
    let mut device = Device::with(Database::default(), Authority::default(), 1);
    let tab = device.tab();
    device.open(tab);
    device.elect(tab);
    device.online();
    device.add(tab, "milk");
    device.run();
    device.authority().insert(1_700_000_000_000, "eggs");
    reconnect(&mut device);
    device.hint(tab, &Hint::Damaged((log(), Offset(0))));
    device.add(tab, "tea");
    device.run();
    device.authority().insert(1_700_000_000_001, "rice");
    reconnect(&mut device);
    device.offline();
    let salt = device.add(tab, "salt");
    device.run();
    let renamed = device.rename(tab, salt, "sea salt");
    device.run();
    device.park(tab, salt, "the user's machine cannot fold it");
    device.online();
    assert!(device.refused(tab, salt) && device.refused(tab, renamed));
    device.offline();
    let oats = device.add(tab, "oats");
    device.rename(tab, oats, "oat flakes");
    device.add(tab, "figs");
    device.run();
    device.add(tab, "kale");
    device.run();
    device.authority().insert(1_700_000_000_002, "late");
    let next = device.database.own_seqs().len() as u64 + 1;
    let (actor, dead_letters) = (device.actor(tab), device.dead_letters(tab));
    assert_eq!(dead_letters, [(3, 1, "malformed"), (4, 1, "depends-on")]);
    let server = device.authority().copy();
    let database = device.database.clone();
    device.online();
    let titles = device.titles(tab);
    assert_eq!(titles, ["eggs", "figs", "kale", "late", "milk", "oat flakes", "rice", "tea"]);
    assert_eq!(device.outbox(tab), 0);
    Base { database, server, actor, dead_letters, titles, pending: (5, next) }
}

/// Whether this bit goes the whole way.
fn goes_on(bit: usize) -> bool {
    bit % 8 == bit / 8 % 8 || std::env::var_os("DRIFTLOG_EVERY_BIT").is_some()
}

/// Cuts the connection and connects again: the server has entries of another client.
fn reconnect(device: &mut Device) {
    device.offline();
    device.online();
}

/// Starts on a database that may be damaged: offline first, then with the server.
fn start(database: Database, server: Authority, id: u8) -> (Device, usize) {
    let mut device = Device::with(database, server, id);
    let tab = device.tab();
    device.open(tab);
    device.elect(tab);
    (device, tab)
}

impl Base {
    /// Everything that is not `lost` has its verdict, and this replica is the server's state.
    fn check_converged(&self, device: &mut Device, tab: usize, case: &str) {
        assert_eq!(device.outbox(tab), 0, "{case}: the outbox drains");
        let state = device.replica(tab).log_state();
        assert_eq!((state.status, state.reason.as_str()), (LogStatus::Synced, ""), "{case}");
        assert_eq!(device.replica(tab).state().digest(), device.authority().digest(), "{case}: replicas are equal");
        assert_eq!(device.authority().decided(self.actor), self.pending.1 - 1, "{case}: every seq has its verdict");
    }

    fn rows(&self, wanted: impl Fn(u8) -> bool) -> Vec<(Vec<u8>, usize)> {
        let rows = self.database.rows().filter(|(key, _)| wanted(key[0]));
        rows.map(|(key, value)| (key.clone(), value.len() * 8)).collect()
    }

    fn is_pending(&self, key: &[u8]) -> bool {
        key[0] == OWN && driftlog_core::storage::number_of(key).unwrap() >= self.pending.0
    }

    fn pending_seqs(&self) -> std::ops::Range<u64> {
        self.pending.0..self.pending.1
    }
}

#[test]
fn a_bit_flipped_in_what_the_server_also_has_or_is_kept_twice_costs_nothing() {
    let base = base();
    for (key, bits) in base
        .rows(|table| table != OWN && table != DEAD_LETTER)
        .into_iter()
        .chain(base.rows(|table| table == OWN).into_iter().filter(|(key, _)| !base.is_pending(key)))
    {
        for bit in (0..bits).filter(|bit| goes_on(*bit)) {
            let case = format!("bit {bit} of {key:02x?}");
            let mut database = base.database.clone();
            database.flip(&key, bit);
            let mut server = base.server.copy();
            server.snapshots = bit % 2 == 0;
            let (mut device, tab) = start(database, server, 7);
            let shown = device.titles(tab);
            assert!(["figs", "kale", "oat flakes"].iter().all(|own| shown.iter().any(|title| title == own)), "{case}");
            let known = |title: &String| base.titles.contains(title);
            assert!(shown.iter().all(known), "{case}: {shown:?} has what was refused, or never was");
            device.online();
            base.check_converged(&mut device, tab, &case);
            assert_eq!(device.titles(tab), base.titles, "{case}");
            assert_eq!(device.dead_letters(tab), base.dead_letters, "{case}");
            assert!(base.pending_seqs().all(|seq| device.authority().accepted(base.actor).contains(&seq)), "{case}");
        }
    }
}

#[test]
fn a_bit_flipped_in_a_dead_letter_is_told_and_its_bytes_are_kept() {
    let base = base();
    for (key, bits) in base.rows(|table| table == DEAD_LETTER) {
        let seq = driftlog_core::storage::number_of(&key).unwrap();
        for bit in 0..bits {
            let case = format!("bit {bit} of dead letter {seq}");
            let mut database = base.database.clone();
            database.flip(&key, bit);
            let damaged: Vec<_> =
                database.rows().filter(|(other, _)| **other == key).map(|(_, row)| row.clone()).collect();
            let (mut device, tab) = start(database, base.server.copy(), 7);
            if !goes_on(bit) {
                continue;
            }
            device.online();
            base.check_converged(&mut device, tab, &case);
            assert_eq!(device.titles(tab), base.titles, "{case}");
            let expected: Vec<_> = base
                .dead_letters
                .iter()
                .map(|(letter, seqs, code)| (*letter, *seqs, if *letter == seq { "damaged" } else { code }))
                .collect();
            assert_eq!(device.dead_letters(tab), expected, "{case}");
            let kept =
                device.replica(tab).dead_letters().any(|(id, letter)| id.seq.0 == seq && letter.entry == damaged[0]);
            assert!(kept, "{case}");
        }
    }
}

/// Which seqs are expected to be lost when one is: those that were made on it.
fn lost_with(seq: u64) -> Vec<u64> {
    // 5 makes "oats", 6 renames it.
    if seq == 5 { vec![5, 6] } else { vec![seq] }
}

#[test]
fn a_bit_flipped_in_a_pending_entry_parks_it_and_voids_its_seq() {
    let base = base();
    let mut struck = std::collections::BTreeSet::new();
    for (key, bits) in base.rows(|table| table == OWN).into_iter().filter(|(key, _)| base.is_pending(key)) {
        for bit in 0..bits {
            let case = format!("bit {bit} of own row {:?}", driftlog_core::storage::number_of(&key));
            let mut database = base.database.clone();
            database.flip(&key, bit);
            let (mut device, tab) = start(database, base.server.copy(), 7);
            let letters: Vec<_> =
                device.dead_letters(tab).into_iter().filter(|(_, _, code)| *code == "damaged").collect();
            let [(seq, 1, _)] = letters[..] else { panic!("{case}: {letters:?}") };
            struck.insert(seq);
            let lost = lost_with(seq);
            if !goes_on(bit) {
                continue;
            }
            device.online();
            base.check_converged(&mut device, tab, &case);
            let accepted = device.authority().accepted(base.actor);
            for pending in base.pending_seqs() {
                assert_eq!(accepted.contains(&pending), !lost.contains(&pending), "{case}: seq {pending}");
            }
            assert_eq!(device.dead_letters(tab).len(), base.dead_letters.len() + lost.len(), "{case}");
            assert_eq!(
                device.authority().voids,
                [(seq, seq, "the bytes do not match their checksum".to_owned())],
                "{case}"
            );
        }
    }
    assert_eq!(struck.into_iter().collect::<Vec<_>>(), base.pending_seqs().collect::<Vec<_>>());
}

#[test]
fn a_pending_entry_that_the_server_had_accepted_is_no_dead_letter_after_all() {
    let base = base();
    // The server decides, and the client never hears of it.
    let (mut device, _) = start(base.database.clone(), base.server.copy(), 7);
    device.authority().lose_answers = true;
    device.online();
    let ahead = device.authority().copy();
    assert_eq!(ahead.decided(base.actor), base.pending.1 - 1);
    for (key, bits) in base.rows(|table| table == OWN).into_iter().filter(|(key, _)| base.is_pending(key)) {
        for bit in 0..bits {
            let case = format!("bit {bit} of own row {:?}", driftlog_core::storage::number_of(&key));
            let mut database = base.database.clone();
            database.flip(&key, bit);
            let mut server = ahead.copy();
            server.snapshots = bit % 2 == 0;
            let (mut device, tab) = start(database, server, 8);
            assert_eq!(device.dead_letters(tab).len(), base.dead_letters.len() + 1, "{case}: parked while offline");
            if !goes_on(bit) {
                continue;
            }
            device.online();
            base.check_converged(&mut device, tab, &case);
            assert_eq!(device.titles(tab), base.titles, "{case}");
            assert_eq!(device.dead_letters(tab), base.dead_letters, "{case}: the verdict holds");
            let again = device.reload(tab);
            device.open(again);
            assert_eq!(device.dead_letters(again), base.dead_letters, "{case}: after a reload too");
            assert_eq!(device.titles(again), base.titles, "{case}");
        }
    }
}

#[test]
fn a_void_is_the_same_at_every_resend() {
    let base = base();
    // Seqs 6 and 7 are one group; first 6 is struck, then again, then its neighbour.
    let key = driftlog_core::storage::own_key(&log(), base.actor, Seq(6));
    let bits = base.rows(|table| table == OWN).into_iter().find(|(row, _)| *row == key).unwrap().1;
    let mut database = base.database.clone();
    database.flip(&key, 100);
    let (mut device, _) = start(database, base.server.copy(), 7);
    device.authority().lose_answers = true;
    device.online();
    let sent = device.authority().voids.clone();
    assert_eq!(sent, [(6, 6, "the bytes do not match their checksum".to_owned())]);
    let (mut database, decided) = (device.database.clone(), device.authority().copy());
    database.flip(&key, 108);
    let (mut device, tab) = start(database.clone(), decided, 8);
    device.online();
    base.check_converged(&mut device, tab, "the server had taken it");
    database.flip(&key, bits - 100);
    let (mut device, tab) = start(database, base.server.copy(), 9);
    device.online();
    base.check_converged(&mut device, tab, "the server had not taken it");
    assert_eq!(device.authority().voids[..1], sent);
    assert_eq!(device.authority().voids[1..].iter().map(|void| (void.0, void.1)).collect::<Vec<_>>(), [(7, 7)]);
}

#[test]
fn an_own_row_that_is_gone_is_a_void_and_a_dead_letter() {
    let base = base();
    let mut database = base.database.clone();
    database.lose(&driftlog_core::storage::own_key(&log(), base.actor, Seq(6)));
    let (mut device, tab) = start(database, base.server.copy(), 7);
    device.online();
    base.check_converged(&mut device, tab, "a row is gone");
    assert_eq!(device.authority().voids, [(6, 7, "no row holds it any more".to_owned())]);
    assert_eq!(device.dead_letters(tab).last(), Some(&(6, 2, "damaged")));
    assert_eq!(device.titles(tab), ["eggs", "kale", "late", "milk", "oats", "rice", "tea"]);
}

#[test]
fn a_follower_waits_for_the_leader_to_mend_what_it_cannot_read() {
    let base = base();
    for (key, bits) in base.rows(|table| table == RECEIVED) {
        let mut device = Device::with(base.database.clone(), base.server.copy(), 7);
        let leader = device.tab();
        device.open(leader);
        device.elect(leader);
        device.database.flip(&key, bits / 2);
        let follower = device.tab();
        device.open(follower);
        device.hint(follower, &Hint::Grew(log()));
        assert_eq!(device.titles(follower), device.titles(leader), "row {key:02x?}");
        assert!(!device.replica(follower).status().is_stopped());
    }
}

#[test]
fn a_follower_that_started_from_a_snapshot_finds_the_next_one() {
    let mut device = Device::with(Database::default(), Authority::default(), 1);
    let leader = device.tab();
    device.open(leader);
    device.elect(leader);
    device.online();
    device.add(leader, "milk");
    device.run();
    device.hint(leader, &Hint::Damaged((log(), Offset(0))));
    let follower = device.tab();
    device.open(follower);
    assert_eq!(device.titles(follower), ["milk"], "from the snapshot, with nothing behind it");
    device.freeze(follower);
    device.authority().insert(1_700_000_000_000, "eggs");
    reconnect(&mut device);
    device.hint(leader, &Hint::Damaged((log(), Offset(0))));
    device.thaw(follower);
    device.run();
    assert_eq!(device.titles(follower), ["eggs", "milk"]);
}

#[test]
fn a_tab_that_loads_while_the_leader_prunes_misses_nothing() {
    for steps in 0..8 {
        let mut device = Device::with(Database::default(), Authority::default(), 1);
        let leader = device.tab();
        device.open(leader);
        device.elect(leader);
        device.online();
        device.add(leader, "milk");
        device.run();
        device.hint(leader, &Hint::Damaged((log(), Offset(0))));
        let follower = device.tab();
        device.begin_to_open(follower, steps);
        device.freeze(follower);
        device.authority().insert(1_700_000_000_000, "eggs");
        reconnect(&mut device);
        device.hint(leader, &Hint::Damaged((log(), Offset(0))));
        device.thaw(follower);
        device.run();
        assert_eq!(device.titles(follower), ["eggs", "milk"], "after {steps} steps");
        assert!(!device.replica(follower).status().is_stopped(), "after {steps} steps");
    }
}

#[test]
fn the_empty_row_behind_a_snapshot_is_written_again_when_it_is_damaged() {
    let mut device = Device::with(Database::default(), Authority::default(), 1);
    let leader = device.tab();
    device.open(leader);
    device.elect(leader);
    device.online();
    device.add(leader, "milk");
    device.run();
    device.hint(leader, &Hint::Damaged((log(), Offset(0))));
    device.run();
    let received = device.database.rows().filter(|(key, _)| key[0] == RECEIVED).map(|(key, _)| key.clone());
    let received: Vec<_> = received.collect();
    assert_eq!(received.len(), 1, "nothing but the snapshot's own");
    device.database.flip(&received[0], 40);
    let follower = device.tab();
    device.open(follower);
    device.run();
    assert_eq!(device.titles(follower), ["milk"]);
    assert_ne!(device.state(follower).status, LogStatus::Degraded);
}

#[test]
fn what_the_fold_told_is_not_told_again_by_a_snapshot() {
    let base = base();
    let mut device = Device::with(base.database.clone(), base.server.copy(), 7);
    let leader = device.tab();
    device.open(leader);
    device.elect(leader);
    device.run();
    // Nobody knows any verdict here: the rows tell what was accepted.
    let (verdicts, _) = base.rows(|table| table == VERDICTS).remove(0);
    device.database.flip(&verdicts, 100);
    // The follower reads "tea" behind the snapshot, and "rice" behind that only in the snapshot that the leader makes.
    let (received, bits) = base.rows(|table| table == RECEIVED).pop().unwrap();
    device.database.flip(&received, bits / 2);
    let follower = device.tab();
    device.open(follower);
    assert_eq!(device.titles(follower), device.titles(leader));
    assert_eq!(device.accepted(follower).len(), 1, "tea, once");
}

#[test]
fn a_snapshot_that_was_damaged_on_its_way_is_not_used_and_costs_another_transfer() {
    let mut device = Device::with(Database::default(), Authority::default(), 1);
    let tab = device.tab();
    device.authority().insert(1_700_000_000_000, "eggs");
    (device.authority().snapshots, device.authority().damaged_parts) = (true, 2);
    device.open(tab);
    device.elect(tab);
    device.online();
    for _ in 0..2 {
        assert_eq!((device.titles(tab).len(), device.link(tab)), (0, LinkState::BackingOff));
        device.pass(60_000);
    }
    assert_eq!((device.titles(tab), device.link(tab)), (vec!["eggs".to_owned()], LinkState::Live));
}
