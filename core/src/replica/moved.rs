//! Entries that edit an old root of a text whose grace is over: they are made again on the root that there is now,
//! each by one entry that replaces it, and nobody is asked.
//!
//! ```text
//! refused old-root ──► dead letter ──► the new root is folded ──► made again (redriven) ──► accepted
//!          ▲ depends-on: refused for needing one of them
//! ```
//!
//! The old document is kept for it, in confirmed state and in its snapshots, as long as something here builds on it; and
//! carried over where a snapshot of the server, which has it no longer, takes the place of confirmed state. What an entry
//! did to the old text is then done to the text as it is shown. Until it is, the dead letter holds the entry: a crash at
//! any line leaves it there, and the next start goes on.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::draft::{Draft, DraftFieldOp, DraftOp};
use crate::entry::{Entry, Logged};
use crate::id::{ActorId, EntryId, Seq, WriteId};
use crate::notice::{Accepted, Notice, Refused, WriteStatus};
use crate::op::{Edit, FieldOp, Op, RichChange};
use crate::overlay::Visible;
use crate::protocol::Code;
use crate::protocol::frame::MarkedStatus;
use crate::random::Random;
use crate::rich::{self, Document, Rebase, Splice, Translation};
use crate::state::text::{self, OldRoot};
use crate::state::{FieldKey, RecordKey, State};
use crate::storage::commit::Need;
use crate::storage::row::DeadLetter;
use crate::time::{self, Clock, WallMs};

use super::Replica;
use super::act::{Again, Reissue};
use super::dead_letters::{delete_op, field_op, line_of};

/// What was refused and is made again.
#[derive(Debug, Default)]
pub(super) struct Moving {
    /// Refused entries that the app was not told of: what becomes of their replacement is told instead.
    untold: BTreeMap<EntryId, WriteId>,
    /// Of these the letter is gone while its replacement is undecided: the verdict on that tells what became of them.
    undecided: BTreeMap<EntryId, DeadLetter>,
    /// Those that cannot be made again from here: they are dead letters like others.
    failed: BTreeSet<EntryId>,
}

impl Replica {
    /// Lets old roots go that nothing here builds on and whose grace is over: by the server's clock, and where that is not
    /// known, by the last entry. Folding needs none of them: what is done on one is in the log as what it is on the next.
    pub fn forget_old_roots(&mut self, now: Option<WallMs>) {
        let accepted = time::accepted(now.unwrap_or_default(), self.state.accepted_last());
        if self.state.has_old_roots() {
            let needed = self.needed_roots();
            self.state.forget_old_roots(accepted, |field, root| needed.contains(&(field.clone(), root)));
        }
        // What is needed goes with a later snapshot.
        self.grace_end = self.state.first_grace_end(accepted);
    }

    /// When the first grace of an old root is over, by the server's clock: a snapshot that is made then takes less room,
    /// though nothing comes. None: there is no such root, or it is needed for longer.
    pub fn rests_at(&self) -> Option<WallMs> {
        self.grace_end.map(|until| until.ms().saturating_add(1))
    }

    /// A text may begin anew with this entry.
    pub(super) fn note_grace(&mut self, logged: &Logged) {
        if logged.actor != ActorId::LOG {
            return;
        }
        let ops = logged.entry.body.ops.iter().flat_map(Op::field_ops);
        let ends =
            ops.filter_map(|(_, op)| if let FieldOp::Edit(Edit::Root(root)) = op { Some(root.until) } else { None });
        self.grace_end = ends.chain(self.grace_end).min();
    }

    /// Carries old roots that something here builds on over to a state that takes the place of this one; whether there
    /// were any.
    pub fn carry_old_roots(&self, to: &mut State) -> bool {
        let needed = self.needed_roots();
        needed.iter().filter(|(field, root)| to.carry_old_root(&self.state, field, *root)).count() > 0
    }

    /// The roots that own entries without a verdict build on, and those that are to be made again.
    fn needed_roots(&self) -> BTreeSet<(FieldKey, u64)> {
        let pending = self.outbox.held().map(|entry| &entry.body);
        let bodies = pending.chain(self.outbox.pending().map(|prepared| &prepared.body));
        let mut needed: BTreeSet<_> = bodies.flat_map(|body| roots(&body.ops)).collect();
        for (_, entry) in self.moved_letters() {
            needed.extend(roots(&entry.body.ops));
        }
        needed
    }

