//! What the gate does with changes that no honest client sends.

use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, ROOT, TextEncoding};
use sha2::{Digest, Sha256};

use super::change::{self, ElementId, TextChange, TextOp};
use super::document::GENESIS;
use super::{Candidate, ChangeHash, ChangeRefusal, Document, RichActor, Splice, inspect};
use crate::limits;

const MALLORY: RichActor = RichActor([0x66; 16]);

/// A small generator; the seed is the bug report.
struct Seed(u64);

impl Seed {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }
}

fn splice(at: usize, delete: usize, insert: &str) -> Splice {
    Splice { at, delete, insert: insert.to_owned() }
}

fn gate(document: &mut Document, bytes: &[u8]) -> Result<(), ChangeRefusal> {
    document.gate(&[Candidate { bytes, actor: MALLORY }]).remove(0).map(|_| ())
}

/// A document with work of two actors, some of it concurrent, and Mallory's next change to it.
fn scene() -> (Document, Vec<u8>) {
    let mut document = Document::genesis();
    document.edit(RichActor([1; 16]), &[splice(0, 0, "the quick brown fox 😀 jumps")]).unwrap();
    let mut other = document.clone();
    document.edit(RichActor([1; 16]), &[splice(4, 6, "")]).unwrap();
    let aside = other.edit(RichActor([2; 16]), &[splice(10, 0, "dark ")]).unwrap();
    document.apply(&[&aside]).unwrap();
    let first = other.edit(MALLORY, &[splice(0, 0, "> "), splice(9, 1, "")]).unwrap();
    document.apply(&[&first]).unwrap();
    let change = document.clone().edit(MALLORY, &[splice(3, 4, "abé"), splice(0, 1, "")]).unwrap();
    (document, change)
}

/// A chunk of automerge's with any kind and content, and the checksum that belongs to it.
fn chunk(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    super::column::write_unsigned(&mut body, content.len() as u64);
    body.extend(content);
    let digest = Sha256::new().chain_update([kind]).chain_update(&body).finalize();
    let mut bytes = vec![0x85, 0x6f, 0x4a, 0x83];
    bytes.extend(&digest[..4]);
    bytes.push(kind);
    bytes.extend(body);
    bytes
}

/// The content of a chunk under 128 bytes or 16 KiB.
fn content(bytes: &[u8]) -> &[u8] {
    if bytes[9] < 0x80 { &bytes[10..] } else { &bytes[11..] }
}

/// Checks that a document is whole: automerge agrees, and what is saved opens as the same.
fn check_whole(document: &Document, what: &str) {
    let mut document = document.clone();
    let saved = document.save().unwrap();
    assert!(document.queue_is_empty(), "automerge does not take what the gate took: {what}");
    let loaded = Document::load(&saved).unwrap_or_else(|error| panic!("{error}: {what}"));
    assert_eq!(loaded.digest(), document.digest(), "{what}");
}

#[test]
fn a_good_change_is_taken_once() {
    let (mut document, change) = scene();
    assert_eq!(gate(&mut document, &change), Ok(()));
    check_whole(&document, "good");
    let again = gate(&mut document, &change);
    assert_eq!(again, Err(ChangeRefusal::Seq { actor: MALLORY, expected: 3, got: 2 }));
}

#[test]
fn only_uncompressed_changes_are_taken() {
    let (mut document, change) = scene();
    for kind in [0, 2, 3, 9] {
        assert_eq!(gate(&mut document, &chunk(kind, content(&change))), Err(ChangeRefusal::ChunkKind { kind }));
    }
    let saved = document.clone().save().unwrap();
    assert_eq!(gate(&mut document, &saved[5..]), Err(ChangeRefusal::ChunkKind { kind: 0 }));
    let long = document.clone().edit(MALLORY, &[splice(0, 0, &"deflate me ".repeat(100))]).unwrap();
    let mut parsed = automerge::Change::try_from(long.as_slice()).unwrap();
    assert_eq!(gate(&mut document, &parsed.bytes()), Err(ChangeRefusal::ChunkKind { kind: 2 }));
    assert_eq!(gate(&mut document, &long), Ok(()));
}

