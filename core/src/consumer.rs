//! The suspect-and-breaker rule, once, for everything that works on a log's entries with code that may fail: folds in
//! the client, sinks at the server.
//!
//! One bad entry must not stop the good ones, and an outage must not empty the log into the dead letters. Only what
//! the *other* entries do tells the two apart:
//!
//! ```text
//!            3 failures in a row            a later entry succeeds        it fails once more,
//! entry ──────────────────────► suspected ──────────────────────► again ─────────────────────► dead letter
//!                                 │    ▲                            │      and a later one succeeds
//!            10 without a success │    │ probe (1 failure each)     │ it succeeds
//!                                 ▼    │                            ▼
//!                             breaker open: wait                  worked on, as if nothing had been
//! ```
//!
//! A [`Consumer`] decides; whoever drives it does the work: it works on one entry after the other, says how each went
//! ([`Consumer::succeeded`], [`Consumer::failed`], [`Consumer::refused`]), and follows the [`Step`] it is given. What
//! it did since the first suspect is tentative: it must be able to go back there.
//!
//! It promises: an outage, of whatever length and whenever it begins and ends, makes nothing a dead letter; a poison
//! entry becomes one as soon as a later entry shows that the others work; nothing is passed over silently. A verdict
//! about an entry (a refusal, a format error) is no failure and counts for nothing.
//!
//! **Invariants:** suspects are ascending. While there are suspects, the first of them is where the checkpoint is.

use crate::time::WallMs;

/// Failures in a row after which an entry is suspected.
pub const FAILURES_MAX: u32 = 3;
/// Suspects without one success after which it is not the entries' fault.
pub const SUSPECTS_MAX: usize = 10;
/// The first wait before a probe, in milliseconds; each one without a success doubles it.
pub const PROBE_MS_FIRST: WallMs = 1_000;
/// The longest wait before a probe, in milliseconds.
pub const PROBE_MS_MAX: WallMs = 60_000;

/// An entry that failed and on which nothing is decided yet; or, handed out by [`Step::Park`], a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect<P> {
    /// Which entry.
    pub at: P,
    /// Why it failed the last time, for people.
    pub reason: String,
    /// How often it failed.
    pub attempts: u32,
    /// When it failed first.
    pub first: WallMs,
    /// When it failed last.
    pub last: WallMs,
    /// It failed after a later entry had succeeded.
    again: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<P> {
    /// Go on with the entry after this one.
    Next,
    /// Work on the same entry once more.
    Again,
    /// Leave this entry out for now, and go on tentatively with the one after it.
    PassOver,
    /// These, which were passed over, are dead letters from now on. Go on with the entry after this one.
    Park(Vec<Suspect<P>>),
    /// Take back whatever was done from this entry on, and begin there again.
    Back(P),
    /// The breaker is open: take back whatever was done from this entry on, and do nothing before the deadline.
    Wait(P),
}

/// Whether work goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Breaker {
    /// It does.
    #[default]
    Closed,
    /// Everything failed; nothing is tried before the deadline.
    Open,
    /// Everything had failed; each entry is tried once, until one succeeds.
    Probing,
}

/// The rule's state for one consumer of one log. `P` tells entries apart and orders them.
#[derive(Clone, Debug)]
pub struct Consumer<P> {
    /// Failures in a row of the entry at hand.
    failures: u32,
    failing_since: WallMs,
    suspects: Vec<Suspect<P>>,
    breaker: Breaker,
    /// Where the open breaker went back to.
    resume_at: Option<P>,
    /// A later entry succeeded: the suspects are tried once more.
    checking: bool,
    /// Waits since the last success.
    waits: u32,
    deadline: Option<WallMs>,
}

impl<P> Default for Consumer<P> {
    fn default() -> Self {
        Self {
            failures: 0,
            failing_since: 0,
            suspects: Vec::new(),
            breaker: Breaker::Closed,
            resume_at: None,
            checking: false,
            waits: 0,
            deadline: None,
        }
    }
}

