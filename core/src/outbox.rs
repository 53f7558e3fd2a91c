//! Own entries of one log on their way: waiting for their append, stored, decided.
//!
//! ```text
//! act ──► waiting ──group──► appending ──durable──► stored ──verdict──► decided
//!            │                   │ failed: goes, with what needs it
//! ```
//!
//! Its bound is the storage quota: an append that fails for space fails the action, typed. **Invariant:** only a
//! verdict takes an entry out of `stored`, or that its seq was given up on this device; a timeout, a retry count or a
//! reconnect never does. A seq that was given up is pushed as a void.

mod succession;
#[cfg(test)]
mod tests;
mod voids;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::chain::Chain;
use crate::codec;
use crate::entry::{Entry, Header};
use crate::id::{ActorId, LogName, RunId, Seq, WriteId};
use crate::packed::{Pushed, Void};
use crate::protocol::frame::{Ack, MarkedStatus, Opened};
use crate::storage::commit::{Append, Need, Prepared};
use crate::storage::row::Verdicts;

pub use succession::Heritage;

/// Entries in one append at the most; what comes meanwhile is the next group.
const GROUP_ENTRIES_MAX: usize = 1024;

/// Own entries of one log.
#[derive(Debug)]
pub struct Outbox {
    actor: ActorId,
    /// The actors before it, each with the last seq that is its.
    earlier: Vec<(ActorId, Seq)>,
    run: RunId,
    waiting: VecDeque<Prepared>,
    appending: Option<Append>,
    /// Stored entries that are undecided, or whose place in the confirmed prefix is still awaited.
    stored: BTreeMap<Seq, Entry>,
    /// Stretches of seqs that hold no entry, by their first: given up, or decided long ago and damaged since.
    voids: BTreeMap<Seq, Void>,
    /// The server's word for the actor chain at a seq, where it cannot be computed from what is left here.
    anchor: Option<(Seq, Chain)>,
    seqs: BTreeMap<WriteId, Seq>,
    /// Bytes of each entry that waits or is being appended, by its number.
    unstored: BTreeMap<u64, u64>,
    /// What those, and the stored ones without a verdict, come to: counted, since everybody asks after every action.
    backlog: Backlog,
    /// Stored entries that are decided and not in the log: they leave with the next release.
    unlogged: Vec<Seq>,
    /// Highest seq below which nothing is unread.
    known: Seq,
    others: Seq,
    verdicts: Verdicts,
}

/// An amount of own entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Backlog {
    fn add(&mut self, bytes: u64) {
        self.entries += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: u64) {
        self.entries -= 1;
        self.bytes -= bytes;
    }
}

/// How much of one log may wait for the server's verdict. Without a bound, as much as the device can store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BacklogBound {
    /// How many entries.
    pub entries: Option<u64>,
    /// How many bytes; the entry that reaches it may reach beyond.
    pub bytes: Option<u64>,
}

impl BacklogBound {
    /// Whether nothing more may wait.
    pub fn is_reached(&self, backlog: Backlog) -> bool {
        self.entries.is_some_and(|max| backlog.entries >= max) || self.bytes.is_some_and(|max| backlog.bytes >= max)
    }

    /// Whether three quarters of it are used.
    pub fn is_near(&self, backlog: Backlog) -> bool {
        let near = |used: u64, max: Option<u64>| max.is_some_and(|max| used >= max - max / 4);
        near(backlog.entries, self.entries) || near(backlog.bytes, self.bytes)
    }
}

/// A verdict as it reached this client.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    /// The seq.
    pub seq: Seq,
    /// None: simply accepted.
    pub mark: Option<MarkedStatus>,
}

impl Outbox {
    /// An empty outbox of one tab.
    pub fn new(log: &LogName, actor: ActorId, run: RunId) -> Self {
        Self {
            actor,
            earlier: Vec::new(),
            run,
            waiting: VecDeque::new(),
            appending: None,
            stored: BTreeMap::new(),
            voids: BTreeMap::new(),
            anchor: None,
            seqs: BTreeMap::new(),
            unstored: BTreeMap::new(),
            backlog: Backlog::default(),
            unlogged: Vec::new(),
            known: Seq(0),
            others: Seq(0),
            verdicts: Verdicts::new(actor, Chain::actor_start(actor, log)),
        }
    }

    /// Takes an action's entry; it is appended with the next group.
    pub fn prepare(&mut self, prepared: Prepared) {
        let bytes = codec::to_bytes(&*prepared.body).len() as u64;
        self.unstored.insert(prepared.n, bytes);
        self.backlog.add(bytes);
        self.waiting.push_back(prepared);
    }

