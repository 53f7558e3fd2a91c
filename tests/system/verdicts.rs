//! Verdicts: durable, the same for ever, and told again to whoever did not hear them.

use driftlog_core::id::{ActorId, EntryId, Offset, Seq};
use driftlog_core::protocol::Code;
use driftlog_core::protocol::frame::{Frame, MarkedStatus, Settled};

use crate::running::Server;
use driftlog_tests::peer::{LOG, Peer, accepted, marks};

#[tokio::test]
async fn a_push_sent_twice_is_in_the_log_once() {
    let server = Server::start().await;
    let mut alice = Peer::new("alice");
    let (mut socket, _) = alice.open(&server.url).await;
    let entries = [alice.act(Peer::insert("a")), alice.act(Peer::insert("b"))];
    let push = alice.push(&entries);
    socket.send(&push).await;
    let first = socket.ack().await;
    socket.send(&push).await;
    assert_eq!(socket.ack().await, first);
    let (_, opened) = alice.open(&server.url).await;
    assert_eq!(opened.end, Offset(2));
    server.stop().await;
}

#[tokio::test]
async fn a_lost_ack_is_told_when_the_log_is_opened_again() {
    let server = Server::start().await;
    let mut alice = Peer::new("alice");
    let (mut socket, _) = alice.open(&server.url).await;
    let entries = [alice.act(Peer::insert("a")), alice.act(Peer::unknown()), alice.act(Peer::insert("b"))];
    socket.send(&alice.push(&entries)).await;
    let told = socket.ack().await;
    drop(socket);
    let directory = server.stop().await;

    let server = Server::start_with(directory, |_| {}).await;
    let mut socket = alice.connect(&server.url).await;
    let mut subscription = alice.subscription(1);
    subscription.decided = Seq(0);
    let opened = alice.subscribe(&mut socket, subscription).await;
    assert_eq!((opened.seq, opened.chain), (alice.seq, alice.chain));
    assert_eq!(socket.ack().await, told);
    server.stop().await;
}

