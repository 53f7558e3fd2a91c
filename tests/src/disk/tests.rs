//! The disk under SQLite, with the settings of the server.

use std::sync::Barrier;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{Disk, Fault, Loss, Moment, VFS};

const FILE: &str = "test.sqlite";

fn connect(disk: &Disk, synchronous: &str) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags_and_vfs(disk.folder().join(FILE), OpenFlags::default(), VFS)?;
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = {synchronous};
         PRAGMA wal_autocheckpoint = 20;
         PRAGMA temp_store = MEMORY;
         CREATE TABLE IF NOT EXISTS numbers (number INTEGER PRIMARY KEY, filling BLOB NOT NULL);"
    ))?;
    Ok(connection)
}

/// Adds numbers, one transaction each, until one fails; how many were committed.
fn add(connection: &Connection, count: u64) -> (u64, Option<rusqlite::Error>) {
    for number in 1..=count {
        if let Err(error) = connection.execute("INSERT INTO numbers (filling) VALUES (randomblob(700))", []) {
            return (number - 1, Some(error));
        }
    }
    (count, None)
}

/// How many numbers there are; they are without gaps, and the file is sound.
fn count(disk: &Disk) -> u64 {
    let connection = connect(disk, "FULL").expect("opens");
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("reads");
    assert_eq!(check, "ok");
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let (count, last): (i64, i64) =
        connection.query_row("SELECT count(*), coalesce(max(number), 0) FROM numbers", [], row).expect("reads");
    assert_eq!(count, last);
    count.cast_unsigned()
}

#[test]
fn a_database_is_a_database() {
    let disk = Disk::new(1);
    let connection = connect(&disk, "FULL").expect("opens");
    assert_eq!(add(&connection, 100).0, 100);
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).expect("reads");
    assert_eq!(mode, "wal");
    assert!(disk.syncs() > 100, "a sync for each commit");
    drop(connection);
    assert_eq!(disk.files().len(), 1, "the last connection takes the log along");
    assert_eq!(count(&disk), 100);
}

#[test]
fn readers_and_a_writer_share_the_index_in_their_threads() {
    let disk = Disk::new(1);
    let writer = connect(&disk, "FULL").expect("opens");
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let path = disk.folder().join(FILE);
                let reader = Connection::open_with_flags_and_vfs(path, flags, VFS).expect("opens");
                start.wait();
                let mut seen = 0;
                while seen < 300 {
                    let now: i64 =
                        reader.query_row("SELECT count(*) FROM numbers", [], |row| row.get(0)).expect("reads");
                    assert!(now >= seen, "what was committed stays");
                    seen = now;
                }
            });
        }
        start.wait();
        assert_eq!(add(&writer, 300).0, 300);
    });
}

#[test]
fn every_commit_survives_every_power_cut() {
    let whole = Disk::new(1);
    let connection = connect(&whole, "FULL").expect("opens");
    whole.reset_counters();
    assert_eq!(add(&connection, 40).0, 40);
    let syncs = whole.syncs();
    assert!(syncs > 40);
    for at in 1..=syncs {
        let disk = Disk::new(1);
        let connection = connect(&disk, "FULL").expect("opens");
        disk.reset_counters();
        disk.fail(Moment::Sync(at), Fault::PowerOff);
        let (committed, error) = add(&connection, 40);
        assert_eq!(error.and_then(|error| error.sqlite_error_code()), Some(ErrorCode::SystemIoFailure), "sync {at}");
        for (seed, loss) in Loss::ALL.into_iter().cycle().take(16).enumerate() {
            let copy = disk.copy(seed as u64);
            copy.crash(loss);
            let there = count(&copy);
            assert!((committed..=committed + 1).contains(&there), "sync {at}, {loss:?}: {there} of {committed}");
        }
    }
}

#[test]
fn without_syncs_commits_are_lost_and_it_shows() {
    let disk = Disk::new(1);
    let connection = connect(&disk, "FULL").expect("opens");
    assert_eq!(add(&connection, 5).0, 5);
    connection.execute_batch("PRAGMA synchronous = OFF").expect("sets");
    assert_eq!(add(&connection, 10).0, 10);
    let copy = disk.copy(1);
    copy.crash(Loss::Unsynced);
    assert_eq!(count(&copy), 5);
    copy.crash(Loss::Nothing);
    assert_eq!(count(&copy), 5);
}

#[test]
fn a_failed_call_is_an_error_and_the_file_stays_sound() {
    for (fault, expected) in [(Fault::Io, ErrorCode::SystemIoFailure), (Fault::Full, ErrorCode::DiskFull)] {
        let (mut failed, mut at) = (0, 0);
        loop {
            at += 1;
            let disk = Disk::new(1);
            let connection = connect(&disk, "FULL").expect("opens");
            disk.reset_counters();
            disk.fail(Moment::Change(at), fault);
            let (committed, error) = add(&connection, 30);
            let passed = disk.changes() < at;
            disk.crash(Loss::Unsynced);
            assert!(count(&disk) >= committed, "{fault:?} at {at}");
            match error {
                Some(error) => {
                    assert_eq!(error.sqlite_error_code(), Some(expected), "{fault:?} at {at}");
                    failed += 1;
                }
                // A checkpoint that fails is tried again at the next commit.
                None if !passed => {}
                None => break,
            }
        }
        assert!(failed > 60, "each commit writes and syncs: {failed}");
    }
}

#[test]
fn a_full_disk_takes_no_more_until_there_is_room() {
    let disk = Disk::new(1);
    let connection = connect(&disk, "FULL").expect("opens");
    disk.set_capacity(Some(200_000));
    let (committed, error) = add(&connection, 1_000);
    assert_eq!(error.and_then(|error| error.sqlite_error_code()), Some(ErrorCode::DiskFull));
    assert!(committed > 10);
    assert!(disk.files().iter().map(|(_, bytes)| bytes).sum::<u64>() <= 200_000);
    disk.set_capacity(None);
    assert_eq!(add(&connection, 10).0, 10);
    drop(connection);
    assert_eq!(count(&disk), committed + 10);
}

#[test]
fn a_backup_brings_an_older_disk_back() {
    let disk = Disk::new(1);
    let connection = connect(&disk, "FULL").expect("opens");
    add(&connection, 3);
    let backup = disk.backup();
    add(&connection, 4);
    disk.restore(&backup);
    assert!(add(&connection, 1).1.is_some(), "files of before are dead");
    drop(connection);
    assert_eq!(count(&disk), 3);
    assert_eq!(count(&Disk::restored(&backup, 2)), 3);
}

#[test]
fn one_flipped_bit_is_another_file() {
    let disk = Disk::new(1);
    add(&connect(&disk, "FULL").expect("opens"), 3);
    let before = disk.read(FILE).expect("there");
    assert!(disk.flip(FILE, 12_345));
    let after = disk.read(FILE).expect("there");
    let different: Vec<_> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
    assert_eq!(different, [12_345 / 8]);
    assert!(!disk.flip("nothing", 1));
}

#[test]
fn the_same_seed_crashes_alike() {
    let crash = |seed| {
        let disk = Disk::new(seed);
        let connection = connect(&disk, "OFF").expect("opens");
        add(&connection, 30);
        disk.crash(Loss::Sectors);
        // The bytes carry random salts: the sizes tell what was kept.
        disk.files()
    };
    assert_eq!(crash(1), crash(1));
    let different: std::collections::BTreeSet<_> = (0..20).map(crash).collect();
    assert!(different.len() > 1);
}
