//! Rich changes through the gate: what every replica can apply is logged, the rest is refused and leaves no trace.

use driftlog_core::id::{RecordId, Seq};
use driftlog_core::op::{Edit, FieldOp, Insert, Op, RichChange, Update};
use driftlog_core::protocol::Code;
use driftlog_core::rich::{Document, RichActor, Splice, initial};

use crate::running::Server;
use driftlog_tests::peer::{Peer, accepted, marks, name};

fn record() -> RecordId {
    RecordId::new("a").expect("an id")
}

/// The record with its first content.
pub(crate) fn insert() -> Vec<Op> {
    let content = FieldOp::Edit(Edit::InitialText("milk".to_owned()));
    vec![Op::Insert(Insert { collection: name("todos"), record: record(), fields: vec![(name("note"), content)] })]
}

pub(crate) fn change(bytes: Vec<u8>) -> Vec<Op> {
    let op = FieldOp::Edit(Edit::Change(RichChange { root: 0, incarnation: 0, bytes }));
    vec![Op::Update(Update { collection: name("todos"), record: record(), field: name("note"), op })]
}

/// The author of a peer's changes, as the gate derives it from the entry.
pub(crate) fn writer(peer: &Peer) -> RichActor {
    RichActor::derive(&peer.actor.origin().0, &[peer.actor.0[0]; 8], "todos", "a", "note", 0)
}

pub(crate) fn typed(document: &mut Document, author: RichActor, text: &str) -> Vec<u8> {
    let splice = Splice { at: document.len_utf16(), delete: 0, insert: text.to_owned() };
    document.edit(author, &[splice]).expect("edits")
}

#[tokio::test]
async fn changes_pass_the_gate_or_are_refused_without_a_trace() {
    let server = Server::start().await;
    let (mut alice, mut bob) = (Peer::new("alice"), Peer::new("bob"));
    let (mut a, _) = alice.open(&server.url).await;
    let mut document = Document::genesis();
    let first = initial("milk").expect("a change").expect("content");
    document.apply(&[&first]).expect("applies");
    let entries = [alice.act(insert()), alice.act(change(typed(&mut document, writer(&alice), " and eggs")))];
    a.send(&alice.push(&entries)).await;
    assert_eq!(accepted(&a.ack().await), [(1, 0), (2, 1)]);

    // Bob writes as alice, then on top of that, then says no change at all; his own change goes in all the same.
    let (mut b, _) = bob.open(&server.url).await;
    let mut copy = document.clone();
    let mut forged = document.clone();
    let entries = [
        bob.act(change(typed(&mut forged, writer(&alice), "!"))),
        bob.act(change(typed(&mut forged, writer(&bob), "!"))),
        bob.act(change(b"no change".to_vec())),
        bob.act(change(typed(&mut copy, writer(&bob), ", please"))),
    ];
    b.send(&bob.push(&entries)).await;
    let ack = b.ack().await;
    let refused = [Some(Code::RichChange), Some(Code::RichDependency), Some(Code::RichChange)];
    assert_eq!(marks(&ack).into_iter().map(|(_, code)| code).collect::<Vec<_>>(), refused);
    assert_eq!(accepted(&ack), [(4, 2)]);

    // What builds on a refused change, without saying so, is refused too; alice goes on where the log stands.
    let hanging = bob.act(change(typed(&mut forged, writer(&bob), "?")));
    b.send(&bob.push(&[hanging])).await;
    assert_eq!(marks(&b.ack().await), [(5, Some(Code::RichDependency))]);
    let more = alice.act(change(typed(&mut copy, writer(&alice), ".")));
    assert_eq!(more.header.seq, Seq(3));
    a.send(&alice.push(&[more])).await;
    assert_eq!(accepted(&a.ack().await), [(3, 3)]);
    let shown = r#""note":"milk and eggs, please.""#;
    let path = "/logs/board%2F1/snapshot";
    assert!(server.get(path, None).await.1.contains(shown));

    let directory = server.stop().await;
    let server = Server::start_with(directory, |_| {}).await;
    assert!(server.get(path, None).await.1.contains(shown), "the same from the disk");
    server.stop().await;
}
