//! Giving up own seqs on a device.

use crate::id::{ActorId, LogName, Seq};
use crate::packed::Void;
use crate::storage::row::{self, DeadLetter, Verdicts, Voids};
use crate::storage::{self, Write};

use super::{Committed, Decision};

/// Own seqs that are given up on this device: dead letters here, voids to the server.
///
/// Whoever asks may have read long before: what is decided or given up by the time of the transaction stays as it is.
#[derive(Clone, Debug)]
pub struct Park {
    /// The log.
    pub log: LogName,
    /// Whose seqs they are.
    pub actor: ActorId,
    /// The dead letters, by the first seq each stands for.
    pub letters: Vec<(Seq, DeadLetter)>,
}

impl Park {
    pub(super) fn decide(&self, voids: Option<&[u8]>, verdicts: Option<&[u8]>) -> Decision {
        let mut voids: Voids = voids.map_or(Ok(Voids::default()), row::decode_either)?;
        // A damaged row of verdicts is asked for again, and what it says then holds against any void.
        let verdicts: Option<Verdicts> = verdicts.and_then(|row| row::decode(row).ok());
        let decided = verdicts.filter(|verdicts| verdicts.actor == self.actor).map_or(Seq(0), |row| row.through);
        let mut letters = Vec::new();
        for (first, letter) in &self.letters {
            for (from, through) in voids.without((*first).max(decided.next()), letter.last(*first)) {
                voids.add(Void { from, through, reason: letter.reason.clone() });
                letters.push((from, letter.standing_for(through.0 - from.0 + 1)));
            }
        }
        if letters.is_empty() {
            return Ok((Vec::new(), Committed::Parked(voids, letters)));
        }
        let put = |(seq, letter): &(Seq, DeadLetter)| {
            Write::Put(storage::dead_letter_key(&self.log, self.actor, *seq), row::encode(letter))
        };
        let mut writes: Vec<_> = letters.iter().map(put).collect();
        writes.push(Write::Put(storage::voids_key(&self.log, self.actor), row::encode_twice(&voids)));
        Ok((writes, Committed::Parked(voids, letters)))
    }
}
