//! The server's end of a session, frame by frame.

use std::collections::BTreeMap;

use super::*;
use crate::chain::{Chain, Cursor};
use crate::entry::Digest;
use crate::id::{ClientId, EpochId, LogId, LogName, Seq, UserId};
use crate::packed::Packer;
use crate::protocol::frame::{Error, Nonce, SnapshotBegun, Subscribe};
use crate::time::Time;

const IDLE_MS: u64 = 60_000;

fn hello() -> Hello {
    Hello {
        protocol_min: 1,
        protocol_max: 1,
        client: ClientId([1; 16]),
        actor: ActorId([2; 16]),
        predecessor: None,
        user: None,
        nonces: Vec::new(),
        device: String::new(),
        token: None,
        now: 0,
    }
}

fn subscribe(log: LogNumber, name: &str) -> SubscribeLog {
    SubscribeLog {
        log,
        name: LogName::new(name).expect("a name"),
        log_id: None,
        cursor: None,
        epoch: None,
        read: true,
        decided: Seq(0),
        held: Seq(1),
        priority: 128,
        end: None,
        begun: None,
    }
}

fn facts(end: u64, snapshot: Option<u64>) -> LogFacts {
    LogFacts {
        log_id: LogId([3; 16]),
        epochs: vec![(EpochId([4; 8]), Offset(0))],
        end: Offset(end),
        accepted: Time::MIN,
        backed_up: None,
        first_retained: Offset(0),
        snapshot: snapshot.map(Offset),
        chain_at_cursor: None,
        seq: Seq(0),
        chain: Chain::log_start(LogId([3; 16])),
        checkpoints: Vec::new(),
        verdicts: None,
    }
}

/// A session that is live, with what it has said so far taken away.
fn live() -> ServerSession {
    let mut session = ServerSession::new(0, IDLE_MS);
    session.handle_bytes(0, &Frame::Hello(hello()).encode());
    assert!(matches!(session.poll_output(), Some(Output::Authenticate(_))));
    let user = UserId::new("alice").expect("a user");
    let admission =
        Admission { user, grants: Grants::everything(), expires: Some(90_000), nonce: Nonce([5; 16]), was: None };
    session.handle_admitted(0, Ok(admission));
    assert!(matches!(frames(&mut session)[..], [Frame::Welcome(_)]));
    session
}

fn frames(session: &mut ServerSession) -> Vec<Frame> {
    std::iter::from_fn(|| session.poll_frame()).map(|bytes| Frame::decode(&bytes).expect("a frame")).collect()
}

fn codes(frames: &[Frame]) -> Vec<Code> {
    let code = |frame: &Frame| match frame {
        Frame::Error(Error { code, .. }) => Some(*code),
        _ => None,
    };
    frames.iter().filter_map(code).collect()
}

fn open(session: &mut ServerSession, log: LogNumber, facts: LogFacts) {
    session.handle_bytes(0, &Frame::from(subscribe(log, &format!("log/{log}"))).encode());
    let Some(Output::Open(open)) = session.poll_output() else { panic!("an open") };
    session.handle_opened(open.request, Ok(facts));
}

fn read(session: &mut ServerSession) -> Read {
    match session.poll_output() {
        Some(Output::Read(read)) => read,
        other => panic!("a read: {other:?}"),
    }
}

fn entries(bytes: usize, next: u64) -> EntriesRead {
    let after = Cursor { next: Offset(next), chain: Chain::log_start(LogId([3; 16])) };
    EntriesRead::Frame(EntriesFrame { bytes: vec![0; bytes].into(), after, expires: None })
}

#[test]
fn an_unwelcome_hello_ends_the_session_with_its_code() {
    let mut session = ServerSession::new(0, IDLE_MS);
    session.handle_bytes(0, &Frame::Hello(hello()).encode());
    let refusal = Refusal { code: Code::ActorForked, reason: String::new() };
    session.handle_admitted(0, Err(refusal));
    assert_eq!(codes(&frames(&mut session)), [Code::ActorForked]);
    assert!(session.is_closed());
}

