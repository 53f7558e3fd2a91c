//! One device: a database in memory and the tabs that share it, driven by hand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use driftlog_core::draft::{Draft, DraftFieldOp, DraftOp};
use driftlog_core::engine::{
    CallError, Config, Engine, Hint, Input, Output, Own, OwnEntry, OwnStatus, RequestId, Resume, Trap,
};
use driftlog_core::id::{ActorId, ClientId, EntryId, LogName, Name, RecordId, RunId, Seq, WriteId};
use driftlog_core::notice::{LogState, Notice, Pressure, WriteStatus};
use driftlog_core::op::DeletePolicy;
use driftlog_core::outbox::BacklogBound;
use driftlog_core::protocol::{Code, Frame};
use driftlog_core::replica::Replica;
use driftlog_core::session::link::LinkState;
use driftlog_core::value::Value;
use driftlog_core::view::{CollectionSchema, FieldSchema, Query, QueryId, Row, Schema, Strategy};
use driftlog_core::witness::{Witness, Work};
use driftlog_tests::database::Database;

use crate::authority::Authority;
use crate::server::{Server, Session};

pub(crate) struct Tab {
    engine: Engine,
    frozen: bool,
    inbox: VecDeque<Input>,
    writes: BTreeMap<WriteId, Vec<WriteStatus>>,
    records: BTreeMap<WriteId, RecordId>,
    opened: BTreeSet<LogName>,
    /// Frames sent since the last look.
    sent: Vec<Frame>,
    found: BTreeMap<RequestId, Result<Vec<OwnEntry>, String>>,
    /// The dead letters as an app lists them, and from which seq on they changed since.
    listed: Vec<OwnEntry>,
    listed_to: Option<Seq>,
    /// Live queries, by their patches.
    live: BTreeMap<QueryId, Vec<Row>>,
    socket: Option<Session>,
    timeout: Option<u64>,
}

pub(crate) struct Device {
    pub(crate) database: Database,
    /// Of the tabs that are made from now on.
    pub(crate) backlog: BacklogBound,
    pub(crate) own_kept_bytes: usize,
    /// The server that leaders connect to; none: tests speak its frames themselves.
    server: Option<Server>,
    /// The same, by the real rules; it is reached only while the device is online.
    authority: Option<Authority>,
    online: bool,
    /// Its sockets take what is sent only when a test says so, by [`Input::SocketBuffered`].
    pub(crate) slow: bool,
    /// Rows that reads brought.
    pub(crate) rows_read: usize,
    /// Why the store gives no rows at the moment.
    pub(crate) reads_fail: Option<String>,
    tabs: BTreeMap<usize, Tab>,
    id: u8,
    made: u64,
    now: u64,
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn log() -> LogName {
    LogName::new("board/1").unwrap()
}

pub(crate) fn schema() -> Schema {
    let register = || FieldSchema { strategy: Strategy::Register, default: None };
    let fields = [(name("title"), register())].into();
    Schema { collections: [(name("todos"), CollectionSchema { single: false, fields })].into() }
}

impl Device {
    pub(crate) fn new(id: u8) -> Self {
        Self {
            database: Database::default(),
            backlog: BacklogBound::default(),
            own_kept_bytes: driftlog_core::engine::OWN_KEPT_BYTES,
            server: None,
            authority: None,
            online: false,
            slow: false,
            rows_read: 0,
            reads_fail: None,
            tabs: BTreeMap::new(),
            id,
            made: 0,
            now: 1_700_000_000_000,
        }
    }

    /// A device with the database of an earlier one, and a server that it can reach.
    pub(crate) fn with(database: Database, authority: Authority, id: u8) -> Self {
        Self { database, authority: Some(authority), made: u64::from(id), ..Self::new(id) }
    }

    pub(crate) fn tab(&mut self) -> usize {
        self.tab_resuming(Resume::default())
    }

