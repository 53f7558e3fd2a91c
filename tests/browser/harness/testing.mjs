/**
 * The wasm with what only tests call: the published one is built without the cargo feature `testing`.
 *
 * A page that was given `globalThis.driftlogTraps` makes that wasm trap for real: it is asked before each piece of work
 * that belongs to an entry, with the log, the kind (`own`, `confirmed`, `snapshot`) and the write id or offset.
 */
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { bundle, makeInstantiable } from '../../../wasm/build.mjs';
import { root, run } from '../../commands/run.mjs';
import { temporaryFolder } from './processes.mjs';

const target = process.env.CARGO_TARGET_DIR ?? join(root, 'target');
let packed;

/** A folder with the wasm and its bindings, as wasm-bindgen makes them. */
export async function bindForTesting() {
  const bound = temporaryFolder('testing-wasm');
  const build = ['build', '--package', 'driftlog-wasm', '--features', 'testing', '--target', 'wasm32-unknown-unknown'];
  await run('cargo', build);
  const compiled = join(target, 'wasm32-unknown-unknown', 'debug', 'driftlog_wasm.wasm');
  const tool = join(target, 'debug', `driftlog-build-tool${process.platform === 'win32' ? '.exe' : ''}`);
  await run(tool, [compiled, bound]);
  return bound;
}

/** A folder with the whole package around that wasm, built once. */
export function packageForTesting() {
  packed ??= pack();
  return packed;
}

async function pack() {
  const bound = await bindForTesting();
  const folder = temporaryFolder('testing-package');
  await makeInstantiable(bound);
  await bundle({ entry: join(root, 'wasm', 'ts', 'index.ts'), outfile: join(folder, 'index.js'), platform: 'browser', bound });
  const wasm = await readFile(join(bound, 'driftlog_bg.wasm'));
  await writeFile(join(folder, 'wasm.js'), `export default '${gzipSync(wasm, { level: 1 }).toString('base64')}';\n`);
  await copyFile(join(bound, 'driftlog_bg.wasm'), join(folder, 'driftlog_bg.wasm'));
  return folder;
}