#[test]
fn each_wrong_part_has_its_refusal() {
    let (document, change) = scene();
    let check = |bytes: &[u8], expected: ChangeRefusal| {
        let mut document = document.clone();
        let before = document.digest();
        assert_eq!(gate(&mut document, bytes), Err(expected));
        assert_eq!(document.digest(), before, "a refused change leaves no trace");
    };
    let with = |alter: &dyn Fn(&mut TextChange)| {
        let mut altered = change::decode(&change).unwrap().0;
        alter(&mut altered);
        change::encode(&altered).0
    };

    check(&[], ChangeRefusal::NotAChunk { bytes: 0 });
    check(&change[..change.len() - 1], ChangeRefusal::NotAChunk { bytes: change.len() - 1 });
    check(&[change.clone(), vec![0]].concat(), ChangeRefusal::NotAChunk { bytes: change.len() + 1 });
    let max = limits::RICH_CHANGE_BYTES_MAX;
    check(&vec![0; max + 1], ChangeRefusal::TooLong { bytes: max + 1, max });

    let sum = u32::from_be_bytes([change[4], change[5], change[6], change[7]]);
    let mut flipped = change.clone();
    flipped[7] ^= 1;
    check(&flipped, ChangeRefusal::Checksum { expected: sum, got: sum ^ 1 });

    let other = RichActor([7; 16]);
    check(&with(&|change| change.actor = other), ChangeRefusal::Actor { expected: MALLORY, got: other });
    check(&with(&|change| change.seq = 3), ChangeRefusal::Seq { actor: MALLORY, expected: 2, got: 3 });
    let hash = ChangeHash([0xee; 32]);
    check(&with(&|change| change.dependencies.push(hash)), ChangeRefusal::UnknownDependency { hash });
    let start = change::decode(&change).unwrap().0.start_op;
    check(&with(&|change| change.start_op += 1), ChangeRefusal::StartOp { expected: start, got: start + 1 });
    let unknown = ElementId { counter: 3, actor: other };
    let refusal = ChangeRefusal::UnknownElement { place: 0, counter: 3, actor: other };
    check(&with(&|change| change.ops[0] = TextOp::Delete { element: unknown }), refusal);
    let newer = ElementId { counter: start + 1, actor: MALLORY };
    let refusal = ChangeRefusal::UnknownElement { place: 0, counter: start + 1, actor: MALLORY };
    check(&with(&|change| change.ops[0] = TextOp::Insert { after: Some(newer), character: 'x' }), refusal);
}

#[test]
fn ops_that_a_text_does_not_have_are_refused() {
    let mut document = Document::genesis();
    let mut theirs = Automerge::new_with_encoding(TextEncoding::Utf16CodeUnit).with_actor(ActorId::from(MALLORY.0));
    theirs.apply_changes([automerge::Change::try_from(GENESIS).unwrap()]).unwrap();
    let text = automerge::ReadDoc::get(&theirs, ROOT, "text").unwrap().unwrap().1;
    let mut check = |edit: &dyn Fn(&mut automerge::transaction::Transaction<'_>)| {
        let mut theirs = theirs.clone();
        let mut transaction = theirs.transaction();
        edit(&mut transaction);
        transaction.commit_with(CommitOptions::default().with_time(0));
        let change = theirs.get_last_local_change().unwrap();
        let refusal = gate(&mut document, change.raw_bytes()).unwrap_err();
        assert!(matches!(refusal, ChangeRefusal::NotATextOp { .. } | ChangeRefusal::Malformed { .. }), "{refusal}");
    };
    check(&|transaction| transaction.put(ROOT, "text", "gone").unwrap());
    check(&|transaction| transaction.delete(ROOT, "text").unwrap());
    check(&|transaction| transaction.put(ROOT, "other", 1).unwrap());
    check(&|transaction| drop(transaction.split_block(&text, 0).unwrap()));
    check(&|transaction| {
        transaction.splice_text(&text, 0, 0, "bold").unwrap();
        let mark = automerge::marks::Mark::new("bold".to_owned(), true, 0, 4);
        transaction.mark(&text, mark, automerge::marks::ExpandMark::Both).unwrap();
    });
}

#[test]
fn a_refused_change_takes_what_builds_on_it_along_and_nothing_else() {
    let (document, _) = scene();
    let mut typist = document.clone();
    let one = typist.edit(MALLORY, &[splice(0, 0, "1")]).unwrap();
    let two = typist.edit(MALLORY, &[splice(0, 0, "2")]).unwrap();
    let friend = RichActor([9; 16]);
    let aside = document.clone().edit(friend, &[splice(0, 0, "f")]).unwrap();
    let mut broken = one.clone();
    broken[6] ^= 0xff;
    let mut document = document;
    let verdicts = document.gate(&[
        Candidate { bytes: &broken, actor: MALLORY },
        Candidate { bytes: &two, actor: MALLORY },
        Candidate { bytes: &aside, actor: friend },
        Candidate { bytes: &one, actor: MALLORY },
        Candidate { bytes: &two, actor: MALLORY },
    ]);
    assert!(matches!(verdicts[0], Err(ChangeRefusal::Checksum { .. })));
    assert!(matches!(verdicts[1], Err(ChangeRefusal::Seq { expected: 2, got: 3, .. })));
    assert!(verdicts[2..].iter().all(Result::is_ok));
    check_whole(&document, "batch");
}

