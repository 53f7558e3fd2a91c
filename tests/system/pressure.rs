//! More than the server can take: it holds no more than its room, loses nothing, and who does not read costs the others
//! nothing.

use std::sync::{Arc, Condvar, Mutex};

use driftlog_core::id::{Offset, Seq};
use driftlog_core::protocol::frame::{Frame, Ping};
use driftlog_core::sequencer::{Case, Ruling};
use serde_json::Value;
use tempfile::TempDir;

use crate::running::Server;
use driftlog_tests::overload::{Amount, Plan, run};
use driftlog_tests::peer::{Peer, Socket, endless_credit};
use driftlog_tests::process::binary;

/// Bytes of one push in these tests, about.
const PUSH_BYTES: usize = 60_000;

/// Where the log writer waits until it is let on.
#[derive(Clone, Default)]
struct Barrier(Arc<(Mutex<bool>, Condvar)>);

impl Barrier {
    fn pass(&self) {
        let (open, opened) = &*self.0;
        drop(opened.wait_while(open.lock().expect("no panic"), |open| !*open).expect("no panic"));
    }

    fn open(&self) {
        *self.0.0.lock().expect("no panic") = true;
        self.0.1.notify_all();
    }
}

/// A server with this room, whose writer stops at the barrier with the first entry that it decides.
async fn start(room_bytes: u64, barrier: &Barrier) -> Server {
    let barrier = barrier.clone();
    Server::start_with(TempDir::new().expect("a directory"), |config| {
        config.room_bytes = room_bytes;
        config.policy = Arc::new(move |_: &Case<'_>| {
            barrier.pass();
            Ruling::Allow
        });
    })
    .await
}

async fn health(server: &Server) -> Value {
    let (status, body) = server.get("/health", None).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("json")
}

/// Asks for the health until it is as wanted.
async fn health_where(server: &Server, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let health = health(server).await;
        if wanted(&health) {
            return health;
        }
        tokio::task::yield_now().await;
    }
}

/// A push of two entries.
fn large(peer: &mut Peer) -> Frame {
    let padding = "x".repeat(PUSH_BYTES / 2);
    let entries = [(); 2].map(|()| peer.act(Peer::set("a", &padding)));
    peer.push(&entries)
}

/// Pushes as long as there is credit; the bytes of the largest push.
async fn spend(peer: &mut Peer, socket: &mut Socket, spent: &mut u64) -> u64 {
    let mut largest = 0;
    while *spent < socket.credit {
        let bytes = large(peer).encode();
        *spent += bytes.len() as u64;
        largest = largest.max(bytes.len() as u64);
        socket.send_bytes(bytes).await;
    }
    largest
}

#[tokio::test]
async fn a_loaded_server_holds_no_more_than_its_room_and_loses_nothing() {
    const ROOM: u64 = 512 * 1024;
    const WRITERS: u64 = 8;
    let barrier = Barrier::default();
    let server = start(ROOM, &barrier).await;
    let mut watcher = Peer::new("watcher");
    let (mut watching, _) = watcher.open(&server.url).await;
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let mut peer = Peer::new(&format!("{writer}-writer"));
        let (socket, _) = peer.open_to_push(&server.url).await;
        writers.push((peer, socket, 0));
    }
    // Credit that was given while there was room: together far more than the room.
    let (mut sent, mut largest) = (0, 0);
    for (peer, socket, spent) in &mut writers {
        largest = spend(peer, socket, spent).await.max(largest);
        sent += *spent;
    }
    assert!(sent > 3 * ROOM);
    health_where(&server, |health| health["waiting_bytes"].as_u64() >= Some(ROOM)).await;
    // Who has nothing in the room is answered all the same.
    watching.send(&Frame::Ping(Ping { nonce: 7 })).await;
    assert_eq!(watching.next().await, Frame::Pong(Ping { nonce: 7 }));
    barrier.open();
    for (peer, socket, _) in &mut writers {
        while socket.ack().await.through < peer.seq {}
    }
    let health = health_where(&server, |health| health["waiting_bytes"] == 0).await;
    let peak = health["waiting_bytes_peak"].as_u64().expect("a number");
    assert!(peak <= ROOM + WRITERS * largest, "{peak}");
    assert!(peak >= ROOM);
    // With room again there is credit again.
    for (peer, socket, spent) in &mut writers {
        while *spent >= socket.credit {
            socket.next().await;
        }
        spend(peer, socket, spent).await;
        while socket.ack().await.through < peer.seq {}
    }
    let all: u64 = writers.iter().map(|(peer, ..)| peer.seq.0).sum();
    let mut reader = Peer::new("reader");
    let (mut reading, opened) = reader.open(&server.url).await;
    reading.send(&endless_credit(1)).await;
    assert_eq!(opened.end, Offset(all), "each once");
    server.stop().await;
}

#[tokio::test]
async fn a_session_with_many_requests_is_read_again_when_they_are_done() {
    let barrier = Barrier::default();
    let server = start(1024 * 1024, &barrier).await;
    let mut alice = Peer::new("alice");
    let (mut socket, _) = alice.open_to_push(&server.url).await;
    let first = alice.act(Peer::insert("a"));
    socket.send(&alice.push(&[first])).await;
    const ASKED: u32 = 5_000;
    for log in 0..ASKED {
        socket.send(&Frame::from(alice.subscription(2 + log))).await;
    }
    health_where(&server, |health| health["waiting_requests"].as_u64() >= Some(1_024)).await;
    assert_eq!(health(&server).await["waiting_requests"], 1_024, "the rest waits in the socket");
    barrier.open();
    let mut opened = 0;
    while opened < ASKED {
        opened += u32::from(matches!(socket.next().await, Frame::Opened(_)));
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_held_and_for_how_long_shows_in_the_health() {
    let server = Server::start_with(TempDir::new().expect("a directory"), |config| {
        config.waits.held_degraded_age = std::time::Duration::ZERO;
        config.policy = Arc::new(|case: &Case<'_>| match case.entry.header.seq == Seq(2) {
            true => Ruling::RetryLater { reason: "not now".to_owned(), delay: std::time::Duration::from_secs(60) },
            false => Ruling::Allow,
        });
    })
    .await;
    let mut alice = Peer::new("alice");
    let (mut socket, _) = alice.open(&server.url).await;
    let entries = [(); 2].map(|()| alice.act(Peer::insert("a")));
    socket.send(&alice.push(&entries)).await;
    while !matches!(socket.next().await, Frame::Held(_)) {}
    let told = health_where(&server, |health| health["status"] == "degraded").await;
    assert_eq!((&told["held"], told["held_oldest_s"].is_u64()), (&Value::from(1), true));
    drop(socket);
    health_where(&server, |health| health["held"] == 0).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_what_was_measured_is_accepted_and_delivered_once_and_in_order() {
    let directory = TempDir::new().expect("a directory");
    let plan = Plan {
        binary: binary(),
        directory: directory.path().to_owned(),
        writers: (4, 40),
        amount: Amount::Entries(1_000),
    };
    let report = run(&plan).await.expect("it keeps its promises");
    assert_eq!((report.accepted, report.delivered), (report.offered, report.offered), "{report:?}");
    let (peak, room) = report.waiting;
    assert!(peak <= room, "{report:?}");
}
