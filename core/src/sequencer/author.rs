//! What the server remembers of one actor in one log, for ever: how far it came, and what was not simply accepted.
//!
//! Refused, parked and void seqs stay as stretches, because `depends-on` and resends need them; code and reason go
//! when the client says that it has recorded them; the shell keeps the refused entry itself longer. The row is stored as one value beside the entries
//! (docs/log-format.md, "Server tables").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::chain::Chain;
use crate::codec::Format;
use crate::id::{ActorId, LogName, Offset, Seq};
use crate::protocol::Code;
use crate::protocol::frame::{AckRange, Marked, MarkedStatus};
use crate::time::Time;

/// Points of the actor chain that are kept: enough for distances of 2, 4, 8 … entries.
const CHECKPOINTS_MAX: usize = 32;

/// Ranges and marks in one ack: with the longest reasons it still fits a frame.
const ACK_ITEMS_MAX: usize = 256;

/// One actor's row in one log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuthorRow {
    format: Format<1>,
    /// Highest seq with a durable verdict.
    pub seq: Seq,
    /// The actor chain there.
    pub chain: Chain,
    /// Through which seq the client has recorded its verdicts.
    pub settled: Seq,
    marks: Vec<MarkStep>,
    details: BTreeMap<Seq, (Code, String)>,
    checkpoints: Vec<(Seq, Chain)>,
    /// Through which seq the accepted entries are not kept any more: verdicts are known, places and digests are not.
    pub truncated: Seq,
}

/// A stretch of seqs with one status: distance from the end of the stretch before, and length.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct MarkStep(u64, u64, MarkedStatus);

/// Verdicts as one ack frame carries them.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Verdicts {
    /// Last seq with a verdict, inclusive.
    pub through: Seq,
    /// Stretches of accepted seqs with their places, ascending by seq.
    pub accepted: Vec<AckRange>,
    /// Seqs that were not simply accepted, ascending.
    pub marked: Vec<Marked>,
}

impl Verdicts {
    /// The same verdicts in parts that fit a frame each, ascending; the last reaches through the end.
    pub fn split(self) -> Vec<Self> {
        let Self { through, accepted, marked } = self;
        let mut parts = vec![Self::default()];
        let (mut accepted, mut marked) = (accepted.into_iter().peekable(), marked.into_iter().peekable());
        loop {
            let range_first = match (accepted.peek(), marked.peek()) {
                (None, None) => break,
                (Some(range), Some(mark)) => range.seq < mark.seq,
                (range, _) => range.is_some(),
            };
            if parts.last().is_none_or(|part| part.accepted.len() + part.marked.len() >= ACK_ITEMS_MAX) {
                parts.push(Self::default());
            }
            let Some(part) = parts.last_mut() else { break };
            if range_first {
                part.accepted.extend(accepted.next());
            } else {
                part.marked.extend(marked.next());
            }
            // A range may reach over marks that come in the next part: this one must not speak for them.
            let last_accepted = part.accepted.last().map_or(0, |range| range.seq.0 + u64::from(range.count) - 1);
            let last_marked = part.marked.last().map_or(0, |mark| mark.seq.0);
            let next_marked = marked.peek().map_or(u64::MAX, |mark| mark.seq.0);
            part.through = Seq(last_accepted.max(last_marked).min(next_marked - 1));
        }
        if let Some(last) = parts.last_mut() {
            last.through = through;
        }
        parts
    }

    /// Adds an accepted seq; they come in ascending order.
    pub fn accept(&mut self, seq: Seq, offset: Offset, accepted: Time) {
        if let Some(last) = self.accepted.last_mut() {
            let follows = last.seq.0 + u64::from(last.count) == seq.0;
            if follows && last.offset.0 + u64::from(last.count) == offset.0 && last.accepted == accepted {
                last.count += 1;
                return;
            }
        }
        self.accepted.push(AckRange { seq, offset, count: 1, accepted });
    }
}

impl AuthorRow {
    /// The row of an actor that has pushed nothing to this log.
    pub fn new(actor: ActorId, log: &LogName) -> Self {
        Self {
            format: Format,
            seq: Seq(0),
            chain: Chain::actor_start(actor, log),
            settled: Seq(0),
            marks: Vec::new(),
            details: BTreeMap::new(),
            checkpoints: Vec::new(),
            truncated: Seq(0),
        }
    }