    /// The engine of a tab trapped at its work: another takes its place. Gives the tab's new number.
    pub(crate) fn trapped(&mut self, tab: usize, work: Work, build: &str) -> usize {
        self.tabs.remove(&tab);
        let trap = Some(Trap { log: log(), work, reason: "unreachable".into() });
        self.tab_resuming(Resume { trap, build: build.into(), ..Resume::default() })
    }

    /// The same, and it tells a witness what it works on.
    pub(crate) fn trapped_again(&mut self, tab: usize, work: Work, witness: Arc<dyn Witness>) -> usize {
        self.tabs.remove(&tab);
        let trap = Some(Trap { log: log(), work, reason: "unreachable".into() });
        self.tab_resuming(Resume { trap, build: "1".into(), witness: Some(witness), ..Resume::default() })
    }

    /// A tab that tells a witness what it works on.
    pub(crate) fn watched_tab(&mut self, witness: Arc<dyn Witness>) -> usize {
        self.tab_resuming(Resume { witness: Some(witness), ..Resume::default() })
    }

    fn tab_resuming(&mut self, resume: Resume) -> usize {
        self.made += 1;
        let mut seed = [self.id; 32];
        seed[..8].copy_from_slice(&self.made.to_be_bytes());
        let config = Config {
            run: RunId(self.made.to_be_bytes()),
            client: ClientId([self.made as u8; 16]),
            actor: ActorId([self.made as u8; 16]),
            seed,
            device: "test".into(),
            connect: true,
            token: false,
            backlog: self.backlog,
            own_kept_bytes: self.own_kept_bytes,
        };
        let tab = Tab {
            engine: Engine::resumed(config, resume, self.now),
            frozen: false,
            inbox: VecDeque::new(),
            writes: BTreeMap::new(),
            records: BTreeMap::new(),
            opened: BTreeSet::new(),
            sent: Vec::new(),
            found: BTreeMap::new(),
            listed: Vec::new(),
            listed_to: None,
            live: BTreeMap::new(),
            socket: None,
            timeout: None,
        };
        let at = self.made as usize;
        self.tabs.insert(at, tab);
        at
    }

    /// Closes a tab without any good-bye and starts another.
    pub(crate) fn reload(&mut self, tab: usize) -> usize {
        self.tabs.remove(&tab);
        self.tab()
    }

    pub(crate) fn open(&mut self, tab: usize) {
        let now = self.now;
        self.tabs.get_mut(&tab).unwrap().engine.open(&log(), schema(), now);
        self.run();
        assert!(self.tabs[&tab].opened.contains(&log()));
    }

    /// Opens the log in a tab and lets so many steps of it happen.
    pub(crate) fn begin_to_open(&mut self, tab: usize, steps: usize) {
        let now = self.now;
        self.tabs.get_mut(&tab).unwrap().engine.open(&log(), schema(), now);
        for _ in 0..steps {
            self.step();
        }
    }

    /// Makes a tab the leader, which connects to a server that decides by itself.
    pub(crate) fn lead(&mut self, tab: usize) {
        self.server.get_or_insert_with(Server::new);
        self.elect(tab);
    }

    /// Lets time pass until a tab's timer is due.
    pub(crate) fn wait(&mut self, tab: usize) {
        let due = self.tabs[&tab].timeout.expect("it waits for something");
        self.now = self.now.max(due);
        self.tabs.get_mut(&tab).unwrap().inbox.push_back(Input::Timeout);
        self.run();
    }

    pub(crate) fn link(&self, tab: usize) -> LinkState {
        self.tabs[&tab].engine.connection().state
    }

    pub(crate) fn entry(&mut self, tab: usize, write: WriteId) -> Option<OwnEntry> {
        self.look_up(tab, |engine| engine.own_entry(&log(), write)).expect("rows").pop()
    }

    pub(crate) fn entries(&mut self, tab: usize, which: Own) -> Vec<OwnEntry> {
        self.look_up(tab, |engine| engine.own_entries(&log(), which)).expect("rows")
    }

