//! What becomes of dead letters: users make them again, as they were or changed, or discard them; an operator lets them
//! in at the server; and all of that at once.

use driftlog_core::draft::Draft;
use driftlog_core::engine::CallError;
use driftlog_core::entry::Entry;
use driftlog_core::id::{EntryId, LogName, WriteId};
use driftlog_core::protocol::Code;

use super::device::{DeviceNumber, TabNumber};
use super::trace::note;
use super::world::World;

impl World {
    /// Makes a dead letter again: as it was, or as this draft says.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn redrive(
        &mut self,
        device: DeviceNumber,
        tab: TabNumber,
        log: &LogName,
        letter: EntryId,
        draft: Option<Draft>,
    ) -> Result<WriteId, CallError> {
        let (now, how) = (self.device_now(device), if draft.is_some() { "changed" } else { "as it was" });
        let replica = self.devices[device].engine(tab).replica(log)?;
        let entry = replica.dead_letter(letter).and_then(|found| Entry::from_bytes(&found.entry).ok());
        let outcome = self.devices[device].engine(tab).redrive(log, letter, draft, now);
        if let (Ok(write), Some(entry)) = (&outcome, entry) {
            self.checker.remade.insert((log.clone(), *write), entry.line(letter));
        }
        note!(self, "{}: tab {tab} {log} redrives {letter} {how}: {outcome:?}", self.devices[device].name);
        self.drain_tab(device, tab);
        outcome
    }

    /// Discards a dead letter.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn discard(
        &mut self,
        device: DeviceNumber,
        tab: TabNumber,
        log: &LogName,
        letter: EntryId,
    ) -> Result<(), CallError> {
        let replica = self.devices[device].engine(tab).replica(log)?;
        let last = replica.dead_letter(letter).map_or(letter.seq, |found| found.last(letter.seq));
        self.checker.discarded.insert((log.clone(), letter, last));
        let outcome = self.devices[device].engine(tab).discard(log, letter);
        note!(self, "{}: tab {tab} {log} discards {letter}", self.devices[device].name);
        self.drain_tab(device, tab);
        outcome
    }

    /// Gives an own pending entry up.
    ///
    /// # Panics
    /// If there is no such entry.
    pub fn park(&mut self, device: DeviceNumber, tab: TabNumber, log: &LogName, write: WriteId) {
        let now = self.device_now(device);
        self.checker.struck.insert((log.clone(), write));
        let engine = self.devices[device].engine(tab);
        let seq = engine.replica(log).expect("an open log").outbox().seq_of(write).expect("a stored entry");
        let parked = engine.park(log, seq, Code::MalformedEntry, "it cannot be carried on with", now);
        assert!(parked.expect("an open log"), "{write} is pending");
        note!(self, "{}: tab {tab} {log} gives up {write}", self.devices[device].name);
        self.drain_tab(device, tab);
    }

    /// The server's dead letters of a log that nobody has dealt with; none while it is down.
    pub fn server_letters(&self, log: &LogName) -> Vec<u64> {
        self.host.server.as_ref().and_then(|server| server.letters(log).ok()).unwrap_or_default()
    }

    /// An operator lets a dead letter of the server in again.
    pub fn operator_redrives(&mut self, letter: u64) {
        note!(self, "server: its operator redrives letter {letter}");
        if let Some(server) = &self.host.server {
            server.redrive(letter);
            self.host_look();
        }
    }

    /// Somebody deals with a dead letter: its user, or an operator, or both at once.
    pub(super) fn letter_at_random(&mut self, device: DeviceNumber, tab: TabNumber) {
        let opened: Vec<_> = self.devices[device].tabs[&tab].opened.iter().cloned().collect();
        let Some(log) = self.pick(&opened) else { return };
        let Ok(replica) = self.devices[device].engine(tab).replica(&log) else { return };
        let letters: Vec<_> = replica.dead_letters().map(|(id, _)| *id).collect();
        let (own, at_server) = (self.pick(&letters), self.server_letters(&log));
        let draft = self.draft(device, tab, &log);
        // What cannot be made again as it was says so at the call.
        match (self.random.below(8), own) {
            (0..3, Some(letter)) => drop(self.redrive(device, tab, &log, letter, None)),
            (3..5, Some(letter)) => drop(self.redrive(device, tab, &log, letter, Some(draft))),
            (5, Some(letter)) => drop(self.discard(device, tab, &log, letter)),
            (choice, _) => {
                if let Some(letter) = self.pick(&at_server) {
                    self.operator_redrives(letter);
                }
                if let (6, Some(letter)) = (choice, own) {
                    drop(self.redrive(device, tab, &log, letter, None));
                }
            }
        }
    }
}
