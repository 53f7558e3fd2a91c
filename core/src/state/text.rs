//! Rich content as confirmed state keeps it: saved bytes, and the edits since.
//!
//! Folding an edit only appends it. Whoever needs the text (the server's gate, a reader, a compaction) opens the
//! document from here, and the state keeps it open. A client that has pending edits takes the open document into its
//! overlay and follows the log by [`Text::since`], so that no change is applied twice.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::entry::Digest;
use crate::op::{Edit, Root};
use crate::rich::{self, Applied, ApplyError, Document, EditError, KernelError, RichActor, Translation};
use crate::time::Time;

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

/// The next root of one whose next is not known.
const NEXT_UNKNOWN: u64 = u64::MAX;

/// The confirmed content of one rich field.
#[derive(Debug, Clone, Default)]
pub struct Text {
    /// The root it stands on: 0 is the genesis, later ones are named by the offset of their re-rooting.
    pub(crate) root: u64,
    /// How many edits were taken before this root's.
    pub(crate) begun: u64,
    /// The document as saved; none is the genesis.
    pub(crate) base: Option<Arc<[u8]>>,
    /// Edits since, in the order of the log.
    pub(crate) edits: Vec<Arc<Edit>>,
    /// How many edits of this root are in `base`.
    pub(crate) folded: u64,
    /// The text after all edits, if somebody left it here: opening a long document takes seconds.
    pub(crate) shown: Option<Arc<str>>,
    /// First contents that were given and do not stand in `edits`: given again, they do nothing.
    pub(crate) initials: BTreeSet<Digest>,
    /// Roots before this one that changes may still come for, the latest last.
    pub(crate) old: Vec<Arc<OldRoot>>,
}

/// A root before the one that a text stands on, as it was left.
#[derive(Debug, Clone)]
pub(crate) struct OldRoot {
    /// Its name.
    pub(crate) root: u64,
    /// The root that took its place.
    pub(crate) next: u64,
    /// Its document as saved; none is the genesis.
    pub(crate) base: Option<Arc<[u8]>>,
    /// Edits since, up to the re-rooting.
    pub(crate) edits: Vec<Arc<Edit>>,
    /// The end of its grace, in accepted time.
    pub(crate) until: Time,
    /// What came after the re-rooting and what later changes of this root may build on: as it was pushed.
    pub(crate) late: Vec<Arc<Edit>>,
}

impl OldRoot {
    /// Everything needed to translate its changes to the next root.
    pub(crate) fn translation(&self) -> Result<Translation, TextError> {
        let mut document = open(self.base.as_deref(), &self.edits)?;
        document.unwatch();
        let mut translation = Translation::new(document, self.next);
        for edit in &self.late {
            translate(&mut translation, edit, None)?;
        }
        Ok(translation)
    }
}

impl Text {
    /// Appends an edit of the log.
    pub(crate) fn take(&mut self, edit: &Edit) {
        match edit {
            Edit::Root(root) => return self.begin(root),
            Edit::InitialText(content) if self.initials.contains(&initial_digest(content)) => return,
            // The gate lets none in.
            Edit::Change(change) if change.root != self.root => return,
            Edit::InitialText(_) => self.late(edit.clone()),
            Edit::Moved(moved) => self.late(Edit::Change(moved.original.clone())),
            Edit::Change(_) | Edit::Unknown(..) => {}
        }
        self.edits.push(Arc::new(edit.clone()));
        self.shown = None;
    }

    /// Begins a new root. What was there is kept: until its grace is over, changes of it may come.
    fn begin(&mut self, root: &Root) {
        self.note_initials();
        let before = OldRoot {
            root: self.root,
            next: root.root,
            base: self.base.take(),
            edits: std::mem::take(&mut self.edits),
            until: root.until,
            late: Vec::new(),
        };
        self.begun = self.begun + self.folded + before.edits.len() as u64;
        self.old.push(Arc::new(before));
        (self.root, self.folded, self.shown) = (root.root, 0, None);
        self.edits.push(Arc::new(Edit::Root(root.clone())));
    }

    /// Notes what changes of the old root may build on.
    fn late(&mut self, edit: Edit) {
        if let Some(old) = self.old.last_mut().filter(|old| old.next == self.root) {
            Arc::make_mut(old).late.push(Arc::new(edit));
        }
    }

    /// Notes the first contents among the edits, which are about to go.
    fn note_initials(&mut self) {
        let initials = self.edits.iter().filter_map(|edit| match &**edit {
            Edit::InitialText(content) if !content.is_empty() => Some(initial_digest(content)),
            _ => None,
        });
        self.initials.extend(initials);
    }

    /// The root it stands on.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// The root before this one, whose changes can be translated to it.
    pub(crate) fn old_root(&self) -> Option<&Arc<OldRoot>> {
        self.old.last().filter(|old| old.next == self.root)
    }

    /// Whether the text stands on a root, or keeps it.
    pub(crate) fn has_root(&self, root: u64) -> bool {
        self.root == root || self.old.iter().any(|old| old.root == root)
    }

    /// A root as it is here, for a state that stands on another: what lies between the two is not known.
    pub(crate) fn as_old_root(&self, root: u64) -> Option<Arc<OldRoot>> {
        if self.root != root {
            return self.old.iter().find(|old| old.root == root).cloned();
        }
        Some(Arc::new(OldRoot {
            root,
            next: NEXT_UNKNOWN,
            base: self.base.clone(),
            edits: self.edits.clone(),
            until: Time::MIN,
            late: Vec::new(),
        }))
    }

    /// Whether changes of the root before are translated at this accepted time.
    pub(crate) fn has_grace(&self, accepted: Time) -> bool {
        self.old_root().is_some_and(|old| accepted <= old.until)
    }

