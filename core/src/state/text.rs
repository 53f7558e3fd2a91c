//! Rich content as confirmed state keeps it: saved bytes, and the edits since.
//!
//! Folding an edit only appends it. Whoever needs the text (the server's gate, a reader, a compaction) opens the
//! document from here, and the state keeps it open. A client that has pending edits takes the open document into its
//! overlay and follows the log by [`Text::since`], so that no change is applied twice.

use std::borrow::Cow;
use std::sync::Arc;

use crate::op::Edit;
use crate::rich::{self, Applied, ApplyError, Document, EditError, KernelError};

/// The rich content cannot be read: its log or its snapshot is damaged, or this build is without rich fields.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The saved bytes do not open.
    #[error("the saved text does not open: {0}")]
    Open(#[from] KernelError),
    /// A change of the log does not fit.
    #[error("a change of the text does not fit: {0}")]
    Apply(#[from] ApplyError),
    /// The initial content is larger than one change may be.
    #[error("the initial content makes no change: {0}")]
    Initial(#[from] EditError),
}

/// The confirmed content of one rich field.
#[derive(Debug, Clone, Default)]
pub struct Text {
    /// The document as saved; none is the genesis.
    pub(crate) base: Option<Arc<[u8]>>,
    /// Edits since, in the order of the log.
    pub(crate) edits: Vec<Arc<Edit>>,
    /// How many edits are in `base`.
    pub(crate) folded: u64,
    /// The text after all edits, if somebody left it here: opening a long document takes seconds.
    pub(crate) shown: Option<Arc<str>>,
}

impl Text {
    /// Appends an edit of the log.
    pub(crate) fn take(&mut self, edit: &Edit) {
        self.edits.push(Arc::new(edit.clone()));
        self.shown = None;
    }

    /// Edits ever taken.
    pub(crate) fn end(&self) -> u64 {
        self.folded + self.edits.len() as u64
    }

    /// The edits from number `from` on; none if some of them are in the saved bytes only.
    pub(crate) fn since(&self, from: u64) -> Option<&[Arc<Edit>]> {
        self.edits.get(usize::try_from(from.checked_sub(self.folded)?).ok()?..)
    }

    /// The text, if it can be told without opening a document.
    pub(crate) fn plain(&self) -> Option<&str> {
        if self.base.is_some() {
            return None;
        }
        plain(self.edits.iter().map(|edit| &**edit))
    }

    /// Opens the document.
    pub(crate) fn open(&self) -> Result<Document, TextError> {
        let mut document = match &self.base {
            Some(bytes) => Document::load(bytes)?,
            None => Document::genesis(),
        };
        apply(&mut document, self.edits.iter().map(|edit| &**edit))?;
        Ok(document)
    }

    /// Leaves the text for who reads it next; the document must have exactly this content.
    pub(crate) fn show(&mut self, document: &Document) {
        if self.shown.is_none() && self.plain().is_none() {
            self.shown = Some(document.text().into());
        }
    }

    /// Whether there are many edits, in proportion to those that are saved.
    pub(crate) fn is_loose(&self) -> bool {
        const EDITS_MIN: u64 = 512;
        self.edits.len() as u64 > EDITS_MIN.max(self.folded / 8)
    }

    /// Whether there are so many that opening the saved bytes for their sake pays.
    pub(crate) fn is_very_loose(&self) -> bool {
        const EDITS_MIN: u64 = 2_048;
        self.edits.len() as u64 > EDITS_MIN.max(self.folded / 2)
    }

    /// Folds the edits into the saved bytes; the document must have exactly this content.
    pub(crate) fn compact(&mut self, document: &mut Document) -> Result<(), TextError> {
        self.base = Some(document.save()?.into());
        self.folded = self.end();
        self.edits.clear();
        Ok(())
    }
}

/// The text that only initial contents make, if they are all the same: identical content stands there once.
pub(crate) fn plain<'a>(edits: impl Iterator<Item = &'a Edit>) -> Option<&'a str> {
    let mut text = "";
    for edit in edits {
        match edit {
            Edit::InitialText(content) if content.is_empty() || content == text => {}
            Edit::InitialText(content) if text.is_empty() => text = content,
            _ => return None,
        }
    }
    Some(text)
}

/// The change that an edit stands for; none if it does nothing.
pub(crate) fn change_of(edit: &Edit) -> Result<Option<Cow<'_, [u8]>>, TextError> {
    Ok(match edit {
        Edit::InitialText(content) => rich::initial(content)?.map(Cow::Owned),
        Edit::Change(change) => Some(Cow::Borrowed(&change.bytes)),
        Edit::Unknown(..) => None,
    })
}

/// Applies edits in one batch; those the document has are passed over.
pub(crate) fn apply<'a>(document: &mut Document, edits: impl Iterator<Item = &'a Edit>) -> Result<Applied, TextError> {
    let changes = edits.filter_map(|edit| change_of(edit).transpose()).collect::<Result<Vec<_>, _>>()?;
    let batch: Vec<&[u8]> = changes.iter().map(|change| &**change).collect();
    Ok(document.apply(&batch)?)
}
