//! The gate in worker processes: what kills a worker costs its author that entry, and nobody else anything.

use std::path::Path;

use driftlog_core::chain::Chain;
use driftlog_core::entry::Entry;
use driftlog_core::id::LogName;
use driftlog_core::protocol::Code;
use driftlog_core::protocol::frame::Frame;
use driftlog_core::rich::{Candidate, Document, initial};
use driftlog_server::{Gate, GateWorkers};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::rich::{change, insert, typed, writer};
use crate::running::Server;
use driftlog_tests::peer::{Peer, Socket, accepted, marks};
use driftlog_tests::process::Process;

/// A server whose workers have faults; with a path, they are broken until it exists.
async fn start(broken_until: Option<&Path>) -> Server {
    let arguments = broken_until.map(|path| path.as_os_str().to_owned());
    let workers = GateWorkers::new(env!("CARGO_BIN_EXE_faulty-gate"), arguments);
    Server::start_with(TempDir::new().expect("a directory"), |config| config.gate = Gate::Workers(workers)).await
}

/// Types into the text, on the document as the peer has it.
fn types(peer: &mut Peer, document: &mut Document, text: &str) -> Entry {
    let bytes = typed(document, writer(peer), text);
    peer.act(change(bytes))
}

/// Types something that is to be refused: under a line of work of its own, so that the peer's goes on without it.
fn types_poison(peer: &mut Peer, document: &Document, text: &str) -> Entry {
    let mut aside = document.clone();
    let bytes = typed(&mut aside, writer(peer), text);
    peer.act(change(bytes))
}

/// Opens another log over the socket: the answer says that the server has everything that was sent before.
async fn reached(peer: &Peer, socket: &mut Socket) {
    let mut subscription = peer.subscription(9);
    subscription.name = LogName::new("aside").expect("a name");
    socket.send(&Frame::from(subscription)).await;
    while !matches!(socket.next().await, Frame::Opened(opened) if opened.log == 9) {}
}

/// The document that [`insert`] makes.
fn milk() -> Document {
    let mut document = Document::genesis();
    document.apply(&[&initial("milk").expect("a change").expect("content")]).expect("applies");
    document
}

/// Alice's log with a text, and what she has of it.
async fn scene(server: &Server) -> (Peer, Socket, Document) {
    let mut alice = Peer::new("alice");
    let (mut socket, _) = alice.open(&server.url).await;
    let document = milk();
    let first = alice.act(insert());
    socket.send(&alice.push(&[first])).await;
    assert_eq!(accepted(&socket.ack().await), [(1, 0)]);
    (alice, socket, document)
}

#[tokio::test]
async fn what_kills_a_worker_costs_its_author_that_entry_and_nobody_else_anything() {
    let server = start(None).await;
    let (mut alice, mut a, mut document) = scene(&server).await;
    let mut mallory = Peer::new("mallory");
    let (mut m, _) = mallory.open(&server.url).await;
    let mut copy = document.clone();
    let entries = [
        types(&mut mallory, &mut copy, "1"),
        types_poison(&mut mallory, &copy, "<endless>"),
        types(&mut mallory, &mut copy, "2"),
        types_poison(&mut mallory, &copy, "<swells>"),
        types_poison(&mut mallory, &copy, "<panics>"),
        types(&mut mallory, &mut copy, "3"),
    ];
    m.send(&mallory.push(&entries)).await;
    reached(&mallory, &mut m).await;

    // Others overtake, in the same log and in another, with rich changes and without.
    for round in 0..10 {
        let more = [types(&mut alice, &mut document, "."), alice.act(Peer::insert("b"))];
        a.send(&alice.push(&more)).await;
        assert_eq!(accepted(&a.ack().await), [(2 + 2 * round, 1 + 2 * round), (3 + 2 * round, 2 + 2 * round)]);
    }
    let mut bob = Peer::new("bob");
    bob.log = LogName::new("board/2").expect("a name");
    bob.chain = Chain::actor_start(bob.actor, &bob.log);
    let (mut b, _) = bob.open(&server.url).await;
    let mut others = milk();
    let entries_of_bob = [bob.act(insert()), types(&mut bob, &mut others, "?")];
    b.send(&bob.push(&entries_of_bob)).await;
    assert_eq!(accepted(&b.ack().await), [(1, 0), (2, 1)]);

    let ack = m.ack().await;
    assert_eq!(marks(&ack), [2, 4, 5].map(|seq| (seq, Some(Code::RichChange))));
    assert_eq!(accepted(&ack), [(1, 21), (3, 22), (6, 23)], "behind what overtook them");
    let reason = |at: usize| ack.marked[at].reason.clone();
    assert!(reason(0).contains("took longer than"), "{}", reason(0));
    assert!(reason(1).contains("brought the check down"), "{}", reason(1));
    assert!(reason(2).contains("brought the check down"), "{}", reason(2));

    // A suspect is served all the same, and the same bytes again have the same verdict.
    m.send(&mallory.push(&entries)).await;
    assert_eq!(marks(&m.ack().await).len(), 3);
    let more = types(&mut mallory, &mut copy, "4");
    m.send(&mallory.push(&[more])).await;
    assert_eq!(accepted(&m.ack().await), [(7, 24)]);
    let shown = server.get("/logs/board%2F1/snapshot", None).await.1;
    assert!(["milk..........1234", "milk1234.........."].iter().any(|text| shown.contains(text)), "{shown}");
    server.stop().await;
}

