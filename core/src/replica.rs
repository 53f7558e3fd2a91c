//! One log on one client: confirmed state, own pending entries on top, the view, and the outbox.
//!
//! ```text
//! act ──► outbox ──► overlay ──► view                    (same tick)
//! entries frame ──check──► to store ──durable──► state ──► overlay settles ──► view
//! ack ──────────────────► to store ──durable──► outbox decides
//! ```
//!
//! It promises that what leaves the view was refused or could not be recorded, and nothing else; and that a confirmed
//! entry is folded or stops the log visibly. Sockets, storage and other tabs are the engine's.

mod act;
mod arrivals;
mod dead_letters;
mod kept;
mod leaving;
mod moved;
mod parking;
mod places;
mod rewind;
mod standing;
mod succession;
mod verdicts;

use std::collections::{BTreeMap, BTreeSet};

use crate::entry::Entry;
use crate::fold::history::Read;
use crate::id::{ActorId, EntryId, EpochId, LogId, LogName, Offset, RunId, Seq, UserId, WriteId};
use crate::notice::{LogStatus, Notice, PressureLevel, WriteStatus};
use crate::outbox::Outbox;
use crate::overlay::{Kept, Overlay, Pending, Touched, Visible};
use crate::packed::Item;
use crate::protocol::frame;
use crate::state::{FoldError, RecordKey, State};
use crate::storage::row::{DeadLetter, Verdicts};
use crate::time::{Time, WallMs};
use crate::view::{Query, View};
use crate::witness::Marker;

pub use act::ActError;
pub use arrivals::{ArrivalError, Arrivals, Storable, resolve};
pub use dead_letters::RedriveError;
pub use leaving::Leaves;
use moved::Moving;
use places::Places;

/// The server would see own entries later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The first of them; its verdict ends the hold.
    pub seq: Seq,
    /// Why, for people.
    pub reason: String,
    /// When they are pushed again; none while that is being tried.
    pub retry_at: Option<WallMs>,
}

/// One log on one client.
#[derive(Debug)]
pub struct Replica {
    name: LogName,
    actor: ActorId,
    run: RunId,
    state: State,
    /// Whether the log's identity is known; before the first contact `state` is empty and nameless.
    met: bool,
    overlay: Overlay,
    kept: Kept,
    view: Option<View>,
    outbox: Outbox,
    arrivals: Arrivals,
    dead_letters: BTreeMap<EntryId, DeadLetter>,
    /// Dead letters whose replacement is not durable yet.
    redriving: BTreeMap<EntryId, WriteId>,
    /// What was refused for its old root and is made again.
    moving: Moving,
    places: Places,
    /// Own entries known to be accepted, but not yet where: another tab took the verdict. The fold tells it.
    unplaced: BTreeSet<Seq>,
    /// Own seqs that a snapshot covers before their verdict is known.
    covered_untold: BTreeSet<Seq>,
    /// Accepted under another id and still laid: until confirmed state reaches this offset.
    elsewhere: BTreeMap<WriteId, Offset>,
    /// What was accepted under an actor before, and is lost: the log has what a copy wrote under the same seq.
    taken: BTreeMap<Seq, WriteId>,
    /// Own seqs without a verdict whose actions were folded, under whichever id, and were told accepted for it.
    told_by_fold: BTreeMap<Seq, WriteId>,
    status: LogStatus,
    reason: String,
    hold: Option<Hold>,
    pressure: PressureLevel,
    /// The log's end at the server, as far as it said.
    server_end: Offset,
    /// Whether the session's token lets this client append.
    may_append: bool,
    /// Bytes received since the last snapshot of our own.
    tail_bytes: usize,
    snapshot_bytes: usize,
    /// When something has to leave this device, by the server's clock.
    leaves_at: Option<WallMs>,
    /// When the first grace of an old root ends, in accepted time.
    grace_end: Option<Time>,
    /// Confirmed state came past an erase, and nobody has asked yet.
    erased: bool,
    /// Erases before this offset were carried out here.
    purged: Offset,
    /// Something that was erased had to stay in the rows when they were purged last.
    erased_open: bool,
    notices: Vec<Notice>,
    /// What was confirmed since the last look, while somebody looks.
    confirmed: Option<Vec<Read>>,
    /// Stored own entries that are not laid, because that is what the engine did not come back from.
    unlaid: BTreeSet<WriteId>,
    marker: Marker,
}

