//! Asking the browser to keep what is stored: `navigator.storage.persist()`.
//!
//! Chromium and Safari decide without a prompt, Firefox asks the user; so it is asked once, when there is work that only
//! this device holds. The answer is shown, nothing depends on it.

use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

/// Whether the browser promises not to evict this origin; `None` where it cannot be asked.
pub(crate) async fn request_persistence() -> Option<bool> {
    let get = |object: &JsValue, name: &str| js_sys::Reflect::get(object, &name.into()).ok().filter(JsValue::is_object);
    let storage = get(&get(&js_sys::global(), "navigator")?, "storage")?;
    let persist = js_sys::Reflect::get(&storage, &"persist".into()).ok()?;
    let persist: &js_sys::Function = persist.dyn_ref()?;
    let promise: js_sys::Promise = persist.call0(&storage).ok()?.dyn_into().ok()?;
    JsFuture::from(promise).await.ok()?.as_bool()
}