    pub(crate) fn look_up(
        &mut self,
        tab: usize,
        ask: impl FnOnce(&mut Engine) -> Result<RequestId, CallError>,
    ) -> Result<Vec<OwnEntry>, String> {
        let request = ask(&mut self.tabs.get_mut(&tab).unwrap().engine).unwrap();
        self.run();
        self.tabs.get_mut(&tab).unwrap().found.remove(&request).expect("an answer")
    }

    /// Redrives a dead letter, as it was or with another title.
    pub(crate) fn redrive(
        &mut self,
        tab: usize,
        letter: EntryId,
        title: Option<(WriteId, &str)>,
    ) -> Result<WriteId, CallError> {
        self.now += 1;
        let tab = self.tabs.get_mut(&tab).unwrap();
        let draft = title.map(|(write, title)| {
            let fields = vec![(name("title"), DraftFieldOp::Set(Value::text(title)))];
            let op = DraftOp::Insert(name("todos"), tab.records[&write].clone(), fields);
            Draft { name: name("addTodo"), args: None, ops: vec![op], lifetime_ms: None }
        });
        tab.engine.redrive(&log(), letter, draft, self.now)
    }

    pub(crate) fn discard(&mut self, tab: usize, letter: EntryId) {
        self.tabs.get_mut(&tab).unwrap().engine.discard(&log(), letter).unwrap();
        self.run();
    }

    /// The dead letters as a tab lists them, and whether each is being redriven.
    pub(crate) fn letters(&mut self, tab: usize) -> Vec<(EntryId, bool)> {
        self.run();
        if let Some(from) = self.tabs.get_mut(&tab).unwrap().listed_to.take() {
            let changed = self.entries(tab, Own::Refused(from));
            let listed = &mut self.tabs.get_mut(&tab).unwrap().listed;
            listed.retain(|entry| entry.id.unwrap().seq < from);
            listed.extend(changed);
        }
        let entries = self.entries(tab, Own::NotAccepted);
        let refused: Vec<_> =
            entries.into_iter().filter(|entry| matches!(entry.status, OwnStatus::Refused(..))).collect();
        assert_eq!(self.tabs[&tab].listed, refused, "what is told of changes leads to the list");
        refused.into_iter().map(|entry| (entry.id.unwrap(), entry.redriven)).collect()
    }

    /// Titles in the server's log, in its order.
    pub(crate) fn logged(&self) -> Vec<String> {
        self.server.as_ref().unwrap().titles()
    }

    /// The socket breaks, and no other is opened until the tab's timer is due.
    pub(crate) fn cut(&mut self, tab: usize) {
        self.input(tab, Input::SocketClosed("cut".into()));
    }

    pub(crate) fn online(&mut self) {
        self.online = true;
        self.all(|| Input::Woken);
    }

    pub(crate) fn offline(&mut self) {
        self.online = false;
        self.authority().disconnect();
        self.all(|| Input::SocketClosed("cut".into()));
    }

    fn all(&mut self, input: impl Fn() -> Input) {
        self.tabs.values_mut().for_each(|tab| tab.inbox.push_back(input()));
        self.run();
    }

    /// The server, by the real rules.
    pub(crate) fn authority(&mut self) -> &mut Authority {
        self.authority.as_mut().unwrap()
    }

    /// Tells a tab what another would.
    pub(crate) fn hint(&mut self, tab: usize, hint: &Hint) {
        let bytes = driftlog_core::codec::to_bytes(hint);
        self.input(tab, Input::Hint(bytes));
    }

    /// Gives up an own pending entry on this device.
    pub(crate) fn park(&mut self, tab: usize, write: WriteId, reason: &str) {
        let engine = &mut self.tabs.get_mut(&tab).unwrap().engine;
        let seq = engine.replica(&log()).unwrap().outbox().seq_of(write).unwrap();
        assert!(engine.park(&log(), seq, Code::MalformedEntry, reason, self.now).unwrap());
        self.run();
    }

    pub(crate) fn replica(&mut self, tab: usize) -> &mut Replica {
        self.tabs.get_mut(&tab).unwrap().engine.replica(&log()).unwrap()
    }

