//! Connections: one client's registered link to the server, which outlives sockets, and whom a server downgrades that
//! cannot keep all of them active.
//!
//! ```text
//!             first hello                 idle, lag, pressure, asked
//!   (none) ──────────────► active ────────────────────────────────────► inactive
//!                            ▲              go-away, if it has a socket     │
//!                            └──────────────────────────────────────────────┘
//!                                   hello: snapshot and tail, own work on top
//! ```
//!
//! An *active* connection is live (it has a socket) or away. The server keeps its cursors, and for a live one a bounded
//! channel. An *inactive* one costs a row: nothing is kept for it, and nothing that its client did is refused for that.
//! It becomes active by coming back, and its client need not know that it was away.
//!
//! [`downgrades`] and [`admit`] are the whole policy: they look at how every active connection stands and say who goes.
//! They move nothing; whoever calls them does.

use std::collections::BTreeMap;

use crate::id::{ClientId, UserId};
use crate::time::WallMs;

/// Names a connection: a user has one for each client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// Whose it is.
    pub user: UserId,
    /// Whose local database it brings up to date.
    pub client: ClientId,
}

/// Why a connection is not active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Downgrade {
    /// It was not seen for too long.
    Idle,
    /// It is too far behind the logs it follows.
    Lag,
    /// There are more than the server keeps, of its user or in all.
    Pressure,
    /// An operator said so.
    Asked,
    /// A reason of a newer version, by its number.
    Newer(u8),
}

impl Downgrade {
    /// Every reason of this version.
    pub const ALL: [Self; 4] = [Self::Idle, Self::Lag, Self::Pressure, Self::Asked];

    /// The number on the wire and in the store.
    pub const fn number(self) -> u8 {
        match self {
            Self::Idle => 1,
            Self::Lag => 2,
            Self::Pressure => 3,
            Self::Asked => 4,
            Self::Newer(number) => number,
        }
    }

    /// The reason with this number.
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Idle,
            2 => Self::Lag,
            3 => Self::Pressure,
            4 => Self::Asked,
            other => Self::Newer(other),
        }
    }

    /// The word used in TypeScript, documents and listings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Lag => "lag",
            Self::Pressure => "pressure",
            Self::Asked => "asked",
            Self::Newer(_) => "other",
        }
    }
}

/// How a connection stands with its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// The server keeps its place in each log.
    Active {
        /// The time it was inactive before, if it was: why, and since when.
        was: Option<(Downgrade, WallMs)>,
    },
    /// The server keeps nothing for it but its row.
    Inactive {
        /// Why.
        reason: Downgrade,
        /// Since when, by the server's clock.
        since: WallMs,
    },
}

/// How far a connection is behind, over all its logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Entries that it has not been sent.
    pub entries: u64,
    /// Their bytes, as far as they were counted.
    pub bytes: u64,
}

/// One active connection, as the policy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which.
    pub id: ConnectionId,
    /// Whether it has a socket.
    pub live: bool,
    /// When it was last heard of.
    pub seen: WallMs,
    /// When it last did something: pushed, or asked for a log.
    pub acted: WallMs,
    /// When it last took entries, or had none to take.
    pub moved: WallMs,
    /// How far it is behind.
    pub lag: Lag,
}

/// What a server keeps of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// An away one that was not seen for so long is downgraded, in milliseconds.
    pub idle_ms: u64,
    /// … and one that is so many entries behind …
    pub lag_entries_max: u64,
    /// … or so many bytes. A live one only if it took nothing for `stuck_ms`: it may be catching up.
    pub lag_bytes_max: u64,
    /// See `lag_bytes_max`, in milliseconds.
    pub stuck_ms: u64,
    /// Active ones of one user.
    pub active_of_user_max: usize,
    /// Active ones in all.
    pub active_max: usize,
    /// Live ones, each with a socket.
    pub live_max: usize,
    /// A live one makes room for a newcomer only when it has done nothing for so long, in milliseconds: or two that
    /// both work would take turns.
    pub quiet_ms: u64,
}

/// Whether a newcomer gets a place, and at whose cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It does, and these are downgraded for [`Downgrade::Pressure`].
    Welcome(Vec<ConnectionId>),
    /// Everybody who is here is at work: come again later.
    Later,
}

