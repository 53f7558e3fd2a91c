//! Numbered codes, the same on the wire, in Rust and in TypeScript (docs/protocol.md, "Codes").
//!
//! A number is never reused. Hundreds tell who must move: 1xx the sender's bytes, 2xx the user's token, 3xx the actor,
//! 4xx the push, 5xx one entry, 6xx the server. From 1000 on numbers belong to the operator's own policies.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)+) => {
        /// Why something was refused or ended.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $variant,)+
            /// A code of a newer version, or one of an operator's own policy (from 1000 on), by its number.
            Newer(u16),
        }

        impl Code {
            /// Every code of this version.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The number on the wire.
            pub const fn number(self) -> u16 {
                match self {
                    $(Self::$variant => $number,)+
                    Self::Newer(number) => number,
                }
            }

            /// The code with this number.
            pub const fn from_number(number: u16) -> Self {
                match number {
                    $($number => Self::$variant,)+
                    other => Self::Newer(other),
                }
            }

            /// The name used in TypeScript, documents and logs.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                    Self::Newer(_) => "refused",
                }
            }
        }
    };
}

codes! {
    /// The bytes are not a frame.
    MalformedFrame = 100, "malformed-frame";
    /// The frame is larger than the protocol allows.
    FrameTooLarge = 101, "frame-too-large";
    /// The frame's checksum does not match.
    FrameChecksum = 102, "frame-checksum";
    /// The two sides share no protocol version: update the client or the server.
    ProtocolVersion = 103, "protocol-version";
    /// A frame that has no place in this state of the session.
    UnexpectedFrame = 104, "unexpected-frame";
    /// More logs than one session may open.
    TooManyLogs = 105, "too-many-logs";
    /// More bytes than the receiver gave credit for.
    CreditExceeded = 106, "credit-exceeded";

    /// No token, or one that does not verify.
    Unauthenticated = 200, "unauthenticated";
    /// The token's time is over: get a new one.
    TokenExpired = 201, "token-expired";
    /// The token gives no right to this log or this act.
    Forbidden = 202, "forbidden";
    /// The local database belongs to another user; nothing of it is shipped under this token.
    UserChanged = 203, "user-changed";

    /// The actor belongs to another user or client.
    ActorTaken = 300, "actor-taken";
    /// Two copies of one profile write under one actor.
    ActorForked = 301, "actor-forked";
    /// The server has no memory of an actor that it once had registered.
    ActorForgotten = 302, "actor-forgotten";
    /// The log at the server is not the one this cursor was taken from.
    LogForked = 303, "log-forked";
    /// The server does not keep the entries that were to be fetched any more.
    HistoryGone = 304, "history-gone";

    /// The push does not start at the next seq; the frame says which is expected.
    ExpectedSeq = 400, "expected-seq";
    /// A resent seq has other bytes than the stored one.
    BytesDiffer = 401, "bytes-differ";
    /// The actor chain after the push is not the one the client announced.
    ChainMismatch = 402, "chain-mismatch";

    /// The entry breaks a rule of the format.
    MalformedEntry = 500, "malformed";
    /// An op of a kind that this server does not know or has not enabled.
    UnknownOp = 501, "unknown-op";
    /// The entry builds on one that was refused, parked or void.
    DependsOn = 502, "depends-on";
    /// The author may not do this.
    EntryForbidden = 503, "not-allowed";
    /// The entry re-issues one that was already accepted or replaced.
    AlreadyReplaced = 504, "already-replaced";
    /// The change of a rich field does not pass the gate.
    RichChange = 505, "rich-change";
    /// The change of a rich field depends on changes that the log does not have.
    RichDependency = 506, "rich-dependency";
    /// The seq was given up by its author.
    Void = 507, "void";
    /// The author's or the log's share is used up.
    QuotaExceeded = 508, "quota-exceeded";
    /// What the entry says breaks a rule of the app.
    NotValid = 509, "not-valid";
    /// The entry's bytes are damaged on the device that stored them. Never sent: it marks a dead letter there.
    Damaged = 510, "damaged";
    /// The engine of the device that made the entry does not come back from it. Never sent: it marks a dead letter there.
    Trapped = 511, "trapped";

    /// Nobody knows any more whether the entry is in the log: another copy of its database, or a server that forgot it,
    /// stands between. Look, and redrive or discard it.
    OutcomeUnknown = 512, "outcome-unknown";
    /// The server had the entry and has lost it, because it was put back to a backup. Never sent: it marks a dead letter
    /// on a device that still holds the entry, or that knows only that there was one.
    LostByServer = 513, "lost-by-server";
    /// The change of a text was made on a root whose grace is over. The client makes it again on the new one by itself.
    OldRoot = 514, "old-root";

    /// The server is going down; come back after the given time.
    ShuttingDown = 600, "shutting-down";
    /// The server takes no more work at the moment; come back after the given time.
    Overloaded = 601, "overloaded";
    /// Another socket of the same client took over.
    Superseded = 602, "superseded";
    /// Nothing was heard for too long.
    IdleTimeout = 603, "idle-timeout";
    /// The server could not read or write its store.
    StorageFailed = 604, "storage-failed";
    /// The connection is inactive now; come back after the given time, and it is active again.
    Downgraded = 605, "downgraded";
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.number())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u16::deserialize(deserializer).map(Self::from_number)
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.number(), self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_round_trip() {
        for (at, code) in Code::ALL.iter().enumerate() {
            assert_eq!(Code::from_number(code.number()), *code);
            assert!(Code::ALL[..at].iter().all(|other| other.name() != code.name() && other != code));
        }
        assert_eq!(Code::from_number(9_999), Code::Newer(9_999));
    }
}
