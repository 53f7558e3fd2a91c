//! Damaged frames to both ends of a session: they answer, close, or carry on, but never fall.

use driftlog_core::chain::{Chain, Cursor};
use driftlog_core::entry::Entry;
use driftlog_core::id::{ClientId, EpochId, LogId, LogName, Offset, Seq, UserId};
use driftlog_core::packed::{Packer, Pushed};
use driftlog_core::protocol::Frame;
use driftlog_core::protocol::frame::{Hello, LogNumber, Nonce, Push, SubscribeLog, Welcome};
use driftlog_core::random::Random;
use driftlog_core::sequencer::{Author, AuthorRow, Decided, Known, Sequencer};
use driftlog_core::session::client::{ClientSession, subscription};
use driftlog_core::session::server::{
    Admission, EntriesRead, Grants, LogFacts, Output, PushOutcome, ReadFrom, ServerSession, SnapshotRead,
};
use driftlog_core::state::State;
use driftlog_core::storage::row::Identity;
use driftlog_core::time::Time;

use crate::mutant::{Dice, damage};
use crate::targets::framed;
use crate::{ACTOR, bounded, seeds};

const TO_SERVERS: usize = 20_000;
const TO_CLIENTS: usize = 20_000;
const NOW: u64 = 1_750_000_000_000;
const LOG: LogId = LogId([0x10; 16]);

fn log_name() -> LogName {
    LogName::new("board/42").unwrap()
}

/// A server session and everything behind it, as small as can be.
struct Server {
    session: ServerSession,
    sequencer: Sequencer,
    row: AuthorRow,
}

impl Server {
    /// Live, with two logs open.
    fn live() -> Self {
        let mut sequencer = Sequencer::resume(State::new(LOG), Vec::new());
        sequencer.begin_epoch(EpochId([0xe1; 8]));
        let row = AuthorRow::new(ACTOR, &log_name());
        let mut server = Self { session: ServerSession::new(NOW, 60_000), sequencer, row };
        let hello = Hello {
            protocol_min: 1,
            protocol_max: 1,
            client: ClientId([0xc1; 16]),
            actor: ACTOR,
            predecessor: None,
            user: None,
            nonces: vec![],
            device: String::new(),
            token: None,
            now: NOW,
        };
        server.take(&Frame::Hello(hello).encode());
        for log in 0..2 {
            server.take(&Frame::from(subscribe(log)).encode());
        }
        server
    }

    fn take(&mut self, bytes: &[u8]) {
        self.session.handle_bytes(NOW, bytes);
        while let Some(output) = self.session.poll_output() {
            self.answer(output);
        }
        while self.session.poll_frame().is_some() {}
        let _ = self.session.timeout();
    }

    fn answer(&mut self, output: Output) {
        let user = UserId::new("alice").unwrap();
        match output {
            Output::Authenticate(_) => {
                let admission = Admission {
                    user,
                    grants: Grants::everything(),
                    expires: None,
                    nonce: Nonce([0x0c; 16]),
                    was: None,
                };
                self.session.handle_admitted(NOW, Ok(admission));
            }
            Output::Refresh(_) => self.session.handle_refreshed(Ok((Grants::everything(), None))),
            Output::Open(open) => {
                let facts = self.facts();
                self.session.handle_opened(open.request, Ok(facts));
            }
            Output::Append(append) => {
                let author = Author { actor: ACTOR, user: &user };
                let mut random = Random::new([7; 32]);
                let (row, known) = (&mut self.row, Known::default());
                let decided = self.sequencer.decide(NOW, author, row, append.push, &known, &mut random);
                let outcome = decided.map(|Decided { verdicts, held, .. }| PushOutcome { verdicts, held });
                self.session.handle_committed(append.request, outcome);
            }
            Output::Read(read) => match read.from {
                ReadFrom::Cursor(cursor) => self.session.handle_entries(read.request, EntriesRead::End(cursor.next)),
                ReadFrom::Snapshot(begun) => {
                    let cursor = Cursor { next: Offset(3), chain: Chain::log_start(LOG) };
                    let bytes = vec![0; 70_000].into();
                    self.session.handle_snapshot(read.request, Some(SnapshotRead::new(cursor, bytes, begun)));
                }
            },
            Output::Settle { .. }
            | Output::Present { .. }
            | Output::Forget { .. }
            | Output::Keep { .. }
            | Output::Close => {}
        }
    }

    fn facts(&self) -> LogFacts {
        LogFacts {
            log_id: LOG,
            epochs: self.sequencer.state().epochs().to_vec(),
            end: Offset(7_000),
            accepted: Time::from_ms(NOW),
            backed_up: None,
            first_retained: Offset(0),
            snapshot: Some(Offset(3)),
            chain_at_cursor: None,
            seq: self.row.seq,
            chain: self.row.chain,
            checkpoints: vec![],
            verdicts: None,
        }
    }
}

