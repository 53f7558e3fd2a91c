//! The board these stories are about, and the server they run against.

use std::sync::Arc;

use driftlog_core::draft::{Draft, DraftFieldOp, DraftOp};
use driftlog_core::engine::Engine;
use driftlog_core::id::{LogName, Name, RecordId};
use driftlog_core::rich::Splice;
use driftlog_core::sequencer::{AllowAll, Policy};
use driftlog_core::value::Value;
use driftlog_core::view::{CollectionSchema, FieldSchema, Query, Schema, Strategy};
use driftlog_server::{Access, Claims, Config, LogClaim, Right, Secret, ServeError, serve, token};
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) fn log() -> LogName {
    LogName::new("board/1").unwrap()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn schema() -> Schema {
    let field = |strategy| FieldSchema { strategy, default: None };
    let fields = [
        ("title", Strategy::Register),
        ("votes", Strategy::Counter),
        ("tags", Strategy::Set),
        ("note", Strategy::Text),
    ];
    let fields = fields.into_iter().map(|(field_name, strategy)| (name(field_name), field(strategy))).collect();
    Schema { collections: [(name("todos"), CollectionSchema { single: false, fields })].into() }
}

fn draft(action: &str, op: DraftOp) -> Draft {
    Draft { name: name(action), args: None, ops: vec![op], lifetime_ms: None }
}

pub(crate) fn add(id: &str, note: &str) -> Draft {
    let fields = vec![
        (name("title"), DraftFieldOp::Set(Value::text(id))),
        (name("note"), DraftFieldOp::InitialText(note.to_owned())),
    ];
    draft("addTodo", DraftOp::Insert(name("todos"), RecordId::new(id).unwrap(), fields))
}

fn update(action: &str, id: &str, field: &str, op: DraftFieldOp) -> Draft {
    draft(action, DraftOp::Update(name("todos"), RecordId::new(id).unwrap(), name(field), op))
}

pub(crate) fn vote(id: &str, by: i64) -> Draft {
    update("vote", id, "votes", DraftFieldOp::Increment(by))
}

pub(crate) fn tag(id: &str, tag: &str) -> Draft {
    update("tag", id, "tags", DraftFieldOp::Add(vec![Value::text(tag)]))
}

pub(crate) fn splice(id: &str, at: usize, delete: usize, insert: &str) -> Draft {
    let splice = Splice { at, delete, insert: insert.to_owned() };
    update("type", id, "note", DraftFieldOp::Splice(vec![splice]))
}

/// The rows in view, by id.
pub(crate) fn rows(engine: &mut Engine) -> Vec<Json> {
    let (view, visible) = engine.replica(&log()).unwrap().view_mut().unwrap();
    let rows = view.select(visible, Query::all(name("todos"))).unwrap();
    rows.iter()
        .map(|row| {
            let mut row: Json = driftlog_core::codec::from_bytes(row.as_bytes()).unwrap();
            row.as_object_mut().unwrap().remove("$");
            row
        })
        .collect()
}

pub(crate) fn titles(engine: &mut Engine) -> Vec<String> {
    rows(engine).iter().map(|row| row["title"].as_str().unwrap().to_owned()).collect()
}

/// End of the confirmed prefix in view.
pub(crate) fn end(engine: &mut Engine) -> u64 {
    engine.replica(&log()).unwrap().state().cursor().next.0
}

/// A server in this process, on a port and a directory of its own.
pub(crate) struct Server {
    address: String,
    directory: TempDir,
    policy: Arc<dyn Policy>,
    access: fn() -> Access,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(|| Access::Development, AllowAll).await
    }

    pub(crate) async fn start_with_policy(policy: impl Policy + 'static) -> Self {
        Self::start_with(|| Access::Development, policy).await
    }

    /// A server that wants the tokens of [`token_for`].
    pub(crate) async fn start_with_tokens() -> Self {
        Self::start_with(|| Access::Tokens(secret()), AllowAll).await
    }

    async fn start_with(access: fn() -> Access, policy: impl Policy + 'static) -> Self {
        let directory = TempDir::new().unwrap();
        let policy: Arc<dyn Policy> = Arc::new(policy);
        let (address, stop, task) = begin(&directory, access(), Arc::clone(&policy)).await;
        Self { address, directory, policy, access, stop: Some(stop), task }
    }

    /// Stops in good order and serves the same data again, on another port.
    pub(crate) async fn restart(&mut self) {
        drop(self.stop.take());
        (&mut self.task).await.unwrap().unwrap();
        let (address, stop, task) = begin(&self.directory, (self.access)(), Arc::clone(&self.policy)).await;
        (self.address, self.stop, self.task) = (address, Some(stop), task);
    }

    pub(crate) fn sync_url(&self) -> String {
        format!("ws://{}/sync", self.address)
    }

    /// `GET /logs/board%2F1/snapshot`.
    pub(crate) async fn snapshot(&self) -> Json {
        self.get().await["collections"].clone()
    }

    /// The log's end at the server, once it is as asked; fails after a minute.
    pub(crate) async fn end_after(&self, enough: impl Fn(u64) -> bool) -> u64 {
        for _ in 0..6_000 {
            let end = self.get().await["end"].as_u64().unwrap();
            if enough(end) {
                return end;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("the server's log never came so far");
    }

    /// What the server says of its connections.
    pub(crate) async fn connections(&self) -> Vec<Json> {
        let answer: Json = serde_json::from_str(&self.ask("GET", "/connections").await).unwrap();
        answer["connections"].as_array().unwrap().clone()
    }

    /// Downgrades a connection by its number.
    pub(crate) async fn downgrade(&self, connection: u64, away_ms: u64) {
        self.ask("POST", &format!("/connections/{connection}/downgrade?away_ms={away_ms}")).await;
    }

    async fn get(&self) -> Json {
        let body = self.ask("GET", "/logs/board%2F1/snapshot").await;
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    async fn ask(&self, method: &str, path: &str) -> String {
        let mut socket = TcpStream::connect(&self.address).await.unwrap();
        let head = "Host: localhost\r\nContent-Length: 0\r\nConnection: close";
        socket.write_all(format!("{method} {path} HTTP/1.1\r\n{head}\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        body.to_owned()
    }
}

fn secret() -> Secret {
    Secret::new([42; 32]).unwrap()
}

/// A token of alice with these rights to every log.
pub(crate) fn token_for(rights: &[Right]) -> String {
    let logs = vec![LogClaim { pattern: "*".to_owned(), rights: rights.to_vec() }];
    token(&secret(), &Claims { sub: "alice".to_owned(), logs, exp: 4_000_000_000 })
}

type Begun = (String, oneshot::Sender<()>, JoinHandle<Result<(), ServeError>>);

async fn begin(directory: &TempDir, access: Access, policy: Arc<dyn Policy>) -> Begun {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut config = Config::new(directory.path(), access);
    config.policy = policy;
    let task = tokio::spawn(serve(listener, config, async {
        let _ = stopped.await;
    }));
    (address, stop, task)
}
