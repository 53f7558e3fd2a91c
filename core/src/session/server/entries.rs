//! One frame of entries, made once for every reader at the same position.

use std::sync::Arc;

use crate::chain::Cursor;
use crate::entry::Logged;
use crate::id::{ActorId, Offset, Seq};
use crate::limits;
use crate::packed::{Gap, Packer};
use crate::protocol::frame::{Entries, Frame, LogNumber};
use crate::time::WallMs;

/// An encoded entries frame.
#[derive(Clone, Debug)]
pub struct EntriesFrame {
    /// The frame.
    pub bytes: Arc<[u8]>,
    /// Where its reader stands after it.
    pub after: Cursor,
    /// The last millisecond in which everything in it is worth delivering; none: it always is.
    pub expires: Option<WallMs>,
}

/// Encodes entries that follow `from`, each with the cursor behind it, until the frame is large enough.
///
/// Entries that are not worth delivering any more, or whose body is gone, are passed over in gaps. `own` names an author
/// who holds its bodies from a seq on: those become stubs, but where the log has other bytes than were pushed. None if
/// there is no entry.
pub fn entries_frame<'a>(
    now: WallMs,
    log: LogNumber,
    from: Cursor,
    end: Offset,
    own: Option<(ActorId, Seq)>,
    entries: impl Iterator<Item = (&'a Logged, Cursor)>,
) -> Option<EntriesFrame> {
    let (mut packer, mut after) = (Packer::default(), from);
    let mut passed: Option<Gap> = None;
    let mut expires = None;
    for (logged, cursor) in entries {
        if packer.bytes() >= limits::FRAME_BYTES_TARGET || packer.len() >= limits::FRAME_ENTRIES_MAX - 1 {
            break;
        }
        let before = std::mem::replace(&mut after, cursor);
        let gone = logged.gone(now);
        if let Some(gap) = passed.take_if(|gap| gone.is_none_or(|gone| gone.number() != gap.reason)) {
            packer.gap(gap);
        }
        if let Some(gone) = gone {
            passed.get_or_insert_with(|| Gap::new(gone, before)).pass(logged, cursor);
            continue;
        }
        expires = [expires, logged.expires()].into_iter().flatten().min();
        match own {
            Some((actor, held))
                if logged.actor == actor && logged.entry.header.seq >= held && !logged.entry.is_translated() =>
            {
                packer.stub(logged)
            }
            _ => packer.logged(logged),
        }
    }
    if let Some(gap) = passed {
        packer.gap(gap);
    }
    if packer.is_empty() {
        return None;
    }
    let frame = Frame::Entries(Entries { log, from: from.next, after, end, entries: packer.finish() });
    Some(EntriesFrame { bytes: frame.encode().into(), after, expires })
}
