//! Re-rooting: a text whose history has grown far beyond its content begins anew with the content alone.
//!
//! The log writer says it with an entry of the log itself; every replica folds it at its offset, so nothing depends on
//! when it is done. A quiet moment is preferred, because then no change is under way that must be translated.
//!
//! ```text
//! snapshot made ──► grown texts ──► new root (entry of the log) ──► grace: late changes are translated ──► old-root
//! ```

use std::sync::Arc;
use std::time::Duration;

use super::Sequencer;
use crate::chain::Cursor;
use crate::entry::{Body, Logged};
use crate::id::{ActorId, Name};
use crate::limits;
use crate::op::{Edit, FieldOp, Op, Root, Update};
use crate::random::Random;
use crate::state::{FieldKey, State};
use crate::time::{self, Time, WallMs};

/// The name of the log's own action.
const ACTION: &str = "driftlog:reroot";

/// When a text is given a new root, and for how long changes of the one before are translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rerooting {
    /// Bytes that a text and its history must take at least.
    pub bytes_min: u64,
    /// How many per cent of the bytes of its content it must take. Beyond a quarter more no quiet moment is waited for.
    pub percent: u64,
    /// How long nothing was accepted in the log when the moment is quiet.
    pub quiet: Duration,
    /// How long changes of the root before are translated after it.
    pub grace: Duration,
}

impl Default for Rerooting {
    fn default() -> Self {
        Self {
            bytes_min: 16 * 1024,
            percent: 150,
            quiet: Duration::from_secs(10),
            grace: Duration::from_secs(7 * 24 * 60 * 60),
        }
    }
}

/// A text that has grown far beyond its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grown {
    /// Which text.
    pub field: FieldKey,
    /// The root that it had.
    pub root: u64,
    /// Whether it has grown so far that no quiet moment is waited for.
    pub is_pressing: bool,
}

impl Rerooting {
    /// Whether a text of so many bytes, history and all, has grown far beyond the bytes of its content; and if so,
    /// whether no quiet moment is waited for.
    pub fn pressing(&self, bytes: u64, content: u64) -> Option<bool> {
        let fits = content <= limits::ROOT_CONTENT_BYTES_MAX as u64;
        let bound = self.bytes_min.max(content.saturating_mul(self.percent) / 100);
        (fits && bytes > bound).then(|| bytes - bound > bound / 4)
    }

    /// The texts of a state that have grown far beyond their content, and whose last new root is out of its grace now.
    /// Opens and compacts those that are large enough: what a text takes is told when it is compact.
    pub fn grown(&self, state: &mut State, now: WallMs) -> Vec<Grown> {
        let accepted = time::accepted(now, state.accepted_last());
        let large = |state: &State| -> Vec<(FieldKey, u64, u64)> {
            let contents = state.contents().map(|(field, content)| (field, content.root(), content.bytes() as u64));
            contents.filter(|(.., bytes)| *bytes > self.bytes_min).collect()
        };
        for (field, ..) in large(state) {
            // One that does not open is told by whoever reads it, and is not grown.
            let _ = state.document_mut(&field);
        }
        let _ = state.compact();
        let mut grown = Vec::new();
        for (field, root, bytes) in large(state) {
            if state.content(&field).is_some_and(|content| content.has_grace(accepted)) {
                continue;
            }
            let Ok(text) = state.text(&field) else { continue };
            if let Some(is_pressing) = self.pressing(bytes, text.len() as u64) {
                grown.push(Grown { root, field, is_pressing });
            }
        }
        grown
    }

    /// When a snapshot of this state would take less room, though nobody writes to the log: an old root comes out of its
    /// grace, or a text that is grown may begin anew in a quiet moment. None if time changes nothing.
    pub fn rests_at(&self, state: &State, grown: &[Grown]) -> Option<WallMs> {
        let quiet = state.accepted_last().ms().saturating_add(self.quiet.as_millis() as u64);
        let grace_end = state.first_grace_end(Time::MIN).map(|until| until.ms().saturating_add(1));
        grace_end.into_iter().chain(grown.iter().map(|_| quiet)).min()
    }
}

