//! Every bound of the formats and the protocol, each with its unit and its reason.
//!
//! What a server's owner may tune is in the server's configuration; these are part of format version 1.

/// Bytes of an action, collection or field name. Long enough for any identifier, short enough to sit in a table.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes of a log name.
pub const LOG_NAME_BYTES_MAX: usize = 256;
/// Bytes of a record id: room for two UUIDs and a prefix.
pub const RECORD_ID_BYTES_MAX: usize = 128;
/// Bytes of a user id (the token's `sub`).
pub const USER_ID_BYTES_MAX: usize = 256;
/// Depth of nested arrays and maps, in values and frames; keeps the decoder's stack bounded.
pub const DEPTH_MAX: usize = 48;
/// Bytes of one entry, header and body. Larger content belongs into several actions or, later, an attachment.
pub const ENTRY_BYTES_MAX: usize = 256 * 1024;
/// Ops of one action: one action is atomic, so this bounds the longest step of the log writer.
pub const ENTRY_OPS_MAX: usize = 4096;
/// Entries that one entry may name in `needs`.
pub const ENTRY_NEEDS_MAX: usize = 256;
/// Seqs that one void may give up; more are given up in several.
pub const VOID_SEQS_MAX: u64 = 64 * 1024;
/// Bytes of one rich change.
pub const RICH_CHANGE_BYTES_MAX: usize = 128 * 1024;
/// Characters that one rich change may insert or delete: the whole text of the largest entry, and a bound on what a
/// few bytes can claim, since runs of ops are stored by their length.
pub const RICH_CHANGE_OPS_MAX: usize = ENTRY_BYTES_MAX;
/// Characters that all rich changes of one entry may insert or delete together. A deletion takes next to no bytes, so
/// their size alone bounds nothing; an action that clears several long texts at once stays far below.
pub const RICH_ENTRY_OPS_MAX: usize = 4 * RICH_CHANGE_OPS_MAX;
/// Characters that the rich changes of one push may insert or delete before the rest of it is held for a moment, so
/// that a few bytes cannot keep the log writer from everybody else.
pub const RICH_PUSH_OPS_MAX: usize = 2 * RICH_CHANGE_OPS_MAX;
/// Changes that one rich change may depend on; a text with more heads is edited on its latest ones.
pub const RICH_CHANGE_DEPENDENCIES_MAX: usize = 256;
/// Other authors whose characters one rich change may refer to.
pub const RICH_CHANGE_ACTORS_MAX: usize = 4096;
/// Bytes of a text that is given a new root: its content stands in one entry. A larger one keeps its history.
pub const ROOT_CONTENT_BYTES_MAX: usize = ENTRY_BYTES_MAX - 4096;
/// Living concurrent values a register keeps; beyond it the lowest by time goes.
pub const REGISTER_VALUES_MAX: usize = 16;
/// Edits that a record remembers as seen by no later one; beyond it the first in the log goes. A delete that lets updates
/// win goes by them, and misses an edit only if as many tabs of its own client edited unseen of each other behind that.
pub const RECORD_EDITS_MAX: usize = 16;
/// Milliseconds for which a delete that lets updates win is remembered: 30 days, as long as a device may well be away.
pub const DELETE_GRACE_MS: u64 = 30 * 24 * 60 * 60 * 1_000;
/// The longest grace that a delete may ask for, in milliseconds: what was deleted is kept that long.
pub const DELETE_GRACE_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1_000;
/// Bytes of one frame. Larger is refused before it is decoded.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Bytes at which a sender closes a frame of entries and begins the next; small, so that a write never waits behind bulk.
pub const FRAME_BYTES_TARGET: usize = 64 * 1024;
/// Entries in one frame.
pub const FRAME_ENTRIES_MAX: usize = 1024;
/// Bytes of one snapshot part.
pub const SNAPSHOT_PART_BYTES: usize = 64 * 1024;
/// Bytes that may wait in the browser's socket before the session holds back more.
pub const SOCKET_BUFFERED_BYTES_MAX: usize = 64 * 1024;
/// Bytes of entries that one side may have outstanding in one session, before credit.
pub const CREDIT_BYTES: u64 = 1024 * 1024;
/// Bytes of pushes of one log that may wait for their answer in one session, so that a log whose pushes are slow to
/// answer leaves room for the others.
pub const CREDIT_BYTES_OF_LOG: u64 = CREDIT_BYTES / 2;
/// Logs one session may have open at once.
pub const SESSION_LOGS_MAX: usize = 16 * 1024;
/// Logs that one subscribe names: whatever they are called, it stays near [`FRAME_BYTES_TARGET`].
pub const SUBSCRIBE_LOGS_MAX: usize = 128;
/// Bytes of what a client says of itself in a log at the moment.
pub const PRESENCE_BYTES_MAX: usize = 4 * 1024;
/// Characters of a reason given to people.
pub const REASON_CHARS_MAX: usize = 500;

const _: () = assert!(ENTRY_BYTES_MAX * 2 <= FRAME_BYTES_MAX, "any entry fits a frame, packed or not");
const _: () = assert!(RICH_CHANGE_BYTES_MAX < ENTRY_BYTES_MAX, "any rich change fits an entry");
const _: () = assert!(FRAME_BYTES_MAX as u64 <= CREDIT_BYTES, "any frame fits the first credit");
