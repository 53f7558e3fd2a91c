//! What only the browser tests call. Compiled with the cargo feature `testing`, never published.

use std::cell::RefCell;
use std::rc::Rc;

use driftlog_core::id::LogName;
use driftlog_core::witness::Work;
use wasm_bindgen::prelude::*;

use crate::entropy;
use crate::page::Page;
use crate::socket::Socket;
use crate::store::conformance;
use crate::store::indexeddb::IndexedDbStore;
use crate::store::memory::MemoryStore;
use crate::store::{CommitError, Durability, KeyRange, LocalStore, Store, StoreError, Write};
use crate::tabs::Tabs;

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
    check(put(1).await.is_ok(), "the first commit failed")?;
    store.sever();
    check(put(2).await.is_ok(), "a commit on a severed handle was not repeated")?;
    store.sever();
    let rows = store.read(&[KeyRange::only(vec![1])]).await.map_err(fail)?;
    check(rows[0] == [(vec![1], vec![2])], "a read on a severed handle was not repeated")?;

    let factory = indexed_db_futures::database::Database::delete_by_name(&name);
    let deletion = factory.map_err(|error| JsValue::from_str(&error.to_string()))?;
    deletion.await.map_err(|error| JsValue::from_str(&error.to_string()))?;
    check(
        store.read(&[KeyRange::only(vec![1])]).await == Err(StoreError::Closed),
        "a deleted database was opened again",
    )?;
    check(put(3).await == Err(CommitError::Store(StoreError::Closed)), "a deleted database was written to")?;
    Ok("the store survives a lost connection and obeys a deletion".to_owned())
}

/// Commits `commits` groups of `bytes` bytes one after the other and resolves to the milliseconds it took.
#[wasm_bindgen]
pub async fn store_speed(name: String, strict: bool, commits: u32, bytes: u32) -> Result<f64, JsValue> {
    let fail = |error: String| JsValue::from_str(&error);
    let durability = if strict { Durability::Strict } else { Durability::Relaxed };
    let store = IndexedDbStore::open(&name).await.map_err(|error| fail(error.to_string()))?;
    let start = js_sys::Date::now();
    for n in 0..commits {
        let row = Write::Add([&[9], n.to_be_bytes().as_slice()].concat(), vec![7; bytes as usize]);
        store
            .commit(durability, &[vec![1], vec![2]], |_| Ok::<_, ()>((vec![row], ())))
            .await
            .map_err(|error| fail(format!("{error:?}")))?;
    }
    Ok(js_sys::Date::now() - start)
}

/// One tab of an election, with a log of what happened to it.
#[wasm_bindgen]
pub struct TestTab {
    tabs: Tabs,
    events: Rc<RefCell<Vec<String>>>,
    _page: Page,
}

#[wasm_bindgen]
impl TestTab {
    /// Joins the tabs of the client `name` as the tab `id`.
    pub async fn join(name: String, id: u8) -> Result<TestTab, JsValue> {
        let store = IndexedDbStore::open(&name).await.map_err(|error| JsValue::from_str(&error.to_string()))?;
        let events: Rc<RefCell<Vec<String>>> = Rc::default();
        let log = |events: &Rc<RefCell<Vec<String>>>| {
            let events = Rc::clone(events);
            move |event: String| events.borrow_mut().push(event)
        };
        let (on_tab, on_page) = (log(&events), log(&events));
        let store = LocalStore::IndexedDb(store);
        let tabs = Tabs::join(&name, [id; 8], store, move |event| {
            on_tab(format!("{event:?}"));
        });
        let page = Page::watch(move |event| on_page(format!("{event:?}")));
        Ok(TestTab { tabs, events, _page: page })
    }

    /// How the tabs elect their leader.
    pub fn mode(&self) -> String {
        format!("{:?}", self.tabs.mode())
    }

    /// Stands for election.
    pub fn campaign(&self) {
        self.tabs.campaign();
    }

    /// Withdraws.
    pub fn withdraw(&self) {
        self.tabs.withdraw();
    }

    /// Tells the other tabs a hint.
    pub fn hint(&self, hint: &[u8]) {
        self.tabs.hint(hint);
    }

    /// What happened so far.
    pub fn events(&self) -> Vec<String> {
        self.events.borrow().clone()
    }
}

/// A socket with a log of what happened to it.
#[wasm_bindgen]
pub struct TestSocket {
    socket: Socket,
    events: Rc<RefCell<Vec<String>>>,
}

#[wasm_bindgen]
impl TestSocket {
    /// Opens a socket.
    pub fn open(url: &str, generation: u32) -> Result<TestSocket, JsValue> {
        let events: Rc<RefCell<Vec<String>>> = Rc::default();
        let log = Rc::clone(&events);
        let sink = Rc::new(move |generation, event| {
            log.borrow_mut().push(format!("{generation} {event:?}"));
        });
        let socket =
            Socket::open(url, u64::from(generation), sink).map_err(|error| JsValue::from_str(&error.to_string()))?;
        Ok(TestSocket { socket, events })
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) {
        self.socket.send(frame);
    }

    /// Bytes waiting in the browser.
    pub fn buffered(&self) -> u32 {
        self.socket.buffered_bytes()
    }

    /// What happened so far.
    pub fn events(&self) -> Vec<String> {
        self.events.borrow().clone()
    }
}

/// Commits random rows of 64 kB until the store refuses, and resolves to how it refused.
#[wasm_bindgen]
pub async fn store_fill(name: String, rows_max: u32) -> Result<String, JsValue> {
    let store = IndexedDbStore::open(&name).await.map_err(|error| JsValue::from_str(&error.to_string()))?;
    for n in 0..rows_max {
        let bytes: [u8; 65_536] = entropy::bytes().map_err(|error| JsValue::from_str(&error.to_string()))?;
        let row = Write::Put([&[3], n.to_be_bytes().as_slice()].concat(), bytes.to_vec());
        if let Err(error) = store.commit(Durability::Strict, &[], |_| Ok::<_, ()>((vec![row], ()))).await {
            return Ok(format!("{error:?}"));
        }
    }
    Ok("not full".to_owned())
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