impl<P: Copy + Ord> Consumer<P> {
    /// The entry was worked on.
    pub fn succeeded(&mut self, at: P) -> Step<P> {
        (self.failures, self.waits, self.deadline) = (0, 0, None);
        (self.breaker, self.resume_at) = (Breaker::Closed, None);
        // It was not the entry: what failed was something else, and that is over.
        self.suspects.retain(|suspect| suspect.at != at);
        let before = self.suspects.partition_point(|suspect| suspect.at < at);
        let first = match self.suspects.first() {
            Some(first) if before > 0 => first.at,
            _ => return Step::Next,
        };
        if self.suspects[..before].iter().all(|suspect| suspect.again) {
            let parked = self.suspects.drain(..before).collect();
            self.checking = !self.suspects.is_empty();
            return Step::Park(parked);
        }
        // The others work. Whether the suspects do too is known only by trying them now.
        self.checking = true;
        self.suspects.iter_mut().for_each(|suspect| suspect.again = false);
        Step::Back(first)
    }

    /// Working on the entry failed at `now`.
    pub fn failed(&mut self, at: P, reason: &str, now: WallMs) -> Step<P> {
        if let Some(suspect) = self.suspects.iter_mut().find(|suspect| suspect.at == at) {
            suspect.attempts += 1;
            (suspect.reason, suspect.last) = (reason.to_owned(), now);
            suspect.again = self.checking;
            return Step::PassOver;
        }
        if self.failures == 0 {
            self.failing_since = now;
        }
        self.failures += 1;
        let failures_max = if self.breaker == Breaker::Closed { FAILURES_MAX } else { 1 };
        if self.failures < failures_max {
            return Step::Again;
        }
        let attempts = std::mem::take(&mut self.failures);
        let (reason, first) = (reason.to_owned(), self.failing_since);
        self.suspects.push(Suspect { at, reason, attempts, first, last: now, again: false });
        self.suspects.sort_by_key(|suspect| suspect.at);
        // Not even what succeeded a moment ago can be relied on: what the suspects did since then tells nothing.
        self.checking = false;
        self.suspects.iter_mut().for_each(|suspect| suspect.again = false);
        if self.suspects.len() < SUSPECTS_MAX {
            return Step::PassOver;
        }
        let first = self.suspects[0].at;
        self.suspects.clear();
        (self.breaker, self.resume_at) = (Breaker::Open, Some(first));
        self.wait(now);
        Step::Wait(first)
    }

    /// The entry was decided against: a refusal, or bytes that break the format. That is no failure, and no success.
    pub fn refused(&mut self) -> Step<P> {
        self.failures = 0;
        Step::Next
    }

    /// There is no further entry for now: what is still suspected is tried again by itself, after a while.
    pub fn idle(&mut self, now: WallMs) {
        if !self.suspects.is_empty() && self.deadline.is_none() {
            self.wait(now);
        }
    }

    /// When [`Consumer::timeout`] wants to be called.
    pub fn deadline(&self) -> Option<WallMs> {
        self.deadline
    }

    /// The clock stepped back so far: what waits, waits no longer than before.
    pub fn clock_stepped_back(&mut self, back: WallMs) {
        self.deadline = self.deadline.map(|deadline| deadline.saturating_sub(back));
    }

    /// The deadline has come: where to begin again, if there is something to try.
    pub fn timeout(&mut self, now: WallMs) -> Option<P> {
        self.deadline.take_if(|deadline| *deadline <= now)?;
        (self.failures, self.checking) = (0, false);
        if self.breaker == Breaker::Open {
            self.breaker = Breaker::Probing;
            return self.resume_at.take();
        }
        self.suspects.first().map(|suspect| suspect.at)
    }

    /// Whether work goes on.
    pub fn breaker(&self) -> Breaker {
        self.breaker
    }

    /// What failed and is not decided, ascending.
    pub fn suspects(&self) -> &[Suspect<P>] {
        &self.suspects
    }

