//! The parts of a snapshot that have arrived, until it is whole.
//!
//! They outlive the socket that brought them: the next session says what is there, and the server goes on behind it. They
//! are in memory only, so a page that is loaded anew begins anew.
//!
//! **Invariant:** parts follow each other without a gap and name one cursor. That they are of one snapshot is told by the
//! digest of the whole, before it is used.

use crate::chain::Cursor;
use crate::entry::Digest;
use crate::protocol::frame::{SnapshotBegun, SnapshotPart};
use crate::session::client::PeerError;

/// The beginning of a snapshot.
#[derive(Debug)]
pub struct Parts {
    cursor: Cursor,
    bytes: Vec<u8>,
}

impl Parts {
    /// Nothing of a snapshot yet.
    pub(super) fn of(cursor: Cursor) -> Self {
        Self { cursor, bytes: Vec::new() }
    }

    /// Adds the next part; whether the snapshot is whole with it.
    ///
    /// # Errors
    /// [`PeerError::Unexpected`]: it does not follow what is there.
    pub(super) fn add(&mut self, part: &SnapshotPart) -> Result<bool, PeerError> {
        if part.at != self.bytes.len() as u64 || part.cursor != self.cursor {
            return Err(PeerError::Unexpected);
        }
        let end = part.at + part.bytes.len() as u64;
        if part.bytes.is_empty() || end > part.total {
            return Err(PeerError::Unexpected);
        }
        self.bytes.extend_from_slice(&part.bytes);
        Ok(end == part.total)
    }

    /// All of it.
    pub(super) fn finish(self) -> (Cursor, Vec<u8>) {
        (self.cursor, self.bytes)
    }

    /// What is there, for the server.
    pub(super) fn begun(&self) -> SnapshotBegun {
        SnapshotBegun { cursor: self.cursor, bytes: self.bytes.len() as u64, digest: Digest::of(&[&self.bytes]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Chain;
    use crate::id::{ActorId, ClientId, LogId, LogName, Offset, Seq};
    use crate::protocol::frame::Frame;
    use crate::session::client::{ClientSession, SessionEvent, subscription};
    use crate::storage::row::Identity;

    const TOTAL: u64 = 10;

    fn cursor(end: u64) -> Cursor {
        Cursor { next: Offset(end), chain: Chain::log_start(LogId([3; 16])) }
    }

    fn name() -> LogName {
        LogName::new("board").expect("a name")
    }

    fn part(end: u64, at: u64, bytes: &[u8]) -> Vec<u8> {
        Frame::SnapshotPart(SnapshotPart { log: 0, cursor: cursor(end), at, total: TOTAL, bytes: bytes.to_vec() })
            .encode()
    }

    /// The next session of a client that has subscribed from a position, and what it says of a snapshot.
    fn next(session: Option<ClientSession>, at: Option<u64>) -> (ClientSession, Option<SnapshotBegun>) {
        let identity = Identity::new(ClientId([1; 16]), ActorId([2; 16]));
        let mut next = ClientSession::hello(&identity, "", None, 0);
        next.go_on(session.map(ClientSession::end).unwrap_or_default());
        let position = at.map(|at| (LogId([3; 16]), cursor(at), Default::default()));
        next.subscribe(&name(), |number| subscription(number, &name(), position, (Seq(0), Seq(1)), true));
        let frames = std::iter::from_fn(|| next.poll()).map(|bytes| Frame::decode(&bytes).expect("a frame"));
        let begun = frames.filter_map(|frame| match frame {
            Frame::Subscribe(subscribe) => subscribe.logs.first().map(|log| log.begun),
            _ => None,
        });
        let begun = begun.last().expect("a subscription");
        (next, begun)
    }

    #[test]
    fn what_a_session_leaves_of_a_snapshot_is_said_in_the_next_one_and_gone_on_with() {
        let (mut session, begun) = next(None, None);
        assert_eq!(begun, None);
        session.handle(&part(80, 0, &[1; 4])).expect("taken");
        let (mut session, begun) = next(Some(session), Some(70));
        let digest = Digest::of(&[&[1; 4]]);
        assert_eq!(begun, Some(SnapshotBegun { cursor: cursor(80), bytes: 4, digest }));
        let (event, _) = session.handle(&part(80, 4, &[2; 6])).expect("taken");
        let bytes = [vec![1; 4], vec![2; 6]].concat();
        assert_eq!(event, Some(SessionEvent::Snapshot(name(), cursor(80), bytes)));
        assert_eq!(next(Some(session), None).1, None, "whole, it is not said any more");
    }

    #[test]
    fn parts_of_another_snapshot_are_not_added_and_its_first_takes_the_place() {
        let (mut session, _) = next(None, None);
        session.handle(&part(80, 0, &[1; 4])).expect("taken");
        let (mut session, _) = next(Some(session), None);
        assert_eq!(session.handle(&part(90, 4, &[2; 6])), Err(PeerError::Unexpected));
        let (mut session, begun) = next(Some(session), None);
        assert_eq!(begun, None, "what went wrong is asked for anew");
        session.handle(&part(80, 0, &[1; 4])).expect("taken");
        let (mut session, _) = next(Some(session), None);
        session.handle(&part(90, 0, &[2; 6])).expect("taken");
        let (event, _) = session.handle(&part(90, 6, &[3; 4])).expect("taken");
        let bytes = [vec![2; 6], vec![3; 4]].concat();
        assert_eq!(event, Some(SessionEvent::Snapshot(name(), cursor(90), bytes)));
    }

    #[test]
    fn who_is_behind_a_snapshot_by_now_has_no_use_for_its_beginning() {
        let (mut session, _) = next(None, None);
        session.handle(&part(80, 0, &[1; 4])).expect("taken");
        assert_eq!(next(Some(session), Some(80)).1, None);
    }
}
