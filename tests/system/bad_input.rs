//! Bad input: a numbered error for whoever sends it, and nothing for anybody else.

use driftlog_core::id::Seq;
use driftlog_core::limits;
use driftlog_core::protocol::Code;
use driftlog_core::protocol::frame::{Frame, Ping, Unsubscribe};

use crate::running::Server;
use driftlog_tests::peer::{Peer, Socket, accepted};

fn damaged(peer: &Peer) -> Vec<u8> {
    let mut bytes = Frame::Hello(peer.hello()).encode();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    bytes
}

#[tokio::test]
async fn each_kind_of_bad_bytes_has_its_number() {
    let server = Server::start().await;
    let alice = Peer::new("alice");
    let huge = vec![0; limits::FRAME_BYTES_MAX + 1];
    let enormous = vec![0; limits::FRAME_BYTES_MAX * 3];
    let unframed = {
        let body = [0xc1, 0xff];
        [&u32::to_le_bytes(crc32c(&body))[..], &body].concat()
    };
    for (bytes, code) in [
        (damaged(&alice), Code::FrameChecksum),
        (vec![1, 2], Code::MalformedFrame),
        (unframed, Code::MalformedFrame),
        (huge, Code::FrameTooLarge),
        (enormous, Code::FrameTooLarge),
    ] {
        let mut socket = Socket::connect(&server.url).await;
        socket.send_bytes(bytes).await;
        socket.ends_with(code).await;
    }
    server.stop().await;
}

/// Bitwise, so that the test needs no crate for it.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[tokio::test]
async fn bytes_that_come_again_are_kept_and_others_notice_nothing() {
    let server = Server::start().await;
    let (mut alice, mallory) = (Peer::new("alice"), Peer::new("mallory"));
    let (mut healthy, _) = alice.open(&server.url).await;
    for _ in 0..3 {
        let mut socket = Socket::connect(&server.url).await;
        socket.send_bytes(damaged(&mallory)).await;
        socket.ends_with(Code::FrameChecksum).await;
    }
    let entry = alice.act(Peer::insert("a"));
    healthy.send(&alice.push(&[entry])).await;
    assert_eq!(accepted(&healthy.ack().await), [(1, 0)]);
    let (_, health) = server.get("/health", None).await;
    assert!(health.contains(r#""dead_letters":1"#), "{health}");
    server.stop().await;
}

#[tokio::test]
async fn frames_out_of_place_and_other_versions_end_the_session() {
    let server = Server::start().await;
    let mut alice = Peer::new("alice");
    let mut socket = Socket::connect(&server.url).await;
    socket.send(&Frame::from(alice.subscription(1))).await;
    socket.ends_with(Code::UnexpectedFrame).await;

    let mut socket = Socket::connect(&server.url).await;
    let mut hello = alice.hello();
    (hello.protocol_min, hello.protocol_max) = (7, 9);
    socket.send(&Frame::Hello(hello)).await;
    socket.ends_with(Code::ProtocolVersion).await;

    let mut socket = alice.connect(&server.url).await;
    let entry = alice.act(Peer::insert("a"));
    socket.send(&alice.push(&[entry])).await;
    socket.ends_with(Code::UnexpectedFrame).await;
    server.stop().await;
}

#[tokio::test]
async fn a_pong_follows_everything_before_its_ping() {
    let server = Server::start().await;
    let mut alice = Peer::new("alice");
    let (mut socket, _) = alice.open(&server.url).await;
    let entry = alice.act(Peer::insert("a"));
    socket.send(&alice.push(&[entry])).await;
    socket.send(&Frame::Ping(Ping { nonce: 7 })).await;
    let mut acked = false;
    loop {
        match socket.next().await {
            Frame::Ack(ack) => acked = ack.through == Seq(1),
            Frame::Pong(pong) => {
                assert_eq!((pong.nonce, acked), (7, true));
                break;
            }
            _ => {}
        }
    }
    socket.send(&Frame::Unsubscribe(Unsubscribe { log: 1 })).await;
    socket.send(&Frame::Ping(Ping { nonce: 8 })).await;
    // What was read of the log before it was given up may come first.
    let pong = loop {
        if let Frame::Pong(pong) = socket.next().await {
            break pong;
        }
    };
    assert_eq!(pong.nonce, 8);
    server.stop().await;
}
