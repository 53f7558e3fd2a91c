//! The Driftlog sync server: a durable log behind WebSocket, in one process with one SQLite file.
//!
//! ```text
//!  socket ⇄ conversation (ServerSession of core) ─► gate ─► writer thread ──► SQLite (one flush, many pushes)
//!                 ▲                                  ⇅             │ after the commit: verdicts
//!                 │                          worker processes      │
//!                 └── feeds: newest entries, wake-ups ◄────────────┘
//! ```
//!
//! What is decided is decided in `driftlog-core`; this crate moves bytes, commits and wakes. [`serve`] runs a server on
//! a listener until it is told to stop; [`stepped`] is the same server without sockets, threads and clock.

mod auth;
mod config;
mod connection;
mod connections;
mod conversation;
mod dead_letters;
mod environment;
mod erasing;
mod fanout;
mod gate;
mod ledger;
mod materialize;
mod presence;
mod purge;
mod retention;
mod room;
mod router;
mod rules;
mod snapshot;
mod static_files;
pub mod stepped;
mod store;
mod verify;
mod writer;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

pub use auth::{Claims, LogClaim, Right, Secret, SecretError, token};
pub use config::{Access, Config, ConnectionBounds, DeadLetterBounds, ROOM_BYTES, WaitBounds, duration};
pub use connections::listing::connections;
pub use dead_letters::{DeadLetters, Include, LetterError, Listing};
pub use erasing::{EraseError, Erased};
pub use gate::{Gate, GateWorkers, Inspect, gate_worker};
pub use retention::{Keep, Retention, RetentionError, RetentionRule};
pub use rules::{Rules, RulesError};
pub use store::StoreError;
pub use verify::{Finding, Report, verify};

use connections::Connections;
use conversation::Sessions;
use environment::{Environment, System};
use fanout::Feeds;
use ledger::Ledger;
use presence::Presences;
use retention::Pins;
use room::Room;
use snapshot::Maker;
use store::{ReadPool, Store};
use writer::{LogWriter, Request, WriterHandle};

/// Reads of the store that run at once.
const READS_MAX: usize = 8;

/// Why a server ended, or did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Mend the disk or the data directory, then start again; nothing acknowledged is lost.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Listen on loopback, or use tokens.
    #[error("development mode serves loopback only, and {0} is not; set a secret file instead")]
    NotLoopback(std::net::SocketAddr),
    /// The system refused a socket or a thread.
    #[error(transparent)]
    System(#[from] std::io::Error),
}

/// What every conversation shares.
pub(crate) struct Shared {
    config: Config,
    environment: Arc<dyn Environment>,
    writer: WriterHandle,
    room: Arc<Room>,
    gate: gate::Stage,
    feeds: Arc<Feeds>,
    pool: Arc<ReadPool>,
    pins: Arc<Pins>,
    sessions: Sessions,
    connections: Arc<Connections>,
    presences: Presences,
    letters_dropped: Arc<AtomicU64>,
    /// Where erases are written down; none where whoever runs the server does it.
    ledger: Option<Arc<Ledger>>,
}

/// What every socket shares besides.
pub(crate) struct Shell {
    shared: Arc<Shared>,
    reads: Arc<Semaphore>,
    ending: watch::Receiver<bool>,
    /// Held by every connection; when the last is gone, the server may end.
    alive: mpsc::Sender<std::convert::Infallible>,
}

/// Serves on one listener until `shutdown` completes; then commits, acknowledges and says go-away.
///
/// # Errors
/// [`ServeError`]: it did not start, or its store failed.
pub async fn serve(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    serve_all(vec![listener], config, shutdown).await
}

/// Serves on several listeners; see [`serve`].
///
/// # Errors
/// [`ServeError`]: it did not start, or its store failed.
pub async fn serve_all(
    listeners: Vec<TcpListener>,
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    if matches!(config.access, Access::Development) {
        for listener in &listeners {
            let address = listener.local_addr()?;
            if !address.ip().is_loopback() {
                return Err(ServeError::NotLoopback(address));
            }
        }
    }
    let store = Store::open(&config.directory, config.vfs.as_deref())?;
    let opened = config.ledger().map(|path| Ledger::open(&path)).transpose()?;
    let (ledger, orders) = opened.map(|(ledger, orders)| (Arc::new(ledger), orders)).unzip();
    let (failed, mut store_failed) = oneshot::channel();
    let feeds = Arc::new(Feeds::new(config.tail_bytes, config.tails_bytes));
    let environment: Arc<dyn Environment> = Arc::new(System::new());
    let writer_store = store.writer()?;
    let pool = Arc::new(ReadPool::new(store));
    let (jobs, waiting) = snapshot::jobs();
    let (writer, requests) = WriterHandle::new();
    let log_writer = LogWriter::new(&config, Arc::clone(&environment), jobs);
    let letters_dropped = log_writer.letters_dropped();
    let thread = writer::start(log_writer, writer_store, requests, Arc::clone(&feeds), failed)?;
    // Before anybody is served: what was put back from a backup is erased again.
    for order in orders.into_iter().flatten() {
        writer.send(Request::Erase(order, oneshot::channel().0));
    }
    let pins = Arc::<Pins>::default();
    let maker = Maker {
        rerooting: config.rerooting,
        pool: Arc::clone(&pool),
        environment: Arc::clone(&environment),
        retention: config.retention.clone(),
        pins: Arc::clone(&pins),
    };
    maker.start(waiting, writer.clone())?;
    let (end, ending) = watch::channel(false);
    let (alive, mut all_gone) = mpsc::channel(1);
    let sessions = Sessions::default();
    let active = pool.read(|reads| reads.active_connections())?;
    let given = Arc::clone(&environment);
    let connections = Arc::new(Connections::new(&config.connections, given, writer.clone(), active));
    let sweeps = connections::start(Arc::clone(&connections), Arc::clone(&pool), config.connections.sweep);
    let purges = purge::start(writer.clone(), config.purge);
    let gate = gate::Stage::new(&config.gate, writer.clone());
    let room = Room::new(config.room_bytes);
    let writer_of_all = writer.clone();
    let shared = Arc::new(Shared {
        config,
        environment,
        writer: writer_of_all,
        room,
        gate,
        feeds,
        pool,
        pins,
        sessions,
        connections,
        presences: Presences::default(),
        letters_dropped,
        ledger,
    });
    let reads = Arc::new(Semaphore::new(READS_MAX));
    let router = router::router(Arc::new(Shell { shared, reads, ending: ending.clone(), alive }));
    let servers: Vec<_> = listeners
        .into_iter()
        .map(|listener| tokio::spawn(router::run(listener, router.clone(), ending.clone())))
        .collect();
    drop(router);

    let outcome = tokio::select! {
        () = shutdown => Ok(()),
        error = &mut store_failed => Err(error.map_err(|_| StoreError::corrupt("writer", "it ended by itself"))),
    };
    let _ = end.send(true);
    sweeps.abort();
    purges.abort();
    match outcome {
        Ok(()) => {
            for server in servers {
                let _ = server.await;
            }
            // Every connection has sent what it owed, or was given up.
            let _ = all_gone.recv().await;
            writer.send(Request::Stop);
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
            match store_failed.try_recv() {
                Ok(error) => Err(error.into()),
                Err(_) => Ok(()),
            }
        }
        Err(error) => {
            servers.iter().for_each(tokio::task::JoinHandle::abort);
            Err(error.unwrap_or_else(|error| error).into())
        }
    }
}
