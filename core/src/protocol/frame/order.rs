//! The order in which frames that have arrived are taken in.

use super::Frame;

impl Frame {
    /// Whether a frame that waits to be taken in lets those pass that [`Frame::overtakes`]: entries and parts of snapshots.
    pub fn gives_way(bytes: &[u8]) -> bool {
        matches!(tag(bytes), Some(19 | 20))
    }

    /// Whether a frame that has arrived may be taken in before entries that wait: what a server sends before any that it
    /// has not sent yet. It passes nothing else, an error least of all, which says what the acks behind it mean.
    pub fn overtakes(bytes: &[u8]) -> bool {
        matches!(tag(bytes), Some(17 | 18 | 22 | 24 | 32))
    }
}

/// The type of a frame that was not read yet.
fn tag(bytes: &[u8]) -> Option<u8> {
    // A pair of type and content, behind the checksum.
    const PAIR: u8 = 0x92;
    bytes.get(4..6).filter(|begin| begin[0] == PAIR).map(|begin| begin[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Cursor;
    use crate::id::{ActorId, LogId, Offset, Seq};
    use crate::packed::Packer;
    use crate::protocol::Code;
    use crate::protocol::frame::{Ack, Credit, Entries, Error, Ping, Presence, SnapshotPart};

    #[test]
    fn answers_pass_entries_and_nothing_else_does() {
        let (log, at) = (1, Cursor::start(LogId([3; 16])));
        let entries = Entries { log, from: Offset(0), after: at, end: Offset(0), entries: Packer::default().finish() };
        let part = SnapshotPart { log, cursor: at, at: 0, total: 1, bytes: vec![0] };
        for frame in [Frame::Entries(entries), Frame::SnapshotPart(part)].map(|frame| frame.encode()) {
            assert!(Frame::gives_way(&frame) && !Frame::overtakes(&frame));
        }
        let ack = Ack { log, through: Seq(1), accepted: vec![], marked: vec![] };
        let presence = Presence { log, connection: ActorId([1; 16]), said: None };
        let credit = Credit { bytes: 1, of_log: None };
        for frame in [Frame::Ack(ack), Frame::Presence(presence), Frame::Credit(credit)].map(|frame| frame.encode()) {
            assert!(Frame::overtakes(&frame) && !Frame::gives_way(&frame));
        }
        let error = Error { code: Code::LogForked, reason: String::new(), log: Some(log), expected: None };
        for frame in [Frame::Error(error), Frame::Pong(Ping { nonce: 1 })].map(|frame| frame.encode()) {
            assert!(!Frame::overtakes(&frame) && !Frame::gives_way(&frame));
        }
        assert!(!Frame::overtakes(&[0; 5]) && !Frame::gives_way(&[]), "what is no frame keeps its place");
    }
}
