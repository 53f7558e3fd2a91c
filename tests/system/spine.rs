//! From a push to another reader, through the disk.

use driftlog_core::id::Offset;
use driftlog_core::packed::Item;
use driftlog_core::protocol::Code;
use driftlog_core::protocol::frame::Frame;

use crate::running::Server;
use driftlog_tests::peer::{Peer, accepted};

#[tokio::test]
async fn a_pushed_entry_is_acked_and_reaches_another_reader() {
    let server = Server::start().await;
    let (mut alice, mut bob) = (Peer::new("alice"), Peer::new("bob"));
    let (mut a, opened) = alice.open(&server.url).await;
    assert_eq!((opened.end, opened.append), (Offset(0), true));
    let (mut b, _) = bob.open(&server.url).await;
    let entries = [alice.act(Peer::insert("milk")), alice.act(Peer::insert("eggs"))];
    a.send(&alice.push(&entries)).await;
    assert_eq!(accepted(&a.ack().await), [(1, 0), (2, 1)]);
    let (items, after) = b.items_until(2).await;
    let received: Vec<_> = items
        .into_iter()
        .map(|item| match item {
            Item::Entry(logged) => logged,
            other => panic!("an entry expected: {other:?}"),
        })
        .collect();
    assert_eq!(received.iter().map(|logged| logged.entry.clone()).collect::<Vec<_>>(), entries);
    assert_eq!(received[0].user.as_str(), "alice");
    let mut cursor = driftlog_core::chain::Cursor::start(opened.log_id);
    received.iter().for_each(|logged| cursor = cursor.after(logged));
    assert_eq!(cursor, after, "the chain is over what was received");
    server.stop().await;
}

#[tokio::test]
async fn what_was_acked_is_there_after_a_restart_and_catch_up_continues_at_the_cursor() {
    let server = Server::start().await;
    let (mut alice, mut bob) = (Peer::new("alice"), Peer::new("bob"));
    let (mut a, _) = alice.open(&server.url).await;
    let (mut b, opened) = bob.open(&server.url).await;
    a.send(&alice.push(&[alice.clone().act(Peer::insert("x"))])).await;
    let error = a.error().await;
    assert_eq!(error.code, Code::ChainMismatch, "the chain of nothing was announced");
    let entry = alice.act(Peer::insert("milk"));
    a.send(&alice.push(&[entry])).await;
    a.ack().await;
    let (_, cursor) = b.items_until(1).await;
    let directory = server.stop().await;

    let server = Server::start_with(directory, |_| {}).await;
    let (mut a, again) = alice.open(&server.url).await;
    assert_eq!((again.end, again.seq, again.chain), (Offset(1), alice.seq, alice.chain));
    assert_eq!(again.epochs.len(), 2, "each start has its epoch");
    let entry = alice.act(Peer::insert("eggs"));
    a.send(&alice.push(&[entry])).await;
    assert_eq!(accepted(&a.ack().await), [(2, 1)]);
    let mut b = bob.connect(&server.url).await;
    let mut subscription = bob.subscription(1);
    subscription.log_id = Some(opened.log_id);
    subscription.cursor = Some(cursor);
    subscription.epoch = opened.epochs.last().copied();
    bob.subscribe(&mut b, subscription).await;
    let frame = b.entries().await;
    assert_eq!((frame.from, frame.after.next), (Offset(1), Offset(2)));
    server.stop().await;
}

#[tokio::test]
async fn own_entries_come_back_as_stubs_while_their_bodies_are_held() {
    let server = Server::start().await;
    let mut alice = Peer::new("alice");
    let (mut a, _) = alice.open(&server.url).await;
    let entry = alice.act(Peer::insert("milk"));
    a.send(&alice.push(&[entry])).await;
    let (items, _) = a.items_until(1).await;
    assert!(matches!(items[..], [Item::Stub(stub)] if stub.id.actor == alice.actor));
    server.stop().await;
}

#[tokio::test]
async fn a_newer_socket_of_the_same_client_ends_the_older() {
    let server = Server::start().await;
    let mut alice = Peer::new("alice");
    let mut older = alice.connect(&server.url).await;
    let _newer = alice.connect(&server.url).await;
    assert!(matches!(older.next().await, Frame::GoAway(away) if away.code == Code::Superseded));
    assert_eq!(older.receive().await, None);
    server.stop().await;
}

#[tokio::test]
async fn a_shutdown_says_go_away_with_a_spread() {
    let mut server = Server::start().await;
    let mut alice = Peer::new("alice");
    let mut socket = alice.connect(&server.url).await;
    server.begin_stop();
    match socket.next().await {
        Frame::GoAway(away) => {
            assert_eq!(away.code, Code::ShuttingDown);
            assert!(away.retry_ms_min < away.retry_ms_max);
        }
        other => panic!("go-away expected: {other:?}"),
    }
    server.stop().await;
}