/// Who is to be downgraded now, and why, each at most once, in the order of their ids.
///
/// First who was not seen for `idle_ms`, then who is too far behind. Of the rest, while a user has more active ones
/// than one may have, and then while there are more in all: first those who are away, the one not seen for longest
/// first, then the live ones, the one that did nothing for longest first. So whoever works keeps its place longest.
pub fn downgrades(now: WallMs, standings: &[Standing], limits: &Limits) -> BTreeMap<ConnectionId, Downgrade> {
    let mut gone = BTreeMap::new();
    let mut staying = Vec::new();
    for standing in standings {
        match overdue(now, standing, limits) {
            Some(reason) => drop(gone.insert(standing.id.clone(), reason)),
            None => staying.push(standing),
        }
    }
    staying.sort_unstable_by_key(|standing| last_to_go(standing));
    let mut of_user = BTreeMap::<_, usize>::new();
    staying.iter().for_each(|standing| *of_user.entry(&standing.id.user).or_default() += 1);
    let mut all = staying.len();
    staying.retain(|standing| {
        let count = of_user.entry(&standing.id.user).or_default();
        let stays = *count <= limits.active_of_user_max;
        if !stays {
            (*count, all) = (*count - 1, all - 1);
            gone.insert(standing.id.clone(), Downgrade::Pressure);
        }
        stays
    });
    let too_many = all.saturating_sub(limits.active_max);
    gone.extend(staying.iter().take(too_many).map(|standing| (standing.id.clone(), Downgrade::Pressure)));
    gone
}

/// Whether a connection that comes now gets a place beside those that are active; `standings` need not hold it, and do
/// not count it if they do.
///
/// Where all sockets are taken, the live one that did nothing for longest makes room if that is longer than `quiet_ms`.
/// Active ones beyond their limits go as in [`downgrades`], but no live one that is not quiet.
pub fn admit(now: WallMs, newcomer: &ConnectionId, standings: &[Standing], limits: &Limits) -> Admission {
    let mut others: Vec<_> = standings.iter().filter(|standing| standing.id != *newcomer).collect();
    others.sort_unstable_by_key(|standing| last_to_go(standing));
    let may_go = |standing: &Standing| !standing.live || now.saturating_sub(standing.acted) >= limits.quiet_ms;
    let mut gone = Vec::<ConnectionId>::new();
    type Counts<'a> = &'a dyn Fn(&Standing) -> bool;
    let places: [(Counts<'_>, usize); 3] = [
        (&|standing| standing.live, limits.live_max),
        (&|standing| standing.id.user == newcomer.user, limits.active_of_user_max),
        (&|_| true, limits.active_max),
    ];
    for (counts, places_max) in places {
        let stay = |gone: &[ConnectionId], standing: &Standing| counts(standing) && !gone.contains(&standing.id);
        let here = others.iter().filter(|standing| stay(&gone, standing)).count();
        for _ in 0..(here + 1).saturating_sub(places_max) {
            match others.iter().find(|standing| stay(&gone, standing) && may_go(standing)) {
                Some(standing) => gone.push(standing.id.clone()),
                None => return Admission::Later,
            }
        }
    }
    Admission::Welcome(gone)
}

/// Why a connection has no place by itself, whoever else is there.
fn overdue(now: WallMs, standing: &Standing, limits: &Limits) -> Option<Downgrade> {
    let Standing { live, seen, moved, lag, .. } = standing;
    if !live && now.saturating_sub(*seen) >= limits.idle_ms {
        return Some(Downgrade::Idle);
    }
    let far = lag.entries > limits.lag_entries_max || lag.bytes > limits.lag_bytes_max;
    let stuck = !live || now.saturating_sub(*moved) >= limits.stuck_ms;
    (far && stuck).then_some(Downgrade::Lag)
}

/// The key by which those go last that are most at work: away ones by when they were seen, then live ones by what they
/// did.
fn last_to_go(standing: &Standing) -> (bool, WallMs, &ConnectionId) {
    (standing.live, if standing.live { standing.acted } else { standing.seen }, &standing.id)
}

#[cfg(test)]
mod tests;