#[test]
fn one_read_is_under_way_and_only_while_there_is_room() {
    let mut session = live();
    open(&mut session, 1, facts(100, None));
    let first = read(&mut session);
    assert!(session.poll_output().is_none());
    session.handle_entries(first.request, entries(limits::FRAME_BYTES_TARGET, 10));
    assert!(session.poll_output().is_none(), "a frame waits for the socket");
    let sent = std::iter::from_fn(|| session.poll_frame()).count();
    assert_eq!(sent, 2, "opened, entries");
    let Output::Read(second) = session.poll_output().expect("a read") else { panic!("a read") };
    assert!(matches!(second.from, ReadFrom::Cursor(cursor) if cursor.next == Offset(10)));
}

#[test]
fn entries_wait_for_credit_and_answers_do_not() {
    let mut session = live();
    open(&mut session, 1, facts(u64::MAX, None));
    send_all(&mut session);
    for log in [2, 3] {
        session.handle_bytes(0, &Frame::from(subscribe(log, "x")).encode());
        let Some(Output::Open(asked)) = session.poll_output() else { panic!("an open") };
        session.handle_opened(asked.request, Ok(facts(u64::MAX, None)));
        send_all(&mut session);
    }
    assert_eq!(session.sent, limits::CREDIT_BYTES);
    session.handle_bytes(0, &Frame::Ping(Ping { nonce: 1 }).encode());
    assert_eq!(frames(&mut session), [Frame::Pong(Ping { nonce: 1 })]);
    session.handle_bytes(0, &Frame::Credit(Credit { bytes: 2 * limits::CREDIT_BYTES, of_log: None }).encode());
    assert!(session.poll_frame().is_some());
}

/// Sends what credit allows; how many frames of entries that were.
fn send_all(session: &mut ServerSession) -> u64 {
    let before = session.sent;
    while session.poll_frame().is_some() {}
    while let Some(Output::Read(read)) = session.poll_output() {
        let ReadFrom::Cursor(from) = read.from else { panic!("no snapshot") };
        session.handle_entries(read.request, entries(limits::FRAME_BYTES_TARGET, from.next.0 + 1));
        while session.poll_frame().is_some() {}
    }
    (session.sent - before) / limits::FRAME_BYTES_TARGET as u64
}

#[test]
fn a_log_that_is_not_worked_off_holds_a_share_and_the_others_go_on() {
    const SHARE: u64 = limits::CREDIT_BYTES_OF_LOG / limits::FRAME_BYTES_TARGET as u64;
    let mut session = live();
    let credit = |bytes, of_log| Frame::Credit(Credit { bytes, of_log }).encode();
    open(&mut session, 1, facts(u64::MAX, None));
    assert_eq!(send_all(&mut session), SHARE, "of the session's total there is more");
    open(&mut session, 2, facts(3, None));
    assert_eq!(send_all(&mut session), 3, "the other log is sent");
    session.handle_bytes(0, &credit(2 * limits::CREDIT_BYTES, Some((2, limits::CREDIT_BYTES))));
    assert_eq!(send_all(&mut session), 0, "more in total is for those that are worked off");
    session.handle_grew(2, Offset(5));
    assert_eq!(send_all(&mut session), 2);
    session.handle_bytes(0, &credit(0, Some((1, limits::CREDIT_BYTES_OF_LOG + 1))));
    assert_eq!(send_all(&mut session), 1, "one frame may reach beyond");
    session.handle_bytes(0, &Frame::from(subscribe(1, "log/1")).encode());
    let opens = std::iter::from_fn(|| session.poll_output());
    let asked =
        opens.filter_map(|output| if let Output::Open(open) = output { Some(open.request) } else { None }).last();
    session.handle_opened(asked.expect("an open"), Ok(facts(u64::MAX, None)));
    assert_eq!(send_all(&mut session), SHARE, "subscribed anew, it begins with its share");
}