/// A deletion repeated takes no bytes; so a change deletes nothing twice.
#[test]
fn a_change_that_deletes_a_character_twice_is_refused() {
    let (document, _) = scene();
    let element = ElementId { counter: 3, actor: RichActor([1; 16]) };
    let dependencies = document.heads();
    let start_op = document.next_op_on(&dependencies);
    let check = |ops: Vec<TextOp>| {
        let lie = TextChange { actor: MALLORY, seq: 2, start_op, dependencies: dependencies.clone(), ops };
        let bytes = change::encode(&lie).0;
        let inspected = inspect(&Candidate { bytes: &bytes, actor: MALLORY });
        assert_eq!(gate(&mut document.clone(), &bytes).err(), inspected.clone().err());
        (bytes.len(), inspected)
    };
    let (bytes, inspected) = check(vec![TextOp::Delete { element }; 100_000]);
    assert!(bytes < 200, "{bytes} bytes claim 100,000 ops");
    assert!(matches!(inspected, Err(ChangeRefusal::DeletedTwice { .. })));
    assert_eq!(check(vec![TextOp::Delete { element }]).1, Ok(1));
}

/// What a worker finds without the document is what the gate would say; automerge alone agrees on what is good.
#[test]
fn what_is_found_without_the_document_is_what_the_gate_says() {
    let (document, change) = scene();
    let candidate = Candidate { bytes: &change, actor: MALLORY };
    assert_eq!(inspect(&candidate), Ok(8));
    assert!(matches!(inspect(&Candidate { actor: RichActor([1; 16]), ..candidate }), Err(ChangeRefusal::Actor { .. })));
    for at in 0..change.len() {
        let mut bytes = change.clone();
        bytes[at] ^= 1;
        let refusal = inspect(&Candidate { bytes: &bytes, actor: MALLORY }).expect_err("damaged");
        assert_eq!(gate(&mut document.clone(), &bytes), Err(refusal));
    }
}

/// Mutations of bytes, checksum made right again: nothing panics, and whatever is taken leaves the document whole.
#[test]
fn mutated_bytes_never_harm_the_document() {
    let (document, change) = scene();
    let mut random = Seed(1);
    let mut taken = 0;
    for round in 0..20_000 {
        let mut bytes = content(&change).to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] = random.below(256) as u8,
                1 => bytes[at] ^= 1 << random.below(8),
                2 => bytes.insert(at, random.below(256) as u8),
                _ => drop(bytes.remove(at)),
            }
        }
        let mut copy = document.clone();
        let result = catch_unwind(AssertUnwindSafe(|| gate(&mut copy, &chunk(1, &bytes))));
        if result.unwrap_or_else(|_| panic!("round {round} panicked")).is_ok() {
            taken += 1;
            check_whole(&copy, &format!("round {round}"));
        } else {
            assert_eq!(copy.digest(), document.digest());
        }
    }
    assert!(taken > 0, "some mutations only change the text that is typed");
}

/// Mutations of meaning, written canonically, so that they reach the checks against the document.
#[test]
fn well_formed_lies_never_harm_the_document() {
    let (document, change) = scene();
    let mut taken = 0;
    for round in 0..6_000 {
        let mut random = Seed(round);
        let mut lie = change::decode(&change).unwrap().0;
        for _ in 0..=random.below(3) {
            alter(&mut lie, &document, &mut random);
        }
        let mut copy = document.clone();
        if gate(&mut copy, &change::encode(&lie).0).is_ok() {
            taken += 1;
            check_whole(&copy, &format!("round {round}: {lie:?}"));
            let before = copy.text();
            copy.edit(RichActor([1; 16]), &[splice(0, 0, "on")]).unwrap();
            assert_eq!(copy.text(), format!("on{before}"));
            check_whole(&copy, &format!("round {round}, edited: {lie:?}"));
        }
    }
    assert!(taken > 300, "only {taken} lies were plausible");
}

fn alter(lie: &mut TextChange, document: &Document, random: &mut Seed) {
    let element = |random: &mut Seed| ElementId {
        counter: random.below(60) as u32 + 1,
        actor: [RichActor([1; 16]), RichActor([2; 16]), MALLORY, super::GENESIS_ACTOR][random.below(4)],
    };
    let known: Vec<ChangeHash> = document.change_hashes();
    let place = random.below(lie.ops.len());
    match random.below(8) {
        0 => lie.ops[place] = TextOp::Delete { element: element(random) },
        1 => {
            let after = (random.below(5) > 0).then(|| element(random));
            lie.ops[place] = TextOp::Insert { after, character: ['a', 'é', '😀', '\0'][random.below(4)] };
        }
        2 => lie.ops.push(lie.ops[place]),
        3 if lie.ops.len() > 1 => drop(lie.ops.remove(place)),
        4 => lie.ops.reverse(),
        5 => {
            lie.dependencies = (0..=random.below(3)).map(|_| known[random.below(known.len())]).collect();
            lie.dependencies.sort_unstable();
            lie.dependencies.dedup();
            // The number that such dependencies ask for, so that the lie goes further.
            lie.start_op = document.next_op_on(&lie.dependencies);
        }
        6 => lie.seq = lie.seq.wrapping_add(random.below(3) as u64).wrapping_sub(1),
        _ => lie.start_op += random.below(3) as u32,
    }
}
