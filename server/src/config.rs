//! What an operator decides.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use driftlog_core::connection::Limits;
use driftlog_core::sequencer::{AllowAll, Policy, Rerooting};

use crate::auth::Secret;
use crate::gate::Gate;
use crate::retention::Retention;

/// The configuration of one server. Every part has a default but who may come in.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the data stands.
    pub directory: PathBuf,
    /// The SQLite VFS that the data stands in, instead of the system's files: for a disk of the caller's own. Then
    /// nothing is made or locked in `directory`: the caller sees to it that it is there and has one server at a time.
    pub vfs: Option<String>,
    /// Who may come in.
    pub access: Access,
    /// Rules for entries; by default everything is allowed.
    pub policy: Arc<dyn Policy>,
    /// What is kept of dead letters.
    pub dead_letters: DeadLetterBounds,
    /// Which connections are kept active.
    pub connections: ConnectionBounds,
    /// How long pushes may wait before somebody should look.
    pub waits: WaitBounds,
    /// A directory of static files to serve beside the protocol, for local hosting.
    pub static_files: Option<PathBuf>,
    /// Where rich changes are checked before they reach the log.
    pub gate: Gate,
    /// Silence after which a session is given up.
    pub idle: Duration,
    /// Spread of the retry time in a go-away, so that not everybody comes back at once.
    pub retry_spread: Duration,
    /// A log gets a snapshot after so many entries behind the last one.
    pub snapshot_entries: u64,
    /// … or so many bytes of entries.
    pub snapshot_bytes: u64,
    /// What is kept of each log's entries behind its snapshots: by default 90 days.
    pub retention: Retention,
    /// How old an entry is when it is in a backup that the server could be put back to; none: nobody says. Clients keep
    /// their own entries until then, to offer them again to a server that has lost them.
    pub backed_up_after: Option<Duration>,
    /// The ledger of erases; none: `erased.jsonl` in the directory, or with a VFS no ledger. Backups of the data do not have it: keep it elsewhere.
    pub erase_ledger: Option<PathBuf>,
    /// From one purge of what is over to the next. With each, some of the logs that nobody writes to are looked after.
    pub purge: Duration,
    /// When a text whose history has grown far beyond its content is given a new root.
    pub rerooting: Rerooting,
    /// Logs whose state is kept in memory.
    pub hot_logs: usize,
    /// Bytes of newest entries kept in memory for each followed log.
    pub tail_bytes: usize,
    /// … and for all of them together.
    pub tails_bytes: usize,
    /// Bytes of pushes that may wait for their verdict, of all sessions together. As it fills, sessions get less credit
    /// and in the end none, so that writers slow down; in memory a push takes several times its bytes.
    pub room_bytes: u64,
}

/// The room that a server has by default: a few hundred megabytes of memory when it is full.
pub const ROOM_BYTES: u64 = 32 * 1024 * 1024;

/// How many dead letters are kept, and how many are too many.
///
/// Beyond the first two the oldest of that log go, first those whose author has recorded the verdict and so keeps the
/// entry itself.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetterBounds {
    /// Dead letters of one log; and of all bytes together that were no frame.
    pub count_max: u64,
    /// Their bytes.
    pub bytes_max: u64,
    /// `/health` is degraded above so many that nobody has dealt with, of all logs …
    pub degraded_count: u64,
    /// … or when the oldest of them is older.
    pub degraded_age: Duration,
}

impl Default for DeadLetterBounds {
    fn default() -> Self {
        Self {
            count_max: 10_000,
            bytes_max: 64 * 1024 * 1024,
            degraded_count: 1_000,
            degraded_age: Duration::from_secs(7 * 24 * 60 * 60),
        }
    }
}

