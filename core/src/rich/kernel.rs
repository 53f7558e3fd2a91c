//! automerge itself: turns changes into a compact document and back. **Invariant:** only this file names it.
//!
//! It sees only changes that `change.rs` has checked, and even so it works on a copy inside `catch_unwind`: if it
//! fails, the document before stays as it was and the caller keeps the changes raw.

use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::{Automerge, Change, LoadOptions, ObjType, ROOT, ReadDoc, TextEncoding};
use thiserror::Error;

use super::change::{ChangeHash, TextChange};

/// Why a rich document cannot be saved or opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KernelError {
    /// Never returned with the feature `rich`.
    #[error("rich fields are not part of this build")]
    NotCompiled,
    /// The saved bytes are not a rich document.
    #[error("corrupt rich document of {bytes} bytes: {reason}")]
    Corrupt {
        /// Bytes given.
        bytes: usize,
        /// What automerge or the check said.
        reason: String,
    },
    /// automerge did not take changes that the checks let through.
    #[error("automerge failed on {changes} checked changes: {reason}")]
    Failed {
        /// Changes in the batch.
        changes: usize,
        /// What it said.
        reason: String,
    },
}

/// An automerge document with one text; absent until there is something in it, since even an empty one takes 20 KiB.
#[derive(Debug, Clone)]
pub(super) struct Kernel(Option<Box<Automerge>>);

impl Kernel {
    pub(super) fn empty() -> Self {
        Self(None)
    }

    /// Opens saved bytes and returns every change in an order in which dependencies come first.
    pub(super) fn load(bytes: &[u8]) -> Result<(Self, Vec<Vec<u8>>), KernelError> {
        let corrupt = |reason: String| KernelError::Corrupt { bytes: bytes.len(), reason };
        let load = || {
            let options = LoadOptions::new().text_encoding(TextEncoding::Utf16CodeUnit);
            let document = Automerge::load_with_options(bytes, options).map_err(|error| error.to_string())?;
            let changes = document.get_changes(&[]);
            Ok((document, changes))
        };
        let (document, changes) = catch(load).map_err(corrupt)?;
        let changes = changes.iter().map(|change| change.raw_bytes().to_vec()).collect();
        Ok((Self(Some(Box::new(document))), changes))
    }

    pub(super) fn save(&self) -> Result<Vec<u8>, KernelError> {
        Ok(self.0.as_ref().map_or_else(|| new().save(), |document| document.save()))
    }

    /// Takes changes, all or none, and checks that automerge then agrees on the text and the heads.
    pub(super) fn apply(&mut self, changes: &[Vec<u8>], heads: &[ChangeHash], text: &str) -> Result<(), KernelError> {
        let apply = || {
            let parsed = changes.iter().map(|bytes| Change::try_from(bytes.as_slice()));
            let parsed = parsed.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
            let mut next = self.0.clone().unwrap_or_else(|| Box::new(new()));
            next.apply_changes(parsed).map_err(|error| error.to_string())?;
            let mut found: Vec<ChangeHash> = next.get_heads().iter().map(|hash| ChangeHash(hash.0)).collect();
            found.sort_unstable();
            if found != heads {
                return Err(format!("it has {} heads, expected {}", found.len(), heads.len()));
            }
            if text_of(&next)? != text {
                return Err("it merged another text".to_owned());
            }
            Ok(next)
        };
        let next = catch(apply).map_err(|reason| KernelError::Failed { changes: changes.len(), reason })?;
        self.0 = Some(next);
        Ok(())
    }
}

/// Whether automerge, given nothing but the bytes of a change, finds in them what this crate found. The document is
/// not asked: what automerge makes of a change in its place shows when the document is saved.
pub(super) fn reads(bytes: &[u8], change: &TextChange, hash: &ChangeHash) -> Result<(), String> {
    let read = Change::try_from(bytes).map_err(|error| error.to_string())?;
    let mut dependencies: Vec<ChangeHash> = read.deps().iter().map(|hash| ChangeHash(hash.0)).collect();
    dependencies.sort_unstable();
    let same = read.hash().0 == hash.0
        && read.raw_bytes() == bytes
        && read.actor_id().to_bytes() == change.actor.0
        && (read.seq(), read.start_op().get()) == (change.seq, u64::from(change.start_op))
        && (read.len(), read.max_op()) == (change.ops.len(), u64::from(change.max_op()))
        && dependencies == change.dependencies;
    if same { Ok(()) } else { Err("another change".to_owned()) }
}

