//! What waits in a session: frames for the socket, and answers of the shell.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::protocol::frame::LogNumber;
use crate::session::server::request::RequestId;

#[derive(Default)]
pub(super) struct Queue {
    pub(super) frames: VecDeque<Arc<[u8]>>,
    pub(super) bytes: usize,
}

impl Queue {
    pub(super) fn push(&mut self, frame: Arc<[u8]>) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    pub(super) fn pop(&mut self) -> Option<Arc<[u8]>> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.len();
        Some(frame)
    }
}

#[derive(Default)]
pub(super) struct Requests {
    pub(super) last: RequestId,
    /// Requests that an answer to the peer depends on, with the log of each; a pong waits for those before it.
    pub(super) open: BTreeMap<RequestId, LogNumber>,
    pub(super) reading: Option<(RequestId, LogNumber)>,
}

impl Requests {
    pub(super) fn next(&mut self) -> RequestId {
        self.last += 1;
        self.last
    }
}
