/**
 * The one seam that holds the loaded wasm module.
 *
 * It promises that the module is compiled once per page, however many clients ask and whoever asks first, that a failed
 * load can be tried again, and that each client has an instance of its own: what goes wrong in one is nothing to the
 * others. How the bytes are found is left to the loader of each entry point (`wasm/browser.ts`, `wasm/node.ts`); what
 * the exports mean is left to the callers of `instantiate`.
 */
import { bindings } from '../pkg/instance.js';
import { loadWasm } from 'driftlog:loader';
import type { WireTrap } from './boundary.js';
import { guarded, Witness } from './witness.js';

/** Where the wasm comes from, when the application does not leave that to the package: `driftlog/driftlog_bg.wasm`. */
export type WasmSource = BufferSource | Response | WebAssembly.Module | Promise<BufferSource | Response | WebAssembly.Module>;

let loading: Promise<WebAssembly.Module> | undefined;

/**
 * Loads the engine. Calling it is optional (`createClient` does), and useful to begin early or to give the wasm
 * from elsewhere, such as `initWasm(fetch(url))`. Only the first call's `source` counts.
 */
export async function initWasm(source?: WasmSource): Promise<void> {
  await load(source);
}

function load(source?: WasmSource): Promise<WebAssembly.Module> {
  loading ??= compile(source).catch((error: unknown) => {
    loading = undefined;
    throw error;
  });
  return loading;
}

async function compile(source: WasmSource | undefined): Promise<WebAssembly.Module> {
  const found = (await source) ?? (await loadWasm());
  if (typeof Response === 'function' && found instanceof Response) {
    if (!found.ok) throw new Error(`${found.status} ${found.statusText} fetching ${found.url}`);
    // Compiled while it arrives, where the server names its type right.
    const isNamed = found.headers.get('content-type')?.startsWith('application/wasm');
    return isNamed ? WebAssembly.compileStreaming(found) : WebAssembly.compile(await found.arrayBuffer());
  }
  return found instanceof WebAssembly.Module ? found : WebAssembly.compile(found as BufferSource);
}

/**
 * A new instance of the module, loaded if need be: its exports, and its witness. `trapped` is called once, if it traps;
 * nothing of it runs from then on, and what it held is let go of.
 *
 * @internal
 */
export async function instantiate(
  trapped: (trap: WireTrap) => void,
): Promise<{ exports: ReturnType<typeof bindings>; witness: Witness }> {
  const module = await load();
  const witness = new Witness();
  const exports = bindings({
    Instance: WebAssembly.Instance,
    instantiate: async (module: WebAssembly.Module, imports: WebAssembly.Imports) => {
      const instance = await WebAssembly.instantiate(module, imports);
      const end = (thrown: unknown): void => {
        console.error('driftlog: the engine trapped and is begun again', thrown);
        const trap = witness.testify(thrown);
        witness.letGo();
        trapped(trap);
      };
      return { instance: { exports: guarded(instance.exports, end) }, module };
    },
  });
  await exports.default({ module_or_path: module });
  return { exports, witness };
}
