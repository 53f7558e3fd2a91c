//! The lease row: how tabs elect their leader where there are no Web Locks.
//!
//! The holder renews it; a lease that was not renewed in time is anybody's. It elects and nothing more: what keeps a
//! tab that was frozen while it led from doing harm is the leader's epoch, which core raises and checks.

use crate::store::{CommitError, Durability, Store, StoreError, Write};
use driftlog_core::storage;

/// How long a lease lasts without being renewed. Hidden tabs may run once a minute; they then lose it, which costs a
/// change of leader and nothing else.
pub(crate) const LEASE_MS: u64 = 10_000;

/// How often a lease is renewed, or asked for.
pub(crate) const LEASE_RENEWAL_MS: u64 = 3_000;

/// A tab, as the lease names it: the id of its run.
pub(crate) type TabId = [u8; 8];

/// The row: who leads, and until when by the wall clock of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lease {
    holder: TabId,
    expires_at_ms: u64,
}

/// How a claim went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The lease is this tab's now, and was not before.
    Taken,
    /// It was this tab's all the time.
    Renewed,
    /// It is another tab's.
    Denied,
}

/// Takes or renews the lease, if that is free, expired, or this tab's own.
///
/// # Errors
/// The store's. After an unknown outcome the claim is made again.
pub(crate) async fn claim<S: Store>(store: &S, me: TabId, now_ms: u64) -> Result<Claim, StoreError> {
    let key = storage::lease_key();
    loop {
        let outcome = store
            .commit(Durability::Relaxed, std::slice::from_ref(&key), |values| {
                let claim = decide(values[0].as_deref().and_then(Lease::decode), me, now_ms);
                if claim == Claim::Denied {
                    return Err(());
                }
                let lease = Lease { holder: me, expires_at_ms: now_ms + LEASE_MS };
                Ok((vec![Write::Put(key.clone(), lease.encode())], claim))
            })
            .await;
        match outcome {
            Ok(claim) => return Ok(claim),
            Err(CommitError::Aborted(())) => return Ok(Claim::Denied),
            Err(CommitError::Unknown(_) | CommitError::Conflict) => {}
            Err(CommitError::Store(error)) => return Err(error),
        }
    }
}

/// Ends the lease, if it is this tab's, so that the next one need not wait. Failure only costs that wait.
pub(crate) async fn release<S: Store>(store: &S, me: TabId) {
    let key = storage::lease_key();
    let _ = store
        .commit(Durability::Relaxed, std::slice::from_ref(&key), |values| {
            match values[0].as_deref().and_then(Lease::decode) {
                Some(lease) if lease.holder == me => Ok((vec![Write::Delete(key.clone())], ())),
                _ => Err(()),
            }
        })
        .await;
}

fn decide(row: Option<Lease>, me: TabId, now_ms: u64) -> Claim {
    match row {
        Some(lease) if lease.holder == me && now_ms < lease.expires_at_ms => Claim::Renewed,
        // A clock that was set back must not make a lease endless: none lasts longer than it was granted for.
        Some(lease) if now_ms < lease.expires_at_ms && lease.expires_at_ms <= now_ms + LEASE_MS => Claim::Denied,
        _ => Claim::Taken,
    }
}

impl Lease {
    /// The row's bytes: expiry (big-endian), holder.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.expires_at_ms.to_be_bytes().to_vec();
        bytes.extend(self.holder);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (expires_at_ms, holder) = bytes.split_first_chunk()?;
        Some(Lease { expires_at_ms: u64::from_be_bytes(*expires_at_ms), holder: holder.try_into().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: TabId = [1; 8];
    const OTHER: TabId = [2; 8];

    fn claim_at(holder: TabId, expires_at_ms: u64) -> Claim {
        decide(Some(Lease { holder, expires_at_ms }), ME, 100_000)
    }

    #[test]
    fn lease_is_renewed_by_its_holder_and_taken_only_when_it_ended() {
        assert_eq!(decide(None, ME, 100_000), Claim::Taken);
        assert_eq!(claim_at(ME, 105_000), Claim::Renewed);
        assert_eq!(claim_at(ME, 99_000), Claim::Taken, "another may have led in between");
        assert_eq!(claim_at(OTHER, 105_000), Claim::Denied);
        assert_eq!(claim_at(OTHER, 100_000), Claim::Taken);
        assert_eq!(claim_at(OTHER, 3_700_000), Claim::Taken, "granted before the clock was set back by an hour");
    }

    #[test]
    fn row_survives_its_bytes() {
        let row = Lease { holder: OTHER, expires_at_ms: 105_000 };
        assert_eq!(Lease::decode(&row.encode()), Some(row));
        assert_eq!(Lease::decode(&row.encode()[1..]), None);
    }
}
