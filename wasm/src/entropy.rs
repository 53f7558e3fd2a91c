//! Random bytes from the browser's generator. Ids and seeds come from here and enter core as arguments.

use wasm_bindgen::prelude::*;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = crypto, js_name = getRandomValues, catch)]
    fn get_random_values(bytes: &mut [u8]) -> Result<JsValue, JsValue>;
}

/// The environment has no `crypto.getRandomValues`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the environment has no source of random bytes")]
pub(crate) struct NoEntropy;

/// `N` random bytes.
///
/// # Errors
/// [`NoEntropy`] where the environment has none; no client can be started there.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], NoEntropy> {
    let mut bytes = [0; N];
    get_random_values(&mut bytes).map_err(|_| NoEntropy)?;
    Ok(bytes)
}
