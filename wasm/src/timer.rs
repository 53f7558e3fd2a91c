//! Time-outs by `setTimeout`, in windows, workers and Node alike.
//!
//! Browsers stretch the timers of hidden pages to a second, then to a minute; whoever waits compares the clock when it
//! wakes and never counts ticks.

use std::cell::Cell;
use std::rc::Rc;

use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen]
extern "C" {
    // The handle is a number in browsers and an object in Node.
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(handler: &js_sys::Function, delay_ms: i32) -> JsValue;
    #[wasm_bindgen(js_name = clearTimeout)]
    fn clear_timeout(handle: &JsValue);
}

/// One alarm. Setting it again replaces the earlier moment; dropping it silences it.
pub(crate) struct Timer {
    pending: Rc<Cell<Option<JsValue>>>,
    on_due: Closure<dyn FnMut()>,
}

impl Timer {
    /// An alarm that calls `ring` each time a moment that was set has come, at the earliest in the next task. It may
    /// ring early when the moment is further away than `setTimeout` reaches.
    pub(crate) fn new(ring: impl Fn() + 'static) -> Self {
        let pending: Rc<Cell<Option<JsValue>>> = Rc::default();
        let on_due = Closure::new({
            let pending = Rc::clone(&pending);
            move || {
                pending.set(None);
                ring();
            }
        });
        Timer { pending, on_due }
    }

    /// Rings in `delay_ms` milliseconds instead of when it was to ring before.
    pub(crate) fn set(&self, delay_ms: u64) {
        self.clear();
        let delay_ms = i32::try_from(delay_ms).unwrap_or(i32::MAX);
        let handle = set_timeout(self.on_due.as_ref().unchecked_ref(), delay_ms);
        self.pending.set(Some(handle));
    }

    /// Does not ring any more until it is set again.
    pub(crate) fn clear(&self) {
        if let Some(handle) = self.pending.take() {
            clear_timeout(&handle);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Resolves after `delay_ms` milliseconds, or later.
pub(crate) async fn sleep(delay_ms: u32) {
    let promise = js_sys::Promise::new(&mut |resolve, _reject| {
        set_timeout(&resolve, i32::try_from(delay_ms).unwrap_or(i32::MAX));
    });
    // The promise is never rejected.
    let _ = JsFuture::from(promise).await;
}
