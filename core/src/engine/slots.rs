//! The logs of a tab, and to which of them anything has happened since all was looked at last.
//!
//! After every event the engine starts what can start. A client may have thousands of logs, and an event touches one or
//! two of them: only those are looked at. What is no log's own (the lead, the session, a deadline) touches all.
//!
//! **Invariant:** whoever gets a log to change it has touched it. What is touched in the middle of a turn is looked at by
//! the rest of it, and by the whole of the next one; looking alone touches nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::id::LogName;
use crate::notice::{Pressure, PressureLevel};
use crate::outbox::Backlog;

use super::Slot;

/// Every log, or some.
#[derive(Debug)]
enum Touched {
    All,
    These(BTreeSet<LogName>),
}

impl Default for Touched {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

/// The logs by their names.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: BTreeMap<LogName, Slot>,
    /// Since the last turn.
    touched: Touched,
    /// What this turn looks at.
    turn: Touched,
    /// Logs that may have something to push.
    unsent: BTreeSet<LogName>,
    /// Whether the session had credit when they were looked at last; none: there was no session.
    credit: Option<bool>,
    /// What waits in all of them, as it was counted at their last turn.
    backlog: Backlog,
    /// Logs under any pressure.
    pressed: BTreeMap<LogName, PressureLevel>,
}

impl Slots {
    pub(super) fn get(&self, name: &LogName) -> Option<&Slot> {
        self.slots.get(name)
    }

    /// Touches the log.
    pub(super) fn get_mut(&mut self, name: &LogName) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(name)?;
        if let Touched::These(names) = &mut self.touched
            && !names.contains(name)
        {
            names.insert(name.clone());
        }
        Some(slot)
    }

    pub(super) fn contains_key(&self, name: &LogName) -> bool {
        self.slots.contains_key(name)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &LogName> {
        self.slots.keys()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Slot> {
        self.slots.values()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&LogName, &Slot)> {
        self.slots.iter()
    }

    /// Touches all.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.touch_all();
        self.slots.values_mut()
    }

    /// Touches all.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&LogName, &mut Slot)> {
        self.touch_all();
        self.slots.iter_mut()
    }

    pub(super) fn insert(&mut self, name: LogName, slot: Slot) {
        self.slots.insert(name.clone(), slot);
        self.get_mut(&name);
    }

    pub(super) fn remove(&mut self, name: &LogName) {
        if let Some(slot) = self.slots.remove(name) {
            self.backlog = less(self.backlog, slot.pressure.counted);
        }
        self.pressed.remove(name);
        self.unsent.remove(name);
    }

    /// Something happened that is no log's own.
    pub(super) fn touch_all(&mut self) {
        self.touched = Touched::All;
    }

    /// A turn begins: what was touched since the last one is looked at.
    pub(super) fn begin_turn(&mut self) {
        self.turn = Touched::default();
        self.join_turn();
        self.touched = Touched::default();
    }

    /// What was touched up to now belongs to this turn.
    pub(super) fn join_turn(&mut self) {
        match (&self.touched, &mut self.turn) {
            (Touched::These(names), _) if names.is_empty() => {}
            (_, Touched::All) => {}
            (Touched::All, turn) => {
                *turn = Touched::All;
                self.unsent.extend(self.slots.keys().cloned());
            }
            (Touched::These(names), Touched::These(turn)) => {
                turn.extend(names.iter().cloned());
                self.unsent.extend(names.iter().cloned());
            }
        }
    }

    /// The logs of this turn, by name.
    pub(super) fn turn(&self) -> impl Iterator<Item = (&LogName, &Slot)> {
        let (all, these) = match &self.turn {
            Touched::All => (Some(self.slots.iter()), None),
            Touched::These(names) => (None, Some(names.iter().filter_map(|name| self.slots.get_key_value(name)))),
        };
        all.into_iter().flatten().chain(these.into_iter().flatten())
    }

    /// Looks at each log of this turn, by name.
    pub(super) fn turn_mut(&mut self, mut look: impl FnMut(&LogName, &mut Slot)) {
        self.join_turn();
        match &self.turn {
            Touched::All => self.slots.iter_mut().for_each(|(name, slot)| look(name, slot)),
            Touched::These(names) => {
                for name in names {
                    if let Some(slot) = self.slots.get_mut(name) {
                        look(name, slot);
                    }
                }
            }
        }
    }

    /// Looks at each log of this turn, and, where the session has credit and had none, or the other way round, at those
    /// that may have something to push. Where one of those comes under another pressure, or begins to wait, it belongs to
    /// the turn: that is told, and its time is kept.
    pub(super) fn turn_and_unsent_mut(&mut self, credit: Option<bool>, mut look: impl FnMut(&LogName, &mut Slot)) {
        self.turn_mut(&mut look);
        if std::mem::replace(&mut self.credit, credit) == credit {
            return;
        }
        let Touched::These(turn) = &mut self.turn else { return };
        for name in &self.unsent {
            let Some(slot) = self.slots.get_mut(name).filter(|_| !turn.contains(name)) else { continue };
            let before = (slot.pressure.blocked_since, slot.replica.pressure());
            look(name, slot);
            if before != (slot.pressure.blocked_since, slot.replica.pressure()) {
                turn.insert(name.clone());
            }
        }
    }

    /// The logs that may have something to push, those behind `last` first.
    pub(super) fn unsent(&self, last: Option<&LogName>) -> impl Iterator<Item = (&LogName, &Slot)> {
        let behind = last.map_or(Bound::Unbounded, Bound::Excluded);
        let before = last.cloned().into_iter().flat_map(|last| self.unsent.range(..=last));
        let names = self.unsent.range::<LogName, _>((behind, Bound::Unbounded)).chain(before);
        names.filter_map(|name| self.slots.get_key_value(name))
    }

    /// These have nothing to push until they are touched.
    pub(super) fn sent(&mut self, names: &[LogName]) {
        for name in names {
            self.unsent.remove(name);
        }
    }

    /// These pushed: they belong to the turn, since each may have used up its share of the credit.
    pub(super) fn pushed(&mut self, names: Vec<LogName>) {
        if let Touched::These(turn) = &mut self.turn {
            turn.extend(names);
        }
    }

    /// Counts what waits in the logs of this turn; in the others it is what it was.
    pub(super) fn count_pressure(&mut self) {
        let (mut total, mut pressed) = (self.backlog, std::mem::take(&mut self.pressed));
        self.turn_mut(|name, slot| {
            let backlog = slot.replica.outbox().backlog();
            let before = std::mem::replace(&mut slot.pressure.counted, backlog);
            total =
                less(Backlog { entries: total.entries + backlog.entries, bytes: total.bytes + backlog.bytes }, before);
            match slot.replica.pressure() {
                PressureLevel::None => drop(pressed.remove(name)),
                level => drop(pressed.insert(name.clone(), level)),
            }
        });
        (self.backlog, self.pressed) = (total, pressed);
    }

    /// What waits in all logs, and the first of those under the highest pressure.
    pub(super) fn pressure(&self) -> Pressure {
        let mut pressure = Pressure { level: PressureLevel::None, log: None, backlog: self.backlog };
        for (name, level) in &self.pressed {
            if *level > pressure.level {
                (pressure.level, pressure.log) = (*level, Some(name.clone()));
            }
        }
        pressure
    }
}

