//! Presence: what clients say of themselves in a log at the moment. In memory only; the last value wins.
//!
//! Nothing is queued: a session is told that something changed in a log, and when its socket has room it is sent what
//! differs from what it was sent last. So who reads slowly costs a mark, skips what was replaced meanwhile, and never
//! waits behind entries.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use driftlog_core::id::{ActorId, LogName, UserId};

/// Clients that may say something in one log at once; beyond it newcomers are not heard.
const PRESENT_MAX: usize = 1_000;

/// What everybody says of themselves, in every log.
#[derive(Default)]
pub(crate) struct Presences {
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    logs: BTreeMap<LogName, BTreeMap<ActorId, Said>>,
    last: u64,
}

#[derive(Clone)]
struct Said {
    user: UserId,
    value: Arc<[u8]>,
    /// Grows with each word, so that a reader knows what it was told.
    version: u64,
    /// Which session said it: an older one of the same actor takes nothing back.
    session: u64,
}

/// Who says something, by the session that it is said in.
#[derive(Clone, Debug)]
pub(crate) struct Speaker {
    pub(crate) actor: ActorId,
    pub(crate) user: UserId,
    pub(crate) session: u64,
}

/// What one session was told of a log.
pub(crate) type Told = BTreeMap<ActorId, u64>;

/// What it has to be told: who says what, or nothing any more.
pub(crate) type News = Vec<(ActorId, Option<(UserId, Arc<[u8]>)>)>;

impl Presences {
    /// Somebody says something in a log, or takes it back; whether that changes anything.
    pub(crate) fn say(&self, log: &LogName, speaker: &Speaker, value: Option<&[u8]>) -> bool {
        let Some(value) = value else { return self.take_back(log, speaker) };
        let mut shown = self.lock();
        shown.last += 1;
        let version = shown.last;
        let all = shown.logs.entry(log.clone()).or_default();
        if all.len() >= PRESENT_MAX && !all.contains_key(&speaker.actor) {
            return false;
        }
        let (user, session) = (speaker.user.clone(), speaker.session);
        all.insert(speaker.actor, Said { user, value: value.into(), version, session });
        true
    }

    fn take_back(&self, log: &LogName, speaker: &Speaker) -> bool {
        let mut shown = self.lock();
        let Some(all) = shown.logs.get_mut(log) else { return false };
        let own = all.get(&speaker.actor).is_some_and(|said| said.session == speaker.session);
        if own {
            all.remove(&speaker.actor);
        }
        if all.is_empty() {
            shown.logs.remove(log);
        }
        own
    }

    /// What a session that was told so much has to be told now, of everybody but itself.
    pub(crate) fn news(&self, log: &LogName, own: ActorId, told: &mut Told) -> News {
        let shown = self.lock();
        let all = shown.logs.get(log);
        let mut news = News::new();
        told.retain(|actor, _| {
            let here = all.is_some_and(|all| all.contains_key(actor));
            if !here {
                news.push((*actor, None));
            }
            here
        });
        for (actor, said) in all.into_iter().flatten().filter(|(actor, _)| **actor != own) {
            if told.insert(*actor, said.version) != Some(said.version) {
                news.push((*actor, Some((said.user.clone(), Arc::clone(&said.value)))));
            }
        }
        news
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speaker(actor: u8, session: u64) -> Speaker {
        Speaker { actor: ActorId([actor; 16]), user: UserId::new("alice").expect("a user"), session }
    }

    #[test]
    fn the_last_value_wins_and_who_is_slow_hears_that_alone() {
        let (presences, log) = (Presences::default(), LogName::new("board/1").expect("a name"));
        let mut told = Told::new();
        let mut news = |presences: &Presences| {
            let news = presences.news(&log, ActorId([9; 16]), &mut told);
            news.into_iter()
                .map(|(actor, said)| (actor.0[0], said.map(|(_, value)| value.to_vec())))
                .collect::<Vec<_>>()
        };
        for value in [b"a", b"b", b"c"] {
            assert!(presences.say(&log, &speaker(1, 1), Some(value)));
        }
        presences.say(&log, &speaker(9, 9), Some(b"own"));
        assert_eq!(news(&presences), [(1, Some(b"c".to_vec()))]);
        assert_eq!(news(&presences), []);
        // A newer session of the same client takes over; the older one's end takes nothing back.
        assert!(presences.say(&log, &speaker(1, 2), Some(b"d")));
        assert!(!presences.say(&log, &speaker(1, 1), None));
        assert_eq!(news(&presences), [(1, Some(b"d".to_vec()))]);
        assert!(presences.say(&log, &speaker(1, 2), None));
        assert_eq!(news(&presences), [(1, None)]);
        assert_eq!(news(&presences), []);
    }

    #[test]
    fn a_log_hears_no_more_than_its_bound() {
        let (presences, log) = (Presences::default(), LogName::new("board/1").expect("a name"));
        for client in 0..=PRESENT_MAX as u32 {
            let mut actor = [0; 16];
            actor[..4].copy_from_slice(&client.to_be_bytes());
            let speaker = Speaker { actor: ActorId(actor), ..speaker(0, 1) };
            assert_eq!(presences.say(&log, &speaker, Some(b"x")), (client as usize) < PRESENT_MAX);
        }
    }
}
