//! The workload of these tests: authors of several logs before a server that moves one call at a time.

use std::path::PathBuf;

use driftlog_core::entry::Logged;
use driftlog_core::id::{LogName, Offset};
use driftlog_core::protocol::frame::Frame;
use driftlog_server::stepped::{Moment, Server, SessionNumber};
use driftlog_server::{Access, Config, StoreError, verify};
use driftlog_tests::author::{Author, Tally};
use driftlog_tests::disk::{Disk, VFS};

const LOGS: [&str; 3] = ["board/1", "board/2", "list/of things"];

/// Who writes where.
pub(crate) struct Workload {
    pub(crate) authors: Vec<Author>,
    sessions: Vec<SessionNumber>,
    operations: u64,
}

pub(crate) fn logs() -> Vec<LogName> {
    LOGS.iter().map(|log| LogName::new(log).expect("a name")).collect()
}

/// Opens a server over a disk.
pub(crate) fn open(disk: &Disk) -> Result<Server, StoreError> {
    let mut config = Config::new(disk.folder(), Access::Development);
    config.vfs = Some(VFS.to_owned());
    // Snapshots come into being within the workload.
    config.snapshot_entries = 15;
    Server::open(config, Moment { wall: 1_000, steady: 1_000 }, [9; 32])
}

impl Workload {
    pub(crate) fn new() -> Self {
        let authors = [("ann", 0), ("ben", 0), ("cem", 1), ("dua", 2)];
        let authors = authors.iter().zip(1..).map(|((name, log), seed)| Author::new(name, &logs()[*log], seed));
        Self { authors: authors.collect(), sessions: Vec::new(), operations: 0 }
    }

    /// Connects everybody. Whatever is pushed again, or told again, is so when this returns.
    pub(crate) fn connect(&mut self, server: &mut Server) -> Result<(), StoreError> {
        self.sessions = self.authors.iter().map(|_| server.connect()).collect();
        for at in 0..self.authors.len() {
            let hello = self.authors[at].hello();
            self.send(server, at, &hello)?;
        }
        Ok(())
    }

    /// One operation: a push of one author, at times settled verdicts and a snapshot.
    pub(crate) fn operate(&mut self, server: &mut Server) -> Result<(), StoreError> {
        let at = self.operations as usize % self.authors.len();
        self.operations += 1;
        server.set_time(Moment { wall: 1_000 + self.operations, steady: 1_000 + self.operations });
        let push = self.authors[at].act();
        self.send(server, at, &push)?;
        if self.operations.is_multiple_of(7) && self.authors[at].is_settled() {
            let settle = self.authors[at].settle();
            self.send(server, at, &settle)?;
        }
        // A snapshot that cannot be made is made another time.
        if let Ok(Some(made)) = server.make_snapshot() {
            server.store_snapshot(made);
            server.commit()?;
            server.answer();
        }
        Ok(())
    }

    /// A push that is committed, and whose answer is lost with the server.
    pub(crate) fn operate_unheard(&mut self, server: &mut Server) -> Result<(), StoreError> {
        let at = self.operations as usize % self.authors.len();
        self.operations += 1;
        let push = self.authors[at].act();
        server.receive(self.sessions[at], &push.encode());
        server.commit()?;
        Ok(())
    }

    /// Sends a frame, and everything that follows from it.
    fn send(&mut self, server: &mut Server, at: usize, frame: &Frame) -> Result<(), StoreError> {
        server.receive(self.sessions[at], &frame.encode());
        loop {
            let committed = server.commit()?.is_some();
            server.answer();
            let read = server.read() > 0;
            let heard = self.hear(server);
            if !committed && !read && !heard {
                return Ok(());
            }
        }
    }

    fn hear(&mut self, server: &mut Server) -> bool {
        let mut heard = false;
        for (author, session) in self.authors.iter_mut().zip(&self.sessions) {
            while let Some(bytes) = server.poll_frame(*session) {
                heard = true;
                if let Some(answer) = author.handle(Frame::decode(&bytes).expect("a frame")) {
                    server.receive(*session, &answer.encode());
                }
            }
        }
        heard
    }

    /// Compares every promise with the logs of a server.
    pub(crate) fn check(&self, server: &Server) -> Result<Tally, StoreError> {
        let mut tally = Tally::default();
        for log in logs() {
            let entries = entries(server, &log)?;
            for author in self.authors.iter().filter(|author| *author.log() == log) {
                tally.add(author.check(&entries));
            }
        }
        Ok(tally)
    }

    /// The same with the promises of an earlier time.
    pub(crate) fn promised_at(&self, earlier: &Self) -> Self {
        let authors = self.authors.iter().zip(&earlier.authors).map(|(author, earlier)| author.promised_at(earlier));
        Self { authors: authors.collect(), sessions: Vec::new(), operations: self.operations }
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.authors.iter().all(Author::is_settled)
    }
}

impl Clone for Workload {
    fn clone(&self) -> Self {
        Self { authors: self.authors.clone(), sessions: Vec::new(), operations: self.operations }
    }
}

/// A log from its beginning, its offsets and its chain checked.
pub(crate) fn entries(server: &Server, log: &LogName) -> Result<Vec<Logged>, StoreError> {
    let Some(identity) = server.log(log)? else { return Ok(Vec::new()) };
    let mut cursor = driftlog_core::chain::Cursor::start(identity.log_id);
    let mut all = Vec::new();
    loop {
        let placed = server.entries(log, cursor.next)?;
        if placed.is_empty() {
            return Ok(all);
        }
        for (logged, after) in placed {
            assert_eq!(logged.offset, Offset(all.len() as u64), "offsets are dense");
            cursor = cursor.after(&logged);
            assert_eq!(cursor, after, "the chain holds");
            all.push(logged);
        }
    }
}

/// What a scrub finds on a disk.
pub(crate) fn scrub(disk: &Disk) -> driftlog_server::Report {
    let folder: PathBuf = disk.folder();
    verify(&folder, Some(VFS), |_, _| {}).expect("reads to its end")
}
