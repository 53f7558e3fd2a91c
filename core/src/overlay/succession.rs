//! Pending entries under the actor that has taken over.

use std::sync::Arc;

use super::{Overlay, Touched};
use crate::id::{ActorId, Seq};
use crate::state::{Stamp, State};

impl Overlay {
    /// Entries behind `last`, and those without a seq, are `actor`'s from now on.
    pub fn succeed(&mut self, state: &State, last: Seq, actor: ActorId) -> Touched {
        let mut renamed = Vec::new();
        for (place, held) in self.entries.iter_mut().filter(|(place, _)| place.seq > last) {
            let stamp = &held.author.stamp;
            let fresh = Stamp::pending(actor, stamp.write(), stamp.seq(), stamp.time(), stamp.rank());
            renamed.push((*place, stamp.actor()));
            held.author.stamp = Arc::new(fresh);
        }
        for (place, before) in renamed.into_iter().filter(|(place, _)| place.is_sequenced()) {
            if let Some(seqs) = self.sequenced.get_mut(&before) {
                seqs.remove(&place.seq);
                if seqs.is_empty() {
                    self.sequenced.remove(&before);
                }
            }
            self.sequenced.entry(actor).or_default().insert(place.seq, place.rank);
        }
        self.changes += 1;
        self.reset(state)
    }
}
