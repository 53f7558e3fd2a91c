//! What a page does and shows: actions, and rows as the app reads them.

use std::collections::BTreeMap;

use driftlog_core::draft::Draft;
use driftlog_core::engine::CallError;
use driftlog_core::fold::Act;
use driftlog_core::id::{LogName, RecordId, WriteId};
use driftlog_core::value::Value;
use driftlog_core::view::Query;

use super::board;
use super::device::{DeviceNumber, TabNumber};
use super::trace::note;
use super::world::World;
use crate::folds::Counts;

/// The fields of one row, by name.
pub type Fields = BTreeMap<String, Value>;

impl World {
    /// Takes an action in a tab.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn act(
        &mut self,
        device: DeviceNumber,
        tab: TabNumber,
        log: &LogName,
        draft: Draft,
    ) -> Result<WriteId, CallError> {
        let (now, action, passing) = (self.device_now(device), draft.name.clone(), draft.lifetime_ms.is_some());
        let outcome = self.devices[device].engine(tab).act(log, draft, now);
        if let (Ok(write), true) = (&outcome, passing) {
            self.checker.passing.insert((log.clone(), *write));
        }
        match &outcome {
            Ok(write) => note!(self, "{}: tab {tab} {log} {action} is {write}", self.devices[device].name),
            Err(error) => note!(self, "{}: tab {tab} {log} {action}: {error}", self.devices[device].name),
        }
        self.drain_tab(device, tab);
        outcome
    }

    /// Opens a fold in a tab on an open log.
    ///
    /// # Panics
    /// If the log is not open there.
    pub fn open_fold(&mut self, device: DeviceNumber, tab: TabNumber, log: &LogName, version: u64) -> Counts {
        let now = self.device_now(device);
        let counts = Counts::open(self.devices[device].engine(tab), now, log, version).expect("an open log");
        self.drain_tab(device, tab);
        counts
    }

    /// Lets a fold of a tab work off what there is.
    pub fn work_fold(
        &mut self,
        device: DeviceNumber,
        tab: TabNumber,
        counts: &mut Counts,
        fails: impl Fn(&Act) -> bool,
    ) {
        let now = self.device_now(device);
        counts.work(self.devices[device].engine(tab), now, fails);
        self.drain_tab(device, tab);
    }

    /// The rows that a tab shows, by id; none if the log is not open there.
    pub fn rows(&mut self, device: DeviceNumber, tab: TabNumber, log: &LogName) -> Option<Vec<Fields>> {
        let replica = self.devices[device].engine(tab).replica(log).ok()?;
        let (view, visible) = replica.view_mut()?;
        let rows = view.select(visible, Query::all(board::name("todos"))).ok()?;
        rows.iter().map(|row| fields(row.as_bytes())).collect()
    }

    /// UTF-16 code units of a record's note, as a tab shows it.
    pub(super) fn note_length(&mut self, device: DeviceNumber, tab: TabNumber, log: &LogName, record: &str) -> usize {
        let Ok(replica) = self.devices[device].engine(tab).replica(log) else { return 0 };
        let (Some((view, visible)), Ok(id)) = (replica.view_mut(), RecordId::new(record)) else { return 0 };
        let row = view.row(visible, &board::name("todos"), &id);
        match row.and_then(|row| fields(row.as_bytes())).and_then(|mut fields| fields.remove("note")) {
            Some(Value::Text(note)) => note.encode_utf16().count(),
            _ => 0,
        }
    }
}

fn fields(row: &[u8]) -> Option<Fields> {
    match driftlog_core::codec::from_bytes(row) {
        Ok(Value::Map(fields)) => Some(fields),
        _ => None,
    }
}
