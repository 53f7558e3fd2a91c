//! Every commit of a client, as a pure function from the rows it reads to the rows it writes.

mod park;

use std::sync::Arc;

use crate::codec::DecodeError;
use crate::entry::{Body, Entry, Header, InvalidEntry, Replaced};
use crate::id::{ActorId, Base, EntryId, LogName, Offset, RunId, Seq, UserId, WriteId};
use crate::protocol::frame::Nonce;
use crate::storage::fold::FoldCommit;
use crate::storage::prune::Prune;
use crate::storage::purge::{Purge, Purged};
use crate::storage::rewind::Rewind;
use crate::storage::row::{self, DeadLetter, Identity, Received, Verdicts, Voids};
use crate::storage::succession::Succession;
use crate::storage::traps::Traps;
use crate::storage::{self, Durability, Key, Write};
use crate::time::{Time, WallMs};
use crate::witness::Work;

pub use park::Park;

/// One atomic change of the local database.
#[derive(Clone, Debug)]
pub enum Commit {
    /// Makes this identity the database's, unless it has one.
    Identity(Identity),
    /// Takes the lead over all tabs: from now on only commits with the new epoch pass the fence.
    Lead,
    /// Notes a welcome: the user, and the nonce for the next hello.
    Greeted {
        /// The leader's epoch.
        fence: u64,
        /// Who the server says we are.
        user: UserId,
        /// The welcome's nonce.
        nonce: Nonce,
    },
    /// Appends a group of own entries: here they get their seqs.
    Append(Append),
    /// Stores what came from the server for one log.
    Receive(Receive),
    /// Replaces a log's snapshot and drops the received rows behind it.
    Snapshot {
        /// The leader's epoch.
        fence: u64,
        /// The log.
        log: LogName,
        /// The snapshot's bytes, with a checksum of their own.
        bytes: Arc<[u8]>,
        /// The empty row behind it, at the first offset that it does not cover: stays if rows follow already.
        behind: Received,
        /// Rows from this offset on are kept all the same: a fold still needs them.
        keep: Offset,
        /// When the next event ends that is in a row, if that is to be written.
        purged: Option<Purged>,
    },
    /// Gives own seqs up on this device.
    Park(Park),
    /// Makes what was recorded of refusals survive a power loss.
    Settle(Settle),
    /// A fresh actor takes over.
    Succeed(Succession),
    /// Goes back to what a server has that lost a part of a log.
    Rewind(Rewind),
    /// Deletes a dead letter, because the user said so.
    Discard {
        /// Its key.
        key: Key,
    },
    /// Writes what a fold has come to.
    Fold(FoldCommit),
    /// Counts what the engine did not come back from.
    Trapped(Trapped),
    /// Deletes own entries that are decided and in a stored snapshot.
    Prune(Prune),
    /// Writes own rows again without what must not stay.
    Purge(Purge),
}

/// What the engine did not come back from.
#[derive(Clone, Debug)]
pub struct Trapped {
    /// The log it worked on.
    pub log: LogName,
    /// The work.
    pub work: Work,
    /// What is known of the trap, for people.
    pub reason: String,
    /// Which build of the engine it was.
    pub build: String,
    /// When.
    pub at: WallMs,
}

/// A group of own entries of one log, in order.
#[derive(Clone, Debug)]
pub struct Append {
    /// The log.
    pub log: LogName,
    /// Under whose name; the commit aborts if the database has another by now.
    pub actor: ActorId,
    /// The tab's run.
    pub run: RunId,
    /// Highest seq, anybody's, below which nothing is unread in this tab.
    pub known: Seq,
    /// Highest seq of another tab that this tab knows of.
    pub others: Seq,
    /// The entries.
    pub entries: Vec<Prepared>,
}

