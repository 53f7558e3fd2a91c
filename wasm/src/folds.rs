//! The part of `WireEngine` that is about folds: the app's handlers are called in TypeScript, one crossing a batch.

use driftlog_core::fold::FoldId;
use driftlog_core::id::Offset;
use wasm_bindgen::prelude::*;

use crate::binding::Binding;
use crate::boundary::fold;
use crate::client::ClientError;
use crate::clock;

#[wasm_bindgen(js_class = Engine)]
impl Binding {
    /// WireFold → the fold's id; `fold` notices say when it has something to do.
    #[wasm_bindgen(js_name = openFold)]
    pub fn open_fold(&self, handle: u32, request: &[u8]) -> Result<u32, JsValue> {
        let name = self.client.log(handle)?;
        let declaration = fold::declaration(request)?;
        let opened = self.client.call(|engine| engine.open_fold(&name, declaration, clock::now_ms()))?;
        Ok(opened.map_err(ClientError::from)?.0)
    }

    /// The report on the batch before, or nothing → WireFoldBatch.
    #[wasm_bindgen(js_name = stepFold)]
    pub fn step_fold(&self, handle: u32, id: u32, report: &[u8]) -> Result<Vec<u8>, JsValue> {
        let name = self.client.log(handle)?;
        let report = fold::report(report)?;
        let batch = self.client.call(|engine| engine.step_fold(&name, FoldId(id), report, clock::now_ms()))?;
        Ok(fold::batch(batch.map_err(ClientError::from)?))
    }

    /// Ends a fold; its checkpoint stays.
    #[wasm_bindgen(js_name = shutFold)]
    pub fn shut_fold(&self, handle: u32, id: u32) {
        if let Ok(name) = self.client.log(handle) {
            let _ = self.client.call(|engine| engine.shut_fold(&name, FoldId(id)));
        }
    }

    /// Tries parked entries of a fold again: the one at this offset, or all.
    #[wasm_bindgen(js_name = redriveFold)]
    pub fn redrive_fold(&self, handle: u32, id: u32, offset: Option<f64>) -> Result<(), JsValue> {
        let name = self.client.log(handle)?;
        let offset = offset.map(|offset| Offset(offset as u64));
        let redriven = self.client.call(|engine| engine.redrive_fold(&name, FoldId(id), offset))?;
        Ok(redriven.map_err(ClientError::from)?)
    }

    /// Takes a parked entry of a fold off its list.
    #[wasm_bindgen(js_name = discardFolded)]
    pub fn discard_folded(&self, handle: u32, id: u32, offset: f64) -> Result<(), JsValue> {
        let name = self.client.log(handle)?;
        let offset = Offset(offset as u64);
        let discarded = self.client.call(|engine| engine.discard_folded(&name, FoldId(id), offset))?;
        Ok(discarded.map_err(ClientError::from)?)
    }
}
