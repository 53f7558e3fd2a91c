//! What the engine tells TypeScript, as it is written.

use driftlog_core::connection::ConnectionState;
use driftlog_core::engine::{OwnEntry, OwnStatus};
use driftlog_core::id::WriteId;
use driftlog_core::notice::{self, Accepted, Refused};
use driftlog_core::protocol::Code;
use driftlog_core::protocol::frame::MarkedStatus;
use driftlog_core::view::{self, Patch, Row};
use serde::Serialize;

use super::encode;

/// `WireNotice`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Notice {
    /// The rows of a query changed.
    Patch { handle: u32, query: u32, patches: Vec<Patch> },
    /// A write got further.
    Write { handle: u32, write: WriteId, status: WriteStatus, detail: WriteDetail },
    /// The connection changed.
    Connection(Connection),
    /// How much own work waits.
    Pressure(Pressure),
    /// A log's state changed.
    Log { handle: u32, state: LogState },
    /// The dead letters of a log changed from a seq on.
    DeadLetters { handle: u32, from: u64 },
    /// Who is present in a log changed.
    Presence { handle: u32 },
    /// A fold has something to do.
    Fold { handle: u32, fold: u32 },
    /// The next hello waits for a token.
    TokenWanted { reason: String },
}

/// How far a write got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WriteStatus {
    Stored,
    Accepted,
    Refused,
    /// Not recorded, and gone from the view.
    Failed,
}

/// `WireWriteDetail`: what is absent is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WriteDetail {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) accepted_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) author: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) number: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) entry_id: Option<String>,
}

/// `WireConnection`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Connection {
    pub(crate) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kept: Option<Kept>,
}

/// `WireKept`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Kept {
    pub(crate) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<u64>,
}

/// `WirePresent`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Present {
    connection: String,
    user: String,
    value: serde_bytes::ByteBuf,
}

impl From<driftlog_core::engine::Present> for Present {
    fn from(present: driftlog_core::engine::Present) -> Self {
        let driftlog_core::engine::Present { connection, user, value } = present;
        Self { connection: connection.to_string(), user: user.to_string(), value }
    }
}

/// `WireLogState`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogState {
    pub(crate) status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) end: Option<u64>,
    pub(crate) outbox: u64,
    pub(crate) outbox_bytes: u64,
    pub(crate) pressure: &'static str,
    pub(crate) dead_letters: u64,
}

/// `WirePressure`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Pressure {
    pub(crate) level: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log: Option<String>,
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

/// `WireEntry`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    pub(crate) write_id: String,
    pub(crate) action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) args: Option<driftlog_core::value::Value>,
    pub(crate) status: &'static str,
    pub(crate) time: u64,
    /// The entry that it re-issues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replaces: Option<String>,
    /// A dead letter of which a replacement is undecided.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) redriven: bool,
    /// Offset, outcome, code and the like.
    #[serde(flatten)]
    pub(crate) detail: WriteDetail,
}

/// `WireStorage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Storage {
    pub(crate) mode: &'static str,
    pub(crate) durable: bool,
    pub(crate) tabs: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lost: Option<String>,
}

impl Notice {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Notice::Patch { handle, query, patches } => {
                write_length(4, out);
                out.extend(encode(&"patch"));
                out.extend(encode(handle));
                out.extend(encode(query));
                view::write_patches(patches, out);
            }
            Notice::Write { handle, write, status, detail } => {
                out.extend(encode(&("write", handle, write.to_string(), status, detail)));
            }
            Notice::Connection(connection) => out.extend(encode(&("connection", connection))),
            Notice::Pressure(pressure) => out.extend(encode(&("pressure", pressure))),
            Notice::Log { handle, state } => out.extend(encode(&("log", handle, state))),
            Notice::DeadLetters { handle, from } => out.extend(encode(&("deadLetters", handle, from))),
            Notice::Presence { handle } => out.extend(encode(&("presence", handle))),
            Notice::Fold { handle, fold } => out.extend(encode(&("fold", handle, fold))),
            Notice::TokenWanted { reason } => out.extend(encode(&("token-wanted", reason))),
        }
    }
}

/// An array of notices: what the listener gets.
pub(crate) fn notices(notices: &[Notice]) -> Vec<u8> {
    let mut out = Vec::new();
    write_length(notices.len(), &mut out);
    notices.iter().for_each(|notice| notice.write(&mut out));
    out
}

