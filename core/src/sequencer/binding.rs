//! Who may write under an actor: the first hello binds it to a user and a client, globally and for ever.
//!
//! A nonce begins with its generation: one more than that of the newest before it. One of a later generation than any
//! that this server remembers is its own all the same, given before it was put back to a backup.
//!
//! Each welcome carries a nonce that the client stores. Good are the nonce that was shown last and every nonce that was
//! given for it; a hello that shows none of them comes from another copy of the profile. A welcome that was lost on its
//! way is no copy: the nonce that it was to replace stays good until a new one is shown. Nor is a hello that arrives
//! late, when its socket is long gone: what is given for it makes nothing bad that its client has.
//!
//! ```text
//!   shown ──given──► a, b, c        b is shown: ──►   b ──given──► d        shown, a and c are another copy's now
//! ```

use serde::{Deserialize, Serialize};

use crate::codec::Format;
use crate::id::{ActorId, ClientId, UserId};
use crate::protocol::Code;
use crate::protocol::frame::{Hello, Nonce};

/// Nonces that are given for one and stay good; beyond it the oldest goes.
const NONCES_GIVEN_MAX: usize = 16;

/// An actor's binding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Binding {
    format: Format<1>,
    /// Whose it is.
    pub user: UserId,
    /// Whose database it stands in.
    pub client: ClientId,
    /// The actor it continues.
    pub predecessor: Option<ActorId>,
    shown: Option<Nonce>,
    /// Given for it, oldest first.
    given: Vec<Nonce>,
}

/// The hello cannot be welcomed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Nothing of this database is shipped under this token; sign in as its user.
    #[error("the local database belongs to another user")]
    UserChanged,
    /// The client takes a fresh actor.
    #[error("the actor belongs to another user or client")]
    ActorTaken,
    /// The client takes a fresh actor and re-issues what was not matched.
    #[error("another copy of this profile writes under this actor")]
    ActorForked,
    /// The client keeps its pending entries as dead letters and takes a fresh actor.
    #[error("this server has never met the actor, but the actor was registered")]
    ActorForgotten,
    /// An operator must mend the server's store; the client tries again later.
    #[error("the actor's binding is damaged at the server")]
    Damaged,
}

impl BindError {
    /// Its number on the wire.
    pub fn code(self) -> Code {
        match self {
            Self::UserChanged => Code::UserChanged,
            Self::ActorTaken => Code::ActorTaken,
            Self::ActorForked => Code::ActorForked,
            Self::ActorForgotten => Code::ActorForgotten,
            Self::Damaged => Code::StorageFailed,
        }
    }
}

impl Binding {
    /// The binding after a hello of `user`; it must be durable before the welcome leaves with [`Binding::nonce`], which
    /// has its randomness from `random`.
    ///
    /// # Errors
    /// [`BindError`]; the stored binding stays as it is.
    pub fn hello(stored: Option<&Self>, hello: &Hello, user: &UserId, random: Nonce) -> Result<Self, BindError> {
        if hello.user.as_ref().is_some_and(|own| own != user) {
            return Err(BindError::UserChanged);
        }
        if hello.actor == ActorId::LOG {
            return Err(BindError::ActorTaken);
        }
        let (shown, mut given) = match stored {
            None if !hello.nonces.is_empty() => return Err(BindError::ActorForgotten),
            None => (None, Vec::new()),
            Some(stored) if stored.is_erased() => return Err(BindError::ActorForgotten),
            Some(stored) if stored.user != *user || stored.client != hello.client => return Err(BindError::ActorTaken),
            Some(stored) => stored.matched(hello)?,
        };
        if given.len() >= NONCES_GIVEN_MAX {
            given.remove(0);
        }
        let newest = shown.map_or(0, generation).max(stored.map_or(0, Self::newest));
        let nonce = of_generation(newest.saturating_add(1), random);
        given.push(nonce);
        Ok(Self {
            format: Format,
            user: user.clone(),
            client: hello.client,
            predecessor: hello.predecessor.or(stored.and_then(|stored| stored.predecessor)),
            shown,
            given,
        })
    }

    /// The binding of the log itself, which no hello can have.
    pub fn of_the_log() -> Self {
        let (client, given) = (ClientId::default(), Vec::new());
        Self { format: Format, user: UserId::log(), client, predecessor: None, shown: None, given }
    }

    /// The binding of an actor whose author was erased: nobody writes under it again, and it names nobody.
    pub fn erased() -> Self {
        Self { user: UserId::erased(), ..Self::of_the_log() }
    }

    /// Whether its author was erased.
    pub fn is_erased(&self) -> bool {
        self.user == UserId::erased()
    }

    /// The generation of the newest nonce that it remembers.
    fn newest(&self) -> u64 {
        self.shown.iter().chain(&self.given).map(|nonce| generation(*nonce)).max().unwrap_or(0)
    }

    /// The nonce for the welcome that follows the last hello.
    pub fn nonce(&self) -> Nonce {
        self.given.last().copied().unwrap_or(Nonce([0; 16]))
    }

