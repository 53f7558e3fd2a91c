//! Frames: everything that crosses the socket, and its bytes.
//!
//! One frame is one binary WebSocket message: CRC32C (u32, little endian) of the rest, then `[type, [fields…]]` in
//! compact msgpack. A log is named once, in `subscribe`; from then on both sides use the number given there.

mod order;
mod subscribe;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::chain::{Chain, Cursor};
use crate::codec::{self, DecodeError, tagged};
use crate::connection::{ConnectionState, Downgrade};
use crate::id::{ActorId, ClientId, EpochId, LogId, Offset, Seq, UserId};
use crate::limits;
use crate::packed::Packed;
use crate::protocol::code::Code;
use crate::time::{Time, WallMs};

pub use subscribe::{SnapshotBegun, Subscribe, SubscribeLog};

/// The number of a log within one session, chosen by the client in `subscribe`.
pub type LogNumber = u32;

/// Random bytes that tell two copies of one profile apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(#[serde(with = "serde_bytes")] pub [u8; 16]);

/// One protocol frame. Names: docs/protocol.md, "Frames".
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// Client: who I am. First frame of a session.
    Hello(Hello),
    /// Client: a fresh token for the running session.
    Token(Token),
    /// Client: I want to write to these logs and, if `read`, to follow them.
    Subscribe(Subscribe),
    /// Client: I no longer want this log.
    Unsubscribe(Unsubscribe),
    /// Client: own entries, contiguous by seq.
    Push(Push),
    /// Client: verdicts through this seq are recorded here; their details may be released.
    Settled(Settled),
    /// Client: what I say of myself in a log at the moment.
    Present(Present),
    /// Client: how much of the way this log gets from now on.
    Priority(Priority),
    /// Server: the session stands.
    Welcome(Welcome),
    /// Server: the log is open, and this is where both of us are.
    Opened(Opened),
    /// Server: durable verdicts.
    Ack(Ack),
    /// Server: entries of a log, contiguous by offset.
    Entries(Entries),
    /// Server: this own entry and what follows it stay undecided for now.
    Held(Held),
    /// Server: a part of a snapshot; the parts of one follow each other.
    SnapshotPart(SnapshotPart),
    /// Server: the session ends in good order; come back after a while.
    GoAway(GoAway),
    /// Server: how your connection stands.
    Connection(Connection),
    /// Server: what somebody else says of itself in a log at the moment.
    Presence(Presence),
    /// Both: what I can take, in total since the session began.
    Credit(Credit),
    /// Both: are you there?
    Ping(Ping),
    /// Both: I am, and I have worked off everything you sent before the ping.
    Pong(Ping),
    /// Both: this went wrong.
    Error(Error),
}

tagged!(Frame {
    Hello(Hello) = 0,
    Token(Token) = 1,
    Subscribe(Subscribe) = 2,
    Unsubscribe(Unsubscribe) = 3,
    Push(Push) = 4,
    Settled(Settled) = 5,
    Present(Present) = 6,
    Priority(Priority) = 7,
    Welcome(Welcome) = 16,
    Opened(Opened) = 17,
    Ack(Ack) = 18,
    Entries(Entries) = 19,
    SnapshotPart(SnapshotPart) = 20,
    GoAway(GoAway) = 21,
    Held(Held) = 22,
    Connection(Connection) = 23,
    Presence(Presence) = 24,
    Credit(Credit) = 32,
    Ping(Ping) = 33,
    Pong(Ping) = 34,
    Error(Error) = 35,
});

/// See [`Frame::Hello`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest protocol version the client speaks.
    pub protocol_min: u32,
    /// Newest protocol version the client speaks.
    pub protocol_max: u32,
    /// The local database.
    pub client: ClientId,
    /// Under whose name it writes.
    pub actor: ActorId,
    /// The actor it used before a detected clone.
    pub predecessor: Option<ActorId>,
    /// The user this database belongs to, as far as it knows.
    pub user: Option<UserId>,
    /// The nonces of the last two welcomes that were stored, newest first. Neither known to the server: a copy.
    pub nonces: Vec<Nonce>,
    /// The device, for people.
    pub device: String,
    /// The credential; none only where the server runs without authentication.
    pub token: Option<String>,
    /// The client's wall clock.
    pub now: WallMs,
}

