//! The rows of the local database and their bytes: each one sealed with its length and CRC32C.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::chain::{Chain, Cursor};
use crate::codec::{self, DecodeError, Format};
use crate::entry::{Entry, InvalidEntry};
use crate::id::{ActorId, ClientId, EpochId, LogId, Offset, Seq, UserId, WriteId};
use crate::packed::Packed;
use crate::protocol::Code;
use crate::protocol::frame::{MarkedStatus, Nonce};
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
}

impl Identity {
    /// A new database's identity, from random bytes of the shell.
    pub fn new(client: ClientId, actor: ActorId) -> Self {
        Self { format: Format, client, actor, predecessor: None, user: None, nonces: Vec::new() }
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
}

impl Verdicts {
    /// Nothing decided yet.
    pub fn new(actor: ActorId, chain: Chain) -> Self {
        Self { format: Format, actor, through: Seq(0), chain, marked: Vec::new() }
    }

    /// The mark on a seq.
    pub fn mark(&self, seq: Seq) -> Option<MarkedStatus> {
        let at = self.marked.binary_search_by_key(&seq, |(seq, _)| *seq).ok()?;
        Some(self.marked[at].1)
    }
}

/// An own entry that is not in the log, kept whole until somebody decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    format: Format<1>,
    /// The id that the app knows.
    pub write: WriteId,
    /// The entry's bytes, as it was pushed.
    #[serde(with = "serde_bytes")]
    pub entry: Vec<u8>,
    /// How the server decided.
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
        let write = WriteId { run: entry.header.run, n: entry.header.n };
        Self { format: Format, write, entry: entry.to_bytes(), status, code, reason, at, redriven: None }
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
