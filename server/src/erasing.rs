//! Erasing as an operator does it: an order is looked up, written to the ledger, and handed to the writer; and what is
//! listed of erases that were ordered, with the clients that cannot have heard of them.

use std::sync::Arc;

use driftlog_core::id::{LogName, Name, RecordId, UserId};
use driftlog_core::op::Erase;
use driftlog_core::time::WallMs;
use serde_json::{Value as Json, json};
use tokio::sync::oneshot;

use crate::connections::listing;
use crate::environment::{Environment, entropy};
use crate::ledger::{Ledger, Order, Target};
use crate::store::{ErasureRow, LogRow, Reads, StoreError};
use crate::writer::{Ordered, Request};
use crate::{Shared, connections::Connections};

/// What an operator names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Erased {
    /// Everything in a log.
    Log(LogName),
    /// A record of a log, by its collection and id.
    Record(LogName, Name, RecordId),
    /// What a user did, in every log, and who it was.
    Author(UserId),
}

/// Nothing was erased.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EraseError {
    /// Look at the name: this server knows nothing of the kind.
    #[error("there is no such log or user")]
    Unknown,
    /// Say a log, a log with a collection and a record, or an author.
    #[error("{0}")]
    Asked(String),
    /// The ledger cannot be written: mend the disk. Nothing has happened yet.
    #[error("the ledger of erases cannot be written: {0}")]
    Ledger(#[from] std::io::Error),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server is ending. The ledger has the order: the next start carries it out.
    #[error("the server ends; it erases with its next start")]
    Ending,
}

impl Erased {
    /// What a query names.
    ///
    /// # Errors
    /// [`EraseError::Asked`].
    pub(crate) fn asked(
        log: Option<&str>,
        collection: Option<&str>,
        record: Option<&str>,
        author: Option<&str>,
    ) -> Result<Self, EraseError> {
        let wrong = |error: driftlog_core::id::InvalidName| EraseError::Asked(error.to_string());
        match (log, collection, record, author) {
            (Some(log), None, None, None) => Ok(Self::Log(LogName::new(log).map_err(wrong)?)),
            (Some(log), Some(collection), Some(record), None) => Ok(Self::Record(
                LogName::new(log).map_err(wrong)?,
                Name::new(collection).map_err(wrong)?,
                RecordId::new(record).map_err(wrong)?,
            )),
            (None, None, None, Some(author)) => Ok(Self::Author(UserId::new(author).map_err(wrong)?)),
            _ => Err(EraseError::Asked("say a log, a log with a collection and a record, or an author".to_owned())),
        }
    }

    /// What the ledger is to say of it; none if there is nothing of the kind here.
    fn target(self, reads: Reads<'_>) -> Result<Option<Target>, StoreError> {
        Ok(match self {
            Self::Log(log) => reads.log(&log)?.map(|_| Target::Log(log)),
            Self::Record(log, collection, record) => reads.log(&log)?.map(|_| Target::Record(log, collection, record)),
            Self::Author(user) => {
                let actors = reads.actors_of(&user)?;
                (!actors.is_empty() && !user.is_reserved()).then_some(Target::Authors(actors))
            }
        })
    }
}

/// Looks up what is named and writes the order to the ledger. It blocks. When this returns, the order is durable.
pub(crate) fn order(
    reads: Reads<'_>,
    environment: &dyn Environment,
    ledger: Option<&Ledger>,
    erased: Erased,
) -> Result<Order, EraseError> {
    let target = erased.target(reads)?.ok_or(EraseError::Unknown)?;
    let order = Order { request: entropy(environment), target, at: environment.now() };
    if let Some(ledger) = ledger {
        ledger.write(&order)?;
    }
    Ok(order)
}

