//! How much of the way each log gets, as the app says.
//!
//! The client has one session, so it has one priority for each log, whichever of its tabs said it: what was said last
//! counts. The leader asks for logs of high priority first, and says in the running session what has changed.

use crate::id::LogName;
use crate::session::client::Priority;
use crate::time::WallMs;

use super::{Engine, Hint};

impl Engine {
    /// Says how much of the way a log gets among the others, from now on. Say it before [`Engine::open`], and the log is
    /// asked for with it.
    pub fn prioritize(&mut self, name: &LogName, priority: Priority, now: WallMs) {
        self.set_now(now);
        self.prioritize_here(name, priority);
        if self.fence.is_none() {
            self.hint_priority(name, priority);
        }
        self.settle();
    }

    /// What the app last said of a log.
    pub fn priority(&self, name: &LogName) -> Priority {
        self.priorities.get(name).copied().unwrap_or_default()
    }

    pub(super) fn prioritize_here(&mut self, name: &LogName, priority: Priority) {
        if self.priority(name) == priority {
            return;
        }
        self.priorities.insert(name.clone(), priority);
        if let Some(session) = &mut self.session {
            session.prioritize(name, priority);
        }
    }

    /// Tells a new leader what was said here.
    pub(super) fn tell_priorities(&mut self) {
        let said: Vec<_> = self.priorities.iter().map(|(name, priority)| (name.clone(), *priority)).collect();
        said.iter().for_each(|(name, priority)| self.hint_priority(name, *priority));
    }

    /// Every log, those of high priority first.
    pub(super) fn names_by_priority(&self) -> Vec<LogName> {
        let mut names: Vec<_> = self.slots.keys().cloned().collect();
        names.sort_by_key(|name| std::cmp::Reverse(self.priority(name)));
        names
    }

    fn hint_priority(&mut self, name: &LogName, priority: Priority) {
        self.hint(&Hint::Priority((name.clone(), priority.number())));
    }
}