impl Replica {
    /// A log that nothing is known of yet.
    pub fn new(name: LogName, actor: ActorId, run: RunId) -> Self {
        Self::watched(name, actor, run, Marker::default())
    }

    /// A log that nothing is known of yet; the work on its entries is told.
    pub fn watched(name: LogName, actor: ActorId, run: RunId, marker: Marker) -> Self {
        Self {
            outbox: Outbox::new(&name, actor, run),
            overlay: Overlay::watched(marker.clone()),
            kept: Kept::default(),
            state: State::new(LogId::default()),
            met: false,
            view: None,
            arrivals: Arrivals::default(),
            dead_letters: BTreeMap::new(),
            redriving: BTreeMap::new(),
            moving: Moving::default(),
            places: Places::default(),
            unplaced: BTreeSet::new(),
            covered_untold: BTreeSet::new(),
            elsewhere: BTreeMap::new(),
            taken: BTreeMap::new(),
            told_by_fold: BTreeMap::new(),
            status: LogStatus::Local,
            reason: String::new(),
            hold: None,
            pressure: PressureLevel::None,
            server_end: Offset(0),
            may_append: true,
            tail_bytes: 0,
            snapshot_bytes: 0,
            leaves_at: None,
            grace_end: None,
            erased: false,
            purged: Offset(0),
            erased_open: false,
            notices: Vec::new(),
            confirmed: None,
            unlaid: BTreeSet::new(),
            marker,
            name,
            actor,
            run,
        }
    }

    /// A group of own entries is durable. Tells whether another tab's entries lie before them unread.
    pub fn appended(&mut self, entries: &[Entry]) -> bool {
        let unread = self.outbox.appended(entries);
        let mut touched = Touched::new();
        for entry in entries {
            touched.extend(self.overlay.assign(&self.state, write_of(entry), entry.header.seq));
            self.marked_redriven(entry);
            let id = EntryId { actor: self.actor, seq: entry.header.seq };
            self.notices.push(Notice::Write(self.name.clone(), write_of(entry), WriteStatus::Stored(id)));
        }
        self.refresh(&touched);
        self.progress();
        unread
    }

    /// The group under way was not written: it leaves the view, with everything that needs it.
    pub fn append_failed(&mut self, failure: crate::notice::AppendFailure, reason: &str) {
        let mut touched = Touched::new();
        for write in self.outbox.append_failed() {
            touched.extend(self.overlay.drop(&self.state, write));
            self.not_redriven(write);
            let status = WriteStatus::Failed(failure, reason.to_owned());
            self.notices.push(Notice::Write(self.name.clone(), write, status));
        }
        self.refresh(&touched);
    }

    /// Takes own entries as rows hold them: another tab's, or this tab's after an unknown outcome.
    pub fn learn(&mut self, entries: Vec<Entry>) {
        let folded = self.covered();
        let learned = self.outbox.learn(entries);
        let (verdicts, letters) = (self.outbox.verdicts(), &self.dead_letters);
        // A dead letter tells it too, should the row of verdicts be damaged.
        let refused = |entry: &&Entry| {
            let id = EntryId { actor: self.actor, seq: entry.header.seq };
            verdicts.mark(id.seq).is_some_and(|mark| !mark.is_logged()) || letters.contains_key(&id)
        };
        let unlaid = |entry: &&Entry| self.unlaid.contains(&write_of(entry));
        let laid =
            learned.iter().filter(|entry| !refused(entry) && !unlaid(entry)).map(|entry| pending(self.actor, entry));
        let touched = self.overlay.push_all(&self.state, laid);
        self.outbox.release(folded);
        self.refresh(&touched);
    }

    /// Applies received items, checked and (at the leader) stored.
    pub fn apply(&mut self, items: Vec<Item>) {
        let erased = self.state.erased_end();
        self.apply_items(items);
        self.note_erasures(erased);
    }

