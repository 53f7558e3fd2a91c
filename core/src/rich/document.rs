//! The state of one rich field, and the gate in front of it.
//!
//! A change is checked whole before any of it is laid into the sequence, so a refused change leaves no trace and
//! nothing needs to be undone. Changes taken wait, raw, until the document is saved.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::change::{self, ChangeHash, ChangeRefusal, TextChange, TextOp};
use super::kernel::{Kernel, KernelError};
use super::sequence::{Sequence, Stretch};
use super::{GENESIS_ACTOR, RichActor, TEXT_OBJECT};
use crate::limits;

mod edit;
mod splices;

pub use edit::{EditError, initial, rooted};
use splices::Journal;
pub use splices::Splice;

/// The change that every document starts from: it makes the text object. A golden vector; automerge writes it so.
pub(super) const GENESIS: &[u8] = b"\x85\x6f\x4a\x83\x17\x27\xdf\xc1\x01\x2f\x00\x10\
    driftlog genesis\
    \x01\x01\x00\x00\x00\x05\x15\x06\x34\x01\x42\x02\x56\x02\x70\x02\x7f\x04\x74\x65\x78\x74\x01\x7f\x04\x7f\x00\x7f\x00";

/// The name of [`GENESIS`].
pub(super) const GENESIS_HASH: ChangeHash = ChangeHash(
    *b"\x17\x27\xdf\xc1\x85\xf6\x40\x95\x08\xc7\xf3\x35\x51\xa3\x00\x75\
    \xd3\xd3\xb6\x06\x9c\xb9\x3d\x5e\xb6\x45\x85\x00\x62\x29\x44\xa8",
);

/// First byte of a saved document: the version of its form.
const FORM: u8 = 1;

/// A change from a client, and the actor that the gate expects it to be made by.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The change.
    pub bytes: &'a [u8],
    /// Derived from the entry that carries it.
    pub actor: RichActor,
}

/// A change that the gate let into the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// The change's name.
    pub hash: ChangeHash,
    /// Its ops.
    pub ops: usize,
}

/// What a batch of changes did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Changes that were new.
    pub added: usize,
    /// Changes that the document had already.
    pub known: usize,
}

/// A change of the log that does not fit; the ones before it in the batch are applied.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("change {index} of the batch: {refusal}")]
pub struct ApplyError {
    /// Its place in the batch.
    pub index: usize,
    /// What does not fit.
    pub refusal: ChangeRefusal,
    /// What the ones before it did.
    pub applied: Applied,
}

/// The last change of an actor.
#[derive(Debug, Clone, Copy)]
struct Tip {
    seq: u64,
    max_op: u32,
}

/// A text with everything needed to merge further changes into it.
#[derive(Debug, Clone)]
pub struct Document {
    sequence: Sequence,
    /// Every change, with the number of its last op.
    changes: BTreeMap<ChangeHash, u32>,
    heads: BTreeSet<ChangeHash>,
    tips: BTreeMap<RichActor, Tip>,
    max_op: u32,
    kernel: Kernel,
    /// Changes taken that the kernel has not seen.
    queue: Vec<Vec<u8>>,
    /// What happened to the text since it was last looked at; none: nobody watches, or too much happened.
    journal: Option<Journal>,
}

impl Document {
    /// An empty text.
    pub fn genesis() -> Self {
        let hash = GENESIS_HASH;
        Self {
            sequence: Sequence::new(),
            changes: BTreeMap::from([(hash, TEXT_OBJECT.counter)]),
            heads: BTreeSet::from([hash]),
            tips: BTreeMap::from([(GENESIS_ACTOR, Tip { seq: 1, max_op: TEXT_OBJECT.counter })]),
            max_op: TEXT_OBJECT.counter,
            kernel: Kernel::empty(),
            queue: vec![GENESIS.to_vec()],
            journal: None,
        }
    }