    /// Dead letters: seq, how many seqs each stands for, and the name of its code.
    pub(crate) fn dead_letters(&mut self, tab: usize) -> Vec<(u64, u64, &'static str)> {
        let code = |code: Option<Code>| code.map_or("", Code::name);
        self.replica(tab).dead_letters().map(|(id, letter)| (id.seq.0, letter.seqs, code(letter.code))).collect()
    }

    pub(crate) fn refused(&self, tab: usize, write: WriteId) -> bool {
        self.statuses(tab, write).any(|status| matches!(status, WriteStatus::Refused(_)))
    }

    pub(crate) fn freeze(&mut self, tab: usize) {
        self.tabs.get_mut(&tab).unwrap().frozen = true;
    }

    pub(crate) fn thaw(&mut self, tab: usize) {
        self.tabs.get_mut(&tab).unwrap().frozen = false;
    }

    pub(crate) fn add(&mut self, tab: usize, title: &str) -> WriteId {
        let record = RecordId::new(title).unwrap();
        let fields = vec![(name("title"), DraftFieldOp::Set(Value::text(title)))];
        let write = self.act(tab, "addTodo", DraftOp::Insert(name("todos"), record.clone(), fields));
        self.tabs.get_mut(&tab).unwrap().records.insert(write, record);
        write
    }

    /// Opens one more log in a tab.
    pub(crate) fn open_also(&mut self, tab: usize, log: &LogName) {
        let now = self.now;
        self.tabs.get_mut(&tab).unwrap().engine.open(log, schema(), now);
        self.run();
    }

    /// Adds a todo to a log.
    pub(crate) fn add_to(&mut self, tab: usize, log: &LogName, record: &str, title: &str) {
        self.now += 1;
        let fields = vec![(name("title"), DraftFieldOp::Set(Value::text(title)))];
        let ops = vec![DraftOp::Insert(name("todos"), RecordId::new(record).unwrap(), fields)];
        let draft = Draft { name: name("addTodo"), args: None, ops, lifetime_ms: None };
        self.tabs.get_mut(&tab).unwrap().engine.act(log, draft, self.now).unwrap();
        self.run();
    }

    /// Adds a todo, if the engine takes it.
    pub(crate) fn try_add(&mut self, tab: usize, title: &str) -> Result<WriteId, CallError> {
        let fields = vec![(name("title"), DraftFieldOp::Set(Value::text(title)))];
        let op = DraftOp::Insert(name("todos"), RecordId::new(title).unwrap(), fields);
        self.try_act(tab, "addTodo", op)
    }

    /// How much own work waits, as the app is shown.
    pub(crate) fn pressure(&self, tab: usize) -> Pressure {
        self.tabs[&tab].engine.pressure()
    }

    pub(crate) fn rename(&mut self, tab: usize, write: WriteId, title: &str) -> WriteId {
        let record = self.tabs[&tab].records[&write].clone();
        let set = DraftFieldOp::Set(Value::text(title));
        self.act(tab, "rename", DraftOp::Update(name("todos"), record, name("title"), set))
    }

    fn act(&mut self, tab: usize, action: &str, op: DraftOp) -> WriteId {
        self.try_act(tab, action, op).unwrap()
    }

    fn try_act(&mut self, tab: usize, action: &str, op: DraftOp) -> Result<WriteId, CallError> {
        self.now += 1;
        let draft = Draft { name: name(action), args: None, ops: vec![op], lifetime_ms: None };
        self.tabs.get_mut(&tab).unwrap().engine.act(&log(), draft, self.now)
    }

    pub(crate) fn titles(&mut self, tab: usize) -> Vec<String> {
        let replica = self.tabs.get_mut(&tab).unwrap().engine.replica(&log()).unwrap();
        let (view, visible) = replica.view_mut().unwrap();
        let rows = view.select(visible, Query::all(name("todos"))).unwrap();
        let mut titles: Vec<_> = rows.iter().map(|row| title(row.as_bytes())).collect();
        titles.sort();
        titles
    }