/// See [`Frame::Token`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// The new credential, for the same user.
    pub token: String,
}

/// See [`Frame::Unsubscribe`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unsubscribe {
    /// Which log.
    pub log: LogNumber,
}

/// See [`Frame::Push`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Push {
    /// Which log.
    pub log: LogNumber,
    /// The first seq in it.
    pub first: Seq,
    /// The actor chain after its last entry.
    pub chain: Chain,
    /// The entries.
    pub entries: Packed,
}

/// See [`Frame::Settled`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settled {
    /// Which log.
    pub log: LogNumber,
    /// Last seq whose verdict is recorded, inclusive.
    pub through: Seq,
}

/// See [`Frame::Present`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Present {
    /// Which log.
    pub log: LogNumber,
    /// Bytes of the app; none: nothing any more.
    pub value: Option<ByteBuf>,
}

/// See [`Frame::Priority`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Priority {
    /// Which log.
    pub log: LogNumber,
    /// As in [`SubscribeLog`].
    pub priority: u8,
}

/// See [`Frame::Presence`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    /// Which log.
    pub log: LogNumber,
    /// Whose connection, by the actor that it writes under.
    pub connection: ActorId,
    /// Its user, and bytes of the app; none: it is gone, or says nothing any more.
    pub said: Option<(UserId, ByteBuf)>,
}

/// See [`Frame::Welcome`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version both sides use.
    pub protocol: u32,
    /// Who the token says the user is.
    pub user: UserId,
    /// To be stored with the one before it and shown in the next hello.
    pub nonce: Nonce,
    /// The server's wall clock.
    pub now: WallMs,
    /// Silence after which the server gives the session up, in milliseconds.
    pub idle_ms: u64,
    /// Bytes of push frames the server takes before it gives more credit.
    pub credit: u64,
}

/// See [`Frame::Opened`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    /// Which log.
    pub log: LogNumber,
    /// Its identity.
    pub log_id: LogId,
    /// Every epoch of its history with its first offset, ascending; the last is the one in force.
    pub epochs: Vec<(EpochId, Offset)>,
    /// Its end.
    pub end: Offset,
    /// Last accepted time.
    pub accepted: Time,
    /// The actor's highest seq with a durable verdict; pushes start behind it.
    pub seq: Seq,
    /// The actor chain there.
    pub chain: Chain,
    /// Older points of the actor chain, sparse, descending, for finding a fork.
    pub checkpoints: Vec<(Seq, Chain)>,
    /// Whether this actor may append.
    pub append: bool,
    /// Through which seq the actor's entries are in a backup that the server could be put back to: the client may let
    /// go of those. None: nobody says, and the client goes by age and size.
    pub backed_up: Option<Seq>,
}

/// See [`Frame::Ack`]: every seq up to `through` has a durable verdict, and is accepted unless it is marked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    /// Which log.
    pub log: LogNumber,
    /// Last seq with a verdict, inclusive.
    pub through: Seq,
    /// Stretches of accepted seqs whose place the server still knows.
    pub accepted: Vec<AckRange>,
    /// Seqs that were not simply accepted, ascending.
    pub marked: Vec<Marked>,
}

/// Accepted seqs that follow each other in the log too.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AckRange {
    /// First seq.
    pub seq: Seq,
    /// Its offset; the next seq has the next offset.
    pub offset: Offset,
    /// How many.
    pub count: u32,
    /// When the server took them.
    pub accepted: Time,
}

/// A verdict other than plain acceptance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Marked {
    /// Which seq.
    pub seq: Seq,
    /// The verdict.
    pub status: MarkedStatus,
    /// Why; none for outcomes of accepted entries, and once the details were released.
    pub code: Option<Code>,
    /// For people.
    pub reason: String,
}

