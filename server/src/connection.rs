//! One socket: moves bytes between it and the session's state machine, and runs what the session asks for.
//!
//! Writing has a task of its own, so a peer that does not read never keeps its session from reading, and never delays
//! another session.

mod sessions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket};
use driftlog_core::id::{ActorId, LogName, UserId};
use driftlog_core::protocol::Code;
use driftlog_core::protocol::frame::{Hello, LogNumber, Nonce};
use driftlog_core::session::server::{
    Admission, EntriesRead, Grants, Output, Read, ReadFrom, Refusal, RequestId, ServerSession, SnapshotRead,
};
use driftlog_core::time::WallMs;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::{mpsc, oneshot};

use crate::Shared;
use crate::fanout::{Feed, Position, Waker};
use crate::store::StoreError;
use crate::writer::{Answer, Request};

pub(crate) use sessions::Sessions;
use sessions::{Ending, Registration};

/// How long a closed session may still need to send what it owes.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// How long the writer may need for what waits when the server ends.
const DRAIN_PATIENCE: Duration = Duration::from_secs(20);

/// What a read in the background brings.
enum Found {
    Entries(EntriesRead),
    Snapshot(Option<SnapshotRead>),
}

struct Connection {
    shared: Arc<Shared>,
    session: ServerSession,
    actor: ActorId,
    user: Option<UserId>,
    registration: Option<Registration>,
    ending: mpsc::Receiver<Ending>,
    ended: mpsc::Sender<Ending>,
    mailbox: mpsc::UnboundedSender<Answer>,
    answers: mpsc::UnboundedReceiver<Answer>,
    waker: Arc<Waker>,
    follows: BTreeMap<LogNumber, Arc<Feed>>,
    binding: Option<oneshot::Receiver<Result<Admission, Refusal>>>,
    reading: Option<(RequestId, oneshot::Receiver<Result<Found, StoreError>>)>,
}

/// Runs one session from the open socket to its end.
pub(crate) async fn run(socket: WebSocket, shared: Arc<Shared>) {
    let alive = shared.alive.clone();
    let (sink, stream) = socket.split();
    let (frames, waiting) = mpsc::channel(1);
    let writing = tokio::spawn(write(sink, waiting));
    Connection::new(shared).run(stream, frames).await;
    // The write task ends when the frames are out; a peer that does not take them is given up.
    let abort = writing.abort_handle();
    if tokio::time::timeout(CLOSE_PATIENCE, writing).await.is_err() {
        abort.abort();
    }
    drop(alive);
}

async fn write(mut sink: SplitSink<WebSocket, Message>, mut frames: mpsc::Receiver<Arc<[u8]>>) {
    while let Some(frame) = frames.recv().await {
        if sink.send(Message::Binary(Bytes::from_owner(frame))).await.is_err() {
            return;
        }
    }
    let _ = sink.close().await;
}

impl Connection {
    fn new(shared: Arc<Shared>) -> Self {
        let (mailbox, answers) = mpsc::unbounded_channel();
        let (ended, ending) = mpsc::channel(1);
        let session = ServerSession::new(shared.clock.steady(), shared.config.idle.as_millis() as u64);
        Self {
            shared,
            session,
            actor: ActorId::LOG,
            user: None,
            registration: None,
            ending,
            ended,
            mailbox,
            answers,
            waker: Arc::default(),
            follows: BTreeMap::new(),
            binding: None,
            reading: None,
        }
    }

    async fn run(mut self, mut stream: SplitStream<WebSocket>, frames: mpsc::Sender<Arc<[u8]>>) {
        let mut shutdown = self.shared.ending.clone();
        let (mut next, mut draining) = (None, None::<Instant>);
        loop {
            while let Some(output) = self.session.poll_output() {
                self.perform(output);
            }
            if draining.is_some_and(|since| self.session.is_settled() || since.elapsed() >= DRAIN_PATIENCE) {
                self.go_away(Code::ShuttingDown);
            }
            if next.is_none() {
                next = self.session.poll_frame();
            }
            if next.is_none() && self.session.is_closed() {
                break;
            }
            let (closed, draining_now) = (self.session.is_closed(), draining.is_some());
            let deadline = self.until_deadline(draining);
            tokio::select! {
                permit = frames.reserve(), if next.is_some() => match permit {
                    Ok(permit) => if let Some(frame) = next.take() { permit.send(frame) },
                    Err(_) => break,
                },
                message = stream.next(), if !closed && !draining_now => match message {
                    Some(Ok(message)) => if !self.receive(message) { break },
                    Some(Err(error)) => self.violated(&error),
                    None => break,
                },
                Some(answer) = self.answers.recv() => self.answered(answer),
                grown = self.waker.grown(), if !closed => {
                    grown.into_iter().for_each(|(number, end)| self.session.handle_grew(number, end));
                },
                admitted = received(&mut self.binding), if self.binding.is_some() => {
                    self.binding = None;
                    self.admitted(admitted);
                },
                found = received_read(&mut self.reading), if self.reading.is_some() => {
                    self.reading = None;
                    self.found(found);
                },
                Some(ending) = self.ending.recv() => match ending {
                    Ending::Superseded => self.go_away(Code::Superseded),
                },
                _ = shutdown.wait_for(|ending| *ending), if !draining_now => draining = Some(Instant::now()),
                () = tokio::time::sleep(deadline) => {
                    if closed { break }
                    let now = self.shared.clock.steady();
                    self.session.handle_timeout(now);
                },
            }
        }
        for (number, feed) in std::mem::take(&mut self.follows) {
            self.shared.feeds.leave(feed, &self.waker, number);
        }
    }

