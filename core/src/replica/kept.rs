//! Dead letters that stay in view, for queries that ask for them.

use crate::id::EntryId;
use crate::notice::Notice;
use crate::overlay::{Refusal, Visible};
use crate::protocol::Code;
use crate::storage::row::DeadLetter;

use super::Replica;

impl Replica {
    /// Dead letters came or went, or are being redriven: the queries that keep them in view are told.
    pub(super) fn settle_kept(&mut self) {
        if self.view.is_none() || self.letters_in_view().map(|(id, _)| id).eq(self.kept.ids()) {
            return;
        }
        let mut kept = std::mem::take(&mut self.kept);
        let mut touched = kept.keys();
        kept.take(self.letters_in_view().map(|(id, letter)| {
            let refusal = Refusal { code: letter.code, reason: letter.reason.clone() };
            (*id, letter.entry.as_slice(), refusal)
        }));
        let visible = Visible::new(&self.state, &self.overlay);
        kept.lay(visible);
        touched.extend(kept.keys());
        if let Some(view) = &mut self.view {
            let patches = view.apply_kept(visible.beside(&kept), &touched);
            let notices = patches.into_iter().map(|(query, patches)| Notice::Patch(self.name.clone(), query, patches));
            self.notices.extend(notices);
        }
        self.kept = kept;
    }

    /// Those whose entry is whole and that nobody redrives. What the engine does not come back from is not laid again.
    fn letters_in_view(&self) -> impl Iterator<Item = (&EntryId, &DeadLetter)> {
        self.dead_letters.iter().filter(|(id, letter)| {
            // What is lost of others is theirs to show.
            let whole = letter.write.is_some() && letter.code != Some(Code::Damaged);
            let whole = whole && letter.code != Some(Code::LostByServer);
            whole && letter.code != Some(Code::Trapped) && !self.is_under_way(**id)
        })
    }
}
