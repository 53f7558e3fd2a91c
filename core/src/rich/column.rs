//! The column encodings inside a change: run lengths, deltas and booleans over LEB128 integers.
//!
//! They are automerge's (its storage format, "column data"), written again here because bytes from a client must be
//! read with a bound: a run length of ten bytes can claim 2^60 values, and automerge would walk them all. Everything
//! here stops at the number of values the caller allows. **Invariant:** writing what was read gives the same bytes, or
//! the bytes were not canonical.

use super::change::ChangeRefusal;

/// Reads integers and slices from a byte slice, never past its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(super) fn malformed(&self) -> ChangeRefusal {
        ChangeRefusal::Malformed { at: self.at }
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], ChangeRefusal> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| self.malformed())?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], ChangeRefusal> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// An unsigned LEB128 of at most 63 bits; nothing in a change is larger.
    pub(super) fn unsigned(&mut self) -> Result<u64, ChangeRefusal> {
        let mut value = 0u64;
        for shift in (0..63).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.malformed())
    }

    /// A signed LEB128 of at most 63 bits.
    pub(super) fn signed(&mut self) -> Result<i64, ChangeRefusal> {
        let mut value = 0i64;
        for shift in (0..63).step_by(7) {
            let byte = self.take(1)?[0];
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                if byte & 0x40 != 0 {
                    value |= -1i64 << (shift + 7).min(63);
                }
                return Ok(value);
            }
        }
        Err(self.malformed())
    }

    /// A count of things that follow, at most `max`.
    pub(super) fn count(&mut self, max: usize) -> Result<usize, ChangeRefusal> {
        let count = self.unsigned()?;
        usize::try_from(count).ok().filter(|count| *count <= max).ok_or_else(|| self.malformed())
    }
}