    fn until_deadline(&self, draining: Option<Instant>) -> Duration {
        if self.session.is_closed() {
            return CLOSE_PATIENCE;
        }
        let session = Duration::from_millis(self.session.timeout().saturating_sub(self.shared.clock.steady()));
        draining.map_or(session, |since| session.min(DRAIN_PATIENCE.saturating_sub(since.elapsed())))
    }

    /// Whether the socket goes on.
    fn receive(&mut self, message: Message) -> bool {
        let now = self.shared.clock.steady();
        match message {
            Message::Binary(bytes) => self.session.handle_bytes(now, &bytes),
            Message::Text(text) => self.session.handle_bytes(now, text.as_bytes()),
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Close(_) => return false,
        }
        true
    }

    /// A message that the socket itself refused: too large, or no WebSocket at all.
    fn violated(&mut self, error: &axum::Error) {
        let reason = error.to_string();
        let code = if reason.contains("too long") || reason.contains("too large") {
            Code::FrameTooLarge
        } else {
            Code::MalformedFrame
        };
        self.session.handle_violation(code, &reason);
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Authenticate(hello) => self.authenticate(hello),
            Output::Refresh(token) => {
                let answer = self.refresh(&token);
                self.session.handle_refreshed(answer);
            }
            Output::Open(open) => {
                // Followed before its facts are read, so that no growth is missed between the two.
                if open.read {
                    let feed = self.shared.feeds.follow(&open.name, &self.waker, open.log);
                    self.follows.insert(open.log, feed);
                }
                self.shared.writer.send(Request::Open { open, reply: self.mailbox.clone() });
            }
            Output::Append(append) => {
                self.shared.writer.send(Request::Append { append, reply: self.mailbox.clone() });
            }
            Output::Settle { name, through } => {
                self.shared.writer.send(Request::Settle { name, actor: self.actor, through });
            }
            Output::Read(read) => self.read(read),
            Output::Forget { log, .. } => {
                if let Some(feed) = self.follows.remove(&log) {
                    self.shared.feeds.leave(feed, &self.waker, log);
                }
            }
            Output::Keep { bytes, code, reason } => {
                if self.shared.sessions.seen_before(&bytes) {
                    let source = match &self.user {
                        Some(user) => format!("socket of {user}"),
                        None => "socket".to_owned(),
                    };
                    self.shared.writer.send(Request::Keep { bytes, source, code, reason });
                }
            }
            Output::Close => {}
        }
    }

    fn authenticate(&mut self, hello: Box<Hello>) {
        let identity = match self.shared.config.access.identify(hello.token.as_deref(), self.shared.clock.now()) {
            Ok(identity) => identity,
            Err(refusal) => return self.session.handle_admitted(self.shared.clock.now(), Err(refusal)),
        };
        self.actor = hello.actor;
        self.user = Some(identity.user.clone());
        let nonce = Nonce(crate::entropy());
        let (reply, bound) = oneshot::channel();
        self.shared.writer.send(Request::Bind { hello, user: identity.user.clone(), nonce, reply });
        let (admit, admission) = oneshot::channel();
        self.binding = Some(admission);
        tokio::spawn(async move {
            let answer = match bound.await {
                Ok(Ok(_)) => {
                    Ok(Admission { user: identity.user, grants: identity.grants, expires: identity.expires, nonce })
                }
                Ok(Err(error)) => Err(Refusal { code: error.code(), reason: error.to_string() }),
                Err(_) => Err(Refusal { code: Code::ShuttingDown, reason: "the server is ending".to_owned() }),
            };
            let _ = admit.send(answer);
        });
    }

    fn admitted(&mut self, answer: Option<Result<Admission, Refusal>>) {
        let Some(answer) = answer else { return };
        if answer.is_ok() {
            self.registration = Some(self.shared.sessions.register(self.actor, self.ended.clone()));
        }
        self.session.handle_admitted(self.shared.clock.now(), answer);
    }

    fn refresh(&self, token: &str) -> Result<(Grants, Option<WallMs>), Refusal> {
        let identity = self.shared.config.access.identify(Some(token), self.shared.clock.now())?;
        if self.user.as_ref() != Some(&identity.user) {
            let reason = "the token is of another user".to_owned();
            return Err(Refusal { code: Code::UserChanged, reason });
        }
        Ok((identity.grants, identity.expires))
    }

    fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Opened(request, facts) => self.session.handle_opened(request, facts),
            Answer::Committed(request, verdicts) => self.session.handle_committed(request, verdicts),
        }
    }

    fn go_away(&mut self, code: Code) {
        let spread = self.shared.config.retry_spread.as_millis() as u64;
        self.session.handle_ending(code, spread / 10, spread);
    }

    /// Reads from the feed at once if the position is there, else from the store in the background.
    fn read(&mut self, read: Read) {
        let Some(feed) = self.follows.get(&read.log).cloned() else { return };
        let now = self.shared.clock.now();
        let Read { request, log, name, actor, held, from } = read;
        let position = match from {
            ReadFrom::Cursor(from) => Some(Position { number: log, from, actor, held }),
            ReadFrom::Snapshot => None,
        };
        if let Some(frame) = position.and_then(|position| feed.frame(now, position)) {
            return self.session.handle_entries(request, EntriesRead::Frame(frame));
        }
        let (reply, found) = oneshot::channel();
        self.reading = Some((request, found));
        let (pool, reads) = (Arc::clone(&self.shared.pool), Arc::clone(&self.shared.reads));
        tokio::spawn(async move {
            let Ok(permit) = reads.acquire_owned().await else { return };
            let read = move || {
                let _permit = permit;
                let _ = reply.send(pool.read(|reads| match position {
                    Some(position) => read_entries(reads, &name, &feed, now, position).map(Found::Entries),
                    None => read_snapshot(reads, &name).map(Found::Snapshot),
                }));
            };
            let _ = tokio::task::spawn_blocking(read).await;
        });
    }

    fn found(&mut self, found: Option<(RequestId, Result<Found, StoreError>)>) {
        match found {
            Some((request, Ok(Found::Entries(read)))) => self.session.handle_entries(request, read),
            Some((request, Ok(Found::Snapshot(read)))) => self.session.handle_snapshot(request, read),
            Some((request, Err(error))) => {
                tracing::error!(%error, "a read failed");
                self.session.handle_read_failed(request, "the log could not be read");
            }
            None => {}
        }
    }
}

