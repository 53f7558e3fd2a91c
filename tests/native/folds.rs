//! Folds on whole clients: live, rebuilt from rows, and rebuilt from what only the server has.

use std::collections::BTreeMap;

use driftlog_core::codec;
use driftlog_core::consumer::Breaker;
use driftlog_core::draft::Draft;
use driftlog_core::engine::Engine;
use driftlog_core::entry::Digest;
use driftlog_core::fold::{Act, Declaration, FoldId, Report, Status, Tail};
use driftlog_core::id::{Name, Offset};
use driftlog_core::storage;
use driftlog_core::storage::row::{self, Received};
use driftlog_core::value::Value;
use driftlog_tests::database::Database;
use driftlog_tests::native::NativeClient;

use crate::board::{Server, add, log, schema, vote};

/// The shell's part of a fold that counts what was done, by action, and keeps the time of the last.
#[derive(Clone)]
struct Counts {
    id: FoldId,
    confirmed: Value,
    tail: Vec<Act>,
    status: Status,
    breaker: Breaker,
    from: Option<Offset>,
    end: Offset,
    parked: Vec<u64>,
    /// Confirmed actions that were handled, again and again counted again.
    handled: usize,
}

fn declaration(version: u64) -> Declaration {
    let actions = ["addTodo", "vote"].map(|name| Name::new(name).unwrap()).into();
    Declaration { name: Name::new("activity").unwrap(), version, actions, initial: Value::Map(BTreeMap::new()) }
}

fn count(accumulator: &Value, act: &Act) -> Value {
    let Value::Map(mut counts) = accumulator.clone() else { panic!("a map") };
    let next = match counts.get(act.body.name.as_str()) {
        Some(Value::Int(count)) => count + 1,
        _ => 1,
    };
    counts.insert(act.body.name.as_str().to_owned(), Value::int(next).unwrap());
    counts.insert("last".to_owned(), Value::int(act.time as i64).unwrap());
    Value::Map(counts)
}

impl Counts {
    async fn open(client: &NativeClient, version: u64) -> Self {
        let id = client.call(move |engine, now| engine.open_fold(&log(), declaration(version), now)).await.unwrap();
        Self {
            id,
            confirmed: Value::Null,
            tail: Vec::new(),
            status: Status::Loading,
            breaker: Breaker::Closed,
            from: None,
            end: Offset(0),
            parked: Vec::new(),
            handled: 0,
        }
    }