    /// Opens what [`Document::save`] wrote.
    ///
    /// # Errors
    /// [`KernelError`]: the bytes are from elsewhere, damaged, or of a later form.
    pub fn load(bytes: &[u8]) -> Result<Self, KernelError> {
        let corrupt = |reason: &str| KernelError::Corrupt { bytes: bytes.len(), reason: reason.to_owned() };
        let (document, tail) = split_saved(bytes).ok_or_else(|| corrupt("not a saved document of this form"))?;
        let (kernel, changes) = Kernel::load(document)?;
        let mut all = changes.iter().map(Vec::as_slice).chain(tail.iter().copied());
        if all.next() != Some(GENESIS) {
            return Err(corrupt("it does not start from the genesis"));
        }
        let mut loaded = Self::genesis();
        for bytes in all {
            let change = change::decode_written(bytes);
            let taken = change.and_then(|(change, hash)| loaded.fit(&change, hash));
            taken.map_err(|refusal| corrupt(&refusal.to_string()))?;
        }
        loaded.kernel = kernel;
        loaded.queue = tail.into_iter().map(<[u8]>::to_vec).collect();
        Ok(loaded)
    }

    /// Writes the document, compact.
    ///
    /// Costs what automerge needs for the changes taken since the last time, and for writing the whole document.
    /// Should automerge fail on a change, which no known change makes it do, the changes since then are kept raw.
    ///
    /// # Errors
    /// Only [`KernelError::NotCompiled`].
    pub fn save(&mut self) -> Result<Vec<u8>, KernelError> {
        // A failure leaves the queue as it is, and it is saved raw.
        let _ = self.settle();
        let document = self.kernel.save()?;
        let mut out = vec![FORM];
        out.extend((document.len() as u32).to_le_bytes());
        out.extend(document);
        for change in &self.queue {
            out.extend((change.len() as u32).to_le_bytes());
            out.extend(change);
        }
        Ok(out)
    }

    /// Takes changes of the log; those it has already are skipped.
    ///
    /// # Errors
    /// [`ApplyError`] for the first change that does not fit; those before it are applied.
    pub fn apply(&mut self, changes: &[&[u8]]) -> Result<Applied, ApplyError> {
        let mut applied = Applied::default();
        for (index, bytes) in changes.iter().enumerate() {
            match self.take(bytes, None) {
                Ok(Some(_)) => applied.added += 1,
                Ok(None) => applied.known += 1,
                Err(refusal) => return Err(ApplyError { index, refusal, applied }),
            }
        }
        Ok(applied)
    }

