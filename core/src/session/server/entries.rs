//! One frame of entries, made once for every reader at the same position.

use std::sync::Arc;

use crate::chain::Cursor;
use crate::entry::Logged;
use crate::id::{ActorId, Offset, Seq};
use crate::limits;
use crate::packed::{Gap, Packer};
use crate::protocol::frame::{Entries, Frame, LogNumber};
use crate::sequencer::is_expired;
use crate::time::WallMs;

/// Why a gap stands in place of entries: their lifetime is over.
const GAP_EXPIRED: u8 = 1;

/// An encoded entries frame.
#[derive(Clone, Debug)]
pub struct EntriesFrame {
    /// The frame.
    pub bytes: Arc<[u8]>,
    /// Where its reader stands after it.
    pub after: Cursor,
}

/// Encodes entries that follow `from`, each with the cursor behind it, until the frame is large enough.
///
/// `own` names an author who holds its bodies from a seq on: those become stubs. None if there is no entry.
pub fn entries_frame<'a>(
    now: WallMs,
    log: LogNumber,
    from: Cursor,
    end: Offset,
    own: Option<(ActorId, Seq)>,
    entries: impl Iterator<Item = (&'a Logged, Cursor)>,
) -> Option<EntriesFrame> {
    let (mut packer, mut after) = (Packer::default(), from);
    let mut expired: Option<Gap> = None;
    for (logged, cursor) in entries {
        if packer.bytes() >= limits::FRAME_BYTES_TARGET || packer.len() >= limits::FRAME_ENTRIES_MAX - 1 {
            break;
        }
        after = cursor;
        if is_expired(logged, now) {
            expired = Some(Gap { end: cursor.next, reason: GAP_EXPIRED, chain: cursor.chain });
            continue;
        }
        if let Some(gap) = expired.take() {
            packer.gap(gap);
        }
        match own {
            Some((actor, held)) if logged.actor == actor && logged.entry.header.seq >= held => packer.stub(logged),
            _ => packer.logged(logged),
        }
    }
    if let Some(gap) = expired {
        packer.gap(gap);
    }
    if packer.is_empty() {
        return None;
    }
    let frame = Frame::Entries(Entries { log, from: from.next, after, end, entries: packer.finish() });
    Some(EntriesFrame { bytes: frame.encode().into(), after })
}
