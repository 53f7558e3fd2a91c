/** Where a client meets the real engine. */

import type { OpenEngine } from './boundary.js';
import { type Client, type ClientOptions, openClient } from './client.js';
import { fail } from './errors.js';
import { engine } from './wasm.js';

/**
 * Opens a client.
 *
 * Rejects with `engine-missing` if the wasm cannot be loaded, and with storage errors.
 */
export function createClient(options: ClientOptions): Promise<Client> {
  return openClient(async (request, listener) => {
    const exports = await engine().catch((error: unknown) => {
      const reason = error instanceof Error ? error.message : String(error);
      throw fail('engine-missing', { reason }, `the wasm could not be loaded: ${reason}`);
    });
    // What wasm-bindgen generates says less about types than boundary.ts does.
    const { open_client: open } = exports as unknown as { open_client: OpenEngine };
    return open(request, listener);
  }, options);
}
