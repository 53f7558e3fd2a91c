//! Folds: the views with the app's own code. A fold goes over a log's entries in the order of the log and makes one
//! value of them; own pending entries are laid on top.
//!
//! ```text
//!   log, rows ──offer──► queue ──batch──► the app's handlers (in the shell) ──report──► rule ──► checkpoint
//!                          ▲                                                              │
//!                          └──────────────── back to the mark ◄──────────────────────────┘
//! ```
//!
//! What is decided is decided here: which entries, in which batches, when a checkpoint is taken, and what a failure
//! means ([`crate::consumer`]). The shell calls the handlers and holds the accumulator; it hands its bytes over when a
//! checkpoint is due and when a handler failed, so that there is something to go back to.
//!
//! It promises: equal version and equal `from` give equal confirmed results on every device, whether folded live or
//! rebuilt; entries with a lifetime are left out, for they are gone for who comes later; no entry is passed over but
//! those in the fold's dead letters. **Invariant:** while `mark` is set, the first of `steps` is the first suspect.

mod anew;
pub mod history;
mod row;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::chain::Cursor;
use crate::consumer::{Breaker, Consumer, Step, Suspect};
use crate::entry::{Body, Logged};
use crate::id::{LogId, Name, Offset, UserId, WriteId};
use crate::overlay::Overlay;
use crate::packed::Item;
use crate::state::{Erasure, has_erased};
use crate::time::WallMs;
use crate::value::Value;
use history::Hole;

pub use row::{Checkpoint, Letter};

/// Actions in one batch.
const BATCH_ENTRIES_MAX: usize = 256;
/// Actions that may wait to be folded; beyond it the fold reads them from the rows later.
const STEPS_MAX: usize = 1024;
/// Offsets behind the last checkpoint after which the next one is worth its bytes.
const CHECKPOINT_ENTRIES: u64 = 256;

/// Names a fold that is open in this tab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoldId(pub u32);

/// What the app declares.
#[derive(Clone, Debug, PartialEq)]
pub struct Declaration {
    /// The fold's name: its checkpoints are found by it.
    pub name: Name,
    /// Raised by the app whenever handlers or the initial value change: then all is folded anew.
    pub version: u64,
    /// The actions that it has handlers for.
    pub actions: BTreeSet<Name>,
    /// The accumulator before the first entry.
    pub initial: Value,
}

/// An action as a handler gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Act {
    /// Its place; none while it is pending.
    pub offset: Option<Offset>,
    /// The id that the app knows.
    pub write: WriteId,
    /// Whose it is; none if that is this client before it knows its user.
    pub author: Option<UserId>,
    /// Its effective time; of a pending one its own time.
    pub time: WallMs,
    /// What was done.
    pub body: Arc<Body>,
}

/// How a fold stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Its checkpoint is being read.
    Loading,
    /// It waits for entries that only the server has.
    Waiting,
    /// Entries are still coming.
    Behind,
    /// Everything confirmed here is in it, but for what the breaker holds back.
    Live,
}

/// How the pending tail differs from the one handed out before.
#[derive(Clone, Debug, PartialEq)]
pub enum Tail {
    /// Not at all.
    Unchanged,
    /// These came behind it.
    Appended(Vec<Act>),
    /// It is another one.
    Replaced(Vec<Act>),
}

/// What the shell shall fold next.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Names the batch; the report carries it back.
    pub ticket: u64,
    /// The confirmed accumulator to begin with, if it is not the one the shell has.
    pub start: Option<Value>,
    /// Confirmed actions to fold, in this order, until one fails.
    pub acts: Vec<Act>,
    /// Whether the report shall bring the accumulator, failed or not.
    pub wants_accumulator: bool,
    /// Whether more follows as soon as this is reported.
    pub more: bool,
    /// Pending actions, to be folded on top, not reported.
    pub tail: Tail,
    /// How the fold stands.
    pub state: State,
    /// Its dead letters, if they changed.
    pub letters: Option<Vec<(Offset, Letter)>>,
}

