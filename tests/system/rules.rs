//! Rules from a file, in the binary.

use driftlog_core::protocol::Code;
use driftlog_core::protocol::frame::MarkedStatus;
use tempfile::TempDir;

use driftlog_tests::peer::{Peer, accepted};
use driftlog_tests::process::Process;

#[tokio::test]
async fn the_demos_rules_refuse_a_long_title_and_nothing_else() {
    let directory = TempDir::new().expect("a directory");
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../web-demo/rules.json");
    let server = Process::spawn_with(directory.path(), &["--rules", rules]).await;
    let mut alice = Peer::new("alice");
    let (mut socket, _) = alice.open(&server.url).await;
    let entries = [
        alice.act(Peer::insert(&"m".repeat(120))),
        alice.act(Peer::insert(&"l".repeat(121))),
        alice.act(Peer::insert("short")),
    ];
    socket.send(&alice.push(&entries)).await;
    let ack = socket.ack().await;
    assert_eq!(accepted(&ack), [(1, 0), (3, 1)]);
    let [mark] = &ack.marked[..] else { panic!("one mark") };
    assert_eq!((mark.seq.0, mark.status, mark.code), (2, MarkedStatus::Refused, Some(Code::NotValid)));
    assert_eq!(mark.reason, "a title has at most 120 characters");
    server.kill().await;
}
