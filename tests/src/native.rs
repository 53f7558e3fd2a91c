//! A client without a browser: the real engine over a real socket, with its database in memory.
//!
//! Each runs in a task of its own, like a tab; calls go to it over a bounded channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use driftlog_core::draft::Draft;
use driftlog_core::engine::{CallError, Config, Engine, Input, OWN_KEPT_BYTES, Output, Resume};
use driftlog_core::id::{ActorId, ClientId, LogName, RunId, WriteId};
use driftlog_core::notice::Notice;
use driftlog_core::outbox::BacklogBound;
use driftlog_core::replica::Replica;
use driftlog_core::view::Schema;
use driftlog_core::witness::Witness;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::database::Database;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;
type EngineCall = Box<dyn FnOnce(&mut Engine, u64) + Send>;

enum Call {
    Engine(EngineCall),
    Url(String),
    Stored(oneshot::Sender<u64>),
}

/// A handle to a running client.
pub struct NativeClient {
    calls: mpsc::Sender<Call>,
    /// What the engine told since the last look.
    pub notices: mpsc::UnboundedReceiver<Notice>,
    task: tokio::task::JoinHandle<Database>,
    stop: Option<oneshot::Sender<()>>,
    sent: Arc<AtomicU64>,
}

/// Wall-clock milliseconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has entropy");
    bytes
}

impl NativeClient {
    /// Starts a client of a server at `url` (`ws://…/sync`), with the database of an earlier start or an empty one.
    pub fn start(url: &str, token: Option<String>, database: Database) -> Self {
        Self::watched(url, token, database, None)
    }

    /// Starts a client whose engine tells a witness what it works on.
    pub fn watched(url: &str, token: Option<String>, database: Database, witness: Option<Arc<dyn Witness>>) -> Self {
        let (calls, inbox) = mpsc::channel(1024);
        let (tell, notices) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let config = Config {
            run: RunId(random()),
            client: ClientId(random()),
            actor: ActorId(random()),
            seed: random(),
            device: "native test client".to_owned(),
            connect: true,
            token: token.is_some(),
            backlog: BacklogBound::default(),
            own_kept_bytes: OWN_KEPT_BYTES,
        };
        let run = Running {
            engine: Engine::resumed(config, Resume { witness, ..Resume::default() }, now()),
            database,
            url: url.to_owned(),
            token,
            socket: None,
            tell,
            timeout: None,
            inputs: Vec::new(),
            sent: Arc::default(),
        };
        let sent = Arc::clone(&run.sent);
        let task = tokio::spawn(run.run(inbox, stopped));
        Self { calls, notices, task, stop: Some(stop), sent }
    }

