//! One device: a database in memory and the tabs that share it, driven by hand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use driftlog_core::draft::{Draft, DraftFieldOp, DraftOp};
use driftlog_core::engine::{CommitFailure, Config, Engine, Input, Output};
use driftlog_core::entry::Entry;
use driftlog_core::id::{ActorId, ClientId, LogName, Name, RecordId, RunId, WriteId};
use driftlog_core::notice::{Notice, WriteStatus};
use driftlog_core::storage::commit::{Commit, Committed};
use driftlog_core::storage::{Direction, KeyRange, Row, Write, row};
use driftlog_core::value::Value;
use driftlog_core::view::{CollectionSchema, FieldSchema, Query, Schema, Strategy};

#[derive(Default)]
pub(crate) struct Database {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) full: bool,
    /// The next append's answer is lost; whether it was written.
    pub(crate) lose_next_answer: Option<bool>,
}

impl Database {
    pub(crate) fn commit(&mut self, commit: &Commit) -> Result<Committed, CommitFailure> {
        let reads: Vec<_> = commit.reads().iter().map(|key| self.rows.get(key).cloned()).collect();
        let (writes, committed) = commit.decide(&reads).map_err(CommitFailure::Aborted)?;
        if self.full {
            return Err(CommitFailure::Full("quota".into()));
        }
        let lost = if matches!(commit, Commit::Append(_)) { self.lose_next_answer.take() } else { None };
        if lost == Some(false) {
            return Err(CommitFailure::Unknown("lost".into()));
        }
        for write in writes {
            match write {
                Write::Add(key, value) => assert!(self.rows.insert(key, value).is_none(), "added twice"),
                Write::Put(key, value) => drop(self.rows.insert(key, value)),
                Write::Delete(key) => drop(self.rows.remove(&key)),
                Write::DeleteRange(from, to) => self.rows.retain(|key, _| *key < from || *key >= to),
            }
        }
        if lost == Some(true) { Err(CommitFailure::Unknown("lost".into())) } else { Ok(committed) }
    }

    fn read(&self, range: &KeyRange) -> Vec<Row> {
        let inside = self
            .rows
            .range(range.start.clone()..)
            .take_while(|(key, _)| range.end.as_ref().is_none_or(|end| *key < end));
        let mut rows: Vec<_> = inside.map(|(key, value)| (key.clone(), value.clone())).collect();
        if range.direction == Direction::Backward {
            rows.reverse();
        }
        rows.truncate(range.limit.map_or(usize::MAX, |limit| limit as usize));
        rows
    }

    pub(crate) fn own_entries(&self) -> Vec<Entry> {
        let own = self.rows.iter().filter(|(key, _)| key[0] == 0x11);
        own.flat_map(|(_, bytes)| row::decode_group(bytes).unwrap()).collect()
    }

    pub(crate) fn own_seqs(&self) -> Vec<u64> {
        self.own_entries().iter().map(|entry| entry.header.seq.0).collect()
    }
}

pub(crate) struct Tab {
    engine: Engine,
    frozen: bool,
    inbox: VecDeque<Input>,
    writes: BTreeMap<WriteId, Vec<WriteStatus>>,
    records: BTreeMap<WriteId, RecordId>,
    opened: BTreeSet<LogName>,
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
