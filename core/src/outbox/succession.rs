//! An outbox under one actor after another: whose a seq is, and what a successor takes over.

use std::collections::BTreeMap;

use crate::chain::Chain;
use crate::entry::Entry;
use crate::id::{ActorId, EntryId, LogName, Seq};
use crate::packed::{Pushed, Void};
use crate::protocol::Code;
use crate::protocol::frame::MarkedStatus;
use crate::storage::row::{DeadLetter, Verdicts, Voids};
use crate::storage::succession::Inherited;
use crate::time::WallMs;

use super::Outbox;

/// What stands at the server for seqs that were decided under the actor before. It goes into the actor chain.
const BEFORE: &str = "decided under the actor before";

/// What becomes of own entries without a verdict when a fresh actor takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heritage {
    /// They are issued again: the server can tell whether it has them.
    Reissued,
    /// They are dead letters: the server has forgotten what it did with them.
    Unknown,
}

impl Heritage {
    /// Why a dead letter is one, for people.
    const fn reason(self) -> &'static str {
        match self {
            Self::Reissued => "it does not fit an entry with the name of the original",
            Self::Unknown => "the server has forgotten this database, and with it whether it has this entry",
        }
    }
}

impl Outbox {
    /// Whose a seq is.
    pub fn author_of(&self, seq: Seq) -> ActorId {
        self.earlier.iter().find(|(_, last)| seq <= *last).map_or(self.actor, |(actor, _)| *actor)
    }

    /// The actors before this one, each with the last seq that is its.
    pub fn earlier(&self) -> &[(ActorId, Seq)] {
        &self.earlier
    }

    /// The last seq of the actors before this one.
    pub fn begins_behind(&self) -> Seq {
        self.earlier.last().map_or(Seq(0), |(_, last)| *last)
    }

    /// Takes note of the actors before this one.
    pub fn begin_behind(&mut self, earlier: Vec<(ActorId, Seq)>) {
        self.earlier = earlier;
    }

    /// Takes from dead letters what is known of the seqs of the actors before, where the row of verdicts is damaged: no
    /// server tells it again, and without a mark an entry is taken for accepted.
    pub fn recall(&mut self, letters: &BTreeMap<EntryId, DeadLetter>) {
        let last = self.begins_behind();
        if self.verdicts.through >= last {
            return;
        }
        let mut marked: BTreeMap<_, _> = self.verdicts.marked.drain(..).collect();
        for (id, letter) in letters {
            let seqs = (id.seq.0..=letter.last(id.seq).min(last).0).map(Seq);
            marked.extend(seqs.filter(|seq| self.author_of(*seq) == id.actor).map(|seq| (seq, letter.status)));
        }
        self.verdicts.marked = marked.into_iter().collect();
        // These letters were written strictly.
        self.settle(last);
    }

    /// Takes entries of earlier actors, as rows hold them, whose place in the confirmed prefix is still awaited.
    pub fn learn_earlier(&mut self, entries: Vec<Entry>, covered: Seq) -> Vec<Entry> {
        let last = self.begins_behind();
        // Where the row of verdicts is damaged, nobody here knows which of them were refused: the log brings the others.
        if self.verdicts.through < last {
            return Vec::new();
        }
        let absent = |seq: Seq| self.verdicts.mark(seq).is_some_and(|mark| !mark.is_logged());
        let awaited = |entry: &Entry| entry.header.seq > covered && entry.header.seq <= last;
        let entries: Vec<_> = entries.into_iter().filter(|entry| awaited(entry) && !absent(entry.header.seq)).collect();
        entries.iter().for_each(|entry| self.take(entry));
        entries
    }

    /// Whether the server's record of this actor is a part of the voids that it begins with.
    pub fn begins_with(&self, log: &LogName, (seq, chain): (Seq, Chain)) -> bool {
        let mut at = (Seq(0), Chain::actor_start(self.actor, log));
        let mut voids = self.voids.values().take_while(|void| void.through <= self.begins_behind());
        loop {
            if at.0 >= seq {
                return at == (seq, chain);
            }
            let Some(void) = voids.next() else { return false };
            at = (void.through, at.1.with_void(void.through, &void.reason));
        }
    }

