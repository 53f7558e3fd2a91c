//! One device: a database in memory and the tabs that share it, driven by hand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use driftlog_core::draft::{Draft, DraftFieldOp, DraftOp};
use driftlog_core::engine::{Config, Engine, Input, Output};
use driftlog_core::id::{ActorId, ClientId, LogName, Name, RecordId, RunId, WriteId};
use driftlog_core::notice::{LogState, Notice, WriteStatus};
use driftlog_core::protocol::Frame;
use driftlog_core::value::Value;
use driftlog_core::view::{CollectionSchema, FieldSchema, Query, Schema, Strategy};
use driftlog_tests::database::Database;

pub(crate) struct Tab {
    engine: Engine,
    frozen: bool,
    inbox: VecDeque<Input>,
    writes: BTreeMap<WriteId, Vec<WriteStatus>>,
    records: BTreeMap<WriteId, RecordId>,
    opened: BTreeSet<LogName>,
    /// Frames sent since the last look.
    sent: Vec<Frame>,
    timeout: Option<u64>,
}

pub(crate) struct Device {
    pub(crate) database: Database,
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
        Self { database: Database::default(), tabs: BTreeMap::new(), id, made: 0, now: 1_700_000_000_000 }
    }

    pub(crate) fn tab(&mut self) -> usize {
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
        };
        let tab = Tab {
            engine: Engine::new(config, self.now),
            frozen: false,
            inbox: VecDeque::new(),
            writes: BTreeMap::new(),
            records: BTreeMap::new(),
            opened: BTreeSet::new(),
            sent: Vec::new(),
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

    pub(crate) fn rename(&mut self, tab: usize, write: WriteId, title: &str) -> WriteId {
        let record = self.tabs[&tab].records[&write].clone();
        let set = DraftFieldOp::Set(Value::text(title));
        self.act(tab, "rename", DraftOp::Update(name("todos"), record, name("title"), set))
    }

    fn act(&mut self, tab: usize, action: &str, op: DraftOp) -> WriteId {
        self.now += 1;
        let draft = Draft { name: name(action), args: None, ops: vec![op], lifetime_ms: None };
        self.tabs.get_mut(&tab).unwrap().engine.act(&log(), draft, self.now).unwrap()
    }

    pub(crate) fn titles(&mut self, tab: usize) -> Vec<String> {
        let replica = self.tabs.get_mut(&tab).unwrap().engine.replica(&log()).unwrap();
        let (view, visible) = replica.view_mut().unwrap();
        let rows = view.select(visible, Query::all(name("todos"))).unwrap();
        let mut titles: Vec<_> = rows.iter().map(|row| title(row.as_bytes())).collect();
        titles.sort();
        titles
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
                        let rows = ranges.iter().map(|range| self.database.read(range)).collect();
                        tab.inbox.push_back(Input::Rows(id, Ok(rows)));
                    }
                    Output::Hint(bytes) => hints.push((*at, bytes)),
                    Output::Opened(name, Ok(())) => drop(tab.opened.insert(name)),
                    Output::Notice(Notice::Write(_, write, status)) => {
                        tab.writes.entry(write).or_default().push(status);
                    }
                    Output::SocketOpen => tab.inbox.push_back(Input::SocketOpened),
                    Output::SocketSend(bytes) => tab.sent.push(Frame::decode(&bytes).unwrap()),
                    Output::SocketWatch => tab.inbox.push_back(Input::SocketBuffered(0)),
                    Output::Timeout(due) => tab.timeout = Some(due),
                    Output::Broken(reason) => panic!("{reason}"),
                    _ => {}
                }
            }
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
