//! Tokens that give less than everything: what waits, what goes on, and how it comes right again.

use driftlog_core::engine::Input;
use driftlog_core::notice::{LogStatus, Notice, WriteStatus};
use driftlog_server::Right;
use driftlog_tests::database::Database;
use driftlog_tests::native::NativeClient;

use crate::board::{self, Server, add, log, schema, titles, token_for};

async fn client(server: &Server, rights: &[Right]) -> NativeClient {
    let client = NativeClient::start(&server.sync_url(), Some(token_for(rights)), Database::default());
    client.open(&log(), schema()).await;
    client
}

async fn has_status(client: &NativeClient, status: LogStatus) {
    client.until(move |engine| (engine.replica(&log()).unwrap().status() == status).then_some(())).await;
}

async fn waiting(client: &NativeClient) -> usize {
    client.call(|engine, _| engine.replica(&log()).unwrap().outbox().len()).await
}

async fn takes_token(client: &NativeClient, rights: &[Right]) {
    let token = token_for(rights);
    client.call(move |engine, now| engine.handle(Input::Token(Some(token)), now)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_append_own_entries_wait_and_the_log_goes_on() {
    let server = Server::start_with_tokens().await;
    let (alice, bob) = (client(&server, &[Right::Read]).await, client(&server, &[Right::Read, Right::Append]).await);
    alice.act(&log(), add("milk", "")).await.unwrap();
    has_status(&alice, LogStatus::ReadOnly).await;
    bob.act(&log(), add("bread", "")).await.unwrap();
    alice.until(|engine| (titles(engine) == ["bread", "milk"]).then_some(())).await;
    let state = alice.call(|engine, _| engine.replica(&log()).unwrap().log_state()).await;
    assert_eq!((state.status, state.outbox, state.dead_letters), (LogStatus::ReadOnly, 1, 0));
    assert!(state.reason.contains("no right to append"), "{}", state.reason);
    takes_token(&alice, &[Right::Read, Right::Append]).await;
    alice.quiet(&log()).await;
    bob.until(|engine| (titles(engine) == ["bread", "milk"]).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_token_ships_what_waited_after_a_restart_too() {
    let server = Server::start_with_tokens().await;
    let alice = client(&server, &[Right::Read]).await;
    alice.act(&log(), add("milk", "")).await.unwrap();
    has_status(&alice, LogStatus::ReadOnly).await;
    let token = token_for(&[Right::Read, Right::Append]);
    let again = NativeClient::start(&server.sync_url(), Some(token), alice.kill().await);
    again.open(&log(), schema()).await;
    again.quiet(&log()).await;
    assert_eq!(again.call(|engine, _| board::end(engine)).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_read_own_entries_ship_and_nothing_comes_back() {
    let server = Server::start_with_tokens().await;
    let (mut alice, bob) =
        (client(&server, &[Right::Append]).await, client(&server, &[Right::Read, Right::Append]).await);
    bob.act(&log(), add("bread", "")).await.unwrap();
    bob.quiet(&log()).await;
    let write = alice.act(&log(), add("milk", "")).await.unwrap();
    has_status(&alice, LogStatus::AppendOnly).await;
    let accepted = loop {
        match alice.notices.recv().await.unwrap() {
            Notice::Write(_, about, WriteStatus::Accepted(accepted)) if about == write => break accepted,
            _ => {}
        }
    };
    assert_eq!(accepted.offset.map(|offset| offset.0), Some(1));
    assert_eq!(waiting(&alice).await, 0);
    bob.until(|engine| (titles(engine) == ["bread", "milk"]).then_some(())).await;
    assert_eq!(alice.call(|engine, _| titles(engine)).await, ["milk"], "its own work stays in view");
    takes_token(&alice, &[Right::Read, Right::Append]).await;
    alice.until(|engine| (titles(engine) == ["bread", "milk"]).then_some(())).await;
    alice.quiet(&log()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_right_the_log_is_forbidden_until_a_token_gives_one() {
    let server = Server::start_with_tokens().await;
    let alice = client(&server, &[]).await;
    alice.act(&log(), add("milk", "")).await.unwrap();
    has_status(&alice, LogStatus::Forbidden).await;
    assert_eq!(waiting(&alice).await, 1);
    takes_token(&alice, &[Right::Read, Right::Append]).await;
    alice.quiet(&log()).await;
}
