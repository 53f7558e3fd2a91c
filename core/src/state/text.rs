//! Rich content as confirmed state keeps it: saved bytes, and the changes since.
//!
//! Folding a change only appends it. Whoever needs the text (the server's gate, a reader, a snapshot that compacts)
//! opens the document from here; a client that shows it keeps one live document in its overlay and takes the changes
//! from [`Text::since`], so that no change is applied twice.

use std::sync::Arc;

use crate::op::Edit;

/// The confirmed content of one rich field.
#[derive(Debug, Clone, Default)]
pub struct Text {
    /// The document as saved; none is the genesis.
    pub(crate) base: Option<Arc<[u8]>>,
    /// Edits since, in the order of the log.
    pub(crate) edits: Vec<Arc<Edit>>,
    /// How many edits are in `base`.
    pub(crate) folded: u64,
}

impl Text {
    /// Appends an edit of the log.
    pub(crate) fn take(&mut self, edit: &Edit) {
        self.edits.push(Arc::new(edit.clone()));
    }

    /// Edits ever taken.
    pub(crate) fn end(&self) -> u64 {
        self.folded + self.edits.len() as u64
    }
}
