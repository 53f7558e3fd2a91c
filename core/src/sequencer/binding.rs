//! Who may write under an actor: the first hello binds it to a user and a client, globally and for ever.
//!
//! Each welcome carries a nonce that the client stores. A hello that shows neither the newest nonce nor the one it was
//! renewed from comes from another copy of the profile. A welcome that was lost on its way is no copy: the nonce that
//! it was to replace stays good until the new one is shown.

use serde::{Deserialize, Serialize};

use crate::codec::Format;
use crate::id::{ActorId, ClientId, UserId};
use crate::protocol::Code;
use crate::protocol::frame::{Hello, Nonce};

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
    newest: Nonce,
    shown: Option<Nonce>,
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
    /// The binding after a hello of `user`; it must be durable before the welcome leaves with `nonce`.
    ///
    /// # Errors
    /// [`BindError`]; the stored binding stays as it is.
    pub fn hello(stored: Option<&Self>, hello: &Hello, user: &UserId, nonce: Nonce) -> Result<Self, BindError> {
        if hello.user.as_ref().is_some_and(|own| own != user) {
            return Err(BindError::UserChanged);
        }
        if hello.actor == ActorId::LOG {
            return Err(BindError::ActorTaken);
        }
        let shown = match stored {
            None if !hello.nonces.is_empty() => return Err(BindError::ActorForgotten),
            None => None,
            Some(stored) if stored.user != *user || stored.client != hello.client => return Err(BindError::ActorTaken),
            Some(stored) => stored.matched(hello)?,
        };
        Ok(Self {
            format: Format,
            user: user.clone(),
            client: hello.client,
            predecessor: hello.predecessor.or(stored.and_then(|stored| stored.predecessor)),
            newest: nonce,
            shown,
        })
    }

    /// The binding of the log itself, which no hello can have.
    pub fn of_the_log() -> Self {
        let (client, newest) = (ClientId::default(), Nonce([0; 16]));
        Self { format: Format, user: UserId::log(), client, predecessor: None, newest, shown: None }
    }

    fn matched(&self, hello: &Hello) -> Result<Option<Nonce>, BindError> {
        let known = |nonce: &&Nonce| **nonce == self.newest || Some(**nonce) == self.shown;
        match hello.nonces.iter().find(known) {
            Some(nonce) => Ok(Some(*nonce)),
            // No welcome has ever arrived: whoever says so is the only one, or not yet to be told apart.
            None if hello.nonces.is_empty() && self.shown.is_none() => Ok(None),
            None => Err(BindError::ActorForked),
        }
    }
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
            nonces: nonces.iter().map(|n| Nonce([*n; 16])).collect(),
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
    fn two_copies_are_told_apart() {
        let first = shake(None, &[], 1).expect("binds");
        let original = shake(Some(&first), &[1], 2).expect("the original");
        let copy = shake(Some(&original), &[1], 3).expect("looks like a lost welcome");
        let original = shake(Some(&copy), &[2, 1], 4).expect("not yet to be told apart");
        assert_eq!(shake(Some(&original), &[3, 3], 5), Err(BindError::ActorForked));
        assert_eq!(shake(Some(&original), &[], 5), Err(BindError::ActorForked), "copied before it first connected");
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