#[tokio::test]
async fn a_refusal_consumes_its_seq_stays_and_takes_its_dependents_along() {
    let server = Server::start().await;
    let mut alice = Peer::new("alice");
    let (mut socket, _) = alice.open(&server.url).await;
    let refused = alice.act(Peer::unknown());
    let dependent = alice.act_with(Peer::insert("a"), |header| header.needs = vec![Seq(1)]);
    let free = alice.act(Peer::insert("b"));
    let push = alice.push(&[refused, dependent, free]);
    socket.send(&push).await;
    let ack = socket.ack().await;
    assert_eq!(marks(&ack), [(1, Some(Code::UnknownOp)), (2, Some(Code::DependsOn))]);
    assert_eq!(accepted(&ack), [(3, 0)]);
    let (status, health) = server.get("/health", None).await;
    assert_eq!(status, 200);
    assert!(health.contains(r#""dead_letters":2"#), "both are kept whole: {health}");

    socket.send(&Frame::Settled(Settled { log: 1, through: Seq(3) })).await;
    socket.send(&push).await;
    let again = socket.ack().await;
    assert_eq!(marks(&again), [(1, None), (2, None)], "settled: the details are gone, the refusals stay");
    assert!(again.marked.iter().all(|mark| mark.status == MarkedStatus::Refused));
    let later = alice.act_with(Peer::insert("c"), |header| header.needs = vec![Seq(2)]);
    socket.send(&alice.push(&[later])).await;
    assert_eq!(marks(&socket.ack().await), [(4, Some(Code::DependsOn))]);
    server.stop().await;
}

#[tokio::test]
async fn other_bytes_under_a_decided_seq_are_never_acked() {
    let server = Server::start().await;
    let mut alice = Peer::new("alice");
    let mut copy = alice.clone();
    let (mut socket, _) = alice.open(&server.url).await;
    let entry = alice.act(Peer::insert("a"));
    socket.send(&alice.push(&[entry])).await;
    socket.ack().await;
    copy.base = alice.base;
    let other = copy.act(Peer::insert("z"));
    socket.send(&copy.push(&[other])).await;
    let error = socket.error().await;
    assert_eq!((error.code, error.log), (Code::BytesDiffer, Some(1)));
    let entry = alice.act(Peer::insert("b"));
    socket.send(&alice.push(&[entry])).await;
    assert_eq!(accepted(&socket.ack().await), [(2, 1)], "the session goes on");
    server.stop().await;
}

#[tokio::test]
async fn a_push_beyond_the_next_seq_is_told_which_is_expected() {
    let server = Server::start().await;
    let mut alice = Peer::new("alice");
    let (mut socket, _) = alice.open(&server.url).await;
    let _lost = alice.act(Peer::insert("a"));
    let entry = alice.act(Peer::insert("b"));
    socket.send(&alice.push(&[entry])).await;
    let error = socket.error().await;
    assert_eq!((error.code, error.expected, error.log), (Code::ExpectedSeq, Some(Seq(1)), Some(1)));
    server.stop().await;
}

#[tokio::test]
async fn a_void_consumes_its_seqs_and_is_marked() {
    let server = Server::start().await;
    let mut alice = Peer::new("alice");
    let (mut socket, _) = alice.open(&server.url).await;
    let void = alice.push_void(Seq(3), "damaged");
    socket.send(&void).await;
    let ack = socket.ack().await;
    assert_eq!(marks(&ack), [(1, Some(Code::Void)), (2, Some(Code::Void)), (3, Some(Code::Void))]);
    let entry = alice.act(Peer::insert("a"));
    socket.send(&alice.push(&[entry])).await;
    assert_eq!(accepted(&socket.ack().await), [(4, 0)]);
    server.stop().await;
}

#[tokio::test]
async fn a_replacement_is_accepted_once_from_either_copy() {
    let server = Server::start().await;
    let (mut alice, mut copy) = (Peer::new("alice"), Peer::new("alice-copy"));
    copy.token = alice.token.clone();
    let (mut socket, _) = alice.open(&server.url).await;
    let (mut other, _) = copy.open(&server.url).await;
    let original = alice.act(Peer::insert("a"));
    socket.send(&alice.push(std::slice::from_ref(&original))).await;
    socket.ack().await;
    let id = EntryId { actor: alice.actor, seq: Seq(1) };
    let target = driftlog_core::entry::Replaced { id, digest: original.digest() };
    let again = copy.act_with(Peer::insert("a"), |header| header.replaces = Some(target));
    other.send(&copy.push(&[again])).await;
    // The same action, by its run and number: what is in the log counts for both.
    let marked = other.ack().await.marked;
    assert_eq!(
        marked.iter().map(|mark| (mark.seq, mark.status)).collect::<Vec<_>>(),
        [(Seq(1), MarkedStatus::Elsewhere)]
    );
    server.stop().await;
}

#[tokio::test]
async fn an_op_on_a_record_that_is_gone_is_accepted_and_says_so() {
    let server = Server::start().await;
    let mut alice = Peer::new("alice");
    let (mut socket, _) = alice.open(&server.url).await;
    let entry = alice.act(Peer::set("nobody", "x"));
    socket.send(&alice.push(&[entry])).await;
    let ack = socket.ack().await;
    assert_eq!(accepted(&ack), [(1, 0)]);
    assert_eq!(ack.marked[0].status, MarkedStatus::RecordGone);
    server.stop().await;
}

#[tokio::test]
async fn nobody_pushes_as_the_log_itself_or_as_somebody_else() {
    let server = Server::start().await;
    let mut alice = Peer::new("alice");
    drop(alice.connect(&server.url).await);
    for (actor, token) in [(ActorId::LOG, "dev:mallory"), (alice.actor, "dev:mallory")] {
        let mut mallory = Peer::new("mallory");
        (mallory.actor, mallory.token) = (actor, Some(token.to_owned()));
        let mut socket = driftlog_tests::peer::Socket::connect(&server.url).await;
        socket.send(&Frame::Hello(mallory.hello())).await;
        socket.ends_with(Code::ActorTaken).await;
    }
    let mut foreign = Peer::new("mallory");
    let (mut socket, _) = foreign.open(&server.url).await;
    let entry = alice.act(Peer::insert("a"));
    socket.send(&alice.push(&[entry])).await;
    socket.ends_with(Code::MalformedEntry).await;
    let (_, opened) = alice.open(&server.url).await;
    assert_eq!(opened.end, Offset(0), "{LOG} is empty");
    server.stop().await;
}

#[tokio::test]
async fn a_copy_of_a_profile_and_a_forgotten_actor_are_told_so() {
    let server = Server::start().await;
    let mut alice = Peer::new("alice");
    let unborn = alice.clone();
    drop(alice.connect(&server.url).await);
    drop(alice.connect(&server.url).await);
    let mut socket = driftlog_tests::peer::Socket::connect(&server.url).await;
    socket.send(&Frame::Hello(unborn.hello())).await;
    socket.ends_with(Code::ActorForked).await;
    let other = Server::start().await;
    let mut socket = driftlog_tests::peer::Socket::connect(&other.url).await;
    socket.send(&Frame::Hello(alice.hello())).await;
    socket.ends_with(Code::ActorForgotten).await;
    server.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn another_history_is_told_before_anything_is_read() {
    let (server, other) = (Server::start().await, Server::start().await);
    let (mut alice, mut bob) = (Peer::new("alice"), Peer::new("bob"));
    let (mut socket, opened) = alice.open(&server.url).await;
    let entry = alice.act(Peer::insert("a"));
    socket.send(&alice.push(&[entry])).await;
    let (_, cursor) = socket.items_until(1).await;
    let mut socket = bob.connect(&other.url).await;
    let subscription = bob.subscription(1);
    bob.subscribe(&mut socket, subscription).await;
    for (log_id, epoch) in [(Some(opened.log_id), None), (None, opened.epochs.last().copied()), (None, None)] {
        let mut subscription = bob.subscription(1);
        (subscription.log_id, subscription.cursor, subscription.epoch) = (log_id, Some(cursor), epoch);
        socket.send(&Frame::from(subscription)).await;
        socket.opened().await;
        let error = socket.error().await;
        assert_eq!((error.code, error.log), (Code::LogForked, Some(1)), "{}", error.reason);
    }
    server.stop().await;
    other.stop().await;
}