/// How a fold stands, for the app.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// How far it is.
    pub status: Status,
    /// The first offset that it covers; none before anything of the log is known.
    pub from: Option<Offset>,
    /// Behind the last one.
    pub end: Offset,
    /// Whether work goes on.
    pub breaker: Breaker,
    /// When what failed is tried again.
    pub retry_at: Option<WallMs>,
    /// What failed and is not decided.
    pub suspects: Vec<Suspect<Offset>>,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Which batch.
    pub ticket: u64,
    /// How many of its actions were folded.
    pub done: usize,
    /// Why the one behind them failed.
    pub failure: Option<String>,
    /// The accumulator after those that were folded: with a failure, and when it was wanted.
    pub accumulator: Option<Value>,
}

/// What is to be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// The checkpoint, if it is a new one.
    pub checkpoint: Option<Checkpoint>,
    /// Dead letters that are new or changed, and those that are none any more.
    pub letters: BTreeMap<Offset, Option<Letter>>,
}

#[derive(Debug)]
struct Queued {
    offset: Offset,
    after: Cursor,
    act: Act,
}

/// One fold of one log.
#[derive(Debug)]
pub struct Fold {
    declaration: Declaration,
    /// The log, once the fold has begun on it.
    log: Option<LogId>,
    revision: u64,
    from: Cursor,
    /// Before the first of `steps`.
    done: Cursor,
    /// Behind the last entry that was offered.
    read: Cursor,
    steps: VecDeque<Queued>,
    /// How many of `steps` are worked on, tentatively.
    at: usize,
    /// How many behind them the shell works on.
    handed: usize,
    ticket: u64,
    rule: Consumer<Offset>,
    /// The accumulator before the first suspect.
    mark: Option<Value>,
    start: Option<Value>,
    letters: BTreeMap<Offset, Letter>,
    letters_changed: bool,
    changes: Changes,
    erasures: Vec<Erasure>,
    /// Where the last checkpoint is.
    stored: Option<Offset>,
    hole: Option<Hole>,
    tail: Vec<WriteId>,
    tail_changes: u64,
    told: bool,
    told_state: Option<State>,
}

impl Fold {
    /// A fold that has not begun.
    pub fn new(declaration: Declaration) -> Self {
        let nowhere = Cursor::start(LogId::default());
        Self {
            start: Some(declaration.initial.clone()),
            declaration,
            log: None,
            revision: 0,
            from: nowhere,
            done: nowhere,
            read: nowhere,
            steps: VecDeque::new(),
            at: 0,
            handed: 0,
            ticket: 0,
            rule: Consumer::default(),
            mark: None,
            letters: BTreeMap::new(),
            letters_changed: true,
            changes: Changes::default(),
            erasures: Vec::new(),
            stored: None,
            hole: None,
            tail: Vec::new(),
            tail_changes: 0,
            told: false,
            told_state: None,
        }
    }

    /// Begins on a log: at the checkpoint if it is of this version and this log, else at the beginning of the log. What
    /// was erased is passed over, wherever the entries come from; a checkpoint that may have used it begins anew.
    pub fn begin(
        &mut self,
        log: LogId,
        checkpoint: Option<Checkpoint>,
        letters: BTreeMap<Offset, Letter>,
        (end, erasures): (Offset, &[Erasure]),
    ) {
        self.log = Some(log);
        self.erasures = erasures.to_vec();
        let fits = |checkpoint: &Checkpoint| {
            checkpoint.log == log && checkpoint.version == self.declaration.version && checkpoint.done.next <= end
        };
        match checkpoint.filter(fits) {
            Some(checkpoint) => {
                self.revision = checkpoint.revision;
                self.letters = letters;
                self.stored = Some(checkpoint.done.next);
                self.start_at(checkpoint.from, checkpoint.done, checkpoint.accumulator);
                if checkpoint.erased != self.erased_end() {
                    self.changes.letters.extend(std::mem::take(&mut self.letters).into_keys().map(|at| (at, None)));
                    self.begin_anew();
                }
            }
            None => self.restart(Cursor::start(log)),
        }
        self.letters_changed = true;
    }