    /// Takes changes that a client sent, each if it is good; the verdicts stand in the order of the batch.
    ///
    /// A change that builds on a refused one is refused too, for what it then lacks.
    pub fn gate(&mut self, batch: &[Candidate<'_>]) -> Vec<Result<Admitted, ChangeRefusal>> {
        batch
            .iter()
            .map(|candidate| {
                let (bytes, max) = (candidate.bytes.len(), limits::RICH_CHANGE_BYTES_MAX);
                if bytes > max {
                    return Err(ChangeRefusal::TooLong { bytes, max });
                }
                let taken = self.take(candidate.bytes, Some(candidate.actor))?;
                taken.ok_or_else(|| ChangeRefusal::Seq {
                    actor: candidate.actor,
                    expected: self.next_seq(candidate.actor),
                    got: self.next_seq(candidate.actor) - 1,
                })
            })
            .collect()
    }

    /// The text.
    pub fn text(&self) -> String {
        self.sequence.text()
    }

    /// UTF-16 code units of the text.
    pub fn len_utf16(&self) -> usize {
        self.sequence.width()
    }

    /// Whether a position lies between the two halves of a character.
    pub fn splits_character(&self, at: usize) -> bool {
        self.sequence.element_at(at).is_some_and(|(_, begin, _)| begin != at)
    }

    /// From here on, what happens to the text is noted for [`Document::changes`].
    pub fn watch(&mut self) {
        self.journal = Some(Journal::default());
    }

    /// Nobody will ask what happens to the text.
    pub fn unwatch(&mut self) {
        self.journal = None;
    }

    /// What happened to the text since [`Document::watch`], in order: each splice is relative to the text after the one
    /// before. None if nobody watched, or if so much happened that the text had better be read as a whole.
    pub fn changes(&self) -> Option<&[Splice]> {
        self.journal.as_ref().map(Journal::splices)
    }

    /// The changes that no other change builds on, ascending.
    pub fn heads(&self) -> Vec<ChangeHash> {
        self.heads.iter().copied().collect()
    }

    /// Whether the document has a change.
    pub fn has(&self, hash: &ChangeHash) -> bool {
        self.changes.contains_key(hash)
    }

    /// Changes in the document, with the genesis.
    pub fn change_count(&self) -> usize {
        self.changes.len()
    }

    /// The seq of the next change of an actor.
    pub fn next_seq(&self, actor: RichActor) -> u64 {
        self.tips.get(&actor).map_or(1, |tip| tip.seq + 1)
    }

    /// SHA-256 over the heads and the text: equal exactly when two documents are.
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update((self.heads.len() as u64).to_le_bytes());
        self.heads.iter().for_each(|head| digest.update(head.0));
        digest.update(self.text());
        digest.finalize().into()
    }

    #[cfg(all(test, feature = "rich"))]
    pub(super) fn queue_is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    #[cfg(all(test, feature = "rich"))]
    pub(super) fn change_hashes(&self) -> Vec<ChangeHash> {
        self.changes.keys().copied().collect()
    }

    /// Hands the queued changes to automerge.
    fn settle(&mut self) -> Result<(), KernelError> {
        if self.queue.is_empty() {
            return Ok(());
        }
        self.kernel.apply(&self.queue, &self.heads(), &self.text())?;
        self.queue.clear();
        Ok(())
    }

    /// The characters ever inserted in their order, in runs.
    pub(super) fn stretches(&self) -> impl Iterator<Item = Stretch> {
        self.sequence.stretches()
    }

