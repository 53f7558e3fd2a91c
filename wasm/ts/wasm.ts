/**
 * The one seam that holds the loaded wasm module.
 *
 * It promises that the module is instantiated once per page, however many clients ask and whoever asks first, and
 * that a failed load can be tried again. How the bytes are found is left to the loader of each entry point
 * (`wasm/browser.ts`, `wasm/node.ts`); what the exports mean is left to the callers of `engine`.
 */
import init, * as exports from '../pkg/driftlog.js';
import { loadWasm } from 'driftlog:loader';

/** Where the wasm comes from, when the application does not leave that to the package: `driftlog/driftlog_bg.wasm`. */
export type WasmSource = BufferSource | Response | WebAssembly.Module | Promise<BufferSource | Response | WebAssembly.Module>;

let loading: Promise<void> | undefined;

/**
 * Loads the engine. Calling it is optional (`createClient` does), and useful to begin early or to give the wasm
 * from elsewhere, such as `initWasm(fetch(url))`. Only the first call's `source` counts.
 */
export function initWasm(source?: WasmSource): Promise<void> {
  loading ??= instantiate(source).catch((error: unknown) => {
    loading = undefined;
    throw error;
  });
  return loading;
}

/**
 * The exports of the wasm module, loaded if need be.
 *
 * @internal
 */
export async function engine(): Promise<typeof exports> {
  await initWasm();
  return exports;
}

async function instantiate(source: WasmSource | undefined): Promise<void> {
  await init({ module_or_path: (await source) ?? (await loadWasm()) });
}