    /// Works off what there is.
    fn work(&mut self, engine: &mut Engine, now: u64, fails: impl Fn(&Act) -> bool) {
        let mut report = None;
        loop {
            let batch = engine.step_fold(&log(), self.id, report.take(), now).unwrap();
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

    /// Works until everything below `end` is in.
    async fn until(mut self, client: &NativeClient, end: u64, fails: fn(&Act) -> bool) -> Self {
        for _ in 0..30_000 {
            let mut counts = self.clone();
            self = client
                .call(move |engine, now| {
                    counts.work(engine, now, fails);
                    counts
                })
                .await;
            if self.status == Status::Live && self.end >= Offset(end) {
                return self;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        panic!("the fold should be at {end} by now: {:?} at {}", self.status, self.end);
    }

    fn digest(&self) -> Digest {
        Digest::of(&[&codec::to_bytes(&self.confirmed)])
    }

    fn shown(&self) -> Value {
        self.tail.iter().fold(self.confirmed.clone(), |shown, act| count(&shown, act))
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

fn never(_: &Act) -> bool {
    false
}

async fn started(server: &Server, database: Database) -> NativeClient {
    let client = NativeClient::start(&server.sync_url(), None, database);
    client.open(&log(), schema()).await;
    client
}

async fn act(client: &NativeClient, drafts: impl IntoIterator<Item = Draft>) {
    for draft in drafts {
        client.act(&log(), draft).await.unwrap();
    }
    client.quiet(&log()).await;
}

/// First offset that the device still has as a received entry.
fn first_row(database: &Database) -> Offset {
    let [_, rows] = storage::received_from(&log(), Offset(0));
    let rows = database.read(&rows);
    rows.first().map_or(Offset(u64::MAX), |(_, bytes)| row::decode::<Received>(bytes).unwrap().from)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_action_is_counted_once_before_and_after_it_is_confirmed() {
    let server = Server::start().await;
    let alice = started(&server, Database::default()).await;
    let counts = Counts::open(&alice, 1).await;
    let mut counts = alice
        .call(move |engine, now| {
            let mut counts = counts;
            engine.act(&log(), add("milk", ""), now).unwrap();
            counts.work(engine, now, never);
            counts
        })
        .await;
    assert_eq!(
        (counted(&counts.confirmed, "addTodo"), counted(&counts.shown(), "addTodo")),
        (0, 1),
        "in the same tick"
    );
    alice.quiet(&log()).await;
    counts = counts.until(&alice, 1, never).await;
    assert_eq!((counted(&counts.confirmed, "addTodo"), counts.tail.len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_version_and_equal_from_give_equal_results_on_a_device_that_lacks_the_history() {
    let server = Server::start().await;
    let alice = started(&server, Database::default()).await;
    let live = Counts::open(&alice, 1).await;
    let bob = started(&server, Database::default()).await;
    let note = "n".repeat(1_000);
    act(&alice, (0..400).map(|at| add(&format!("todo{at}"), &note))).await;
    act(&bob, (0..3).map(|at| vote(&format!("todo{at}"), 1))).await;
    let live = live.until(&alice, 403, never).await;
    // Bob never folded: his device made a snapshot and let go of the rows behind it, his own entries stand as stubs.
    bob.until(|engine| (crate::board::end(engine) == 403).then_some(())).await;
    let database = bob.kill().await;
    assert!(first_row(&database) > Offset(0), "the device lacks history");
    let bob = started(&server, database).await;
    let rebuilt = Counts::open(&bob, 2).await.until(&bob, 403, never).await;
    assert_eq!((live.from, rebuilt.from), (Some(Offset(0)), Some(Offset(0))));
    assert_eq!((counted(&rebuilt.confirmed, "addTodo"), counted(&rebuilt.confirmed, "vote")), (400, 3));
    assert_eq!(live.digest(), rebuilt.digest());
    // What was fetched is kept for other tabs, and does not disturb a start from the snapshot.
    let database = bob.kill().await;
    assert_eq!(first_row(&database), Offset(0));
    let bob = started(&server, database).await;
    act(&bob, [vote("todo1", 1)]).await;
    bob.until(|engine| (crate::board::end(engine) == 404).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_goes_on_from_the_checkpoint_and_a_new_version_does_not() {
    let server = Server::start().await;
    let alice = started(&server, Database::default()).await;
    act(&alice, (0..300).map(|at| add(&format!("todo{at}"), ""))).await;
    let first = Counts::open(&alice, 1).await.until(&alice, 300, never).await;
    assert_eq!(first.handled, 300);
    let alice = started(&server, alice.kill().await).await;
    let again = Counts::open(&alice, 1).await.until(&alice, 300, never).await;
    assert!(again.handled < 60, "{} handled after a checkpoint", again.handled);
    assert_eq!(again.digest(), first.digest());
    let newer = Counts::open(&alice, 2).await.until(&alice, 300, never).await;
    assert_eq!((newer.handled, newer.digest()), (300, first.digest()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_fails_on_one_entry_parks_it_across_reloads_until_it_is_redriven() {
    let server = Server::start().await;
    let alice = started(&server, Database::default()).await;
    act(&alice, [add("milk", ""), vote("milk", 1), add("bread", ""), vote("milk", 1), add("tea", "")]).await;
    let poison: fn(&Act) -> bool = |act| act.offset == Some(Offset(1));
    let counts = Counts::open(&alice, 1).await.until(&alice, 5, poison).await;
    assert_eq!((counts.parked.clone(), counted(&counts.confirmed, "vote")), (vec![1], 1));
    let alice = started(&server, alice.kill().await).await;
    let counts = Counts::open(&alice, 1).await.until(&alice, 5, never).await;
    assert_eq!((counts.parked.clone(), counted(&counts.confirmed, "vote")), (vec![1], 1), "parked is parked");
    let id = counts.id;
    alice.call(move |engine, _| engine.redrive_fold(&log(), id, None)).await.unwrap();
    let counts = counts.until(&alice, 5, never).await;
    assert_eq!((counts.parked.len(), counted(&counts.confirmed, "vote")), (0, 2));
    assert_eq!(counts.breaker, Breaker::Closed);
}
