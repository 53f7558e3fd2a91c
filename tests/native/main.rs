//! Whole clients against the whole server: real engines, real sockets, real SQLite; only the browser is missing.
#![allow(clippy::unwrap_used, missing_docs)]

mod board;
mod folds;
mod policy;
mod returned;
mod rights;

use board::{Server, add, log, schema, splice, tag, titles, vote};
use driftlog_core::engine::{Input, OnlineWish};
use driftlog_core::id::Offset;
use driftlog_core::snapshot;
use driftlog_core::storage::{self, KeyRange};
use driftlog_tests::database::Database;
use driftlog_tests::native::NativeClient;

pub(crate) async fn client(server: &Server) -> NativeClient {
    let client = NativeClient::start(&server.sync_url(), None, Database::default());
    client.open(&log(), schema()).await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_reaches_the_other_client() {
    let server = Server::start().await;
    let (alice, bob) = (client(&server).await, client(&server).await);
    alice.act(&log(), add("milk", "a note")).await.unwrap();
    bob.until(|engine| (titles(engine) == ["milk"]).then_some(())).await;
    alice.quiet(&log()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_offline_work_merges_on_every_client_and_the_server() {
    let mut server = Server::start().await;
    let (alice, bob) = (client(&server).await, client(&server).await);
    alice.act(&log(), add("milk", "oat")).await.unwrap();
    bob.until(|engine| (titles(engine) == ["milk"]).then_some(())).await;
    offline(&alice).await;
    offline(&bob).await;
    for _ in 0..3 {
        alice.act(&log(), vote("milk", 1)).await.unwrap();
        bob.act(&log(), vote("milk", 2)).await.unwrap();
    }
    alice.act(&log(), splice("milk", 0, 0, "two ")).await.unwrap();
    bob.act(&log(), splice("milk", 3, 0, " please")).await.unwrap();
    alice.act(&log(), tag("milk", "red")).await.unwrap();
    bob.act(&log(), tag("milk", "blue")).await.unwrap();
    bob.act(&log(), add("bread", "")).await.unwrap();
    server.restart().await;
    online(&alice, &server).await;
    online(&bob, &server).await;
    let everything = server.end_after(|end| end >= 12).await;
    assert_eq!(everything, 12);
    let shown = |engine: &mut _| board::rows(engine);
    for client in [&alice, &bob] {
        client.until(|engine| (board::end(engine) == 12).then_some(())).await;
        client.quiet(&log()).await;
    }
    let (of_alice, of_bob) =
        (alice.call(move |engine, _| shown(engine)).await, bob.call(move |engine, _| shown(engine)).await);
    assert_eq!(of_alice, of_bob);
    let milk = &of_alice[1];
    assert_eq!(milk["votes"], 9);
    assert_eq!(milk["note"], "two oat please");
    assert_eq!(milk["tags"], serde_json::json!(["blue", "red"]));
    let at_server = server.snapshot().await;
    assert_eq!(at_server["todos"]["milk"]["votes"], 9);
    assert_eq!(at_server["todos"]["milk"]["note"], "two oat please");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_killed_offline_starts_again_with_everything_and_ships_it_once() {
    let server = Server::start().await;
    let alice = client(&server).await;
    alice.act(&log(), add("milk", "")).await.unwrap();
    alice.quiet(&log()).await;
    offline(&alice).await;
    for at in 0..20 {
        alice.act(&log(), vote("milk", 1)).await.unwrap();
        alice.act(&log(), add(&format!("todo {at:02}"), "")).await.unwrap();
    }
    let database = alice.kill().await;
    let again = NativeClient::start(&server.sync_url(), None, database);
    again.open(&log(), schema()).await;
    again.quiet(&log()).await;
    let rows = again.call(|engine, _| board::rows(engine)).await;
    assert_eq!(rows.len(), 21);
    assert_eq!(rows[0]["votes"], 20);
    assert_eq!(server.end_after(|end| end >= 41).await, 41, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_log_is_caught_up_by_a_new_client() {
    let server = Server::start().await;
    let alice = client(&server).await;
    alice.act(&log(), add("milk", "")).await.unwrap();
    for _ in 0..5_000 {
        alice.act(&log(), vote("milk", 1)).await.unwrap();
    }
    alice.quiet(&log()).await;
    let bob = client(&server).await;
    bob.until(|engine| (board::end(engine) == 5_001).then_some(())).await;
    let rows = bob.call(|engine, _| board::rows(engine)).await;
    assert_eq!(rows[0]["votes"], 5_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_does_not_read_all_own_work_again() {
    let server = Server::start().await;
    let alice = client(&server).await;
    // It comes back from the server as stubs of a few bytes each.
    for at in 0..40 {
        alice.act(&log(), add(&format!("todo {at:02}"), &"x".repeat(4_000))).await.unwrap();
    }
    alice.quiet(&log()).await;
    let database = alice.kill().await;
    let snapshot = database.read(&KeyRange::only(storage::snapshot_key(&log())));
    let state = snapshot::decode(&snapshot.first().expect("a snapshot was made").1).unwrap();
    assert!(state.cursor().next >= Offset(10), "{:?}", state.cursor());
}

pub(crate) async fn offline(client: &NativeClient) {
    client.call(|engine, now| engine.handle(Input::Online(OnlineWish::Disconnected), now)).await;
}

pub(crate) async fn online(client: &NativeClient, server: &Server) {
    client.set_url(&server.sync_url()).await;
    client.call(|engine, now| engine.handle(Input::Online(OnlineWish::Connected), now)).await;
}