    /// Begins anew behind a cursor, with the initial accumulator.
    pub fn restart(&mut self, from: Cursor) {
        self.stored = None;
        self.start_at(from, from, self.declaration.initial.clone());
    }

    fn start_at(&mut self, from: Cursor, done: Cursor, accumulator: Value) {
        (self.from, self.done, self.read) = (from, done, done);
        self.steps.clear();
        (self.at, self.handed, self.mark) = (0, 0, None);
        self.ticket += 1;
        self.rule = Consumer::default();
        self.start = Some(accumulator);
        self.hole = None;
    }

    /// Takes a confirmed item that begins at `from`, if it is the next one and there is room.
    pub fn offer(&mut self, from: Offset, item: &Item, after: Cursor) {
        if self.log.is_none() || from != self.read.next || self.steps.len() >= STEPS_MAX {
            return;
        }
        self.read = after;
        if let Item::Entry(logged) = item
            && self.takes(&logged.entry.body)
            && !has_erased(&self.erasures, logged.actor, logged.base, &logged.entry)
            && !self.letters.contains_key(&logged.offset)
        {
            let act = confirmed(logged);
            self.steps.push_back(Queued { offset: logged.offset, after, act });
        }
        self.drain();
    }

    /// Events with a lifetime are gone for whoever comes later, so nobody counts them.
    fn takes(&self, body: &Body) -> bool {
        body.lifetime_ms.is_none() && self.declaration.actions.contains(&body.name)
    }

    /// Where the rows are to be read from, if the log, which ends at `end`, is ahead and there is room.
    pub fn wants_rows(&self, end: Offset) -> Option<Cursor> {
        let room = self.steps.len() < STEPS_MAX / 4 && self.hole.is_none();
        (self.log.is_some() && room && self.read.next < end).then_some(self.read)
    }

    /// The rows end in a hole: the fold waits until it is filled.
    pub fn wait_for(&mut self, hole: Hole) {
        self.hole = Some(hole);
    }

    /// What it waits for.
    pub fn hole(&self) -> Option<Hole> {
        self.hole
    }

    /// The rows may have what it waits for.
    pub fn look_again(&mut self) {
        self.hole = None;
    }

    /// The next batch, after the report on the one before.
    pub fn batch(&mut self, overlay: &Overlay, user: Option<&UserId>, end: Offset) -> Batch {
        self.told = false;
        let room = match self.rule.breaker() {
            Breaker::Open => 0,
            _ if self.rule.is_steady() => BATCH_ENTRIES_MAX,
            // What is tentative goes one by one, so that little is done twice.
            _ => 1,
        };
        let acts: Vec<_> = self.steps.iter().skip(self.at).take(room).map(|queued| queued.act.clone()).collect();
        self.handed = acts.len();
        self.ticket += 1;
        let unhanded = self.steps.len() - self.at - self.handed;
        let more = room > 0 && (unhanded > 0 || (self.handed > 0 && !self.rule.is_steady()));
        let tail = self.tail(overlay, user);
        let state = self.state(end);
        self.told_state = Some(state.clone());
        Batch {
            ticket: self.ticket,
            start: self.start.take(),
            wants_accumulator: self.wants_checkpoint(),
            acts,
            more,
            tail,
            state,
            letters: std::mem::take(&mut self.letters_changed).then(|| self.shown_letters()),
        }
    }

