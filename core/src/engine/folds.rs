//! The folds of this tab: they are given what the log confirms, read from the rows what they missed, and have the
//! server fill the holes.
//!
//! The handlers run in the shell: a notice says that a fold has something to do, the shell asks for a batch and reports
//! with the next call. What only the server still has is fetched by the leader and stored among the received rows,
//! behind the snapshot, where every tab reads it.

use crate::chain::Cursor;
use crate::fold::history::{self, Hole};
use crate::fold::{Batch, Checkpoint, Declaration, Fold, FoldId, Letter, Report};
use crate::id::{LogId, LogName, Offset};
use crate::limits;
use crate::notice::Notice;
use crate::protocol::{Code, frame};
use crate::storage::commit::{Commit, Receive};
use crate::storage::fold::FoldCommit;
use crate::storage::row::{self, Received};
use crate::storage::{self, KeyRange, Row};
use crate::time::WallMs;

use super::{CallError, CommitFailure, Engine, Hint, Phase, Request, Slot};

/// Received rows in one read of a fold.
const ROWS_READ: u32 = 16;

/// Entries that rows behind a snapshot are kept for a fold that lags: beyond it they are fetched again.
const KEPT_ENTRIES_MAX: u64 = 100_000;

/// What is read for a fold.
#[derive(Debug)]
pub(super) enum Reading {
    /// Its checkpoint and its dead letters.
    Start,
    /// Received rows.
    Rows,
    /// The own entries that stand in these rows without their bodies.
    Bodies(Vec<Row>),
}

/// A fold that is open in this tab.
#[derive(Debug)]
pub(super) struct OpenFold {
    fold: Fold,
    /// Its checkpoint is being read, or was.
    asked: bool,
    /// Rows are being read for it.
    reading: bool,
}

/// What a log's folds miss and only the server has.
#[derive(Debug, Default)]
pub(super) struct Holes {
    wanted: Vec<Hole>,
    /// The first one is being fetched.
    fetching: bool,
}

impl Engine {
    /// Opens a fold on an open log. From now on [`Notice::Fold`] says when it has something to do.
    ///
    /// # Errors
    /// [`CallError::NotOpen`].
    pub fn open_fold(&mut self, name: &LogName, declaration: Declaration, now: WallMs) -> Result<FoldId, CallError> {
        self.set_now(now);
        self.replica(name)?;
        self.fold_last += 1;
        let id = FoldId(self.fold_last);
        if let Some(slot) = self.slots.get_mut(name) {
            slot.replica.watch(true);
            slot.folds.insert(id, OpenFold { fold: Fold::new(declaration), asked: false, reading: false });
        }
        self.settle();
        Ok(id)
    }

    /// Takes the report on the batch before, and gives the next one.
    ///
    /// # Errors
    /// [`CallError::NotOpen`]: the log or the fold is not open.
    pub fn step_fold(
        &mut self,
        name: &LogName,
        id: FoldId,
        report: Option<Report>,
        now: WallMs,
    ) -> Result<Batch, CallError> {
        self.set_now(now);
        let user = self.identity.as_ref().and_then(|identity| identity.user.clone());
        let slot = self.slots.get_mut(name);
        let Some((replica, open)) = slot.and_then(|slot| Some((&slot.replica, slot.folds.get_mut(&id)?))) else {
            return Err(CallError::NotOpen(name.clone()));
        };
        if let Some(report) = report {
            open.fold.report(report, now);
        }
        let batch = open.fold.batch(replica.overlay(), user.as_ref(), replica.state().cursor().next);
        self.settle();
        Ok(batch)
    }

    /// Closes a fold. Its checkpoint stays.
    pub fn shut_fold(&mut self, name: &LogName, id: FoldId) {
        if let Some(slot) = self.slots.get_mut(name) {
            slot.folds.remove(&id);
            slot.replica.watch(!slot.folds.is_empty());
        }
    }

    /// Tries the dead letters of a fold again: the one of this entry, or all of them.
    ///
    /// # Errors
    /// [`CallError::NotOpen`]: the log or the fold is not open.
    pub fn redrive_fold(&mut self, name: &LogName, id: FoldId, offset: Option<Offset>) -> Result<(), CallError> {
        self.fold(name, id)?.redrive(offset);
        self.settle();
        Ok(())
    }

    /// Takes a dead letter of a fold off the list; the entry stays left out of that fold.
    ///
    /// # Errors
    /// [`CallError::NotOpen`]: the log or the fold is not open.
    pub fn discard_folded(&mut self, name: &LogName, id: FoldId, offset: Offset) -> Result<(), CallError> {
        let fold = self.fold(name, id)?;
        fold.discard(offset);
        let changes = fold.take_letters();
        let commit = commit_of(name, fold, changes);
        self.commit(Request::Fold, commit);
        self.settle();
        Ok(())
    }

