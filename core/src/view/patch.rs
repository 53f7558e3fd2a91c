//! Patches: how a query's rows change, one step after the other.
//!
//! In bytes: `['insert', index, row]`, `['remove', index]`, `['update', index, row]`. An index holds after the patches
//! before it.

use super::row::Row;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Patch {
    /// A row comes in at an index.
    Insert(usize, Row),
    /// The row at an index goes.
    Remove(usize),
    /// The row at an index changes.
    Update(usize, Row),
}

impl Patch {
    /// Does the step.
    pub fn apply(&self, rows: &mut Vec<Row>) {
        match self {
            Self::Insert(index, row) => rows.insert(*index, row.clone()),
            Self::Remove(index) => drop(rows.remove(*index)),
            Self::Update(index, row) => rows[*index] = row.clone(),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let (kind, index, row) = match self {
            Self::Insert(index, row) => ("insert", index, Some(row)),
            Self::Remove(index) => ("remove", index, None),
            Self::Update(index, row) => ("update", index, Some(row)),
        };
        write_length(2 + usize::from(row.is_some()), out);
        out.extend_from_slice(&crate::codec::to_bytes(&kind));
        out.extend_from_slice(&crate::codec::to_bytes(index));
        out.extend_from_slice(row.map_or(&[], Row::as_bytes));
    }
}

/// Appends patches as one msgpack array.
pub fn write_patches(patches: &[Patch], out: &mut Vec<u8>) {
    write_length(patches.len(), out);
    patches.iter().for_each(|patch| patch.write(out));
}

/// Appends rows as one msgpack array.
pub fn write_rows(rows: &[Row], out: &mut Vec<u8>) {
    write_length(rows.len(), out);
    rows.iter().for_each(|row| out.extend_from_slice(row.as_bytes()));
}

/// The head of a msgpack array.
fn write_length(length: usize, out: &mut Vec<u8>) {
    match length {
        0..16 => out.push(0x90 | length as u8),
        16..0x1_0000 => {
            out.push(0xdc);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(0xdd);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
}
