//! Connections that were downgraded come back, and nothing that their clients did is lost or counts twice.

use driftlog_core::connection::{ConnectionState, Downgrade};
use driftlog_core::engine::Engine;
use driftlog_core::id::Offset;
use driftlog_core::snapshot;
use driftlog_core::storage::{self, KeyRange};
use driftlog_tests::database::Database;
use driftlog_tests::native::NativeClient;

use crate::board::{self, Server, add, log, schema, vote};
use crate::{client, offline};

async fn start(url: &str, database: Database) -> NativeClient {
    let client = NativeClient::start(url, None, database);
    client.open(&log(), schema()).await;
    client
}

/// Starts where no server is, and works.
async fn alone(database: Database) -> NativeClient {
    start("ws://127.0.0.1:1/sync", database).await
}

fn returned(engine: &mut Engine) -> Option<Downgrade> {
    match engine.connection().kept {
        Some(ConnectionState::Active { was }) => was.map(|(reason, _)| reason),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_work_is_laid_on_the_snapshot_and_what_is_in_it_already_counts_once() {
    let server = Server::start().await;
    let alice = client(&server).await;
    alice.act(&log(), add("milk", "")).await.unwrap();
    alice.act(&log(), vote("milk", 1)).await.unwrap();
    alice.quiet(&log()).await;
    let alice = alone(alice.kill().await).await;
    alice.act(&log(), vote("milk", 10)).await.unwrap();
    let before = alice.kill().await;
    // The ten votes reach the log, and the device dies before it has recorded that.
    let shipped = start(&server.sync_url(), before.clone()).await;
    shipped.quiet(&log()).await;
    drop(shipped.kill().await);

    let bob = client(&server).await;
    bob.until(|engine| (board::rows(engine).len() == 1).then_some(())).await;
    for _ in 0..7_000 {
        bob.act(&log(), vote("milk", 1)).await.unwrap();
    }
    bob.quiet(&log()).await;
    server.downgrade(1, 1).await;
    while server.connections().await[0]["reason"] != "asked" {
        tokio::task::yield_now().await;
    }

    let alice = alone(before).await;
    alice.act(&log(), vote("milk", 100)).await.unwrap();
    alice.act(&log(), add("eggs", "")).await.unwrap();
    let alice = start(&server.sync_url(), alice.kill().await).await;
    alice.until(|engine| returned(engine).filter(|reason| *reason == Downgrade::Asked)).await;
    alice.quiet(&log()).await;
    let rows = alice.call(|engine, _| board::rows(engine)).await;
    let votes: Vec<_> = rows.iter().map(|row| row["votes"].clone()).collect();
    assert_eq!(votes, [0, 7_111]);
    assert_eq!(server.end_after(|end| end >= 7_005).await, 7_005, "each once");
    assert_eq!(server.snapshot().await["todos"]["milk"]["votes"], 7_111);
    // It was brought up to date by the server's snapshot: the history behind it never came here.
    let database = alice.kill().await;
    let stored = database.read(&KeyRange::only(storage::snapshot_key(&log())));
    let state = snapshot::decode(&stored.first().expect("a snapshot").1).unwrap();
    assert!(state.cursor().next > Offset(5_000), "{:?}", state.cursor());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_client_that_is_downgraded_comes_back_and_the_others_notice_nothing() {
    let server = Server::start().await;
    let alice = client(&server).await;
    alice.act(&log(), add("milk", "")).await.unwrap();
    // The first connection is hers.
    alice.quiet(&log()).await;
    let phone = client(&server).await;
    phone.until(|engine| (board::rows(engine).len() == 1).then_some(())).await;
    let told = phone.call(|engine, _| engine.connection()).await;
    let number = server.connections().await[0]["connection"].as_u64().unwrap();
    server.downgrade(number, 50).await;
    alice.act(&log(), vote("milk", 5)).await.unwrap();
    alice.until(returned).await;
    alice.act(&log(), vote("milk", 1)).await.unwrap();
    alice.quiet(&log()).await;
    phone.until(|engine| (board::rows(engine)[0]["votes"] == 6).then_some(())).await;
    assert_eq!(phone.call(|engine, _| engine.connection()).await, told, "the other device was never away");
    assert_eq!(server.end_after(|end| end >= 3).await, 3);
    offline(&phone).await;
}