    /// Lets old roots go but those that `keep` names.
    pub(crate) fn forget_old(&mut self, mut keep: impl FnMut(&OldRoot) -> bool) {
        self.old.retain(|old| keep(old));
    }

    /// Whether a first content was given before, and is not among the edits since.
    pub(crate) fn knows_initial(&self, content: &str) -> bool {
        self.initials.contains(&initial_digest(content))
    }

    /// Edits ever taken.
    pub(crate) fn end(&self) -> u64 {
        self.begun + self.folded + self.edits.len() as u64
    }

    /// The edits from number `from` on; none if some of them are in the saved bytes only, or on an old root.
    pub(crate) fn since(&self, from: u64) -> Option<&[Arc<Edit>]> {
        self.edits.get(usize::try_from(from.checked_sub(self.begun + self.folded)?).ok()?..)
    }

    /// Bytes that keeping its document takes.
    pub(crate) fn bytes(&self) -> usize {
        self.base.as_ref().map_or(0, |base| base.len()) + self.edits.iter().map(|edit| edit_bytes(edit)).sum::<usize>()
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
        open(self.base.as_deref(), &self.edits)
    }

    /// Leaves the text for who reads it next; the document must have exactly this content.
    pub(crate) fn show(&mut self, document: &Document) {
        if self.shown.is_none() && self.plain().is_none() {
            self.shown = Some(document.text().into());
        }
    }

    /// Whether there are many edits, in proportion to those that are saved, or they take more bytes than those.
    pub(crate) fn is_loose(&self) -> bool {
        const EDITS_MIN: u64 = 512;
        const BYTES_MIN: usize = 16 * 1024;
        let saved = self.base.as_ref().map_or(0, |base| base.len());
        self.edits.len() as u64 > EDITS_MIN.max(self.folded / 8) || self.bytes() - saved > BYTES_MIN.max(saved)
    }

    /// Whether there are so many that opening the saved bytes for their sake pays.
    pub(crate) fn is_very_loose(&self) -> bool {
        const EDITS_MIN: u64 = 2_048;
        const BYTES_MIN: usize = 64 * 1024;
        let saved = self.base.as_ref().map_or(0, |base| base.len());
        self.edits.len() as u64 > EDITS_MIN.max(self.folded / 2) || self.bytes() - saved > BYTES_MIN.max(2 * saved)
    }

    /// Folds the edits into the saved bytes; the document must have exactly this content.
    pub(crate) fn compact(&mut self, document: &mut Document) -> Result<(), TextError> {
        self.base = Some(document.save()?.into());
        self.note_initials();
        self.folded += self.edits.len() as u64;
        self.edits.clear();
        Ok(())
    }
}

fn open(base: Option<&[u8]>, edits: &[Arc<Edit>]) -> Result<Document, TextError> {
    let mut document = match base {
        Some(bytes) => Document::load(bytes)?,
        None => Document::genesis(),
    };
    apply(&mut document, edits.iter().map(|edit| &**edit))?;
    Ok(document)
}

/// What a first content is known by.
pub(crate) fn initial_digest(content: &str) -> Digest {
    Digest::of(&[content.as_bytes()])
}

fn edit_bytes(edit: &Edit) -> usize {
    match edit {
        Edit::InitialText(content) | Edit::Root(Root { content, .. }) => content.len(),
        Edit::Change(change) => change.bytes.len(),
        Edit::Moved(moved) => moved.original.bytes.len() + moved.bytes.len(),
        Edit::Unknown(..) => 0,
    }
}

/// Has an edit of an old root translated, made by `author` if that is known; gives what it is on the new one.
pub(crate) fn translate(
    translation: &mut Translation,
    edit: &Edit,
    author: Option<RichActor>,
) -> Result<Option<Vec<u8>>, TextError> {
    let failed = |refusal| ApplyError { index: 0, refusal, applied: Applied::default() };
    match (edit, change_of(edit)?) {
        (Edit::Change(_), Some(change)) => {
            Ok(Some(translation.translate(&change, author).map_err(failed)?).filter(|bytes| !bytes.is_empty()))
        }
        (_, Some(initial)) => {
            translation.take_initial(&initial).map_err(failed)?;
            Ok(Some(initial.into_owned()))
        }
        (_, None) => Ok(None),
    }
}

/// The text that only initial contents make, if they are all the same: identical content stands there once. A new root
/// begins with its content.
pub(crate) fn plain<'a>(edits: impl Iterator<Item = &'a Edit>) -> Option<&'a str> {
    let (mut text, mut is_rooted) = ("", false);
    for edit in edits {
        match edit {
            Edit::Root(root) => (text, is_rooted) = (&root.content, true),
            Edit::InitialText(content) if content.is_empty() || (content == text && !is_rooted) => {}
            Edit::InitialText(content) if text.is_empty() => (text, is_rooted) = (content, false),
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
        Edit::Root(root) => rich::rooted(root.root, &root.content)?.map(Cow::Owned),
        Edit::Moved(moved) => Some(Cow::Borrowed(&*moved.bytes)).filter(|bytes| !bytes.is_empty()),
        Edit::Unknown(..) => None,
    })
}

/// Applies edits in one batch; those the document has are passed over.
pub(crate) fn apply<'a>(document: &mut Document, edits: impl Iterator<Item = &'a Edit>) -> Result<Applied, TextError> {
    let changes = edits.filter_map(|edit| change_of(edit).transpose()).collect::<Result<Vec<_>, _>>()?;
    let batch: Vec<&[u8]> = changes.iter().map(|change| &**change).collect();
    Ok(document.apply(&batch)?)
}
