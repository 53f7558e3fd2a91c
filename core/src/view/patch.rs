//! Patches: how a query's rows change, one step after the other.
//!
//! In bytes: `['insert', index, row]`, `['remove', index]`, `['update', index, row]`, `['edit', index, row, texts]`. An
//! index holds after the patches before it. An edit's row lacks the texts that are told by their changes: `texts` is a
//! map of `[[at, deleted, inserted]…]`, each on what the one before it left, in UTF-16 code units; a text that did not
//! change has none.

use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::row::{Row, RowEdit};
use crate::codec;
use crate::id::Name;
use crate::rich::Splice;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Patch {
    /// A row comes in at an index.
    Insert(usize, Row),
    /// The row at an index goes.
    Remove(usize),
    /// The row at an index changes.
    Update(usize, Row),
    /// The row at an index changes, and texts of it by splices.
    Edit(usize, RowEdit),
}

impl Patch {
    /// Does the step. The rows have the right values afterwards, if not in the same bytes.
    pub fn apply(&self, rows: &mut Vec<Row>) {
        match self {
            Self::Insert(index, row) => rows.insert(*index, row.clone()),
            Self::Remove(index) => drop(rows.remove(*index)),
            Self::Update(index, row) => rows[*index] = row.clone(),
            Self::Edit(index, edit) => rows[*index] = edit.on(&rows[*index]),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let (kind, index, row) = match self {
            Self::Insert(index, row) => ("insert", index, Some(row)),
            Self::Remove(index) => ("remove", index, None),
            Self::Update(index, row) => ("update", index, Some(row)),
            Self::Edit(index, edit) => ("edit", index, Some(&edit.row)),
        };
        let texts = if let Self::Edit(_, edit) = self { Some(&edit.texts) } else { None };
        write_length(2 + usize::from(row.is_some()) + usize::from(texts.is_some()), out);
        out.extend_from_slice(&codec::to_bytes(&kind));
        out.extend_from_slice(&codec::to_bytes(index));
        out.extend_from_slice(row.map_or(&[], Row::as_bytes));
        if let Some(texts) = texts {
            out.extend_from_slice(&codec::to_bytes(&Texts(texts)));
        }
    }
}

/// The changes of texts as they are written.
struct Texts<'a>(&'a BTreeMap<Name, Vec<Splice>>);

impl Serialize for Texts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, splices) in self.0 {
            let splices: Vec<_> = splices.iter().map(|splice| (splice.at, splice.delete, &splice.insert)).collect();
            map.serialize_entry(name, &splices)?;
        }
        map.end()
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
