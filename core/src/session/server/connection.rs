//! What a session has to do with the connection that it is of: where its readers stand, and its end by a downgrade.

use crate::connection::{ConnectionState, Downgrade};
use crate::id::{LogName, Offset};
use crate::protocol::Code;
use crate::protocol::frame::{Frame, LogNumber};
use crate::time::WallMs;

use super::{Phase, ServerSession};

impl ServerSession {
    /// The connection is inactive from now on: say so, and end.
    pub fn handle_downgraded(&mut self, reason: Downgrade, since: WallMs, (retry_ms_min, retry_ms_max): (u64, u64)) {
        if matches!(self.phase, Phase::Live { .. }) {
            self.send(&Frame::Connection(ConnectionState::Inactive { reason, since }.into()));
        }
        self.handle_ending(Code::Downgraded, retry_ms_min, retry_ms_max);
    }

    /// Logs whose reader stands elsewhere than when this was asked last, and the next offset of each; none if it is not
    /// read any more.
    pub fn take_moved(&mut self) -> impl Iterator<Item = (LogNumber, Option<(&LogName, Offset)>)> {
        std::mem::take(&mut self.moved).into_iter().map(|number| {
            let subscription = self.subscriptions.get(number);
            (number, subscription.and_then(|found| Some((&found.name, found.place()?))))
        })
    }
}