#[test]
fn one_subscribe_names_many_logs_and_each_is_answered_by_itself() {
    let mut session = live();
    let logs: Vec<_> = [1, 2, 3].map(|log| subscribe(log, &format!("log/{log}"))).into();
    session.handle_bytes(0, &Frame::Subscribe(Subscribe { logs }).encode());
    let asked: Vec<_> = std::iter::from_fn(|| session.poll_output())
        .map(|output| if let Output::Open(open) = output { (open.log, open.request) } else { panic!("an open") })
        .collect();
    assert_eq!(asked.iter().map(|(log, _)| *log).collect::<Vec<_>>(), [1, 2, 3]);
    session.handle_opened(asked[2].1, Ok(facts(7, None)));
    let refusal = Refusal { code: Code::StorageFailed, reason: String::new() };
    session.handle_opened(asked[0].1, Err(refusal));
    let said = frames(&mut session);
    assert!(
        matches!(&said[..], [Frame::Opened(opened), Frame::Error(error)] if opened.log == 3 && error.log == Some(1))
    );
    assert_eq!(read(&mut session).log, 3, "one that is not open yet keeps no other waiting");
    session.handle_opened(asked[1].1, Ok(facts(0, None)));
    assert!(matches!(&frames(&mut session)[..], [Frame::Opened(opened)] if opened.log == 2));
}

#[test]
fn a_subscribe_of_too_many_logs_ends_the_session() {
    let mut session = live();
    let many = |count| (0..count).map(|log| subscribe(log, &format!("log/{log}"))).collect();
    let most = limits::SUBSCRIBE_LOGS_MAX as LogNumber;
    session.handle_bytes(0, &Frame::Subscribe(Subscribe { logs: many(most) }).encode());
    assert!(!session.is_closed());
    session.handle_bytes(0, &Frame::Subscribe(Subscribe { logs: many(most + 1) }).encode());
    assert_eq!(codes(&frames(&mut session)), [Code::UnexpectedFrame]);
}

#[test]
fn subscriptions_share_by_weight() {
    let mut session = live();
    for (log, priority) in [(1, 0), (2, 255)] {
        let mut subscribe = subscribe(log, "x");
        subscribe.priority = priority;
        session.handle_bytes(0, &Frame::from(subscribe).encode());
        let opens = std::iter::from_fn(|| session.poll_output());
        let request = opens.filter_map(|output| match output {
            Output::Open(open) => Some(open.request),
            _ => None,
        });
        let request = request.last().expect("an open");
        session.handle_bytes(0, &Frame::Credit(Credit { bytes: u64::MAX, of_log: Some((log, u64::MAX)) }).encode());
        session.handle_opened(request, Ok(facts(0, None)));
    }
    let mut at = BTreeMap::new();
    session.handle_grew(1, Offset(10_000));
    session.handle_grew(2, Offset(10_000));
    let mut serve = |session: &mut ServerSession| {
        let mut served = BTreeMap::from([(1, 0), (2, 0)]);
        for _ in 0..600 {
            let read = read(session);
            *served.entry(read.log).or_insert(0) += 1;
            let at = at.entry(read.log).and_modify(|at| *at += 1).or_insert(1);
            session.handle_entries(read.request, entries(limits::FRAME_BYTES_TARGET, *at));
            while session.poll_frame().is_some() {}
        }
        (served[&1], served[&2])
    };
    let (one, two) = serve(&mut session);
    assert!(one >= 2 && two > 100 * one, "{one} and {two}");
    for (log, priority) in [(1, 255), (2, 0)] {
        session.handle_bytes(0, &Frame::Priority(frame::Priority { log, priority }).encode());
    }
    let (one, two) = serve(&mut session);
    assert!(two >= 2 && one > 100 * two, "the other way round: {one} and {two}");
}

