//! Folding everything again: because the user redrove what a handler could not take, or because something was erased.

use crate::id::Offset;

use super::{Checkpoint, Fold};

impl Fold {
    /// Tries a dead letter again, or all of them: everything is folded anew, so that it stands in its place.
    pub fn redrive(&mut self, offset: Option<Offset>) {
        let parked: Vec<_> = self.parked().map(|(offset, _)| offset).collect();
        for offset in parked.into_iter().filter(|parked| offset.is_none_or(|offset| offset == *parked)) {
            self.letters.remove(&offset);
            self.changes.letters.insert(offset, None);
        }
        self.letters_changed = true;
        if !self.changes.letters.is_empty() {
            self.begin_anew();
        }
    }

    /// Folds everything again, where it began. Written at once, so that a reload in between does not forget it.
    pub(super) fn begin_anew(&mut self) {
        let Some(log) = self.log else { return };
        self.revision += 1;
        self.restart(self.from);
        let (numbers, initial) = ((self.declaration.version, self.revision), self.declaration.initial.clone());
        let places = (self.from, self.from);
        self.changes.checkpoint = Some(Checkpoint::new(log, numbers, places, self.erased_end(), initial));
    }

    /// Behind the last erase that the fold knows of.
    pub(super) fn erased_end(&self) -> Offset {
        self.erasures.last().map_or(Offset(0), |erasure| erasure.offset.next())
    }
}