    /// Marks the seqs `from ..= through`, which lie behind every mark so far.
    pub(super) fn mark(&mut self, from: Seq, through: Seq, status: MarkedStatus, why: Option<(Code, &str)>) {
        let end = self.marks_end();
        debug_assert!(from.0 >= end && from <= through);
        let length = through.0 - from.0 + 1;
        match self.marks.last_mut() {
            Some(last) if from.0 == end && last.2 == status => last.1 += length,
            _ => self.marks.push(MarkStep(from.0 - end, length, status)),
        }
        if let Some((code, reason)) = why {
            self.details.insert(from, (code, reason.to_owned()));
        }
    }

    /// The seq behind the last mark.
    fn marks_end(&self) -> u64 {
        1 + self.marks.iter().map(|step| step.0 + step.1).sum::<u64>()
    }

    /// The stretches with a status, ascending: first, last, status.
    fn stretches(&self) -> impl Iterator<Item = (Seq, Seq, MarkedStatus)> {
        self.marks.iter().scan(1, |end, MarkStep(distance, length, status)| {
            let from = *end + distance;
            *end = from + length;
            Some((Seq(from), Seq(*end - 1), *status))
        })
    }

    /// The mark of a seq; none when it was simply accepted or is undecided.
    pub fn marked(&self, seq: Seq) -> Option<MarkedStatus> {
        self.stretches().find(|(from, through, _)| (*from..=*through).contains(&seq)).map(|(_, _, status)| status)
    }

    /// Whether the seq has a verdict and is not in the log.
    pub fn is_absent(&self, seq: Seq) -> bool {
        self.marked(seq).is_some_and(|status| !status.is_accepted())
    }

    /// The stretches of seqs that have a verdict and are not in the log, ascending: first and last of each.
    pub fn absent(&self) -> impl Iterator<Item = (Seq, Seq)> {
        self.stretches().filter(|(_, _, status)| !status.is_accepted()).map(|(from, through, _)| (from, through))
    }

    /// How many of the seqs `from ..= through` have a verdict and are in the log under this actor.
    pub fn accepted_between(&self, from: Seq, through: Seq) -> u64 {
        let length = |from: u64, through: u64| (through + 1).saturating_sub(from);
        let through = through.min(self.seq);
        let missing = self.stretches().filter(|(_, _, status)| !status.is_logged());
        let missing: u64 = missing.map(|(first, last, _)| length(first.0.max(from.0), last.0.min(through.0))).sum();
        length(from.0, through.0) - missing
    }

    /// Marks of the seqs `from ..= through`, one for each seq.
    pub fn marks_between(&self, from: Seq, through: Seq) -> Vec<Marked> {
        let mut marked = Vec::new();
        for (first, last, status) in self.stretches() {
            for seq in first.0.max(from.0)..=last.0.min(through.0) {
                let seq = Seq(seq);
                // A void is one decision over a stretch; its detail stands at the first seq.
                let detail = self.details.get(&seq).or_else(|| match status {
                    MarkedStatus::Void => self.details.range(first..=seq).next_back().map(|(_, detail)| detail),
                    _ => None,
                });
                let (code, reason) = detail.map_or((None, String::new()), |(code, why)| (Some(*code), why.clone()));
                marked.push(Marked { seq, status, code, reason });
            }
        }
        marked
    }

    /// The stored verdicts of `from ..= through`. `places` are the accepted ones among them that are still known.
    pub fn verdicts(&self, from: Seq, through: Seq, places: impl Iterator<Item = (Seq, Offset, Time)>) -> Verdicts {
        let through = through.min(self.seq);
        let mut verdicts = Verdicts { through, accepted: Vec::new(), marked: self.marks_between(from, through) };
        for (seq, offset, accepted) in places {
            if (from..=through).contains(&seq) {
                verdicts.accept(seq, offset, accepted);
            }
        }
        verdicts
    }

