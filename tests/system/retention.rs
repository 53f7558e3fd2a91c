//! Retention: what goes is behind two snapshots, nobody who comes late misses anything, and the space comes back.

use std::path::Path;

use driftlog_core::chain::Cursor;
use driftlog_core::id::{EntryId, Offset, Seq};
use driftlog_core::packed::Item;
use driftlog_core::protocol::Code;
use driftlog_core::protocol::frame::{Credit, Frame, SubscribeLog};
use driftlog_core::snapshot;
use driftlog_core::state::State;
use driftlog_server::stepped::{Moment, Server as Stepped, SessionNumber};
use driftlog_server::{Access, Config, Keep, Retention, verify};
use driftlog_tests::peer::{Peer, Socket, accepted, marks};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use crate::running::Server;

/// Snapshots are made after so many entries here.
const SNAPSHOT_ENTRIES: u64 = 50;

fn keeping(keep: Keep) -> impl FnOnce(&mut Config) {
    move |config| {
        config.snapshot_entries = SNAPSHOT_ENTRIES;
        config.retention = Retention::default().with("*", keep);
    }
}

async fn server(keep: Keep) -> Server {
    Server::start_with(TempDir::new().expect("a directory"), keeping(keep)).await
}

/// Sets of one record's title, one a push.
async fn overwrite(peer: &mut Peer, socket: &mut Socket, times: usize, padding: usize) {
    for at in 0..times {
        let made = peer.act(Peer::set("a", &format!("{at} {}", "x".repeat(padding))));
        socket.send(&peer.push(&[made])).await;
        socket.ack().await;
    }
}

fn file(directory: &Path) -> std::path::PathBuf {
    directory.join("driftlog.sqlite")
}

/// The first entry that the server's file holds, and how many there are.
fn kept(directory: &Path) -> (u64, u64) {
    let connection = Connection::open_with_flags(file(directory), OpenFlags::SQLITE_OPEN_READ_ONLY).expect("opens");
    let sql = "SELECT first, (SELECT count(*) FROM entries) FROM logs";
    connection
        .query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)? as u64)))
        .expect("reads")
}

/// Overwrites until the entries before an offset are gone; gives the first that is there.
async fn overwrite_until(peer: &mut Peer, socket: &mut Socket, server: &Server, first: u64, padding: usize) -> u64 {
    loop {
        overwrite(peer, socket, 20, padding).await;
        match kept(server.directory.path()) {
            (found, _) if found >= first => return found,
            _ => assert!(peer.seq < Seq(20_000), "nothing is truncated"),
        }
    }
}

/// What a reader is brought up to `end` with: whether a snapshot came, and the state.
async fn caught_up(socket: &mut Socket, mut state: State, end: Offset) -> (usize, State) {
    let (mut snapshots, mut bytes) = (0, Vec::new());
    while state.cursor().next < end {
        match socket.next().await {
            Frame::SnapshotPart(part) => {
                if part.at == 0 {
                    bytes.clear();
                }
                bytes.extend(part.bytes);
                if bytes.len() as u64 == part.total {
                    state = snapshot::decode(&bytes).expect("a snapshot");
                    snapshots += 1;
                }
            }
            Frame::Entries(entries) => {
                assert_eq!(entries.from, state.cursor().next, "no gap");
                for item in entries.entries.unpack(entries.from).expect("unpacks") {
                    let Item::Entry(logged) = item else { panic!("an entry expected: {item:?}") };
                    state.fold(&logged).expect("folds");
                }
                assert_eq!(state.cursor(), entries.after);
            }
            Frame::Credit(_) | Frame::Ping(_) | Frame::Ack(_) => {}
            other => panic!("a snapshot or entries expected: {other:?}"),
        }
    }
    (snapshots, state)
}

