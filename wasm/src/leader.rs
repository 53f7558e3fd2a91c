//! The leader row: which tab leads, and the epoch that fences its predecessors.
//!
//! Every change of leadership raises the epoch by one, inside a transaction; a leader's writes check it, so a tab that
//! was frozen while it led can do no harm when it wakes. With Web Locks the lock elects and the row only fences;
//! without them the row is a lease as well, which its holder renews.

use crate::store::{CommitError, Durability, Key, Store, StoreError, Write};

/// How long a lease lasts without being renewed. Hidden tabs may run once a minute; they then lose it, which costs a
/// change of leader and nothing else.
pub(crate) const LEASE_MS: u64 = 10_000;

/// How often a lease is renewed, or asked for.
pub(crate) const LEASE_RENEWAL_MS: u64 = 3_000;

/// A tab, as the leader row names it: the id of its run.
pub(crate) type TabId = [u8; 16];

/// The leader row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leader {
    /// How many times the leadership changed.
    pub(crate) epoch: u64,
    /// Who leads.
    pub(crate) holder: TabId,
    /// Until when, in the wall clock of the device; counts only without Web Locks.
    pub(crate) expires_at_ms: u64,
}

/// On what ground a tab claims to lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    /// It holds the lock, or is the only tab there can be: its claim is always granted.
    Lock,
    /// It asks for the lease: granted if that is free, expired, or its own.
    Lease,
}

/// Claims the leadership. `None`: another tab holds the lease.
///
/// # Errors
/// The store's. After an unknown outcome the claim is made again; at worst the epoch rises twice.
pub(crate) async fn claim<S: Store>(
    store: &S,
    key: &Key,
    me: TabId,
    ground: Ground,
    now_ms: u64,
) -> Result<Option<Leader>, StoreError> {
    loop {
        let outcome = store
            .commit(Durability::Relaxed, std::slice::from_ref(key), |values| {
                let row = values[0].as_deref().and_then(Leader::decode);
                let leader = decide(row, me, ground, now_ms).ok_or(())?;
                Ok((vec![Write::Put(key.clone(), leader.encode())], leader))
            })
            .await;
        match outcome {
            Ok(leader) => return Ok(Some(leader)),
            Err(CommitError::Aborted(())) => return Ok(None),
            Err(CommitError::Unknown(_) | CommitError::Conflict) => {}
            Err(CommitError::Store(error)) => return Err(error),
        }
    }
}

/// The row after a claim, if it is granted. A lease that its own holder renews keeps its epoch; so does nothing else.
fn decide(row: Option<Leader>, me: TabId, ground: Ground, now_ms: u64) -> Option<Leader> {
    let renewed = |epoch| Leader { epoch, holder: me, expires_at_ms: now_ms + LEASE_MS };
    match (row, ground) {
        (None, _) => Some(renewed(1)),
        (Some(row), Ground::Lease) if row.holder == me => Some(renewed(row.epoch)),
        // A clock that was set back must not make a lease endless: none lasts longer than it was granted for.
        (Some(row), Ground::Lease) if now_ms < row.expires_at_ms && row.expires_at_ms <= now_ms + LEASE_MS => None,
        (Some(row), _) => Some(renewed(row.epoch + 1)),
    }
}

impl Leader {
    /// The row's bytes: epoch, expiry (both big-endian), holder.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32);
        bytes.extend(self.epoch.to_be_bytes());
        bytes.extend(self.expires_at_ms.to_be_bytes());
        bytes.extend(self.holder);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (epoch, rest) = bytes.split_first_chunk()?;
        let (expires_at_ms, holder) = rest.split_first_chunk()?;
        Some(Leader {
            epoch: u64::from_be_bytes(*epoch),
            expires_at_ms: u64::from_be_bytes(*expires_at_ms),
            holder: holder.try_into().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: TabId = [1; 16];
    const OTHER: TabId = [2; 16];

    fn held(holder: TabId, expires_at_ms: u64) -> Option<Leader> {
        Some(Leader { epoch: 7, holder, expires_at_ms })
    }

    fn epoch_after(row: Option<Leader>, ground: Ground) -> Option<u64> {
        decide(row, ME, ground, 100_000).map(|leader| leader.epoch)
    }

    #[test]
    fn lock_always_raises_the_epoch() {
        assert_eq!(epoch_after(None, Ground::Lock), Some(1));
        assert_eq!(epoch_after(held(OTHER, 105_000), Ground::Lock), Some(8));
        assert_eq!(epoch_after(held(ME, 105_000), Ground::Lock), Some(8));
    }

    #[test]
    fn lease_is_renewed_by_its_holder_and_taken_only_when_it_ended() {
        assert_eq!(epoch_after(held(ME, 105_000), Ground::Lease), Some(7));
        assert_eq!(epoch_after(held(OTHER, 105_000), Ground::Lease), None);
        assert_eq!(epoch_after(held(OTHER, 100_000), Ground::Lease), Some(8));
        // Granted before the clock was set back by an hour.
        assert_eq!(epoch_after(held(OTHER, 3_700_000), Ground::Lease), Some(8));
    }

    #[test]
    fn row_survives_its_bytes() {
        let row = held(OTHER, 105_000).unwrap();
        assert_eq!(Leader::decode(&row.encode()), Some(row));
        assert_eq!(Leader::decode(&row.encode()[1..]), None);
    }
}
