//! The event loop of one tab: it feeds core's [`Engine`] what happens, and carries out what the engine wants.
//!
//! ```text
//!   calls ──────────┐                       ┌──► store ────┐
//!   socket, tabs, ──┤► feed ─► Engine ─poll─┼──► socket    ├── answers, events ──► feed
//!   page, timer ────┘                       ├──► tabs ─────┘
//!                                           └──► notices ──► listener
//! ```
//!
//! **Invariants:** the engine is borrowed only for the length of one of its own calls, and nothing that is called while
//! carrying out an output comes back synchronously. The listener is called only after an event, never from within a
//! call of the app: what a call causes is its answer, or follows in a later task.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use driftlog_core::engine::{CallError, CommitFailure, Config, Engine, Input, Output, OwnEntry, RequestId, Resume};
use driftlog_core::id::{ActorId, ClientId, LogName, RunId, WriteId};
use driftlog_core::notice;
use driftlog_core::storage::commit::{Commit, CommitAbort};
use driftlog_core::view::Schema;
use wasm_bindgen_futures::spawn_local;

use crate::boundary::answer::{Notice, write_status};
use crate::boundary::request::{Options, Trapped};
use crate::clock;
use crate::durability;
use crate::entropy::{self, NoEntropy};
use crate::oneshot;
use crate::page::{Page, PageEvent};
use crate::socket::{Socket, SocketEvent, SocketSink};
use crate::store::{CommitError, LocalStore, Store, StoreError};
use crate::tabs::{Mode, TabEvent, Tabs};
use crate::timer::{Timer, sleep};
use crate::witness::Told;

/// How often a full socket is looked at until little waits in it.
const SOCKET_WATCH_MS: u32 = 20;

/// So little waits in the socket that more may be sent.
const SOCKET_LOW_BYTES: u32 = 16 * 1024;

/// The pause before a failed read is told, so that whoever asks again does not spin.
const READ_FAILED_PAUSE_MS: u32 = 1_000;

/// The pause before a commit that the engine cannot do without is made again.
const COMMIT_RETRY_MS: u32 = 1_000;

/// How long `close` waits for what is being stored.
const CLOSE_FLUSH_MS_MAX: u64 = 5_000;

/// The app's listener; it gets notices as bytes.
pub(crate) type Listener = Box<dyn Fn(Vec<Notice>)>;

/// A running client.
pub(crate) struct Client {
    engine: RefCell<Engine>,
    store: LocalStore,
    url: Option<String>,
    listener: Listener,
    /// What watches the world. Taken down by `close`.
    world: RefCell<Option<World>>,
    socket: RefCell<Option<Socket>>,
    socket_generation: Cell<u64>,
    socket_watched: Cell<bool>,
    logs: RefCell<Logs>,
    lookups: RefCell<BTreeMap<RequestId, oneshot::Sender<Found>>>,
    notices: RefCell<Vec<Notice>>,
    delivery_scheduled: Cell<bool>,
    commits_under_way: Cell<u32>,
    idle_waiters: RefCell<Vec<oneshot::Sender<()>>>,
    persistence_asked: Cell<bool>,
    /// Why the engine cannot go on.
    broken: RefCell<Option<String>>,
    closed: Cell<bool>,
}

struct World {
    tabs: Tabs,
    timer: Timer,
    _page: Page,
}

/// The logs the app has open: a handle for each.
#[derive(Default)]
struct Logs {
    names: BTreeMap<u32, LogName>,
    handles: BTreeMap<LogName, u32>,
    last: u32,
    opening: BTreeMap<LogName, VecDeque<oneshot::Sender<Result<(), String>>>>,
}

/// Own entries that were looked for, or why the store does not give them.
type Found = Result<Vec<OwnEntry>, String>;

