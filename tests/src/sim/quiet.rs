//! When nothing is under way any more: who is still restless, and what must hold then.
//!
//! Every replica that reaches the server is, in a portrait that leaves out how a text is stored and nothing else,
//! byte-identical to a fold of the server's log from scratch, shows the same rows, and has nothing left to send. Where
//! every action is that was said to be stored, [`super::kept`] looks.

use std::collections::BTreeSet;

use driftlog_core::engine::OnlineWish;
use driftlog_core::id::{LogName, Offset};
use driftlog_core::notice::LogStatus;
use driftlog_core::overlay::{Overlay, Visible};
use driftlog_core::state::{FieldKey, RecordKey, State};
use driftlog_core::view::{Query, Row, View};

use super::board;
use super::device::{Device, DeviceNumber, Network, TabNumber};
use super::world::World;

impl Device {
    /// Whether its work reaches the server, as far as the world is concerned.
    pub(super) fn is_online(&self) -> bool {
        self.network == Network::On && self.wish == OnlineWish::Connected && !self.awake().is_empty()
    }
}

impl World {
    /// Whether nothing is under way any more.
    pub fn is_quiet(&mut self) -> bool {
        self.restless().is_none()
    }

    /// Who is not quiet yet, and why; none: everybody is.
    pub(super) fn restless(&mut self) -> Option<String> {
        if self.host.server.is_none() {
            return Some("the server is down".to_owned());
        }
        for device in 0..self.devices.len() {
            for tab in self.devices[device].awake() {
                for log in self.devices[device].logs.clone() {
                    if let Some(why) = self.restless_log(device, tab, &log) {
                        return Some(format!("{}, tab {tab}, {log}: {why}", self.devices[device].name));
                    }
                }
            }
        }
        None
    }

    fn restless_log(&mut self, device: DeviceNumber, tab: TabNumber, log: &LogName) -> Option<String> {
        let online = self.devices[device].is_online();
        let end = self.checker.end(log);
        let engine = self.devices[device].engine(tab);
        let connection = engine.connection();
        let Ok(replica) = engine.replica(log) else { return Some("it is not open yet".to_owned()) };
        if replica.outbox().pending().next().is_some() {
            return Some("actions are not stored yet".to_owned());
        }
        if !online {
            return None;
        }
        let (outbox, overlay) = (replica.outbox().len(), replica.overlay().is_empty());
        let (status, at) = (replica.status(), replica.state().cursor().next);
        if outbox == 0 && overlay && status == LogStatus::Synced && at == end {
            return None;
        }
        let reason = replica.log_state().reason;
        Some(format!(
            "outbox {outbox}, overlay {:?}, {status:?} {reason:?}, at {at} of {end}, link {:?} {:?}",
            replica.overlay().writes().collect::<Vec<_>>(),
            connection.state,
            connection.reason
        ))
    }

    /// Checks what must hold when nothing is under way.
    pub(super) fn check_quiet(&mut self) {
        let logs: BTreeSet<_> = self.devices.iter().flat_map(|device| device.logs.clone()).collect();
        for log in &logs {
            match self.fold(log) {
                Ok(Some(state)) => self.compare(log, state),
                Ok(None) => {}
                Err(why) => self.checker.violated("diverged", format!("{log} does not fold at the server: {why}")),
            }
        }
        self.look_for_stored();
    }

    /// The fold of everything that the server has of a log.
    pub(super) fn fold(&self, log: &LogName) -> Result<Option<State>, String> {
        let Some(server) = &self.host.server else { return Ok(None) };
        let Some(identity) = server.log(log).map_err(|error| error.to_string())? else { return Ok(None) };
        let mut state = State::new(identity.log_id);
        state.set_epochs(identity.epochs);
        for logged in self.checker.logs.get(log).into_iter().flat_map(|record| &record.entries) {
            state.fold(logged).map_err(|error| error.to_string())?;
        }
        Ok(Some(state))
    }

    fn compare(&mut self, log: &LogName, state: State) {
        let (expected, cursor) = (portrait(&state), state.cursor());
        let view = View::new(board::schema());
        let rows = view.select(Visible::new(&state, &Overlay::new()), query()).unwrap_or_default();
        for device in 0..self.devices.len() {
            if !self.devices[device].is_online() {
                continue;
            }
            for tab in self.devices[device].awake() {
                let Ok(replica) = self.devices[device].engine(tab).replica(log) else { continue };
                // A tab that has received nothing of a log cannot know who it is.
                if replica.status() != LogStatus::Synced || !replica.met() {
                    continue;
                }
                let got = portrait(replica.state());
                let at = replica.state().cursor();
                let shown = replica.view_mut().and_then(|(view, visible)| view.select(visible, query()).ok());
                let who = format!("{log}: tab {tab} of {}", self.devices[device].name);
                if at != cursor {
                    self.checker.violated("diverged", format!("{who} stands at {at:?}, the server at {cursor:?}"));
                } else if got != expected {
                    self.checker.violated("diverged", format!("{who} has another state: {}", apart(&got, &expected)));
                } else if shown.as_deref() != Some(&rows[..]) {
                    let (got, want) = (text(shown.as_deref().unwrap_or_default()), text(&rows));
                    self.checker.violated("diverged", format!("{who} shows {got}, the server's log {want}"));
                }
            }
        }
    }

    /// The end of a log at the server.
    pub fn server_end(&self, log: &LogName) -> Offset {
        self.checker.end(log)
    }
}

/// Everything that a state says, in one form: two states that say the same have the same portrait.
fn portrait(state: &State) -> String {
    let mut lines = format!("{} {:?}\n", state.log(), state.cursor());
    let mut line = |text: String| lines.extend([text.as_str(), "\n"]);
    line(format!("{:?} {:?}", state.accepted_last(), state.effective_max()));
    state.actors().for_each(|(actor, folded)| line(format!("{actor} {folded:?}")));
    for (collection, records) in state.collections() {
        for (id, record) in records {
            let (inserts, created, updated) = (record.inserts(), record.created(), record.updated());
            line(format!("{collection} {id} {inserts:?} {created:?} {updated:?}"));
            for (name, field) in record.fields() {
                let key = RecordKey { collection: collection.clone(), record: id.clone() };
                let text = state.text(&FieldKey { key, field: name.clone() });
                match field.is_text() {
                    true => line(format!("  {name} {text:?} {:?} {:?}", field.shown(), field.counter())),
                    false => line(format!("  {name} {field:?}")),
                }
            }
        }
    }
    for (key, tombstone) in state.tombstones() {
        let (record, deletes, until) = (tombstone.record(), tombstone.deletes(), tombstone.until());
        line(format!("deleted {key:?} {:?} {:?} {deletes:?} {until:?}", record.inserts(), record.updated()));
    }
    lines
}

/// Where two portraits differ first.
fn apart(got: &str, expected: &str) -> String {
    let pair = got.lines().zip(expected.lines()).find(|(got, expected)| got != expected);
    pair.map_or_else(|| "one goes on".to_owned(), |(got, expected)| format!("{got} and not {expected}"))
}

fn query() -> Query {
    Query::all(board::name("todos"))
}

/// Rows to be read by people.
pub fn text(rows: &[Row]) -> String {
    let value = |row: &Row| driftlog_core::codec::from_bytes::<driftlog_core::value::Value>(row.as_bytes());
    let rows: Vec<_> = rows.iter().map(|row| format!("{:?}", value(row))).collect();
    rows.join(", ")
}