    /// Takes the report on the last batch; one on an earlier batch is out of date.
    pub fn report(&mut self, report: Report, now: WallMs) {
        if report.ticket != self.ticket {
            return;
        }
        let Report { done, failure, accumulator, .. } = report;
        let handed = std::mem::take(&mut self.handed);
        for _ in 0..done.min(handed) {
            self.succeeded();
        }
        match failure {
            Some(reason) if done < handed => self.failed(&reason, accumulator, now),
            _ => self.checkpoint(accumulator),
        }
    }

    fn succeeded(&mut self) {
        let Some(offset) = self.steps.get(self.at).map(|queued| queued.offset) else { return };
        match self.rule.succeeded(offset) {
            Step::Back(_) | Step::Wait(_) => return self.back(),
            Step::Park(suspects) => {
                for suspect in suspects {
                    self.park(suspect);
                }
                self.mark = None;
            }
            Step::Next | Step::PassOver | Step::Again => {}
        }
        self.at += 1;
        self.drain();
    }

    fn park(&mut self, suspect: Suspect<Offset>) {
        let Some(queued) = self.steps.iter().find(|queued| queued.offset == suspect.at) else { return };
        let (offset, letter) = (suspect.at, Letter::new(&queued.act, suspect));
        self.changes.letters.insert(offset, Some(letter.clone()));
        self.letters.insert(offset, letter);
        self.letters_changed = true;
    }

    fn failed(&mut self, reason: &str, accumulator: Option<Value>, now: WallMs) {
        let Some(offset) = self.steps.get(self.at).map(|queued| queued.offset) else { return };
        let reason: String = reason.chars().take(crate::limits::REASON_CHARS_MAX).collect();
        match self.rule.failed(offset, &reason, now) {
            Step::PassOver => {
                if self.mark.is_none() {
                    self.mark = accumulator;
                }
                self.at += 1;
            }
            Step::Back(_) | Step::Wait(_) => self.back(),
            Step::Again | Step::Next | Step::Park(_) => {}
        }
    }

    /// Takes back what is tentative.
    fn back(&mut self) {
        if let Some(mark) = self.mark.take() {
            self.at = 0;
            self.start = Some(mark);
        }
    }

    /// Lets go of what is done for good.
    fn drain(&mut self) {
        if self.mark.is_none() {
            if let Some(last) = self.at.checked_sub(1).and_then(|last| self.steps.get(last)) {
                self.done = last.after;
            }
            self.steps.drain(..self.at);
            self.at = 0;
        }
        if self.steps.is_empty() {
            self.done = self.read;
        }
    }

    fn checkpoint(&mut self, accumulator: Option<Value>) {
        if let (Some(accumulator), Some(log), true) = (accumulator, self.log, self.wants_checkpoint()) {
            let numbers = (self.declaration.version, self.revision);
            let places = (self.from, self.done);
            self.changes.checkpoint = Some(Checkpoint::new(log, numbers, places, self.erased_end(), accumulator));
            self.stored = Some(self.done.next);
        }
    }

    fn wants_checkpoint(&self) -> bool {
        let behind =
            self.done.next.0 + self.handed as u64 >= self.stored.unwrap_or(self.from.next).0 + CHECKPOINT_ENTRIES;
        self.log.is_some() && self.rule.is_steady() && (behind || !self.changes.letters.is_empty())
    }

    /// What is to be written now: dead letters go with the checkpoint behind them.
    pub fn take_changes(&mut self) -> Option<Changes> {
        self.changes.checkpoint.is_some().then(|| std::mem::take(&mut self.changes))
    }

    /// What the user did to dead letters, to be written at once.
    pub fn take_letters(&mut self) -> Changes {
        Changes { checkpoint: None, letters: std::mem::take(&mut self.changes.letters) }
    }

    /// Takes a dead letter off the list. The entry stays left out of this fold, also when it is folded anew.
    pub fn discard(&mut self, offset: Offset) {
        if let Some(letter) = self.letters.get_mut(&offset) {
            letter.discarded = true;
            self.changes.letters.insert(offset, Some(letter.clone()));
            self.letters_changed = true;
        }
    }

