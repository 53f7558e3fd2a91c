//! Identities: who wrote, where it stands, under which history.
//!
//! Each is a newtype, so that a seq can never be passed for an offset. Ids are random bytes drawn by the shells;
//! this module makes none itself.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits;

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// Length in bytes.
            pub const BYTES: usize = $bytes;

            /// Reads the hexadecimal form that `Display` writes.
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut bytes = [0; $bytes];
                if text.len() != $bytes * 2 || !text.is_ascii() {
                    return None;
                }
                for (at, byte) in bytes.iter_mut().enumerate() {
                    *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
                }
                Some(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                serde_bytes::deserialize(deserializer).map(Self)
            }
        }
    };
}

random_id!(
    /// The author of entries: one client's local database. Actor 0 (all zeros) is the log itself. The first half is the
    /// origin, which an actor that succeeds another one keeps.
    ActorId, 16
);
random_id!(
    /// One installation's local database, all its tabs. It outlives a change of actor.
    ClientId, 16
);
random_id!(
    /// Drawn when the server creates a log; another one means another history.
    LogId, 16
);
random_id!(
    /// One start of one tab.
    RunId, 8
);
random_id!(
    /// One owner start of a log on the server: the name of a stretch of its history.
    EpochId, 8
);

impl ActorId {
    /// The log itself as an author: only the server's log writer gives its seqs.
    pub const LOG: Self = Self([0; 16]);

    /// How many bytes are the origin.
    pub const ORIGIN_BYTES: usize = 8;

    /// What it has in common with the actors before and after it: an author saw what its predecessors wrote as if it
    /// were its own, and goes on in their documents. The rest is zeros.
    #[must_use]
    pub fn origin(self) -> Self {
        self.with_rest(Self::LOG)
    }

    /// A fresh actor that takes over from this one; `random` is drawn by the shell.
    #[must_use]
    pub fn successor(self, random: Self) -> Self {
        self.with_rest(random)
    }

    fn with_rest(self, rest: Self) -> Self {
        let mut bytes = rest.0;
        bytes[..Self::ORIGIN_BYTES].copy_from_slice(&self.0[..Self::ORIGIN_BYTES]);
        Self(bytes)
    }
}

impl EpochId {
    /// The epoch of a client that has never heard from a server: its base is always 0.
    pub const NONE: Self = Self([0; 8]);
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this; saturates at the end of the range.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

number!(
    /// A client's own number of an entry, per log, from 1 without gaps; 0 means "none yet".
    Seq
);
number!(
    /// Position in the server's log, from 0, dense. As an end it is exclusive: the next offset.
    Offset
);

/// Names one entry for ever: its author and the author's own number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct EntryId {
    /// Who wrote it.
    pub actor: ActorId,
    /// The author's number of it.
    pub seq: Seq,
}

impl EntryId {
    /// Reads the form that `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (actor, seq) = text.split_once('-')?;
        Some(Self { actor: ActorId::from_hex(actor)?, seq: Seq(seq.parse().ok()?) })
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.actor, self.seq)
    }
}

/// Names one entry from the moment of the call, before it has a seq: the run and the number within it, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct WriteId {
    /// The tab's start.
    pub run: RunId,
    /// The number within the run, from 1.
    pub n: u64,
}

impl WriteId {
    /// Reads the form that `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (run, n) = text.split_once('-')?;
        Some(Self { run: RunId::from_hex(run)?, n: n.parse().ok()? })
    }
}

impl fmt::Display for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.run, self.n)
    }
}

/// A position that says which history it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Base {
    /// The epoch the offset was seen under; [`EpochId::NONE`] before the first contact.
    pub epoch: EpochId,
    /// End of the confirmed prefix, exclusive.
    pub end: Offset,
}

/// The text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// Shorten it or give it at least one character.
    #[error("a name has {got} bytes; it must have 1 to {max}")]
    Length {
        /// Bytes found.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Remove the control character.
    #[error("a name holds the control character {0:?}")]
    Control(char),
}

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident, $min:expr, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the text if it is a name.
            ///
            /// # Errors
            /// [`InvalidName`] with the length or the character: choose another name.
            pub fn new(text: &str) -> Result<Self, InvalidName> {
                if !($min..=$max).contains(&text.len()) {
                    return Err(InvalidName::Length { got: text.len(), max: $max });
                }
                match text.chars().find(|c| c.is_control()) {
                    Some(control) => Err(InvalidName::Control(control)),
                    None => Ok(Self(text.into())),
                }
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_name!(
    /// Name of an action, a collection or a field: 1 to 64 bytes of UTF-8 without control characters.
    Name, 1, limits::NAME_BYTES_MAX
);
text_name!(
    /// Name of a log, such as `board/42`: 1 to 256 bytes of UTF-8 without control characters.
    LogName, 1, limits::LOG_NAME_BYTES_MAX
);
text_name!(
    /// Id of a record, chosen by the app: up to 128 bytes; empty for the one record of a `single`.
    RecordId, 0, limits::RECORD_ID_BYTES_MAX
);
text_name!(
    /// The user an actor is bound to, as the token's `sub` says.
    UserId, 1, limits::USER_ID_BYTES_MAX
);

impl Name {
    /// The action of an entry whose body is gone: no app can declare it, and no entry of a client has it.
    pub(crate) fn gone() -> Self {
        Self("$gone".into())
    }

    /// The action of the entry by which a log erases.
    pub(crate) fn erase() -> Self {
        Self("erase".into())
    }
}

impl UserId {
    /// The user of a log's own entries. Users of tokens never begin with `$`.
    pub fn log() -> Self {
        Self("$log".into())
    }

    /// Whoever was erased: nobody's name any more.
    pub fn erased() -> Self {
        Self("$erased".into())
    }

    /// Whether the name is kept for the server's own work.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('$')
    }
}

impl RecordId {
    /// The id of the only record of a `single` collection.
    pub fn single() -> Self {
        Self("".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_as_hex() {
        let actor = ActorId([0xab; 16]);
        assert_eq!(ActorId::from_hex(&actor.to_string()), Some(actor));
        assert_eq!(ActorId::from_hex("ab"), None);
        let write = WriteId { run: RunId([7; 8]), n: 12 };
        assert_eq!(WriteId::parse(&write.to_string()), Some(write));
    }

    #[test]
    fn names_are_bounded_and_printable() {
        assert!(Name::new("todos").is_ok());
        assert_eq!(Name::new(""), Err(InvalidName::Length { got: 0, max: 64 }));
        assert_eq!(Name::new("a\nb"), Err(InvalidName::Control('\n')));
        assert!(RecordId::new("").is_ok());
    }
}
