//! The rows of the local database and their bytes: each one sealed with its length and CRC32C.
//!
//! What is small and cannot be had again (identity, next seq, leader's epoch, voids) is written twice in its row, so
//! that damage to one place costs nothing. Everything else is the server's too, or parked when it is damaged.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::chain::{Chain, Cursor};
use crate::codec::{self, DecodeError, Format};
use crate::entry::{Entry, InvalidEntry};
use crate::id::{ActorId, ClientId, EpochId, LogId, Offset, Seq, UserId, WriteId};
use crate::limits;
use crate::packed::{Packed, Void};
use crate::protocol::Code;
use crate::protocol::frame::{MarkedStatus, Nonce};
use crate::state::State;
use crate::storage::own::Damaged;
use crate::time::WallMs;

/// Who this database is. Made with it, before anything else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    format: Format<1>,
    /// The database.
    pub client: ClientId,
    /// Under whose name it writes.
    pub actor: ActorId,
    /// The actor before a detected clone.
    pub predecessor: Option<ActorId>,
    /// The user it belongs to since its first welcome.
    pub user: Option<UserId>,
    /// Nonces of the last two welcomes, newest first.
    pub nonces: Vec<Nonce>,
    /// How many logs have own entries, counted as each got its first: by this a succession knows that it has them all.
    pub logs: u64,
}

impl Identity {
    /// A new database's identity, from random bytes of the shell.
    pub fn new(client: ClientId, actor: ActorId) -> Self {
        Self { format: Format, client, actor, predecessor: None, user: None, nonces: Vec::new(), logs: 0 }
    }

    /// A fresh actor takes over, which no server has met; where another database has the same id, under another one.
    pub fn succeed(&mut self, actor: ActorId, client: Option<ClientId>) {
        self.predecessor = Some(self.actor);
        self.actor = actor;
        self.client = client.unwrap_or(self.client);
        self.nonces.clear();
    }
}

/// Received entries of one log, as they came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Received {
    /// The log's identity.
    pub log_id: LogId,
    /// The last epoch known when they came.
    pub epoch: (EpochId, Offset),
    /// Offset of the first.
    pub from: Offset,
    /// The cursor after the last.
    pub after: Cursor,
    /// The entries; own ones as stubs, their bodies are in the rows of own entries.
    pub entries: Packed,
}

impl Received {
    /// The empty row behind a snapshot: whoever reads from before it sees that something is missing.
    pub fn behind(state: &State) -> Self {
        let epoch = state.epochs().last().copied().unwrap_or_default();
        let after = state.cursor();
        Self { log_id: state.log(), epoch, from: after.next, after, entries: Packed::default() }
    }
}

/// What is known of verdicts on the own entries of one log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdicts {
    format: Format<1>,
    /// Whose seqs these are.
    pub actor: ActorId,
    /// Last seq with a recorded verdict, inclusive.
    pub through: Seq,
    /// The actor chain there.
    pub chain: Chain,
    /// Seqs that are not simply accepted, ascending; kept for ever, for `needs` and for people.
    pub marked: Vec<(Seq, MarkedStatus)>,
    /// Through which the marks and their dead letters are known to survive a power loss, inclusive.
    pub settled: Seq,
    /// How often the log went back to what a restored server has. A tab that has not heard of the last time starts anew.
    pub rewound: u64,
}

impl Verdicts {
    /// Nothing decided yet.
    pub fn new(actor: ActorId, chain: Chain) -> Self {
        Self { format: Format, actor, through: Seq(0), chain, marked: Vec::new(), settled: Seq(0), rewound: 0 }
    }

    /// The mark on a seq.
    pub fn mark(&self, seq: Seq) -> Option<MarkedStatus> {
        let at = self.marked.binary_search_by_key(&seq, |(seq, _)| *seq).ok()?;
        Some(self.marked[at].1)
    }

    /// Whether there are marks that may not survive a power loss.
    pub fn is_unsettled(&self) -> bool {
        self.marked.last().is_some_and(|(seq, _)| *seq > self.settled)
    }
}

/// Seqs that were given up on this device: each stretch goes to the server as one void, the same at every resend.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Voids {
    format: Format<1>,
    /// The stretches, ascending, kept for ever. Where the server had decided a seq before, its verdict holds.
    pub stretches: Vec<Void>,
    /// The actors before this one, whose the first seqs are: each with the last that is its, ascending.
    pub earlier: Vec<(ActorId, Seq)>,
}

