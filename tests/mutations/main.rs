//! Damaged bytes through every decoder and both ends of a session: no panic, bounded memory, and whatever decodes is
//! written again as it was read.
//!
//! The golden vectors are damaged in a hundred thousand ways, with their checksums left wrong or made right again. The
//! dice are seeded, so a failure names its case and happens again.
#![allow(clippy::unwrap_used, missing_docs)]

mod memory;
mod mutant;
mod sessions;

use std::path::Path;

use driftlog_core::codec::unseal;
use driftlog_core::entry::Entry;
use driftlog_core::id::{ActorId, EntryId, Seq};
use driftlog_core::packed::{Item, Packed, Pushed};
use driftlog_core::protocol::Frame;
use driftlog_core::snapshot;
use driftlog_core::storage::row::{self, DeadLetter, Identity, Received, Verdicts, Voids};
use serde::Serialize;
use serde::de::DeserializeOwned;

use mutant::{Dice, damage, digested, frame, sealed};

const FRAMES: usize = 40_000;
const ENTRIES: usize = 40_000;
const ROWS: usize = 20_000;
const SNAPSHOTS: usize = 10_000;

/// Who wrote the own entries of the vectors.
pub(crate) const ACTOR: ActorId = ActorId([0xa1; 16]);

/// A vector's name, kind of row, and bytes.
pub(crate) struct Seed {
    pub(crate) name: String,
    pub(crate) row: String,
    pub(crate) bytes: Vec<u8>,
}

/// The good vectors of a file.
pub(crate) fn seeds(file: &str) -> Vec<Seed> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(file);
    let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let good = json["vectors"].as_array().unwrap().iter().filter(|vector| vector["refused"].is_null());
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    good.map(|vector| Seed {
        name: text(&vector["name"]),
        row: text(&vector["row"]),
        bytes: unhex(vector["hex"].as_str().unwrap()),
    })
    .collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap()).collect()
}

/// What decoding may hold at once: tables are set up before their elements are seen, by 1 MiB each and some levels
/// deep; what grows with the bytes grows in proportion.
fn bounded<T>(bytes: &[u8], case: impl std::fmt::Display, work: impl FnOnce() -> T) -> T {
    let (done, peak) = memory::peak_of(work);
    let most = 4 * 1024 * 1024 + 512 * bytes.len() as u64;
    assert!(peak <= most, "case {case}: {peak} bytes held for {} read", bytes.len());
    done
}

#[test]
fn damaged_frames_decode_to_themselves_or_not_at_all() {
    let (seeds, mut dice, mut decoded) = (seeds("frames.json"), Dice(1), 0);
    for case in 0..FRAMES {
        let (seed, other) = (dice.pick(&seeds), dice.pick(&seeds));
        // Most damage would stop at the checksum, so most gets a right one.
        let bytes = match case % 8 {
            0 => damage(&mut dice, &seed.bytes, &other.bytes),
            _ => frame(&damage(&mut dice, &seed.bytes[4..], &other.bytes[4..])),
        };
        let case = format!("{case}, from {}", seed.name);
        bounded(&bytes, &case, || {
            let Ok(frame) = Frame::decode(&bytes) else { return };
            decoded += 1;
            let again = frame.encode();
            assert_eq!(Frame::decode(&again).as_ref(), Ok(&frame), "case {case}");
            assert_eq!(Frame::decode(&again).unwrap().encode(), again, "case {case}");
            unpack(&frame, &case);
        });
    }
    assert!(decoded > FRAMES / 50, "only {decoded} damaged frames decoded: the damage is too coarse to find anything");
}

fn unpack(frame: &Frame, case: &str) {
    let entries = match frame {
        Frame::Push(push) => pushed(&push.entries),
        Frame::Entries(frame) => {
            let items = frame.entries.unpack(frame.from).unwrap_or_default();
            let entry = |item| if let Item::Entry(logged) = item { Some(logged.entry) } else { None };
            items.into_iter().filter_map(entry).collect()
        }
        _ => return,
    };
    for entry in entries {
        assert_eq!(Entry::from_bytes(&entry.to_bytes()), Ok(entry), "case {case}");
    }
}

fn pushed(packed: &Packed) -> Vec<Entry> {
    let items = packed.unpack_pushed(ACTOR).unwrap_or_default();
    let entry = |item| if let Pushed::Entry(entry) = item { Some(entry) } else { None };
    items.into_iter().filter_map(entry).collect()
}