    /// The actor chain behind the voids that it begins with.
    pub fn chain_of_beginning(&self, log: &LogName) -> Chain {
        let voids = self.voids.values().take_while(|void| void.through <= self.begins_behind());
        voids.fold(Chain::actor_start(self.actor, log), |chain, void| chain.with_void(void.through, &void.reason))
    }

    /// Goes back to verdicts that the server still has. What is undecided by them is learned from the rows again.
    pub fn rewind(&mut self, verdicts: Verdicts, voids: &Voids) {
        let settled = verdicts.settled;
        self.anchor = None;
        self.known = verdicts.through.min(self.known);
        self.voids = voids.stretches.iter().map(|void| (void.from, void.clone())).collect();
        let given_up: Vec<_> =
            self.stored.keys().copied().filter(|seq| *seq > verdicts.through && self.void_at(*seq).is_some()).collect();
        self.set_verdicts(verdicts);
        self.verdicts.settled = settled;
        for entry in given_up.into_iter().filter_map(|seq| self.stored.remove(&seq)) {
            self.seqs.remove(&super::write_of(&entry));
            self.backlog.remove(entry.size());
        }
        // Of the actors before, what is lost.
        let last = self.begins_behind();
        let verdicts = &self.verdicts;
        let lost = |seq: &Seq| *seq <= last && verdicts.mark(*seq).is_some_and(|mark| !mark.is_logged());
        let lost: Vec<_> = self.stored.keys().copied().filter(lost).collect();
        for entry in lost.into_iter().filter_map(|seq| self.stored.remove(&seq)) {
            self.seqs.remove(&super::write_of(&entry));
        }
        self.advance();
    }

    /// What a successor takes over. `covered` is the last own seq that confirmed state covers, `letters` are the dead
    /// letters there are. None while rows are not read that were appended before `next`.
    pub fn inherit(
        &self,
        (log, to, next): (&LogName, ActorId, Seq),
        heritage: Heritage,
        covered: Seq,
        letters: &BTreeMap<EntryId, DeadLetter>,
        now: WallMs,
    ) -> Option<Inherited> {
        if self.known.next() != next {
            return None;
        }
        // What confirmed state covers of this actor without a verdict may be what a copy wrote under the same seqs.
        let done = self.verdicts.through;
        let last = match heritage {
            Heritage::Reissued => done,
            Heritage::Unknown => self.known.max(done).max(covered),
        };
        let mut inherited = Inherited::decided(log, (self.actor, to), last, &self.earlier, &self.verdicts);
        (inherited.next, inherited.decided) = (next, self.verdicts.through);
        match heritage {
            Heritage::Reissued => self.reissue(&mut inherited, to, done, now),
            Heritage::Unknown => self.give_away(&mut inherited, covered.min(done), now),
        }
        let moved = letters.iter().filter(|(id, _)| id.seq > last && id.actor == self.actor);
        inherited.moved = moved.map(|(id, letter)| (*id, letter.clone())).collect();
        Some(inherited)
    }

    /// What is undecided is issued again.
    fn reissue(&self, inherited: &mut Inherited, to: ActorId, done: Seq, now: WallMs) {
        for item in self.to_push(done.next()) {
            match item {
                Pushed::Entry(entry) => match self.again(&entry, done) {
                    Some(again) => inherited.entries.push(again),
                    None => inherited.bury((to, Heritage::Reissued), &entry, now),
                },
                Pushed::Void(void) => {
                    let from = void.from.max(done.next());
                    inherited.voids.add(Void { from, ..void });
                }
            }
        }
    }

    /// What is undecided, or accepted and not confirmed here, is a dead letter: everything behind `done`.
    fn give_away(&self, inherited: &mut Inherited, done: Seq, now: WallMs) {
        let mut marked: BTreeMap<_, _> = inherited.verdicts.marked.drain(..).collect();
        for (seq, entry) in self.stored.range(done.next()..) {
            marked.insert(*seq, MarkedStatus::Void);
            inherited.bury((self.author_of(*seq), Heritage::Unknown), entry, now);
        }
        for void in self.voids.values().filter(|void| void.through > self.verdicts.through) {
            let seqs = void.from.max(self.verdicts.through.next()).0..=void.through.0;
            marked.extend(seqs.map(|seq| (Seq(seq), MarkedStatus::Void)));
        }
        inherited.verdicts.marked.extend(marked);
    }

