//! kill -9 right after an ack: what was acknowledged is there.

use driftlog_core::id::Offset;
use tempfile::TempDir;

use driftlog_tests::peer::{Peer, accepted, marks};
use driftlog_tests::process::Process;

#[tokio::test]
async fn nothing_acknowledged_is_missing_after_twenty_kills() {
    const KILLS: u64 = 20;
    let directory = TempDir::new().expect("a directory");
    let mut alice = Peer::new("alice");
    for round in 0..KILLS {
        let process = Process::spawn(directory.path()).await;
        let (mut socket, opened) = alice.open(&process.url).await;
        assert_eq!((opened.seq, opened.chain), (alice.seq, alice.chain), "round {round}: every verdict is there");
        assert_eq!(opened.end, Offset(2 * round), "round {round}: every entry is there");
        let entries = [alice.act(Peer::insert("a")), alice.act(Peer::unknown()), alice.act(Peer::insert("b"))];
        socket.send(&alice.push(&entries)).await;
        let ack = socket.ack().await;
        assert_eq!((accepted(&ack).len(), marks(&ack).len()), (2, 1));
        process.kill().await;
    }
    let process = Process::spawn(directory.path()).await;
    let mut bob = Peer::new("bob");
    let (mut socket, opened) = bob.open(&process.url).await;
    assert_eq!((opened.end, opened.epochs.len() as u64), (Offset(2 * KILLS), KILLS + 1));
    let (items, _) = socket.items_until(2 * KILLS).await;
    assert_eq!(items.len() as u64, 2 * KILLS);
    process.kill().await;
}