/// Why a call of the app fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
    /// No log is open under this handle.
    #[error("no log is open under the handle {0}")]
    NoSuchHandle(u32),
    /// The local database cannot be used.
    #[error("{0}")]
    Storage(String),
    /// The engine refuses the call.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl Client {
    /// Starts a client on an open store.
    ///
    /// # Errors
    /// [`NoEntropy`].
    pub(crate) fn start(options: Options, store: LocalStore, listener: Listener) -> Result<Rc<Self>, NoEntropy> {
        let Options { name, url, token, device, backlog, after, offline, trap, .. } = options;
        let after = after.and_then(|after| WriteId::parse(&after));
        let run = after.map_or_else(|| entropy::bytes().map(RunId), |after| Ok(after.run))?;
        let config = Config {
            run,
            client: ClientId(entropy::bytes()?),
            actor: ActorId(entropy::bytes()?),
            seed: entropy::bytes()?,
            device: device.map_or_else(described, shortened),
            connect: url.is_some() && !offline,
            token,
            backlog: backlog.into(),
            own_kept_bytes: driftlog_core::engine::OWN_KEPT_BYTES,
        };
        let resume = Resume {
            acts: after.map_or(0, |after| after.n),
            trap: trap.and_then(Trapped::trap),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            witness: Some(Arc::new(Told)),
        };
        let client = Rc::new(Client {
            engine: RefCell::new(Engine::resumed(config, resume, clock::now_ms())),
            store: store.clone(),
            url,
            listener,
            world: RefCell::default(),
            socket: RefCell::default(),
            socket_generation: Cell::new(0),
            socket_watched: Cell::new(false),
            logs: RefCell::default(),
            lookups: RefCell::default(),
            notices: RefCell::default(),
            delivery_scheduled: Cell::new(false),
            commits_under_way: Cell::new(0),
            idle_waiters: RefCell::default(),
            persistence_asked: Cell::new(false),
            broken: RefCell::default(),
            closed: Cell::new(false),
        });
        let tabs = Tabs::join(&name, run.0, store, client.on(Self::tab_event));
        let timer = Timer::new(client.on_nothing(|client| client.feed(Input::Timeout)));
        let page = Page::watch(client.on(Self::page_event));
        client.world.replace(Some(World { tabs, timer, _page: page }));
        client.carry_out();
        if client.url.is_some() {
            client.with_tabs(Tabs::campaign);
        }
        Ok(client)
    }

    /// A callback that reaches this client as long as it lives.
    fn on<E: 'static>(self: &Rc<Self>, heard: fn(&Rc<Self>, E)) -> impl Fn(E) + Clone + use<E> + 'static {
        let client = Rc::downgrade(self);
        move |event| {
            if let Some(client) = client.upgrade() {
                heard(&client, event);
            }
        }
    }

    fn on_nothing(self: &Rc<Self>, heard: fn(&Rc<Self>)) -> impl Fn() + use<> + 'static {
        let client = Rc::downgrade(self);
        move || {
            if let Some(client) = client.upgrade() {
                heard(&client);
            }
        }
    }

    /// How the tabs of this client elect their leader.
    pub(crate) fn tabs_mode(&self) -> Option<Mode> {
        self.world.borrow().as_ref().map(|world| world.tabs.mode())
    }

    /// Opens a log; resolves to its handle when it can be used.
    ///
    /// # Errors
    /// [`ClientError::Storage`], [`ClientError::Closed`].
    pub(crate) async fn open(self: &Rc<Self>, name: LogName, schema: Schema) -> Result<u32, ClientError> {
        if let Some(reason) = self.broken.borrow().clone() {
            return Err(ClientError::Storage(reason));
        }
        let (opened, wait) = oneshot::channel();
        self.logs.borrow_mut().opening.entry(name.clone()).or_default().push_back(opened);
        self.call(|engine| engine.open(&name, schema, clock::now_ms()))?;
        match wait.await {
            Some(Ok(())) => Ok(self.logs.borrow_mut().handle(&name)),
            Some(Err(reason)) => Err(ClientError::Storage(reason)),
            None => Err(ClientError::Closed),
        }
    }

    /// Ends the views of a log.
    pub(crate) fn shut(self: &Rc<Self>, handle: u32) {
        if let Ok(name) = self.log(handle) {
            self.logs.borrow_mut().forget(handle);
            let _ = self.call(|engine| engine.hide(&name));
        }
    }

    /// The log under a handle.
    ///
    /// # Errors
    /// [`ClientError::NoSuchHandle`].
    pub(crate) fn log(&self, handle: u32) -> Result<LogName, ClientError> {
        let logs = self.logs.borrow();
        logs.names.get(&handle).cloned().ok_or(ClientError::NoSuchHandle(handle))
    }

    /// Calls the engine and carries out what it wants; notices wait for [`Client::take_notices`] or a later task.
    ///
    /// # Errors
    /// [`ClientError::Closed`].
    pub(crate) fn call<T>(self: &Rc<Self>, call: impl FnOnce(&mut Engine) -> T) -> Result<T, ClientError> {
        if self.closed.get() {
            return Err(ClientError::Closed);
        }
        let outcome = call(&mut self.engine.borrow_mut());
        self.carry_out();
        self.schedule_delivery();
        Ok(outcome)
    }

    /// The notices that are not delivered yet, oldest first.
    pub(crate) fn take_notices(&self) -> Vec<Notice> {
        self.notices.take()
    }

    /// Own entries that the engine is asked for.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn look_up(
        self: &Rc<Self>,
        ask: impl FnOnce(&mut Engine) -> Result<RequestId, CallError>,
    ) -> Result<Vec<OwnEntry>, ClientError> {
        let request = {
            if self.closed.get() {
                return Err(ClientError::Closed);
            }
            ask(&mut self.engine.borrow_mut())?
        };
        let (found, wait) = oneshot::channel();
        self.lookups.borrow_mut().insert(request, found);
        self.carry_out();
        wait.await.ok_or(ClientError::Closed)?.map_err(ClientError::Storage)
    }

    /// Tells the engine of something the app wants.
    pub(crate) fn wish(self: &Rc<Self>, input: Input) {
        let _ = self.call(|engine| engine.handle(input, clock::now_ms()));
    }

    /// Waits until everything that can be is stored, then ends.
    pub(crate) async fn close(self: &Rc<Self>) {
        if self.closed.get() {
            return;
        }
        self.flush().await;
        self.feed(Input::Close);
        self.closed.set(true);
        self.socket.replace(None);
        self.world.replace(None);
        self.logs.replace(Logs::default());
        self.lookups.replace(BTreeMap::new());
        self.store.close();
    }

    async fn flush(self: &Rc<Self>) {
        if self.commits_under_way.get() == 0 {
            return;
        }
        let (idle, wait) = oneshot::channel();
        self.idle_waiters.borrow_mut().push(idle);
        // A store that does not come back must not keep the app from closing; nothing it was told is lost by that.
        let patience = Timer::new(self.on_nothing(|client| client.idle_waiters.borrow_mut().clear()));
        patience.set(CLOSE_FLUSH_MS_MAX);
        let _ = wait.await;
    }

    /// Something happened: the engine hears of it, its wishes are carried out, and the app is told.
    fn feed(self: &Rc<Self>, input: Input) {
        if self.closed.get() {
            return;
        }
        self.engine.borrow_mut().handle(input, clock::now_ms());
        self.carry_out();
        self.deliver();
    }

    fn carry_out(self: &Rc<Self>) {
        loop {
            let Some(output) = self.engine.borrow_mut().poll() else { return };
            match output {
                Output::Commit(id, commit) => {
                    self.commits_under_way.set(self.commits_under_way.get() + 1);
                    spawn_local(Rc::clone(self).commit(id, commit));
                }
                Output::Read(id, ranges) => {
                    let client = Rc::clone(self);
                    spawn_local(async move {
                        let rows = client.store.read(&ranges).await;
                        if rows.is_err() {
                            sleep(READ_FAILED_PAUSE_MS).await;
                        }
                        client.feed(Input::Rows(id, rows.map_err(|error| error.to_string())));
                    });
                }
                Output::SocketOpen => self.open_socket(),
                Output::SocketSend(frame) => {
                    if let Some(socket) = &*self.socket.borrow() {
                        socket.send(&frame);
                    }
                }
                Output::SocketClose => drop(self.socket.replace(None)),
                Output::SocketWatch => self.watch_socket(),
                Output::Hint(hint) => self.with_tabs(|tabs| tabs.hint(&hint)),
                Output::Notice(notice) => self.note(notice),
                Output::Opened(name, outcome) => self.opened(&name, outcome),
                Output::OwnEntries(id, entries) => {
                    if let Some(found) = self.lookups.borrow_mut().remove(&id) {
                        found.send(entries);
                    }
                }
                Output::Broken(reason) => self.broke(reason),
                Output::Timeout(at) => {
                    if let Some(world) = &*self.world.borrow() {
                        world.timer.set(at.saturating_sub(clock::now_ms()));
                    }
                }
            }
        }
    }

    async fn commit(self: Rc<Self>, id: RequestId, commit: Commit) {
        let reads = commit.reads();
        let outcome = loop {
            let outcome = self.store.commit(commit.durability(), &reads, |rows| commit.decide(rows)).await;
            match outcome.map_err(failure) {
                // Without these nothing goes on, and doing them twice does no harm.
                Err(CommitFailure::Unknown(_) | CommitFailure::Full(_))
                    if matches!(commit, Commit::Identity(_) | Commit::Lead) && !self.closed.get() =>
                {
                    sleep(COMMIT_RETRY_MS).await;
                }
                outcome => break outcome,
            }
        };
        self.commits_under_way.set(self.commits_under_way.get() - 1);
        self.feed(Input::Committed(id, outcome));
        // Checked after the engine has heard, because that may have begun the next group.
        if self.commits_under_way.get() == 0 {
            let waiters = self.idle_waiters.take();
            waiters.into_iter().for_each(|waiter| waiter.send(()));
        }
    }

    fn open_socket(self: &Rc<Self>) {
        let generation = self.socket_generation.get() + 1;
        self.socket_generation.set(generation);
        let on_event = self.on(Self::socket_event);
        let sink: SocketSink = Rc::new(move |generation, event| on_event((generation, event)));
        let Some(url) = &self.url else { return };
        match Socket::open(url, generation, Rc::clone(&sink)) {
            Ok(socket) => drop(self.socket.replace(Some(socket))),
            // Told in a later task, as every event.
            Err(refused) => spawn_local(async move {
                sink(generation, SocketEvent::Closed { code: 1006, reason: refused.to_string() });
            }),
        }
    }

    fn socket_event(self: &Rc<Self>, (generation, event): (u64, SocketEvent)) {
        if generation != self.socket_generation.get() {
            return;
        }
        match event {
            SocketEvent::Opened => self.feed(Input::SocketOpened),
            SocketEvent::Frame(frame) => {
                self.feed(Input::SocketFrame(frame));
                // Timers of hidden pages are slow, frames are not.
                if self.socket_watched.get() {
                    self.look_at_socket();
                }
            }
            SocketEvent::Closed { code, reason } => {
                self.socket.replace(None);
                self.feed(Input::SocketClosed(closed_because(code, &reason)));
            }
        }
    }

    fn watch_socket(self: &Rc<Self>) {
        if self.socket_watched.replace(true) {
            return;
        }
        let client = Rc::clone(self);
        spawn_local(async move {
            while client.socket_watched.get() && !client.closed.get() {
                sleep(SOCKET_WATCH_MS).await;
                client.look_at_socket();
            }
        });
    }

    fn look_at_socket(self: &Rc<Self>) {
        let waiting = self.socket.borrow().as_ref().map(Socket::buffered_bytes);
        match waiting {
            None => self.socket_watched.set(false),
            Some(bytes) if bytes <= SOCKET_LOW_BYTES => {
                self.socket_watched.set(false);
                self.feed(Input::SocketBuffered(bytes as usize));
            }
            Some(_) => {}
        }
    }

    fn tab_event(self: &Rc<Self>, event: TabEvent) {
        self.feed(match event {
            TabEvent::Elected => Input::Elected,
            TabEvent::Deposed => Input::Unseated,
            TabEvent::Hint(hint) => Input::Hint(hint),
        });
    }

    fn page_event(self: &Rc<Self>, event: PageEvent) {
        match event {
            // Groups are stored as soon as they can be, so nothing waits here for a flush.
            PageEvent::Hidden | PageEvent::Offline => {}
            PageEvent::Visible | PageEvent::Online => self.feed(Input::Woken),
            PageEvent::Left | PageEvent::Frozen => {
                self.with_tabs(Tabs::withdraw);
                self.feed(Input::Unseated);
            }
            PageEvent::Restored | PageEvent::Resumed => {
                if self.url.is_some() {
                    self.with_tabs(Tabs::campaign);
                }
                self.feed(Input::Woken);
            }
        }
    }

    fn with_tabs(&self, act: impl FnOnce(&Tabs)) {
        if let Some(world) = &*self.world.borrow() {
            act(&world.tabs);
        }
    }

    fn opened(&self, name: &LogName, outcome: Result<(), String>) {
        let waiting = self.logs.borrow_mut().opening.remove(name).unwrap_or_default();
        waiting.into_iter().for_each(|waiter| waiter.send(outcome.clone()));
    }

    fn broke(&self, reason: String) {
        let opening = std::mem::take(&mut self.logs.borrow_mut().opening);
        opening.into_values().flatten().for_each(|waiter| waiter.send(Err(reason.clone())));
        self.broken.replace(Some(reason));
    }

    /// Keeps a notice for the app, unless it concerns a log that is not open any more.
    fn note(self: &Rc<Self>, notice: notice::Notice) {
        if matches!(notice, notice::Notice::Write(_, _, notice::WriteStatus::Stored(_))) {
            self.ask_for_persistence();
        }
        let handle = |name: &LogName| self.logs.borrow().handles.get(name).copied();
        let notice = match notice {
            notice::Notice::Patch(name, query, patches) => {
                handle(&name).map(|handle| Notice::Patch { handle, query: query.0, patches })
            }
            notice::Notice::Write(name, write, status) => handle(&name).map(|handle| {
                let (status, detail) = write_status(status);
                Notice::Write { handle, write, status, detail }
            }),
            notice::Notice::Connection(connection) => Some(Notice::Connection(connection.into())),
            notice::Notice::Log(name, state) => handle(&name).map(|handle| Notice::Log { handle, state: state.into() }),
            notice::Notice::Pressure(pressure) => Some(Notice::Pressure(pressure.into())),
            notice::Notice::DeadLetters(name, from) => {
                handle(&name).map(|handle| Notice::DeadLetters { handle, from: from.0 })
            }
            notice::Notice::Presence(name) => handle(&name).map(|handle| Notice::Presence { handle }),
            notice::Notice::Fold(name, fold) => handle(&name).map(|handle| Notice::Fold { handle, fold: fold.0 }),
            notice::Notice::TokenWanted(reason) => Some(Notice::TokenWanted { reason }),
        };
        self.notices.borrow_mut().extend(notice);
    }

    fn ask_for_persistence(&self) {
        if matches!(self.store, LocalStore::IndexedDb(_)) && !self.persistence_asked.replace(true) {
            spawn_local(async {
                durability::request_persistence().await;
            });
        }
    }

    fn deliver(&self) {
        let notices = self.take_notices();
        if !notices.is_empty() {
            (self.listener)(notices);
        }
    }

    fn schedule_delivery(self: &Rc<Self>) {
        if self.notices.borrow().is_empty() || self.delivery_scheduled.replace(true) {
            return;
        }
        let client = Rc::clone(self);
        spawn_local(async move {
            client.delivery_scheduled.set(false);
            client.deliver();
        });
    }
}