    /// Takes note that the client has recorded every verdict through this seq: codes and reasons go.
    pub fn settle(&mut self, through: Seq) {
        self.settled = self.settled.max(through.min(self.seq));
        self.details = self.details.split_off(&self.settled.next());
    }

    /// Moves to a new highest seq.
    pub(super) fn advance(&mut self, seq: Seq, chain: Chain) {
        if self.seq.0 > 0 {
            self.checkpoints.insert(0, (self.seq, self.chain));
        }
        (self.seq, self.chain) = (seq, chain);
        if self.checkpoints.len() > CHECKPOINTS_MAX {
            self.thin_checkpoints();
        }
    }

    /// Keeps the oldest point, and from there on one for each halving of the distance to the end.
    fn thin_checkpoints(&mut self) {
        let end = self.seq.0;
        let mut bound = u64::MAX;
        self.checkpoints.reverse();
        self.checkpoints.retain(|(seq, _)| {
            let keep = end - seq.0 <= bound;
            if keep {
                bound = (end - seq.0) / 2;
            }
            keep
        });
        self.checkpoints.reverse();
    }

    /// Older points of the actor chain, descending.
    pub fn checkpoints(&self) -> &[(Seq, Chain)] {
        &self.checkpoints
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    fn row() -> AuthorRow {
        AuthorRow::new(ActorId([1; 16]), &LogName::new("board/1").expect("a name"))
    }

    #[test]
    fn marks_are_found_again_and_survive_their_details() {
        let mut row = row();
        row.mark(Seq(3), Seq(3), MarkedStatus::Refused, Some((Code::UnknownOp, "kind 9")));
        row.mark(Seq(4), Seq(4), MarkedStatus::Refused, Some((Code::DependsOn, "needs 3")));
        row.mark(Seq(8), Seq(10), MarkedStatus::Void, Some((Code::Void, "damaged")));
        row.advance(Seq(12), row.chain);
        assert_eq!(row.marked(Seq(2)), None);
        assert_eq!(row.marked(Seq(4)), Some(MarkedStatus::Refused));
        assert_eq!(row.marked(Seq(9)), Some(MarkedStatus::Void));
        assert_eq!(row.marked(Seq(11)), None);
        assert_eq!(row.absent().map(|(from, through)| (from.0, through.0)).collect::<Vec<_>>(), [(3, 4), (8, 10)]);
        assert_eq!(row.accepted_between(Seq(1), Seq(20)), 12 - 5);
        assert_eq!(row.accepted_between(Seq(4), Seq(9)), 3);
        assert_eq!(row.accepted_between(Seq(13), Seq(20)), 0);
        let marks = row.marks_between(Seq(4), Seq(9));
        assert_eq!(
            marks.iter().map(|mark| (mark.seq.0, mark.code)).collect::<Vec<_>>(),
            [(4, Some(Code::DependsOn)), (8, Some(Code::Void)), (9, Some(Code::Void)),]
        );
        row.settle(Seq(20));
        assert_eq!(row.settled, Seq(12));
        let row: AuthorRow = codec::from_bytes(&codec::to_bytes(&row)).expect("round trip");
        assert_eq!(row.marked(Seq(3)), Some(MarkedStatus::Refused));
        assert_eq!(row.marks_between(Seq(3), Seq(3))[0].code, None);
    }

    #[test]
    fn checkpoints_thin_out_towards_the_beginning() {
        let mut row = row();
        for seq in 1..=2_000 {
            row.advance(Seq(seq), row.chain);
        }
        assert!(row.checkpoints().len() <= CHECKPOINTS_MAX);
        assert_eq!(row.checkpoints()[0].0, Seq(1_999));
        assert!(row.checkpoints().last().is_some_and(|(seq, _)| seq.0 == 1));
    }

    #[test]
    fn neighbours_share_an_ack_range() {
        let mut verdicts = Verdicts::default();
        for (seq, offset) in [(1, 5), (2, 6), (4, 7), (5, 8)] {
            verdicts.accept(Seq(seq), Offset(offset), Time::from_ms(1));
        }
        assert_eq!(
            verdicts.accepted.iter().map(|range| (range.seq.0, range.count)).collect::<Vec<_>>(),
            [(1, 2), (4, 2)]
        );
    }
}