/// Which connections are kept active. Beyond these the policy of `driftlog_core::connection` says who becomes inactive;
/// nothing is lost by it, and whoever comes back is active again.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionBounds {
    /// One without a socket that was not heard of for so long becomes inactive.
    pub idle: Duration,
    /// … and one that is so many entries behind, over all its logs …
    pub lag_entries_max: u64,
    /// … or so many bytes. One with a socket only when it took nothing for `stuck`.
    pub lag_bytes_max: u64,
    /// See `lag_bytes_max`.
    pub stuck: Duration,
    /// Active connections of one user.
    pub active_of_user_max: usize,
    /// Active connections in all.
    pub active_max: usize,
    /// Connections with a socket. A newcomer beyond it takes the place of one that did nothing for `quiet`; where nobody
    /// is so quiet it is told to come again.
    pub live_max: usize,
    /// See `live_max`.
    pub quiet: Duration,
    /// Newcomers that are taken in a second. Each of the others is told a moment of its own.
    pub welcomes_per_second: u64,
    /// … and at once, after a quiet time.
    pub welcomes_burst: u64,
    /// About how long one that was downgraded and has a socket is asked to stay away.
    pub away: Duration,
    /// How often the policy looks, and what moved is written.
    pub sweep: Duration,
}

impl Default for ConnectionBounds {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(30 * 24 * 60 * 60),
            lag_entries_max: 100_000,
            lag_bytes_max: 64 * 1024 * 1024,
            stuck: Duration::from_secs(60),
            active_of_user_max: 1_000,
            active_max: 100_000,
            live_max: 10_000,
            quiet: Duration::from_secs(60),
            welcomes_per_second: 500,
            welcomes_burst: 500,
            away: Duration::from_secs(30),
            sweep: Duration::from_secs(10),
        }
    }
}

impl ConnectionBounds {
    /// As the policy wants them.
    pub(crate) fn limits(&self) -> Limits {
        let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Limits {
            idle_ms: milliseconds(self.idle),
            lag_entries_max: self.lag_entries_max,
            lag_bytes_max: self.lag_bytes_max,
            stuck_ms: milliseconds(self.stuck),
            active_of_user_max: self.active_of_user_max,
            active_max: self.active_max,
            live_max: self.live_max,
            quiet_ms: milliseconds(self.quiet),
        }
    }
}

/// After how long `/health` is degraded for a push that waits.
#[derive(Debug, Clone, Copy)]
pub struct WaitBounds {
    /// For a gate worker, or its answer.
    pub gate_degraded_age: Duration,
    /// Held by the policy, in one session.
    pub held_degraded_age: Duration,
}

impl Default for WaitBounds {
    fn default() -> Self {
        Self { gate_degraded_age: Duration::from_secs(60), held_degraded_age: Duration::from_secs(60 * 60) }
    }
}

/// Who may come in.
#[derive(Debug, Clone)]
pub enum Access {
    /// Whoever shows a token made with this secret.
    Tokens(Secret),
    /// Everybody, on loopback only. Without a token the user is `dev`; the token `dev:alice` says alice.
    Development,
}

impl Config {
    /// A configuration with every default.
    pub fn new(directory: impl Into<PathBuf>, access: Access) -> Self {
        Self {
            directory: directory.into(),
            vfs: None,
            access,
            policy: Arc::new(AllowAll),
            dead_letters: DeadLetterBounds::default(),
            connections: ConnectionBounds::default(),
            waits: WaitBounds::default(),
            static_files: None,
            gate: Gate::default(),
            idle: Duration::from_secs(60),
            retry_spread: Duration::from_secs(5),
            snapshot_entries: 2_000,
            snapshot_bytes: 1024 * 1024,
            retention: Retention::default(),
            backed_up_after: None,
            erase_ledger: None,
            purge: Duration::from_secs(10),
            rerooting: Rerooting::default(),
            hot_logs: 256,
            tail_bytes: 512 * 1024,
            tails_bytes: 64 * 1024 * 1024,
            room_bytes: ROOM_BYTES,
        }
    }

    /// Where the ledger of erases stands; none where the data stands on a disk of the caller's own, who keeps it then.
    pub(crate) fn ledger(&self) -> Option<PathBuf> {
        let beside = self.vfs.is_none().then(|| self.directory.join("erased.jsonl"));
        self.erase_ledger.clone().or(beside)
    }
}

/// A duration as it is written on the command line: a number with s, m, h or d.
///
/// # Errors
/// What is wrong with it, for people.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| format!("{text:?} does not begin with a number"))?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(format!("{text:?} needs a unit: s, m, h or d")),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| format!("{text:?} is too long"))
}
