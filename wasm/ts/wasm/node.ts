/** The loader for Node: the file beside the module. */
import { readFile } from 'node:fs/promises';

/** Reads `driftlog_bg.wasm`, which is published beside this module. */
export async function loadWasm(): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await readFile(new URL('./driftlog_bg.wasm', import.meta.url)));
}