    /// Bytes of frames that it sent.
    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Runs a call on the engine, as an app would between two events.
    pub async fn call<T: Send + 'static>(&self, call: impl FnOnce(&mut Engine, u64) -> T + Send + 'static) -> T {
        let (answer, answered) = oneshot::channel();
        let call: EngineCall = Box::new(move |engine, now| drop(answer.send(call(engine, now))));
        self.calls.send(Call::Engine(call)).await.expect("the client runs");
        answered.await.expect("the client answers")
    }

    /// Connects to another address from the next attempt on.
    pub async fn set_url(&self, url: &str) {
        self.calls.send(Call::Url(url.to_owned())).await.expect("the client runs");
    }

    /// Bytes of all keys and values in its database.
    pub async fn stored_bytes(&self) -> u64 {
        let (answer, answered) = oneshot::channel();
        self.calls.send(Call::Stored(answer)).await.expect("the client runs");
        answered.await.expect("the client answers")
    }

    /// Opens a log; it can be used when this returns.
    pub async fn open(&self, log: &LogName, schema: Schema) {
        let name = log.clone();
        self.call(move |engine, now| engine.open(&name, schema, now)).await;
        let name = log.clone();
        self.until(move |engine| engine.replica(&name).is_ok().then_some(())).await;
    }

    /// Records an action.
    ///
    /// # Errors
    /// Those of [`Engine::act`].
    pub async fn act(&self, log: &LogName, draft: Draft) -> Result<WriteId, CallError> {
        let name = log.clone();
        self.call(move |engine, now| engine.act(&name, draft, now)).await
    }

    /// Waits until something is so; gives up loudly after a minute, which no correct run needs.
    pub async fn until<T: Send + 'static>(
        &self,
        ask: impl Fn(&mut Engine) -> Option<T> + Send + Sync + Clone + 'static,
    ) -> T {
        self.until_within(Duration::from_secs(60), ask).await
    }

    /// Waits until something is so; gives up loudly after so long.
    pub async fn until_within<T: Send + 'static>(
        &self,
        patience: Duration,
        ask: impl Fn(&mut Engine) -> Option<T> + Send + Sync + Clone + 'static,
    ) -> T {
        let begun = Instant::now();
        loop {
            let ask = ask.clone();
            if let Some(answer) = self.call(move |engine, _| ask(engine)).await {
                return answer;
            }
            assert!(begun.elapsed() < patience, "this should have happened by now");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until the log's outbox is empty and everything the server has is in view.
    pub async fn quiet(&self, log: &LogName) {
        let name = log.clone();
        let quiet = move |replica: &Replica| {
            replica.outbox().is_empty()
                && replica.overlay().is_empty()
                && replica.status() == driftlog_core::notice::LogStatus::Synced
        };
        self.until(move |engine| engine.replica(&name).ok().filter(|replica| quiet(replica)).map(|_| ())).await;
    }

    /// Ends the client without a good-bye and returns its database, for a later start.
    pub async fn kill(mut self) -> Database {
        drop(self.stop.take());
        self.task.await.expect("the client did not panic")
    }
}

struct Running {
    engine: Engine,
    database: Database,
    url: String,
    token: Option<String>,
    socket: Option<Socket>,
    tell: mpsc::UnboundedSender<Notice>,
    timeout: Option<u64>,
    inputs: Vec<Input>,
    sent: Arc<AtomicU64>,
}

impl Running {
    async fn run(mut self, mut inbox: mpsc::Receiver<Call>, mut stopped: oneshot::Receiver<()>) -> Database {
        self.engine.handle(Input::Elected, now());
        loop {
            self.drain().await;
            let wait = Duration::from_millis(self.timeout.map_or(3_600_000, |due| due.saturating_sub(now())));
            tokio::select! {
                biased;
                _ = &mut stopped => return self.database,
                call = inbox.recv() => match call {
                    Some(Call::Engine(call)) => call(&mut self.engine, now()),
                    Some(Call::Url(url)) => self.url = url,
                    Some(Call::Stored(answer)) => drop(answer.send(self.database.bytes())),
                    None => return self.database,
                },
                frame = receive(&mut self.socket) => self.received(frame),
                () = tokio::time::sleep(wait) => {
                    self.timeout = None;
                    self.engine.handle(Input::Timeout, now());
                }
            }
        }
    }

    fn received(&mut self, frame: Option<Vec<u8>>) {
        match frame {
            Some(bytes) => self.engine.handle(Input::SocketFrame(bytes), now()),
            None => {
                self.socket = None;
                self.engine.handle(Input::SocketClosed("the socket closed".into()), now());
            }
        }
    }

    async fn drain(&mut self) {
        loop {
            while let Some(output) = self.engine.poll() {
                self.carry_out(output).await;
            }
            if self.inputs.is_empty() {
                return;
            }
            for input in std::mem::take(&mut self.inputs) {
                self.engine.handle(input, now());
            }
        }
    }

    async fn carry_out(&mut self, output: Output) {
        match output {
            Output::Commit(id, commit) => {
                let result = self.database.commit(&commit);
                self.inputs.push(Input::Committed(id, result));
            }
            Output::Read(id, ranges) => {
                let rows = ranges.iter().map(|range| self.database.read(range)).collect();
                self.inputs.push(Input::Rows(id, Ok(rows)));
            }
            Output::SocketOpen => match tokio_tungstenite::connect_async(&self.url).await {
                Ok((socket, _)) => {
                    self.socket = Some(socket);
                    self.inputs.push(Input::SocketOpened);
                }
                Err(error) => self.inputs.push(Input::SocketClosed(error.to_string())),
            },
            Output::SocketSend(bytes) => self.send(bytes).await,
            Output::SocketClose => self.socket = None,
            Output::SocketWatch => self.inputs.push(Input::SocketBuffered(0)),
            Output::Notice(Notice::TokenWanted(_)) => self.inputs.push(Input::Token(self.token.clone())),
            Output::Notice(notice) => drop(self.tell.send(notice)),
            Output::Timeout(due) => self.timeout = Some(due),
            Output::Broken(reason) => panic!("{reason}"),
            _ => {}
        }
    }

    async fn send(&mut self, bytes: Vec<u8>) {
        let Some(socket) = &mut self.socket else { return };
        self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if socket.send(Message::Binary(bytes.into())).await.is_err() {
            self.socket = None;
            self.inputs.push(Input::SocketClosed("sending failed".into()));
        }
    }
}

/// The next binary frame; none when the socket is over. Without a socket it never returns.
async fn receive(socket: &mut Option<Socket>) -> Option<Vec<u8>> {
    let Some(socket) = socket else { return std::future::pending().await };
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(bytes))) => return Some(bytes.to_vec()),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
            Some(Ok(_)) => {}
        }
    }
}