    /// Begins a live query.
    pub(crate) fn query(&mut self, tab: usize, query: Query) -> QueryId {
        let tab = self.tabs.get_mut(&tab).unwrap();
        let (view, visible) = tab.engine.replica(&log()).unwrap().view_for(&query).unwrap();
        let (id, rows) = view.query(visible, query).unwrap();
        tab.live.insert(id, rows);
        id
    }

    /// The rows of a live query by its patches, which are those of a fresh one.
    pub(crate) fn rows(&mut self, tab: usize, id: QueryId, query: &Query) -> Vec<Value> {
        let tab = self.tabs.get_mut(&tab).unwrap();
        let (view, visible) = tab.engine.replica(&log()).unwrap().view_for(query).unwrap();
        let live = &tab.live[&id];
        assert_eq!(live, &view.select(visible, query.clone()).unwrap(), "patches lead to the rows");
        live.iter().map(|row| driftlog_core::codec::from_bytes(row.as_bytes()).unwrap()).collect()
    }

    /// Deletes what an action made.
    pub(crate) fn delete(&mut self, tab: usize, write: WriteId) -> WriteId {
        let record = self.tabs[&tab].records[&write].clone();
        self.act(tab, "remove", DraftOp::Delete(name("todos"), record, DeletePolicy::Wins))
    }

    /// Elects the tab: its sockets open at once.
    pub(crate) fn elect(&mut self, tab: usize) {
        self.input(tab, Input::Elected);
    }

    /// Something happens outside of a tab.
    pub(crate) fn input(&mut self, tab: usize, input: Input) {
        self.tabs.get_mut(&tab).unwrap().inbox.push_back(input);
        self.run();
    }

    /// A frame comes from the server.
    pub(crate) fn receive(&mut self, tab: usize, frame: &Frame) {
        self.input(tab, Input::SocketFrame(frame.encode()));
    }

    /// Frames sent since the last look.
    pub(crate) fn sent(&mut self, tab: usize) -> Vec<Frame> {
        std::mem::take(&mut self.tabs.get_mut(&tab).unwrap().sent)
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.now += ms;
        for tab in self.tabs.values_mut() {
            if tab.timeout.take_if(|due| *due <= self.now).is_some() {
                tab.inbox.push_back(Input::Timeout);
            }
        }
        self.run();
    }

    /// The clock steps back, and nobody is told.
    pub(crate) fn step_back(&mut self, ms: u64) {
        self.now -= ms;
    }

    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// What the app is shown of the log.
    pub(crate) fn state(&mut self, tab: usize) -> LogState {
        self.tabs.get_mut(&tab).unwrap().engine.replica(&log()).unwrap().log_state()
    }

    pub(crate) fn outbox(&mut self, tab: usize) -> usize {
        self.tabs.get_mut(&tab).unwrap().engine.replica(&log()).unwrap().outbox().len()
    }

    pub(crate) fn actor(&self, tab: usize) -> ActorId {
        self.tabs[&tab].engine.identity().unwrap().actor
    }

    pub(crate) fn stored(&self, tab: usize, write: WriteId) -> bool {
        self.statuses(tab, write).any(|status| matches!(status, WriteStatus::Stored(_)))
    }

    pub(crate) fn failed(&self, tab: usize, write: WriteId) -> bool {
        self.statuses(tab, write).any(|status| matches!(status, WriteStatus::Failed(..)))
    }

    /// Actions that a tab's app was told are accepted, once for each time.
    pub(crate) fn accepted(&self, tab: usize) -> Vec<WriteId> {
        let told =
            self.tabs[&tab].writes.iter().flat_map(|(write, told)| told.iter().map(move |status| (write, status)));
        told.filter(|(_, status)| matches!(status, WriteStatus::Accepted(_))).map(|(write, _)| *write).collect()
    }

    fn statuses(&self, tab: usize, write: WriteId) -> impl Iterator<Item = &WriteStatus> {
        self.tabs[&tab].writes.get(&write).into_iter().flatten()
    }

    /// Carries everything out until nothing is left to do.
    pub(crate) fn run(&mut self) {
        while self.step() {}
    }

