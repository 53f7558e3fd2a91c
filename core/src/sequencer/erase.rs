//! Erasing, at the server: an entry of the log itself, and another one behind whatever comes for what is erased already.
//!
//! Who had not heard of an erase may still push content for what it erased. That is void and told to its author, but its
//! bytes are in the log then, or among the dead letters: so the same erase is appended once more, behind it, and whoever
//! carries erases out begins again.

use std::sync::Arc;

use super::Sequencer;
use crate::chain::Cursor;
use crate::entry::{Body, Entry, Logged};
use crate::id::{ActorId, Name};
use crate::op::{Erase, Op};
use crate::random::Random;
use crate::time::{self, Time, WallMs};

impl Sequencer {
    /// Appends an erase. It must be committed like what a push brings, or the server ends.
    pub fn erase(&mut self, now: WallMs, what: Erase, random: &mut Random) -> (Logged, Cursor) {
        let accepted = time::accepted(now, self.state.accepted_last());
        self.append_erase(what, accepted, random)
    }

    pub(super) fn append_erase(&mut self, what: Erase, accepted: Time, random: &mut Random) -> (Logged, Cursor) {
        let seq = self.state.folded(ActorId::LOG).next();
        let body = Arc::new(Body::new(Name::erase(), None, vec![Op::Erase(what)], None, random.salt()));
        let own = self.own(body, None, (seq, self.state.cursor().next), accepted);
        // A record's names are within their bounds, and authors are of this log's own table.
        let own = own.unwrap_or_else(|reason| panic!("an erase is no entry: {reason}"));
        self.append_own(own)
    }

    /// Whether an entry has content that was erased.
    pub fn has_erased(&self, actor: ActorId, entry: &Entry) -> bool {
        self.state.has_erased(actor, self.state.effective_base(entry.header.base), entry)
    }
}