#[tokio::test]
async fn who_goes_on_sending_what_hangs_stops_nobody() {
    let server = start(None).await;
    let (mut alice, mut a, mut document) = scene(&server).await;
    let mut bob = Peer::new("bob");
    bob.log = LogName::new("board/2").expect("a name");
    bob.chain = Chain::actor_start(bob.actor, &bob.log);
    let (mut b, _) = bob.open(&server.url).await;
    let mut others = milk();
    let first = bob.act(insert());
    b.send(&bob.push(&[first])).await;
    b.ack().await;
    let mut mallory = Peer::new("mallory");
    let (mut m, _) = mallory.open(&server.url).await;
    let copy = document.clone();
    for round in 1..=5 {
        // Other bytes each time, so that nothing is known of them.
        let hangs = types_poison(&mut mallory, &copy, &format!("<endless>{round}"));
        m.send(&mallory.push(&[hangs])).await;
        for at in [2 * round - 1, 2 * round] {
            let (own, aside) = (types(&mut alice, &mut document, "."), types(&mut bob, &mut others, "?"));
            a.send(&alice.push(&[own])).await;
            b.send(&bob.push(&[aside])).await;
            assert_eq!((accepted(&a.ack().await), accepted(&b.ack().await)), (vec![(1 + at, at)], vec![(1 + at, at)]));
        }
        assert_eq!(marks(&m.ack().await), [(round, Some(Code::RichChange))]);
    }
    server.stop().await;
}

#[tokio::test]
async fn while_no_worker_starts_rich_changes_wait_and_nothing_else_does() {
    let repaired = TempDir::new().expect("a directory");
    let path = repaired.path().join("repaired");
    let server = start(Some(&path)).await;
    let (mut alice, mut a, mut document) = scene(&server).await;
    let rich = types(&mut alice, &mut document, "!");
    a.send(&alice.push(&[rich])).await;
    let plain = alice.act(Peer::insert("behind"));
    a.send(&alice.push(&[plain])).await;
    reached(&alice, &mut a).await;
    let mut bob = Peer::new("bob");
    let (mut b, _) = bob.open(&server.url).await;
    let plain = bob.act(Peer::insert("b"));
    b.send(&bob.push(&[plain])).await;
    assert_eq!(accepted(&b.ack().await), [(1, 1)], "before alice, who waits");
    std::fs::write(&path, "").expect("writes");
    assert_eq!(accepted(&a.ack().await), [(2, 2)]);
    assert_eq!(accepted(&a.ack().await), [(3, 3)], "in her order");
    server.stop().await;
}

/// The binary with its own workers: changes damaged by mutation, some whole again by their checksum, and chunks of
/// kinds that no client sends.
#[tokio::test]
async fn damaged_changes_cost_their_author_these_entries() {
    let directory = TempDir::new().expect("a directory");
    let process = Process::spawn(directory.path()).await;
    let mut mallory = Peer::new("mallory");
    let (mut m, _) = mallory.open(&process.url).await;
    let mut document = milk();
    let mut entries = vec![mallory.act(insert())];
    let good = typed(&mut document.clone(), writer(&mallory), " and a long list of other things");
    let mut expected = Vec::new();
    for round in 0..600 {
        let bytes = damaged(&good, round);
        let actor = writer(&mallory);
        let taken = document.gate(&[Candidate { bytes: &bytes, actor }]).remove(0).is_ok();
        entries.push(mallory.act(change(bytes)));
        expected.extend((!taken).then_some(entries.len() as u64));
    }
    m.send(&mallory.push(&entries)).await;
    let mut refused = Vec::new();
    loop {
        let ack = m.ack().await;
        refused.extend(marks(&ack).into_iter().map(|(seq, _)| seq));
        if ack.through == mallory.seq {
            break;
        }
    }
    assert_eq!(refused, expected);
    assert!(expected.len() > 500, "{} refused", expected.len());
    let last = types(&mut mallory, &mut document, ", and so on");
    m.send(&mallory.push(&[last])).await;
    assert_eq!(marks(&m.ack().await), []);
    process.kill().await;
}

/// A damaged copy of a change; the seed is the round.
fn damaged(good: &[u8], round: u64) -> Vec<u8> {
    let mut seed = round;
    let mut below = |end: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % end
    };
    let mut bytes = good.to_vec();
    for _ in 0..=below(3) {
        let at = 9 + below(bytes.len() - 9);
        match below(4) {
            0 => bytes[at] = below(256) as u8,
            1 => bytes[at] ^= 1 << below(8),
            2 => bytes.insert(at, below(256) as u8),
            _ => drop(bytes.remove(at)),
        }
    }
    bytes[8] = [1, 1, 1, 1, 1, 0, 2, 3][below(8)];
    let digest = Sha256::digest(&bytes[8..]);
    bytes[4..8].copy_from_slice(&digest[..4]);
    bytes
}