    fn fold(&mut self, name: &LogName, id: FoldId) -> Result<&mut Fold, CallError> {
        let open = self.slots.get_mut(name).and_then(|slot| slot.folds.get_mut(&id));
        open.map(|open| &mut open.fold).ok_or_else(|| CallError::NotOpen(name.clone()))
    }

    /// After every event: folds are given what is new, and what they miss is asked for.
    pub(super) fn settle_folds(&mut self) {
        // What was erased may be in what they came to.
        self.slots.turn_mut(|_, slot| {
            if slot.replica.has_erased_news() {
                slot.restart_folds();
            }
        });
        let names: Vec<_> =
            self.slots.turn().filter(|(_, slot)| slot.has_fold_work()).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.settle_folds_of(&name);
            self.fetch_hole(&name);
        }
    }

    fn settle_folds_of(&mut self, name: &LogName) {
        let now = self.now;
        let (mut loads, mut reads, mut notices) = (Vec::new(), Vec::new(), Vec::new());
        let (mut commits, mut holes) = (Vec::new(), Vec::new());
        let Some(slot) = self.slots.get_mut(name).filter(|slot| slot.phase == Phase::Ready) else { return };
        let confirmed = slot.replica.take_confirmed();
        let (end, met) = (slot.replica.state().cursor().next, slot.replica.met());
        for (id, open) in &mut slot.folds {
            let fold = &mut open.fold;
            confirmed.iter().for_each(|(from, item, after)| fold.offer(*from, item, *after));
            if met && !std::mem::replace(&mut open.asked, met) {
                loads.push((*id, fold.declaration().name.clone()));
            }
            if let Some(at) = fold.wants_rows(end).filter(|_| !open.reading) {
                open.reading = true;
                reads.push((*id, at));
            }
            holes.extend(fold.hole());
            if let Some(changes) = fold.take_changes() {
                commits.push(commit_of(name, fold, changes));
            }
            if fold.has_news(slot.replica.overlay(), end, now) {
                notices.push(Notice::Fold(name.clone(), *id));
            }
        }
        for (id, fold) in loads {
            let checkpoint = KeyRange::only(storage::fold_key(name, &fold));
            let letters = KeyRange::prefix(storage::fold_letter_prefix(name, &fold));
            self.read(Request::FoldRead(name.clone(), id, Reading::Start), vec![checkpoint, letters]);
        }
        for (id, at) in reads {
            let [before, mut after] = storage::received_from(name, at.next);
            after.limit = Some(ROWS_READ);
            self.read(Request::FoldRead(name.clone(), id, Reading::Rows), vec![before, after]);
        }
        for commit in commits {
            self.commit(Request::Fold, commit);
        }
        self.outputs.extend(notices.into_iter().map(super::Output::Notice));
        holes.into_iter().for_each(|hole| self.miss(name, hole));
    }

    /// What was read for a fold came, or could not be read.
    pub(super) fn fold_answered(
        &mut self,
        (name, id): (&LogName, FoldId),
        reading: Reading,
        rows: Result<Vec<Vec<Row>>, String>,
    ) {
        match (reading, rows) {
            (Reading::Start, rows) => self.fold_loaded(name, id, rows),
            (Reading::Rows, Ok(rows)) => self.fold_rows_read(name, id, rows.into_iter().flatten().collect()),
            (Reading::Bodies(rows), Ok(own)) => {
                self.fold_read(name, id, Some((rows, own.into_iter().flatten().collect())));
            }
            (Reading::Rows | Reading::Bodies(_), Err(_)) => self.fold_read(name, id, None),
        }
    }

    fn fold_loaded(&mut self, name: &LogName, id: FoldId, rows: Result<Vec<Vec<Row>>, String>) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        let state = slot.replica.state();
        let (log, end) = (state.log(), state.cursor().next);
        let Some(open) = slot.folds.get_mut(&id) else { return };
        let Ok(Ok([checkpoint, letters])) = rows.map(<[Vec<Row>; 2]>::try_from) else {
            // Asked for again with the next event.
            open.asked = false;
            return;
        };
        // Both are derived: what is damaged is made again.
        let checkpoint = checkpoint.first().and_then(|(_, bytes)| row::decode::<Checkpoint>(bytes).ok());
        let letters = letters
            .iter()
            .filter_map(|(key, bytes)| Some((Offset(storage::number_of(key)?), row::decode::<Letter>(bytes).ok()?)))
            .collect();
        open.fold.begin(log, checkpoint, letters, (end, state.erasures()));
    }

    /// Rows came: own entries stand in them without their bodies, which are read next.
    fn fold_rows_read(&mut self, name: &LogName, id: FoldId, rows: Vec<Row>) {
        let mut ranges = Vec::new();
        for (actor, (first, last)) in history::stubs(&rows) {
            ranges.extend(storage::own_between(name, actor, first, last));
        }
        if ranges.is_empty() {
            return self.fold_read(name, id, Some((rows, Vec::new())));
        }
        self.read(Request::FoldRead(name.clone(), id, Reading::Bodies(rows)), ranges);
    }

    fn fold_read(&mut self, name: &LogName, id: FoldId, rows: Option<(Vec<Row>, Vec<Row>)>) {
        let user = self.identity.as_ref().and_then(|identity| identity.user.clone());
        let Some(slot) = self.slots.get_mut(name) else { return };
        let end = slot.replica.state().cursor().next;
        let Some(open) = slot.folds.get_mut(&id) else { return };
        open.reading = false;
        let (Some((rows, own)), Some(at)) = (rows, open.fold.wants_rows(end)) else { return };
        let bodies = history::bodies(own);
        let (reads, hole) = history::read(at, &rows, user.as_ref(), |id| bodies.get(&id).cloned());
        let progress = !reads.is_empty();
        reads.iter().for_each(|(from, item, after)| open.fold.offer(*from, item, *after));
        let hole = hole.filter(|hole| open.fold.wants_rows(end).is_some_and(|at| at == hole.at));
        match hole {
            Some(hole) => open.fold.wait_for(Hole { end: hole.end.min(end), ..hole }),
            // No row at all leads on from there.
            None if !progress => open.fold.wait_for(Hole { at, end }),
            None => {}
        }
    }

    /// Something is missing here: the leader fetches it, another tab tells the leader.
    fn miss(&mut self, name: &LogName, hole: Hole) {
        if self.fence.is_none() {
            let told = self.slots.get_mut(name).is_some_and(|slot| slot.holes.wanted.contains(&hole));
            if !told {
                if let Some(slot) = self.slots.get_mut(name) {
                    slot.holes.wanted.push(hole);
                }
                self.hint(&Hint::Missing((name.clone(), hole.at, hole.end)));
            }
            return;
        }
        self.want_history(name, hole);
    }

    /// Notes a hole that the leader shall fill.
    pub(super) fn want_history(&mut self, name: &LogName, hole: Hole) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        let covered = |known: &Hole| known.at.next <= hole.at.next && hole.end <= known.end;
        if !slot.holes.wanted.iter().any(covered) {
            slot.holes.wanted.push(hole);
        }
    }

    /// Asks the server for the first hole, if there is a session and none is being fetched.
    fn fetch_hole(&mut self, name: &LogName) {
        if self.fence.is_none() || self.link.state() != crate::session::link::LinkState::Live {
            return;
        }
        let (Some(session), Some(slot)) = (&mut self.session, self.slots.get_mut(name)) else { return };
        let Some(hole) = slot.holes.wanted.first().filter(|_| slot.replica.met() && !slot.holes.fetching) else {
            return;
        };
        slot.holes.fetching = true;
        session.fetch(name, slot.replica.state().log(), hole.at, hole.end);
    }

    /// History came: it is stored before anybody reads it.
    pub(super) fn history_arrived(&mut self, name: &LogName, entries: frame::Entries, cost: u64) {
        let (Some(fence), Some(slot)) = (self.fence, self.slots.get_mut(name)) else { return };
        let expected = slot.holes.wanted.first().filter(|hole| hole.at.next == entries.from);
        let Some(hole) = expected.filter(|hole| entries.after.next <= hole.end) else {
            let act = self.link.lost("history from another place than was asked for", self.now, &mut self.random);
            return self.link_act(act);
        };
        let (after, end) = (entries.after, hole.end);
        let state = slot.replica.state();
        let epoch = state.epochs().last().copied().unwrap_or_default();
        let received = Received { log_id: state.log(), epoch, from: entries.from, after, entries: entries.entries };
        // Already asked for what is behind it: frames go on coming while this one is stored.
        if let Some(hole) = slot.holes.wanted.first_mut() {
            hole.at = after;
        }
        if after.next >= end {
            slot.holes.wanted.remove(0);
            slot.holes.fetching = false;
            if let Some(session) = &mut self.session {
                session.fetched(name);
            }
        }
        let receive = Receive {
            fence,
            log: name.clone(),
            clear: false,
            rows: vec![received],
            verdicts: None,
            dead_letters: Vec::new(),
            redeemed: Vec::new(),
            revived: Vec::new(),
        };
        self.commit(Request::History(name.clone(), cost), Commit::Receive(receive));
    }

    pub(super) fn history_stored(&mut self, name: &LogName, cost: u64) {
        if let Some(session) = &mut self.session {
            session.worked_off_fetched(name, cost);
        }
        self.look_again(name);
        self.hint(&Hint::Grew(name.clone()));
    }

    /// What was fetched could not be stored: it is asked for again in a later session, and the wait for that grows.
    pub(super) fn history_failed(&mut self, name: &LogName, failure: CommitFailure) {
        let reason = match failure {
            CommitFailure::Aborted(_) => return self.unseated(),
            CommitFailure::Full(reason) | CommitFailure::Failed(reason) | CommitFailure::Unknown(reason) => reason,
        };
        if let Some(slot) = self.slots.get_mut(name) {
            slot.holes.wanted.clear();
        }
        self.look_again(name);
        let act = self.link.lost(&format!("history cannot be stored: {reason}"), self.now, &mut self.random);
        self.link_act(act);
    }

    /// The server does not give what was asked for.
    pub(super) fn history_refused(&mut self, name: &LogName, error: &frame::Error) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        slot.holes.fetching = false;
        if slot.holes.wanted.is_empty() {
            return;
        }
        let hole = slot.holes.wanted.remove(0);
        let cursor = slot.replica.state().cursor();
        for open in slot.folds.values_mut().filter(|open| open.fold.hole().is_some_and(|own| own.at == hole.at)) {
            match error.code {
                // It is nowhere any more: folded is what there is, and `from` says so.
                Code::HistoryGone => open.fold.restart(cursor),
                // The checkpoint is of another history.
                Code::LogForked => open.fold.restart(crate::chain::Cursor::start(slot.replica.state().log())),
                // Asked for again in the next session.
                _ => {}
            }
        }
    }

    /// The session is over: what was being fetched is asked for again in the next one.
    pub(super) fn stop_fetching(&mut self) {
        self.slots.values_mut().for_each(|slot| slot.holes.fetching = false);
    }

    /// The rows may have grown: folds that wait look at them again.
    pub(super) fn look_again(&mut self, name: &LogName) {
        let leading = self.fence.is_some();
        if let Some(slot) = self.slots.get_mut(name) {
            slot.folds.values_mut().for_each(|open| open.fold.look_again());
            if !leading {
                slot.holes.wanted.clear();
            }
        }
    }

    pub(super) fn folds_clock_stepped_back(&mut self, back: WallMs) {
        let folds = self.slots.values_mut().flat_map(|slot| slot.folds.values_mut());
        folds.for_each(|open| open.fold.clock_stepped_back(back));
    }

    pub(super) fn folds_timed_out(&mut self) {
        let now = self.now;
        let folds = self.slots.values_mut().flat_map(|slot| slot.folds.values_mut());
        folds.for_each(|open| open.fold.timeout(now));
    }
}

