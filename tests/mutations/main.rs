//! Damaged bytes through every decoder and both ends of a session: no panic, bounded memory, and whatever decodes is
//! written again as it was read.
//!
//! The golden vectors are damaged in a hundred thousand ways, with their checksums left wrong or made right again. The
//! dice are seeded, so a failure names its case and happens again.
#![allow(clippy::unwrap_used, missing_docs)]

mod memory;
mod mutant;
mod sessions;

#[path = "../fuzz/targets.rs"]
mod targets;

use std::collections::BTreeMap;
use std::path::Path;

use driftlog_core::codec::{to_bytes, unseal};
use driftlog_core::rich::Splice;
use driftlog_core::sequencer::AuthorRow;

use mutant::{Dice, damage};
pub(crate) use targets::ACTOR;
use targets::{ROWS as KINDS, TARGETS, TYPIST, digested, framed, sealed};

const FRAMES: usize = 40_000;
const ENTRIES: usize = 40_000;
const ROWS: usize = 20_000;
const SNAPSHOTS: usize = 10_000;
const RICH_CHANGES: usize = 10_000;

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
            _ => framed(&damage(&mut dice, &seed.bytes[4..], &other.bytes[4..])),
        };
        decoded += usize::from(bounded(&bytes, format!("{case}, from {}", seed.name), || targets::frame(&bytes)));
    }
    assert!(decoded > FRAMES / 50, "only {decoded} damaged frames decoded: the damage is too coarse to find anything");
}

#[test]
fn damaged_entries_decode_to_themselves_or_not_at_all() {
    let (seeds, mut dice, mut decoded) = (seeds("entries.json"), Dice(2), 0);
    for case in 0..ENTRIES {
        let (seed, other) = (dice.pick(&seeds), dice.pick(&seeds));
        let bytes = damage(&mut dice, &seed.bytes, &other.bytes);
        decoded += usize::from(bounded(&bytes, format!("{case}, from {}", seed.name), || targets::entry(&bytes)));
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
        bounded(&bytes, format!("{case}, from {}", seed.name), || targets::row(&seed.row, &bytes));
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
        decoded += usize::from(bounded(&bytes, case, || targets::snapshot(&bytes)));
    }
    assert!(decoded > SNAPSHOTS / 50, "only {decoded} damaged snapshots decoded");
}

#[test]
fn damaged_rich_changes_are_taken_whole_or_leave_no_trace() {
    let (seeds, mut dice, mut taken) = (fuzz_seeds().remove("rich-change").unwrap(), Dice(5), 0);
    let seeds: Vec<_> = seeds.into_values().collect();
    for case in 0..RICH_CHANGES {
        let (seed, other) = (dice.pick(&seeds), dice.pick(&seeds));
        let bytes = targets::chunk(&damage(&mut dice, seed, other));
        taken += usize::from(bounded(&bytes, case, || targets::rich_change(&bytes)));
    }
    assert!(taken > 0, "some damage only changes what is typed");
}

/// The fuzzer starts from these: small, and each decodes.
#[test]
fn the_fuzzers_seeds_are_the_vectors_and_decode() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let rewrite = std::env::var_os("DRIFTLOG_REWRITE_SEEDS").is_some();
    for (target, seeds) in fuzz_seeds() {
        let folder = root.join(target);
        if rewrite {
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(&folder).unwrap();
            seeds.iter().for_each(|(name, content)| std::fs::write(folder.join(name), content).unwrap());
        }
        let files = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap());
        let files: BTreeMap<String, Vec<u8>> =
            files.map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap())).collect();
        assert_eq!(files, seeds, "{target}: see tests/fuzz/README.md");
        for (name, content) in &files {
            assert!(targets::run(target, content), "{target}/{name} does not decode");
        }
    }
    assert_eq!(fuzz_seeds().len(), TARGETS.len());
}

/// Content for every target, by name.
fn fuzz_seeds() -> BTreeMap<&'static str, BTreeMap<String, Vec<u8>>> {
    let mut all: BTreeMap<&str, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    let mut add = |target, name: &str, content| {
        all.entry(target)
            .or_default()
            .insert(name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-"), content);
    };
    seeds("frames.json").iter().for_each(|seed| add("frame", &seed.name, seed.bytes[4..].to_vec()));
    seeds("entries.json").iter().for_each(|seed| add("entry", &seed.name, seed.bytes.clone()));
    for seed in seeds("rows.json") {
        if seed.row == "snapshot" {
            add("snapshot", &seed.name, seed.bytes[..seed.bytes.len() - 32].to_vec());
        }
        let (Some(kind), Ok(payload)) = (KINDS.iter().position(|kind| *kind == seed.row), unseal(&mut &seed.bytes[..]))
        else {
            continue;
        };
        // A group of entries may be several records, and the target makes one.
        if seed.row != "own" || sealed(payload).len() == seed.bytes.len() {
            add("row", &seed.name, [&[kind as u8], payload].concat());
        }
    }
    let author = AuthorRow::new(ACTOR, &driftlog_core::id::LogName::new("board/42").unwrap());
    let kind = KINDS.iter().position(|kind| *kind == "author").unwrap() as u8;
    add("row", "author", [vec![kind], to_bytes(&author)].concat());
    for (name, at, delete, insert) in
        [("insert", 3, 0, "abé"), ("delete", 2, 6, ""), ("both", 1, 4, "😀"), ("key", 0, 0, "k")]
    {
        let splice = Splice { at, delete, insert: insert.to_owned() };
        add("rich-change", name, targets::text().edit(TYPIST, &[splice]).unwrap()[8..].to_vec());
    }
    all
}

#[test]
fn damage_is_the_same_every_time() {
    let once = |seed| damage(&mut Dice(seed), b"the same bytes", b"other bytes");
    assert_eq!(once(7), once(7));
    assert_ne!(once(7), once(8));
}
