/**
 * The loader for browsers and bundlers: base64 in a lazily imported chunk, the one form that every bundler and
 * every plain `<script type=module>` can load without configuration. It is gzipped inside, because base64 of
 * compressed bytes is smaller than compressed base64.
 */

/** Unpacks the wasm and hands it over as a response, so that it is compiled while it unpacks. */
export async function loadWasm(): Promise<Response> {
  const { default: base64 } = await import('driftlog:wasm');
  const unpacked = new Blob([decodeBase64(base64)]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Response(unpacked, { headers: { 'content-type': 'application/wasm' } });
}

function decodeBase64(base64: string): Uint8Array<ArrayBuffer> {
  const native = (Uint8Array as { fromBase64?: (base64: string) => Uint8Array<ArrayBuffer> }).fromBase64;
  if (native) {
    return native.call(Uint8Array, base64);
  }
  const binary = atob(base64);
  const bytes = new Uint8Array(binary.length);
  for (let index = 0; index < binary.length; index++) {
    bytes[index] = binary.charCodeAt(index);
  }
  return bytes;
}
