//! Letting own entries go that are in the confirmed state of a stored snapshot and decided.
//!
//! The newest of them stay, within an age and a size, for lists of what this device did; and where the server says how
//! far its backups reach, everything behind that, to be offered again to a server that was put back. The row that may reach beyond what is decided always stays, so
//! **nothing that is pending ever goes**. The work is done in steps of few rows, oldest first, each a commit of its own.
//!
//! ```text
//! snapshot stored ──► newest rows before the bound: which are kept ──► oldest rows: deleted ─┐
//!                                                                         ▲──── more left ───┘
//! ```

use crate::id::{LogName, Seq, WriteId};
use crate::storage::commit::Commit;
use crate::storage::prune::Prune;
use crate::storage::{self, Direction, Key, KeyRange, Row, own};
use crate::time::WallMs;

use super::{Engine, Request};

/// Rows of them that stay at most.
const KEPT_ROWS: u32 = 512;
/// How long they stay at most.
const KEPT_MS: WallMs = 90 * 24 * 60 * 60 * 1_000;
/// Rows deleted in one commit.
const STEP_ROWS: u32 = 256;

/// How far the own rows of one log are pruned.
#[derive(Debug, Default)]
pub(super) struct Pruned {
    /// Through which own seq the snapshot that was stored last has everything.
    pub(super) covered: Seq,
    /// Through which own seq a backup of the server has everything, if the server says so; what the last `opened` said.
    pub(super) backed_up: Option<Option<Seq>>,
    under_way: bool,
}

impl Engine {
    /// A snapshot is stored: own entries that it covers are not needed for a start any more.
    pub(super) fn prune(&mut self, name: &LogName) {
        let actor = self.actor();
        let Some(slot) = self.slots.get_mut(name).filter(|_| self.fence.is_some()) else { return };
        let end = slot.replica.state().cursor().next;
        // An open fold that is behind reads them; the next snapshot comes.
        if slot.pruned.under_way || slot.folds_keep(end) < end {
            return;
        }
        // Before the server was heard nobody knows whether it counts on what is kept here.
        let Some(backed_up) = slot.pruned.backed_up else { return };
        let through = slot.pruned.covered.min(slot.replica.outbox().verdicts().through);
        let through = through.min(backed_up.unwrap_or(through));
        slot.pruned.under_way = true;
        let newest = KeyRange {
            start: storage::own_key(name, actor, Seq(0)),
            end: Some(storage::own_key(name, actor, through.next())),
            limit: Some(KEPT_ROWS),
            direction: Direction::Backward,
        };
        self.read(Request::PruneBound(name.clone()), vec![newest]);
    }

    /// The newest rows that may go: which of them stay is decided here.
    pub(super) fn prune_bound_read(&mut self, name: &LogName, rows: Vec<Vec<Row>>) {
        let (kept_bytes, oldest_ms) = (self.config.own_kept_bytes, self.now.saturating_sub(KEPT_MS));
        let rows = rows.into_iter().flatten();
        let (mut bytes, mut count, mut bound) = (0, 0, None);
        for (at, (key, row)) in rows.enumerate() {
            (bytes, count) = (bytes + row.len(), count + 1);
            // The first one may hold what is not decided.
            if at > 0 && (bytes > kept_bytes || is_older(&key, row, oldest_ms)) {
                break;
            }
            bound = Some(key);
            if count == KEPT_ROWS {
                break;
            }
        }
        match bound {
            Some(bound) => self.prune_step(name, bound),
            None => self.prune_done(name),
        }
    }

    fn prune_step(&mut self, name: &LogName, bound: Key) {
        // Where a fresh actor has taken over meanwhile, the rows are no longer its own; they serve who comes from before.
        if storage::actor_of(&bound) != Some(self.actor()) {
            return self.prune_done(name);
        }
        let start = storage::own_key(name, self.actor(), Seq(0));
        let direction = Direction::Forward;
        let oldest = KeyRange { start, end: Some(bound.clone()), limit: Some(STEP_ROWS), direction };
        self.read(Request::PruneRows(name.clone(), bound), vec![oldest]);
    }

    /// The oldest rows: they go, and with them what leads to them.
    pub(super) fn prune_rows_read(&mut self, name: &LogName, bound: Key, rows: Vec<Vec<Row>>) {
        let rows: Vec<Row> = rows.into_iter().flatten().collect();
        let (Some((first, _)), Some((last, _))) = (rows.first(), rows.last()) else { return self.prune_done(name) };
        let Some(fence) = self.fence else { return self.prune_done(name) };
        let (start, end) = (first.clone(), storage::key_after(last));
        let more = (rows.len() as u32 == STEP_ROWS).then_some(bound);
        let runs = rows.into_iter().filter_map(first_of).map(|(WriteId { run, n }, _)| storage::run_key(name, run, n));
        let prune = Prune { fence, log: name.clone(), start, end, runs: runs.collect() };
        self.commit(Request::Prune(name.clone(), more), Commit::Prune(prune));
    }

    pub(super) fn pruned(&mut self, name: &LogName, more: Option<Key>) {
        match more {
            Some(bound) => self.prune_step(name, bound),
            None => self.prune_done(name),
        }
    }

    /// Nothing more goes for now; what failed is done behind the next snapshot.
    pub(super) fn prune_done(&mut self, name: &LogName) {
        if let Some(slot) = self.slots.get_mut(name) {
            slot.pruned.under_way = false;
        }
    }
}

/// The id and the time of the first entry of a group.
fn first_of((key, bytes): Row) -> Option<(WriteId, WallMs)> {
    let first = Seq(storage::number_of(&key)?);
    let entry = own::read([(key, bytes)], first, None).ok()?.entries.into_iter().next()?;
    Some((WriteId { run: entry.header.run, n: entry.header.n }, entry.header.time.ms()))
}

fn is_older(key: &Key, bytes: Vec<u8>, oldest_ms: WallMs) -> bool {
    first_of((key.clone(), bytes)).is_some_and(|(_, time)| time < oldest_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Config, OWN_KEPT_BYTES, Output};
    use crate::id::{ActorId, ClientId, RunId};
    use crate::outbox::BacklogBound;
    use crate::storage::Write;
    use crate::view::Schema;

    #[test]
    fn rows_of_an_actor_before_never_take_those_of_a_fresh_one_along() {
        let (before, fresh) = (ActorId([2; 16]), ActorId([1; 16]));
        let config = Config {
            run: RunId([1; 8]),
            client: ClientId([1; 16]),
            actor: fresh,
            seed: [1; 32],
            device: "a device".to_owned(),
            connect: false,
            token: false,
            backlog: BacklogBound::default(),
            own_kept_bytes: OWN_KEPT_BYTES,
        };
        let (mut engine, name) = (Engine::new(config, 0), LogName::new("board/1").expect("a name"));
        engine.open(&name, Schema::default(), 0);
        engine.fence = Some(1);
        let key = |seq| storage::own_key(&name, before, Seq(seq));
        // Read before it took over: it is asked for no more of them.
        while engine.outputs.pop_front().is_some() {}
        engine.prune_step(&name, key(9));
        assert!(engine.outputs.is_empty());
        engine.prune_rows_read(&name, key(9), vec![vec![(key(1), Vec::new()), (key(4), Vec::new())]]);
        let Some(Output::Commit(_, Commit::Prune(prune))) = engine.outputs.pop_front() else { panic!("a commit") };
        let writes = Commit::Prune(prune).decide(&[Some(crate::storage::row::encode_twice(&1_u64))]).expect("writes").0;
        assert_eq!(writes, [Write::DeleteRange(key(1), storage::key_after(&key(4)))]);
    }
}
