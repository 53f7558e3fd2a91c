//! Who this database is to the server, and what follows when it cannot go on under its actor.
//!
//! ```text
//!  actor-forked (hello, or a log's record) ──► every log with work is read ──► one transaction: a fresh actor, what is
//!  actor-forgotten (hello) ───────────────►                                    undecided issued again, or a dead letter
//!                                                                                            │
//!             the session begins anew ◄── every tab goes on under the fresh actor ◄──────────┘
//! ```
//!
//! Nothing is decided in memory: until the transaction is complete everything is as before, and whoever is cut off in
//! between is told the same by the next hello. Tabs learn of it by a hint, by the identity that they read with the rows,
//! or at the latest when an append aborts.

use crate::id::{ActorId, ClientId, EntryId, LogName, Seq};
use crate::outbox::Heritage;
use crate::protocol::Code;
use crate::session::link::LinkState;
use crate::storage::commit::{Commit, CommitAbort, Committed};
use crate::storage::own;
use crate::storage::row::{self, DeadLetter, Verdicts, Voids};
use crate::storage::succession::{Inherited, Succession};
use crate::storage::{self, KeyRange, Row};

use super::{CommitFailure, Engine, Hint, Phase, Request};

/// A fresh actor is about to take over.
#[derive(Debug)]
pub(super) struct Succeeding {
    heritage: Heritage,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// The rows that say which logs there are must be read.
    Ask,
    Asked,
    /// How many logs have own entries, and those whose rows can be read.
    Known(u64, Vec<Kin>),
    Committing,
}

/// A log with own entries, as its small rows say.
#[derive(Debug)]
struct Kin {
    name: LogName,
    next: Seq,
    verdicts: Option<Verdicts>,
    earlier: Vec<(ActorId, Seq)>,
}

impl Engine {
    /// The server does not take this database's actor. Whether a fresh one can take over.
    pub(super) fn actor_refused(&mut self, code: Code, reason: &str) -> bool {
        let heritage = match code {
            Code::ActorForked => Heritage::Reissued,
            Code::ActorForgotten => Heritage::Unknown,
            _ => return false,
        };
        self.fork(heritage, &format!("{code}: {reason}"));
        true
    }

    /// Another copy writes under this actor, or nobody knows it: the session ends, and a fresh actor takes over.
    pub(super) fn fork(&mut self, heritage: Heritage, reason: &str) {
        let act = self.link.lost(reason, self.now, &mut self.random);
        self.link_act(act);
        if self.fence.is_some() {
            self.succeeding.get_or_insert(Succeeding { heritage, step: Step::Ask });
        }
    }

    /// After every event: a log that waits to be rewound is, and a succession that can go on does.
    pub(super) fn settle_succession(&mut self) {
        self.settle_rewinds();
        if self.fence.is_none() {
            self.succeeding = None;
        }
        let Some(succeeding) = &mut self.succeeding else { return };
        let heritage = succeeding.heritage;
        match std::mem::replace(&mut succeeding.step, Step::Asked) {
            Step::Ask => {
                let identity = KeyRange::only(storage::identity_key());
                let ranges = vec![identity, storage::all_next(), storage::all_verdicts(), storage::all_voids()];
                self.read(Request::Kin, ranges);
            }
            Step::Asked => {}
            Step::Committing => self.step(Step::Committing),
            Step::Known(_, logs) if self.has_grown_beyond(&logs) => {
                self.step(Step::Ask);
                self.settle_succession();
            }
            Step::Known(known, logs) => match self.inherited(&logs, heritage) {
                Some((to, client, logs)) => {
                    let (Some(fence), from) = (self.fence, self.actor()) else { return };
                    self.step(Step::Committing);
                    let succession = Succession { fence, from, to, client, known, logs };
                    self.commit(Request::Succeed, Commit::Succeed(succession));
                }
                None => self.step(Step::Known(known, logs)),
            },
        }
    }

    fn step(&mut self, step: Step) {
        if let Some(succeeding) = &mut self.succeeding {
            succeeding.step = step;
        }
    }

    /// Logs with work are brought up; then they can be handed over.
    pub(super) fn kin_read(&mut self, rows: Option<&[Vec<Row>]>) {
        let Some([identity, next, verdicts, voids]) = rows else { return self.succeeding = None };
        let identity = identity.first().and_then(|(_, bytes)| row::decode_either::<row::Identity>(bytes).ok());
        let Some(identity) = identity else { return self.succeeding = None };
        let actor = self.actor();
        let verdicts_of = |name: &LogName| {
            let row = verdicts.iter().find(|(key, _)| storage::log_of(key).as_ref() == Some(name));
            let row = row.and_then(|(_, bytes)| row::decode::<Verdicts>(bytes).ok());
            row.filter(|verdicts| verdicts.actor == actor)
        };
        let earlier_of = |name: &LogName| {
            let key = storage::voids_key(name, actor);
            let row = voids.iter().find(|(of, _)| *of == key);
            let row = row.and_then(|(_, bytes)| row::decode_either::<Voids>(bytes).ok());
            row.map(|voids| voids.earlier).unwrap_or_default()
        };
        let logs = next.iter().filter_map(|(key, bytes)| {
            let name = storage::log_of(key)?;
            let (verdicts, earlier) = (verdicts_of(&name), earlier_of(&name));
            Some(Kin { name, next: row::decode_either(bytes).ok()?, verdicts, earlier })
        });
        let logs: Vec<_> = logs.collect();
        for Kin { name, next, verdicts, .. } in &logs {
            if verdicts.as_ref().is_none_or(|verdicts| verdicts.through.next() != *next) {
                self.slot(name);
                self.refresh(name);
            }
        }
        self.step(Step::Known(identity.logs, logs));
    }