impl Slot {
    fn has_fold_work(&self) -> bool {
        !self.folds.is_empty() || !self.holes.wanted.is_empty()
    }

    /// When a fold wants to try again.
    pub(super) fn fold_deadline(&self) -> Option<WallMs> {
        self.folds.values().filter_map(|open| open.fold.deadline()).min()
    }

    /// The app no longer looks.
    pub(super) fn shut_folds(&mut self) {
        self.folds.clear();
        self.replica.watch(false);
    }

    /// What was confirmed is gone: each fold begins anew.
    pub(super) fn restart_folds(&mut self) {
        self.replica.take_confirmed();
        for open in self.folds.values_mut() {
            open.fold.restart(Cursor::start(LogId::default()));
            open.asked = false;
        }
        self.holes = Holes::default();
    }

    /// Rows from here on are kept behind a snapshot that ends at `end`: open folds have not got further.
    pub(super) fn folds_keep(&self, end: Offset) -> Offset {
        let first = self.folds.values().map(|open| open.fold.keeps_from()).min().unwrap_or(end);
        // A row that the fold is in the middle of begins at most a frame before.
        let row = first.0.saturating_sub(limits::FRAME_ENTRIES_MAX as u64);
        if first < end { Offset(row.max(end.0.saturating_sub(KEPT_ENTRIES_MAX))) } else { end }
    }
}

fn commit_of(log: &LogName, fold: &Fold, changes: crate::fold::Changes) -> Commit {
    let declaration = fold.declaration();
    Commit::Fold(FoldCommit {
        log: log.clone(),
        fold: declaration.name.clone(),
        version: declaration.version,
        revision: fold.revision(),
        changes,
    })
}