fn read_entries(
    reads: crate::store::Reads<'_>,
    name: &LogName,
    feed: &Feed,
    now: WallMs,
    at: Position,
) -> Result<EntriesRead, StoreError> {
    use driftlog_core::limits::{FRAME_BYTES_TARGET, FRAME_ENTRIES_MAX};
    let Some(log) = reads.log(name)? else { return Err(StoreError::corrupt("logs", "an open log is gone")) };
    let placed = reads.entries(log.key, at.from.next, FRAME_ENTRIES_MAX, FRAME_BYTES_TARGET)?;
    let (end, _) = reads.end(&log)?;
    let entries = placed.iter().map(|(logged, cursor)| (logged, *cursor));
    Ok(match feed.encode(now, at, end.next, entries) {
        Some(frame) => EntriesRead::Frame(frame),
        None => EntriesRead::End(end.next),
    })
}

fn read_snapshot(reads: crate::store::Reads<'_>, name: &LogName) -> Result<Option<SnapshotRead>, StoreError> {
    let Some(log) = reads.log(name)? else { return Ok(None) };
    let stored = reads.snapshot(log.key)?;
    Ok(stored.map(|stored| SnapshotRead { cursor: stored.cursor, bytes: stored.bytes.into() }))
}

async fn received<T>(receiver: &mut Option<oneshot::Receiver<T>>) -> Option<T> {
    match receiver {
        Some(receiver) => receiver.await.ok(),
        None => None,
    }
}

async fn received_read<T>(receiver: &mut Option<(RequestId, oneshot::Receiver<T>)>) -> Option<(RequestId, T)> {
    match receiver {
        Some((request, receiver)) => receiver.await.ok().map(|found| (*request, found)),
        None => None,
    }
}
