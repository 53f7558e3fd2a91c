//! Frames: every type, with every option, and what is no frame.

use driftlog_core::chain::{Chain, Cursor};
use driftlog_core::codec::to_bytes;
use driftlog_core::connection::{ConnectionState, Downgrade};
use driftlog_core::entry::Gone;
use driftlog_core::entry::{Digest, Logged};
use driftlog_core::id::{ActorId, ClientId, LogId, LogName, Offset, Seq, UserId};
use driftlog_core::limits;
use driftlog_core::op::{FieldOp, Op};
use driftlog_core::packed::{Gap, Packed, Packer, Void};
use driftlog_core::protocol::frame::*;
use driftlog_core::protocol::{Code, Frame};
use driftlog_core::time::Time;
use driftlog_core::value::Value;

use crate::Vector;
use crate::described::{content_json, json};
use crate::entries::{EPOCH, NOW, acting, insert, update};

pub(crate) const ACTOR: ActorId = ActorId([0xa1; 16]);
pub(crate) const OTHER: ActorId = ActorId([0xa2; 16]);
pub(crate) const CLIENT: ClientId = ClientId([0xc1; 16]);
pub(crate) const LOG: LogId = LogId([0x10; 16]);

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

pub(crate) fn chain(byte: u8) -> Chain {
    Chain(Digest([byte; 32]))
}

pub(crate) fn log_name() -> LogName {
    LogName::new("board/42").unwrap()
}

/// An entry at an offset, a little after it was written.
pub(crate) fn logged(offset: u64, actor: ActorId, seq: u64, ops: Vec<Op>) -> Logged {
    let entry = acting(seq, ops);
    let accepted = Time::from_ms(NOW + 1_000 + offset);
    let user = user(if actor == ACTOR { "alice" } else { "bob" });
    Logged { offset: Offset(offset), actor, user, accepted, base: entry.header.base.end.min(Offset(offset)), entry }
}

/// Entries, a stub and a gap, from offset 45 on.
pub(crate) fn received() -> Packed {
    let title = |text: &str| vec![update("title", FieldOp::Set(Value::from(text)))];
    let mut packer = Packer::default();
    packer.logged(&logged(45, OTHER, 1, vec![insert()]));
    packer.logged(&logged(46, OTHER, 2, title("Bread")));
    packer.stub(&logged(47, ACTOR, 3, title("Butter")));
    let mut gap = Gap::new(Gone::Expired, Cursor { next: Offset(48), chain: chain(0x48) });
    gap.pass(&logged(48, OTHER, 3, vec![]), Cursor { next: Offset(49), chain: chain(0x48) });
    gap.pass(&logged(49, ACTOR, 8, vec![]), Cursor { next: Offset(50), chain: chain(0x49) });
    packer.gap(gap);
    packer.logged(&logged(50, ACTOR, 9, title("Beer")));
    packer.finish()
}

fn pushed() -> Packed {
    let mut packer = Packer::default();
    packer.push(ACTOR, &acting(3, vec![insert()]));
    let mut second = acting(4, vec![update("done", FieldOp::Set(Value::from(true)))]);
    let mut header = second.header.clone();
    header.needs = vec![Seq(3)];
    header.own = Some(Seq(1));
    second = crate::entries::entry(header, (*second.body).clone());
    packer.push(ACTOR, &second);
    packer.push_void(Void { from: Seq(5), through: Seq(7), reason: "damaged".to_owned() });
    packer.push(ACTOR, &acting(8, vec![]));
    packer.finish()
}

fn vector(name: &str, note: &'static str, frame: Frame) -> Vector {
    let (is, kind) = (content_json(&frame), json(type_name(&frame)));
    Vector::decodes(name, note, frame.encode(), frame, is, Frame::decode).with("type", kind)
}