    /// The next group to append, if none is under way.
    pub fn next_group(&mut self, log: &LogName) -> Option<Append> {
        if self.appending.is_some() || self.waiting.is_empty() {
            return None;
        }
        let count = self.waiting.len().min(GROUP_ENTRIES_MAX);
        let mut entries: Vec<_> = self.waiting.drain(..count).collect();
        for entry in &mut entries {
            self.name_seqs(&mut entry.needs);
        }
        let append = Append {
            log: log.clone(),
            actor: self.actor,
            run: self.run,
            known: self.known,
            others: self.others,
            entries,
        };
        self.appending = Some(append.clone());
        Some(append)
    }

    /// Entries needed from earlier groups have their seqs by now.
    fn name_seqs(&self, needs: &mut [Need]) {
        for need in needs {
            if let Need::Earlier(n) = *need
                && let Some(seq) = self.seqs.get(&WriteId { run: self.run, n })
            {
                *need = Need::Seq(*seq);
            }
        }
    }

    /// The group is durable, and these are its entries. Tells whether another tab's entries lie before them unread.
    pub fn appended(&mut self, entries: &[Entry]) -> bool {
        let appended = self.appending.take().into_iter().flat_map(|append| append.entries);
        appended.for_each(|entry| self.no_longer_unstored(entry.n));
        entries.iter().for_each(|entry| self.take(entry));
        self.advance();
        entries.last().is_some_and(|entry| entry.header.seq > self.known)
    }

    /// The group under way, to look for it after an unknown outcome.
    pub fn appending(&self) -> Option<&Append> {
        self.appending.as_ref()
    }

    /// Nothing of the group was written: returns it and everything waiting that needs it, in order.
    pub fn append_failed(&mut self) -> Vec<WriteId> {
        let Some(append) = self.appending.take() else { return Vec::new() };
        let mut failed: BTreeSet<u64> = append.entries.iter().map(|entry| entry.n).collect();
        self.waiting.retain(|entry| {
            let needs_failed = entry.needs.iter().any(|need| matches!(need, Need::Earlier(n) if failed.contains(n)));
            if needs_failed {
                failed.insert(entry.n);
            }
            !needs_failed
        });
        failed.iter().for_each(|n| self.no_longer_unstored(*n));
        failed.into_iter().map(|n| WriteId { run: self.run, n }).collect()
    }

    fn no_longer_unstored(&mut self, n: u64) {
        if let Some(bytes) = self.unstored.remove(&n) {
            self.backlog.remove(bytes);
        }
    }

    /// Nothing of the group was written, but it may succeed when tried again.
    pub fn append_again(&mut self) {
        if let Some(append) = self.appending.take() {
            append.entries.into_iter().rev().for_each(|entry| self.waiting.push_front(entry));
        }
    }

    /// Takes stored entries as rows hold them, ascending; returns those that are new here.
    ///
    /// Stops at an entry of an append of this tab that is still under way: its answer brings it.
    pub fn learn(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        let mut new = Vec::new();
        for entry in entries {
            let Header { seq, run, n, .. } = entry.header;
            if seq <= self.known || self.stored.contains_key(&seq) || self.void_at(seq).is_some() {
                continue;
            }
            let under_way = |append: &Append| run == self.run && append.entries.iter().any(|other| other.n == n);
            if self.appending.as_ref().is_some_and(under_way) {
                break;
            }
            if run != self.run {
                self.others = self.others.max(seq);
            }
            self.take(&entry);
            new.push(entry);
        }
        self.advance();
        new
    }

    fn take(&mut self, entry: &Entry) {
        let seq = entry.header.seq;
        self.seqs.insert(write_of(entry), seq);
        if self.stored.insert(seq, entry.clone()).is_none() && seq > self.verdicts.through {
            self.backlog.add(entry.size());
        }
        if self.is_unlogged(seq) {
            self.unlogged.push(seq);
        }
    }

    /// `known` is the end of what was read without a hole.
    fn advance(&mut self) {
        loop {
            let next = self.known.next();
            match self.void_at(next) {
                Some(void) => self.known = void.through,
                None if self.stored.contains_key(&next) => self.known = next,
                None => return,
            }
        }
    }

    /// First own seq from which on every body is held here, apart from what `folded` covers.
    pub fn held_from(&self, folded: Seq) -> Seq {
        let first = self.stored.keys().next().copied().unwrap_or(self.known.next());
        let behind = self.voids.values().map(|void| void.through).filter(|through| *through > folded).max();
        behind.map_or(first, |through| first.max(through.next()))
    }