/// How a marked seq stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum MarkedStatus {
    /// Not in the log, for the code given.
    Refused,
    /// Not in the log; kept at the server for an operator.
    Parked,
    /// Given up by its author.
    Void,
    /// In the log, but its lifetime was over.
    Expired,
    /// In the log, but a record it changes was gone.
    RecordGone,
    /// In the log under another id: another copy of the same database had it accepted, or an actor that took over.
    Elsewhere,
    /// A status of a newer version, by its number.
    Newer(u8),
}

impl MarkedStatus {
    /// Whether the entry is in the log.
    pub fn is_accepted(self) -> bool {
        matches!(self, Self::Expired | Self::RecordGone | Self::Elsewhere)
    }

    /// Whether the entry is in the log under its own id.
    pub fn is_logged(self) -> bool {
        self.is_accepted() && self != Self::Elsewhere
    }
}

impl Serialize for MarkedStatus {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(match self {
            Self::Refused => 1,
            Self::Parked => 2,
            Self::Void => 3,
            Self::Expired => 4,
            Self::RecordGone => 5,
            Self::Elsewhere => 6,
            Self::Newer(status) => *status,
        })
    }
}

impl<'de> Deserialize<'de> for MarkedStatus {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match u8::deserialize(deserializer)? {
            1 => Self::Refused,
            2 => Self::Parked,
            3 => Self::Void,
            4 => Self::Expired,
            5 => Self::RecordGone,
            6 => Self::Elsewhere,
            status => Self::Newer(status),
        })
    }
}

/// See [`Frame::Held`]: no verdict, and never a refusal by itself. Other logs go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// Which log.
    pub log: LogNumber,
    /// The first undecided seq; everything before it has its verdict.
    pub seq: Seq,
    /// Why, for people.
    pub reason: String,
    /// Push again from `seq` on after this time, in milliseconds.
    pub retry_ms: u64,
}

/// See [`Frame::Entries`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entries {
    /// Which log.
    pub log: LogNumber,
    /// Offset of the first item.
    pub from: Offset,
    /// The cursor after the last item: where a reader stands who has all of them.
    pub after: Cursor,
    /// The log's end when the frame was made, for showing progress.
    pub end: Offset,
    /// The items.
    pub entries: Packed,
}

/// See [`Frame::SnapshotPart`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotPart {
    /// Which log.
    pub log: LogNumber,
    /// The cursor the whole snapshot covers.
    pub cursor: Cursor,
    /// Where the part begins.
    pub at: u64,
    /// Bytes of the whole snapshot.
    pub total: u64,
    /// The part.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// See [`Frame::GoAway`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoAway {
    /// Why.
    pub code: Code,
    /// Come back after at least this long, in milliseconds …
    pub retry_ms_min: u64,
    /// … and draw from up to this long, so that not everybody comes at once.
    pub retry_ms_max: u64,
}

/// See [`Frame::Connection`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    state: u8,
    /// Why it is inactive, or was until now.
    reason: Option<u8>,
    /// Since when it is, or was, by the server's clock.
    since: Option<WallMs>,
}

impl Connection {
    /// The number of an inactive connection; every other one is active.
    const INACTIVE: u8 = 2;

    /// What it says.
    pub fn state(&self) -> ConnectionState {
        let said = self.reason.map(Downgrade::from_number).zip(self.since);
        match (self.state, said) {
            (Self::INACTIVE, Some((reason, since))) => ConnectionState::Inactive { reason, since },
            (_, was) => ConnectionState::Active { was },
        }
    }
}

impl From<ConnectionState> for Connection {
    fn from(state: ConnectionState) -> Self {
        let (state, said) = match state {
            ConnectionState::Active { was } => (1, was),
            ConnectionState::Inactive { reason, since } => (Self::INACTIVE, Some((reason, since))),
        };
        Self { state, reason: said.map(|(reason, _)| reason.number()), since: said.map(|(_, since)| since) }
    }
}

