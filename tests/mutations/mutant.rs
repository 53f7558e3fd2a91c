//! Damage: seeded, so that the number of a case is its bug report.

/// SplitMix64: small, and the same everywhere.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Heads that announce more than can be there, and numbers at the ends of their ranges.
const LIES: &[&[u8]] = &[
    &[0xdd, 0xff, 0xff, 0xff, 0xff],                               // an array of 2^32 - 1
    &[0xdc, 0xff, 0xff],                                           // an array of 65,535
    &[0xdf, 0xff, 0xff, 0xff, 0xff],                               // a map of 2^32 - 1
    &[0xc6, 0xff, 0xff, 0xff, 0xff],                               // bytes of 4 GiB
    &[0xdb, 0xff, 0xff, 0xff, 0xff],                               // text of 4 GiB
    &[0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],       // 2^64 - 1
    &[0xcf, 0x00, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],       // 2^53 - 1
    &[0xcf, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],       // 2^63 - 1
    &[0xd3, 0x80, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00],       // -2^63
    &[0xd3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],       // -1, the long way
    &[0xcb, 0x7f, 0xf0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00],       // infinity
    &[0xce, 0xff, 0xff, 0xff, 0xff],                               // 2^32 - 1
    &[0xc0],                                                       // nil
    &[0x90],                                                       // an empty array
    &[0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91], // depth
];

/// Damages the bytes, mostly in one place; `other` is what is spliced in.
pub(crate) fn damage(dice: &mut Dice, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..*dice.pick(&[1, 1, 1, 1, 2, 3]) {
        bytes = damage_once(dice, bytes, other);
    }
    bytes
}

fn damage_once(dice: &mut Dice, mut bytes: Vec<u8>, other: &[u8]) -> Vec<u8> {
    let at = dice.below(bytes.len());
    let end = (at + 1 + dice.below(16)).min(bytes.len());
    match dice.below(12) {
        8.. => {
            // One whole leaf, or the head of a container: what is around it stays as it was.
            let leaves = leaves(&bytes);
            if let Some((start, end)) = leaves.get(dice.below(leaves.len())).copied() {
                bytes.splice(start..end, dice.pick(LIES).iter().copied());
            }
        }
        0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
        2 if !bytes.is_empty() => bytes[at] = dice.next() as u8,
        3 => bytes.truncate(at),
        4 => {
            bytes.drain(at..end);
        }
        5 => {
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        6 => {
            let from = dice.below(other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => {
            // In place of one byte, or of as many as it has itself.
            let lie = *dice.pick(LIES);
            let length = if dice.below(2) == 0 { 1 } else { lie.len() };
            let end = (at + length).min(bytes.len());
            bytes.splice(at..end, lie.iter().copied());
        }
    }
    bytes
}

/// Where the leaves of msgpack and the heads of its containers begin and end, as far as the bytes make sense.
fn leaves(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut leaves = Vec::new();
    let mut at = 0;
    while let Some(head) = bytes.get(at) {
        let announced = |size: usize| {
            let length = bytes.get(at + 1..at + 1 + size).unwrap_or_default();
            1 + size + length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
        };
        let length = match head {
            0xa0..=0xbf => 1 + usize::from(head & 0x1f),
            0xc4 | 0xd9 => announced(1),
            0xc5 | 0xda => announced(2),
            0xc6 | 0xdb => announced(4),
            0xcc | 0xd0 => 2,
            0xcd | 0xd1 | 0xdc | 0xde => 3,
            0xca | 0xce | 0xd2 | 0xdd | 0xdf => 5,
            0xcb | 0xcf | 0xd3 => 9,
            _ => 1,
        };
        let end = at.saturating_add(length).min(bytes.len());
        leaves.push((at, end));
        at = end;
    }
    leaves
}
