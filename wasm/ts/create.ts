/** Where a client meets the real engine. */

import type { WireEngine } from './boundary.js';
import { type Client, type ClientOptions, openClient } from './client.js';
import { fail } from './errors.js';
import { instantiate } from './wasm.js';
import type { Witness } from './witness.js';

/** What wasm-bindgen generates says less about types than boundary.ts does. */
type OpenExport = (
  options: Uint8Array,
  listener: (notices: Uint8Array) => void,
  witness: Witness,
) => Promise<WireEngine>;

/**
 * Opens a client.
 *
 * Rejects with `engine-missing` if the wasm cannot be loaded, and with storage errors.
 */
export function createClient(options: ClientOptions): Promise<Client> {
  return openClient(async (request, listener, trapped) => {
    const { exports, witness } = await instantiate(trapped).catch((error: unknown) => {
      const reason = error instanceof Error ? error.message : String(error);
      throw fail('engine-missing', { reason }, `the wasm could not be loaded: ${reason}`);
    });
    return (exports as unknown as { open_client: OpenExport }).open_client(request, listener, witness);
  }, options);
}