#[test]
fn a_hello_in_a_form_of_another_version_is_answered_by_what_is_spoken_here_and_not_kept() {
    for (versions, code) in [([7, 9], Code::ProtocolVersion), ([1, 9], Code::MalformedFrame)] {
        let mut session = ServerSession::new(0, 60_000);
        let body = [&[0x92, 0, 0x93][..], &versions, &[0xc0]].concat();
        session.handle_bytes(0, &[&crc32c::crc32c(&body).to_le_bytes()[..], &body].concat());
        let told = frames(&mut session);
        assert!(matches!(&told[..], [Frame::Error(Error { code: told, .. })] if *told == code), "{told:?}");
        let kept = std::iter::from_fn(|| session.poll_output()).any(|output| matches!(output, Output::Keep { .. }));
        assert_eq!((session.is_closed(), kept), (true, code == Code::MalformedFrame));
    }
}

#[test]
fn a_snapshot_goes_out_in_parts_and_reading_goes_on_behind_it() {
    let mut session = live();
    open(&mut session, 1, facts(100, Some(80)));
    let asked = read(&mut session);
    assert_eq!(asked.from, ReadFrom::Snapshot(None));
    let cursor = Cursor { next: Offset(80), chain: Chain::log_start(LogId([3; 16])) };
    let bytes: Arc<[u8]> = vec![7; limits::SNAPSHOT_PART_BYTES * 2 + 5].into();
    session.handle_snapshot(asked.request, Some(SnapshotRead::new(cursor, bytes.clone(), None)));
    let parts = frames(&mut session).into_iter().filter_map(|frame| match frame {
        Frame::SnapshotPart(part) => Some(part.bytes),
        _ => None,
    });
    assert_eq!(parts.collect::<Vec<_>>().concat(), *bytes);
    assert_eq!(read(&mut session).from, ReadFrom::Cursor(cursor));
}

#[test]
fn a_snapshot_goes_on_behind_what_is_there_of_it_and_no_other_does() {
    let cursor = Cursor { next: Offset(80), chain: Chain::log_start(LogId([3; 16])) };
    let bytes: Arc<[u8]> = (0..200_000u32).map(|at| (at % 251) as u8).collect();
    let has = |count: usize| SnapshotBegun { cursor, bytes: count as u64, digest: Digest::of(&[&bytes[..count]]) };
    let elsewhere = Cursor { next: Offset(79), ..cursor };
    let damaged = Digest::of(&[b"other bytes"]);
    for (begun, first) in [
        (has(100_000), 100_000),
        (has(0), 0),
        (has(200_000), 0),
        (SnapshotBegun { cursor: elsewhere, ..has(100_000) }, 0),
        (SnapshotBegun { digest: damaged, ..has(100_000) }, 0),
        (SnapshotBegun { bytes: u64::MAX, ..has(100_000) }, 0),
    ] {
        let mut session = live();
        let begun = Some(begun);
        session.handle_bytes(0, &Frame::from(SubscribeLog { begun, ..subscribe(1, "board") }).encode());
        let Some(Output::Open(asked)) = session.poll_output() else { panic!("an open") };
        session.handle_opened(asked.request, Ok(facts(100, Some(80))));
        let asked = read(&mut session);
        assert_eq!(asked.from, ReadFrom::Snapshot(begun), "the shell looks for it");
        session.handle_snapshot(asked.request, Some(SnapshotRead::new(cursor, bytes.clone(), begun)));
        let parts = frames(&mut session).into_iter().filter_map(|frame| match frame {
            Frame::SnapshotPart(part) => Some((part.at, part.total, part.bytes)),
            _ => None,
        });
        let parts: Vec<_> = parts.collect();
        assert_eq!((parts[0].0, parts[0].1), (first, 200_000), "{begun:?}");
        assert_eq!(parts.into_iter().map(|part| part.2).collect::<Vec<_>>().concat(), bytes[first as usize..]);
        assert_eq!(read(&mut session).from, ReadFrom::Cursor(cursor));
    }
}

