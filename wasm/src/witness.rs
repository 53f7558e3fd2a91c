//! What is left when this instance traps: JavaScript knows what it was working on, and can let go of what it held.
//!
//! After a trap nothing of an instance may run. So whatever holds on to the world outside (a socket, a lock, a
//! connection to the database) leaves a way to let go of it that needs no wasm, and core says what it works on before
//! it does. `ts/witness.ts` is the other side.

use std::cell::RefCell;

use driftlog_core::id::LogName;
use driftlog_core::witness::{self, Work};
use js_sys::Function;
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    /// `Witness` of `ts/witness.ts`.
    pub type Witness;
    /// The work told from now on is on this log.
    #[wasm_bindgen(method)]
    fn enter(this: &Witness, log: &str);
    /// This is worked on: a kind, a run in two halves, a number within it; or a kind and an offset.
    #[wasm_bindgen(method)]
    fn work(this: &Witness, kind: u8, high: u32, low: u32, number: f64);
    /// To be called after a trap.
    #[wasm_bindgen(method)]
    fn hold(this: &Witness, release: &Function);
    /// Not to be called any more.
    #[wasm_bindgen(method)]
    fn release(this: &Witness, release: &Function);
}

/// Kinds of work, as `ts/witness.ts` has them.
mod kind {
    pub(super) const NONE: u8 = 0;
    pub(super) const OWN: u8 = 1;
    pub(super) const CONFIRMED: u8 = 2;
    pub(super) const SNAPSHOT: u8 = 3;
}

thread_local! {
    static WITNESS: RefCell<Option<Witness>> = const { RefCell::new(None) };
    /// The log that the witness was told last.
    static LOG: RefCell<Option<LogName>> = const { RefCell::new(None) };
}

/// Makes this the witness of the instance. An instance has one client, and so one witness.
pub(crate) fn install(witness: Witness) {
    WITNESS.set(Some(witness));
}

fn with_witness(tell: impl FnOnce(&Witness)) {
    WITNESS.with_borrow(|witness| witness.as_ref().map(tell));
}

/// Tells the instance's witness what core works on.
#[derive(Debug)]
pub(crate) struct Told;

impl witness::Witness for Told {
    fn works_on(&self, log: &LogName, work: Option<Work>) {
        with_witness(|witness| {
            if work.is_some() && LOG.with_borrow(|known| known.as_ref() != Some(log)) {
                LOG.set(Some(log.clone()));
                witness.enter(log.as_str());
            }
            match work {
                None => witness.work(kind::NONE, 0, 0, 0.0),
                Some(Work::Own(write)) => {
                    let run = u64::from_be_bytes(write.run.0);
                    witness.work(kind::OWN, (run >> 32) as u32, run as u32, write.n as f64);
                }
                Some(Work::Confirmed(offset)) => witness.work(kind::CONFIRMED, 0, 0, offset.0 as f64),
                Some(Work::Snapshot(())) => witness.work(kind::SNAPSHOT, 0, 0, 0.0),
            }
        });
        #[cfg(feature = "testing")]
        crate::testing::trap_if_asked(log, work);
    }
}

/// Something outside that is let go of when this is dropped, or when the instance has trapped; by its owner's own means
/// in the first case, by JavaScript alone in the second.
pub(crate) struct Held(Function);

impl Held {
    /// To let go of `object`, call its method of this name.
    pub(crate) fn of(object: &JsValue, method: &str) -> Self {
        Self::with(object, method, &[])
    }

    /// To let go of something, call this method of `object` with these arguments.
    pub(crate) fn with(object: &JsValue, method: &str, arguments: &[JsValue]) -> Self {
        let nothing = || Function::new_no_args("");
        let method = js_sys::Reflect::get(object, &method.into()).ok().and_then(|method| method.dyn_into().ok());
        let bound = arguments.iter().fold(js_sys::Array::of1(object), |all, argument| {
            all.push(argument);
            all
        });
        let release = method.and_then(|method: Function| {
            let bind: Function = js_sys::Reflect::get(&method, &"bind".into()).ok()?.dyn_into().ok()?;
            bind.apply(&method, &bound).ok()?.dyn_into().ok()
        });
        Self::calling(release.unwrap_or_else(nothing))
    }

    /// To let go of something, call this function.
    pub(crate) fn calling(release: Function) -> Self {
        with_witness(|witness| witness.hold(&release));
        Held(release)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        with_witness(|witness| witness.release(&self.0));
    }
}