    /// An entry as the successor issues it; none if it is too large with the name of its original.
    fn again(&self, entry: &Entry, done: Seq) -> Option<Entry> {
        let mut header = entry.header.clone();
        header.replaces = Some(entry.line(EntryId { actor: self.actor, seq: header.seq }));
        // What is in the log is no need any more; what is not, is none under the successor either.
        let absent = |seq: Seq| self.verdicts.mark(seq).is_some_and(|mark| !mark.is_accepted());
        header.needs.retain(|need| *need > done || absent(*need));
        Entry::new(header, entry.body.clone()).ok()
    }

    /// Goes on under the actor that has taken over, with what the rows hold. Entries that became dead letters stay until
    /// their verdicts are taken.
    pub fn succeed(&mut self, actor: ActorId, voids: &Voids, verdicts: &Verdicts, entries: Vec<Entry>) {
        self.actor = actor;
        self.earlier = voids.earlier.clone();
        self.anchor = None;
        self.voids = voids.stretches.iter().map(|void| (void.from, void.clone())).collect();
        let last = self.begins_behind();
        for needs in self.waiting.iter_mut().map(|prepared| &mut prepared.needs) {
            needs.retain(|need| match need {
                super::Need::Seq(seq) => *seq > last || verdicts.mark(*seq).is_some_and(|mark| !mark.is_accepted()),
                super::Need::Earlier(_) => true,
            });
        }
        for entry in entries {
            let seq = entry.header.seq;
            self.seqs.insert(super::write_of(&entry), seq);
            match self.stored.insert(seq, entry.clone()) {
                Some(before) => self.backlog.bytes = self.backlog.bytes + entry.size() - before.size(),
                None if seq > self.verdicts.through => self.backlog.add(entry.size()),
                None => {}
            }
        }
        let chain = verdicts.chain;
        let through = self.verdicts.through;
        self.verdicts.actor = actor;
        if verdicts.through == through {
            self.verdicts.chain = chain;
        }
        self.advance();
    }
}

impl Inherited {
    /// What a successor takes over of a log in which everything through `last` is the earlier actors'.
    pub fn decided(
        log: &LogName,
        (from, to): (ActorId, ActorId),
        last: Seq,
        earlier: &[(ActorId, Seq)],
        verdicts: &Verdicts,
    ) -> Self {
        let (mut chain, mut voids) = (Chain::actor_start(to, log), Voids::default());
        for (from, through) in voids.without(Seq(1), last) {
            voids.add(Void { from, through, reason: BEFORE.to_owned() });
            chain = chain.with_void(through, BEFORE);
        }
        voids.earlier = earlier.iter().copied().chain([(from, last)]).collect();
        let mut inherited = Verdicts::new(to, chain);
        (inherited.through, inherited.marked, inherited.settled) = (last, verdicts.marked.clone(), last);
        inherited.rewound = verdicts.rewound;
        let (next, decided) = (last.next(), verdicts.through);
        let (entries, moved, letters) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self { log: log.clone(), next, decided, voids, verdicts: inherited, entries, moved, letters }
    }

    /// An entry that is not issued again: a dead letter, of the seq of whose it is.
    fn bury(&mut self, (actor, heritage): (ActorId, Heritage), entry: &Entry, now: WallMs) {
        let seq = entry.header.seq;
        let reason = heritage.reason().to_owned();
        if seq > self.verdicts.through {
            self.voids.add(Void { from: seq, through: seq, reason: reason.clone() });
        }
        let code = match heritage {
            Heritage::Reissued => Code::MalformedEntry,
            Heritage::Unknown => Code::OutcomeUnknown,
        };
        let letter = DeadLetter::new(entry, MarkedStatus::Void, Some(code), reason, now);
        self.letters.insert(EntryId { actor, seq }, letter);
    }
}