    /// Where a push begins when the server has decided through `seq`: a void is pushed whole.
    pub fn push_after(&self, seq: Seq) -> Seq {
        self.void_at(seq.next()).map_or(seq, |void| Seq(void.from.0 - 1))
    }

    /// Takes the server's word for the actor chain at a seq, or takes no more word than what is here.
    pub fn set_anchor(&mut self, anchor: Option<(Seq, Chain)>) {
        self.anchor = anchor;
    }

    /// Starts with what the rows say: everything through `seq` is folded or decided.
    pub fn start_after(&mut self, seq: Seq, verdicts: Option<Verdicts>) {
        self.known = self.known.max(seq);
        // Rows below are not read; whether another tab wrote them no longer matters, they were seen.
        self.others = self.others.max(seq);
        if let Some(verdicts) = verdicts {
            self.set_verdicts(verdicts);
        }
    }

    /// What the verdicts will be with this ack; none if it brings nothing new, or ends where the chain is not known:
    /// then a later one brings it along.
    pub fn with_ack(&self, base: &Verdicts, ack: &Ack) -> Option<Verdicts> {
        if ack.through <= base.through {
            return None;
        }
        let mut next = base.clone();
        next.chain = self.chain_after((base.through, base.chain), ack.through)?;
        next.through = ack.through;
        // The voids that a successor begins with say nothing of what was decided under the actors before.
        let after = base.through.max(self.begins_behind());
        for mark in ack.marked.iter().filter(|mark| mark.seq > after && mark.seq <= ack.through) {
            next.marked.push((mark.seq, mark.status));
        }
        next.marked.sort_by_key(|(seq, _)| *seq);
        Some(next)
    }

    /// Whether what is here between two of the server's checkpoints is not what the server has there: a copy of this
    /// database wrote it.
    pub fn goes_on_otherwise(&self, opened: &Opened) -> bool {
        let mut known = opened.checkpoints.clone();
        known.push((opened.seq, opened.chain));
        known.sort_by_key(|(seq, _)| *seq);
        known.windows(2).any(|pair| {
            let (from, to) = (pair[0], pair[1]);
            let whole = from.0 >= self.verdicts.through && self.voids_between(from.0, to.0).next().is_none();
            whole && self.chain_after(from, to.0).is_some_and(|ours| ours != to.1)
        })
    }

    /// The actor chain at a seq behind `base`, if everything up to it is here or the server gave its word for it.
    fn chain_after(&self, base: (Seq, Chain), seq: Seq) -> Option<Chain> {
        let (at, chain) = self.anchor.filter(|(at, _)| (base.0.0 + 1..=seq.0).contains(&at.0)).unwrap_or(base);
        // Behind an anchor that is still to come, nothing before it can be told.
        if self.anchor.is_some_and(|(anchor, _)| anchor > seq && base.0 < anchor) {
            return None;
        }
        let (mut chain, mut next) = (chain, at.next());
        for item in self.to_push(next) {
            let through = match &item {
                Pushed::Entry(entry) => entry.header.seq,
                Pushed::Void(void) => void.through,
            };
            if through > seq {
                break;
            }
            chain = chain.with_item(&item);
            next = through.next();
        }
        (next == seq.next()).then_some(chain)
    }

    /// Records verdicts that are stored; returns each newly decided seq.
    pub fn decide(&mut self, verdicts: Verdicts) -> Vec<Decided> {
        if verdicts.through <= self.verdicts.through {
            return Vec::new();
        }
        let decided = (self.verdicts.through.0 + 1..=verdicts.through.0)
            .map(|seq| Decided { seq: Seq(seq), mark: verdicts.mark(Seq(seq)) })
            .collect();
        self.set_verdicts(verdicts);
        decided
    }

    /// The marks through a seq, and their dead letters, survive a power loss by now.
    pub fn settle(&mut self, through: Seq) {
        self.verdicts.settled = self.verdicts.settled.max(through);
    }

    fn set_verdicts(&mut self, verdicts: Verdicts) {
        let settled = self.verdicts.settled;
        let before = std::mem::replace(&mut self.verdicts, verdicts).through.next();
        // These may have been made before the last ones were settled.
        self.settle(settled);
        let after = self.verdicts.through.next();
        let decided: Vec<_> = self.stored.range(before..after.max(before)).collect();
        let unlogged: Vec<_> = decided.iter().map(|(seq, _)| **seq).filter(|seq| self.is_unlogged(*seq)).collect();
        self.unlogged.extend(unlogged);
        decided.iter().for_each(|(_, entry)| self.backlog.remove(entry.size()));
        let undecided = self.stored.range(after..before.max(after));
        undecided.for_each(|(_, entry)| self.backlog.add(entry.size()));
    }

