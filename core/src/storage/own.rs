//! Own entries as their rows hold them: what is whole, and which seqs are damaged or gone.
//!
//! A group's row is keyed by its first seq and ends where the next row begins, or where the row of the next seq says;
//! so each seq that was ever given is accounted for, whatever happened to its bytes. Damage costs the record it
//! struck: behind it, reading goes on at the next record that is whole.

use std::ops::RangeInclusive;

use crate::codec;
use crate::entry::{Entry, InvalidEntry};
use crate::id::Seq;
use crate::storage::{self, Row};

/// What the rows hold from a seq on.
#[derive(Debug, Default)]
pub struct Own {
    /// Whole entries, ascending.
    pub entries: Vec<Entry>,
    /// Stretches of seqs without a whole entry, ascending.
    pub damaged: Vec<Damaged>,
}

/// Seqs that were given to entries whose bytes cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// The seqs.
    pub seqs: RangeInclusive<Seq>,
    /// What is left in their place; empty if their row is gone.
    pub bytes: Vec<u8>,
    /// What is wrong, for people.
    pub reason: String,
}

/// Reads rows of own entries. Seqs before `from` are not wanted; `next` is the first seq that was
/// not given yet, as far as it is known.
///
/// # Errors
/// [`InvalidEntry`]: a record is whole, but is no entry of this build's format. Nothing is damaged: update.
pub fn read(rows: impl IntoIterator<Item = Row>, from: Seq, next: Option<Seq>) -> Result<Own, InvalidEntry> {
    let mut own = Own::default();
    let rows = rows.into_iter().filter_map(|(key, bytes)| Some((Seq(storage::number_of(&key)?), bytes)));
    let mut rows: Vec<_> = rows.collect();
    // Rows of one actor after the other are in no order of their seqs.
    rows.sort_by_key(|(first, _)| *first);
    rows.dedup_by_key(|(first, _)| *first);
    let mut rows = rows.into_iter().peekable();
    let mut at = from;
    while let Some((first, bytes)) = rows.next() {
        if first > at {
            own.missing(at, first);
        }
        let end = rows.peek().map(|(first, _)| *first).or(next);
        at = at.max(own.read_group(&bytes, first, end, from)?);
    }
    if let Some(next) = next.filter(|next| *next > at) {
        own.missing(at, next);
    }
    Ok(own)
}

impl Own {
    /// Reads one row; returns the seq behind it.
    fn read_group(&mut self, bytes: &[u8], first: Seq, end: Option<Seq>, from: Seq) -> Result<Seq, InvalidEntry> {
        let (mut at, mut rest) = (first, bytes);
        while !rest.is_empty() && end.is_none_or(|end| at < end) {
            let fits = |seq: Seq| seq >= at && end.is_none_or(|end| seq < end);
            if let Some((entry, behind)) = whole(rest)?.filter(|(entry, _)| fits(entry.header.seq)) {
                let seq = entry.header.seq;
                // What stood between was taken out.
                self.missing(at.max(from), seq);
                at = seq;
                if at >= from {
                    self.entries.push(entry);
                }
                (at, rest) = (at.next(), behind);
                continue;
            }
            let later = (1..rest.len()).find_map(|skip| {
                let (entry, _) = whole(&rest[skip..]).ok()??;
                let seq = entry.header.seq;
                (seq > at && end.is_none_or(|end| seq < end)).then_some((skip, seq))
            });
            let (skip, behind) = later.unwrap_or((rest.len(), end.unwrap_or(at.next())));
            self.damaged(at.max(from), behind, &rest[..skip], "the bytes do not match their checksum");
            (at, rest) = (behind, &rest[skip..]);
        }
        if let Some(end) = end.filter(|end| *end > at) {
            self.missing(at.max(from), end);
            return Ok(end);
        }
        Ok(at)
    }

    fn missing(&mut self, from: Seq, end: Seq) {
        self.damaged(from, end, &[], "no row holds it any more");
    }

    fn damaged(&mut self, from: Seq, end: Seq, bytes: &[u8], reason: &str) {
        if from < end {
            let seqs = from..=Seq(end.0 - 1);
            self.damaged.push(Damaged { seqs, bytes: bytes.to_vec(), reason: reason.to_owned() });
        }
    }
}