    /// Whether an entry is refused for its old root, or for needing one that is. `code` is why it is refused.
    pub(super) fn is_moved(&self, entry: &Entry, id: EntryId, code: Option<Code>) -> bool {
        match code {
            Some(Code::OldRoot) => true,
            Some(Code::DependsOn) => {
                let needed = |seq| EntryId { seq, ..id };
                let mut dead = entry.header.needs.iter().map(|need| needed(*need));
                let Moving { untold, undecided, failed } = &self.moving;
                let moved = |need: &EntryId| {
                    untold.contains_key(need) && !undecided.contains_key(need) && !failed.contains(need)
                };
                dead.clone().any(|need| moved(&need))
                    && dead.all(|need| moved(&need) || !self.dead_letters.contains_key(&need))
            }
            _ => false,
        }
    }

    /// An entry leaves the view and will be made again: the app is told what becomes of that.
    pub(super) fn move_later(&mut self, id: EntryId, write: WriteId) {
        self.moving.untold.insert(id, write);
    }

    /// The dead letters that are made again, ascending, each with those that need it behind it.
    fn moved_letters(&self) -> Vec<(EntryId, Entry)> {
        let mut moved: Vec<(EntryId, Entry)> = Vec::new();
        let mut known = BTreeSet::new();
        if !self.dead_letters.values().any(|letter| letter.code == Some(Code::OldRoot)) {
            return moved;
        }
        for (id, letter) in &self.dead_letters {
            let code = letter.code.filter(|code| matches!(code, Code::OldRoot | Code::DependsOn));
            let Some((code, Ok(entry))) = code.map(|code| (code, Entry::from_bytes(&letter.entry))) else { continue };
            let needs = || entry.header.needs.iter().map(|need| EntryId { seq: *need, ..*id });
            let follows = || needs().any(|need| known.contains(&need));
            let only = || needs().all(|need| known.contains(&need) || !self.dead_letters.contains_key(&need));
            if code == Code::OldRoot || (follows() && only()) {
                known.insert(*id);
                moved.push((*id, entry));
            }
        }
        moved
    }

    /// Makes entries again that were refused for their old root, numbered from `first` on; how many there were. Those
    /// whose new root has not been folded yet wait.
    pub fn remake_moved(&mut self, first: u64, now: WallMs, clock: &mut Clock, random: &mut Random) -> u64 {
        // Asked after every event, and nearly always all of them are tried.
        let moved =
            if self.dead_letters.keys().any(|id| !self.is_tried(id)) { self.moved_letters() } else { Vec::new() };
        let mut made = 0;
        // While the first one waits nothing is made, and playing those before it for each event would be for nothing.
        let mut untried = moved.iter().filter(|(id, _)| !self.is_tried(id)).peekable();
        let begins = untried.peek().is_some_and(|(id, entry)| !self.waits_for_root(*id, entry));
        let texts: BTreeSet<_> = untried.flat_map(|(_, entry)| edited(&entry.body.ops)).collect();
        if begins && !self.awaits_refusals() {
            let mut replays = BTreeMap::new();
            for (id, entry) in moved {
                let is_tried = self.is_tried(&id);
                if !is_tried && self.waits_for_root(id, &entry) {
                    break;
                }
                // Those before are played too, for those that build on them; what they did is in the text already.
                if is_tried {
                    if edited(&entry.body.ops).any(|field| texts.contains(&field)) {
                        self.play(&entry, &mut replays);
                    }
                    continue;
                }
                let draft = self.draft_again(&entry, &mut replays);
                let reissue = Some(Reissue { replaces: line_of(id, &entry), letter: id });
                let again = Again { reissue, seen: None };
                let write = draft
                    .and_then(|draft| self.act_again(draft.merged(), first + made, now, clock, random, again).ok());
                match write {
                    Some(write) => {
                        made += 1;
                        self.redriving.insert(id, write);
                        self.letters_changed(id.seq);
                    }
                    None => {
                        replays.values_mut().for_each(|replay: &mut Replay| replay.rebase = None);
                        self.moving.failed.insert(id);
                    }
                }
            }
        }
        self.tell_moved();
        made
    }