fn new() -> Automerge {
    Automerge::new_with_encoding(TextEncoding::Utf16CodeUnit)
}

fn text_of(document: &Automerge) -> Result<String, String> {
    match document.get(ROOT, "text").map_err(|error| error.to_string())? {
        Some((value, object)) if value.is_object() && document.object_type(&object) == Ok(ObjType::Text) => {
            document.text(&object).map_err(|error| error.to_string())
        }
        _ => Err("it has no text".to_owned()),
    }
}

/// Runs a piece of automerge; a panic becomes an error. (A wasm build aborts instead, and the engine restarts.)
fn catch<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("it panicked".to_owned()))
}

#[cfg(test)]
mod tests {
    use automerge::transaction::{CommitOptions, Transactable};
    use automerge::{ActorId, Automerge, Change, ObjType, ROOT, ReadDoc, TextEncoding};

    use super::super::document::{GENESIS, GENESIS_HASH};
    use super::super::{Document, GENESIS_ACTOR, RichActor, Splice};

    /// A small generator; the seed is the bug report.
    struct Seed(u64);

    impl Seed {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % end.max(1)
        }
    }

    fn automerge_with(changes: &[Vec<u8>]) -> Automerge {
        let mut document = Automerge::new_with_encoding(TextEncoding::Utf16CodeUnit);
        let changes: Vec<Change> = changes.iter().map(|bytes| Change::try_from(bytes.as_slice()).unwrap()).collect();
        document.apply_changes(changes).unwrap();
        document
    }

    /// What is saved if automerge ever fails: changes that only wait for it.
    #[test]
    fn a_document_saved_with_raw_changes_opens_and_becomes_compact() {
        let mut document = Document::genesis();
        let splice = |at, insert: &str| [Splice { at, delete: 0, insert: insert.to_owned() }];
        let one = document.edit(RichActor([1; 16]), &splice(0, "raw")).unwrap();
        let two = document.edit(RichActor([1; 16]), &splice(3, " text")).unwrap();
        for (compact, raw) in [(vec![], vec![GENESIS, &one, &two]), (vec![GENESIS.to_vec(), one.clone()], vec![&two])] {
            let kernel = automerge_with(&compact).save();
            let mut saved = vec![1];
            for part in std::iter::once(kernel.as_slice()).chain(raw) {
                saved.extend((part.len() as u32).to_le_bytes());
                saved.extend(part);
            }
            let mut loaded = Document::load(&saved).unwrap();
            assert_eq!(loaded.digest(), document.digest());
            assert_eq!(loaded.save().unwrap(), document.save().unwrap());
            assert!(loaded.queue_is_empty());
        }
        for end in 0..30 {
            assert!(Document::load(&document.save().unwrap()[..end]).is_err());
        }
    }

    /// So it is for a line of work; of concurrent work only the digest is promised.
    #[test]
    fn what_is_saved_does_not_depend_on_when_it_was_saved_before() {
        let mut typist = Document::genesis();
        let changes: Vec<Vec<u8>> = (0..200)
            .map(|at| {
                let splice = Splice { at: at / 2, delete: 0, insert: "x".to_owned() };
                typist.edit(RichActor([1 + (at % 3) as u8; 16]), &[splice]).unwrap()
            })
            .collect();
        let once = typist.save().unwrap();
        for every in [1, 7, 50] {
            let mut document = Document::genesis();
            for part in changes.chunks(every) {
                document.apply(&part.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
                document.save().unwrap();
                if every == 50 {
                    document = Document::load(&document.save().unwrap()).unwrap();
                }
            }
            assert_eq!(document.save().unwrap(), once);
        }
    }

    #[test]
    fn the_genesis_is_what_automerge_writes() {
        let mut document = Automerge::new_with_encoding(TextEncoding::Utf16CodeUnit);
        document.set_actor(ActorId::from(GENESIS_ACTOR.0));
        let mut transaction = document.transaction();
        transaction.put_object(ROOT, "text", ObjType::Text).unwrap();
        transaction.commit_with(CommitOptions::default().with_time(0));
        let change = document.get_last_local_change().unwrap();
        assert_eq!(change.raw_bytes(), GENESIS);
        assert_eq!(change.hash().0, GENESIS_HASH.0);
    }

    /// Documents of three actors edit and exchange changes at random; automerge gets the same changes and must read
    /// the same text, and what it typed itself must be taken by us.
    #[test]
    fn automerge_and_the_sequence_agree_on_random_concurrent_work() {
        for seed in 0..40 {
            let mut random = Seed(seed);
            let mut ours: Vec<Document> = (0..3).map(|_| Document::genesis()).collect();
            let mut theirs: Vec<Automerge> = (0..3).map(|_| automerge_with(&[GENESIS.to_vec()])).collect();
            let mut log: Vec<Vec<u8>> = Vec::new();
            let mut seen = [0; 3];
            for _ in 0..120 {
                let who = random.below(3);
                let actor = RichActor([who as u8 + 1; 16]);
                if random.below(3) == 0 {
                    let news: Vec<&[u8]> = log[seen[who]..].iter().map(Vec::as_slice).collect();
                    ours[who].apply(&news).unwrap();
                    let parsed: Vec<Change> = news.iter().map(|bytes| Change::try_from(*bytes).unwrap()).collect();
                    theirs[who].apply_changes(parsed).unwrap();
                    seen[who] = log.len();
                }
                let utf16: Vec<u16> = ours[who].text().encode_utf16().collect();
                let boundary = |at: usize| !utf16.get(at).is_some_and(|unit| (0xdc00..0xe000).contains(unit));
                let at = (0..=random.below(utf16.len() + 1)).rev().find(|at| boundary(*at)).unwrap();
                let end = (at..=(at + random.below(4)).min(utf16.len())).rev().find(|end| boundary(*end)).unwrap();
                let insert = ["", "x", "yz", "é", "😀q", "hello"][random.below(6)];
                if insert.is_empty() && end <= at {
                    continue;
                }
                let change = if random.below(2) == 0 {
                    let splice = Splice { at, delete: end - at, insert: insert.to_owned() };
                    let change = ours[who].edit(actor, &[splice]).unwrap();
                    theirs[who].apply_changes([Change::try_from(change.as_slice()).unwrap()]).unwrap();
                    change
                } else {
                    let text = theirs[who].get(ROOT, "text").unwrap().unwrap().1;
                    theirs[who].set_actor(ActorId::from(actor.0));
                    let mut transaction = theirs[who].transaction();
                    transaction.splice_text(&text, at, (end - at) as isize, insert).unwrap();
                    transaction.commit_with(CommitOptions::default().with_time(0));
                    let change = theirs[who].get_last_local_change().unwrap().raw_bytes().to_vec();
                    assert_eq!(ours[who].apply(&[&change]).unwrap().added, 1);
                    change
                };
                log.push(change);
                assert_eq!(ours[who].text(), super::text_of(&theirs[who]).unwrap(), "seed {seed}");
                assert_eq!(ours[who].len_utf16(), ours[who].text().encode_utf16().count());
            }
            let all: Vec<&[u8]> = log.iter().map(Vec::as_slice).collect();
            let digests: Vec<[u8; 32]> = ours
                .iter_mut()
                .map(|document| {
                    document.apply(&all).unwrap();
                    let saved = document.save().unwrap();
                    assert!(document.queue_is_empty(), "automerge took every change, seed {seed}");
                    let loaded = Document::load(&saved).unwrap();
                    assert_eq!(loaded.digest(), document.digest());
                    loaded.digest()
                })
                .collect();
            assert!(digests.iter().all(|digest| *digest == digests[0]), "seed {seed}");
        }
    }
}
