/** What the commands build: the server, the npm package and the demo, in one profile chosen for build time. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { npm, root } from './run.mjs';
import { step } from './steps.mjs';

const target = process.env.CARGO_TARGET_DIR ?? join(root, 'target');
const executable = process.platform === 'win32' ? '.exe' : '';

/** Where the page of the demo is built. */
export const demoFolder = join(root, 'web-demo', 'dist');

/** The server's binary; release builds are for measuring only. */
export function serverBinary(options) {
  return nativeBinary('driftlog-server', options);
}

/** A program of this repository by its name. */
export function nativeBinary(name, { release = false } = {}) {
  return join(target, release ? 'release' : 'debug', `${name}${executable}`);
}

/**
 * Compiles what `npm start` runs. Named as parts of the workspace: by `--package`, cargo would choose other features of
 * shared dependencies, and compile them once for this and again for everything.
 */
export function buildServer() {
  return step('compile the server', ({ run }) =>
    run('cargo', ['build', '--workspace', '--bin', 'driftlog-server', '--bin', 'driftlog-build-tool']),
  );
}

/** Compiles the server for measuring. */
export function buildReleaseServer() {
  return step('compile the server (release)', ({ run }) => run('cargo', ['build', '--release', '--workspace', '--bin', 'driftlog-server']));
}

/** Compiles every crate with its tests. */
export function buildWorkspace() {
  return step('compile the crates and their tests', ({ run }) => run('cargo', ['build', '--workspace', '--all-targets']));
}

/** Builds the npm package, `wasm/dist`. */
export async function buildPackage(options) {
  const { buildPackage } = await import('../../wasm/build.mjs');
  await buildPackage({ step, ...options });
}

/** Builds the demo's page, unless it and the package are as they were. */
export async function buildDemo() {
  const folder = join(root, 'web-demo');
  if (!existsSync(join(folder, 'package.json'))) return;
  const { filesUnder, unlessUnchanged } = await import('../../wasm/build.mjs');
  const inputs = [...(await filesUnder(folder)), ...['index.js', 'wasm.js'].map((name) => join(root, 'wasm', 'dist', name))];
  await unlessUnchanged('demo', inputs, [join(demoFolder, 'index.html')], () =>
    step('build the demo', ({ tell }) => npm(['run', 'build', '--workspace', 'web-demo'], { onLine: tell })),
  );
}