/// `[writeId, notices…]`: the answer to `act`.
pub(crate) fn acted(write: WriteId, notices: &[Notice]) -> Vec<u8> {
    let mut out = Vec::new();
    write_length(1 + notices.len(), &mut out);
    out.extend(encode(&write.to_string()));
    notices.iter().for_each(|notice| notice.write(&mut out));
    out
}

/// `[queryId, rows]`: the answer to `query`.
pub(crate) fn queried(query: u32, rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::new();
    write_length(2, &mut out);
    out.extend(encode(&query));
    view::write_rows(rows, &mut out);
    out
}

/// Rows: the answer to `select`.
pub(crate) fn selected(rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::new();
    view::write_rows(rows, &mut out);
    out
}

/// The head of a msgpack array.
fn write_length(length: usize, out: &mut Vec<u8>) {
    match u16::try_from(length) {
        Ok(length @ 0..16) => out.push(0x90 | length as u8),
        Ok(length) => {
            out.push(0xdc);
            out.extend(length.to_be_bytes());
        }
        Err(_) => {
            out.push(0xdd);
            out.extend((length as u32).to_be_bytes());
        }
    }
}

/// A write's status with what comes with it.
pub(crate) fn write_status(status: notice::WriteStatus) -> (WriteStatus, WriteDetail) {
    match status {
        notice::WriteStatus::Stored(id) => {
            (WriteStatus::Stored, WriteDetail { entry_id: Some(id.to_string()), ..WriteDetail::default() })
        }
        notice::WriteStatus::Accepted(Accepted { id, offset, accepted, author, outcome }) => {
            let detail = WriteDetail {
                entry_id: Some(id.to_string()),
                offset: offset.map(|offset| offset.0),
                accepted_at: accepted,
                author: author.map(|author| author.to_string()),
                outcome: outcome.map(mark_name),
                ..WriteDetail::default()
            };
            (WriteStatus::Accepted, detail)
        }
        notice::WriteStatus::Refused(Refused { id, status, code, reason }) => {
            let detail = WriteDetail {
                entry_id: Some(id.to_string()),
                code: Some(code.map_or(mark_name(status), |code| code.name())),
                number: code.map(|code| code.number()),
                reason: Some(reason),
                ..WriteDetail::default()
            };
            (WriteStatus::Refused, detail)
        }
        notice::WriteStatus::Failed(failure, reason) => {
            let detail = WriteDetail { code: Some(failure.name()), reason: Some(reason), ..WriteDetail::default() };
            (WriteStatus::Failed, detail)
        }
    }
}

impl From<notice::Connection> for Connection {
    fn from(connection: notice::Connection) -> Self {
        let notice::Connection { state, reason, retry_at, user, kept } = connection;
        let (reason, user) = (given(reason), user.map(|user| user.to_string()));
        Connection { state: state.name(), reason, retry_at, user, kept: kept.map(Into::into) }
    }
}

impl From<ConnectionState> for Kept {
    fn from(state: ConnectionState) -> Self {
        let (state, said) = match state {
            ConnectionState::Active { was } => ("active", was),
            ConnectionState::Inactive { reason, since } => ("inactive", Some((reason, since))),
        };
        Self { state, reason: said.map(|(reason, _)| reason.name()), since: said.map(|(_, since)| since) }
    }
}

impl From<notice::Pressure> for Pressure {
    fn from(pressure: notice::Pressure) -> Self {
        let (level, log) = (pressure.level.name(), pressure.log.map(|log| log.to_string()));
        Pressure { level, log, count: pressure.backlog.entries, bytes: pressure.backlog.bytes }
    }
}

impl From<notice::LogState> for LogState {
    fn from(state: notice::LogState) -> Self {
        LogState {
            status: state.status.name(),
            reason: given(state.reason),
            retry_at: state.retry_at,
            end: Some(state.end.0),
            outbox: state.outbox as u64,
            outbox_bytes: state.outbox_bytes,
            pressure: state.pressure.name(),
            dead_letters: state.dead_letters as u64,
        }
    }
}