/// See [`Frame::Credit`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Credit {
    /// Bytes of push frames (server's credit) or of entries and snapshot frames (client's credit) that the sender of
    /// this frame takes in total since the session began. It never decreases.
    pub bytes: u64,
    /// A client's: of one log it takes so many in total since it subscribed it. It never decreases either.
    pub of_log: Option<(LogNumber, u64)>,
}

/// See [`Frame::Ping`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ping {
    /// Comes back in the pong.
    pub nonce: u64,
}

/// See [`Frame::Error`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Error {
    /// What went wrong.
    pub code: Code,
    /// For people.
    pub reason: String,
    /// The log it concerns; none: the session, which then ends.
    pub log: Option<LogNumber>,
    /// For `expected-seq`: the next seq the server takes.
    pub expected: Option<Seq>,
}

impl Frame {
    /// The frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let body = codec::to_bytes(self);
        let mut bytes = Vec::with_capacity(body.len() + 4);
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`DecodeError`]: close the session; the peer sends again. [`DecodeError::code`] gives the number to answer with.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > limits::FRAME_BYTES_MAX {
            return Err(DecodeError::TooLarge { got: bytes.len(), max: limits::FRAME_BYTES_MAX });
        }
        let (head, body) = bytes.split_first_chunk::<4>().ok_or(DecodeError::CutShort { need: 4, got: bytes.len() })?;
        let (expected, got) = (u32::from_le_bytes(*head), crc32c::crc32c(body));
        if expected != got {
            return Err(DecodeError::Checksum { expected, got });
        }
        codec::from_bytes(body)
    }

    /// Whether the frame is paid for from credit.
    pub fn needs_credit(&self) -> bool {
        matches!(self, Self::Push(_) | Self::Entries(_) | Self::SnapshotPart(_))
    }
}

impl DecodeError {
    /// The code to answer undecodable bytes with.
    pub fn code(&self) -> Code {
        match self {
            Self::TooLarge { .. } => Code::FrameTooLarge,
            Self::Checksum { .. } => Code::FrameChecksum,
            _ => Code::MalformedFrame,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error() -> Frame {
        Frame::Error(Error {
            code: Code::ExpectedSeq,
            reason: "next is 7".into(),
            log: Some(1),
            expected: Some(Seq(7)),
        })
    }

    #[test]
    fn frames_round_trip() {
        let frames = [
            error(),
            Frame::Ping(Ping { nonce: u64::MAX }),
            Frame::Credit(Credit { bytes: 5, of_log: Some((2, 3)) }),
            Frame::GoAway(GoAway { code: Code::ShuttingDown, retry_ms_min: 1, retry_ms_max: 2 }),
            Frame::Hello(Hello {
                protocol_min: 1,
                protocol_max: 1,
                client: ClientId([1; 16]),
                actor: ActorId([2; 16]),
                predecessor: None,
                user: None,
                nonces: vec![Nonce([3; 16])],
                device: "phone".into(),
                token: Some("t".into()),
                now: 1_700_000_000_000,
            }),
        ];
        for frame in frames {
            assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = error().encode();
        for at in 0..bytes.len() {
            assert!(Frame::decode(&bytes[..at]).is_err());
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert!(matches!(Frame::decode(&damaged), Err(DecodeError::Checksum { .. })));
            }
        }
    }

    #[test]
    fn oversize_and_unknown_types_are_refused_with_their_code() {
        let large = vec![0; limits::FRAME_BYTES_MAX + 1];
        assert_eq!(Frame::decode(&large).map_err(|error| error.code()), Err(Code::FrameTooLarge));
        let body = codec::to_bytes(&(99u8, ()));
        let mut bytes = crc32c::crc32c(&body).to_le_bytes().to_vec();
        bytes.extend(body);
        assert_eq!(Frame::decode(&bytes).map_err(|error| error.code()), Err(Code::MalformedFrame));
    }
}