    /// Whether nothing that was done is tentative, so that a checkpoint may be taken.
    pub fn is_steady(&self) -> bool {
        self.suspects.is_empty() && self.failures == 0
    }

    fn wait(&mut self, now: WallMs) {
        let wait = PROBE_MS_FIRST.saturating_mul(1 << self.waits.min(16)).min(PROBE_MS_MAX);
        self.waits = self.waits.saturating_add(1);
        self.deadline = Some(now.saturating_add(wait));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A consumer of the entries `0..`, driven as the contract says: what it did, in order, and what it parked.
    #[derive(Default)]
    struct Driven {
        rule: Consumer<usize>,
        next: usize,
        done: Vec<usize>,
        parked: Vec<Suspect<usize>>,
        calls: usize,
        now: WallMs,
        waited: Vec<WallMs>,
    }

    impl Driven {
        /// Works on the entries below `end` until they are done, or until `calls_max` calls are spent.
        fn run(&mut self, end: usize, calls_max: usize, mut fails: impl FnMut(usize, usize) -> bool) {
            while self.calls < calls_max {
                if self.rule.breaker() == Breaker::Open || self.next >= end {
                    if self.next >= end {
                        self.rule.idle(self.now);
                    }
                    let Some(deadline) = self.rule.deadline() else { return };
                    self.waited.push(deadline - self.now);
                    self.now = deadline;
                    let from = self.rule.timeout(deadline).expect("something to try");
                    self.back(from);
                    continue;
                }
                self.calls += 1;
                self.now += 1;
                self.work(fails(self.next, self.calls));
            }
        }

        fn work(&mut self, fails: bool) {
            let at = self.next;
            let step = if fails { self.rule.failed(at, "thrown", self.now) } else { self.rule.succeeded(at) };
            if !fails {
                self.done.push(at);
            }
            match step {
                Step::Again => {}
                Step::Next | Step::PassOver => self.next += 1,
                Step::Park(parked) => {
                    self.parked.extend(parked);
                    self.next += 1;
                }
                Step::Back(from) | Step::Wait(from) => self.back(from),
            }
            // What is a dead letter already is not worked on again.
            while self.parked.iter().any(|parked| parked.at == self.next) {
                self.next += 1;
            }
        }

        fn back(&mut self, from: usize) {
            self.done.retain(|done| *done < from);
            self.next = from;
        }

        fn parked(&self) -> Vec<usize> {
            self.parked.iter().map(|parked| parked.at).collect()
        }
    }

    #[test]
    fn one_poison_among_good_ones_is_parked_and_the_good_ones_arrive_in_order() {
        let mut driven = Driven::default();
        driven.run(6, 1_000, |at, _| at == 2);
        assert_eq!((driven.done, driven.parked.len()), (vec![0, 1, 3, 4, 5], 1));
        let letter = &driven.parked[0];
        assert_eq!((letter.at, letter.attempts, letter.reason.as_str()), (2, 4, "thrown"));
        assert_eq!(driven.calls, 10, "3 failures, a success, 1 failure, and the success once more");
    }

    #[test]
    fn an_outage_opens_the_breaker_parks_nothing_and_is_probed_with_growing_waits() {
        let mut driven = Driven::default();
        driven.run(100, 80, |_, _| true);
        assert_eq!((driven.parked(), driven.done.len()), (vec![], 0));
        assert_eq!(driven.rule.breaker(), Breaker::Open);
        assert_eq!(driven.next, 0, "back before the first suspect");
        assert_eq!(driven.waited[..4], [1_000, 2_000, 4_000, 8_000]);
        driven.run(100, 10_000, |_, _| false);
        assert_eq!((driven.parked(), driven.done), (vec![], (0..100).collect::<Vec<_>>()));
    }

    #[test]
    fn a_probe_tries_each_entry_once() {
        let mut driven = Driven::default();
        driven.run(100, 30, |_, _| true);
        assert_eq!(driven.rule.breaker(), Breaker::Open);
        driven.run(100, 40, |_, _| true);
        assert_eq!(driven.waited, [1_000]);
        assert_eq!(driven.rule.breaker(), Breaker::Open, "ten calls, not thirty");
    }

    #[test]
    fn ten_refusals_in_a_row_do_not_open_the_breaker() {
        let mut rule = Consumer::default();
        for at in 0..1_000u32 {
            assert_eq!(rule.failed(at, "thrown", 0), Step::Again);
            assert_eq!(rule.failed(at, "thrown", 0), Step::Again);
            assert_eq!(rule.refused(), Step::Next);
        }
        assert_eq!((rule.breaker(), rule.suspects().len()), (Breaker::Closed, 0));
    }

    #[test]
    fn a_refusal_neither_parks_nor_clears_a_suspect() {
        let mut rule = Consumer::default();
        (0..3).for_each(|_| drop(rule.failed(0, "thrown", 0)));
        assert_eq!(rule.refused(), Step::Next);
        assert_eq!(rule.suspects().len(), 1);
        assert_eq!(rule.succeeded(2), Step::Back(0));
    }

    #[test]
    fn poison_at_the_end_of_a_log_stays_a_suspect_until_a_later_entry_succeeds() {
        let mut driven = Driven::default();
        driven.run(3, 12, |at, _| at == 2);
        assert_eq!((driven.parked(), driven.done.clone()), (vec![], vec![0, 1]));
        assert_eq!(driven.rule.suspects().len(), 1);
        driven.run(4, 100, |at, _| at == 2);
        assert_eq!((driven.parked(), driven.done), (vec![2], vec![0, 1, 3]));
    }

    #[test]
    fn ten_poison_entries_in_a_row_are_probed_and_never_pass_for_single_ones() {
        let mut driven = Driven::default();
        driven.run(20, 300, |at, _| at < 10);
        assert_eq!(driven.parked(), Vec::<usize>::new(), "as far as anybody can tell, everything fails");
        let mut nine = Driven::default();
        nine.run(20, 300, |at, _| at < 9);
        assert_eq!(nine.parked(), (0..9).collect::<Vec<_>>());
    }

    proptest! {
        /// Whenever an outage begins and however long it lasts, exactly the poison entries are parked.
        #[test]
        fn one_outage_parks_nothing(
            poison in proptest::collection::btree_set(0usize..40, 0..6),
            begins in 0usize..120,
            lasts in 0usize..200,
        ) {
            let mut driven = Driven::default();
            let is_poison = |at: usize| poison.contains(&at);
            driven.run(50, 5_000, |at, call| is_poison(at) || (begins..begins + lasts).contains(&call));
            let good: Vec<_> = (0..50).filter(|at| !is_poison(*at)).collect();
            prop_assert_eq!(&driven.done, &good);
            prop_assert_eq!(driven.parked(), poison.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(driven.rule.breaker(), Breaker::Closed);
        }

        /// Whatever fails whenever: every entry is done, parked, suspected or not reached, once, and in order; and the
        /// work comes to an end once things work.
        #[test]
        fn nothing_is_lost_or_done_twice(failures in proptest::collection::vec(any::<bool>(), 0..400)) {
            let mut driven = Driven::default();
            for calls in 1..=failures.len() {
                driven.run(30, calls, |_, call| failures[call - 1]);
                let mut all: Vec<_> = driven.done.clone();
                prop_assert!(all.is_sorted(), "{:?}", all);
                all.extend(driven.parked());
                let open = driven.rule.suspects().iter().map(|suspect| suspect.at).filter(|at| *at < driven.next);
                all.extend(open);
                all.sort_unstable();
                prop_assert_eq!(all, (0..driven.next).collect::<Vec<_>>());
                prop_assert!(driven.rule.suspects().len() < SUSPECTS_MAX);
            }
            let calls = driven.calls;
            driven.run(30, calls + 500, |_, _| false);
            prop_assert_eq!(driven.next, 30);
            prop_assert!(driven.rule.is_steady());
        }
    }
}