    /// Whether nothing is left to be made of a dead letter.
    fn is_tried(&self, id: &EntryId) -> bool {
        let letter = self.dead_letters.get(id);
        let is_of_it = |letter: &DeadLetter| matches!(letter.code, Some(Code::OldRoot | Code::DependsOn));
        letter.is_none_or(|letter| letter.redriven.is_some() || !is_of_it(letter))
            || self.redriving.contains_key(id)
            || self.moving.failed.contains(id)
    }

    /// Whether the server has still to say of some what it said of others: they are made again together, since one may
    /// build on the other. What is made while one that will be refused is still shown builds on that, and is refused and
    /// made again with it, without end.
    fn awaits_refusals(&self) -> bool {
        if self.hold.is_some() {
            return false;
        }
        let is_old =
            |(field, root): (FieldKey, u64)| self.state.content(&field).is_some_and(|content| content.root() != root);
        let verdicts = self.outbox.verdicts();
        let is_refused = |seq: Seq| verdicts.mark(seq).is_some_and(|mark| !mark.is_accepted());
        let mut stored = self.outbox.stored_behind(verdicts.through);
        let mut unstored = self.outbox.pending().flat_map(|prepared| &prepared.needs);
        stored
            .any(|entry| entry.header.needs.iter().any(|need| is_refused(*need)) || roots(&entry.body.ops).any(is_old))
            || unstored.any(|need| matches!(need, Need::Seq(seq) if is_refused(*seq)))
    }

    /// Whether the root that takes the place of what an entry edits is still to come.
    fn waits_for_root(&self, id: EntryId, entry: &Entry) -> bool {
        let is_refused_for_it = self.dead_letters.get(&id).is_some_and(|letter| letter.code == Some(Code::OldRoot));
        let is_there =
            |(field, root): &(FieldKey, u64)| self.state.content(field).is_some_and(|content| content.root() == *root);
        let mut roots = roots(&entry.body.ops).peekable();
        is_refused_for_it && roots.peek().is_some() && roots.all(|root| is_there(&root))
    }

    /// Does what an entry did on the documents that it did it to. What does not fit leaves them as they are.
    fn play(&mut self, entry: &Entry, replays: &mut BTreeMap<FieldKey, Replay>) {
        for (key, op) in entry.body.ops.iter().filter_map(|op| Some((RecordKey::of(op)?, op))) {
            for (name, op) in op.field_ops() {
                let FieldOp::Edit(edit) = op else { continue };
                let field = FieldKey { key: key.clone(), field: name.clone() };
                let Some(replay) = self.replay(field, replays) else { continue };
                match edit {
                    Edit::InitialText(content) => replay.take_initial(edit, content),
                    Edit::Change(change) => drop(replay.take(change)),
                    _ => {}
                }
                (replay.initial, replay.rebase) = (None, None);
            }
        }
    }