    /// Whether more was appended than the rows said when they were read.
    fn has_grown_beyond(&self, logs: &[Kin]) -> bool {
        let known = |kin: &Kin| self.slots.get(&kin.name).map(|slot| slot.replica.outbox().known());
        logs.iter().any(|kin| known(kin).is_some_and(|known| known.next() > kin.next))
    }

    /// Everything to be handed over; none while a log is not read as far as its rows go.
    fn inherited(&mut self, logs: &[Kin], heritage: Heritage) -> Option<(ActorId, Option<ClientId>, Vec<Inherited>)> {
        let from = self.actor();
        // A number of draws that does not depend on how often this is tried.
        let mut random = self.random.clone();
        let to = from.successor(ActorId(random.bytes()));
        let client = (heritage == Heritage::Reissued).then(|| ClientId(random.bytes()));
        let mut inherited = Vec::with_capacity(logs.len());
        for Kin { name, next, verdicts, earlier } in logs {
            let all = match (self.slots.get(name), verdicts) {
                (Some(slot), _) if slot.phase != Phase::Ready || slot.refreshing || slot.parking => return None,
                (Some(slot), _) => slot.replica.inherit(to, *next, heritage, self.now)?,
                (None, Some(verdicts)) => Inherited::decided(name, (from, to), verdicts.through, earlier, verdicts),
                (None, None) => return None,
            };
            inherited.push(all);
        }
        self.random = random;
        Some((to, client, inherited))
    }

    /// The transaction ended. What failed is begun again with the next hello.
    pub(super) fn succession_ended(&mut self, result: Result<Committed, CommitFailure>) {
        match result {
            Ok(Committed::Identity(identity)) => {
                self.succeeding = None;
                self.identified(identity);
                self.hint(&Hint::Succeeded(()));
                match self.link.state() {
                    LinkState::Connecting => self.open_socket(),
                    _ => {
                        let act = self.link.wake(self.now);
                        self.link_act(act);
                    }
                }
            }
            Err(CommitFailure::Aborted(CommitAbort::Overtaken)) => self.step(Step::Ask),
            Err(CommitFailure::Aborted(CommitAbort::Deposed { .. })) => self.unseated(),
            // It may have happened after all: the row knows.
            _ => {
                self.succeeding = None;
                self.identify();
            }
        }
    }

    /// The rows say that another actor writes for this database now: every log goes on under it.
    pub(super) fn taken_over(&mut self) {
        for name in self.slots.keys().cloned().collect::<Vec<_>>() {
            let ready = self.slots.get(&name).is_some_and(|slot| slot.phase == Phase::Ready);
            if ready { self.read_heritage(&name) } else { self.load(&name) }
        }
    }

    /// Reads what a log has under the actor that took over.
    pub(super) fn read_heritage(&mut self, name: &LogName) {
        let actor = self.actor();
        let ranges = vec![
            KeyRange::only(storage::voids_key(name, actor)),
            KeyRange::only(storage::verdicts_key(name)),
            KeyRange::only(storage::next_key(name)),
            KeyRange::prefix(storage::dead_letter_prefix(name)),
            KeyRange::prefix(storage::own_prefix(name, actor)),
        ];
        self.read(Request::Heritage(name.clone()), ranges);
    }

    pub(super) fn heritage_read(&mut self, name: &LogName, rows: Vec<Vec<Row>>) {
        let actor = self.actor();
        let Ok([voids, verdicts, next, letters, own]) = <[Vec<Row>; 5]>::try_from(rows) else { return };
        let voids: Voids = voids.first().and_then(|(_, bytes)| row::decode_either(bytes).ok()).unwrap_or_default();
        let verdicts: Option<Verdicts> = verdicts.first().and_then(|(_, bytes)| row::decode(bytes).ok());
        let next = next.first().and_then(|(_, bytes)| row::decode_either::<Seq>(bytes).ok());
        let Some(slot) = self.slots.get_mut(name) else { return };
        let first = voids.earlier.last().map_or(Seq(1), |(_, last)| last.next());
        let own = own::read(own, first, next).map(|own| own.entries).unwrap_or_default();
        // A log without own entries has none of these rows.
        let verdicts = verdicts.filter(|verdicts| verdicts.actor == actor);
        let fresh = || Verdicts::new(actor, crate::chain::Chain::actor_start(actor, name));
        let letters = letters_of(&letters, verdicts.as_ref());
        // A tab that heard nothing for a while may learn of both at once: that another tab went back, and took over.
        let before = slot.replica.outbox().verdicts().rewound;
        let rewound = verdicts.clone().filter(|verdicts| verdicts.rewound > before);
        slot.replica.succeed(actor, &voids, verdicts.unwrap_or_else(fresh), own, letters);
        match rewound {
            Some(verdicts) => self.go_back(name, verdicts, &voids, true),
            None => self.refresh(name),
        }
    }
}

/// Dead letters as the rows hold them.
pub(super) fn letters_of(rows: &[Row], verdicts: Option<&Verdicts>) -> Vec<(EntryId, DeadLetter)> {
    let letter = |(key, bytes): &Row| {
        let id = EntryId { actor: storage::actor_of(key)?, seq: Seq(storage::number_of(key)?) };
        let mark = verdicts.and_then(|row| row.mark(id.seq));
        Some((id, row::decode(bytes).unwrap_or_else(|error| DeadLetter::unreadable(bytes, mark, &error))))
    };
    rows.iter().filter_map(letter).collect()
}
