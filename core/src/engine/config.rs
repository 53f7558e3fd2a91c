//! What a tab's engine starts with.

use std::sync::Arc;

use crate::id::{ActorId, ClientId, LogName, RunId};
use crate::outbox::BacklogBound;
use crate::witness::{Witness, Work};

/// What a tab's engine starts with. The ids are random bytes drawn by the shell.
#[derive(Clone, Debug)]
pub struct Config {
    /// This start of this tab.
    pub run: RunId,
    /// The database's identity, if it has none yet.
    pub client: ClientId,
    /// The database's actor, if it has none yet.
    pub actor: ActorId,
    /// For everything random from here on.
    pub seed: [u8; 32],
    /// The device, for people.
    pub device: String,
    /// Whether there is a server to connect to.
    pub connect: bool,
    /// Whether the app gives tokens.
    pub token: bool,
    /// How much of each log may wait for the server's verdict; beyond it nothing more is recorded.
    pub backlog: BacklogBound,
    /// Bytes of accepted own entries that stay behind a snapshot; [`OWN_KEPT_BYTES`] unless there is a reason.
    pub own_kept_bytes: usize,
}

/// Bytes of accepted own entries that a device keeps of each log: for its lists, and for a server that forgot them.
pub const OWN_KEPT_BYTES: usize = 64 * 1024;

/// What an engine goes on from that takes the place of one that trapped; nothing, for the first one of a tab.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    /// Actions of this run that have a number already.
    pub acts: u64,
    /// What the engine before did not come back from, if that is known.
    pub trap: Option<Trap>,
    /// Which build of the engine this is: work that another build gave up is tried again.
    pub build: String,
    /// Who remembers what this engine works on.
    pub witness: Option<Arc<dyn Witness>>,
}

/// What an engine did not come back from.
#[derive(Clone, Debug, PartialEq)]
pub struct Trap {
    /// The log it worked on.
    pub log: LogName,
    /// The work.
    pub work: Work,
    /// What is known of the trap, for people.
    pub reason: String,
}