    /// Checks a change and lays it into the text; `None` if the document has it already.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        expected: Option<RichActor>,
    ) -> Result<Option<Admitted>, ChangeRefusal> {
        let (change, hash) = change::decode(bytes)?;
        if let Some(expected) = expected.filter(|expected| *expected != change.actor) {
            return Err(ChangeRefusal::Actor { expected, got: change.actor });
        }
        if self.has(&hash) {
            return Ok(None);
        }
        self.fit(&change, hash)?;
        self.queue.push(bytes.to_vec());
        Ok(Some(Admitted { hash, ops: change.ops.len() }))
    }

    /// Checks a change against the document and lays it.
    fn fit(&mut self, change: &TextChange, hash: ChangeHash) -> Result<(), ChangeRefusal> {
        self.check_place(change)?;
        self.check_ops(change)?;
        self.lay(change);
        self.record(change, hash);
        Ok(())
    }

    /// Whether the change is its actor's next and builds on known changes.
    fn check_place(&self, change: &TextChange) -> Result<(), ChangeRefusal> {
        let expected = self.next_seq(change.actor);
        if change.seq != expected {
            return Err(ChangeRefusal::Seq { actor: change.actor, expected, got: change.seq });
        }
        if let Some(hash) = change.dependencies.iter().find(|hash| !self.has(hash)) {
            return Err(ChangeRefusal::UnknownDependency { hash: *hash });
        }
        // automerge saves no first numbers, it infers them from the dependencies; and numbers never repeat.
        let built_on = self.next_op_on(&change.dependencies);
        let expected = self.tips.get(&change.actor).map_or(built_on, |tip| built_on.max(tip.max_op + 1));
        if change.start_op != expected || change.start_op != built_on {
            return Err(ChangeRefusal::StartOp { expected, got: change.start_op });
        }
        Ok(())
    }

    /// The number of the first op of a change that builds on others.
    pub(super) fn next_op_on(&self, dependencies: &[ChangeHash]) -> u32 {
        let last = dependencies.iter().filter_map(|hash| self.changes.get(hash)).max();
        last.unwrap_or(&TEXT_OBJECT.counter) + 1
    }

    /// Whether everything the ops refer to is there, or made by the change itself, and older than the op.
    fn check_ops(&self, change: &TextChange) -> Result<(), ChangeRefusal> {
        for (place, op) in change.ops.iter().enumerate() {
            let named = match *op {
                TextOp::Insert { after, .. } => after,
                TextOp::Delete { element } => Some(element),
            };
            let Some(named) = named else { continue };
            let own = named.actor == change.actor && named.counter >= change.start_op;
            let known = if own {
                let made_by = change.ops.get((named.counter - change.start_op) as usize);
                matches!(made_by, Some(TextOp::Insert { .. }))
            } else {
                self.sequence.contains(named)
            };
            if !known || named.counter >= change.id(place).counter {
                return Err(ChangeRefusal::UnknownElement { place, counter: named.counter, actor: named.actor });
            }
        }
        Ok(())
    }

    fn lay(&mut self, change: &TextChange) {
        for (place, op) in change.ops.iter().enumerate() {
            match *op {
                TextOp::Insert { after, character } => {
                    let at = self.sequence.insert(after, change.id(place), character);
                    self.note(|journal| journal.inserted(at, character));
                }
                TextOp::Delete { element } => {
                    if let Some((at, width)) = self.sequence.delete(element) {
                        self.note(|journal| journal.deleted(at, width));
                    }
                }
            }
        }
    }

    /// Notes what happens to the text, while somebody watches.
    fn note(&mut self, happened: impl FnOnce(&mut Journal)) {
        if let Some(journal) = &mut self.journal {
            happened(journal);
            if !journal.is_short() {
                self.journal = None;
            }
        }
    }

    /// Notes a change that has been laid.
    fn record(&mut self, change: &TextChange, hash: ChangeHash) {
        for dependency in &change.dependencies {
            self.heads.remove(dependency);
        }
        self.heads.insert(hash);
        let max_op = change.max_op();
        self.changes.insert(hash, max_op);
        self.tips.insert(change.actor, Tip { seq: change.seq, max_op });
        self.max_op = self.max_op.max(max_op);
    }
}

/// The automerge document and the raw changes of a saved document.
fn split_saved(bytes: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let (form, rest) = bytes.split_first()?;
    if *form != FORM {
        return None;
    }
    let (document, mut rest) = split_length(rest)?;
    let mut tail = Vec::new();
    while !rest.is_empty() {
        let (change, behind) = split_length(rest)?;
        tail.push(change);
        rest = behind;
    }
    Some((document, tail))
}