    /// When [`Fold::timeout`] wants to be called.
    pub fn deadline(&self) -> Option<WallMs> {
        self.rule.deadline()
    }

    /// The clock stepped back so far: what waits, waits no longer than before.
    pub fn clock_stepped_back(&mut self, back: WallMs) {
        self.rule.clock_stepped_back(back);
    }

    /// The deadline has come.
    pub fn timeout(&mut self, now: WallMs) {
        if self.rule.timeout(now).is_some() {
            (self.handed, self.ticket) = (0, self.ticket + 1);
            self.back();
        }
    }

    /// Whether the shell should ask for a batch; true once until it does.
    pub fn has_news(&mut self, overlay: &Overlay, end: Offset, now: WallMs) -> bool {
        if self.at == self.steps.len() && self.read.next >= end {
            self.rule.idle(now);
        }
        let waiting = self.steps.len() > self.at + self.handed && self.rule.breaker() != Breaker::Open;
        let tail = self.tail_changes != overlay.changes();
        let more = self.start.is_some() || self.letters_changed || (self.handed == 0 && self.wants_checkpoint());
        let news = waiting || tail || more || self.told_state.as_ref() != Some(&self.state(end));
        news && !std::mem::replace(&mut self.told, true)
    }

    /// How it stands.
    pub fn state(&self, end: Offset) -> State {
        let status = match self.hole {
            _ if self.log.is_none() && end.0 > 0 => Status::Loading,
            _ if self.log.is_none() => Status::Live,
            Some(_) if self.steps.len() == self.at => Status::Waiting,
            _ if self.read.next < end => Status::Behind,
            _ => Status::Live,
        };
        State {
            status,
            from: self.log.map(|_| self.from.next),
            end: self.done.next,
            breaker: self.rule.breaker(),
            retry_at: self.rule.deadline(),
            suspects: self.rule.suspects().to_vec(),
        }
    }

    /// The dead letters that the user has not discarded, in the order of the log.
    pub fn parked(&self) -> impl Iterator<Item = (Offset, &Letter)> {
        self.letters.iter().filter(|(_, letter)| !letter.discarded).map(|(offset, letter)| (*offset, letter))
    }

    fn shown_letters(&self) -> Vec<(Offset, Letter)> {
        self.parked().map(|(offset, letter)| (offset, letter.clone())).collect()
    }

    /// Whether it has begun on a log.
    pub fn has_begun(&self) -> bool {
        self.log.is_some()
    }

    /// The first offset whose entry it may still need from the rows.
    pub fn keeps_from(&self) -> Offset {
        self.stored.unwrap_or(self.from.next)
    }

    /// What the app declared.
    pub fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    /// How often it began anew.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    fn tail(&mut self, overlay: &Overlay, user: Option<&UserId>) -> Tail {
        if self.tail_changes == overlay.changes() {
            return Tail::Unchanged;
        }
        self.tail_changes = overlay.changes();
        let acts: Vec<_> = overlay
            .pending()
            .filter(|(_, body)| self.takes(body))
            .map(|(stamp, body)| Act {
                offset: None,
                write: stamp.write(),
                author: user.cloned(),
                time: stamp.time().ms(),
                body: Arc::clone(body),
            })
            .collect();
        let before = std::mem::replace(&mut self.tail, acts.iter().map(|act| act.write).collect());
        if self.tail == before {
            return Tail::Unchanged;
        }
        if self.tail.starts_with(&before) {
            return Tail::Appended(acts[before.len()..].to_vec());
        }
        Tail::Replaced(acts)
    }
}

fn confirmed(logged: &Logged) -> Act {
    let header = &logged.entry.header;
    Act {
        offset: Some(logged.offset),
        write: WriteId { run: header.run, n: header.n },
        author: Some(logged.user.clone()),
        time: logged.effective().ms(),
        body: Arc::clone(&logged.entry.body),
    }
}

#[cfg(test)]
mod tests;
