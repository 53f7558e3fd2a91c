//! Rich fields: a text that several people edit at once, merged by automerge's rules.
//!
//! A [`Document`] is the state of one rich field. [`Document::edit`] turns splices into one change, whose bytes go
//! into an entry; [`Document::apply`] takes changes of the log; [`Document::gate`] takes changes that a client sent and
//! says of each why it is refused. Positions are UTF-16 code units everywhere.
//!
//! ```text
//! splices ──edit──► change bytes ──gate──► sequence (the text) ──┐
//!                                └─apply─►                       ├─ save
//!                                          raw changes, queued ──┴► automerge document
//! ```
//!
//! The bytes of a change, its hash and the merged order are automerge's, and a saved document is an automerge
//! document. But what happens for every change happens in this module: a change is taken apart strictly
//! (`change.rs`), checked against the document, and laid into a sequence of our own (`sequence.rs`), because automerge
//! panics on some malformed changes, can be made to loop by others, applies some that it cannot save, and walks the
//! whole text for every batch. automerge sees changes only when a document is saved, all at once.
//!
//! Promises: the cost of an edit, of a gated change and of an applied change does not grow with the document; a
//! refused change leaves no trace; documents that took the same changes, in whatever order their dependencies allow,
//! have the same text and [`Document::digest`]. Two saved documents may differ in bytes if concurrent changes reached
//! them in another order or were saved at other times, since automerge writes changes in the order in which it learned
//! them; compare digests.
//!
//! Measured on two shared cores, release build, microseconds per change of a batch of one (`rich_cost` in `tests`):
//!
//! | changes in the text | 1,000 | 10,000 | 100,000 |
//! |--|--|--|--|
//! | edit here | 1.7 | 1.7 | 2.9 |
//! | gate, apply here | 2.9 | 3.8 | 4.5 |
//! | apply here, concurrent with the last ones | 3.0 | 4.7 | 4.6 |
//! | automerge: a local transaction | 21 | 22 | 26 |
//! | automerge: a remote change as a local transaction of its author, where it follows all others | 24 | 33 | 38 |
//! | automerge: apply one change | 220 | 1,900 | 18,700 |
//! | automerge: apply, per change of a batch of 1,000 | 7 | 9 | 25 |
//!
//! Only `kernel.rs` names automerge. Without the feature `rich` everything but saving and loading works the same.

use std::fmt;

use sha2::{Digest, Sha256};

mod change;
mod column;
mod document;
#[cfg(test)]
#[cfg(feature = "rich")]
mod hostile;
mod inspect;
#[cfg(feature = "rich")]
mod kernel;
#[cfg(not(feature = "rich"))]
#[path = "rich/absent.rs"]
mod kernel;
mod rebase;
mod sequence;
mod translation;
mod tree;

pub use change::{ChangeHash, ChangeRefusal};
pub use document::{Admitted, Applied, ApplyError, Candidate, Document, EditError, Splice, initial, rooted};
pub use inspect::inspect;
pub use kernel::KernelError;
pub(crate) use rebase::{Rebase, difference};
pub use translation::Translation;

use change::ElementId;

/// The author of changes to one rich field: a tab's writer, by field and incarnation.
///
/// It is never the entry's actor: after a refusal the incarnation is abandoned and the next one has another actor, so
/// that no two changes ever claim the same place in one line of work.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RichActor(pub [u8; 16]);

impl RichActor {
    /// Derives the actor: the first 16 bytes of SHA-256 over the domain, the entry's actor and run, and the field.
    pub fn derive(
        entry_actor: &[u8; 16],
        run: &[u8; 8],
        collection: &str,
        record: &str,
        field: &str,
        incarnation: u32,
    ) -> Self {
        Self::from_parts(&[
            b"driftlog rich actor\0",
            entry_actor,
            run,
            collection.as_bytes(),
            &[0],
            record.as_bytes(),
            &[0],
            field.as_bytes(),
            &[0],
            &incarnation.to_le_bytes(),
        ])
    }

    /// The fixed author of the initial content of a text.
    fn of_initial_text(content: &str) -> Self {
        Self::from_parts(&[b"driftlog rich initial\0text\0", content.as_bytes()])
    }

    /// The fixed author of the content that a re-rooting begins with.
    fn of_root(root: u64) -> Self {
        Self::from_parts(&[b"driftlog rich root\0", &root.to_le_bytes()])
    }

    /// The author of what this one did on the root before, where it is translated to this root.
    fn moved_to(&self, root: u64) -> Self {
        Self::from_parts(&[b"driftlog rich moved\0", &root.to_le_bytes(), &self.0])
    }

    fn from_parts(parts: &[&[u8]]) -> Self {
        let mut digest = Sha256::new();
        parts.iter().for_each(|part| digest.update(part));
        let mut actor = [0; 16];
        actor.copy_from_slice(&digest.finalize()[..16]);
        Self(actor)
    }
}

impl fmt::Display for RichActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RichActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The author of the genesis, the change that every document starts from.
const GENESIS_ACTOR: RichActor = RichActor(*b"driftlog genesis");

/// The text object that the genesis makes: its first and only op, at the key `text` of the root.
const TEXT_OBJECT: ElementId = ElementId { counter: 1, actor: GENESIS_ACTOR };