fn type_name(frame: &Frame) -> &'static str {
    match frame {
        Frame::Hello(_) => "hello",
        Frame::Token(_) => "token",
        Frame::Subscribe(_) => "subscribe",
        Frame::Priority(_) => "priority",
        Frame::Unsubscribe(_) => "unsubscribe",
        Frame::Push(_) => "push",
        Frame::Settled(_) => "settled",
        Frame::Welcome(_) => "welcome",
        Frame::Opened(_) => "opened",
        Frame::Ack(_) => "ack",
        Frame::Entries(_) => "entries",
        Frame::SnapshotPart(_) => "snapshot-part",
        Frame::GoAway(_) => "go-away",
        Frame::Held(_) => "held",
        Frame::Connection(_) => "connection",
        Frame::Present(_) => "present",
        Frame::Presence(_) => "presence",
        Frame::Credit(_) => "credit",
        Frame::Ping(_) => "ping",
        Frame::Pong(_) => "pong",
        Frame::Error(_) => "error",
    }
}

pub(crate) fn vectors() -> Vec<Vector> {
    let mut vectors = client();
    vectors.extend(server());
    vectors.extend(both());
    vectors.extend(refused());
    vectors
}

fn client() -> Vec<Vector> {
    let nonces = vec![Nonce([0x0b; 16]), Nonce([0x0a; 16])];
    let first = Hello {
        protocol_min: 1,
        protocol_max: 1,
        client: CLIENT,
        actor: ACTOR,
        predecessor: None,
        user: None,
        nonces: vec![],
        device: "phone".to_owned(),
        token: None,
        now: NOW,
    };
    let token = Some("header.claims.signature".to_owned());
    let (predecessor, alice) = (Some(OTHER), Some(user("alice")));
    let again = Hello { predecessor, user: alice, nonces, token, ..first.clone() };
    let subscribe = SubscribeLog {
        log: 0,
        name: log_name(),
        log_id: None,
        cursor: None,
        epoch: None,
        read: true,
        decided: Seq(0),
        held: Seq(1),
        priority: 128,
        end: None,
        begun: None,
    };
    let resumed = SubscribeLog {
        log: 1,
        log_id: Some(LOG),
        cursor: Some(Cursor { next: Offset(45), chain: chain(0x45) }),
        epoch: Some((EPOCH, Offset(40))),
        read: false,
        priority: 255,
        end: None,
        ..subscribe.clone()
    };
    let begun = Some(SnapshotBegun {
        cursor: Cursor { next: Offset(6_000), chain: chain(0x60) },
        bytes: 131_072,
        digest: Digest([0x61; 32]),
    });
    let cut = SubscribeLog { log: 3, begun, ..subscribe.clone() };
    let history = SubscribeLog {
        log: 2,
        read: true,
        held: Seq(u64::MAX),
        epoch: None,
        end: Some(Offset(300)),
        ..resumed.clone()
    };
    let several = Frame::Subscribe(Subscribe { logs: vec![subscribe.clone(), cut.clone()] });
    vec![
        vector("hello", "of a new database, without a token", Frame::Hello(first)),
        vector("hello again", "with everything", Frame::Hello(again)),
        vector("token", "", Frame::Token(Token { token: "fresh".to_owned() })),
        vector("subscribe", "to a log never met", Frame::from(subscribe)),
        vector("subscribe from a cursor", "only to push", Frame::from(resumed)),
        vector("subscribe behind a cut", "with the beginning of a snapshot", Frame::from(cut)),
        vector("subscribe to several", "one of them with the beginning of a snapshot", several),
        vector("priority", "high from now on", Frame::Priority(Priority { log: 1, priority: 255 })),
        vector("subscribe to history", "a stretch, beside the log itself", Frame::from(history)),
        vector("unsubscribe", "", Frame::Unsubscribe(Unsubscribe { log: 1 })),
        vector(
            "push",
            "entries and a void, packed",
            Frame::Push(Push { log: 0, first: Seq(3), chain: chain(0x08), entries: pushed() }),
        ),
        vector("settled", "", Frame::Settled(Settled { log: 0, through: Seq(8) })),
        vector("present", "", Frame::Present(Present { log: 0, value: Some(vec![0x07].into()) })),
        vector("present no more", "", Frame::Present(Present { log: 0, value: None })),
    ]
}

