//! The logs of a session, and which of them is sent next.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::frame::LogNumber;
use crate::session::server::subscription::Subscription;

/// The logs that a session has subscribed.
///
/// **Invariant:** a change costs the logarithm of how many there are: a session may have thousands, and hears of one.
#[derive(Default)]
pub(super) struct Subscriptions {
    all: BTreeMap<LogNumber, Subscription>,
    /// Those that have something to send, by what they were sent for their weight: the first goes next.
    wanting: BTreeSet<(u64, LogNumber)>,
    /// What the one had been sent that went last: whoever comes begins there.
    turn: u64,
}

impl Subscriptions {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, number: LogNumber) -> Option<&Subscription> {
        self.all.get(&number)
    }

    /// A log that begins where those stand whose turn it is.
    pub(super) fn begin(&mut self, number: LogNumber, mut subscription: Subscription) {
        subscription.pass = self.turn;
        self.remove(number);
        self.all.insert(number, subscription);
        self.change(number, |_| ());
    }

    pub(super) fn remove(&mut self, number: LogNumber) -> Option<Subscription> {
        let subscription = self.all.remove(&number)?;
        self.wanting.remove(&(subscription.pass, number));
        Some(subscription)
    }

    /// Changes one of them; none if it is not there.
    pub(super) fn change<T>(&mut self, number: LogNumber, change: impl FnOnce(&mut Subscription) -> T) -> Option<T> {
        let subscription = self.all.get_mut(&number)?;
        self.wanting.remove(&(subscription.pass, number));
        let outcome = change(subscription);
        if subscription.wants() {
            self.wanting.insert((subscription.pass, number));
        }
        Some(outcome)
    }

    /// It gets this share of the way from now on, and is not held to what it was sent before.
    pub(super) fn prioritize(&mut self, number: LogNumber, priority: u8) {
        let turn = self.turn;
        self.change(number, |subscription| subscription.prioritize(priority, turn));
    }

    /// The log that goes next: of those that have something to send, the one that was sent least for its weight.
    pub(super) fn next(&mut self) -> Option<LogNumber> {
        let (pass, number) = self.wanting.first().copied()?;
        self.turn = pass;
        Some(number)
    }
}
