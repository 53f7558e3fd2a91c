//! Presence over the real server: stamped, passed on before entries, never more than the last value, gone with its
//! socket.

use driftlog_core::protocol::Code;
use driftlog_core::protocol::frame::{Frame, Presence, Present};

use crate::running::Server;
use driftlog_tests::peer::{Peer, Socket};

async fn say(socket: &mut Socket, value: Option<&[u8]>) {
    let value = value.map(|value| value.to_vec().into());
    socket.send(&Frame::Present(Present { log: 1, value })).await;
}

/// The next presence; everything else on the way is passed over.
async fn heard(socket: &mut Socket) -> (Presence, Option<(String, Vec<u8>)>) {
    loop {
        if let Frame::Presence(presence) = socket.next().await {
            let said = presence.said.clone().map(|(user, value)| (user.as_str().to_owned(), value.into_vec()));
            return (presence, said);
        }
    }
}

fn words(user: &str, value: &[u8]) -> Option<(String, Vec<u8>)> {
    Some((user.to_owned(), value.to_vec()))
}

#[tokio::test]
async fn what_somebody_says_is_stamped_and_told_until_its_socket_ends() {
    let server = Server::start().await;
    let (mut alice, mut bob, mut carol) = (Peer::new("alice"), Peer::new("bob"), Peer::new("carol"));
    let (mut a, _) = alice.open(&server.url).await;
    let (mut b, _) = bob.open(&server.url).await;
    say(&mut a, Some(b"here")).await;
    let (presence, said) = heard(&mut b).await;
    assert_eq!((presence.log, presence.connection, said), (1, alice.actor, words("alice", b"here")));
    // Who comes later hears it too; and who says it does not.
    let (mut c, _) = carol.open(&server.url).await;
    assert_eq!(heard(&mut c).await.1, words("alice", b"here"));
    say(&mut c, Some(b"me too")).await;
    assert_eq!(heard(&mut a).await.1, words("carol", b"me too"));
    assert_eq!(heard(&mut b).await.1, words("carol", b"me too"));
    say(&mut a, None).await;
    assert_eq!(heard(&mut c).await, (Presence { log: 1, connection: alice.actor, said: None }, None));
    // Said in one go with the subscription, before the log is open.
    let mut again = alice.connect(&server.url).await;
    again.send(&Frame::from(alice.subscription(1))).await;
    say(&mut again, Some(b"back")).await;
    assert_eq!(heard(&mut c).await.1, words("alice", b"back"));
    drop(c);
    loop {
        let (presence, said) = heard(&mut b).await;
        if presence.connection == carol.actor {
            assert_eq!(said, None, "gone with its socket");
            break;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn presence_never_waits_behind_entries_and_who_reads_late_hears_the_last_word() {
    let server = Server::start().await;
    let (mut alice, mut bob) = (Peer::new("alice"), Peer::new("bob"));
    let (mut a, _) = alice.open(&server.url).await;
    let (mut b, _) = bob.open(&server.url).await;
    // Far more than the reader has given credit for: entries wait for it, and none comes any more.
    for _ in 0..16 {
        let entry = alice.act(Peer::set("milk", &"x".repeat(120_000)));
        a.send(&alice.push(&[entry])).await;
        a.ack().await;
    }
    for at in 0..200u8 {
        say(&mut a, Some(&[at])).await;
    }
    let mut last = None;
    while last != words("alice", &[199]) {
        last = heard(&mut b).await.1;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_presence_beyond_its_bound_ends_its_session_and_is_told_to_nobody() {
    let server = Server::start().await;
    let (mut alice, mut bob) = (Peer::new("alice"), Peer::new("bob"));
    let (mut a, _) = alice.open(&server.url).await;
    let (mut b, _) = bob.open(&server.url).await;
    say(&mut a, Some(&[7; 4_097])).await;
    a.ends_with(Code::UnexpectedFrame).await;
    // Nor is what is said where nothing is read.
    let (mut a, _) = alice.open_to_push(&server.url).await;
    say(&mut a, Some(b"unheard")).await;
    let (mut again, _) = Peer::new("dave").open(&server.url).await;
    say(&mut again, Some(b"heard")).await;
    assert_eq!(heard(&mut b).await.1, words("dave", b"heard"));
    server.stop().await;
}