    fn replay<'r>(&mut self, field: FieldKey, replays: &'r mut BTreeMap<FieldKey, Replay>) -> Option<&'r mut Replay> {
        Some(match replays.entry(field) {
            Slot::Occupied(known) => known.into_mut(),
            Slot::Vacant(new) => {
                let replay = Replay::of(&mut self.state, new.key())?;
                new.insert(replay)
            }
        })
    }

    /// What an entry did, as a draft for the texts as they are shown now; none if that cannot be told here.
    fn draft_again(&mut self, entry: &Entry, replays: &mut BTreeMap<FieldKey, Replay>) -> Option<Draft> {
        let mut ops = Vec::with_capacity(entry.body.ops.len());
        for op in &entry.body.ops {
            match op {
                Op::Insert(insert) => {
                    let key = RecordKey { collection: insert.collection.clone(), record: insert.record.clone() };
                    let mut fields = Vec::with_capacity(insert.fields.len());
                    for (name, op) in &insert.fields {
                        let field = FieldKey { key: key.clone(), field: name.clone() };
                        fields.extend(self.field_again(field, op, replays)?.map(|op| (name.clone(), op)));
                    }
                    ops.push(DraftOp::Insert(key.collection, key.record, fields));
                }
                Op::Update(update) => {
                    let key = RecordKey { collection: update.collection.clone(), record: update.record.clone() };
                    let field = FieldKey { key: key.clone(), field: update.field.clone() };
                    let again = self.field_again(field, &update.op, replays)?;
                    ops.extend(again.map(|op| DraftOp::Update(key.collection, key.record, update.field.clone(), op)));
                }
                Op::Delete(delete) => ops.push(delete_op(delete)?),
                Op::Erase(_) | Op::Unknown(..) => return None,
            }
        }
        let body = &entry.body;
        Some(Draft { name: body.name.clone(), args: body.args.clone(), ops, lifetime_ms: body.lifetime_ms })
    }

    /// What a field op is now; none inside if nothing is left of it.
    fn field_again(
        &mut self,
        field: FieldKey,
        op: &FieldOp,
        replays: &mut BTreeMap<FieldKey, Replay>,
    ) -> Option<Option<DraftFieldOp>> {
        let FieldOp::Edit(edit) = op else { return field_op(op).map(Some) };
        let replay = self.replay(field.clone(), replays)?;
        match edit {
            Edit::InitialText(content) => {
                replay.take_initial(edit, content);
                Some(Some(DraftFieldOp::InitialText(content.clone())))
            }
            Edit::Change(change) => {
                if replay.rebase.as_ref().is_none_or(|(root, _)| *root != change.root) {
                    let shown = Visible::new(&self.state, &self.overlay).text(&field).ok()?;
                    let shown = if shown.is_empty() { replay.initial.take().unwrap_or_default() } else { shown };
                    replay.rebase = Some((change.root, Rebase::new(&replay.text(change.root)?, &shown)));
                }
                let splices = replay.take(change)?;
                let splices = replay.rebase.as_mut().map(|(_, rebase)| rebase.splice(&splices))?;
                Some((!splices.is_empty()).then_some(DraftFieldOp::Splice(splices)))
            }
            _ => None,
        }
    }

    /// Whether the app has not been told yet what became of an entry that was made again.
    pub(super) fn is_untold(&self, id: EntryId) -> bool {
        self.moving.untold.contains_key(&id)
    }

    /// The letter of an entry that was made again is gone: the app is told of the entry what became of that, once it is
    /// known. `redeemed`: something of its line is in the log; else somebody discarded it, or another tab saw to it.
    pub(super) fn moved_is_over(&mut self, id: EntryId, letter: &DeadLetter, redeemed: bool) {
        if !self.is_untold(id) {
            return;
        }
        let replacement = letter.redriven.or_else(|| self.replacement_of(id, letter));
        if let Some(seq) = replacement.filter(|seq| !redeemed && *seq > self.outbox.verdicts().through) {
            let mut letter = letter.clone();
            letter.redriven = Some(seq);
            self.moving.undecided.insert(id, letter);
            return;
        }
        let accepted = redeemed || replacement.is_some_and(|seq| self.is_line_logged(seq));
        let Some(write) = self.moving.untold.remove(&id) else { return };
        let status = if accepted { self.accepted_as_line(id) } else { refusal_of(id, letter) };
        self.notices.push(Notice::Write(self.name.clone(), write, status));
    }

    /// Whether something of the line of a replacement that is decided is in the log: it is, or the server says why not.
    fn is_line_logged(&self, seq: Seq) -> bool {
        let id = EntryId { actor: self.outbox.author_of(seq), seq };
        let is_accepted = self.outbox.verdicts().mark(seq).is_none_or(MarkedStatus::is_accepted);
        is_accepted || self.dead_letters.get(&id).is_some_and(|letter| letter.code == Some(Code::AlreadyReplaced))
    }

    /// What the app is told of an entry of whose line something is in the log.
    fn accepted_as_line(&self, id: EntryId) -> WriteStatus {
        let author = self.state.user(id.actor).cloned();
        WriteStatus::Accepted(Accepted { id, offset: None, accepted: None, author, outcome: None })
    }

    /// Tells the app of entries that were made again, and of which that was refused as well.
    pub(super) fn tell_moved(&mut self) {
        let through = self.outbox.verdicts().through;
        let is_decided = |letter: &DeadLetter| letter.redriven.is_some_and(|seq| seq <= through);
        let decided = self.moving.undecided.extract_if(.., |_, letter| is_decided(letter));
        for (id, letter) in decided.collect::<Vec<_>>() {
            self.moved_is_over(id, &letter, false);
        }
        let verdicts = self.outbox.verdicts();
        let mut told = Vec::new();
        for (id, write) in &self.moving.untold {
            let Some(letter) = self.dead_letters.get(id) else { continue };
            let is_refused = |seq: &Seq| verdicts.mark(*seq).is_some_and(|mark| !mark.is_accepted());
            let dead_again = letter.redriven.filter(is_refused);
            if !self.redriving.contains_key(id) && (dead_again.is_some() || self.moving.failed.contains(id)) {
                let logged = dead_again.is_some_and(|seq| self.is_line_logged(seq));
                let status = if logged { self.accepted_as_line(*id) } else { refusal_of(*id, letter) };
                told.push((*id, *write, status));
            }
        }
        for (id, write, status) in told {
            self.moving.untold.remove(&id);
            self.notices.push(Notice::Write(self.name.clone(), write, status));
        }
    }
}

