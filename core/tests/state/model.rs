//! A model of the whole: a server that gives offsets and verdicts, clients with tabs that share a store, and the check
//! that each tab shows exactly confirmed state with its pending entries laid on it from scratch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use driftlog_core::codec::from_bytes;
use driftlog_core::entry::{Body, Entry, Header, Logged, Salt};
use driftlog_core::id::{ActorId, Base, EpochId, LogId, Name, Offset, RecordId, RunId, Seq, UserId, WriteId};
use driftlog_core::op::{Delete, DeletePolicy, Edit, FieldOp, Insert, Op, Update};
use driftlog_core::overlay::{Overlay, Pending, Status, Touched, Visible};
use driftlog_core::random::Random;
use driftlog_core::rich::Splice;
use driftlog_core::sequencer::{Grown, Rerooting, Sequencer, admit};
use driftlog_core::snapshot;
use driftlog_core::state::{FieldKey, Outcome, RecordKey, State};
use driftlog_core::time::{self, Clock};
use driftlog_core::value::Value;
use driftlog_core::view::{
    CollectionSchema, Column, Comparison, Condition, Direction, FieldSchema, Query, QueryId, Row, Schema, Strategy,
    View,
};

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

pub(crate) fn id(text: &str) -> RecordId {
    RecordId::new(text).expect("an id")
}

pub(crate) fn key(record: &str) -> RecordKey {
    RecordKey { collection: name("todos"), record: id(record) }
}

pub(crate) fn field_key(record: &str, field: &str) -> FieldKey {
    FieldKey { key: key(record), field: name(field) }
}

pub(crate) fn insert(record: &str, fields: Vec<(&str, FieldOp)>) -> Op {
    let fields = fields.into_iter().map(|(field, op)| (name(field), op)).collect();
    Op::Insert(Insert { collection: name("todos"), record: id(record), fields })
}

pub(crate) fn update(record: &str, field: &str, op: FieldOp) -> Op {
    Op::Update(Update { collection: name("todos"), record: id(record), field: name(field), op })
}

pub(crate) fn delete(record: &str) -> Op {
    Op::Delete(Delete { collection: name("todos"), record: id(record), policy: DeletePolicy::Wins })
}

/// A delete that lets updates win.
pub(crate) fn delete_unless_changed(record: &str, grace_ms: u64) -> Op {
    let policy = DeletePolicy::UpdateWins { grace_ms };
    Op::Delete(Delete { collection: name("todos"), record: id(record), policy })
}

pub(crate) fn set(value: &str) -> FieldOp {
    FieldOp::Set(Value::from(value))
}

pub(crate) fn add(element: &str) -> FieldOp {
    FieldOp::Add(vec![Value::from(element)])
}

pub(crate) fn remove(element: &str) -> FieldOp {
    FieldOp::Remove(vec![Value::from(element)])
}