    fn step(&mut self) -> bool {
        let mut busy = false;
        let mut hints = Vec::new();
        for (at, tab) in &mut self.tabs {
            if tab.frozen {
                continue;
            }
            while let Some(input) = tab.inbox.pop_front() {
                busy = true;
                tab.engine.handle(input, self.now);
            }
            while let Some(output) = tab.engine.poll() {
                busy = true;
                match output {
                    Output::Commit(id, commit) => {
                        let result = self.database.commit(&commit);
                        tab.inbox.push_back(Input::Committed(id, result));
                    }
                    Output::Read(id, ranges) => {
                        let rows: Vec<_> = ranges.iter().map(|range| self.database.read(range)).collect();
                        self.rows_read += rows.iter().map(Vec::len).sum::<usize>();
                        tab.inbox.push_back(Input::Rows(id, self.reads_fail.clone().map_or(Ok(rows), Err)));
                    }
                    Output::Hint(bytes) => hints.push((*at, bytes)),
                    Output::Opened(name, Ok(())) => drop(tab.opened.insert(name)),
                    Output::Notice(Notice::Write(_, write, status)) => {
                        tab.writes.entry(write).or_default().push(status);
                    }
                    Output::Notice(Notice::Patch(_, query, patches)) => {
                        let rows = tab.live.entry(query).or_default();
                        patches.iter().for_each(|patch| patch.apply(rows));
                    }
                    Output::Notice(Notice::DeadLetters(_, from)) => {
                        tab.listed_to = Some(tab.listed_to.unwrap_or(from).min(from));
                    }
                    Output::OwnEntries(id, entries) => drop(tab.found.insert(id, entries)),
                    Output::SocketOpen if self.authority.is_some() && !self.online => {
                        tab.inbox.push_back(Input::SocketClosed("offline".into()));
                    }
                    Output::SocketOpen => {
                        if let Some(authority) = &mut self.authority {
                            authority.connect(self.now);
                        }
                        tab.socket = self.server.is_some().then(Session::new);
                        tab.inbox.push_back(Input::SocketOpened);
                    }
                    Output::SocketSend(bytes) if self.authority.is_some() => {
                        let frames = self.authority.as_mut().unwrap().take(self.now, &bytes);
                        tab.inbox.extend(frames.into_iter().map(Input::SocketFrame));
                    }
                    Output::SocketSend(bytes) => match (&mut self.server, &mut tab.socket) {
                        (Some(server), Some(session)) => {
                            tab.sent.push(Frame::decode(&bytes).unwrap());
                            tab.inbox.extend(server.take(session, &bytes).into_iter().map(Input::SocketFrame));
                        }
                        _ => tab.sent.push(Frame::decode(&bytes).unwrap()),
                    },
                    Output::SocketClose => {
                        tab.socket = None;
                        // Followers close what they never opened.
                        if let Some(authority) = self.authority.as_mut().filter(|_| tab.engine.wants_connection()) {
                            authority.disconnect();
                        }
                    }
                    Output::SocketWatch if self.slow => {}
                    Output::SocketWatch => tab.inbox.push_back(Input::SocketBuffered(0)),
                    Output::Timeout(due) => tab.timeout = Some(due),
                    Output::Broken(reason) => panic!("{reason}"),
                    _ => {}
                }
            }
        }
        for tab in self.tabs.values_mut() {
            let grown = tab.socket.as_mut().and_then(|session| self.server.as_ref()?.grown(session));
            tab.inbox.extend(grown.map(Input::SocketFrame));
        }
        for (from, bytes) in hints {
            for (at, tab) in &mut self.tabs {
                if *at != from {
                    tab.inbox.push_back(Input::Hint(bytes.clone()));
                }
            }
        }
        busy
    }
}

fn title(row: &[u8]) -> String {
    match driftlog_core::codec::from_bytes::<Value>(row).unwrap() {
        Value::Map(fields) => match fields.get("title") {
            Some(Value::Text(title)) => title.clone(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}
