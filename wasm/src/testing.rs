//! What only the browser tests call. Compiled with the cargo feature `testing`, never published.

use std::cell::RefCell;
use std::rc::Rc;

use driftlog_core::id::LogName;
use driftlog_core::witness::Work;
use indexed_db_futures::database::Database;
use wasm_bindgen::prelude::*;

use crate::socket::{Socket, SocketEvent};
use crate::store::conformance;
use crate::store::indexeddb::IndexedDbStore;
use crate::store::memory::MemoryStore;
use crate::store::{CommitError, Durability, KeyRange, Store, StoreError, Write};

/// Runs the conformance suite on the store of this kind (`indexeddb` or `memory`); `name` is a database that does not
/// exist yet. Resolves to a sentence, rejects with the first check that failed.
#[wasm_bindgen]
pub async fn store_conformance(kind: String, name: String) -> Result<String, JsValue> {
    let outcome = match kind.as_str() {
        "memory" => {
            let rows = MemoryStore::default();
            conformance::run(async |_check| Ok(rows.sibling())).await
        }
        "indexeddb" => conformance::run(async |_check| IndexedDbStore::open(&name).await).await,
        _ => return Err(JsValue::from_str("no such store")),
    };
    let passed = outcome.map_err(|broken| JsValue::from_str(&broken.to_string()))?;
    Ok(format!("{passed} of {} checks passed", conformance::CHECKS))
}

/// Loses the connection of an IndexedDB store in several ways and checks that it comes back, or stays closed when the
/// database was deleted.
#[wasm_bindgen]
pub async fn store_connection_loss(name: String) -> Result<String, JsValue> {
    let fail = |error: StoreError| JsValue::from_str(&error.to_string());
    let store = IndexedDbStore::open(&name).await.map_err(fail)?;
    let put = async |n: u8| {
        store.commit(Durability::Strict, &[vec![1]], |_| Ok::<_, ()>((vec![Write::Put(vec![1], vec![n])], ()))).await
    };
    let check = |found: bool, what: &str| {
        if found { Ok(()) } else { Err(JsValue::from_str(what)) }
    };
    let delete = async || {
        let deletion = Database::delete_by_name(&name).map_err(|error| JsValue::from_str(&error.to_string()))?;
        deletion.await.map_err(|error| JsValue::from_str(&error.to_string()))
    };
    check(put(1).await.is_ok(), "the first commit failed")?;
    store.sever();
    check(put(2).await.is_ok(), "a commit on a severed handle was not repeated")?;
    store.sever();
    let rows = store.read(&[KeyRange::only(vec![1])]).await.map_err(fail)?;
    check(rows[0] == [(vec![1], vec![2])], "a read on a severed handle was not repeated")?;

    delete().await?;
    check(
        store.read(&[KeyRange::only(vec![1])]).await == Err(StoreError::Closed),
        "a deleted database was opened again",
    )?;
    check(put(3).await == Err(CommitError::Store(StoreError::Closed)), "a deleted database was written to")?;

    let store = IndexedDbStore::open(&name).await.map_err(fail)?;
    check(store.lost().is_none(), "the browser is said to have lost what an app deleted")?;
    store.sever();
    delete().await?;
    check(
        store.read(&[KeyRange::only(vec![1])]).await == Err(StoreError::Closed),
        "a database that was deleted while the connection was lost was taken for an empty one",
    )?;
    Ok("the store survives a lost connection and obeys a deletion".to_owned())
}

/// A socket with a log of what happened to it: of frames their generation and type.
#[wasm_bindgen]
pub struct TestSocket {
    _socket: Socket,
    events: Rc<RefCell<Vec<String>>>,
}

#[wasm_bindgen]
impl TestSocket {
    /// Opens a socket.
    pub fn open(url: &str, generation: u32) -> Result<TestSocket, JsValue> {
        let events: Rc<RefCell<Vec<String>>> = Rc::default();
        let log = Rc::clone(&events);
        let sink = Rc::new(move |generation, event| {
            log.borrow_mut().push(match event {
                SocketEvent::Frame(bytes) => {
                    format!("{generation} Frame {}", bytes.get(5).copied().unwrap_or_default())
                }
                event => format!("{generation} {event:?}"),
            });
        });
        let socket =
            Socket::open(url, u64::from(generation), sink).map_err(|error| JsValue::from_str(&error.to_string()))?;
        Ok(TestSocket { _socket: socket, events })
    }

    /// What happened so far.
    pub fn events(&self) -> Vec<String> {
        self.events.borrow().clone()
    }
}

#[wasm_bindgen]
extern "C" {
    /// The page's word on whether this instance traps now, where a test gave the page a say.
    #[wasm_bindgen(js_namespace = globalThis, js_name = driftlogTraps, catch)]
    fn driftlog_traps(log: &str, kind: &str, at: &str) -> Result<bool, JsValue>;
}

/// Traps for real if the page says so: called before each piece of work that belongs to an entry.
pub(crate) fn trap_if_asked(log: &LogName, work: Option<Work>) {
    let (kind, at) = match work {
        None => return,
        Some(Work::Own(write)) => ("own", write.to_string()),
        Some(Work::Confirmed(offset)) => ("confirmed", offset.to_string()),
        Some(Work::Snapshot(())) => ("snapshot", String::new()),
    };
    if driftlog_traps(log.as_str(), kind, &at) == Ok(true) {
        #[cfg(target_arch = "wasm32")]
        core::arch::wasm32::unreachable();
    }
}
