//! Logs with priorities over the real server, counted in bytes: what is looked at is there before what is large, and what
//! is small waits behind neither.

use driftlog_core::id::{LogName, Offset};
use driftlog_core::limits::CREDIT_BYTES;
use driftlog_core::protocol::frame::{Credit, Frame, LogNumber, Subscribe, SubscribeLog};

use driftlog_server::Config;
use tempfile::TempDir;

use crate::running::Server;
use driftlog_tests::peer::{Peer, Socket};

const LARGE: LogNumber = 1;
const URGENT: LogNumber = 2;

/// A server that makes no snapshots, so that a large log is large for its readers.
async fn start() -> Server {
    let without = |config: &mut Config| (config.snapshot_entries, config.snapshot_bytes) = (u64::MAX, u64::MAX);
    Server::start_with(TempDir::new().expect("a directory"), without).await
}

/// A log with so many entries of 60 kB.
async fn filled(server: &Server, author: &str, log: &str, entries: usize) -> LogName {
    let name = LogName::new(log).expect("a name");
    let mut peer = Peer::new(author);
    peer.set_log(name.clone());
    let (mut socket, _) = peer.open_to_push(&server.url).await;
    for _ in 0..entries {
        let entry = peer.act(Peer::set("milk", &"x".repeat(60_000)));
        socket.send(&peer.push(&[entry])).await;
        socket.ack().await;
    }
    name
}

/// Takes frames, gives credit for them, and counts the bytes of each log until one of them is as far as asked.
async fn until(socket: &mut Socket, log: LogNumber, end: u64) -> [u64; 3] {
    let (mut bytes, mut granted) = ([0; 3], CREDIT_BYTES);
    loop {
        if let Frame::Entries(entries) = socket.next().await {
            let count = Frame::Entries(entries.clone()).encode().len() as u64;
            bytes[entries.log as usize] += count;
            granted += count;
            socket.send(&Frame::Credit(Credit { bytes: granted, of_log: Some((entries.log, granted)) })).await;
            if entries.log == log && entries.after.next == Offset(end) {
                return bytes;
            }
        }
    }
}

#[tokio::test]
async fn a_log_of_high_priority_is_usable_before_a_large_one_of_low_priority_has_arrived() {
    let server = start().await;
    let (large, urgent) = (filled(&server, "a", "large", 80).await, filled(&server, "b", "urgent", 8).await);
    let mut reader = Peer::new("reader");
    let mut socket = reader.connect(&server.url).await;
    let subscription =
        |log, name: &LogName, priority| SubscribeLog { name: name.clone(), priority, ..reader.subscription(log) };
    // One subscribe names both, the large one first.
    let logs = vec![subscription(LARGE, &large, 0), subscription(URGENT, &urgent, 255)];
    socket.send(&Frame::Subscribe(Subscribe { logs })).await;
    let bytes = until(&mut socket, URGENT, 8).await;
    assert!(bytes[URGENT as usize] > 8 * 60_000);
    // What was read before the other was asked for, and one part that was under way: in turn it would be more than of the
    // other, since it began first.
    assert!(bytes[LARGE as usize] < bytes[URGENT as usize], "{bytes:?}");
    until(&mut socket, LARGE, 80).await;
    server.stop().await;
}

#[tokio::test]
async fn a_small_write_is_answered_behind_no_more_of_a_transfer_than_its_reader_has_allowed_for() {
    let server = start().await;
    let large = filled(&server, "a", "large", 80).await;
    let mut reader = Peer::new("reader");
    let (mut socket, _) = reader.open_to_push(&server.url).await;
    let subscription = SubscribeLog { name: large, priority: 0, ..reader.subscription(7) };
    socket.send(&Frame::from(subscription)).await;
    let entry = reader.act(Peer::insert("milk"));
    socket.send(&reader.push(&[entry])).await;
    let mut ahead = 0;
    loop {
        let frame = socket.next().await;
        match frame {
            Frame::Ack(ack) if ack.log == 1 => break,
            Frame::Entries(_) => ahead += frame.encode().len() as u64,
            _ => {}
        }
    }
    assert!(ahead <= CREDIT_BYTES, "{ahead} bytes came first");
    server.stop().await;
}
