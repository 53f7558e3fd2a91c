//! What must hold for any bytes, one function a decoder: no panic, and what decodes is written again as it was read.
//!
//! Shared by the fuzzer (`tests/fuzz`) and by the mutation test of `npm test`, so that neither can rot. Each takes
//! whole bytes and says whether they decoded; [`TARGETS`] takes content, and makes the checksums around it right,
//! because no fuzzer guesses those.

use driftlog_core::codec::seal;
use driftlog_core::entry::{Digest, Entry};
use driftlog_core::id::{ActorId, EntryId, Seq};
use driftlog_core::packed::{Item, Packed, Pushed};
use driftlog_core::protocol::Frame;
use driftlog_core::rich::{Candidate, Document, RichActor, Splice, inspect};
use driftlog_core::sequencer::AuthorRow;
use driftlog_core::snapshot;
use driftlog_core::storage::purge::Purged;
use driftlog_core::storage::row::{self, DeadLetter, Identity, Received, Verdicts, Voids};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

/// Who wrote the own entries of the vectors.
pub(crate) const ACTOR: ActorId = ActorId([0xa1; 16]);
/// Who makes the rich changes that are tried.
pub(crate) const TYPIST: RichActor = RichActor([0x66; 16]);
/// Kinds of stored rows, in the order of the first byte of the target `row`.
pub(crate) const ROWS: [&str; 10] =
    ["identity", "next", "leader", "run", "verdicts", "received", "dead letter", "own", "author", "voids"];

/// Whether a decoder takes these bytes.
pub(crate) type Target = fn(&[u8]) -> bool;

/// Every target by its name, over content without checksums.
pub(crate) const TARGETS: [(&str, Target); 5] = [
    ("frame", |content| frame(&framed(content))),
    ("entry", entry),
    ("row", |content| {
        let Some((kind, content)) = content.split_first() else { return false };
        row(ROWS[usize::from(*kind) % ROWS.len()], &sealed(content))
    }),
    ("snapshot", |content| snapshot(&digested(content))),
    ("rich-change", |content| rich_change(&chunk(content))),
];

/// Runs a target by its name.
pub(crate) fn run(name: &str, content: &[u8]) -> bool {
    let target = TARGETS.iter().find(|target| target.0 == name);
    target.unwrap_or_else(|| panic!("no target {name}")).1(content)
}

/// A frame of the protocol, with the entries in it.
pub(crate) fn frame(bytes: &[u8]) -> bool {
    let Ok(frame) = Frame::decode(bytes) else { return false };
    let again = frame.encode();
    assert_eq!(Frame::decode(&again).as_ref(), Ok(&frame));
    assert_eq!(Frame::decode(&again).map(|frame| frame.encode()), Ok(again));
    let entries = match &frame {
        Frame::Push(push) => pushed(&push.entries),
        Frame::Entries(frame) => {
            let items = frame.entries.unpack(frame.from).unwrap_or_default();
            let entry = |item| if let Item::Entry(logged) = item { Some(logged.entry) } else { None };
            items.into_iter().filter_map(entry).collect()
        }
        _ => Vec::new(),
    };
    entries.into_iter().for_each(|entry| assert_eq!(Entry::from_bytes(&entry.to_bytes()), Ok(entry)));
    true
}

fn pushed(packed: &Packed) -> Vec<Entry> {
    let items = packed.unpack_pushed(ACTOR).unwrap_or_default();
    let entry = |item| if let Pushed::Entry(entry) = item { Some(entry) } else { None };
    items.into_iter().filter_map(entry).collect()
}

/// An entry.
pub(crate) fn entry(bytes: &[u8]) -> bool {
    let Ok(entry) = Entry::from_bytes(bytes) else { return false };
    assert_eq!(entry.to_bytes(), bytes);
    true
}