#[tokio::test]
async fn readers_of_any_age_are_brought_up_to_date_after_the_prefix_is_gone() {
    let server = server(Keep::Last(10)).await;
    let (mut alice, mut bob) = (Peer::new("alice"), Peer::new("bob"));
    let (mut writer, _) = alice.open_to_push(&server.url).await;
    let first = alice.act(Peer::insert("a"));
    writer.send(&alice.push(&[first])).await;
    writer.ack().await;
    overwrite(&mut alice, &mut writer, 20, 10).await;
    // Bob reads up to there and leaves.
    let (mut reader, opened) = bob.open(&server.url).await;
    let (_, early) = caught_up(&mut reader, State::new(opened.log_id), Offset(21)).await;
    drop(reader);
    let first = overwrite_until(&mut alice, &mut writer, &server, 200, 10).await;
    let end = Offset(alice.seq.0);
    for from in [None, Some(early.cursor()), Some(Cursor::start(early.log()))] {
        let mut carol = Peer::new("carol");
        let mut socket = carol.connect(&server.url).await;
        carol.subscribe(&mut socket, SubscribeLog { cursor: from, ..carol.subscription(1) }).await;
        let state = State::new(early.log());
        let (snapshots, state) = caught_up(&mut socket, state, end).await;
        assert_eq!((snapshots, state.cursor().next), (1, end), "from {from:?}");
    }
    // A stretch of history that is not there is not made up.
    let mut dave = Peer::new("dave");
    let mut socket = dave.connect(&server.url).await;
    let stretch = SubscribeLog { cursor: Some(early.cursor()), end: Some(Offset(first)), ..dave.subscription(1) };
    dave.subscribe(&mut socket, stretch).await;
    assert_eq!(socket.error().await.code, Code::HistoryGone);
    let directory = server.stop().await;
    let report = verify(directory.path(), None, |_, _| {}).expect("reads");
    assert_eq!(report.findings, []);
    assert_eq!((report.snapshots, report.entries), (2, kept(directory.path()).1));
}

#[tokio::test]
async fn verdicts_outlive_the_entries_they_are_of() {
    let server = server(Keep::Last(0)).await;
    let mut alice = Peer::new("alice");
    let (mut writer, _) = alice.open_to_push(&server.url).await;
    let inserted = alice.act(Peer::insert("a"));
    let refused = alice.act(Peer::unknown());
    let again = alice.push(&[inserted.clone(), refused.clone()]);
    writer.send(&again).await;
    assert_eq!(accepted(&writer.ack().await), [(1, 0)]);
    overwrite_until(&mut alice, &mut writer, &server, 100, 10).await;
    // The same again gets the same verdicts, and nothing stands twice; offsets of what is gone are not known any more.
    writer.send(&again).await;
    let ack = writer.ack().await;
    assert_eq!((ack.through, accepted(&ack), marks(&ack)), (Seq(2), vec![], vec![(2, Some(Code::UnknownOp))]));
    // A copy of the refused one under another id comes in; of an accepted one it does not.
    let mut end = alice.seq.0 - 1;
    for (seq, digest, taken) in [(2, refused.digest(), true), (1, inserted.digest(), false)] {
        let target = driftlog_core::entry::Replaced { id: EntryId { actor: alice.actor, seq: Seq(seq) }, digest };
        let made = alice.act_with(Peer::set("a", "again"), |header| header.replaces = Some(target));
        writer.send(&alice.push(&[made])).await;
        let ack = writer.ack().await;
        assert_eq!(accepted(&ack).len(), usize::from(taken), "seq {seq}");
        assert!(taken || marks(&ack)[0].1 == Some(Code::AlreadyReplaced));
        end += u64::from(taken);
    }
    drop(writer);
    let directory = server.stop().await;
    let server = Server::start_with(directory, keeping(Keep::Last(0))).await;
    let (mut writer, opened) = alice.open_to_push(&server.url).await;
    assert_eq!((opened.end, opened.seq, opened.chain), (Offset(end), alice.seq, alice.chain));
    overwrite(&mut alice, &mut writer, 1, 0).await;
    drop(writer);
    let directory = server.stop().await;
    assert_eq!(verify(directory.path(), None, |_, _| {}).expect("reads").findings, []);
}

#[tokio::test]
async fn the_space_of_what_is_gone_comes_back() {
    let size = |directory: &TempDir| std::fs::metadata(file(directory.path())).expect("there").len();
    let server = server(Keep::All).await;
    let mut alice = Peer::new("alice");
    let (mut writer, _) = alice.open_to_push(&server.url).await;
    let inserted = alice.act(Peer::insert("a"));
    writer.send(&alice.push(&[inserted])).await;
    writer.ack().await;
    overwrite(&mut alice, &mut writer, 400, 4_000).await;
    drop(writer);
    let directory = server.stop().await;
    let before = size(&directory);
    assert!(before > 400 * 4_000);
    let server = Server::start_with(directory, keeping(Keep::Size(100_000))).await;
    let (mut writer, _) = alice.open_to_push(&server.url).await;
    overwrite_until(&mut alice, &mut writer, &server, 401, 1_000).await;
    drop(writer);
    let directory = server.stop().await;
    let after = size(&directory);
    assert!(after < before / 2, "{after} of {before} bytes");
    assert_eq!(verify(directory.path(), None, |_, _| {}).expect("reads").findings, []);
}

