//! A writer under load: pushes what has piled up with it as far as its credit goes, and reads while its writes block.

use std::sync::Arc;

use driftlog_core::id::{LogName, Seq};
use driftlog_core::protocol::frame::{Ack, Frame};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Message;

use super::{Count, Failure};
use crate::peer::{Peer, Socket};

/// Entries of one push at the most.
const PUSH_ENTRIES: u64 = 256;
/// What each entry says.
const VALUE_BYTES: usize = 100;

/// One writer of one log.
pub(super) struct Writer {
    name: usize,
    peer: Peer,
    record: String,
    value: String,
    pushed: u64,
    credit: u64,
    decided: Seq,
}

/// What a writer came to.
pub(super) struct Told {
    pub(super) name: usize,
    /// Entries that it pushed, each of which was accepted.
    pub(super) entries: u64,
}

impl Writer {
    /// Connects, and makes the record that all its entries are about.
    pub(super) async fn begin(url: &str, name: usize, log: &LogName) -> Result<(Self, Socket), Failure> {
        let mut peer = Peer::new(&format!("{name}-writer"));
        peer.set_log(log.clone());
        let (mut socket, _) = peer.open_to_push(url).await;
        let (record, value) = (format!("of {name}"), "x".repeat(VALUE_BYTES));
        let first = peer.act(Peer::insert(&record));
        let frame = peer.push(&[first]).encode();
        let pushed = frame.len() as u64;
        socket.send_bytes(frame).await;
        let decided = socket.ack().await.through;
        let credit = socket.credit;
        Ok((Self { name, peer, record, value, pushed, credit, decided }, socket))
    }

    /// Pushes until it is told to end, and has every verdict.
    pub(super) async fn run(
        mut self,
        socket: Socket,
        backlog: Arc<Count>,
        accepted: Arc<Count>,
        mut end: watch::Receiver<bool>,
    ) -> Result<Told, Failure> {
        let (mut sink, mut stream) = socket.into_stream().split();
        let (frames, mut waiting) = mpsc::channel::<Vec<u8>>(1);
        let writing = tokio::spawn(async move {
            while let Some(frame) = waiting.recv().await {
                sink.send(Message::binary(frame)).await?;
            }
            Ok::<(), tokio_tungstenite::tungstenite::Error>(())
        });
        loop {
            let ending = *end.borrow();
            if ending && self.decided == self.peer.seq {
                break;
            }
            let has_work = !ending && backlog.get() > 0;
            tokio::select! {
                permit = frames.reserve(), if has_work && self.pushed < self.credit => {
                    permit?.send(self.push(&backlog));
                }
                received = stream.next() => match received.ok_or("the server hung up")?? {
                    Message::Binary(bytes) => {
                        let before = self.decided;
                        if let Some(answer) = self.hear(Frame::decode(&bytes)?)? {
                            frames.send(answer.encode()).await?;
                        }
                        accepted.add(self.decided.0 - before.0);
                    }
                    Message::Close(_) => return Err("the server hung up".into()),
                    _ => {}
                },
                () = backlog.changed(), if !has_work => {}
                _ = end.changed(), if !ending => {}
            }
        }
        drop(frames);
        writing.await??;
        Ok(Told { name: self.name, entries: self.peer.seq.0 })
    }

    /// The next push of what has piled up.
    fn push(&mut self, backlog: &Count) -> Vec<u8> {
        let entries: Vec<_> =
            (0..backlog.take(PUSH_ENTRIES)).map(|_| self.peer.act(Peer::set(&self.record, &self.value))).collect();
        let frame = self.peer.push(&entries).encode();
        self.pushed += frame.len() as u64;
        frame
    }

    /// Hears a frame; the frame that answers it, if one does.
    fn hear(&mut self, frame: Frame) -> Result<Option<Frame>, Failure> {
        match frame {
            Frame::Credit(credit) => self.credit = credit.bytes,
            Frame::Ack(Ack { through, marked, .. }) if marked.is_empty() => self.decided = through,
            Frame::Ack(ack) => return Err(format!("not simply accepted: {:?}", ack.marked).into()),
            Frame::Ping(ping) => return Ok(Some(Frame::Pong(ping))),
            Frame::Entries(_) => {}
            other => return Err(format!("not expected by a writer: {other:?}").into()),
        }
        Ok(None)
    }
}