fn less(from: Backlog, what: Backlog) -> Backlog {
    Backlog { entries: from.entries - what.entries, bytes: from.bytes - what.bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Config, Engine, Input, OWN_KEPT_BYTES};
    use crate::id::{ActorId, ClientId, RunId};
    use crate::outbox::BacklogBound;
    use crate::view::Schema;

    #[test]
    fn an_event_looks_at_the_logs_that_it_touches() {
        let config = Config {
            run: RunId([1; 8]),
            client: ClientId([1; 16]),
            actor: ActorId([1; 16]),
            seed: [1; 32],
            device: "a device".to_owned(),
            connect: false,
            token: false,
            backlog: BacklogBound::default(),
            own_kept_bytes: OWN_KEPT_BYTES,
        };
        let mut engine = Engine::new(config, 0);
        let looked_at = |engine: &Engine| engine.slots.turn().map(|(name, _)| name.to_string()).collect::<Vec<_>>();
        let log = |number: u32| LogName::new(&format!("board/{number}")).expect("a name");
        for number in 1..=3 {
            engine.open(&log(number), Schema::default(), 0);
            assert_eq!(looked_at(&engine), [log(number).to_string()], "the others are as they were");
        }
        engine.handle(Input::SocketBuffered(0), 0);
        assert_eq!(looked_at(&engine), [""; 0]);
        let mut waiting = |credit| {
            let mut looks = 0;
            engine.slots.turn_and_unsent_mut(credit, |_, _| looks += 1);
            looks
        };
        let looks = [None, Some(true), Some(true), Some(false), Some(false), None].map(&mut waiting);
        assert_eq!(looks, [0, 3, 0, 3, 0, 3], "those that wait for credit, when that has come or gone");
        engine.slots.pushed(vec![log(2)]);
        assert_eq!(looked_at(&engine), [log(2).to_string()], "what pushed may have no share of the credit left");
        engine.handle(Input::Timeout, 0);
        assert_eq!(looked_at(&engine).len(), 3, "each may wait for the time that has come");
    }
}
