//! Folds on whole clients: live, rebuilt from rows, and rebuilt from what only the server has.

use driftlog_core::consumer::Breaker;
use driftlog_core::draft::Draft;
use driftlog_core::fold::{Act, Status};
use driftlog_core::id::Offset;
use driftlog_core::storage;
use driftlog_core::storage::row::{self, Received};
use driftlog_tests::database::Database;
use driftlog_tests::folds::Counts;
use driftlog_tests::native::NativeClient;

use crate::board::{Server, add, log, schema, vote};

async fn open(client: &NativeClient, version: u64) -> Counts {
    client.call(move |engine, now| Counts::open(engine, now, &log(), version)).await.unwrap()
}

/// Works until everything below `end` is in.
async fn until(mut counts: Counts, client: &NativeClient, end: u64, fails: fn(&Act) -> bool) -> Counts {
    for _ in 0..30_000 {
        counts = client
            .call(move |engine, now| {
                counts.work(engine, now, fails);
                counts
            })
            .await;
        if counts.status == Status::Live && counts.end >= Offset(end) {
            return counts;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    panic!("the fold should be at {end} by now: {:?} at {}", counts.status, counts.end);
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
    let counts = open(&alice, 1).await;
    let mut counts = alice
        .call(move |engine, now| {
            let mut counts = counts;
            engine.act(&log(), add("milk", ""), now).unwrap();
            counts.work(engine, now, never);
            counts
        })
        .await;
    assert_eq!((counts.confirmed("addTodo"), counts.shown("addTodo")), (0, 1), "in the same tick");
    alice.quiet(&log()).await;
    counts = until(counts, &alice, 1, never).await;
    assert_eq!((counts.confirmed("addTodo"), counts.tail.len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_version_and_equal_from_give_equal_results_on_a_device_that_lacks_the_history() {
    let server = Server::start().await;
    let alice = started(&server, Database::default()).await;
    let live = open(&alice, 1).await;
    let bob = started(&server, Database::default()).await;
    let note = "n".repeat(1_000);
    act(&alice, (0..400).map(|at| add(&format!("todo{at}"), &note))).await;
    act(&bob, (0..3).map(|at| vote(&format!("todo{at}"), 1))).await;
    let live = until(live, &alice, 403, never).await;
    // Bob never folded: his device made a snapshot and let go of the rows behind it, his own entries stand as stubs.
    bob.until(|engine| (crate::board::end(engine) == 403).then_some(())).await;
    let database = bob.kill().await;
    assert!(first_row(&database) > Offset(0), "the device lacks history");
    let bob = started(&server, database).await;
    let rebuilt = until(open(&bob, 2).await, &bob, 403, never).await;
    assert_eq!((live.from, rebuilt.from), (Some(Offset(0)), Some(Offset(0))));
    assert_eq!((rebuilt.confirmed("addTodo"), rebuilt.confirmed("vote")), (400, 3));
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
    let first = until(open(&alice, 1).await, &alice, 300, never).await;
    assert_eq!(first.handled, 300);
    let alice = started(&server, alice.kill().await).await;
    let again = until(open(&alice, 1).await, &alice, 300, never).await;
    assert!(again.handled < 60, "{} handled after a checkpoint", again.handled);
    assert_eq!(again.digest(), first.digest());
    let newer = until(open(&alice, 2).await, &alice, 300, never).await;
    assert_eq!((newer.handled, newer.digest()), (300, first.digest()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_fails_on_one_entry_parks_it_across_reloads_until_it_is_redriven() {
    let server = Server::start().await;
    let alice = started(&server, Database::default()).await;
    act(&alice, [add("milk", ""), vote("milk", 1), add("bread", ""), vote("milk", 1), add("tea", "")]).await;
    let poison: fn(&Act) -> bool = |act| act.offset == Some(Offset(1));
    let counts = until(open(&alice, 1).await, &alice, 5, poison).await;
    assert_eq!((counts.parked.clone(), counts.confirmed("vote")), (vec![1], 1));
    let alice = started(&server, alice.kill().await).await;
    let counts = until(open(&alice, 1).await, &alice, 5, never).await;
    assert_eq!((counts.parked.clone(), counts.confirmed("vote")), (vec![1], 1), "parked is parked");
    let id = counts.id;
    alice.call(move |engine, _| engine.redrive_fold(&log(), id, None)).await.unwrap();
    let counts = until(counts, &alice, 5, never).await;
    assert_eq!((counts.parked.len(), counts.confirmed("vote")), (0, 2));
    assert_eq!(counts.breaker, Breaker::Closed);
}