    fn apply_items(&mut self, items: Vec<Item>) {
        let mut touched = Touched::new();
        for item in items {
            let from = self.state.cursor().next;
            let logged = match item {
                // A snapshot overtook it while it was being stored.
                Item::Entry(logged) if logged.offset < self.state.cursor().next => continue,
                Item::Entry(logged) => logged,
                Item::Gap(gap) if gap.end <= self.state.cursor().next => continue,
                Item::Gap(gap) => {
                    if self.pass(&gap).is_err() {
                        self.settle(touched);
                        return self.stop(LogStatus::Degraded, "a gap does not lead forward");
                    }
                    self.confirm(from, Item::Gap(gap));
                    continue;
                }
                // Stubs were resolved when they arrived.
                Item::Stub(_) => {
                    self.settle(touched);
                    return self.stop(LogStatus::Degraded, "an own entry came back without its body");
                }
            };
            self.marker.confirmed(logged.offset);
            match self.state.fold(&logged) {
                Ok(fold) => {
                    self.count_own(&logged);
                    self.note_expiry(&logged);
                    self.note_grace(&logged);
                    self.accepted_by_fold(&logged, &fold.outcome);
                    self.overlay.folded(&fold);
                    touched.extend(fold.touched);
                    touched.extend(self.folded_elsewhere(&logged));
                    self.confirm(from, Item::Entry(logged));
                }
                Err(FoldError::UnknownKind(kind)) => {
                    self.settle(touched);
                    let reason = format!("the log holds ops of kind {kind}, which this version cannot read: update");
                    return self.stop(LogStatus::UpdateNeeded, &reason);
                }
                Err(error) => {
                    self.settle(touched);
                    return self.stop(LogStatus::Degraded, &error.to_string());
                }
            }
        }
        self.settle(touched);
    }

    /// These own entries are not laid when they are learned.
    pub fn leave_out(&mut self, writes: impl IntoIterator<Item = WriteId>) {
        self.unlaid.extend(writes);
    }

    /// Tells of the work on this log.
    pub fn marker(&self) -> &Marker {
        &self.marker
    }

    fn confirm(&mut self, from: Offset, item: Item) {
        if let Some(confirmed) = &mut self.confirmed {
            confirmed.push((from, item, self.state.cursor()));
        }
    }

    /// Whether somebody looks at what is confirmed, item by item.
    pub fn watch(&mut self, watched: bool) {
        if watched != self.confirmed.is_some() {
            self.confirmed = watched.then(Vec::new);
        }
    }

