//! Credit for entries and snapshots: how many bytes the server may have sent, of one log and of all together.
//!
//! What was worked off comes back. A log whose entries cannot be stored, or that are many and slow to fold, gets nothing
//! back, and so holds its share and no more: the rest is there for the others.

/// Credit for what one sender sends within a share.
#[derive(Debug)]
pub(super) struct Credit {
    share: u64,
    worked_off: u64,
    granted: u64,
}

impl Credit {
    /// The share is given from the beginning.
    pub(super) fn new(share: u64) -> Self {
        Self { share, worked_off: 0, granted: share }
    }

    /// Received bytes were worked off.
    pub(super) fn worked_off(&mut self, bytes: u64) {
        self.worked_off += bytes;
    }

    /// Whether half of the share or more is to be given back. The last frame may reach beyond what was granted, so all of
    /// that, worked off at once, is more than was granted.
    pub(super) fn is_due(&self) -> bool {
        self.granted < self.worked_off + self.share / 2
    }

    /// What to give now, in total.
    pub(super) fn grant(&mut self) -> u64 {
        self.granted = self.worked_off + self.share;
        self.granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_beyond_the_credit_and_is_worked_off_at_once_comes_back() {
        let mut credit = Credit::new(100);
        assert!(!credit.is_due());
        credit.worked_off(130);
        assert!(credit.is_due());
        assert_eq!(credit.grant(), 230);
    }
}
