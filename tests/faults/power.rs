//! The power goes at every sync of a workload, and what was not synced is lost, torn and reordered.

use driftlog_tests::author::Tally;
use driftlog_tests::disk::{Disk, Loss};

use crate::workload::{Workload, open, scrub};

const OPERATIONS: u64 = 200;
/// Ways to crash; each state goes through as many of them as `WAYS` says, the next state through the next ones.
const LOSSES: [Loss; 5] = [Loss::Unsynced, Loss::Tail, Loss::Sectors, Loss::Tail, Loss::Sectors];
const WAYS: usize = 2;
/// One crashed disk of so many is also scrubbed.
const SCRUB_EVERY: u64 = 4;

/// A disk on which a server has just been opened, and its authors.
fn begun() -> (Disk, driftlog_server::stepped::Server, Workload) {
    let disk = Disk::new(1);
    disk.record();
    let mut server = open(&disk).expect("opens");
    let mut workload = Workload::new();
    workload.connect(&mut server).expect("connects");
    (disk, server, workload)
}

/// Crashes a disk in one way and compares what is there with what was promised.
fn crashed(disk: &Disk, loss: Loss, seed: u64, promised: &Workload) -> Tally {
    let copy = disk.copy(seed);
    copy.crash(loss);
    let server = open(&copy).expect("opens to what was synced");
    let tally = promised.check(&server).expect("reads");
    drop(server);
    if seed.is_multiple_of(SCRUB_EVERY) {
        let report = scrub(&copy);
        assert!(report.is_sound(), "{loss:?} {seed}: {:?}", report.findings);
    }
    tally
}

#[test]
fn nothing_promised_is_lost_whenever_the_power_goes() {
    let (disk, mut server, mut workload) = begun();
    let mut images = 0;
    disk.take_recorded();
    for operation in 1..=OPERATIONS {
        // What was promised before the operation must survive a crash at each of its syncs.
        let before = workload.clone();
        workload.operate(&mut server).expect("commits");
        let promised = workload.promised_at(&before);
        for (at, image) in disk.take_recorded().iter().enumerate() {
            for _ in 0..WAYS {
                images += 1;
                let loss = LOSSES[images % LOSSES.len()];
                let tally = crashed(image, loss, images as u64, &promised);
                assert_eq!(tally.findings, Vec::<String>::new(), "operation {operation}, sync {at}, {loss:?}");
            }
        }
    }
    assert!(images as u64 > OPERATIONS * WAYS as u64, "each operation syncs: {images}");
    assert!(workload.is_settled());
}

#[test]
fn after_a_crash_everybody_goes_on_and_nothing_is_doubled() {
    let (disk, mut server, mut workload) = begun();
    for round in 0..12 {
        for _ in 0..10 {
            workload.operate(&mut server).expect("commits");
        }
        // The answer to the last one is lost: the server has it, and its author does not know.
        workload.operate_unheard(&mut server).expect("commits");
        assert!(!workload.is_settled());
        drop(server);
        disk.crash(LOSSES[round % LOSSES.len()]);
        server = open(&disk).expect("opens");
        workload.connect(&mut server).expect("connects");
        assert!(workload.is_settled(), "round {round}: every verdict is told");
        assert_eq!(workload.check(&server).expect("reads").findings, Vec::<String>::new(), "round {round}");
    }
}

#[test]
fn a_disk_that_lies_about_syncs_loses_promises_and_it_is_seen() {
    let disk = Disk::new(1);
    let mut server = open(&disk).expect("opens");
    let mut workload = Workload::new();
    workload.connect(&mut server).expect("connects");
    disk.lie();
    for _ in 0..20 {
        workload.operate(&mut server).expect("commits");
    }
    let tally = crashed(&disk, Loss::Unsynced, 1, &workload);
    assert!(tally.acked > 20 && tally.lost > 20, "{tally:?}");
}