/// The record at the front, if its checksum is right, and what follows it.
fn whole(bytes: &[u8]) -> Result<Option<(Entry, &[u8])>, InvalidEntry> {
    let mut rest = bytes;
    match codec::unseal(&mut rest) {
        // A checksum over nothing is right by chance too often: zeroed bytes are a record of no bytes.
        Ok([]) | Err(_) => Ok(None),
        Ok(payload) => Ok(Some((Entry::from_bytes(payload)?, rest))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::entry::{Body, Header, Salt};
    use crate::id::{ActorId, Base, LogName, Name, RunId};
    use crate::storage::row;
    use crate::time::Time;

    fn entry(seq: u64) -> Entry {
        let body = Body::new(Name::new("act").expect("name"), None, vec![], None, Salt([seq as u8; 8]));
        let header = Header::new(RunId([2; 8]), seq, Seq(seq), Base::default(), Time::from_ms(seq));
        Entry::new(header, Arc::new(body)).expect("valid")
    }

    fn group(seqs: std::ops::RangeInclusive<u64>) -> Row {
        let key = storage::own_key(&LogName::new("l").expect("name"), ActorId([1; 16]), Seq(*seqs.start()));
        let entries: Vec<_> = seqs.map(entry).collect();
        (key, row::encode_group(&entries))
    }

    /// Seqs of whole entries, and of damaged stretches.
    fn check(rows: Vec<Row>, from: u64, next: u64) -> (Vec<u64>, Vec<(u64, u64)>) {
        let own = read(rows, Seq(from), Some(Seq(next))).expect("reads");
        let seqs = own.entries.iter().map(|entry| entry.header.seq.0).collect();
        (seqs, own.damaged.iter().map(|damaged| (damaged.seqs.start().0, damaged.seqs.end().0)).collect())
    }

    #[test]
    fn each_flipped_bit_costs_exactly_the_entry_it_struck() {
        let rows = vec![group(1..=3), group(4..=5)];
        let record = rows[0].1.len() / 3;
        for bit in 0..rows[0].1.len() * 8 {
            let mut rows = rows.clone();
            rows[0].1[bit / 8] ^= 1 << (bit % 8);
            let struck = (bit / 8 / record) as u64 + 1;
            let others = (1..=5).filter(|seq| *seq != struck).collect();
            assert_eq!(check(rows, 1, 6), (others, vec![(struck, struck)]), "bit {bit}");
        }
    }

    #[test]
    fn a_row_that_is_gone_cut_or_zeroed_is_known_by_its_neighbours() {
        let (one, two, three) = (group(1..=3), group(4..=5), group(6..=6));
        assert_eq!(check(vec![one.clone(), three.clone()], 1, 7), (vec![1, 2, 3, 6], vec![(4, 5)]));
        assert_eq!(check(vec![one.clone(), two.clone()], 1, 9), (vec![1, 2, 3, 4, 5], vec![(6, 8)]));
        assert_eq!(check(vec![], 3, 5), (vec![], vec![(3, 4)]));
        let cut = (one.0.clone(), one.1[..one.1.len() / 3].to_vec());
        assert_eq!(check(vec![cut, two.clone()], 1, 6), (vec![1, 4, 5], vec![(2, 3)]));
        let zeroed = (two.0.clone(), vec![0; two.1.len()]);
        assert_eq!(check(vec![one.clone(), zeroed, three], 1, 7), (vec![1, 2, 3, 6], vec![(4, 5)]));
        assert_eq!(check(vec![one], 3, 4), (vec![3], vec![]), "what lies before is not wanted");
    }

    #[test]
    fn an_entry_of_another_format_is_not_damage() {
        let mut bytes = Vec::new();
        codec::seal(b"\x92\x02\xc0", &mut bytes);
        let key = storage::own_key(&LogName::new("l").expect("name"), ActorId([1; 16]), Seq(1));
        assert!(read(vec![(key, bytes)], Seq(1), None).is_err());
    }
}