/// An own entry before it has a seq.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Its number within the run.
    pub n: u64,
    /// What its author had seen of the log.
    pub base: Base,
    /// Through which seq its author had seen the other tabs' entries.
    pub own: Seq,
    /// The author's clock.
    pub time: Time,
    /// Own undecided entries it builds on.
    pub needs: Vec<Need>,
    /// The entry it re-issues.
    pub replaces: Option<Replaced>,
    /// The dead letter that is marked with it, in the same transaction.
    pub letter: Option<EntryId>,
    /// What it says.
    pub body: Arc<Body>,
}

/// An own entry that another builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It has a seq.
    Seq(Seq),
    /// It stands earlier in the same group, by its number within the run.
    Earlier(u64),
}

/// What came from the server for one log.
#[derive(Clone, Debug)]
pub struct Receive {
    /// The leader's epoch.
    pub fence: u64,
    /// The log.
    pub log: LogName,
    /// Whether rows from the first of these on are left from before and must go.
    pub clear: bool,
    /// Received entries, contiguous.
    pub rows: Vec<Received>,
    /// What is known of verdicts from now on.
    pub verdicts: Option<Verdicts>,
    /// Own entries that were refused, with their seqs.
    pub dead_letters: Vec<(Seq, DeadLetter)>,
    /// Dead letters of which a replacement is accepted.
    pub redeemed: Vec<EntryId>,
    /// Dead letters, by seq, of own entries that were given up here and turned out to be decided otherwise.
    pub revived: Vec<Seq>,
}

/// What was recorded of refusals in relaxed commits is written once more, strictly: the row of verdicts and the dead
/// letters, as they are by now. So it holds whatever order the database flushes its commits in.
#[derive(Clone, Debug)]
pub struct Settle {
    /// The leader's epoch.
    pub fence: u64,
    /// The log.
    pub log: LogName,
    /// Whose seqs they are.
    pub actor: ActorId,
    /// Through which seq it counts, inclusive.
    pub through: Seq,
    /// The dead letters that may not be flushed yet.
    pub letters: Vec<Seq>,
    /// What takes the place of a row of verdicts that does not read; none: it is left.
    pub damaged: Option<Verdicts>,
}

/// What a commit did.
#[derive(Clone, Debug, PartialEq)]
pub enum Committed {
    /// The identity in force.
    Identity(Identity),
    /// The new leader's epoch, and the identity in force: the leader before may have renewed it since this tab read it.
    Lead(u64, Identity),
    /// The entries as appended, with their seqs.
    Appended(Vec<Entry>),
    /// Refusals through this seq survive a power loss.
    Settled(Seq),
    /// Everything that is given up in this log by now, and the new dead letters.
    Parked(Voids, Vec<(Seq, DeadLetter)>),
    /// Everything that is given up in this log by now.
    Rewound(Voids),
    /// Nothing to tell.
    Done,
}

