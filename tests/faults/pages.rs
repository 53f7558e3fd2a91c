//! Bits of the database file are flipped, wherever they lie: what is told is right, or is an error.

use driftlog_core::random::Random;
use driftlog_server::StoreError;
use driftlog_tests::disk::{Backup, Disk};

use crate::workload::{Workload, entries, logs, open, scrub};

const FILE: &str = "driftlog.sqlite";
const FLIPS: usize = 600;

/// A database without a write-ahead log, and who wrote it.
fn filled() -> (Backup, Workload) {
    let disk = Disk::new(1);
    let mut server = open(&disk).expect("opens");
    let mut workload = Workload::new();
    workload.connect(&mut server).expect("connects");
    for _ in 0..24 {
        workload.operate(&mut server).expect("commits");
    }
    drop(server);
    assert_eq!(disk.files().len(), 1, "the last connection takes the log along");
    (disk.backup(), workload)
}

/// What a server tells of each log, and of each author to itself.
fn told(disk: &Disk, workload: &Workload) -> Result<Vec<Option<String>>, StoreError> {
    let mut server = open(disk)?;
    let read = |log| entries(&server, &log).map(|entries| format!("{entries:?}"));
    let mut told: Vec<Option<String>> = logs().into_iter().map(|log| read(log).ok()).collect();
    // The authors compare what they are told with what they were promised.
    let mut again = workload.clone();
    again.connect(&mut server)?;
    let check = |author: &driftlog_tests::author::Author| {
        let findings = &author.tally().findings;
        assert!(findings.iter().all(|finding| finding.contains("StorageFailed")), "{findings:?}");
        findings.is_empty().then(String::new)
    };
    told.extend(again.authors.iter().map(check));
    Ok(told)
}

#[test]
fn a_flipped_bit_of_the_file_is_never_told() {
    let (backup, workload) = filled();
    let whole = Disk::restored(&backup, 1);
    let expected = told(&whole, &workload).expect("reads");
    assert!(expected.iter().all(Option::is_some));
    let bits = whole.read(FILE).expect("there").len() * 8;
    let mut random = Random::new([5; 32]);
    let (mut found, mut harmless) = (0, 0);
    for _ in 0..FLIPS {
        let bit = random.below(bits as u64) as usize;
        let disk = Disk::restored(&backup, 1);
        assert!(disk.flip(FILE, bit));
        let told = told(&disk, &workload);
        let disk = Disk::restored(&backup, 1);
        disk.flip(FILE, bit);
        let sound = driftlog_server::verify(&disk.folder(), Some(driftlog_tests::disk::VFS), |_, _| {})
            .is_ok_and(|report| report.is_sound());
        if sound {
            harmless += 1;
            assert_eq!(told.expect("reads"), expected, "bit {bit} is not found");
        } else {
            found += 1;
            for (told, expected) in told.into_iter().flatten().zip(&expected) {
                assert!(told.is_none() || told == *expected, "bit {bit}: {told:?}");
            }
        }
    }
    assert!(found > FLIPS / 10, "{found} found, {harmless} in unused space");
    assert_eq!(scrub(&whole).findings, []);
}