pub(crate) fn initial(content: &str) -> FieldOp {
    FieldOp::Edit(Edit::InitialText(content.to_owned()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    Refused,
}

/// The log and its authority.
pub(crate) struct Server {
    pub(crate) state: State,
    pub(crate) log: Vec<Logged>,
    pub(crate) now_ms: u64,
    verdicts: BTreeMap<(ActorId, Seq), Verdict>,
}

impl Server {
    pub(crate) fn new() -> Self {
        Self { state: State::new(LogId([7; 16])), log: Vec::new(), now_ms: 1_000_000, verdicts: BTreeMap::new() }
    }

    /// Decides an entry, once for ever.
    pub(crate) fn push(&mut self, actor: ActorId, entry: &Entry, refuse: bool) -> Verdict {
        let seq = entry.header.seq;
        if let Some(verdict) = self.verdicts.get(&(actor, seq)) {
            return *verdict;
        }
        let needs =
            entry.header.needs.iter().all(|need| self.verdicts.get(&(actor, *need)) == Some(&Verdict::Accepted));
        let accepted = time::accepted(self.now_ms, self.state.accepted_last());
        let offset = self.state.cursor().next;
        let base = entry.header.base.end.min(offset);
        let user = UserId::new(&format!("user{}", actor.0[0])).expect("a user");
        let logged = Logged { offset, actor, user, accepted, base, entry: entry.clone() };
        let admitted = if refuse || !needs { None } else { admit(&mut self.state, logged).ok() };
        let verdict = match admitted {
            None => Verdict::Refused,
            Some(logged) => {
                self.state.fold(&logged).expect("the next entry");
                self.log.push(logged);
                Verdict::Accepted
            }
        };
        self.verdicts.insert((actor, seq), verdict);
        verdict
    }

    /// Gives a text a new root, whose root before is translated for so long.
    pub(crate) fn reroot(&mut self, record: &str, grace: u64) {
        let field = field_key(record, "note");
        let Some(content) = self.state.content(&field).map(|content| content.root()) else { return };
        let rerooting = Rerooting {
            bytes_min: 0,
            percent: 0,
            quiet: std::time::Duration::ZERO,
            grace: std::time::Duration::from_millis(grace),
        };
        let grown = Grown { field, root: content, is_pressing: true };
        let mut sequencer = Sequencer::resume(self.state.clone(), Vec::new());
        if let Some((logged, _)) = sequencer.reroot(self.now_ms, &grown, &rerooting, &mut Random::new([1; 32])) {
            self.state.fold(&logged).expect("the next entry");
            self.log.push(logged);
        }
    }
}

/// One tab: what it has folded, what it shows, and its own actions that are not durable yet.
pub(crate) struct Tab {
    pub(crate) state: State,
    pub(crate) overlay: Overlay,
    pub(crate) skew_ms: i64,
    run: RunId,
    n: u64,
    clock: Clock,
    /// Rows of the shared store that it has read.
    rows_read: usize,
    /// Last seq of another tab that its view has applied.
    others: Seq,
    unstored: Vec<Unstored>,
    /// What must be laid on confirmed state, as a plain list.
    expected: Vec<Pending>,
    view: View,
    /// The rows of live queries, as patches made them.
    rows: Vec<(QueryId, Query, Vec<Row>)>,
}

fn schema() -> Schema {
    let field = |name_of: &str, strategy| (name(name_of), FieldSchema { strategy, default: None });
    let fields = [
        field("title", Strategy::Register),
        field("votes", Strategy::Counter),
        field("tags", Strategy::Set),
        field("note", Strategy::Text),
    ];
    let todos = CollectionSchema { single: false, fields: BTreeMap::from(fields) };
    Schema { collections: BTreeMap::from([(name("todos"), todos)]) }
}

fn queries() -> [Query; 2] {
    let titled = Condition(Column::Field(name("title")), Comparison::Exists, Value::from(true));
    let order = vec![(Column::Field(name("votes")), Direction::Desc)];
    let some = Query { conditions: vec![titled], order, limit: Some(1), ..Query::all(name("todos")) };
    [Query::all(name("todos")), some]
}

#[derive(Clone)]
struct Unstored {
    write: WriteId,
    base: Offset,
    own: Seq,
    time: time::Time,
    needs: Vec<WriteId>,
    body: Arc<Body>,
}

/// One installation: a store that its tabs share.
pub(crate) struct Client {
    pub(crate) actor: ActorId,
    pub(crate) tabs: Vec<Tab>,
    rows: Vec<Entry>,
    verdicts: BTreeMap<Seq, Verdict>,
    runs: u8,
    /// Entries pushed at least once.
    pushed: usize,
}

impl Client {
    pub(crate) fn new(actor: u8, tabs: usize) -> Self {
        let actor = ActorId([actor; 16]);
        let mut client =
            Self { actor, tabs: Vec::new(), rows: Vec::new(), verdicts: BTreeMap::new(), runs: 0, pushed: 0 };
        for _ in 0..tabs {
            let tab = client.open(State::new(LogId([7; 16])));
            client.tabs.push(tab);
        }
        client
    }

    /// Starts a tab from a state and the stored rows.
    fn open(&mut self, state: State) -> Tab {
        self.runs += 1;
        let mut run = [self.runs; 8];
        run[0] = self.actor.0[0];
        let mut tab = Tab {
            clock: Clock::after(state.effective_max()),
            state,
            overlay: Overlay::new(),
            skew_ms: 0,
            run: RunId(run),
            n: 0,
            rows_read: 0,
            others: Seq(0),
            unstored: Vec::new(),
            expected: Vec::new(),
            view: View::new(schema()),
            rows: Vec::new(),
        };
        for query in queries() {
            let visible = Visible::new(&tab.state, &tab.overlay);
            let (id, rows) = tab.view.query(visible, query.clone()).expect("known");
            tab.rows.push((id, query, rows));
        }
        tab.read_rows(self.actor, &self.rows, &self.verdicts);
        tab
    }

    /// The tab dies and comes back from its snapshot; what was not stored is gone.
    pub(crate) fn reload(&mut self, tab: usize) {
        let bytes = snapshot::encode(&mut self.tabs[tab].state);
        let state = snapshot::decode(&bytes).expect("decodes");
        let skew_ms = self.tabs[tab].skew_ms;
        self.tabs[tab] = self.open(state);
        self.tabs[tab].skew_ms = skew_ms;
    }

    /// The append transaction: the tab's waiting actions get their seqs.
    pub(crate) fn store(&mut self, tab: usize) {
        let Self { tabs, rows, .. } = self;
        let tab = &mut tabs[tab];
        for waiting in std::mem::take(&mut tab.unstored) {
            let seq = Seq(rows.len() as u64 + 1);
            let base = Base { epoch: EpochId::NONE, end: waiting.base };
            let mut header = Header::new(waiting.write.run, waiting.write.n, seq, base, waiting.time);
            header.own = (waiting.own.0 < seq.0 - 1).then_some(waiting.own);
            let needed = waiting.needs.iter().filter_map(|need| {
                let row = rows.iter().find(|row| row.header.run == need.run && row.header.n == need.n);
                row.map(|row| row.header.seq)
            });
            header.needs = needed.collect::<BTreeSet<_>>().into_iter().collect();
            let entry = Entry::new(header, waiting.body).expect("valid");
            rows.push(entry);
            let touched = tab.overlay.assign(&tab.state, waiting.write, seq);
            tab.refresh(&touched);
            tab.expect(waiting.write).seq = Some(seq);
        }
    }

    /// The append fails: the tab's first waiting action leaves, with all that need it.
    pub(crate) fn fail_append(&mut self, tab: usize) {
        let tab = &mut self.tabs[tab];
        let mut gone = BTreeSet::new();
        for waiting in std::mem::take(&mut tab.unstored) {
            if gone.is_empty() || waiting.needs.iter().any(|need| gone.contains(need)) {
                gone.insert(waiting.write);
                let touched = tab.overlay.drop(&tab.state, waiting.write);
                tab.refresh(&touched);
                tab.expected.retain(|pending| pending.write != waiting.write);
            } else {
                tab.unstored.push(waiting);
            }
        }
    }

    /// The tab reads what its siblings stored.
    pub(crate) fn read_rows(&mut self, tab: usize) {
        self.tabs[tab].read_rows(self.actor, &self.rows, &self.verdicts);
    }

    /// Pushes some rows; the ack is lost unless `acked`.
    pub(crate) fn push(&mut self, server: &mut Server, count: usize, refuse: bool, acked: bool) {
        let first = self.verdicts.len();
        let until = (first + count).min(self.rows.len());
        for (place, entry) in self.rows[first..until].iter().enumerate() {
            let verdict = server.push(self.actor, entry, refuse && place == 0);
            self.pushed = self.pushed.max(first + place + 1);
            if acked {
                self.verdicts.insert(entry.header.seq, verdict);
            }
        }
        for tab in &mut self.tabs {
            for entry in self.rows[first..until].iter().filter(|_| acked) {
                if self.verdicts.get(&entry.header.seq) == Some(&Verdict::Refused) {
                    let write = write_of(entry);
                    let touched = tab.overlay.drop(&tab.state, write);
                    tab.refresh(&touched);
                    tab.expected.retain(|pending| pending.write != write);
                }
            }
        }
    }

    pub(crate) fn undecided(&self) -> usize {
        self.rows.len() - self.verdicts.len()
    }

    pub(crate) fn rows(&self) -> &[Entry] {
        &self.rows
    }
}

fn write_of(entry: &Entry) -> WriteId {
    WriteId { run: entry.header.run, n: entry.header.n }
}

impl Tab {
    /// Acts at the server's time plus the tab's skew.
    pub(crate) fn act(&mut self, actor: ActorId, now_ms: u64, ops: Vec<Op>) -> WriteId {
        self.n += 1;
        let write = WriteId { run: self.run, n: self.n };
        self.clock.observe(self.state.effective_max());
        let time = self.clock.tick(now_ms.saturating_add_signed(self.skew_ms));
        let needs = self.overlay.needs(&ops);
        let base = self.state.cursor().next;
        let body = Arc::new(Body::new(name("act"), None, ops, None, Salt::default()));
        let own = self.others;
        self.unstored.push(Unstored { write, base, own, time, needs, body: body.clone() });
        let pending = Pending { write, actor, seq: None, base, own_seen: own, time, body };
        self.expected.push(pending.clone());
        let touched = self.overlay.push(&self.state, pending);
        self.refresh(&touched);
        write
    }

    /// Types into a text, clamped to its length; nothing if the record is not there.
    pub(crate) fn edit(&mut self, actor: ActorId, now_ms: u64, record: &str, splice: Splice) {
        if self.visible().record(&name("todos"), &id(record)).is_none() {
            return;
        }
        let length = self.text(record).encode_utf16().count();
        let at = splice.at % (length + 1);
        let splice = Splice { at, delete: splice.delete.min(length - at), ..splice };
        if splice.delete == 0 && splice.insert.is_empty() {
            return;
        }
        let field = field_key(record, "note");
        let change = self.overlay.edit_text(&self.state, &field, &[splice], (actor, self.run), &[]).expect("fits");
        self.act(actor, now_ms, vec![update(record, "note", FieldOp::Edit(Edit::Change(change)))]);
    }

    /// Folds the log up to `end`, in one batch.
    pub(crate) fn receive(&mut self, log: &[Logged], end: usize) {
        let next = self.state.cursor().next.0 as usize;
        let batch = &log[next..end.clamp(next, log.len())];
        let before = self.shown(&self.overlay);
        let (mut quiet, mut touched) = (true, Touched::new());
        for (place, logged) in batch.iter().enumerate() {
            let first = self.expected.get(place).is_some_and(|pending| pending.write == write_of(&logged.entry));
            let fold = self.state.fold(logged).expect("the next entry");
            quiet &= first && !fold.adjusted && fold.outcome == Outcome::Applied;
            self.overlay.folded(&fold);
            touched.extend(fold.touched);
        }
        touched.extend(self.overlay.settle(&self.state));
        self.refresh(&touched);
        self.forget_covered();
        if quiet {
            assert_eq!(self.shown(&self.overlay), before, "confirming own entries changes nothing that is shown");
        }
    }

    /// Takes the server's state as a snapshot instead of the log.
    pub(crate) fn restart(&mut self, server: &mut State) {
        let mut touched = self.keys();
        self.state = snapshot::decode(&snapshot::encode(server)).expect("decodes");
        touched.extend(self.overlay.reset(&self.state));
        touched.extend(self.keys());
        self.refresh(&touched);
        self.forget_covered();
    }

    pub(crate) fn visible(&self) -> Visible<'_> {
        Visible::new(&self.state, &self.overlay)
    }

    pub(crate) fn text(&self, record: &str) -> String {
        self.visible().text(&field_key(record, "note")).expect("reads")
    }

    pub(crate) fn field<T>(
        &self,
        record: &str,
        field: &str,
        read: impl Fn(&driftlog_core::state::Field) -> Option<T>,
    ) -> Option<T> {
        self.visible().record(&name("todos"), &id(record))?.field(&name(field)).and_then(read)
    }

    pub(crate) fn register(&self, record: &str) -> Option<Value> {
        self.field(record, "title", |field| field.shown().map(|living| living.value.clone()))
    }

    pub(crate) fn counter(&self, record: &str) -> i64 {
        self.field(record, "votes", |field| field.counter()).unwrap_or(0)
    }

    pub(crate) fn tags(&self, record: &str) -> Vec<Value> {
        self.field(record, "tags", |field| field.set().map(|set| set.cloned().collect())).unwrap_or_default()
    }

    /// Everything shown must be what laying all pending entries from scratch gives.
    pub(crate) fn check(&self) {
        let mut scratch = Overlay::new();
        scratch.push_all(&self.state, self.expected.iter().cloned());
        let writes = |overlay: &Overlay| overlay.writes().collect::<Vec<_>>();
        assert_eq!(writes(&self.overlay), writes(&scratch));
        assert_eq!(self.shown(&self.overlay), self.shown(&scratch));
        let statuses = |overlay| {
            let visible = Visible::new(&self.state, overlay);
            visible
                .collection(&name("todos"))
                .map(|(id, _)| visible.status(&name("todos"), id))
                .collect::<Vec<Status>>()
        };
        assert_eq!(statuses(&self.overlay), statuses(&scratch));
        for (_, query, rows) in &self.rows {
            let fresh = self.view.select(self.visible(), query.clone()).expect("known");
            let read =
                |rows: &[Row]| rows.iter().map(|row| from_bytes(row.as_bytes())).collect::<Vec<Result<Value, _>>>();
            assert_eq!(read(rows), read(&fresh), "patched rows");
        }
    }

    /// Patches the rows of the live queries.
    fn refresh(&mut self, touched: &Touched) {
        for (id, patches) in self.view.apply(Visible::new(&self.state, &self.overlay), touched) {
            let rows = self.rows.iter_mut().find(|(known, ..)| *known == id).map(|(.., rows)| rows).expect("open");
            patches.iter().for_each(|patch| patch.apply(rows));
        }
    }

    fn keys(&self) -> Touched {
        let collection = name("todos");
        let ids = self.visible().collection(&collection).map(|(id, _)| id.clone());
        ids.map(|record| RecordKey { collection: collection.clone(), record }).collect()
    }

    /// What is shown, in a form that can be compared.
    fn shown(&self, overlay: &Overlay) -> Vec<String> {
        let visible = Visible::new(&self.state, overlay);
        let records = visible.collection(&name("todos")).map(|(id, record)| {
            let mut lines = vec![format!("{id} by {} at {:?}", record.created().write(), record.updated().time())];
            for (field, content) in record.fields() {
                let mut living: Vec<_> = content.living().iter().map(|it| (it.stamp.write(), &it.value)).collect();
                living.sort_by_key(|(write, _)| *write);
                let winner = content.shown().map(|living| &living.value);
                let set: Vec<_> = content.set().into_iter().flatten().collect();
                let field_key =
                    FieldKey { key: RecordKey { collection: name("todos"), record: id.clone() }, field: field.clone() };
                let text = content.is_text().then(|| visible.text(&field_key).expect("reads"));
                lines.push(format!("{field}: {winner:?} of {living:?}, {:?}, {set:?}, {text:?}", content.counter()));
            }
            lines.join("; ")
        });
        records.collect()
    }

    fn read_rows(&mut self, actor: ActorId, rows: &[Entry], verdicts: &BTreeMap<Seq, Verdict>) {
        let new = &rows[self.rows_read..];
        self.rows_read = rows.len();
        self.others = new.last().map_or(self.others, |row| row.header.seq);
        let refused = |entry: &&Entry| verdicts.get(&entry.header.seq) != Some(&Verdict::Refused);
        let new = new.iter().filter(|entry| entry.header.run != self.run).filter(refused).map(|entry| {
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
        });
        let new: Vec<_> = new.collect();
        self.expected.extend(new.iter().cloned());
        let touched = self.overlay.push_all(&self.state, new);
        self.refresh(&touched);
        self.forget_covered();
    }

    /// Keeps the plain list as the rule says: seqs that confirmed state covers are gone, the rest stands by seq.
    fn forget_covered(&mut self) {
        let state = &self.state;
        self.expected.retain(|pending| pending.seq.is_none_or(|seq| seq > state.folded(pending.actor)));
        self.expected.sort_by_key(|pending| pending.seq.unwrap_or(Seq(u64::MAX)));
    }

    fn expect(&mut self, write: WriteId) -> &mut Pending {
        self.expected.iter_mut().find(|pending| pending.write == write).expect("pending")
    }
}

/// The state of a log, folded from its beginning.
pub(crate) fn from_scratch(log: &[Logged]) -> State {
    let mut state = State::new(LogId([7; 16]));
    log.iter().for_each(|logged| drop(state.fold(logged).expect("the next entry")));
    state
}