/// Why a commit decided against itself. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitAbort {
    /// Another tab leads; stop writing for it.
    #[error("another tab leads with epoch {epoch}")]
    Deposed {
        /// Its epoch.
        epoch: u64,
    },
    /// The database's actor changed; prepare the entries anew.
    #[error("the database writes under another actor now")]
    ActorChanged,
    /// Rows changed since the decision was made on them; make it anew.
    #[error("the rows of own entries changed meanwhile")]
    Overtaken,
    /// A row that the commit reads is damaged.
    #[error("a row of the local database is damaged: {0}")]
    Damaged(#[from] DecodeError),
    /// An entry breaks the format after all.
    #[error(transparent)]
    Entry(#[from] InvalidEntry),
}

pub(super) type Decision = Result<(Vec<Write>, Committed), CommitAbort>;

impl Commit {
    /// The keys whose values [`Commit::decide`] wants, in this order.
    pub fn reads(&self) -> Vec<Key> {
        match self {
            Self::Identity(_) => vec![storage::identity_key()],
            Self::Lead | Self::Greeted { .. } => vec![storage::leader_key(), storage::identity_key()],
            Self::Append(append) => {
                let letters = append.letters().map(|(_, key)| key);
                [storage::identity_key(), storage::next_key(&append.log)].into_iter().chain(letters).collect()
            }
            Self::Park(park) => {
                let voids = storage::voids_key(&park.log, park.actor);
                vec![storage::identity_key(), voids, storage::verdicts_key(&park.log)]
            }
            Self::Succeed(succession) => succession.reads(),
            Self::Rewind(rewind) => rewind.reads(),
            Self::Receive(_) | Self::Prune(_) | Self::Purge(_) => vec![storage::leader_key()],
            Self::Settle(settle) => settle.reads(),
            Self::Snapshot { log, behind, .. } => {
                vec![storage::leader_key(), storage::received_key(log, behind.from)]
            }
            Self::Discard { .. } => Vec::new(),
            Self::Fold(fold) => vec![storage::fold_key(&fold.log, &fold.fold)],
            Self::Trapped(trapped) => vec![storage::traps_key(&trapped.log)],
        }
    }

    /// How durable it must be before it counts.
    pub fn durability(&self) -> Durability {
        match self {
            // Of a refusal that a power loss takes the server tells again, until `Settle`.
            Self::Receive(receive) if receive.revived.is_empty() => Durability::Relaxed,
            Self::Snapshot { .. } | Self::Fold(_) | Self::Prune(_) => Durability::Relaxed,
            _ => Durability::Strict,
        }
    }

    /// Decides the writes from the rows read inside the transaction.
    ///
    /// # Errors
    /// [`CommitAbort`]: write nothing and hand it to the engine.
    pub fn decide(&self, rows: &[Option<Vec<u8>>]) -> Decision {
        let row = |at: usize| rows.get(at).and_then(Option::as_deref);
        match self {
            Self::Identity(proposed) => decide_identity(proposed, row(0)),
            Self::Lead => {
                let epoch = leader_epoch(row(0))? + 1;
                let Some(identity) = row(1) else { return Err(CommitAbort::ActorChanged) };
                let committed = Committed::Lead(epoch, row::decode_either(identity)?);
                Ok((vec![Write::Put(storage::leader_key(), row::encode_twice(&epoch))], committed))
            }
            Self::Greeted { fence, user, nonce } => {
                check_fence(*fence, row(0))?;
                decide_greeted(user, *nonce, row(1))
            }
            Self::Append(append) => append.decide(row(0), row(1), rows.get(2..).unwrap_or_default()),
            Self::Receive(receive) => {
                check_fence(receive.fence, row(0))?;
                Ok((receive.writes(), Committed::Done))
            }
            Self::Snapshot { fence, log, bytes, behind, keep, purged } => {
                check_fence(*fence, row(0))?;
                let (first, end) = (storage::received_key(log, Offset(0)), behind.from);
                let mut writes = vec![
                    Write::Put(storage::snapshot_key(log), bytes.to_vec()),
                    Write::DeleteRange(first, storage::received_key(log, end.min(*keep))),
                ];
                // One that is damaged is in the way of whoever reads on from the snapshot.
                if row(1).is_none_or(|row| row::decode::<Received>(row).is_err()) {
                    writes.push(Write::Put(storage::received_key(log, end), row::encode(behind)));
                }
                writes.extend(purged.iter().map(|purged| purged.write(log)));
                Ok((writes, Committed::Done))
            }
            Self::Settle(settle) => {
                check_fence(settle.fence, row(0))?;
                Ok(settle.decide(row(1), rows.get(2..).unwrap_or_default()))
            }
            Self::Park(park) => {
                check_actor(park.actor, row(0))?;
                park.decide(row(1), row(2))
            }
            Self::Succeed(succession) => succession.decide(rows),
            Self::Rewind(rewind) => rewind.decide(rows),
            Self::Discard { key } => Ok((vec![Write::Delete(key.clone())], Committed::Done)),
            Self::Fold(fold) => Ok((fold.writes(row(0)), Committed::Done)),
            Self::Trapped(trapped) => Ok((vec![trapped.write(row(0))], Committed::Done)),
            Self::Prune(prune) => {
                check_fence(prune.fence, row(0))?;
                Ok((prune.writes(), Committed::Done))
            }
            Self::Purge(purge) => {
                check_fence(purge.fence, row(0))?;
                Ok((purge.writes(), Committed::Done))
            }
        }
    }
}

fn leader_epoch(row: Option<&[u8]>) -> Result<u64, DecodeError> {
    row.map_or(Ok(0), row::decode_either)
}

pub(super) fn check_fence(fence: u64, row: Option<&[u8]>) -> Result<(), CommitAbort> {
    let epoch = leader_epoch(row)?;
    if epoch == fence { Ok(()) } else { Err(CommitAbort::Deposed { epoch }) }
}

/// Whoever has not heard yet that a fresh actor took over writes nothing.
pub(super) fn check_actor(actor: ActorId, row: Option<&[u8]>) -> Result<Identity, CommitAbort> {
    let Some(row) = row else { return Err(CommitAbort::ActorChanged) };
    let identity: Identity = row::decode_either(row)?;
    if identity.actor == actor { Ok(identity) } else { Err(CommitAbort::ActorChanged) }
}

fn decide_identity(proposed: &Identity, row: Option<&[u8]>) -> Decision {
    match row {
        Some(row) => {
            let identity: Identity = row::decode_either(row)?;
            let whole = row::encode_twice(&identity);
            // One copy may be damaged: mended before the other is, too.
            let mend = (row != whole).then(|| Write::Put(storage::identity_key(), whole));
            Ok((mend.into_iter().collect(), Committed::Identity(identity)))
        }
        None => {
            let write = Write::Add(storage::identity_key(), row::encode_twice(proposed));
            Ok((vec![write], Committed::Identity(proposed.clone())))
        }
    }
}

fn decide_greeted(user: &UserId, nonce: Nonce, row: Option<&[u8]>) -> Decision {
    let Some(row) = row else { return Err(CommitAbort::ActorChanged) };
    let mut identity: Identity = row::decode_either(row)?;
    identity.user = Some(user.clone());
    identity.nonces.insert(0, nonce);
    identity.nonces.truncate(2);
    let write = Write::Put(storage::identity_key(), row::encode_twice(&identity));
    Ok((vec![write], Committed::Identity(identity)))
}

impl Append {
    fn decide(&self, identity: Option<&[u8]>, next: Option<&[u8]>, letters: &[Option<Vec<u8>>]) -> Decision {
        let mut identity = check_actor(self.actor, identity)?;
        let is_first = next.is_none();
        let first: Seq = next.map_or(Ok(Seq(1)), row::decode_either)?;
        let entries = self.number(first)?;
        let next = Seq(first.0 + entries.len() as u64);
        let mut writes = vec![
            Write::Put(storage::next_key(&self.log), row::encode_twice(&next)),
            Write::Add(storage::own_key(&self.log, self.actor, first), row::encode_group(&entries)),
        ];
        // By which one entry is found again without reading them all.
        if let Some(entry) = self.entries.first() {
            let id = EntryId { actor: self.actor, seq: first };
            writes.push(Write::Add(storage::run_key(&self.log, self.run, entry.n), row::encode(&id)));
        }
        if is_first {
            identity.logs += 1;
            writes.push(Write::Put(storage::identity_key(), row::encode_twice(&identity)));
        }
        // One that another tab has discarded meanwhile stays so.
        for ((at, key), row) in self.letters().zip(letters) {
            let Some(mut letter) = row.as_ref().and_then(|row| row::decode::<DeadLetter>(row).ok()) else { continue };
            letter.redriven = Some(Seq(first.0 + at as u64));
            writes.push(Write::Put(key, row::encode(&letter)));
        }
        Ok((writes, Committed::Appended(entries)))
    }

    /// The dead letters that its entries re-issue, by their keys, with the place of the entry in the group.
    fn letters(&self) -> impl Iterator<Item = (usize, Key)> {
        let letters = self.entries.iter().enumerate().filter_map(|(at, entry)| Some((at, entry.letter?)));
        letters.map(|(at, id)| (at, storage::dead_letter_key(&self.log, id.actor, id.seq)))
    }

    /// Gives seqs from `first` on and builds the headers, now that everything in them is known.
    fn number(&self, first: Seq) -> Result<Vec<Entry>, InvalidEntry> {
        let unseen = self.known.next() != first;
        let seq_at = |at: usize| Seq(first.0 + at as u64);
        let of_number = |n: u64| self.entries.iter().position(|entry| entry.n == n).map(seq_at);
        let number = |(at, prepared): (usize, &Prepared)| {
            let mut header = Header::new(self.run, prepared.n, seq_at(at), prepared.base, prepared.time);
            header.own = (unseen || prepared.own < self.others).then_some(prepared.own);
            header.needs = prepared
                .needs
                .iter()
                .filter_map(|need| match need {
                    Need::Seq(seq) => Some(*seq),
                    Need::Earlier(n) => of_number(*n),
                })
                .collect();
            header.needs.sort();
            header.needs.dedup();
            header.replaces = prepared.replaces.clone();
            Entry::new(header, prepared.body.clone())
        };
        self.entries.iter().enumerate().map(number).collect()
    }

    /// The ids of its entries.
    pub fn writes(&self) -> impl Iterator<Item = WriteId> {
        self.entries.iter().map(|entry| WriteId { run: self.run, n: entry.n })
    }
}

impl Trapped {
    /// A damaged count is none: what traps is counted again.
    fn write(&self, row: Option<&[u8]>) -> Write {
        let mut traps: Traps = row.and_then(|row| row::decode(row).ok()).unwrap_or_default();
        traps.count(&self.build, self.work, &self.reason, self.at);
        Write::Put(storage::traps_key(&self.log), row::encode(&traps))
    }
}

impl Receive {
    fn writes(&self) -> Vec<Write> {
        let log = &self.log;
        let mut writes = Vec::new();
        if let (true, Some(first)) = (self.clear, self.rows.first()) {
            let from = storage::received_key(log, first.from);
            writes.push(Write::DeleteRange(from, storage::received_key(log, Offset(u64::MAX))));
        }
        let put = |received: &Received| Write::Put(storage::received_key(log, received.from), row::encode(received));
        writes.extend(self.rows.iter().map(put));
        let gone = |id: &EntryId| Write::Delete(storage::dead_letter_key(log, id.actor, id.seq));
        writes.extend(self.redeemed.iter().map(gone));
        if let Some(verdicts) = &self.verdicts {
            let revived = self.revived.iter().map(|seq| storage::dead_letter_key(log, verdicts.actor, *seq));
            writes.extend(revived.map(Write::Delete));
            for (seq, letter) in &self.dead_letters {
                let key = storage::dead_letter_key(log, verdicts.actor, *seq);
                writes.push(Write::Put(key, row::encode(letter)));
            }
            writes.push(Write::Put(storage::verdicts_key(log), row::encode(verdicts)));
        }
        writes
    }
}

impl Settle {
    fn reads(&self) -> Vec<Key> {
        let letters = self.letters.iter().map(|seq| storage::dead_letter_key(&self.log, self.actor, *seq));
        [storage::leader_key(), storage::verdicts_key(&self.log)].into_iter().chain(letters).collect()
    }

    /// A letter that somebody discarded meanwhile stays gone. Verdicts that nobody knows are asked for again.
    fn decide(&self, verdicts: Option<&[u8]>, letters: &[Option<Vec<u8>>]) -> (Vec<Write>, Committed) {
        let verdicts: Option<Verdicts> =
            verdicts.and_then(|row| row::decode(row).ok()).or_else(|| self.damaged.clone());
        let Some(mut verdicts) = verdicts.filter(|verdicts| verdicts.actor == self.actor) else {
            return (Vec::new(), Committed::Settled(Seq(0)));
        };
        verdicts.settled = verdicts.settled.max(self.through.min(verdicts.through));
        let mut writes = vec![Write::Put(storage::verdicts_key(&self.log), row::encode(&verdicts))];
        for (seq, letter) in self.letters.iter().zip(letters) {
            let key = storage::dead_letter_key(&self.log, self.actor, *seq);
            writes.extend(letter.clone().map(|letter| Write::Put(key, letter)));
        }
        (writes, Committed::Settled(verdicts.settled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Salt;
    use crate::id::{ClientId, Name};

    fn append(known: u64, others: u64, own: &[u64]) -> Append {
        let body = Arc::new(Body::new(Name::new("act").expect("name"), None, vec![], None, Salt([0; 8])));
        let prepared = |(at, own): (usize, &u64)| Prepared {
            n: at as u64 + 1,
            base: Base::default(),
            own: Seq(*own),
            time: Time::from_ms(1),
            needs: if at > 0 { vec![Need::Earlier(at as u64)] } else { vec![] },
            replaces: None,
            letter: None,
            body: body.clone(),
        };
        let entries = own.iter().enumerate().map(prepared).collect();
        let log = LogName::new("board/1").expect("name");
        Append { log, actor: ActorId([1; 16]), run: RunId([2; 8]), known: Seq(known), others: Seq(others), entries }
    }

    fn decided(append: Append, next: Option<u64>) -> Vec<Entry> {
        let identity = row::encode_twice(&Identity::new(ClientId([9; 16]), append.actor));
        let next = next.map(|next| row::encode_twice(&Seq(next)));
        match Commit::Append(append).decide(&[Some(identity), next]) {
            Ok((_, Committed::Appended(entries))) => entries,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_group_gets_its_seqs_inside_the_transaction() {
        let entries = decided(append(0, 0, &[0, 0, 0]), None);
        let seqs: Vec<_> = entries.iter().map(|entry| entry.header.seq.0).collect();
        assert_eq!(seqs, [1, 2, 3]);
        assert_eq!(entries[2].header.needs, [Seq(2)], "named before it had a seq");
        assert!(entries.iter().all(|entry| entry.header.own.is_none()), "it had seen everything before it");
    }

    #[test]
    fn what_another_tab_appended_unseen_is_told() {
        let entries = decided(append(4, 2, &[2]), Some(7));
        assert_eq!(entries[0].header.seq, Seq(7));
        assert_eq!(entries[0].header.own, Some(Seq(2)), "5 and 6 are another tab's, not seen");
        let entries = decided(append(6, 5, &[2, 5]), Some(7));
        let own: Vec<_> = entries.iter().map(|entry| entry.header.own).collect();
        assert_eq!(own, [Some(Seq(2)), None], "5 was read between the two actions");
    }

    #[test]
    fn a_deposed_leader_and_a_changed_actor_write_nothing() {
        let receive = Receive {
            fence: 1,
            log: LogName::new("l").expect("name"),
            clear: false,
            rows: vec![],
            verdicts: None,
            dead_letters: vec![],
            redeemed: vec![],
            revived: vec![],
        };
        let epoch = Some(row::encode_twice(&2u64));
        assert_eq!(Commit::Receive(receive).decide(&[epoch]), Err(CommitAbort::Deposed { epoch: 2 }));
        let other = row::encode_twice(&Identity::new(ClientId([9; 16]), ActorId([8; 16])));
        let changed = Commit::Append(append(0, 0, &[0])).decide(&[Some(other), None]);
        assert_eq!(changed, Err(CommitAbort::ActorChanged));
    }
}