/// What the app is told of an entry that stays a dead letter.
fn refusal_of(id: EntryId, letter: &DeadLetter) -> WriteStatus {
    WriteStatus::Refused(Refused { id, status: letter.status, code: letter.code, reason: letter.reason.clone() })
}

/// The texts that ops give a first content, or change.
fn edited(ops: &[Op]) -> impl Iterator<Item = FieldKey> {
    ops.iter().filter_map(|op| Some((RecordKey::of(op)?, op))).flat_map(|(key, op)| {
        op.field_ops().filter_map(move |(field, op)| match op {
            FieldOp::Edit(Edit::InitialText(_) | Edit::Change(_)) => {
                Some(FieldKey { key: key.clone(), field: field.clone() })
            }
            _ => None,
        })
    })
}

/// The roots of the texts that ops change.
fn roots(ops: &[Op]) -> impl Iterator<Item = (FieldKey, u64)> {
    ops.iter().filter_map(|op| Some((RecordKey::of(op)?, op))).flat_map(|(key, op)| {
        op.field_ops().filter_map(move |(field, op)| match op {
            FieldOp::Edit(Edit::Change(change)) => {
                Some((FieldKey { key: key.clone(), field: field.clone() }, change.root))
            }
            _ => None,
        })
    })
}

/// The documents of one text, on which what was refused is done once more to see what it did.
struct Replay {
    root: u64,
    current: Document,
    old: Vec<(Arc<OldRoot>, Translation)>,
    /// A first content that is given with what follows, where nothing is shown yet.
    initial: Option<String>,
    /// The text of a root beside the text that is shown.
    rebase: Option<(u64, Rebase)>,
}

impl Replay {
    fn of(state: &mut State, field: &FieldKey) -> Option<Self> {
        let content = state.content(field);
        let (root, old) = content.map_or((0, Vec::new()), |content| (content.root(), content.old.clone()));
        let old = old.into_iter().map(|old| old.translation().map(|translation| (old, translation)));
        let old = old.collect::<Result<_, _>>().ok()?;
        let current = state.document_mut(field).ok()?.clone();
        Some(Self { root, current, old, initial: None, rebase: None })
    }

    fn take_initial(&mut self, initial: &Edit, content: &str) {
        (self.initial, self.rebase) = (Some(content.to_owned()), None);
        // One that does not fit leaves everything as it is, and what builds on it will not fit either.
        let _ = text::apply(&mut self.current, std::iter::once(initial));
        self.old.iter_mut().for_each(|(_, translation)| drop(text::translate(translation, initial, None)));
    }

    /// The text on a root.
    fn text(&self, root: u64) -> Option<String> {
        if root == self.root {
            return Some(self.current.text());
        }
        self.old.iter().find(|(old, _)| old.root == root).map(|(_, translation)| translation.old().text())
    }

    /// What a change does to the text of its root, which stands in `rebase`.
    fn take(&mut self, change: &RichChange) -> Option<Vec<Splice>> {
        let document = if change.root == self.root {
            self.current.watch();
            self.current.apply(&[&change.bytes]).ok()?;
            &self.current
        } else {
            let (old, translation) = self.old.iter_mut().find(|(old, _)| old.root == change.root)?;
            translation.watch();
            let moved = translation.translate(&change.bytes, None).ok()?;
            // What was made on the new root may build on it there.
            if old.next == self.root && !moved.is_empty() {
                self.current.apply(&[&moved]).ok()?;
            }
            translation.old()
        };
        match document.changes() {
            Some(splices) => Some(splices.to_vec()),
            None => self.rebase.as_ref().map(|(_, rebase)| vec![rich::difference(&rebase.text(), &document.text())]),
        }
    }
}