impl Entry {
    /// An own entry of this user.
    pub(crate) fn new(entry: OwnEntry, user: Option<String>) -> Self {
        let mut detail = WriteDetail {
            offset: entry.place.map(|(offset, _)| offset.0),
            accepted_at: entry.place.map(|(_, accepted)| accepted),
            entry_id: entry.id.map(|id| id.to_string()),
            ..WriteDetail::default()
        };
        let status = match entry.status {
            OwnStatus::Pending => "pending",
            OwnStatus::Stored => "stored",
            OwnStatus::Accepted(outcome) => {
                detail.outcome = outcome.map(mark_name);
                (detail.offset, detail.accepted_at) = entry.place.map(|(offset, at)| (offset.0, at)).unzip();
                detail.author = user;
                "accepted"
            }
            OwnStatus::Refused(mark, number, reason) => {
                detail.code = Some(number.map_or(mark_name(mark), |number| Code::from_number(number).name()));
                detail.number = number;
                detail.reason = Some(reason);
                "refused"
            }
        };
        let write_id = entry.write.to_string();
        let (replaces, redriven) = (entry.replaces.map(|id| id.to_string()), entry.redriven);
        Entry { write_id, action: entry.name, args: entry.args, status, time: entry.time, replaces, redriven, detail }
    }
}

/// The word for a mark, where TypeScript wants a code or an outcome.
fn mark_name(mark: MarkedStatus) -> &'static str {
    match mark {
        MarkedStatus::Parked => "parked",
        MarkedStatus::Void => "void",
        MarkedStatus::Expired => "expired",
        MarkedStatus::RecordGone => "record-gone",
        _ => "refused",
    }
}

/// An empty reason is none.
fn given(reason: String) -> Option<String> {
    Some(reason).filter(|reason| !reason.is_empty())
}

#[cfg(test)]
mod tests {
    use driftlog_core::id::RunId;
    use driftlog_core::value::Value;

    use super::super::decode;
    use super::*;

    fn check(bytes: &[u8], expected: &str) {
        let value: Value = decode(bytes).unwrap();
        assert_eq!(serde_json::to_string(&value).unwrap(), expected);
    }

    #[test]
    fn notices_are_arrays_with_a_word_in_front() {
        let patch = Notice::Patch { handle: 1, query: 2, patches: vec![Patch::Remove(2)] };
        check(&notices(&[patch]), r#"[["patch",1,2,[["remove",2]]]]"#);
        let id = WriteId { run: RunId([1; 8]), n: 3 };
        let detail = WriteDetail { offset: Some(5), accepted_at: Some(9), ..WriteDetail::default() };
        let write = Notice::Write { handle: 1, write: id, status: WriteStatus::Accepted, detail };
        check(
            &acted(id, &[write]),
            r#"["0101010101010101-3",["write",1,"0101010101010101-3","accepted",{"acceptedAt":9,"offset":5}]]"#,
        );
        let wanted = Notice::TokenWanted { reason: "expired".into() };
        check(&notices(&[wanted]), r#"[["token-wanted","expired"]]"#);
    }

    #[test]
    fn absent_values_are_left_out() {
        let state = LogState {
            status: "local",
            reason: None,
            retry_at: None,
            end: Some(3),
            outbox: 1,
            outbox_bytes: 60,
            pressure: "none",
            dead_letters: 0,
        };
        check(
            &notices(&[Notice::Log { handle: 4, state }]),
            r#"[["log",4,{"deadLetters":0,"end":3,"outbox":1,"outboxBytes":60,"pressure":"none","status":"local"}]]"#,
        );
        let detail = WriteDetail { code: Some("forbidden"), ..WriteDetail::default() };
        let (write_id, action) = ("r-1".into(), "a".into());
        let (args, status, replaces, redriven) = (None, "refused", None, false);
        let entry = Entry { write_id, action, args, status, time: 1, replaces, redriven, detail };
        check(&encode(&entry), r#"{"action":"a","code":"forbidden","status":"refused","time":1,"writeId":"r-1"}"#);
    }

    #[test]
    fn long_arrays_have_long_heads() {
        for length in [15, 16, 65_535, 65_536] {
            let wanted = Notice::DeadLetters { handle: 1, from: 0 };
            let Value::Array(all) = decode(&notices(&vec![wanted; length])).unwrap() else { panic!("an array") };
            assert_eq!(all.len(), length);
        }
    }
}
