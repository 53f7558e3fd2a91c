//! Many readers: a slow one delays nobody, and one that begins late begins at a snapshot.

use driftlog_core::chain::Cursor;
use driftlog_core::id::{LogName, Offset};
use driftlog_core::limits;
use driftlog_core::protocol::frame::{Credit, Frame, SubscribeLog};
use driftlog_core::snapshot;
use driftlog_core::state::State;
use driftlog_server::Config;
use tempfile::TempDir;

use crate::running::Server;
use driftlog_tests::peer::{Peer, Socket, endless_credit};
use driftlog_tests::process::Process;

/// Pushes records in frames of `per_push` until `entries` are in the log.
async fn fill(peer: &mut Peer, socket: &mut Socket, entries: usize, per_push: usize, bytes: usize) {
    let padding = "x".repeat(bytes);
    for chunk in 0..entries / per_push {
        let made: Vec<_> = (0..per_push)
            .map(|at| {
                let record = format!("r{}", chunk * per_push + at);
                let mut ops = Peer::insert(&record);
                ops.extend(Peer::set(&record, &padding));
                peer.act(ops)
            })
            .collect();
        socket.send(&peer.push(&made)).await;
        socket.ack().await;
    }
}

#[tokio::test]
async fn a_reader_that_never_reads_delays_nobody() {
    let server = Server::start().await;
    let (mut alice, mut bob, mut carol) = (Peer::new("alice"), Peer::new("bob"), Peer::new("carol"));
    let (mut writer, _) = alice.open(&server.url).await;
    let (mut reader, _) = bob.open(&server.url).await;
    let (mut asleep, _) = carol.open(&server.url).await;
    asleep.send(&endless_credit(1)).await;
    // More than the sleeper's socket and credit can hold: the server must go on without it.
    const ENTRIES: usize = 2_000;
    let filling = fill(&mut alice, &mut writer, ENTRIES, 20, 4_000);
    let reading = async {
        let mut granted = limits::CREDIT_BYTES;
        loop {
            granted += limits::CREDIT_BYTES / 4;
            reader.send(&Frame::Credit(Credit { bytes: granted, of_log: Some((1, granted)) })).await;
            if reader.entries().await.after.next == Offset(ENTRIES as u64) {
                return;
            }
        }
    };
    tokio::join!(filling, reading);
    // It wakes up and is brought up to date, from the log or from a snapshot.
    loop {
        match asleep.next().await {
            Frame::Entries(entries) if entries.after.next == Offset(ENTRIES as u64) => break,
            Frame::Entries(_) | Frame::SnapshotPart(_) | Frame::Credit(_) | Frame::Ping(_) => {}
            other => panic!("entries expected: {other:?}"),
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn readers_that_stop_in_the_middle_of_a_snapshot_cost_little_memory_and_nobody_else_anything() {
    const ENTRIES: usize = 2_500;
    const STUCK: usize = 48;
    let directory = TempDir::new().expect("a directory");
    let process = Process::spawn(directory.path()).await;
    let (mut alice, mut bob) = (Peer::new("alice"), Peer::new("bob"));
    let (mut writer, _) = alice.open_to_push(&process.url).await;
    fill(&mut alice, &mut writer, ENTRIES, 20, 4_000).await;
    let mut bytes = 0;
    let mut stuck = Vec::new();
    let mut before = 0;
    for at in 0..STUCK {
        let mut peer = Peer::new(&format!("{at}-stuck"));
        let (mut socket, _) = peer.open(&process.url).await;
        socket.send(&endless_credit(1)).await;
        // From its first part on the whole snapshot is held for it.
        let part = loop {
            if let Frame::SnapshotPart(part) = socket.next().await {
                break part;
            }
        };
        if at == 0 {
            (bytes, before) = (part.total, process.resident_bytes().expect("told"));
        }
        stuck.push(socket);
    }
    let grown = process.resident_bytes().expect("told").saturating_sub(before);
    assert!(grown < STUCK as u64 * bytes / 4, "{grown} bytes more, for {STUCK} times a snapshot of {bytes}");
    let (mut reader, opened) = bob.open(&process.url).await;
    reader.send(&endless_credit(1)).await;
    let last = alice.act(Peer::insert("last"));
    writer.send(&alice.push(&[last])).await;
    let end = opened.end.next();
    for mut socket in [reader, stuck.remove(0)] {
        loop {
            match socket.next().await {
                Frame::Entries(entries) if entries.after.next == end => break,
                Frame::Entries(_) | Frame::SnapshotPart(_) | Frame::Credit(_) | Frame::Ping(_) => {}
                other => panic!("entries expected: {other:?}"),
            }
        }
    }
    process.kill().await;
}

#[tokio::test]
async fn a_reader_that_neither_reads_nor_speaks_is_given_up() {
    let idle = |config: &mut Config| config.idle = std::time::Duration::from_secs(2);
    let server = Server::start_with(TempDir::new().expect("a directory"), idle).await;
    let (mut alice, mut carol) = (Peer::new("alice"), Peer::new("carol"));
    let (mut asleep, _) = carol.open(&server.url).await;
    asleep.send(&endless_credit(1)).await;
    let (mut writer, _) = alice.open_to_push(&server.url).await;
    fill(&mut alice, &mut writer, 1_500, 20, 4_000).await;
    drop(writer);
    while !server.get("/health", None).await.1.contains("\"sessions\":0") {
        tokio::task::yield_now().await;
    }
    // What waited for it is told, and then the socket ends.
    while asleep.receive().await.is_some() {}
    server.stop().await;
}

#[tokio::test]
async fn a_log_that_a_reader_does_not_work_off_leaves_room_for_its_others() {
    let server = Server::start().await;
    let (mut alice, mut bob, mut carol) = (Peer::new("alice"), Peer::new("bob"), Peer::new("carol"));
    carol.set_log(LogName::new("board/2").expect("a name"));
    let (mut writer, _) = alice.open(&server.url).await;
    let (mut reader, _) = bob.open(&server.url).await;
    fill(&mut alice, &mut writer, 500, 20, 4_000).await;
    // Bob gives nothing back of this one. There is credit for two frames or more when it has had its share.
    let mut bytes = 0;
    while bytes < limits::CREDIT_BYTES_OF_LOG as usize {
        bytes += Frame::Entries(reader.entries().await).encode().len();
    }
    assert!(bytes + 2 * limits::FRAME_BYTES_TARGET < limits::CREDIT_BYTES as usize);
    reader.send(&Frame::from(SubscribeLog { name: carol.log.clone(), ..bob.subscription(2) })).await;
    reader.opened().await;
    let (mut other, _) = carol.open(&server.url).await;
    fill(&mut carol, &mut other, 1, 1, 1_000).await;
    assert_eq!(reader.entries().await.log, 2, "it has come, and nothing more of the first");
    reader.send(&endless_credit(1)).await;
    while reader.entries().await.after.next < Offset(500) {}
    server.stop().await;
}

#[tokio::test]
async fn a_reader_gets_what_its_credit_allows_and_the_rest_with_more() {
    let server = Server::start().await;
    let (mut alice, mut bob) = (Peer::new("alice"), Peer::new("bob"));
    let (mut writer, _) = alice.open(&server.url).await;
    let (mut reader, _) = bob.open(&server.url).await;
    fill(&mut alice, &mut writer, 500, 20, 4_000).await;
    // One frame more might not fit: everything up to there comes without being asked for.
    let (mut bytes, mut after) = (0, Offset(0));
    while bytes + 2 * limits::FRAME_BYTES_TARGET < limits::CREDIT_BYTES_OF_LOG as usize {
        let entries = reader.entries().await;
        after = entries.after.next;
        bytes += Frame::Entries(entries).encode().len();
    }
    assert!(after < Offset(500));
    reader.send(&endless_credit(1)).await;
    while after < Offset(500) {
        after = reader.entries().await.after.next;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_cold_start_is_a_snapshot_and_the_tail_behind_it() {
    let server = Server::start_with(tempfile::TempDir::new().expect("a directory"), |config| {
        config.snapshot_entries = 100;
    })
    .await;
    let (mut alice, mut bob) = (Peer::new("alice"), Peer::new("bob"));
    let (mut writer, _) = alice.open(&server.url).await;
    fill(&mut alice, &mut writer, 300, 20, 10).await;
    // The snapshot is made in the background: ask until it is there.
    let (state, chain) = loop {
        let (mut reader, opened) = bob.open(&server.url).await;
        match reader.next().await {
            Frame::Entries(_) => continue,
            Frame::SnapshotPart(part) => {
                let mut bytes = part.bytes.clone();
                while (bytes.len() as u64) < part.total {
                    match reader.next().await {
                        Frame::SnapshotPart(next) => bytes.extend(next.bytes),
                        other => panic!("a part expected: {other:?}"),
                    }
                }
                let mut state = snapshot::decode(&bytes).expect("a snapshot");
                assert_eq!(state.cursor(), part.cursor);
                let mut cursor = part.cursor;
                if cursor.next < opened.end {
                    cursor = follow(&mut reader, &mut state, opened.end).await;
                }
                break (state, cursor.chain);
            }
            other => panic!("a snapshot or entries expected: {other:?}"),
        }
    };
    assert_eq!(state.cursor().next, Offset(300));
    assert_eq!(state.cursor().chain, chain);
    let mut folded = State::new(state.log());
    let mut carol = Peer::new("carol");
    let mut from_start = carol.connect(&server.url).await;
    let mut subscription = carol.subscription(1);
    subscription.cursor = Some(Cursor::start(state.log()));
    carol.subscribe(&mut from_start, subscription).await;
    follow(&mut from_start, &mut folded, Offset(300)).await;
    assert_eq!(folded.digest(), state.digest(), "history and snapshot say the same");
    server.stop().await;
}

/// Folds what arrives until `end`.
async fn follow(reader: &mut Socket, state: &mut State, end: Offset) -> Cursor {
    let (items, after) = reader.items_until(end.0).await;
    for item in items {
        match item {
            driftlog_core::packed::Item::Entry(logged) => drop(state.fold(&logged).expect("folds")),
            other => panic!("an entry expected: {other:?}"),
        }
    }
    after
}