fn server() -> Vec<Vector> {
    let returned = ConnectionState::Active { was: Some((Downgrade::Idle, NOW)) };
    let value = vec![0x81, 0xa1, b'x', 0x07].into();
    let said = Presence { log: 0, connection: OTHER, said: Some((user("bob"), value)) };
    let gone = Presence { log: 0, connection: OTHER, said: None };
    let inactive = ConnectionState::Inactive { reason: Downgrade::Pressure, since: NOW };
    let welcome = Welcome {
        protocol: 1,
        user: user("alice"),
        nonce: Nonce([0x0c; 16]),
        now: NOW,
        idle_ms: 60_000,
        credit: 1 << 20,
    };
    let opened = Opened {
        log: 0,
        log_id: LOG,
        epochs: vec![(EPOCH, Offset(0))],
        end: Offset(0),
        accepted: Time::MIN,
        seq: Seq(0),
        chain: chain(0),
        checkpoints: vec![],
        append: true,
        backed_up: None,
    };
    let known = Opened {
        epochs: vec![(EPOCH, Offset(0)), (driftlog_core::id::EpochId([0xe2; 8]), Offset(44))],
        end: Offset(51),
        accepted: Time::from_ms(NOW),
        seq: Seq(8),
        chain: chain(8),
        checkpoints: vec![(Seq(6), chain(6)), (Seq(4), chain(4))],
        append: false,
        backed_up: Some(Seq(5)),
        ..opened.clone()
    };
    let range = AckRange { seq: Seq(3), offset: Offset(45), count: 2, accepted: Time::from_parts(NOW, 3) };
    let mark = |seq, status, code, reason: &str| Marked { seq: Seq(seq), status, code, reason: reason.to_owned() };
    let marked = vec![
        mark(5, MarkedStatus::Refused, Some(Code::DependsOn), "seq 4, which it builds on, is not in the log"),
        mark(6, MarkedStatus::Parked, Some(Code::EntryForbidden), ""),
        mark(7, MarkedStatus::Void, Some(Code::Void), "damaged"),
        mark(8, MarkedStatus::Expired, None, ""),
        mark(9, MarkedStatus::RecordGone, None, ""),
        mark(10, MarkedStatus::Elsewhere, None, ""),
        mark(11, MarkedStatus::Newer(9), Some(Code::Newer(599)), "of a newer server"),
    ];
    let entries = Entries {
        log: 0,
        from: Offset(45),
        after: Cursor { next: Offset(51), chain: chain(0x51) },
        end: Offset(60),
        entries: received(),
    };
    let part = SnapshotPart {
        log: 0,
        cursor: Cursor { next: Offset(45), chain: chain(0x45) },
        at: 65_536,
        total: 65_540,
        bytes: vec![1, 2, 3, 4],
    };
    vec![
        vector("welcome", "", Frame::Welcome(welcome)),
        vector("opened", "an empty log", Frame::Opened(opened)),
        vector("opened again", "with a history", Frame::Opened(known)),
        vector(
            "ack",
            "all accepted",
            Frame::Ack(Ack { log: 0, through: Seq(4), accepted: vec![range], marked: vec![] }),
        ),
        vector(
            "ack with marks",
            "every status",
            Frame::Ack(Ack { log: 0, through: Seq(10), accepted: vec![], marked }),
        ),
        vector("entries", "two authors, a stub and a gap, packed", Frame::Entries(entries)),
        vector("snapshot part", "", Frame::SnapshotPart(part)),
        vector(
            "go away",
            "",
            Frame::GoAway(GoAway { code: Code::ShuttingDown, retry_ms_min: 500, retry_ms_max: 5_000 }),
        ),
        vector(
            "held",
            "",
            Frame::Held(Held { log: 0, seq: Seq(7), reason: "the price list is loading".to_owned(), retry_ms: 5_000 }),
        ),
        vector("presence", "", Frame::Presence(said)),
        vector("presence that is gone", "", Frame::Presence(gone)),
        vector("connection", "active as ever", Frame::Connection(ConnectionState::Active { was: None }.into())),
        vector("connection that was away", "it was inactive until now", Frame::Connection(returned.into())),
        vector("connection that is downgraded", "", Frame::Connection(inactive.into())),
    ]
}