fn subscribe(log: LogNumber) -> SubscribeLog {
    let name = log_name();
    SubscribeLog {
        log,
        name,
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

/// Mostly damaged, mostly under a right checksum; now and then whole, so that a session gets anywhere.
fn next_frame(dice: &mut Dice, seeds: &[crate::Seed]) -> Vec<u8> {
    let (seed, other) = (dice.pick(seeds), dice.pick(seeds));
    match dice.below(8) {
        0 => damage(dice, &seed.bytes, &other.bytes),
        1 => seed.bytes.clone(),
        _ => framed(&damage(dice, &seed.bytes[4..], &other.bytes[4..])),
    }
}

/// What a client sends in a live session, and pushes that begin at its first seq.
fn from_clients() -> Vec<crate::Seed> {
    let server_only = ["welcome", "opened", "ack", "entries", "snapshot", "go away", "hello"];
    let mut seeds = seeds("frames.json");
    seeds.retain(|seed| !server_only.iter().any(|start| seed.name.starts_with(start)));
    let entries: Vec<_> =
        crate::seeds("entries.json").iter().map(|seed| Entry::from_bytes(&seed.bytes).unwrap()).collect();
    for count in 1..12 {
        let mut packer = Packer::default();
        entries[..count].iter().for_each(|entry| packer.push(ACTOR, entry));
        let chain = Chain::actor_start(ACTOR, &log_name());
        let push = Push { log: 0, first: Seq(1), chain, entries: packer.finish() };
        let bytes = righted(Frame::Push(push).encode());
        seeds.push(crate::Seed { name: format!("push of {count}"), row: String::new(), bytes });
    }
    seeds
}

/// A push whose chain fits its entries again, so that they come as far as the sequencer.
fn righted(bytes: Vec<u8>) -> Vec<u8> {
    let Ok(Frame::Push(mut push)) = Frame::decode(&bytes) else { return bytes };
    let Ok(items) = push.entries.unpack_pushed(ACTOR) else { return bytes };
    let start = Chain::actor_start(ACTOR, &log_name());
    push.chain = items.iter().fold(start, |chain, item| match item {
        Pushed::Entry(entry) => chain.with_pushed(entry.header.seq, entry.digest()),
        Pushed::Void(void) => chain.with_void(void.through, &void.reason),
    });
    Frame::Push(push).encode()
}

#[test]
fn a_server_survives_damaged_frames() {
    let (seeds, mut dice) = (from_clients(), Dice(5));
    let (mut server, mut sessions, mut decided) = (Server::live(), 1, 0);
    for case in 0..TO_SERVERS {
        let mut bytes = next_frame(&mut dice, &seeds);
        if dice.below(2) == 0 {
            bytes = righted(bytes);
        }
        bounded(&bytes, case, || server.take(&bytes));
        decided += u64::from(server.row.seq > Seq(0));
        // What was decided is not decided again: the next push needs a new log.
        if server.session.is_closed() || server.row.seq > Seq(0) {
            server = Server::live();
            sessions += 1;
        }
    }
    assert!(
        sessions > 100 && sessions < TO_SERVERS * 19 / 20,
        "{sessions} sessions: some damage ends one, some is carried"
    );
    assert!(decided > TO_SERVERS as u64 / 50, "only {decided} damaged pushes came as far as a decision");
}

/// A client session that is live, with one log.
fn client() -> ClientSession {
    let mut session = ClientSession::hello(&Identity::new(ClientId([0xc1; 16]), ACTOR), "", None, NOW);
    let user = UserId::new("alice").unwrap();
    let welcome = Welcome { protocol: 1, user, nonce: Nonce([0x0c; 16]), now: NOW, idle_ms: 60_000, credit: 1 << 20 };
    session.handle(&Frame::Welcome(welcome).encode()).unwrap();
    session.subscribe(&log_name(), |log| subscription(log, &log_name(), None, (Seq(0), Seq(1)), true));
    session
}

#[test]
fn a_client_survives_damaged_frames() {
    let (seeds, mut dice) = (seeds("frames.json"), Dice(6));
    let (mut session, mut sessions) = (client(), 1);
    for case in 0..TO_CLIENTS {
        let bytes = next_frame(&mut dice, &seeds);
        let taken = bounded(&bytes, case, || session.handle(&bytes).is_ok());
        while session.poll().is_some() {}
        if !taken {
            session = client();
            sessions += 1;
        }
    }
    assert!(sessions > 100 && sessions < TO_CLIENTS * 19 / 20, "{sessions} sessions");
}
