//! An ordered list that tells the rank of each item: chunks of bounded size.
//!
//! With 100,000 items a rank is a sum over some 400 chunk lengths and a binary search in one chunk, and an insertion
//! moves at most a chunk.

use std::cmp::Ordering;

const CHUNK_MAX: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Ranked<T> {
    chunks: Vec<Vec<T>>,
    length: usize,
}

impl<T> Ranked<T> {
    /// Takes items that are in order already.
    pub(super) fn from_sorted(items: Vec<T>) -> Self {
        let length = items.len();
        let mut chunks = Vec::with_capacity(length / (CHUNK_MAX / 2) + 1);
        let mut items = items.into_iter();
        loop {
            let chunk: Vec<T> = items.by_ref().take(CHUNK_MAX / 2).collect();
            if chunk.is_empty() {
                return Self { chunks, length };
            }
            chunks.push(chunk);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn get(&self, mut rank: usize) -> Option<&T> {
        for chunk in &self.chunks {
            match chunk.get(rank) {
                Some(item) => return Some(item),
                None => rank -= chunk.len(),
            }
        }
        None
    }

    /// The items from a rank on.
    pub(super) fn iter_from(&self, rank: usize) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten().skip(rank)
    }

    /// The rank of an item, or the one it would have.
    pub(super) fn rank(&self, order: impl Fn(&T) -> Ordering) -> Result<usize, usize> {
        let (chunk, place) = self.place(&order);
        let before: usize = self.chunks[..chunk].iter().map(Vec::len).sum();
        match place {
            Ok(at) => Ok(before + at),
            Err(at) => Err(before + at),
        }
    }

    /// Puts an item where `order` says; returns its rank.
    pub(super) fn insert(&mut self, item: T, order: impl Fn(&T) -> Ordering) -> usize {
        let (chunk, place) = self.place(&order);
        let (Ok(at) | Err(at)) = place;
        let rank = self.chunks[..chunk].iter().map(Vec::len).sum::<usize>() + at;
        if self.chunks.is_empty() {
            self.chunks.push(Vec::new());
        }
        let items = &mut self.chunks[chunk];
        items.insert(at, item);
        if items.len() > CHUNK_MAX {
            let tail = items.split_off(CHUNK_MAX / 2);
            self.chunks.insert(chunk + 1, tail);
        }
        self.length += 1;
        rank
    }

    /// Takes an item out; returns the rank it had.
    pub(super) fn remove(&mut self, order: impl Fn(&T) -> Ordering) -> Option<usize> {
        let (chunk, place) = self.place(&order);
        let at = place.ok()?;
        let rank = self.chunks[..chunk].iter().map(Vec::len).sum::<usize>() + at;
        self.chunks[chunk].remove(at);
        if self.chunks[chunk].is_empty() {
            self.chunks.remove(chunk);
        }
        self.length -= 1;
        Some(rank)
    }

    /// The chunk an item belongs to, and its place there.
    fn place(&self, order: &impl Fn(&T) -> Ordering) -> (usize, Result<usize, usize>) {
        let behind = self.chunks.partition_point(|chunk| chunk.first().is_some_and(|first| order(first).is_le()));
        let chunk = behind.saturating_sub(1);
        (chunk, self.chunks.get(chunk).map_or(Err(0), |items| items.binary_search_by(order)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_a_plain_sorted_list() {
        let (mut ranked, mut plain) = (Ranked::<u32>::default(), Vec::new());
        let mut seed = 3u32;
        for _ in 0..6_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let item = (seed >> 8) % 4_000;
            match plain.binary_search(&item) {
                Ok(at) => {
                    plain.remove(at);
                    assert_eq!(ranked.rank(|known| known.cmp(&item)), Ok(at));
                    assert_eq!(ranked.remove(|known| known.cmp(&item)), Some(at));
                }
                Err(at) => {
                    plain.insert(at, item);
                    assert_eq!(ranked.insert(item, |known| known.cmp(&item)), at);
                }
            }
        }
        assert_eq!(ranked.len(), plain.len());
        assert!(ranked.iter_from(0).eq(&plain));
        assert!(ranked.iter_from(700).eq(&plain[700..]));
        assert!((0..plain.len()).all(|at| ranked.get(at) == plain.get(at)));
        assert!(Ranked::from_sorted(plain.clone()).iter_from(0).eq(&plain));
    }
}
