//! A device that is moved by hand: the real engine over a database in memory, on a time that is given, and its frames
//! carried to a stepped server or to nobody.

use driftlog_core::draft::Draft;
use driftlog_core::engine::{Config, Engine, Input, OWN_KEPT_BYTES, Output};
use driftlog_core::id::{ActorId, ClientId, LogName, RunId};
use driftlog_core::outbox::BacklogBound;
use driftlog_core::protocol::frame::Frame;
use driftlog_server::stepped::{Server, SessionNumber};

use crate::database::Database;
use crate::native;
use crate::sim::board;

/// Who is at the other end.
pub(super) enum Peer<'a> {
    /// There is no network.
    Nobody,
    /// A server that welcomes whoever comes, takes what is pushed, and commits nothing of it.
    Stalled(&'a mut Server),
    /// A server that works.
    Server(&'a mut Server),
}

impl Peer<'_> {
    fn server(&mut self) -> Option<&mut Server> {
        match self {
            Self::Nobody => None,
            Self::Stalled(server) | Self::Server(server) => Some(server),
        }
    }
}

/// One device.
pub(super) struct Device {
    pub(super) engine: Engine,
    pub(super) database: Database,
    session: Option<SessionNumber>,
    timeout: Option<u64>,
    /// Bytes of its pushes.
    pub(super) pushed_bytes: u64,
}

impl Device {
    /// Starts an engine on a database. A new one is known by `number`.
    pub(super) fn start(number: u8, database: Database, now: u64) -> Self {
        let config = Config {
            run: RunId(native::random()),
            client: ClientId([number; 16]),
            actor: ActorId([number; 16]),
            seed: [number; 32],
            device: format!("device {number}"),
            connect: true,
            token: false,
            backlog: BacklogBound::default(),
            own_kept_bytes: OWN_KEPT_BYTES,
        };
        let engine = Engine::new(config, now);
        Self { engine, database, session: None, timeout: None, pushed_bytes: 0 }
    }

    /// Opens the log: it can be used when this returns.
    pub(super) fn open(&mut self, log: &LogName, now: u64, peer: &mut Peer<'_>) {
        self.engine.open(log, board::schema(), now);
        self.engine.handle(Input::Elected, now);
        self.carry_on(now, peer);
    }

    /// Takes an action, and stores it.
    ///
    /// # Panics
    /// The engine does not take it.
    pub(super) fn act(&mut self, log: &LogName, draft: Draft, now: u64, peer: &mut Peer<'_>) {
        self.engine.act(log, draft, now).expect("an action that can be taken");
        self.carry_on(now, peer);
    }

    /// Carries out what the engine wants and brings it what the server says, until neither has more to do now.
    pub(super) fn carry_on(&mut self, now: u64, peer: &mut Peer<'_>) {
        if self.timeout.is_some_and(|due| due <= now) {
            self.timeout = None;
            self.engine.handle(Input::Timeout, now);
        }
        loop {
            let mut moved = false;
            while let Some(output) = self.engine.poll() {
                moved = true;
                if let Some(input) = self.carry_out(output, peer) {
                    self.engine.handle(input, now);
                }
            }
            if self.pushed_bytes == 0 || matches!(peer, Peer::Server(_)) {
                while peer.server().is_some_and(|server| server.commit().expect("the disk works").is_some()) {
                    peer.server().expect("asked just now").answer();
                }
            }
            if let Some(server) = peer.server() {
                server.read();
                while let Some(frame) = self.session.and_then(|session| server.poll_frame(session)) {
                    moved = true;
                    self.engine.handle(Input::SocketFrame(frame.to_vec()), now);
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// Its process ends without a good-bye.
    pub(super) fn end(self, peer: &mut Peer<'_>) -> Database {
        if let (Some(session), Some(server)) = (self.session, peer.server()) {
            server.disconnect(session);
        }
        self.database
    }

    fn carry_out(&mut self, output: Output, peer: &mut Peer<'_>) -> Option<Input> {
        match output {
            Output::Commit(id, commit) => Some(Input::Committed(id, self.database.commit(&commit))),
            Output::Read(id, ranges) => {
                let rows = ranges.iter().map(|range| self.database.read(range)).collect();
                Some(Input::Rows(id, Ok(rows)))
            }
            Output::SocketOpen => {
                self.session = peer.server().map(Server::connect);
                Some(match self.session {
                    Some(_) => Input::SocketOpened,
                    None => Input::SocketClosed("no network".into()),
                })
            }
            Output::SocketSend(bytes) => {
                if matches!(Frame::decode(&bytes), Ok(Frame::Push(_))) {
                    self.pushed_bytes += bytes.len() as u64;
                }
                let (session, server) = (self.session?, peer.server()?);
                server.receive(session, &bytes);
                None
            }
            Output::SocketWatch => Some(Input::SocketBuffered(0)),
            Output::SocketClose => {
                if let (Some(session), Some(server)) = (self.session.take(), peer.server()) {
                    server.disconnect(session);
                }
                None
            }
            Output::Timeout(due) => {
                self.timeout = Some(due);
                None
            }
            Output::Broken(reason) => panic!("{reason}"),
            _ => None,
        }
    }
}
