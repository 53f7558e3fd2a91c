//! What is particular about IndexedDB in Chromium, where all databases of an origin are one LevelDB.
//!
//! LevelDB appends a transaction to its log by two writes, a header and a payload. A browser that is killed between
//! them leaves half a record at the end of the log. The next start takes it for the end and, since Chromium sets
//! `reuse_logs`, goes on behind it ([leveldb#1287](https://github.com/google/leveldb/issues/1287)); the start after
//! that finds bytes that do not match their checksum, and Chromium **deletes every database of the origin**, with all
//! that was stored before and since. So nothing may be stored behind half a record: whenever a database was opened, the
//! log is rolled ([`roll_log`]). Where the databases were deleted all the same, Chromium says so to whoever opens one
//! first ([`data_loss`]), and to nobody else.

use indexed_db_futures::database::Database;
use indexed_db_futures::error::OpenDbError;
use js_sys::Reflect;
use wasm_bindgen::JsValue;

/// A database that is only made to be deleted. All clients of an origin may share it.
const SCRATCH: &str = "driftlog-scratch";

/// Whether IndexedDB is Chromium's: no other browser has this property.
pub(super) fn is_here() -> bool {
    let event = property(&js_sys::global(), "IDBVersionChangeEvent");
    let prototype = event.and_then(|event| property(&event, "prototype"));
    prototype.is_some_and(|prototype| Reflect::has(&prototype, &JsValue::from_str("dataLoss")) == Ok(true))
}

/// Has LevelDB begin a new log, as a rule. It does so when it compacts, and Chromium has it compact, a few milliseconds
/// later, when a database that existed was deleted. Where the compaction waits behind a write that waits itself, LevelDB
/// takes the two for one write, and begins no log.
///
/// # Errors
/// What the browser says; the old log goes on.
pub(super) async fn roll_log() -> Result<(), OpenDbError> {
    Database::open(SCRATCH).await?.close();
    Database::delete_by_name(SCRATCH)?.await?;
    Ok(())
}

/// During an `upgradeneeded` event of a page (workers do not say what event they are in): what Chromium says of the
/// databases that it deleted before, if it did.
pub(super) fn data_loss() -> Option<String> {
    let event = property(&js_sys::global(), "event")?;
    let lost = property(&event, "dataLoss")?.as_string()?;
    (lost != "none").then(|| property(&event, "dataLossMessage")?.as_string())?
}

fn property(of: &JsValue, name: &str) -> Option<JsValue> {
    Reflect::get(of, &JsValue::from_str(name)).ok().filter(|value| !value.is_undefined() && !value.is_null())
}