impl Voids {
    /// The part of `from ..= through` that is not given up yet, in stretches of a length that one void may have.
    pub fn without(&self, from: Seq, through: Seq) -> Vec<(Seq, Seq)> {
        let mut free = Vec::new();
        let mut at = from;
        let before = self.stretches.iter().filter(|void| void.through >= from && void.from <= through);
        let bounds = before.map(|void| (void.from, void.through.next())).chain([(through.next(), through.next())]);
        for (first, behind) in bounds {
            while at < first {
                let last = Seq((first.0 - 1).min(at.0 + limits::VOID_SEQS_MAX - 1));
                free.push((at, last));
                at = last.next();
            }
            at = at.max(behind);
        }
        free
    }

    /// Adds a stretch that overlaps none.
    pub fn add(&mut self, void: Void) {
        let at = self.stretches.partition_point(|other| other.from < void.from);
        self.stretches.insert(at, void);
    }
}

/// An own entry that is not in the log, kept whole until somebody decides; or bytes that were own entries once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    format: Format<1>,
    /// The id that the app knows; none if the bytes no longer tell.
    pub write: Option<WriteId>,
    /// How many seqs it stands for, from that of its key on: one, unless bytes of several are damaged together.
    pub seqs: u64,
    /// The entry's bytes, as it was pushed; what is left of them if they are damaged.
    #[serde(with = "serde_bytes")]
    pub entry: Vec<u8>,
    /// How it was decided.
    pub status: MarkedStatus,
    /// Why, as a number.
    pub code: Option<Code>,
    /// Why, for people.
    pub reason: String,
    /// When it was recorded here.
    pub at: WallMs,
    /// The seq of the own entry that re-issues it, once there is one: how it stands follows from that one's verdict.
    pub redriven: Option<Seq>,
}

impl DeadLetter {
    /// Keeps an entry with its verdict.
    pub fn new(entry: &Entry, status: MarkedStatus, code: Option<Code>, reason: String, at: WallMs) -> Self {
        let write = Some(WriteId { run: entry.header.run, n: entry.header.n });
        Self { format: Format, write, seqs: 1, entry: entry.to_bytes(), status, code, reason, at, redriven: None }
    }

    /// Keeps what is left of own entries whose bytes are damaged.
    pub fn damaged(damaged: Damaged, at: WallMs) -> Self {
        let Damaged { seqs, bytes, reason } = damaged;
        let (status, code) = (MarkedStatus::Void, Some(Code::Damaged));
        let seqs = seqs.end().0 - seqs.start().0 + 1;
        Self { format: Format, write: None, seqs, entry: bytes, status, code, reason, at, redriven: None }
    }

    /// A dead letter whose own row is damaged: its bytes are kept as they are.
    pub fn unreadable(row: &[u8], status: Option<MarkedStatus>, error: &DecodeError) -> Self {
        let (code, reason) = (Some(Code::Damaged), format!("the row of this dead letter is damaged: {error}"));
        let status = status.unwrap_or(MarkedStatus::Void);
        Self { format: Format, write: None, seqs: 1, entry: row.to_vec(), status, code, reason, at: 0, redriven: None }
    }

    /// The same content, standing for so many seqs.
    #[must_use]
    pub fn standing_for(&self, seqs: u64) -> Self {
        Self { seqs, ..self.clone() }
    }

    /// The last seq it stands for, if `first` is its own.
    pub fn last(&self, first: Seq) -> Seq {
        Seq(first.0.saturating_add(self.seqs.max(1) - 1))
    }
}

/// Encodes and seals a row.
pub fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::seal(&codec::to_bytes(row), &mut bytes);
    bytes
}

/// Opens a sealed row.
///
/// # Errors
/// [`DecodeError`]: the row is damaged.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut rest = bytes;
    let payload = codec::unseal(&mut rest)?;
    if !rest.is_empty() {
        return Err(DecodeError::Trailing(rest.len()));
    }
    codec::from_bytes(payload)
}

/// Encodes a row that must outlive damage to any one place of it: the sealed row, twice.
pub fn encode_twice<T: Serialize>(row: &T) -> Vec<u8> {
    let mut bytes = encode(row);
    bytes.extend_from_within(..);
    bytes
}

/// Reads a row that was written twice: the first copy that is whole.
///
/// # Errors
/// [`DecodeError`] of the second copy: both are damaged.
pub fn decode_either<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    decode(first).or_else(|_| decode(second))
}

/// Packs a group of own entries into one row: each sealed by itself, so that damage costs one entry.
pub fn encode_group<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<u8> {
    let mut bytes = Vec::new();
    entries.into_iter().for_each(|entry| codec::seal(&entry.to_bytes(), &mut bytes));
    bytes
}

/// Reads a group of own entries.
///
/// # Errors
/// [`InvalidEntry`] of the first damaged one; those before it are lost to this call, so use it where all are needed.
pub fn decode_group(bytes: &[u8]) -> Result<Vec<Entry>, InvalidEntry> {
    let mut rest = bytes;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        entries.push(Entry::from_bytes(codec::unseal(&mut rest)?)?);
    }
    Ok(entries)
}