impl Sequencer {
    /// Gives a text a new root, as an entry of the log itself. None if it is gone or has another root meanwhile, if its
    /// last new root is in its grace, or if a better moment may come.
    pub fn reroot(
        &mut self,
        now: WallMs,
        grown: &Grown,
        rerooting: &Rerooting,
        random: &mut Random,
    ) -> Option<(Logged, Cursor)> {
        let last = self.state.accepted_last();
        let is_quiet = u128::from(now.saturating_sub(last.ms())) >= rerooting.quiet.as_millis();
        let accepted = time::accepted(now, last);
        let FieldKey { key, field } = grown.field.clone();
        self.state.record(&key.collection, &key.record)?;
        let content = self.state.content(&grown.field)?;
        let is_due = content.root() == grown.root && !content.has_grace(accepted) && (is_quiet || grown.is_pressing);
        let text = if is_due { self.state.text(&grown.field).ok()? } else { return None };
        if text.len() > limits::ROOT_CONTENT_BYTES_MAX {
            return None;
        }
        let offset = self.state.cursor().next;
        let until = Time::from_ms(accepted.ms().saturating_add(rerooting.grace.as_millis() as u64));
        let op = FieldOp::Edit(Edit::Root(Root { root: offset.0, content: text, until }));
        let op = Op::Update(Update { collection: key.collection, record: key.record, field, op });
        let body = Body::new(Name::new(ACTION).ok()?, None, vec![op], None, random.salt());
        let seq = self.state.folded(ActorId::LOG).next();
        let own = self.own(Arc::new(body), None, (seq, offset), accepted).ok()?;
        // Old roots out of their grace are of no use to the gate.
        self.state.forget_old_roots(accepted, |_, _| false);
        Some(self.append_own(own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Code;
    use crate::rich::Splice;
    use crate::sequencer::admit;
    use crate::state::fixture::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn rerooting() -> Rerooting {
        Rerooting { bytes_min: 700, percent: 200, quiet: Duration::from_secs(10), grace: GRACE }
    }

    fn note() -> FieldKey {
        FieldKey { key: key("x"), field: name("note") }
    }

    /// A change of the note by a tab, on the state as it is.
    fn typed(state: &State, tab: &Tab, at: usize, delete: usize, text: &str) -> Op {
        let mut overlay = crate::overlay::Overlay::new();
        let splice = Splice { at, delete, insert: text.to_owned() };
        let change = overlay.edit_text(state, &note(), &[splice], (tab.actor, tab.run), &[]).expect("fits");
        update("x", "note", FieldOp::Edit(Edit::Change(change)))
    }

    /// A note that was written and deleted many times.
    fn worn(edits: usize) -> (Log, Tab) {
        let (mut log, mut tab) = (Log::new(), Tab::new(1));
        let first = FieldOp::Edit(Edit::InitialText("hello".to_owned()));
        log.act(&mut tab, 0, vec![insert("x", vec![("note", first)])]);
        for at in 0..edits {
            let change =
                if at % 2 == 0 { typed(&log.state, &tab, 5, 0, " you") } else { typed(&log.state, &tab, 5, 4, "") };
            let base = log.state.cursor().next.0;
            log.act(&mut tab, base, vec![change]);
        }
        (log, tab)
    }

    fn reroot(log: &mut Log, now: WallMs) -> Option<Logged> {
        let grown = rerooting().grown(&mut log.state, now).pop()?;
        let mut sequencer = Sequencer::resume(log.state.clone(), Vec::new());
        let (logged, _) = sequencer.reroot(now, &grown, &rerooting(), &mut Random::new([1; 32]))?;
        log.state.fold(&logged).expect("the next entry");
        Some(logged)
    }

    #[test]
    fn a_text_is_grown_when_it_takes_many_times_its_content_and_more_than_a_bound() {
        let policy = Rerooting { bytes_min: 1_000, percent: 300, ..Rerooting::default() };
        for (bytes, content, expected) in [
            (999, 1, None),
            (1_000, 1, None),
            (1_001, 1, Some(false)),
            (1_250, 1, Some(false)),
            (1_251, 1, Some(true)),
            (3_000, 1_000, None),
            (3_001, 1_000, Some(false)),
            (3_751, 1_000, Some(true)),
            (u64::MAX, limits::ROOT_CONTENT_BYTES_MAX as u64 + 1, None),
        ] {
            assert_eq!(policy.pressing(bytes, content), expected, "{bytes} for {content}");
        }
    }

    #[test]
    fn a_state_tells_when_time_alone_makes_it_smaller() {
        let (mut log, _) = worn(6);
        let last = log.now_ms;
        let grown = rerooting().grown(&mut log.state, last);
        assert_eq!(rerooting().rests_at(&log.state, &grown), Some(last + 10_000), "with a quiet moment");
        reroot(&mut log, last + 10_000).expect("it is quiet");
        let until = last + 10_000 + GRACE.as_millis() as u64;
        for (now, rests_at) in [(until, Some(until + 1)), (until + 1, None)] {
            let mut state = log.state.clone();
            state.forget_old_roots(Time::from_ms(now), |_, _| false);
            let grown = rerooting().grown(&mut state, now);
            assert_eq!((rerooting().rests_at(&state, &grown), grown), (rests_at, vec![]), "with the end of the grace");
        }
    }

    #[test]
    fn a_grown_text_begins_anew_in_a_quiet_moment_or_when_it_presses() {
        let (mut log, _) = worn(6);
        let now = log.now_ms;
        let grown = rerooting().grown(&mut log.state, now);
        assert!(matches!(grown.as_slice(), [Grown { root: 0, is_pressing: false, .. }]), "{grown:?}");
        let last = log.now_ms;
        assert_eq!(reroot(&mut log, last + 9_000), None, "somebody may be writing");
        let before = log.state.text(&note());
        let logged = reroot(&mut log, last + 11_000).expect("nobody is");
        assert_eq!((log.state.text(&note()), log.state.content(&note()).map(|it| it.root())), (before, Some(6 + 1)));
        assert_eq!(logged.actor, ActorId::LOG);
        let (mut log, _) = worn(30);
        let last = log.now_ms;
        assert!(reroot(&mut log, last).is_some(), "it presses");
    }

    #[test]
    fn while_a_new_root_is_in_its_grace_there_is_no_next_one() {
        let (mut log, mut tab) = worn(30);
        let last = log.now_ms;
        reroot(&mut log, last).expect("it presses");
        let wear = |log: &mut Log, tab: &mut Tab| {
            for at in 0..30 {
                let change =
                    if at % 2 == 0 { typed(&log.state, tab, 5, 0, " you") } else { typed(&log.state, tab, 5, 4, "") };
                let base = log.state.cursor().next.0;
                log.act(tab, base, vec![change]);
            }
        };
        wear(&mut log, &mut tab);
        let now = log.now_ms;
        assert_eq!(reroot(&mut log, now), None);
        log.now_ms += GRACE.as_millis() as u64;
        wear(&mut log, &mut tab);
        let now = log.now_ms;
        assert!(reroot(&mut log, now).is_some());
        assert_eq!(log.state.text(&note()).as_deref(), Ok("hello"));
    }

    #[test]
    fn a_late_change_is_translated_in_the_grace_and_refused_behind_it() {
        let (mut log, _) = worn(30);
        let mut late = Tab::new(2);
        let change = typed(&log.state, &late, 5, 0, "!");
        let last = log.now_ms;
        reroot(&mut log, last).expect("it presses");
        let entry = late.act(31, last, vec![change]);
        let mut behind = log.accept(&late, entry.clone());
        behind.accepted = Time::from_ms(last + GRACE.as_millis() as u64 + 1);
        let refused = admit(&mut log.state.clone(), behind).expect_err("the grace is over");
        assert_eq!(refused.0, Code::OldRoot);
        let logged = log.accept(&late, entry.clone());
        let logged = admit(&mut log.state, logged).expect("in its grace");
        assert!(logged.entry.is_translated());
        assert_ne!(logged.entry.digest(), entry.digest());
        assert_eq!(logged.entry.pushed_digest(), entry.digest());
        log.state.fold(&logged).expect("the next entry");
        assert_eq!(log.state.text(&note()).as_deref(), Ok("hello!"));
        let bytes = logged.entry.to_bytes();
        assert_eq!(crate::entry::Entry::from_bytes(&bytes).map(|entry| entry.pushed_digest()), Ok(entry.digest()));
    }
}