/// A server without threads, and one session on it.
struct Steps {
    server: Stepped,
    session: SessionNumber,
    now: u64,
    _directory: TempDir,
}

impl Steps {
    fn start(keep: Keep) -> Self {
        let directory = TempDir::new().expect("a directory");
        let mut config = Config::new(directory.path(), Access::Development);
        keeping(keep)(&mut config);
        config.idle = std::time::Duration::from_secs(1_000_000);
        // What is not in the store is nowhere.
        config.tail_bytes = 1_000;
        let mut server = Stepped::open(config, Moment { wall: 1_000, steady: 1_000 }, [1; 32]).expect("opens");
        let session = server.connect();
        Self { server, session, now: 1_000, _directory: directory }
    }

    fn connect(&mut self, peer: &mut Peer) -> SessionNumber {
        let session = self.server.connect();
        let answers = self.say(session, &Frame::Hello(peer.hello()));
        let Some(Frame::Welcome(welcome)) = answers.first() else { panic!("{answers:?}") };
        peer.nonces.insert(0, welcome.nonce);
        session
    }

    /// Hands a frame over, commits and tells; what comes back without a read of the store.
    fn say(&mut self, session: SessionNumber, frame: &Frame) -> Vec<Frame> {
        self.server.receive(session, &frame.encode());
        while self.server.commit().expect("commits").is_some() {}
        self.server.answer();
        self.frames(session)
    }

    fn frames(&mut self, session: SessionNumber) -> Vec<Frame> {
        std::iter::from_fn(|| self.server.poll_frame(session))
            .map(|bytes| Frame::decode(&bytes).expect("one"))
            .collect()
    }