fn both() -> Vec<Vector> {
    let error = Error { code: Code::Unauthenticated, reason: "no token".to_owned(), log: None, expected: None };
    let expected =
        Error { code: Code::ExpectedSeq, reason: "next is 7".to_owned(), log: Some(0), expected: Some(Seq(7)) };
    vec![
        vector("credit", "", Frame::Credit(Credit { bytes: 2 << 20, of_log: None })),
        vector("credit of a log", "", Frame::Credit(Credit { bytes: 2 << 20, of_log: Some((1, 3 << 19)) })),
        vector("ping", "", Frame::Ping(Ping { nonce: 7 })),
        vector("ping with the largest nonce", "", Frame::Ping(Ping { nonce: u64::MAX })),
        vector("pong", "", Frame::Pong(Ping { nonce: 7 })),
        vector("error", "of the session", Frame::Error(error)),
        vector("error of a log", "", Frame::Error(expected)),
    ]
}

fn refused() -> Vec<Vector> {
    let refuse = |name: &str, note, bytes: Vec<u8>, code: Code| {
        let got = Frame::decode(&bytes).map_err(|error| error.code());
        assert_eq!(got, Err(code), "{name}");
        Vector::refused(name, note, bytes, Frame::decode).with("code", json(code.name()))
    };
    let sealed = |body: Vec<u8>| {
        let crc = checksum(&body);
        [crc.to_vec(), body].concat()
    };
    let ping = Frame::Ping(Ping { nonce: 7 }).encode();
    let mut flipped = ping.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let trailing = sealed([&ping[4..], &[0xc0]].concat());
    vec![
        refuse("nothing", "", vec![], Code::MalformedFrame),
        refuse("three bytes", "too short for a checksum", vec![0; 3], Code::MalformedFrame),
        refuse("only a checksum", "", sealed(vec![]), Code::MalformedFrame),
        refuse("a flipped bit", "", flipped, Code::FrameChecksum),
        refuse("a cut frame", "", ping[..ping.len() - 1].to_vec(), Code::FrameChecksum),
        refuse("bytes behind the end", "", trailing, Code::MalformedFrame),
        refuse("an unknown type", "", sealed(to_bytes(&(99u8, ()))), Code::MalformedFrame),
        refuse("a type alone", "", sealed(to_bytes(&(33u8,))), Code::MalformedFrame),
        refuse("a field too few", "", sealed(to_bytes(&(32u8, [(); 0]))), Code::MalformedFrame),
    ]
}

/// CRC32C of bytes, as a sealed record carries it.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    let mut sealed = Vec::new();
    driftlog_core::codec::seal(bytes, &mut sealed);
    *sealed[4..].first_chunk().unwrap()
}

#[test]
fn packed_entries_unpack_to_what_was_packed() {
    let items = received().unpack(Offset(45)).unwrap();
    assert_eq!(items.len(), 5);
    let pushed = pushed().unpack_pushed(ACTOR).unwrap();
    assert_eq!(pushed.len(), 4);
    assert!(received().unpack_pushed(ACTOR).is_err(), "another's entries are not pushed");
}

#[test]
fn a_frame_beyond_the_limit_is_refused_unread() {
    let large = vec![0; limits::FRAME_BYTES_MAX + 1];
    assert_eq!(Frame::decode(&large).map_err(|error| error.code()), Err(Code::FrameTooLarge));
}