#[test]
fn damaged_entries_decode_to_themselves_or_not_at_all() {
    let (seeds, mut dice, mut decoded) = (seeds("entries.json"), Dice(2), 0);
    for case in 0..ENTRIES {
        let (seed, other) = (dice.pick(&seeds), dice.pick(&seeds));
        let bytes = damage(&mut dice, &seed.bytes, &other.bytes);
        bounded(&bytes, case, || {
            if let Ok(entry) = Entry::from_bytes(&bytes) {
                decoded += 1;
                assert_eq!(entry.to_bytes(), bytes, "case {case}, from {}", seed.name);
            }
        });
    }
    assert!(decoded > ENTRIES / 50, "only {decoded} damaged entries decoded");
}

#[test]
fn damaged_rows_decode_to_themselves_or_not_at_all() {
    let (seeds, mut dice) = (seeds("rows.json"), Dice(3));
    let seeds: Vec<_> = seeds.into_iter().filter(|seed| !["key", "snapshot", "record"].contains(&&*seed.row)).collect();
    for case in 0..ROWS {
        let (seed, other) = (dice.pick(&seeds), dice.pick(&seeds));
        let bytes = match case % 4 {
            0 => damage(&mut dice, &seed.bytes, &other.bytes),
            _ => {
                let payload = unseal(&mut &seed.bytes[..]).unwrap_or_default().to_vec();
                sealed(&damage(&mut dice, &payload, &other.bytes[8..]))
            }
        };
        let case = format!("{case}, from {}", seed.name);
        bounded(&bytes, &case, || match &*seed.row {
            "identity" => same_twice::<Identity>(&bytes, &case),
            "next" => same_twice::<Seq>(&bytes, &case),
            "leader" => same_twice::<u64>(&bytes, &case),
            "voids" => same_twice::<Voids>(&bytes, &case),
            "run" => same_row::<EntryId>(&bytes, &case),
            "verdicts" => same_row::<Verdicts>(&bytes, &case),
            "received" => same_row::<Received>(&bytes, &case),
            "dead letter" => same_row::<DeadLetter>(&bytes, &case),
            "own" => {
                if let Ok(entries) = row::decode_group(&bytes) {
                    assert_eq!(row::encode_group(&entries), bytes, "case {case}");
                }
            }
            other => panic!("no reader for rows of {other}"),
        });
    }
}

fn same_twice<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8], case: &str) {
    same_row::<T>(bytes, case);
    if let Ok(row) = row::decode_either::<T>(bytes) {
        assert_eq!(row::decode_either::<T>(&row::encode_twice(&row)).as_ref(), Ok(&row), "case {case}");
    }
}

fn same_row<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8], case: &str) {
    if let Ok(row) = row::decode::<T>(bytes) {
        assert_eq!(row::decode::<T>(&row::encode(&row)).as_ref(), Ok(&row), "case {case}");
    }
}

#[test]
fn damaged_snapshots_decode_to_themselves_or_not_at_all() {
    let (seeds, mut dice, mut decoded) = (seeds("rows.json"), Dice(4), 0);
    let seed = seeds.into_iter().find(|seed| seed.row == "snapshot").unwrap();
    let content = &seed.bytes[..seed.bytes.len() - 32];
    for case in 0..SNAPSHOTS {
        let bytes = match case % 8 {
            0 => damage(&mut dice, &seed.bytes, content),
            _ => digested(&damage(&mut dice, content, content)),
        };
        bounded(&bytes, case, || {
            if let Ok(mut state) = snapshot::decode(&bytes) {
                decoded += 1;
                let again = snapshot::encode(&mut state);
                let mut same = snapshot::decode(&again).unwrap_or_else(|error| panic!("case {case}: {error}"));
                assert_eq!(snapshot::encode(&mut same), again, "case {case}");
            }
        });
    }
    assert!(decoded > SNAPSHOTS / 50, "only {decoded} damaged snapshots decoded");
}

#[test]
fn damage_is_the_same_every_time() {
    let once = |seed| damage(&mut Dice(seed), b"the same bytes", b"other bytes");
    assert_eq!(once(7), once(7));
    assert_ne!(once(7), once(8));
}
