//! What follows when the server has another history of a log than this device: it was wiped, or put back to a backup,
//! perhaps with new entries behind it.
//!
//! ```text
//!  opened: epochs, end, own seq ──► parted ──► what is under way ends, the rows are read ──► one transaction:
//!  error log-forked ──────────────►                                                          confirmed state goes, own
//!                                                                                            entries are undecided again
//!                               subscribed anew, from the beginning ◄── every tab ◄──────────┘
//! ```
//!
//! **Histories never mix:** nothing of the new one is read before the old one is gone. How often a log was rewound stands
//! in its row of verdicts, so a tab that was frozen meanwhile finds it with the rows it reads next.

use crate::id::{LogName, Offset};
use crate::protocol::frame::Opened;
use crate::storage::commit::{Commit, CommitAbort, Committed};
use crate::storage::own;
use crate::storage::rewind::Rewind;
use crate::storage::row::{self, Received, Verdicts, Voids};
use crate::storage::{self, KeyRange, Row};

use super::{CommitFailure, Engine, Hint, Phase, Request, Slot};

/// A log that is to be rewound.
#[derive(Debug)]
pub(super) struct Rewinding {
    why: Why,
    /// Its rows are being read, or written.
    under_way: bool,
}

#[derive(Debug)]
enum Why {
    /// The server stands as `opened` says, and confirmed state is another one from an offset on.
    Parted { opened: Opened, parts_at: Option<Offset> },
    /// It went back and is up to date again: what was written under the actors before, and is not there, is lost.
    Lost,
}

impl Slot {
    /// Whether its rows are being read, or written, to go back.
    pub(super) fn is_going_back(&self) -> bool {
        self.rewinding.as_ref().is_some_and(|rewinding| rewinding.under_way)
    }
}

impl Engine {
    /// The server's history of a log is another one than here.
    pub(super) fn parted(&mut self, name: &LogName, opened: Opened, parts_at: Option<Offset>) {
        self.give_up(name);
        if let Some(slot) = self.slots.get_mut(name) {
            slot.replica.arrivals_mut().reset();
            slot.rewinding.get_or_insert(Rewinding { why: Why::Parted { opened, parts_at }, under_way: false });
        }
    }

    /// After every event: a log that waits for it is rewound, once nothing of it is under way.
    pub(super) fn settle_rewinds(&mut self) {
        let (leads, actor) = (self.fence.is_some(), self.actor());
        let mut begun = Vec::new();
        self.look_for_lost();
        self.slots.turn_mut(|name, slot| {
            // What the server has of the actor before says nothing of the one that has taken over.
            let may = leads && slot.replica.actor() == actor;
            let busy = slot.phase != Phase::Ready || slot.refreshing || slot.snapshotting || slot.parking;
            let Some(rewinding) = &mut slot.rewinding else { return };
            if !may && !rewinding.under_way {
                slot.rewinding = None;
            } else if may && !busy && !rewinding.under_way && slot.replica.arrivals().is_idle() {
                rewinding.under_way = true;
                begun.push(name.clone());
            }
        });
        for name in begun {
            let ranges = vec![KeyRange::prefix(storage::received_prefix(&name)), storage::own_of_origin(&name, actor)];
            self.read(Request::RewindRead(name), ranges);
        }
    }

    /// A log that went back is up to date again, and lacks what was written under the actors before.
    fn look_for_lost(&mut self) {
        if self.fence.is_none() {
            return;
        }
        let mut lacking = Vec::new();
        self.slots.turn_mut(|name, slot| {
            if slot.phase == Phase::Ready && slot.rewinding.is_none() && slot.replica.has_lost_of_before() {
                slot.rewinding = Some(Rewinding { why: Why::Lost, under_way: false });
                lacking.push(name.clone());
            }
        });
        lacking.iter().for_each(|name| self.give_up(name));
    }

    pub(super) fn rewind_read(&mut self, name: &LogName, rows: Result<Vec<Vec<Row>>, String>) {
        let Some(fence) = self.fence else { return self.stays(name) };
        let (now, actor) = (self.now, self.actor());
        let Some(slot) = self.slots.get_mut(name) else { return };
        if slot.replica.actor() != actor {
            return self.stays(name);
        }
        let Some(rewinding) = &mut slot.rewinding else { return };
        let Ok(Ok([received, own])) = rows.map(<[Vec<Row>; 2]>::try_from) else {
            return rewinding.under_way = false;
        };
        let received: Vec<Received> = received.iter().filter_map(|(_, bytes)| row::decode(bytes).ok()).collect();
        let outbox = slot.replica.outbox();
        let own = own.into_iter().filter(|(key, _)| {
            let first = storage::number_of(key).map(crate::id::Seq);
            first.is_some_and(|first| storage::actor_of(key) == Some(outbox.author_of(first)))
        });
        let own = own::read(own, crate::id::Seq(1), None).map(|own| own.entries).unwrap_or_default();
        let (rewound, rebuild) = match &rewinding.why {
            Why::Parted { opened, parts_at } => {
                (slot.replica.undone(opened, *parts_at, (&own, &received), now), parts_at.is_some())
            }
            Why::Lost => (slot.replica.lost_of_before(&own, now), false),
        };
        let rewind = Rewind {
            fence,
            log: name.clone(),
            actor,
            decided: outbox.verdicts().through,
            verdicts: rewound.verdicts,
            voids: rewound.voids,
            letters: rewound.letters,
            rebuild,
        };
        let (verdicts, rebuild) = (rewind.verdicts.clone(), rewind.rebuild);
        self.commit(Request::Rewind(name.clone(), verdicts, rebuild), Commit::Rewind(rewind));
    }

    pub(super) fn rewind_ended(
        &mut self,
        name: &LogName,
        verdicts: Verdicts,
        rebuild: bool,
        result: Result<Committed, CommitFailure>,
    ) {
        match result {
            Ok(Committed::Rewound(voids)) => {
                self.go_back(name, verdicts, &voids, rebuild);
                self.hint(&Hint::Grew(name.clone()));
            }
            Err(CommitFailure::Aborted(CommitAbort::Deposed { .. })) => {
                self.stays(name);
                self.unseated();
            }
            // It may have happened, or can be tried again: the next session finds it as it is.
            _ => {
                let act =
                    self.link.lost("a log that the server has lost could not be rewound", self.now, &mut self.random);
                self.link_act(act);
                self.stays(name);
            }
        }
    }

    /// A log does not go back from here: what was stored meanwhile can be read.
    fn stays(&mut self, name: &LogName) {
        if let Some(slot) = self.slots.get_mut(name) {
            slot.rewinding = None;
        }
        self.refresh(name);
    }

    /// Goes on from rows that were rewound, by this tab or by another one.
    pub(super) fn go_back(&mut self, name: &LogName, verdicts: Verdicts, voids: &Voids, rebuild: bool) {
        let leads = self.fence.is_some();
        let Some(slot) = self.slots.get_mut(name) else { return };
        slot.rewinding = None;
        slot.replica.rewind(verdicts, voids, rebuild);
        if rebuild {
            (slot.snapshot_end, slot.rows_left, slot.rows_damaged) = (Offset(0), false, false);
            slot.restart_folds();
        }
        slot.catching_up = leads;
        self.tell_status(name);
        self.refresh(name);
    }
}