pub(super) fn write_unsigned(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

pub(super) fn write_signed(out: &mut Vec<u8>, mut value: i64) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if (value == 0 && byte & 0x40 == 0) || (value == -1 && byte & 0x40 != 0) {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

/// An integer that a run-length column can hold.
pub(super) trait Item: Copy + PartialEq {
    fn read(reader: &mut Reader<'_>) -> Result<Self, ChangeRefusal>;
    fn write(self, out: &mut Vec<u8>);
}

impl Item for u64 {
    fn read(reader: &mut Reader<'_>) -> Result<Self, ChangeRefusal> {
        reader.unsigned()
    }

    fn write(self, out: &mut Vec<u8>) {
        write_unsigned(out, self);
    }
}

impl Item for i64 {
    fn read(reader: &mut Reader<'_>) -> Result<Self, ChangeRefusal> {
        reader.signed()
    }

    fn write(self, out: &mut Vec<u8>) {
        write_signed(out, self);
    }
}

/// Reads a run-length column of at most `max` values.
///
/// A run is its length and its value, a literal run its negated length and its values, an absent run 0 and its length.
pub(super) fn read_runs<T: Item>(column: &[u8], max: usize) -> Result<Vec<Option<T>>, ChangeRefusal> {
    let mut reader = Reader::new(column);
    let mut values = Vec::new();
    while !reader.is_empty() {
        let length = reader.signed()?;
        let (count, literal) = match length {
            0 => (reader.unsigned()?, false),
            _ => (length.unsigned_abs(), length < 0),
        };
        if count == 0 || count > (max - values.len()) as u64 {
            return Err(ChangeRefusal::TooManyOps { max });
        }
        if literal {
            for _ in 0..count {
                values.push(Some(T::read(&mut reader)?));
            }
        } else {
            let value = if length == 0 { None } else { Some(T::read(&mut reader)?) };
            values.extend(std::iter::repeat_n(value, count as usize));
        }
    }
    Ok(values)
}

/// Writes a run-length column as automerge does: a column of nothing but absent values is empty.
pub(super) fn write_runs<T: Item>(out: &mut Vec<u8>, values: &[Option<T>]) {
    if values.iter().all(Option::is_none) {
        return;
    }
    let run_at = |at: usize| values[at..].iter().take_while(|value| **value == values[at]).count();
    let mut at = 0;
    while at < values.len() {
        let run = run_at(at);
        match values[at] {
            None => {
                write_signed(out, 0);
                write_unsigned(out, run as u64);
                at += run;
            }
            Some(value) if run > 1 => {
                write_signed(out, run as i64);
                value.write(out);
                at += run;
            }
            Some(_) => {
                let start = at;
                while at < values.len()
                    && values[at].is_some()
                    && (at + 1 == values.len() || values[at] != values[at + 1])
                {
                    at += 1;
                }
                write_signed(out, -((at - start) as i64));
                values[start..at].iter().flatten().for_each(|value| value.write(out));
            }
        }
    }
}

/// Reads a delta column: each present value is the one before plus the stored difference.
pub(super) fn read_deltas(column: &[u8], max: usize) -> Result<Vec<Option<i64>>, ChangeRefusal> {
    let mut values = read_runs::<i64>(column, max)?;
    let mut last = 0i64;
    for value in values.iter_mut().flatten() {
        last = last.checked_add(*value).ok_or(ChangeRefusal::Malformed { at: 0 })?;
        *value = last;
    }
    Ok(values)
}

pub(super) fn write_deltas(out: &mut Vec<u8>, values: impl IntoIterator<Item = Option<i64>>) {
    let mut last = 0;
    let deltas: Vec<Option<i64>> = values
        .into_iter()
        .map(|value| {
            value.map(|value| {
                let delta = value - last;
                last = value;
                delta
            })
        })
        .collect();
    write_runs(out, &deltas);
}

/// Reads a boolean column: lengths of alternating runs, the first one of false.
pub(super) fn read_booleans(column: &[u8], max: usize) -> Result<Vec<bool>, ChangeRefusal> {
    let mut reader = Reader::new(column);
    let mut values = Vec::new();
    let mut value = false;
    while !reader.is_empty() {
        let count = reader.unsigned()?;
        if count > (max - values.len()) as u64 {
            return Err(ChangeRefusal::TooManyOps { max });
        }
        values.extend(std::iter::repeat_n(value, count as usize));
        value = !value;
    }
    Ok(values)
}

pub(super) fn write_booleans(out: &mut Vec<u8>, values: impl IntoIterator<Item = bool>) {
    let (mut last, mut count) = (false, 0);
    for value in values {
        if value != last {
            write_unsigned(out, count);
            (last, count) = (value, 0);
        }
        count += 1;
    }
    if count > 0 {
        write_unsigned(out, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[Option<u64>], bytes: &[u8]) {
        let mut out = Vec::new();
        write_runs(&mut out, values);
        assert_eq!(out, bytes);
        let read = read_runs::<u64>(bytes, 100).unwrap();
        assert!(read == values || (bytes.is_empty() && values.iter().all(Option::is_none)));
    }

    #[test]
    fn runs_are_written_as_runs_literals_and_absences() {
        check(&[], &[]);
        check(&[None, None], &[]);
        check(&[Some(7)], &[0x7f, 7]);
        check(&[Some(7), Some(7)], &[2, 7]);
        check(&[Some(1), Some(2), Some(2)], &[0x7f, 1, 2, 2]);
        check(&[Some(1), Some(2), Some(3)], &[0x7d, 1, 2, 3]);
        check(&[None, Some(300)], &[0, 1, 0x7f, 0xac, 2]);
        check(&[Some(1), Some(1), None, None], &[2, 1, 0, 2]);
    }

    #[test]
    fn a_run_that_claims_too_many_values_is_refused_before_they_are_made() {
        let claim = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 1];
        assert_eq!(read_runs::<u64>(&claim, 100), Err(ChangeRefusal::TooManyOps { max: 100 }));
        let claim = [0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f];
        assert_eq!(read_runs::<u64>(&claim, 100), Err(ChangeRefusal::TooManyOps { max: 100 }));
        assert_eq!(read_booleans(&[0, 101], 100), Err(ChangeRefusal::TooManyOps { max: 100 }));
    }

    #[test]
    fn signed_integers_survive() {
        for value in [0, 1, -1, 63, 64, -64, -65, 1 << 40, -(1 << 40)] {
            let mut out = Vec::new();
            write_signed(&mut out, value);
            assert_eq!(Reader::new(&out).signed(), Ok(value));
        }
    }
}
