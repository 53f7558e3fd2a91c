//! Credit for pushes: how many bytes the client may have sent since the session began, and how many came so far.
//!
//! How much may be under way at once, between its arrival and its answer, is the window. The shell sets it, by what
//! waits in the whole server: it widens and narrows at any time. Credit that was given is never taken back, so a
//! narrower window is come to by giving nothing until enough was answered.

use std::collections::BTreeMap;

use crate::limits;
use crate::protocol::frame::LogNumber;
use crate::session::server::request::RequestId;

/// Credit for the push frames of one session, in bytes since it began.
pub(super) struct PushCredit {
    window: u64,
    received: u64,
    answered: u64,
    granted: u64,
    under_way: BTreeMap<RequestId, (LogNumber, u64)>,
}

impl PushCredit {
    pub(super) fn new() -> Self {
        Self { window: limits::CREDIT_BYTES, received: 0, answered: 0, granted: 0, under_way: BTreeMap::new() }
    }

    pub(super) fn set_window(&mut self, bytes: u64) {
        self.window = bytes.min(limits::CREDIT_BYTES);
    }

    /// The session begins: what the welcome gives.
    pub(super) fn begin(&mut self) -> u64 {
        self.granted = self.window;
        self.granted
    }

    /// A push arrived; whether there was credit for it. One push may reach beyond, the next waits.
    pub(super) fn receive(&mut self, cost: u64) -> bool {
        let covered = self.received < self.granted;
        self.received += cost;
        covered
    }

    /// A push was handed on.
    pub(super) fn hand_on(&mut self, request: RequestId, log: LogNumber, cost: u64) {
        self.under_way.insert(request, (log, cost));
    }

    /// A push that was handed on is answered; its log.
    pub(super) fn answer(&mut self, request: RequestId) -> Option<LogNumber> {
        let (log, cost) = self.under_way.remove(&request)?;
        self.answered += cost;
        Some(log)
    }

    /// A push was answered at once.
    pub(super) fn answer_at_once(&mut self, cost: u64) {
        self.answered += cost;
    }

    /// What to give now, in total: by halves of the window, and all there is to one whose every push is answered.
    pub(super) fn grant(&mut self) -> Option<u64> {
        let target = self.answered + self.window;
        let more = target.saturating_sub(self.granted);
        if more == 0 || !(more >= self.window.div_ceil(2) || self.is_used_up()) {
            return None;
        }
        self.granted = target;
        Some(target)
    }

    /// Whether the client has no credit left, and nothing of it is under way that would bring it some.
    pub(super) fn is_used_up(&self) -> bool {
        self.received >= self.granted && self.under_way.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 1_000;

    fn begun() -> PushCredit {
        let mut credit = PushCredit::new();
        credit.set_window(WINDOW);
        assert_eq!(credit.begin(), WINDOW);
        credit
    }

    fn push(credit: &mut PushCredit, request: RequestId, cost: u64) -> bool {
        let covered = credit.receive(cost);
        credit.hand_on(request, 1, cost);
        covered
    }

    #[test]
    fn it_comes_back_by_halves_of_the_window() {
        let mut credit = begun();
        assert!(push(&mut credit, 1, 499) && push(&mut credit, 2, 1) && push(&mut credit, 3, 400));
        credit.answer(1);
        assert_eq!(credit.grant(), None);
        credit.answer(2);
        assert_eq!(credit.grant(), Some(1_500));
    }

    #[test]
    fn one_push_may_reach_beyond_and_the_next_waits() {
        let mut credit = begun();
        assert!(push(&mut credit, 1, 5_000));
        assert!(!credit.receive(1));
    }

    #[test]
    fn a_narrower_window_gives_nothing_until_enough_is_answered() {
        let mut credit = begun();
        assert!((0..10).all(|request| push(&mut credit, request, 100)));
        credit.set_window(200);
        for request in 0..8 {
            credit.answer(request);
            assert_eq!(credit.grant(), None, "what is under way and unspent is more than the window");
        }
        credit.answer(8);
        assert_eq!(credit.grant(), Some(1_100));
    }

    #[test]
    fn without_a_window_a_session_waits_until_there_is_one() {
        let mut credit = begun();
        assert!(push(&mut credit, 1, 1_000));
        credit.set_window(0);
        credit.answer(1);
        assert_eq!(credit.grant(), None);
        assert!(credit.is_used_up() && !credit.receive(1));
        credit.set_window(1);
        assert_eq!(credit.grant(), Some(1_001), "everything is answered: all there is");
    }
}