    /// What was confirmed since the last call, each with where it begins and the cursor behind it.
    pub fn take_confirmed(&mut self) -> Vec<Read> {
        self.confirmed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn settle(&mut self, mut touched: Touched) {
        touched.extend(self.overlay.settle(&self.state));
        touched.extend(self.settle_elsewhere());
        self.outbox.release(self.covered());
        self.note_closed();
        self.refresh(&touched);
        self.progress();
    }

    /// Takes a whole new confirmed state: from the snapshot row, or from the server.
    pub fn restart(&mut self, state: State, snapshot_bytes: usize) {
        let mut keys = self.visible_keys();
        let told = self.covered();
        let erased = self.state.erased_end();
        let before = std::mem::replace(&mut self.state, state);
        // A snapshot that was made before an epoch began does not know of it, and the server said so already.
        let alike = self.met && before.log() == self.state.log();
        if alike && before.epochs().starts_with(self.state.epochs()) {
            self.state.set_epochs(before.epochs().to_vec());
        }
        self.note_erasures(erased);
        self.grace_end = self.state.first_grace_end(Time::MIN);
        self.met = true;
        self.snapshot_bytes = snapshot_bytes;
        self.tail_bytes = 0;
        self.places.forget_before(self.state.cursor().next);
        let folded = self.covered();
        self.tell_covered(told, folded);
        self.overlay.reset(&self.state);
        self.settle_elsewhere();
        self.outbox.release(folded);
        keys.extend(self.visible_keys());
        self.refresh(&keys);
        self.progress();
    }

    /// Learns who the log is and which epochs its history has.
    ///
    /// # Errors
    /// The reason why this history is not the one known here; nothing of it is used.
    pub fn meet(&mut self, log: LogId, epochs: Vec<(EpochId, Offset)>) -> Result<(), String> {
        if !self.met {
            self.state = State::new(log);
            self.met = true;
        } else if self.state.log() != log {
            return Err(format!("the server has another log of this name: {log}, not {}", self.state.log()));
        }
        self.state.set_epochs(epochs);
        Ok(())
    }

    /// Notes an epoch that received entries were stored under.
    pub fn add_epoch(&mut self, epoch: (EpochId, Offset)) {
        if self.state.epochs().last() != Some(&epoch) {
            let mut epochs = self.state.epochs().to_vec();
            epochs.push(epoch);
            self.state.set_epochs(epochs);
        }
    }

    /// Starts after what the rows say is done.
    pub fn start_after(&mut self, seq: Seq, verdicts: Option<Verdicts>) {
        self.outbox.start_after(seq, verdicts);
    }

    /// Shows the log to the app from now on.
    pub fn show(&mut self, view: View) {
        self.view = Some(view);
    }

    /// The app no longer looks; what is pending is shipped all the same.
    pub fn hide(&mut self) {
        self.view = None;
    }

    /// Counts bytes received, for deciding on a snapshot.
    pub fn count_tail(&mut self, bytes: usize) {
        self.tail_bytes += bytes;
    }

    /// Own entries come back as stubs: what a start reads of them are the rows they were appended in.
    fn count_own(&mut self, logged: &crate::entry::Logged) {
        if logged.actor == self.actor {
            self.tail_bytes += logged.entry.to_bytes().len();
        }
    }

    /// Whether a snapshot is worth its bytes: once the tail costs as much to read as half of the last snapshot. A start
    /// folds the tail, which takes about twice as long for each byte as reading the snapshot.
    pub fn wants_snapshot(&self) -> bool {
        const TAIL_BYTES_MIN: usize = 128 * 1024;
        self.met && self.tail_bytes >= TAIL_BYTES_MIN.max(self.snapshot_bytes / 2)
    }

    /// A snapshot was made of `bytes` bytes.
    pub fn snapshot_made(&mut self, bytes: usize) {
        self.tail_bytes = 0;
        self.snapshot_bytes = bytes;
        self.places.forget_before(self.state.cursor().next);
    }

    /// Notes who this client's user is: the author of its pending work.
    pub fn set_user(&mut self, user: Option<UserId>) {
        let touched = self.overlay.set_user(user);
        self.refresh(&touched);
    }

    fn refresh(&mut self, touched: &Touched) {
        if touched.is_empty() {
            return;
        }
        if self.kept.touches(touched) {
            self.kept.lay(Visible::new(&self.state, &self.overlay));
        }
        let visible = Visible::new(&self.state, &self.overlay).beside(&self.kept);
        if let Some(view) = &mut self.view {
            let patches = view.apply(visible, touched).into_iter();
            self.notices.extend(patches.map(|(query, patches)| Notice::Patch(self.name.clone(), query, patches)));
        }
    }

    /// Every record that is visible, while somebody looks.
    fn visible_keys(&self) -> Touched {
        let visible = Visible::new(&self.state, &self.overlay);
        let Some(view) = &self.view else { return Touched::new() };
        let collections = view.schema().collections.keys();
        collections
            .flat_map(|collection| {
                visible.collection(collection).map(|(record, _)| (collection.clone(), record.clone()))
            })
            .map(|(collection, record)| RecordKey { collection, record })
            .collect()
    }

    /// What happened since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        match self.view.as_ref().is_some_and(View::keeps) {
            true => self.settle_kept(),
            false => self.kept = Kept::default(),
        }
        std::mem::take(&mut self.notices)
    }

    /// The log's name.
    pub fn name(&self) -> &LogName {
        &self.name
    }

    /// Under whose name this client writes.
    pub fn actor(&self) -> ActorId {
        self.actor
    }

    /// Confirmed state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Confirmed state, for making a snapshot.
    pub fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// Whether the log's identity is known.
    pub fn met(&self) -> bool {
        self.met
    }

    /// Own pending entries.
    pub fn overlay(&self) -> &Overlay {
        &self.overlay
    }

    /// The outbox.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The outbox, for its group and its pushes.
    pub fn outbox_mut(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Takes verdicts from the server; they count once they are stored.
    pub fn ack(&mut self, ack: &frame::Ack, now: WallMs) {
        self.arrivals.ack(&self.outbox, &self.dead_letters, ack, now);
    }

    /// Verdicts that waited for entries count once these came, or a snapshot that has them.
    pub fn settle_doubt(&mut self, now: WallMs) {
        self.arrivals.settle_doubt(self.state.cursor(), (&self.outbox, &self.dead_letters), now);
    }

    /// Takes entries from the server; they count once they are stored.
    ///
    /// # Errors
    /// [`ArrivalError`]: nothing of them is used; fetch them again.
    pub fn arrive(
        &mut self,
        user: Option<&UserId>,
        entries: frame::Entries,
        size: (u64, usize),
    ) -> Result<(), ArrivalError> {
        let epoch = self.state.epochs().last().copied().unwrap_or_default();
        let own = (user, &self.outbox);
        let packed = (entries.from, entries.after, entries.entries);
        self.marker.confirmed(entries.from);
        let arrived = self.arrivals.entries(self.state.cursor(), own, (self.state.log(), epoch), packed, size);
        self.marker.done();
        arrived
    }

    /// Through which own seq the verdicts are recorded, and the first from which on every body is held here.
    pub fn held(&self) -> (Seq, Seq) {
        (self.outbox.verdicts().through, self.outbox.held_from(self.covered()))
    }

    /// What arrived and is not applied yet.
    pub fn arrivals(&self) -> &Arrivals {
        &self.arrivals
    }

    /// What arrived and is not applied yet, for storing it.
    pub fn arrivals_mut(&mut self) -> &mut Arrivals {
        &mut self.arrivals
    }

    /// The view, with what it shows; none while the app does not look.
    pub fn view_mut(&mut self) -> Option<(&mut View, Visible<'_>)> {
        let visible = Visible::new(&self.state, &self.overlay).beside(&self.kept);
        self.view.as_mut().map(|view| (view, visible))
    }

    /// The view for a query: with refused entries on top if it keeps them.
    pub fn view_for(&mut self, query: &Query) -> Option<(&mut View, Visible<'_>)> {
        if query.keeps() {
            self.settle_kept();
        }
        self.view_mut()
    }

    /// Whether the app looks at it.
    pub fn is_shown(&self) -> bool {
        self.view.is_some()
    }

    /// Where an own accepted entry stands and since when, as far as it was told since the last snapshot.
    pub fn place(&self, seq: Seq) -> Option<(Offset, WallMs)> {
        self.places.of(seq)
    }

    /// The start of this tab.
    pub fn run(&self) -> RunId {
        self.run
    }
}

