//! A scrub of a data directory: everything that is stored is read, and compared with everything that must follow.
//!
//! It only reads, each log in a transaction of its own, so it works beside a running server and on a copy. What it
//! finds is told and never mended: an entry is the work of somebody, and the way back is a backup.

mod log;

use std::path::Path;

use driftlog_core::id::LogName;

use crate::store::{Reads, Store, StoreError};

/// Findings told at most; more are counted.
const FINDINGS_MAX: usize = 1_000;
/// Entries between two words about the progress.
const PROGRESS_ENTRIES: u64 = 10_000;

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The log it is in, if it is in one.
    pub log: Option<LogName>,
    /// The table it is in; `file` for the file as a whole.
    pub table: &'static str,
    /// What is wrong.
    pub what: String,
}

/// What a scrub read, and what it found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Logs read.
    pub logs: u64,
    /// Entries read.
    pub entries: u64,
    /// Actors' rows read, of all logs together.
    pub actors: u64,
    /// Snapshots compared with a fold of the entries before them.
    pub snapshots: u64,
    /// Dead letters read.
    pub dead_letters: u64,
    /// What is damaged: the first thousand.
    pub findings: Vec<Finding>,
    /// How many findings there are.
    pub finding_count: u64,
}

impl Report {
    /// Whether nothing was found.
    pub fn is_sound(&self) -> bool {
        self.finding_count == 0
    }

    fn find(&mut self, log: Option<&LogName>, table: &'static str, what: impl std::fmt::Display) {
        self.finding_count += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { log: log.cloned(), table, what: what.to_string() });
        }
    }

    /// Notes damage; every other failure ends the scrub.
    fn find_error(&mut self, log: Option<&LogName>, error: StoreError) -> Result<(), StoreError> {
        match error {
            StoreError::CorruptRow { table, reason } => self.find(log, table, reason),
            StoreError::CorruptEntry { .. } => self.find(log, "entries", error),
            StoreError::CorruptFile(_) => self.find(log, "file", error),
            error => return Err(error),
        }
        Ok(())
    }
}

/// Scrubs the store of a directory. `tell` hears how many entries were read, and of how many.
///
/// # Errors
/// [`StoreError`]: it could not be read to its end. What is damaged is in the report instead.
pub fn verify(directory: &Path, vfs: Option<&str>, mut tell: impl FnMut(u64, u64)) -> Result<Report, StoreError> {
    let mut audit = Store::existing(directory, vfs).audit()?;
    let mut report = Report::default();
    for complaint in audit.complaints()? {
        report.find(None, "file", complaint);
    }
    let (logs, total) = match audit.read(|reads| Ok((reads.log_names()?, reads.entry_count()?))) {
        Ok(found) => found,
        Err(error) => {
            report.find_error(None, error)?;
            return Ok(report);
        }
    };
    audit.read(|reads| check_tables(reads, &mut report))?;
    for name in logs {
        let read_before = report.entries;
        audit.read(|reads| check_log(reads, &name, &mut report, &mut |read| tell(read_before + read, total)))?;
    }
    Ok(report)
}

/// Every row for itself, and what belongs to no log.
pub(crate) fn check_tables(reads: Reads<'_>, report: &mut Report) -> Result<(), StoreError> {
    let found = reads.damaged_rows().and_then(|mut found| {
        found.extend(reads.orphans()?);
        Ok((found, reads.counts()?))
    });
    match found {
        Ok((found, (_, dead_letters))) => {
            report.dead_letters = dead_letters;
            found.into_iter().for_each(|(table, what)| report.find(None, table, what));
            Ok(())
        }
        Err(error) => report.find_error(None, error),
    }
}

pub(crate) fn check_log(
    reads: Reads<'_>,
    name: &LogName,
    report: &mut Report,
    tell: &mut dyn FnMut(u64),
) -> Result<(), StoreError> {
    match log::check(reads, name, report, tell) {
        Ok(()) => Ok(()),
        Err(error) => report.find_error(Some(name), error),
    }
}
