//! What clients say of themselves in a log at the moment: passed on when little else waits for the socket, so that it goes
//! before entries, and is the first to be left out.

use serde_bytes::ByteBuf;

use crate::id::{ActorId, LogName, UserId};
use crate::limits;
use crate::protocol::Code;
use crate::protocol::frame::{self, Frame, LogNumber};
use crate::session::server::request::Output;

use super::{Phase, ServerSession};

/// Bytes of answers that wait when presences are left out.
const WAITING_MAX: usize = 16 * 1024;

impl ServerSession {
    /// Whether its socket has room for who is present now.
    pub fn takes_presence(&self) -> bool {
        matches!(self.phase, Phase::Live { .. }) && self.urgent.bytes < WAITING_MAX
    }

    /// The log of this number, if it is open and followed.
    pub fn followed(&self, number: LogNumber) -> Option<&LogName> {
        let subscription = self.subscriptions.get(number)?;
        subscription.place().map(|_| &subscription.name)
    }

    /// Somebody else says something of itself in a log, or nothing any more.
    pub fn handle_presence(&mut self, log: LogNumber, connection: ActorId, said: Option<(UserId, &[u8])>) {
        let said = said.map(|(user, value)| (user, ByteBuf::from(value)));
        self.send(&Frame::Presence(frame::Presence { log, connection, said }));
    }

    pub(super) fn handle_present(&mut self, frame::Present { log, value }: frame::Present) {
        if value.as_ref().is_some_and(|value| value.len() > limits::PRESENCE_BYTES_MAX) {
            return self.fail(Code::UnexpectedFrame, "a presence beyond its bound");
        }
        // Who does not read the log is not heard there, nor is who gave it up meanwhile. It need not be open yet.
        if let Some(subscription) = self.subscriptions.get(log).filter(|subscription| subscription.follows()) {
            let name = subscription.name.clone();
            self.outputs.push_back(Output::Present { name, value: value.map(ByteBuf::into_vec) });
        }
    }
}