    /// Forgets entries that are decided and either refused or folded: their rows keep them.
    pub fn release(&mut self, folded: Seq) {
        let through = self.verdicts.through;
        // Refused ones leave at once; accepted ones when confirmed state covers them. Those in between are not looked at:
        // while much arrives from others they may be many.
        let unlogged = std::mem::take(&mut self.unlogged).into_iter().filter(|seq| self.is_unlogged(*seq));
        let covered = self.stored.range(..=through.min(folded)).map(|(seq, _)| *seq);
        let done: Vec<_> = covered.chain(unlogged).collect();
        for seq in done {
            if let Some(entry) = self.stored.remove(&seq) {
                self.seqs.remove(&write_of(&entry));
            }
        }
    }

    /// Whether an entry is decided and not in the log.
    fn is_unlogged(&self, seq: Seq) -> bool {
        seq <= self.verdicts.through && self.verdicts.mark(seq).is_some_and(|mark| !mark.is_logged())
    }

    /// What to push from a seq on, without a hole: stored entries, and voids for what was given up.
    pub fn to_push(&self, from: Seq) -> impl Iterator<Item = Pushed> {
        let mut next = from;
        std::iter::from_fn(move || match self.void_at(next) {
            Some(void) => {
                next = void.through.next();
                Some(Pushed::Void(void.clone()))
            }
            None => {
                let entry = self.stored.get(&next)?;
                next = next.next();
                Some(Pushed::Entry(entry.clone()))
            }
        })
    }

    /// Whether there is something to push from a seq on.
    pub fn has_to_push(&self, from: Seq) -> bool {
        self.stored.contains_key(&from) || self.void_at(from).is_some()
    }

    /// The actor chain at a seq at or above the recorded verdicts, if everything up to it is here.
    pub fn chain_at(&self, seq: Seq) -> Option<Chain> {
        self.chain_after((self.verdicts.through, self.verdicts.chain), seq)
    }

    /// A stored entry.
    pub fn stored(&self, seq: Seq) -> Option<&Entry> {
        self.stored.get(&seq)
    }

    /// The stored entries behind a seq.
    pub fn stored_behind(&self, seq: Seq) -> impl Iterator<Item = &Entry> {
        self.stored.range(seq.next()..).map(|(_, entry)| entry)
    }

    /// Every stored entry held in memory.
    pub fn held(&self) -> impl Iterator<Item = &Entry> {
        self.stored.values()
    }

    /// The seq of an entry that is not decided and folded yet.
    pub fn seq_of(&self, write: WriteId) -> Option<Seq> {
        self.seqs.get(&write).copied()
    }

    /// What an entry needs, from the ids of what it builds on; decided entries are no need.
    pub fn needs(&self, writes: impl IntoIterator<Item = WriteId>) -> Vec<Need> {
        writes
            .into_iter()
            .filter_map(|write| match self.seqs.get(&write) {
                Some(seq) if *seq <= self.verdicts.through => None,
                Some(seq) => Some(Need::Seq(*seq)),
                None if write.run == self.run => Some(Need::Earlier(write.n)),
                None => None,
            })
            .collect()
    }

    /// Entries that wait or are being appended.
    pub fn pending(&self) -> impl Iterator<Item = &Prepared> {
        self.appending.iter().flat_map(|append| &append.entries).chain(&self.waiting)
    }

    /// Own entries without a verdict.
    pub fn backlog(&self) -> Backlog {
        self.backlog
    }

    /// How many own entries have no verdict.
    pub fn len(&self) -> usize {
        self.backlog.entries as usize
    }

    /// Whether everything is decided.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Highest seq, anybody's, below which nothing is unread here.
    pub fn known(&self) -> Seq {
        self.known
    }

    /// Highest seq of any stored entry known here.
    pub fn highest(&self) -> Seq {
        let entry = self.stored.keys().next_back().copied().unwrap_or_default();
        let void = self.voids.values().next_back().map(|void| void.through).unwrap_or_default();
        self.known.max(entry).max(void)
    }

    /// Highest seq of another tab known here.
    pub fn others(&self) -> Seq {
        self.others
    }

    /// What is recorded of verdicts.
    pub fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }
}

fn write_of(entry: &Entry) -> WriteId {
    WriteId { run: entry.header.run, n: entry.header.n }
}
