//! What crosses for folds: declarations and reports in, batches out. Shapes as in `ts/boundary.ts`.

use driftlog_core::consumer::{Breaker, Suspect};
use driftlog_core::fold::{Act, Batch, Declaration, Letter, Report, Status, Tail};
use driftlog_core::id::{Name, Offset};
use driftlog_core::value::Value;
use serde::{Deserialize, Serialize};

use super::{BadRequest, decode, encode};

/// `WireFold`: name, version, actions, initial accumulator.
#[derive(Debug, Deserialize)]
struct WireDeclaration(Name, u64, Vec<Name>, Value);

/// `WireFoldReport`: ticket, done, failure, accumulator. An absent accumulator is an empty list, so that nil is a value.
#[derive(Debug, Deserialize)]
struct WireReport(u64, usize, Option<String>, Vec<Value>);

/// `WireFoldAct`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WireAct {
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    time: u64,
    action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Value>,
}

/// `WireFoldState`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WireState {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<u64>,
    end: u64,
    breaker: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_at: Option<u64>,
    suspects: Vec<WireSuspect>,
}

/// `WireFoldSuspect`.
#[derive(Debug, Serialize)]
struct WireSuspect {
    offset: u64,
    reason: String,
    attempts: u32,
}

/// `WireFoldLetter`.
#[derive(Debug, Serialize)]
struct WireLetter {
    #[serde(flatten)]
    act: WireAct,
    reason: String,
    attempts: u32,
    first: u64,
    last: u64,
}

/// `WireFoldBatch`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WireBatch {
    ticket: u64,
    /// None or one.
    start: Vec<Value>,
    acts: Vec<WireAct>,
    wants_accumulator: bool,
    more: bool,
    tail: &'static str,
    tail_acts: Vec<WireAct>,
    state: WireState,
    #[serde(skip_serializing_if = "Option::is_none")]
    parked: Option<Vec<WireLetter>>,
}

/// Parses a declaration.
///
/// # Errors
/// [`BadRequest`] with the place that does not fit.
pub(crate) fn declaration(bytes: &[u8]) -> Result<Declaration, BadRequest> {
    let WireDeclaration(name, version, actions, initial) = decode(bytes)?;
    Ok(Declaration { name, version, actions: actions.into_iter().collect(), initial })
}

/// Parses a report; an empty request is none.
///
/// # Errors
/// [`BadRequest`] with the place that does not fit.
pub(crate) fn report(bytes: &[u8]) -> Result<Option<Report>, BadRequest> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let WireReport(ticket, done, failure, accumulator) = decode(bytes)?;
    Ok(Some(Report { ticket, done, failure, accumulator: accumulator.into_iter().next() }))
}

/// Writes a batch.
pub(crate) fn batch(batch: Batch) -> Vec<u8> {
    let (tail, tail_acts) = match batch.tail {
        Tail::Unchanged => ("unchanged", Vec::new()),
        Tail::Appended(acts) => ("appended", acts),
        Tail::Replaced(acts) => ("replaced", acts),
    };
    let state = batch.state;
    encode(&WireBatch {
        ticket: batch.ticket,
        start: batch.start.into_iter().collect(),
        acts: batch.acts.into_iter().map(WireAct::from).collect(),
        wants_accumulator: batch.wants_accumulator,
        more: batch.more,
        tail,
        tail_acts: tail_acts.into_iter().map(WireAct::from).collect(),
        state: WireState {
            status: status_name(state.status),
            from: state.from.map(|from| from.0),
            end: state.end.0,
            breaker: breaker_name(state.breaker),
            retry_at: state.retry_at,
            suspects: state.suspects.into_iter().map(WireSuspect::from).collect(),
        },
        parked: batch.letters.map(|letters| letters.into_iter().map(WireLetter::from).collect()),
    })
}

impl From<Act> for WireAct {
    fn from(act: Act) -> Self {
        Self {
            offset: act.offset.map(|offset| offset.0),
            id: act.write.to_string(),
            author: act.author.map(|author| author.to_string()),
            time: act.time,
            action: act.body.name.to_string(),
            args: act.body.args.clone(),
        }
    }
}

impl From<Suspect<Offset>> for WireSuspect {
    fn from(suspect: Suspect<Offset>) -> Self {
        Self { offset: suspect.at.0, reason: suspect.reason, attempts: suspect.attempts }
    }
}

impl From<(Offset, Letter)> for WireLetter {
    fn from((offset, letter): (Offset, Letter)) -> Self {
        let act = WireAct {
            offset: Some(offset.0),
            id: letter.write.to_string(),
            author: letter.author.map(|author| author.to_string()),
            time: letter.time,
            action: letter.action.to_string(),
            args: letter.args,
        };
        let (reason, attempts) = (letter.reason, letter.attempts);
        Self { act, reason, attempts, first: letter.first, last: letter.last }
    }
}

fn status_name(status: Status) -> &'static str {
    match status {
        Status::Loading => "loading",
        Status::Waiting => "waiting",
        Status::Behind => "behind",
        Status::Live => "live",
    }
}

fn breaker_name(breaker: Breaker) -> &'static str {
    match breaker {
        Breaker::Closed => "closed",
        Breaker::Open => "open",
        Breaker::Probing => "probing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_and_reports_parse() {
        let wire = ("activity", 2, ["addTodo", "vote"], Vec::<u8>::new());
        let parsed = declaration(&rmp_serde::to_vec(&wire).unwrap()).unwrap();
        assert_eq!((parsed.version, parsed.actions.len()), (2, 2));
        assert_eq!(report(&[]), Ok(None));
        let nil = report(&rmp_serde::to_vec(&(7, 3, "thrown", [None::<u8>])).unwrap()).unwrap().unwrap();
        assert_eq!((nil.ticket, nil.done, nil.accumulator), (7, 3, Some(Value::Null)), "nil is an accumulator too");
        let none = report(&rmp_serde::to_vec(&(7, 3, None::<&str>, [None::<u8>; 0])).unwrap()).unwrap().unwrap();
        assert_eq!(none.accumulator, None);
    }
}