    /// Lets the maker and the writer do what they have to do.
    fn settle(&mut self) {
        while let Some(made) = self.server.make_snapshot().expect("made") {
            self.server.store_snapshot(made);
            while self.server.commit().expect("commits").is_some() {}
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        self.server.set_time(Moment { wall: self.now, steady: self.now });
    }

    fn overwrite(&mut self, peer: &mut Peer, times: usize, padding: usize) {
        for at in 0..times {
            let made = peer.act(Peer::set("a", &format!("{at} {}", "x".repeat(padding))));
            self.say(self.session, &peer.push(&[made]));
            self.settle();
        }
    }

    /// A writer that has inserted the record that it then changes.
    fn writer(&mut self) -> Peer {
        let mut alice = Peer::new("alice");
        self.session = self.connect(&mut alice);
        let subscription = SubscribeLog { read: false, ..alice.subscription(1) };
        self.say(self.session, &Frame::from(subscription));
        let inserted = alice.act(Peer::insert("a"));
        self.say(self.session, &alice.push(&[inserted]));
        alice
    }
}

/// The place of each frame that brings something: a snapshot's end, or where entries begin.
fn places(frames: &[Frame]) -> Vec<(bool, u64)> {
    let place = |frame: &Frame| match frame {
        Frame::SnapshotPart(part) => Some((true, part.cursor.next.0)),
        Frame::Entries(entries) => Some((false, entries.from.0)),
        _ => None,
    };
    frames.iter().filter_map(place).collect()
}

#[test]
fn truncation_between_the_look_at_a_log_and_the_read_is_never_a_gap() {
    let mut steps = Steps::start(Keep::Last(0));
    let mut alice = steps.writer();
    steps.overwrite(&mut alice, 20, 10);
    let mut bob = Peer::new("bob");
    let session = steps.connect(&mut bob);
    // The log is opened, and the entries from the beginning are asked of the store; then they go.
    let opened = steps.say(session, &Frame::from(bob.subscription(1)));
    assert!(matches!(&opened[..], [Frame::Opened(opened)] if opened.end == Offset(21)), "{opened:?}");
    steps.overwrite(&mut alice, 200, 10);
    assert!(steps.server.entries(&alice.log, Offset(21)).is_err(), "they are gone");
    let (mut read, mut seen) = (1, Vec::new());
    while read > 0 {
        read = steps.server.read();
        seen.extend(places(&steps.frames(session)));
    }
    assert!(matches!(&seen[..], [(true, end), (false, from)] if end == from), "{seen:?}");
}

#[test]
fn a_snapshot_that_takes_longer_than_the_tail_lives_is_pinned_and_converges() {
    let mut steps = Steps::start(Keep::Last(0));
    let mut alice = steps.writer();
    // So much that the snapshot goes in several parts.
    for at in 0..16 {
        let record = format!("large {at}");
        let mut ops = Peer::insert(&record);
        ops.extend(Peer::set(&record, &"y".repeat(30_000)));
        let made = alice.act(ops);
        steps.say(steps.session, &alice.push(&[made]));
    }
    steps.overwrite(&mut alice, 120, 2_500);
    let mut bob = Peer::new("bob");
    let session = steps.connect(&mut bob);
    steps.say(session, &Frame::from(bob.subscription(1)));
    // Bob's line is slow: between two parts entries are written, a snapshot is made, and what could go would go.
    let (mut state, mut bytes, mut snapshots, mut rounds) = (None::<State>, Vec::new(), Vec::new(), 0);
    loop {
        rounds += 1;
        assert!(rounds < 100, "it starts over for ever, or nothing comes: {snapshots:?}");
        steps.server.read();
        match steps.server.poll_frame(session).map(|frame| Frame::decode(&frame).expect("a frame")) {
            Some(Frame::SnapshotPart(part)) => {
                if part.at == 0 {
                    bytes.clear();
                    snapshots.push(part.cursor.next.0);
                }
                bytes.extend(part.bytes);
                if bytes.len() as u64 == part.total {
                    state = Some(snapshot::decode(&bytes).expect("whole"));
                }
            }
            Some(Frame::Entries(entries)) => {
                let state = state.expect("a snapshot first");
                assert_eq!(entries.from, state.cursor().next, "no gap");
                break;
            }
            _ => {}
        }
        // A snapshot of several parts takes more than the time that it is pinned for at first.
        steps.pass(9_000);
        steps.server.receive(session, &Frame::Credit(Credit { bytes: u64::MAX, of_log: Some((1, u64::MAX)) }).encode());
        steps.overwrite(&mut alice, 60, 2_500);
    }
    assert!((2..=4).contains(&snapshots.len()), "sent {snapshots:?}");
    assert!(snapshots.is_sorted());
}

/// The database as it stands in a directory of a server that has ended.
fn copied(directory: &TempDir) -> TempDir {
    let copy = TempDir::new().expect("a directory");
    for entry in std::fs::read_dir(directory.path()).expect("reads") {
        let path = entry.expect("reads").path();
        std::fs::copy(&path, copy.path().join(path.file_name().expect("a name"))).expect("copies");
    }
    copy
}

#[tokio::test]
async fn a_server_that_was_restored_and_overtaken_is_found_out_after_the_prefix_is_gone() {
    let server = server(Keep::Last(0)).await;
    let mut alice = Peer::new("alice");
    let (mut writer, _) = alice.open_to_push(&server.url).await;
    let inserted = alice.act(Peer::insert("a"));
    writer.send(&alice.push(&[inserted])).await;
    writer.ack().await;
    overwrite(&mut alice, &mut writer, 10, 10).await;
    // A reader that leaves before the backup.
    let mut early = Peer::new("early");
    let (mut socket, opened) = early.open(&server.url).await;
    let (_, state) = caught_up(&mut socket, State::new(opened.log_id), Offset(11)).await;
    let before = (state.cursor(), opened.epochs.last().copied());
    drop((writer, socket));
    let directory = server.stop().await;
    let backup = copied(&directory);
    // What is written now is lost with the disk.
    let server = Server::start_with(directory, keeping(Keep::Last(0))).await;
    let (mut writer, _) = alice.open_to_push(&server.url).await;
    overwrite(&mut alice, &mut writer, 20, 10).await;
    let mut late = Peer::new("late");
    let (mut socket, opened) = late.open(&server.url).await;
    let (_, state) = caught_up(&mut socket, State::new(opened.log_id), Offset(31)).await;
    let after = (state.cursor(), opened.epochs.last().copied());
    drop((writer, socket));
    server.stop().await;
    let server = Server::start_with(backup, keeping(Keep::Last(0))).await;
    let mut bob = Peer::new("bob");
    let (mut writer, _) = bob.open_to_push(&server.url).await;
    overwrite_until(&mut bob, &mut writer, &server, 60, 10).await;
    for (cursor, epoch, forked) in [(before.0, before.1, false), (after.0, after.1, true)] {
        let mut reader = Peer::new("reader");
        let mut socket = reader.connect(&server.url).await;
        let log_id = Some(state.log());
        let subscription = SubscribeLog { cursor: Some(cursor), epoch, log_id, ..reader.subscription(1) };
        let opened = reader.subscribe(&mut socket, subscription).await;
        match forked {
            true => assert_eq!(socket.error().await.code, Code::LogForked),
            false => assert_eq!(caught_up(&mut socket, State::new(state.log()), opened.end).await.0, 1),
        }
    }
    server.stop().await;
}