/// Erases: returns when the log says so durably. From then on nobody reads it from this server but who was being sent
/// it; the rows go in the background.
pub(crate) async fn erase(shared: &Arc<Shared>, erased: Erased) -> Result<Json, EraseError> {
    let blocking = Arc::clone(shared);
    let ordering = move || {
        let Shared { pool, environment, ledger, .. } = &*blocking;
        let mut outcome = Err(EraseError::Ending);
        pool.read(|reads| {
            outcome = order(reads, &**environment, ledger.as_deref(), erased);
            Ok(())
        })?;
        outcome
    };
    let order = tokio::task::spawn_blocking(ordering).await.map_err(|_| EraseError::Ending)??;
    let (reply, answer) = oneshot::channel();
    let (request, target) = (order.request, order.target.clone());
    shared.writer.send(Request::Erase(order, reply));
    let Ordered { logs } = answer.await.map_err(|_| EraseError::Ending)?;
    if let Target::Authors(actors) = &target {
        shared.sessions.end_all(actors);
    }
    Ok(json!({ "request": hex(&request), "logs": logs }))
}

/// Every erase that was ordered, as JSON, each with how many clients were not seen since.
pub(crate) fn list(reads: Reads<'_>, connections: Option<&Connections>) -> Result<Json, StoreError> {
    let seen = last_seen(reads, connections)?;
    let erasures = reads.erasures(false)?.into_iter().filter(|row| row.request.is_some());
    let erasures = erasures.map(|row| {
        let log = reads.log_of_key(row.log)?;
        let waiting = seen.iter().filter(|(at, _)| *at < row.at).count();
        Ok(erasure(&row, &log, waiting))
    });
    let erasures = erasures.collect::<Result<Vec<_>, StoreError>>()?;
    Ok(json!({ "erasures": erasures }))
}

/// The clients that were not seen since the last erase, and may still hold what was erased, the longest away first.
pub(crate) fn waiting(reads: Reads<'_>, connections: Option<&Connections>) -> Result<Json, StoreError> {
    let last = reads.erasures(false)?.iter().map(|row| row.at).max().unwrap_or(0);
    let mut clients = last_seen(reads, connections)?;
    clients.retain(|(seen, _)| *seen < last);
    clients.sort_by_key(|(seen, _)| *seen);
    let clients: Vec<_> = clients.into_iter().map(|(_, client)| client).collect();
    Ok(json!({ "clients": clients, "at_ms": last }))
}

/// When each client was seen last, by what the store and the running server know; one that is connected is seen now.
fn last_seen(reads: Reads<'_>, connections: Option<&Connections>) -> Result<Vec<(WallMs, Json)>, StoreError> {
    let (mut all, mut after) = (Vec::new(), Some(0));
    while let Some(behind) = after {
        let page = listing::page(reads, connections, behind, false)?;
        for client in page["connections"].as_array().into_iter().flatten() {
            let live = client["live"].as_bool() == Some(true);
            let seen = if live { WallMs::MAX } else { client["seen_ms"].as_u64().unwrap_or(0) };
            let known = ["connection", "user", "client", "device", "seen_ms"];
            all.push((seen, known.iter().map(|key| ((*key).to_owned(), client[*key].clone())).collect()));
        }
        after = page["next"].as_u64();
    }
    Ok(all)
}

fn erasure(row: &ErasureRow, log: &LogRow, waiting: usize) -> Json {
    let what = match &row.what {
        Erase::Record((collection, record)) => {
            json!({ "collection": collection.as_str(), "record": record.as_str() })
        }
        Erase::Authors(authors) => json!({ "authors": authors.iter().map(ToString::to_string).collect::<Vec<_>>() }),
        Erase::Log(()) | Erase::Late(()) | Erase::Unknown(..) => json!({}),
    };
    let request = row.request.as_ref().map(hex);
    json!({
        "request": request, "log": log.name.as_str(), "offset": row.offset, "what": what, "at_ms": row.at,
        "done_ms": row.done, "clients_waiting": waiting,
    })
}

fn hex(bytes: &[u8; 16]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