fn write_of(entry: &Entry) -> WriteId {
    WriteId { run: entry.header.run, n: entry.header.n }
}

/// An own stored entry as the overlay lays it.
fn pending(actor: ActorId, entry: &Entry) -> Pending {
    let header = &entry.header;
    Pending {
        write: write_of(entry),
        actor,
        seq: Some(header.seq),
        base: header.base.end,
        own_seen: header.own_seen(),
        time: header.time,
        body: entry.body.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::Replica;
    use crate::id::{ActorId, EpochId, LogId, LogName, Offset, RunId};
    use crate::state::State;

    #[test]
    fn a_snapshot_from_before_an_epoch_began_does_not_make_it_forgotten() {
        let name = LogName::new("board/1").expect("a name");
        let mut replica = Replica::new(name, ActorId([1; 16]), RunId([2; 8]));
        let (log, epochs) = (LogId([3; 16]), vec![(EpochId([1; 8]), Offset(0)), (EpochId([2; 8]), Offset(7))]);
        replica.meet(log, epochs.clone()).expect("the first to be met");
        let snapshot = |epochs: &[(EpochId, Offset)]| {
            let mut state = State::new(log);
            state.set_epochs(epochs.to_vec());
            state
        };
        replica.restart(snapshot(&epochs[..1]), 0);
        assert_eq!(replica.state().epochs(), epochs);
        let later = [epochs[0], epochs[1], (EpochId([3; 8]), Offset(9))];
        replica.restart(snapshot(&later), 0);
        assert_eq!(replica.state().epochs(), later, "one from behind it tells of more");
        let restored = [epochs[0], (EpochId([4; 8]), Offset(5))];
        replica.restart(snapshot(&restored), 0);
        assert_eq!(replica.state().epochs(), restored, "one of a restored server has another history");
    }
}