fn split_length(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(number: u8) -> RichActor {
        RichActor([number; 16])
    }

    fn splice(at: usize, delete: usize, insert: &str) -> Splice {
        Splice { at, delete, insert: insert.to_owned() }
    }

    #[test]
    fn two_devices_with_the_same_initial_text_do_not_double_it() {
        let content = "title 😀";
        let first = initial(content).unwrap().unwrap();
        let (mut one, mut other) = (Document::genesis(), Document::genesis());
        for document in [&mut one, &mut other] {
            document.apply(&[&initial(content).unwrap().unwrap()]).unwrap();
        }
        let changes =
            [one.edit(actor(1), &[splice(0, 0, "a ")]).unwrap(), other.edit(actor(2), &[splice(8, 0, " b")]).unwrap()];
        for document in [&mut one, &mut other] {
            document.apply(&[&first, &changes[0], &changes[1], &changes[1]]).unwrap();
            assert_eq!(document.text(), "a title 😀 b");
        }
        assert_eq!(one.digest(), other.digest());
        assert_eq!(initial("").unwrap(), None);
    }

    #[test]
    fn positions_are_utf_16_code_units() {
        let mut document = Document::genesis();
        document.edit(actor(1), &[splice(0, 0, "a😀b")]).unwrap();
        assert_eq!(document.len_utf16(), 4);
        assert_eq!(document.edit(actor(1), &[splice(2, 0, "x")]), Err(EditError::InsideCharacter { at: 2 }));
        assert_eq!(document.edit(actor(1), &[splice(1, 1, "x")]), Err(EditError::InsideCharacter { at: 2 }));
        assert_eq!(document.edit(actor(1), &[splice(3, 2, "")]), Err(EditError::OutOfRange { at: 5, len: 4 }));
        assert_eq!(document.edit(actor(1), &[splice(0, 0, "")]), Err(EditError::Empty));
        document.edit(actor(1), &[splice(1, 2, "é")]).unwrap();
        assert_eq!(document.text(), "aéb");
    }

    #[test]
    fn an_edit_that_fails_half_way_leaves_the_text_as_it_was() {
        let mut document = Document::genesis();
        document.edit(actor(1), &[splice(0, 0, "one two three")]).unwrap();
        let before = document.digest();
        let edit = [splice(4, 4, "2 "), splice(0, 1, "O"), splice(90, 0, "x")];
        assert_eq!(document.edit(actor(1), &edit), Err(EditError::OutOfRange { at: 90, len: 11 }));
        assert_eq!((document.text().as_str(), document.digest()), ("one two three", before));
        document.edit(actor(1), &edit[..2]).unwrap();
        assert_eq!(document.text(), "One 2 three");
        assert_eq!(Document::load(&document.save().unwrap()).unwrap().text(), "One 2 three");
    }

    #[test]
    fn whoever_watches_is_told_what_happened_to_the_text() {
        let mut writer = Document::genesis();
        let hello = writer.edit(actor(1), &[splice(0, 0, "hello")]).unwrap();
        assert_eq!(writer.changes(), None, "nobody watches");
        writer.watch();
        let more = writer.edit(actor(1), &[splice(1, 3, "ipp"), splice(5, 0, "😀")]).unwrap();
        assert_eq!(writer.changes(), Some(&[splice(1, 3, "ipp"), splice(5, 0, "😀")][..]));
        assert!(writer.edit(actor(1), &[splice(0, 1, "H"), splice(90, 0, "x")]).is_err());
        assert_eq!(writer.changes().map(<[_]>::len), Some(2), "what failed did not happen");
        let mut reader = Document::genesis();
        reader.watch();
        let applied = reader.apply(&[&hello, &more]).unwrap();
        assert_eq!(reader.changes(), Some(&[splice(0, 0, "hello"), splice(1, 3, "ipp"), splice(5, 0, "😀")][..]));
        assert_eq!((applied.added, applied.known), (2, 0));
        assert_eq!(reader.apply(&[&hello]).unwrap().known, 1);
        assert!(reader.splits_character(6) && !reader.splits_character(5) && !reader.splits_character(7));
    }

    #[test]
    fn a_journal_that_nobody_reads_stays_small() {
        let mut document = Document::genesis();
        document.edit(actor(1), &[splice(0, 0, &"-".repeat(1_000))]).unwrap();
        document.watch();
        for at in 0..65 {
            assert!(document.changes().is_some(), "{at} places");
            document.edit(actor(1), &[splice(at * 3, 0, "x")]).unwrap();
        }
        assert_eq!(document.changes(), None, "more places than are worth telling");
        document.watch();
        for _ in 0..70 {
            document.edit(actor(1), &[splice(0, 0, &"y".repeat(1_000))]).unwrap();
        }
        assert_eq!(document.changes(), None);
    }
}
