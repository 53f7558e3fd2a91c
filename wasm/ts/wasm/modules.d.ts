/** Names that `wasm/build.mjs` resolves: each entry point gets its own loader, and the base64 stays a chunk of its own. */

declare module 'driftlog:loader' {
  /** The wasm of this package, found the way this platform finds it. */
  export function loadWasm(): Promise<BufferSource | Response>;
}

declare module 'driftlog:wasm' {
  /** The gzipped wasm in base64. */
  const base64: string;
  export default base64;
}
