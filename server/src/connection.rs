//! One socket: moves bytes between it and its conversation, and waits for both.
//!
//! Writing has a task of its own, so a peer that does not read never keeps its session from reading, and never delays
//! another session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket};
use driftlog_core::protocol::Code;
use driftlog_core::session::server::RequestId;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::{mpsc, oneshot};

use crate::Shell;
use crate::conversation::{Conversation, Found, Inbox, StoreRead};
use crate::store::StoreError;

/// How long a closed session may still need to send what it owes.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// How long the writer may need for what waits when the server ends.
const DRAIN_PATIENCE: Duration = Duration::from_secs(20);

struct Connection {
    shell: Arc<Shell>,
    conversation: Conversation,
    inbox: Inbox,
    reading: Option<(RequestId, oneshot::Receiver<Result<Found, StoreError>>)>,
}

/// Runs one session from the open socket to its end.
pub(crate) async fn run(socket: WebSocket, shell: Arc<Shell>) {
    let alive = shell.alive.clone();
    let (sink, mut stream) = socket.split();
    let (frames, waiting) = mpsc::channel(1);
    let writing = tokio::spawn(write(sink, waiting));
    let (conversation, inbox) = Conversation::new(Arc::clone(&shell.shared));
    let mut connection = Connection { shell, conversation, inbox, reading: None };
    connection.run(&mut stream, frames).await;
    if !connection.conversation.is_welcomed() {
        // What it said is not read, and closing on that would take back what it is told: let it close.
        let _ = tokio::time::timeout(CLOSE_PATIENCE, async { while let Some(Ok(_)) = stream.next().await {} }).await;
    }
    drop(connection);
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
    async fn run(&mut self, stream: &mut SplitStream<WebSocket>, frames: mpsc::Sender<Arc<[u8]>>) {
        let mut shutdown = self.shell.ending.clone();
        let (mut next, mut draining) = (None, None::<Instant>);
        loop {
            self.drain();
            if draining.is_some_and(|since| self.conversation.is_settled() || since.elapsed() >= DRAIN_PATIENCE) {
                self.conversation.go_away(Code::ShuttingDown);
            }
            if next.is_none() {
                next = self.conversation.poll_frame();
            }
            if next.is_none() && self.conversation.is_closed() {
                break;
            }
            let (closed, draining_now) = (self.conversation.is_closed(), draining.is_some());
            let heard = !closed && !draining_now && self.conversation.may_receive();
            let deadline = self.until_deadline(draining);
            tokio::select! {
                permit = frames.reserve(), if next.is_some() => match permit {
                    Ok(permit) => if let Some(frame) = next.take() { permit.send(frame) },
                    Err(_) => break,
                },
                message = stream.next(), if heard => match message {
                    Some(Ok(message)) => if !self.receive(message) { break },
                    Some(Err(error)) => self.violated(&error),
                    None => break,
                },
                // The next round asks anew what it was waiting for.
                () = self.inbox.share.changed(), if !closed => {}
                Some(answer) = self.inbox.answers.recv() => self.conversation.answered(answer),
                grown = self.inbox.waker.grown(), if !closed => self.conversation.grown(grown),
                found = received(&mut self.reading), if self.reading.is_some() => {
                    self.reading = None;
                    if let Some((request, found)) = found {
                        self.conversation.found(request, found);
                    }
                },
                Some(ending) = self.inbox.ending.recv() => self.conversation.ended(ending),
                _ = shutdown.wait_for(|ending| *ending), if !draining_now => draining = Some(Instant::now()),
                () = tokio::time::sleep(deadline) => {
                    if closed { break }
                    self.conversation.handle_timeout();
                },
            }
        }
    }

    fn until_deadline(&self, draining: Option<Instant>) -> Duration {
        if self.conversation.is_closed() {
            return CLOSE_PATIENCE;
        }
        let now = self.shell.shared.environment.steady();
        let session = Duration::from_millis(self.conversation.timeout().saturating_sub(now));
        draining.map_or(session, |since| session.min(DRAIN_PATIENCE.saturating_sub(since.elapsed())))
    }

    /// Whether the socket goes on.
    fn receive(&mut self, message: Message) -> bool {
        match message {
            Message::Binary(bytes) => self.conversation.receive(&bytes),
            Message::Text(text) => self.conversation.receive(text.as_bytes()),
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
        self.conversation.violated(code, &reason);
    }

    /// Carries out what the session asks for; the store is read in the background.
    fn drain(&mut self) {
        if let Some(read) = self.conversation.drain() {
            let (reply, found) = oneshot::channel();
            self.reading = Some((read.request(), found));
            tokio::spawn(run_read(Arc::clone(&self.shell), read, reply));
        }
    }
}

async fn run_read(shell: Arc<Shell>, read: StoreRead, reply: oneshot::Sender<Result<Found, StoreError>>) {
    let Ok(permit) = Arc::clone(&shell.reads).acquire_owned().await else { return };
    let pool = Arc::clone(&shell.shared.pool);
    let run = move || {
        let _permit = permit;
        let _ = reply.send(pool.read(|reads| read.run(reads)));
    };
    let _ = tokio::task::spawn_blocking(run).await;
}

async fn received<T>(receiver: &mut Option<(RequestId, oneshot::Receiver<T>)>) -> Option<(RequestId, T)> {
    match receiver {
        Some((request, receiver)) => receiver.await.ok().map(|found| (*request, found)),
        None => None,
    }
}