impl Logs {
    fn handle(&mut self, name: &LogName) -> u32 {
        if let Some(handle) = self.handles.get(name) {
            return *handle;
        }
        self.last += 1;
        self.names.insert(self.last, name.clone());
        self.handles.insert(name.clone(), self.last);
        self.last
    }

    fn forget(&mut self, handle: u32) {
        if let Some(name) = self.names.remove(&handle) {
            self.handles.remove(&name);
        }
    }
}

fn failure(error: CommitError<CommitAbort>) -> CommitFailure {
    match error {
        CommitError::Aborted(abort) => CommitFailure::Aborted(abort),
        CommitError::Conflict => CommitFailure::Failed("a row that must be new exists already".to_owned()),
        CommitError::Store(StoreError::Quota(fault)) => CommitFailure::Full(fault.to_string()),
        // Nothing was written, but the store may be back soon: the engine reads, which waits, and tries again.
        CommitError::Store(StoreError::Lost(fault)) | CommitError::Unknown(fault) => {
            CommitFailure::Unknown(fault.to_string())
        }
        CommitError::Store(error) => CommitFailure::Failed(error.to_string()),
    }
}

fn closed_because(code: u16, reason: &str) -> String {
    match (code, reason) {
        (1006, "") => "the connection broke or could not be made".to_owned(),
        (code, "") => format!("the socket was closed with code {code}"),
        (_, reason) => reason.to_owned(),
    }
}

/// The device, for people: what the browser says of itself, or the runtime.
fn described() -> String {
    let get = |object: &wasm_bindgen::JsValue, name: &str| js_sys::Reflect::get(object, &name.into()).ok();
    let navigator = get(&js_sys::global(), "navigator").filter(wasm_bindgen::JsValue::is_object);
    let agent = navigator.and_then(|navigator| get(&navigator, "userAgent")).and_then(|agent| agent.as_string());
    agent.map_or_else(|| "unknown".to_owned(), shortened)
}

fn shortened(device: String) -> String {
    const CHARS_MAX: usize = 120;
    device.chars().take(CHARS_MAX).collect()
}