#[test]
fn pushes_beyond_the_credit_end_the_session_and_commits_renew_it() {
    let mut session = live();
    open(&mut session, 1, facts(0, None));
    let chain = Chain::log_start(LogId([3; 16]));
    let push = Frame::Push(Push { log: 1, first: Seq(1), chain, entries: Packer::default().finish() }).encode();
    let mut requests = Vec::new();
    for _ in 0..limits::CREDIT_BYTES as usize / push.len() {
        session.handle_bytes(0, &push);
        let Some(Output::Append(append)) = session.poll_output() else { panic!("an append") };
        requests.push(append.request);
    }
    drop(frames(&mut session));
    for request in requests {
        session.handle_committed(request, Ok(PushOutcome::default()));
    }
    let credits = frames(&mut session).into_iter().filter(|frame| matches!(frame, Frame::Credit(_))).count();
    assert_eq!(credits, 1, "renewed by halves");
    for _ in 0..=2 * limits::CREDIT_BYTES as usize / push.len() {
        session.handle_bytes(0, &push);
    }
    assert_eq!(codes(&frames(&mut session)), [Code::CreditExceeded]);
}

#[test]
fn a_held_push_costs_no_credit_and_what_was_under_way_behind_it_is_no_error() {
    let mut session = live();
    open(&mut session, 1, facts(0, None));
    open(&mut session, 2, facts(0, None));
    while session.poll_output().is_some() {}
    drop(frames(&mut session));
    let chain = Chain::log_start(LogId([3; 16]));
    let push = |log| Frame::Push(Push { log, first: Seq(7), chain, entries: Packer::default().finish() }).encode();
    let delay = std::time::Duration::from_secs(5);
    let held = PushOutcome { held: Some(Held { seq: Seq(7), reason: "later".into(), delay }), ..Default::default() };
    let behind = || PushError::ExpectedSeq { expected: Seq(7), got: Seq(9) };
    let mut bytes = 0;
    while bytes < 3 * limits::CREDIT_BYTES {
        let mut requests = Vec::new();
        for log in [1, 1, 2] {
            session.handle_bytes(0, &push(log));
            bytes += push(log).len() as u64;
            let Some(Output::Append(append)) = session.poll_output() else { panic!("an append") };
            requests.push(append.request);
        }
        session.handle_committed(requests[0], Ok(held.clone()));
        session.handle_committed(requests[1], Err(behind()));
        session.handle_committed(requests[2], Err(behind()));
        let told = frames(&mut session);
        assert!(!session.is_closed(), "the credit came back");
        let held = frame::Held { log: 1, seq: Seq(7), reason: "later".into(), retry_ms: 5_000 };
        assert!(told.contains(&Frame::Held(held)));
        assert_eq!(codes(&told), [Code::ExpectedSeq], "of the log that is not held");
    }
    session.handle_bytes(0, &push(1));
    let Some(Output::Append(append)) = session.poll_output() else { panic!("an append") };
    session.handle_committed(append.request, Ok(PushOutcome::default()));
    session.handle_bytes(0, &push(1));
    let Some(Output::Append(append)) = session.poll_output() else { panic!("an append") };
    session.handle_committed(append.request, Err(behind()));
    assert_eq!(codes(&frames(&mut session)), [Code::ExpectedSeq], "it is no longer held");
}

#[test]
fn silence_is_asked_about_and_then_ends_the_session() {
    let mut session = live();
    assert_eq!(session.timeout(), IDLE_MS / 2);
    session.handle_timeout(IDLE_MS / 2);
    assert!(matches!(frames(&mut session)[..], [Frame::Ping(_)]));
    session.handle_bytes(IDLE_MS - 1, &Frame::Pong(Ping { nonce: 0 }).encode());
    session.handle_timeout(IDLE_MS);
    assert!(!session.is_closed());
    session.handle_timeout(90_000);
    assert_eq!(codes(&frames(&mut session)), [Code::TokenExpired]);
}

