//! The shell's part of a fold, for engines that run without a browser: it counts what was done.

use std::collections::BTreeMap;

use driftlog_core::codec;
use driftlog_core::consumer::Breaker;
use driftlog_core::engine::{CallError, Engine};
use driftlog_core::entry::Digest;
use driftlog_core::fold::{Act, Declaration, FoldId, Report, Status, Tail};
use driftlog_core::id::{LogName, Name, Offset};
use driftlog_core::value::Value;

/// A fold that counts what was done, by action, and keeps the time of the last.
#[derive(Clone)]
pub struct Counts {
    log: LogName,
    /// Names it in its tab.
    pub id: FoldId,
    /// The accumulator of what is confirmed.
    pub confirmed: Value,
    /// Pending actions.
    pub tail: Vec<Act>,
    /// How far it is.
    pub status: Status,
    /// Whether work goes on.
    pub breaker: Breaker,
    /// The first offset that it covers.
    pub from: Option<Offset>,
    /// Behind the last one.
    pub end: Offset,
    /// Offsets of its dead letters.
    pub parked: Vec<u64>,
    /// Confirmed actions that were handled, again and again counted again.
    pub handled: usize,
}

fn declaration(version: u64) -> Declaration {
    let actions = ["addTodo", "vote"].map(|name| Name::new(name).expect("a name")).into();
    let (name, initial) = (Name::new("activity").expect("a name"), Value::Map(BTreeMap::new()));
    Declaration { name, version, actions, initial }
}

fn count(accumulator: &Value, act: &Act) -> Value {
    let Value::Map(mut counts) = accumulator.clone() else { panic!("a map") };
    let next = match counts.get(act.body.name.as_str()) {
        Some(Value::Int(count)) => count + 1,
        _ => 1,
    };
    counts.insert(act.body.name.as_str().to_owned(), Value::int(next).expect("a small number"));
    counts.insert("last".to_owned(), Value::int(act.time as i64).expect("a time"));
    Value::Map(counts)
}

impl Counts {
    /// Opens it on an open log.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn open(engine: &mut Engine, now: u64, log: &LogName, version: u64) -> Result<Self, CallError> {
        let id = engine.open_fold(log, declaration(version), now)?;
        Ok(Self {
            log: log.clone(),
            id,
            confirmed: Value::Null,
            tail: Vec::new(),
            status: Status::Loading,
            breaker: Breaker::Closed,
            from: None,
            end: Offset(0),
            parked: Vec::new(),
            handled: 0,
        })
    }

    /// Works off what there is; `fails` says at which actions the app's handler throws.
    ///
    /// # Panics
    /// If the fold is not open.
    pub fn work(&mut self, engine: &mut Engine, now: u64, fails: impl Fn(&Act) -> bool) {
        let mut report = None;
        loop {
            let batch = engine.step_fold(&self.log, self.id, report.take(), now).expect("an open fold");
            self.confirmed = batch.start.unwrap_or_else(|| self.confirmed.clone());
            let (mut done, mut failure) = (0, None);
            for act in &batch.acts {
                if fails(act) {
                    failure = Some("poison".to_owned());
                    break;
                }
                self.confirmed = count(&self.confirmed, act);
                (done, self.handled) = (done + 1, self.handled + 1);
            }
            match batch.tail {
                Tail::Unchanged => {}
                Tail::Appended(acts) => self.tail.extend(acts),
                Tail::Replaced(acts) => self.tail = acts,
            }
            (self.status, self.breaker) = (batch.state.status, batch.state.breaker);
            (self.from, self.end) = (batch.state.from, batch.state.end);
            if let Some(letters) = batch.letters {
                self.parked = letters.iter().map(|(offset, _)| offset.0).collect();
            }
            if batch.acts.is_empty() && !batch.wants_accumulator && !batch.more {
                return;
            }
            report = Some(Report { ticket: batch.ticket, done, failure, accumulator: Some(self.confirmed.clone()) });
        }
    }

    /// Stands for the confirmed result.
    pub fn digest(&self) -> Digest {
        Digest::of(&[&codec::to_bytes(&self.confirmed)])
    }

    /// How often an action is counted among what is confirmed.
    pub fn confirmed(&self, action: &str) -> i64 {
        counted(&self.confirmed, action)
    }

    /// How often an action is counted with the pending ones on top.
    pub fn shown(&self, action: &str) -> i64 {
        counted(&self.tail.iter().fold(self.confirmed.clone(), |shown, act| count(&shown, act)), action)
    }
}

fn counted(value: &Value, action: &str) -> i64 {
    match value {
        Value::Map(counts) => match counts.get(action) {
            Some(Value::Int(count)) => *count,
            _ => 0,
        },
        _ => panic!("a map"),
    }
}
