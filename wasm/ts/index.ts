/** The public interface of the package, nothing else. */
export { initWasm } from './wasm.js';
export type { WasmSource } from './wasm.js';
