//! The logs that are asked for: what is asked for in one go goes in one frame.

use crate::chain::Cursor;
use crate::id::{EpochId, LogId, LogName, Offset, Seq};
use crate::limits;
use crate::protocol::frame::{Frame, LogNumber, Subscribe, SubscribeLog};

use super::Priority;

/// The logs that the next subscribe names.
#[derive(Debug, Default)]
pub(super) struct Asked {
    logs: Vec<SubscribeLog>,
}

impl Asked {
    /// One more; whether the frame names no more than these.
    pub(super) fn add(&mut self, log: SubscribeLog) -> bool {
        self.logs.push(log);
        self.logs.len() == limits::SUBSCRIBE_LOGS_MAX
    }

    /// The frame that names them, if there are any.
    pub(super) fn take(&mut self) -> Option<Frame> {
        let logs = std::mem::take(&mut self.logs);
        (!logs.is_empty()).then_some(Frame::Subscribe(Subscribe { logs }))
    }
}

/// The subscription of a log as the client stands.
pub fn subscription(
    log: LogNumber,
    name: &LogName,
    position: Option<(LogId, Cursor, (EpochId, Offset))>,
    (decided, held): (Seq, Seq),
    read: bool,
) -> SubscribeLog {
    SubscribeLog {
        log,
        name: name.clone(),
        log_id: position.map(|(log_id, _, _)| log_id),
        cursor: position.map(|(_, cursor, _)| cursor),
        epoch: position.map(|(_, _, epoch)| epoch),
        read,
        decided,
        held,
        priority: Priority::default().number(),
        end: None,
        begun: None,
    }
}
