//! The form in which a large snapshot is stored: deflated, behind a checksum.
//!
//! Everybody else sees the bytes as they were encoded: digests, parts and places in them are those of the plain bytes.
//! Small ones, and those that deflating makes no smaller, are stored as they are. Which of the two it is shows in the
//! length. Source: docs/log-format.md, "Server tables".
//!
//! **Invariant:** what is inflated is what was deflated, since its checksum is compared first; and whatever stands
//! there, inflating it takes no more memory than the plain bytes have.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::bufread::DeflateDecoder;
use flate2::write::DeflateEncoder;

/// Smaller ones stay as they are: an empty file has as many bytes besides.
const PLAIN_BYTES_MAX: usize = 32 * 1024;
/// Bytes of the checksum, a CRC32C, big-endian.
const CHECKSUM_BYTES: usize = 4;
/// The fastest level of `zlib-rs` that makes codes of its own for each block: the one below takes a tenth more.
const LEVEL: u32 = 2;
/// How many bytes one deflated byte stands for at most. Source: <https://zlib.net/zlib_tech.html>.
const EXPANSION_MAX: u64 = 1_032;

/// The deflated form; none where the bytes are to be stored as they are.
pub(super) fn deflated(plain: &[u8]) -> Option<Vec<u8>> {
    if plain.len() <= PLAIN_BYTES_MAX {
        return None;
    }
    let mut encoder = DeflateEncoder::new(vec![0; CHECKSUM_BYTES], Compression::new(LEVEL));
    // Memory takes whatever is written to it.
    encoder.write_all(plain).ok()?;
    let mut stored = encoder.finish().ok()?;
    let (checksum, stream) = stored.split_first_chunk_mut::<CHECKSUM_BYTES>()?;
    *checksum = crc32c::crc32c(stream).to_be_bytes();
    (stored.len() < plain.len()).then_some(stored)
}

/// The plain bytes, `size` of them, of what is stored; none if it is damaged.
pub(super) fn plain(stored: &[u8], size: u64) -> Option<Vec<u8>> {
    if stored.len() as u64 == size {
        return Some(stored.to_vec());
    }
    let (checksum, stream) = stored.split_first_chunk::<CHECKSUM_BYTES>()?;
    if *checksum != crc32c::crc32c(stream).to_be_bytes() || size > EXPANSION_MAX.saturating_mul(stream.len() as u64) {
        return None;
    }
    let mut plain = Vec::with_capacity(usize::try_from(size).ok()?);
    // One byte more would show that there are too many.
    DeflateDecoder::new(stream).take(size.saturating_add(1)).read_to_end(&mut plain).ok()?;
    (plain.len() as u64 == size).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::{EXPANSION_MAX, PLAIN_BYTES_MAX, deflated, plain};

    fn words(bytes: usize) -> Vec<u8> {
        (0_u64..).flat_map(|number| format!("word{} ", number * number % 977).into_bytes()).take(bytes).collect()
    }

    /// What nothing makes smaller.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut byte = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..bytes).map(|_| byte()).collect()
    }

    #[test]
    fn large_bytes_are_smaller_where_they_are_stored_and_come_back_as_they_were() {
        for bytes in [PLAIN_BYTES_MAX + 1, 1_000_000] {
            let words = words(bytes);
            let stored = deflated(&words).expect("is worth it");
            assert!(stored.len() * 2 < words.len(), "{} of {bytes}", stored.len());
            assert_eq!(plain(&stored, bytes as u64), Some(words));
        }
    }

    #[test]
    fn small_ones_and_those_that_deflating_makes_no_smaller_stay_as_they_are() {
        assert_eq!(deflated(&words(PLAIN_BYTES_MAX)), None);
        let noise = noise(100_000);
        assert_eq!(deflated(&noise), None);
        assert_eq!(plain(&noise, 100_000), Some(noise.clone()));
    }

    #[test]
    fn every_bit_that_is_wrong_shows_and_so_does_every_end_that_is_missing() {
        let words = words(PLAIN_BYTES_MAX + 1);
        let size = words.len() as u64;
        let mut stored = deflated(&words).expect("is worth it");
        for bit in 0..stored.len() * 8 {
            stored[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(plain(&stored, size), None, "bit {bit}");
            stored[bit / 8] ^= 1 << (bit % 8);
        }
        for end in 0..stored.len() {
            assert_eq!(plain(&stored[..end], size), None, "cut at {end}");
        }
        for wrong in [0, 1, size - 1, size + 1, u64::MAX, EXPANSION_MAX * stored.len() as u64] {
            assert_eq!(plain(&stored, wrong), None, "{wrong} instead of {size}");
        }
    }
}
