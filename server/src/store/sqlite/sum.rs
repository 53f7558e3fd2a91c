//! The checksum of a row. SQLite has none: what a disk gives back, it takes for what was written.
//!
//! `sum` covers every column that stands before it in its table, keys included, so a row is found out that was changed,
//! and one that is found under a key that is not its own. Source: docs/log-format.md, "Server tables".

use rusqlite::Row;
use rusqlite::types::ValueRef;

use crate::store::StoreError;

/// The sum of a row's values, in the order of their columns.
pub(super) fn of(table: &str, values: &[ValueRef<'_>]) -> i64 {
    let sum = values.iter().fold(crc32c::crc32c(table.as_bytes()), |sum, value| {
        let (kind, number) = match value {
            ValueRef::Null => (0, 0),
            ValueRef::Integer(number) => (1, number.cast_unsigned()),
            ValueRef::Real(number) => (2, number.to_bits()),
            ValueRef::Text(bytes) => (3, bytes.len() as u64),
            ValueRef::Blob(bytes) => (4, bytes.len() as u64),
        };
        let sum = crc32c::crc32c_append(crc32c::crc32c_append(sum, &[kind]), &number.to_be_bytes());
        match value {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => crc32c::crc32c_append(sum, bytes),
            _ => sum,
        }
    });
    i64::from(sum)
}

/// Checks a row that was read whole: its values, and behind them its sum in column `at`.
///
/// # Errors
/// [`StoreError::CorruptRow`].
pub(super) fn check(table: &'static str, row: &Row<'_>, at: usize) -> Result<(), StoreError> {
    let mut values = Vec::with_capacity(at);
    for column in 0..at {
        values.push(row.get_ref(column)?);
    }
    let (expected, got) = (of(table, &values), row.get_ref(at)?);
    if got == ValueRef::Integer(expected) {
        return Ok(());
    }
    Err(StoreError::corrupt(table, format!("the checksum {got:?} does not match {expected}")))
}