/// A stored row of a kind.
pub(crate) fn row(kind: &str, bytes: &[u8]) -> bool {
    match kind {
        "identity" => same_twice::<Identity>(bytes),
        "next" => same_twice::<Seq>(bytes),
        "leader" => same_twice::<u64>(bytes),
        "voids" => same_twice::<Voids>(bytes),
        "run" => same_row::<EntryId>(bytes),
        "verdicts" => same_row::<Verdicts>(bytes),
        "received" => same_row::<Received>(bytes),
        "dead letter" => same_row::<DeadLetter>(bytes),
        "purged" => same_row::<Purged>(bytes),
        "author" => same_row::<AuthorRow>(bytes),
        "own" => {
            let Ok(entries) = row::decode_group(bytes) else { return false };
            assert_eq!(row::encode_group(&entries), bytes);
            true
        }
        other => panic!("no reader for rows of {other}"),
    }
}

/// A row that is stored in two copies.
fn same_twice<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> bool {
    if let Ok(row) = row::decode_either::<T>(bytes) {
        assert_eq!(row::decode_either::<T>(&row::encode_twice(&row)).as_ref(), Ok(&row));
    }
    same_row::<T>(bytes)
}

fn same_row<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> bool {
    let Ok(row) = row::decode::<T>(bytes) else { return false };
    assert_eq!(row::decode::<T>(&row::encode(&row)).as_ref(), Ok(&row));
    true
}

/// A snapshot.
pub(crate) fn snapshot(bytes: &[u8]) -> bool {
    let Ok(mut state) = snapshot::decode(bytes) else { return false };
    let again = snapshot::encode(&mut state);
    let mut same = snapshot::decode(&again).expect("what was written is read");
    assert_eq!(snapshot::encode(&mut same), again);
    true
}

/// A rich change through both parts of the gate; what is taken leaves a document that saves and opens as the same.
pub(crate) fn rich_change(bytes: &[u8]) -> bool {
    let candidate = Candidate { bytes, actor: TYPIST };
    let inspected = inspect(&candidate);
    let mut document = text();
    let before = document.digest();
    match (document.gate(&[candidate]).remove(0), inspected) {
        (Ok(admitted), Ok(ops)) => assert_eq!(admitted.ops, ops),
        (Ok(_), Err(refusal)) => panic!("the gate takes what a worker refuses: {refusal}"),
        (Err(_), _) => {
            assert_eq!(document.digest(), before, "a refused change leaves no trace");
            return false;
        }
    }
    let saved = document.save().expect("saves");
    assert_eq!(Document::load(&saved).map(|loaded| loaded.digest()), Ok(document.digest()));
    true
}

/// A text of two authors, some of it concurrent and some deleted.
pub(crate) fn text() -> Document {
    let splice = |at, delete, insert: &str| [Splice { at, delete, insert: insert.to_owned() }];
    let mut document = Document::genesis();
    document.edit(RichActor([1; 16]), &splice(0, 0, "the quick brown fox 😀 jumps")).expect("edits");
    let mut other = document.clone();
    document.edit(RichActor([1; 16]), &splice(4, 6, "")).expect("edits");
    let aside = other.edit(RichActor([2; 16]), &splice(10, 0, "dark ")).expect("edits");
    document.apply(&[&aside]).expect("applies");
    document
}

/// A frame around its content.
pub(crate) fn framed(content: &[u8]) -> Vec<u8> {
    sealed(content)[4..].to_vec()
}

/// A record around its payload.
pub(crate) fn sealed(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    seal(payload, &mut bytes);
    bytes
}

/// A snapshot around its content.
pub(crate) fn digested(content: &[u8]) -> Vec<u8> {
    [content, &Digest::of(&[content]).0].concat()
}

/// A chunk around its kind and content: a number of automerge's, the length, and what is in it.
pub(crate) fn chunk(content: &[u8]) -> Vec<u8> {
    let checksum = &Sha256::digest(content)[..4];
    [&[0x85, 0x6f, 0x4a, 0x83], checksum, content].concat()
}
