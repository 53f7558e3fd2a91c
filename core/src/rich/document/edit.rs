//! Typing: splices become one change.

use thiserror::Error;

use super::super::RichActor;
use super::super::change::{self, CHANGE_BYTES_MAX};
use super::super::change::{ChangeHash, TextChange, TextOp};
use super::super::sequence::Undo;
use super::{Document, Splice};
use crate::limits;

/// Why an edit makes no change.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EditError {
    /// Nothing is inserted or deleted.
    #[error("an edit without effect")]
    Empty,
    /// A splice reaches behind the text.
    #[error("position {at} in a text of {len} code units")]
    OutOfRange {
        /// The position.
        at: usize,
        /// Code units of the text.
        len: usize,
    },
    /// A splice begins or ends between the two halves of a character.
    #[error("position {at} lies inside a character")]
    InsideCharacter {
        /// The position.
        at: usize,
    },
    /// More characters than one change may hold.
    #[error("{ops} characters inserted or deleted, at most {max} in one edit")]
    TooManyOps {
        /// Characters.
        ops: usize,
        /// The limit.
        max: usize,
    },
    /// The change is larger than one may be.
    #[error("the change has {bytes} bytes, at most {max} are allowed")]
    TooLong {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

/// The change that gives a text its initial content, the same on every device; `None` for no content.
///
/// # Errors
/// [`EditError::TooManyOps`] and [`EditError::TooLong`].
pub fn initial(content: &str) -> Result<Option<Vec<u8>>, EditError> {
    content_by(RichActor::of_initial_text(content), content)
}

/// The change that gives a text its content at a new root, the same on every replica; `None` for no content.
///
/// # Errors
/// [`EditError::TooManyOps`] and [`EditError::TooLong`].
pub fn rooted(root: u64, content: &str) -> Result<Option<Vec<u8>>, EditError> {
    content_by(RichActor::of_root(root), content)
}

fn content_by(actor: RichActor, content: &str) -> Result<Option<Vec<u8>>, EditError> {
    if content.is_empty() {
        return Ok(None);
    }
    let splice = Splice { at: 0, delete: 0, insert: content.to_owned() };
    Document::genesis().edit_within(actor, &[splice], CHANGE_BYTES_MAX).map(Some)
}

impl Document {
    /// Turns splices into one change by `actor`, takes it, and returns its bytes.
    ///
    /// Each splice is relative to the text after the one before.
    ///
    /// # Errors
    /// [`EditError`]; the document is then as before.
    pub fn edit(&mut self, actor: RichActor, splices: &[Splice]) -> Result<Vec<u8>, EditError> {
        self.edit_within(actor, splices, limits::RICH_CHANGE_BYTES_MAX)
    }

    fn edit_within(&mut self, actor: RichActor, splices: &[Splice], max: usize) -> Result<Vec<u8>, EditError> {
        let mut change = TextChange {
            actor,
            seq: self.next_seq(actor),
            start_op: self.max_op + 1,
            dependencies: self.dependencies(),
            ops: Vec::new(),
        };
        let mut undo = Vec::new();
        let laid = self.lay_edit(&mut change, splices, &mut undo);
        let encoded = laid.map(|()| change::encode(&change)).and_then(|(bytes, hash)| match bytes.len() {
            bytes if bytes > max => Err(EditError::TooLong { bytes, max }),
            _ => Ok((bytes, hash)),
        });
        match encoded {
            Ok((bytes, hash)) => {
                splices.iter().for_each(|splice| self.note(|journal| journal.replaced(splice)));
                self.record(&change, hash);
                self.queue.push(bytes.clone());
                Ok(bytes)
            }
            Err(error) => {
                undo.into_iter().rev().for_each(|step| self.sequence.undo(step));
                Err(error)
            }
        }
    }

    /// What a new change builds on: the heads, or the latest of them if there are too many.
    fn dependencies(&self) -> Vec<ChangeHash> {
        let mut heads = self.heads();
        if heads.len() > limits::RICH_CHANGE_DEPENDENCIES_MAX {
            heads.sort_by_key(|head| std::cmp::Reverse(self.changes.get(head).copied()));
            heads.truncate(limits::RICH_CHANGE_DEPENDENCIES_MAX);
            heads.sort_unstable();
        }
        heads
    }

    fn lay_edit(&mut self, change: &mut TextChange, splices: &[Splice], undo: &mut Vec<Undo>) -> Result<(), EditError> {
        for splice in splices {
            let more = splice.delete.saturating_add(splice.insert.chars().count());
            let ops = change.ops.len().saturating_add(more);
            if ops > limits::RICH_CHANGE_OPS_MAX {
                let max = limits::RICH_CHANGE_OPS_MAX;
                return Err(EditError::TooManyOps { ops, max });
            }
            self.lay_splice(change, splice, undo)?;
        }
        if change.ops.is_empty() {
            return Err(EditError::Empty);
        }
        Ok(())
    }

    /// Finds the elements of a splice, adds its ops to the change and lays them.
    fn lay_splice(&mut self, change: &mut TextChange, splice: &Splice, undo: &mut Vec<Undo>) -> Result<(), EditError> {
        let (at, len) = (splice.at, self.len_utf16());
        let end = at.saturating_add(splice.delete);
        if end > len {
            return Err(EditError::OutOfRange { at: end, len });
        }
        let mut after = None;
        if let Some((element, begin, character)) = at.checked_sub(1).and_then(|before| self.sequence.element_at(before))
        {
            if begin + character.len_utf16() != at {
                return Err(EditError::InsideCharacter { at });
            }
            after = Some(element);
        }
        let mut left = splice.delete;
        while left > 0 {
            let Some((element, _, character)) = self.sequence.element_at(at) else {
                break;
            };
            left = left.checked_sub(character.len_utf16()).ok_or(EditError::InsideCharacter { at: end })?;
            self.sequence.delete(element);
            undo.push(Undo::Deleted(element, character));
            change.ops.push(TextOp::Delete { element });
        }
        for character in splice.insert.chars() {
            let id = change.id(change.ops.len());
            self.sequence.insert(after, id, character);
            undo.push(Undo::Inserted(id));
            change.ops.push(TextOp::Insert { after, character });
            after = Some(id);
        }
        Ok(())
    }
}