#[test]
fn a_peer_that_asks_and_does_not_read_is_asked_no_more_and_told_why_it_is_closed() {
    let mut session = live();
    let mut pings = 0;
    while !session.is_closed() {
        pings += 1;
        assert_eq!(session.is_congested(), session.urgent.bytes > URGENT_BYTES_CONGESTED);
        session.handle_bytes(0, &Frame::Ping(Ping { nonce: pings }).encode());
        assert!(session.urgent.bytes <= URGENT_BYTES_MAX);
    }
    assert_eq!(codes(&frames(&mut session)), [Code::Overloaded], "and nothing else");
}

#[test]
fn bytes_that_are_no_frame_are_handed_out_to_be_kept() {
    let mut session = live();
    session.handle_bytes(0, &[1, 2, 3]);
    assert_eq!(codes(&frames(&mut session)), [Code::MalformedFrame]);
    let kept = std::iter::from_fn(|| session.poll_output()).any(|output| matches!(output, Output::Keep { .. }));
    assert!(kept && session.is_closed());
}

#[test]
fn an_answer_for_a_log_given_up_meanwhile_is_ignored() {
    let mut session = live();
    open(&mut session, 1, facts(100, None));
    let stale = read(&mut session);
    session.handle_bytes(0, &Frame::Unsubscribe(frame::Unsubscribe { log: 1 }).encode());
    open_again(&mut session);
    drop(frames(&mut session));
    session.handle_entries(stale.request, entries(10, 50));
    assert!(session.poll_frame().is_none(), "entries of the earlier subscription");
}

#[test]
fn a_log_that_cannot_be_read_stops_alone() {
    let mut session = live();
    open(&mut session, 1, facts(100, None));
    let asked = read(&mut session);
    session.handle_read_failed(asked.request, "damaged");
    assert_eq!(codes(&frames(&mut session)), [Code::StorageFailed]);
    assert!(!session.is_closed() && session.poll_output().is_none());
    open(&mut session, 2, facts(100, None));
    assert_eq!(read(&mut session).log, 2);
}

/// Damage behind the checksum: the decoders see every kind of wrong content, and no more memory than it has bytes.
#[test]
fn damaged_pushes_with_a_right_checksum_never_panic() {
    let body = crate::entry::Body::new(
        crate::id::Name::new("act").expect("a name"),
        None,
        Vec::new(),
        None,
        crate::entry::Salt([1; 8]),
    );
    let base = crate::id::Base { epoch: EpochId([4; 8]), end: Offset(0) };
    let mut packer = Packer::default();
    for seq in 1..=3 {
        let header = crate::entry::Header::new(crate::id::RunId([1; 8]), seq, Seq(seq), base, Time::from_ms(1_000));
        let entry = crate::entry::Entry::new(header, Arc::new(body.clone())).expect("valid");
        packer.push(hello().actor, &entry);
    }
    packer.push_void(crate::packed::Void { from: Seq(4), through: Seq(9), reason: "damaged".into() });
    let chain = Chain::log_start(LogId([3; 16]));
    let good = Frame::Push(Push { log: 1, first: Seq(1), chain, entries: packer.finish() }).encode();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let (mut rejected, mut taken) = (0, 0);
    for _ in 0..20_000 {
        let mut content = good[4..].to_vec();
        for _ in 0..=draw(3) {
            let at = draw(content.len());
            match draw(4) {
                0 => content[at] ^= 1 << draw(8),
                1 => content[at] = draw(256) as u8,
                2 => content.truncate(at.max(1)),
                _ => content.insert(at, draw(256) as u8),
            }
        }
        let bytes = [&crc32c::crc32c(&content).to_le_bytes()[..], &content].concat();
        let mut session = live();
        open(&mut session, 1, facts(0, None));
        session.handle_bytes(0, &bytes);
        match std::iter::from_fn(|| session.poll_output()).find(|output| matches!(output, Output::Append(_))) {
            Some(_) => taken += 1,
            None => rejected += 1,
        }
    }
    assert!(rejected > 10_000 && taken > 0, "{rejected} rejected, {taken} well-formed all the same");
}

fn open_again(session: &mut ServerSession) {
    assert!(matches!(session.poll_output(), Some(Output::Forget { log: 1, .. })));
    open(session, 1, facts(100, None));
}