    /// Which nonce counts as shown, and what was given for it so far.
    fn matched(&self, hello: &Hello) -> Result<(Option<Nonce>, Vec<Nonce>), BindError> {
        if let Some(nonce) = hello.nonces.iter().find(|nonce| self.given.contains(nonce)) {
            return Ok((Some(*nonce), Vec::new()));
        }
        // Given by this server, before it was put back to a backup.
        if let Some(nonce) = hello.nonces.first().filter(|nonce| generation(**nonce) > self.newest()) {
            return Ok((Some(*nonce), Vec::new()));
        }
        // No welcome has ever arrived: whoever says so is the only one, or not yet to be told apart.
        let first = hello.nonces.is_empty() && self.shown.is_none();
        match first || self.shown.is_some_and(|shown| hello.nonces.contains(&shown)) {
            true => Ok((self.shown, self.given.clone())),
            false => Err(BindError::ActorForked),
        }
    }
}

/// How many nonces an actor was given before this one, and one more.
fn generation(nonce: Nonce) -> u64 {
    nonce.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn of_generation(generation: u64, mut nonce: Nonce) -> Nonce {
    nonce.0[..8].copy_from_slice(&generation.to_be_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(nonces: &[u8]) -> Hello {
        Hello {
            protocol_min: 1,
            protocol_max: 1,
            client: ClientId([1; 16]),
            actor: ActorId([2; 16]),
            predecessor: None,
            user: None,
            // In these stories each is named after its generation.
            nonces: nonces.iter().map(|n| of_generation(u64::from(*n), Nonce([*n; 16]))).collect(),
            device: String::new(),
            token: None,
            now: 0,
        }
    }

    fn user(name: &str) -> UserId {
        UserId::new(name).expect("a user")
    }

    fn shake(stored: Option<&Binding>, nonces: &[u8], fresh: u8) -> Result<Binding, BindError> {
        Binding::hello(stored, &hello(nonces), &user("alice"), Nonce([fresh; 16]))
    }

    #[test]
    fn nonces_renew_and_lost_welcomes_are_forgiven() {
        let first = shake(None, &[], 1).expect("binds");
        let lost = shake(Some(&first), &[], 2).expect("the first welcome was lost");
        let second = shake(Some(&lost), &[2], 3).expect("renews");
        let again = shake(Some(&second), &[2], 4).expect("the welcome with 3 was lost");
        shake(Some(&again), &[4, 2], 5).expect("renews");
    }

    #[test]
    fn hellos_that_arrive_late_make_no_copy_of_their_client() {
        let first = shake(None, &[], 1).expect("binds");
        let second = shake(Some(&first), &[1], 2).expect("renews");
        let late = shake(Some(&second), &[1], 3).expect("sent before 2 came");
        let third = shake(Some(&late), &[2, 1], 4).expect("the client has 2");
        let late = shake(Some(&third), &[2, 1], 5).expect("sent before 4 came");
        let fourth = shake(Some(&late), &[4, 2], 6).expect("the client has 4");
        assert_eq!(shake(Some(&fourth), &[2, 1], 7), Err(BindError::ActorForked), "too late: nobody hears it");
        let many = (0..40).fold(fourth, |stored, at| shake(Some(&stored), &[4, 2], 50 + at).expect("lost welcomes"));
        assert_eq!(many.given.len(), NONCES_GIVEN_MAX);
        shake(Some(&many), &[4, 2], 7).expect("the one that was shown stays good");
    }

    #[test]
    fn two_copies_are_told_apart() {
        let first = shake(None, &[], 1).expect("binds");
        let original = shake(Some(&first), &[1], 2).expect("the original");
        let copy = shake(Some(&original), &[1], 3).expect("looks like a lost welcome");
        let original = shake(Some(&copy), &[2, 1], 4).expect("whoever shows what was given first goes on");
        assert_eq!(shake(Some(&original), &[3, 1], 5), Err(BindError::ActorForked));
        assert_eq!(shake(Some(&original), &[], 5), Err(BindError::ActorForked), "copied before it first connected");
    }

    #[test]
    fn what_was_given_before_a_backup_was_put_back_is_no_copy() {
        let first = shake(None, &[], 1).expect("binds");
        let backup = shake(Some(&first), &[1], 2).expect("renews");
        // Up to 5 was given since, and nobody knows that any more.
        let restored = shake(Some(&backup), &[5, 4], 6).expect("goes on");
        assert_eq!(shake(Some(&restored), &[4, 3], 7), Err(BindError::ActorForked), "a copy all the same");
        shake(Some(&restored), &[6, 5], 7).expect("renews");
    }

    #[test]
    fn an_actor_has_one_user_and_one_client() {
        let bound = shake(None, &[], 1).expect("binds");
        let bob = Binding::hello(Some(&bound), &hello(&[]), &user("bob"), Nonce([9; 16]));
        assert_eq!(bob, Err(BindError::ActorTaken));
        let mut other = hello(&[]);
        other.client = ClientId([7; 16]);
        assert_eq!(Binding::hello(Some(&bound), &other, &user("alice"), Nonce([9; 16])), Err(BindError::ActorTaken));
        other = hello(&[]);
        other.user = Some(user("bob"));
        assert_eq!(Binding::hello(None, &other, &user("alice"), Nonce([9; 16])), Err(BindError::UserChanged));
        other = hello(&[]);
        other.actor = ActorId::LOG;
        assert_eq!(Binding::hello(None, &other, &user("alice"), Nonce([9; 16])), Err(BindError::ActorTaken));
        assert_eq!(shake(None, &[5], 1), Err(BindError::ActorForgotten));
    }
}
