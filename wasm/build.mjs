/**
 * Builds the npm package into `wasm/dist`, in named steps:
 *
 *   compile → bind → optimize (release only) → types → bundle
 *
 * It promises that a step whose inputs did not change is skipped, and that `dist` is exactly what is published.
 * Installing packages and toolchains is left to `tests/commands`. Needs `node_modules`, cargo and the wasm target.
 *
 *   node wasm/build.mjs [--release]
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cp, mkdir, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, relative, sep } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { gzipSync } from 'node:zlib';

const here = dirname(fileURLToPath(import.meta.url));
const root = dirname(here);
const target = process.env.CARGO_TARGET_DIR ?? join(root, 'target');
const pkg = join(here, 'pkg');
const dist = join(here, 'dist');
const require = createRequire(import.meta.url);
const executable = process.platform === 'win32' ? '.exe' : '';

/** What browsers of 2023 on can run and rustc already emits. */
const wasmFeatures = ['bulk-memory', 'nontrapping-float-to-int', 'sign-ext', 'mutable-globals', 'reference-types', 'multivalue'];

/**
 * Runs `work` as one named step, with a function that runs a program in the repository.
 *
 * @typedef {(name: string, work: (tools: { run: (command: string, args: string[]) => Promise<unknown> }) => Promise<unknown>) => Promise<unknown>} Step
 */

/**
 * @param {object} options
 * @param {boolean} [options.release] optimize for publishing; otherwise for build time
 * @param {boolean} [options.compileTool] false where the caller has compiled `driftlog-build-tool` already
 * @param {Step} [options.step] shows one step
 */
export async function buildPackage({ release = false, compileTool = true, step = printStep } = {}) {
  const profile = release ? 'release-wasm' : 'dev';
  const compiled = join(target, 'wasm32-unknown-unknown', release ? profile : 'debug', 'driftlog_wasm.wasm');
  const tool = join(target, 'debug', `driftlog-build-tool${executable}`);
  const bound = join(pkg, 'driftlog_bg.wasm');
  const instance = join(pkg, 'instance.js');

  await step(`compile the engine to wasm (${profile})`, async ({ run }) => {
    if (compileTool) await run('cargo', ['build', '--workspace', '--bin', 'driftlog-build-tool']);
    await run('cargo', ['build', '--package', 'driftlog-wasm', '--target', 'wasm32-unknown-unknown', '--profile', profile]);
  });

  await unlessUnchanged('bind', [compiled, tool, here + '/build.mjs'], [bound, instance], async () => {
    await step('bind wasm to JavaScript', async ({ run }) => {
      await rm(pkg, { recursive: true, force: true });
      await run(tool, [compiled, pkg]);
      if (release) {
        await run(process.execPath, [binPath('binaryen', 'wasm-opt'), '-Oz', '--strip-debug', ...wasmFeatures.map((name) => `--enable-${name}`), bound, '-o', bound]);
      }
      await refuseForeignImports(bound);
      await makeInstantiable(pkg);
    });
  });

  const sources = await filesUnder(join(here, 'ts'));
  const settings = ['build.mjs', 'package.json', 'tsconfig.json', 'tsconfig.build.json'].map((name) => join(here, name));
  await unlessUnchanged('types', [...sources, ...settings, join(pkg, 'driftlog.d.ts')], [join(dist, 'types', 'index.d.ts')], async () => {
    await step('emit TypeScript declarations', async ({ run }) => {
      await rm(join(dist, 'types'), { recursive: true, force: true });
      await run(process.execPath, [binPath('typescript', 'tsc'), '--project', join(here, 'tsconfig.build.json')]);
    });
  });

  const outputs = ['index.js', 'node.js', 'wasm.js', 'driftlog_bg.wasm'].map((name) => join(dist, name));
  await unlessUnchanged('bundle', [...sources, ...settings, bound, instance], outputs, async () => {
    await step('bundle the package', async () => {
      await mkdir(dist, { recursive: true });
      await bundle({ entry: join(here, 'ts', 'index.ts'), outfile: join(dist, 'index.js'), platform: 'browser' });
      await bundle({ entry: join(here, 'ts', 'index.ts'), outfile: join(dist, 'node.js'), platform: 'node' });
      const packed = gzipSync(await readFile(bound), { level: 9 });
      await writeFile(join(dist, 'wasm.js'), `export default '${packed.toString('base64')}';\n`);
      await cp(bound, join(dist, 'driftlog_bg.wasm'));
      await copyTexts();
    });
  });
}

/**
 * Writes `instance.js`: what wasm-bindgen generates, as a function that makes a fresh set of bindings at each call. As it
 * is generated, a page has one instance for ever, and that one cannot be replaced when it traps.
 *
 * @param {string} folder where `driftlog.js` is
 */
export async function makeInstantiable(folder) {
  const esbuild = await import('esbuild');
  const { outputFiles } = await esbuild.build({
    entryPoints: [join(folder, 'driftlog.js')],
    bundle: true,
    format: 'iife',
    globalName: 'made',
    target: 'es2022',
    write: false,
    logLevel: 'warning',
  });
  await writeFile(join(folder, 'instance.js'), `export function bindings(WebAssembly) {\n${outputFiles[0].text}return made;\n}\n`);
  const types = [
    "import type * as exports from './driftlog.js';",
    '/** A fresh set of bindings; `webAssembly` is what they instantiate with. */',
    "export function bindings(webAssembly: { Instance: unknown; instantiate: unknown }): typeof exports;",
  ];
  await writeFile(join(folder, 'instance.d.ts'), types.join('\n') + '\n');
}

/**
 * Bundles one entry point. The loader of the wasm is chosen by platform, and its base64 stays outside, in `wasm.js`.
 *
 * @param {{ entry: string, outfile: string, platform: 'browser' | 'node', bound?: string }} options `bound` is the
 *   folder of another build of the wasm than the package's
 */
export async function bundle({ entry, outfile, platform, bound = pkg }) {
  const esbuild = await import('esbuild');
  await esbuild.build({
    entryPoints: [entry],
    outfile,
    bundle: true,
    format: 'esm',
    platform,
    target: 'es2022',
    sourcemap: true,
    sourcesContent: true,
    logLevel: 'warning',
    plugins: [wasmLoading(platform, bound)],
  });
}

function wasmLoading(platform, bound) {
  return {
    name: 'wasm-loading',
    setup(build) {
      build.onResolve({ filter: /^driftlog:loader$/ }, () => ({ path: join(here, 'ts', 'wasm', `${platform}.ts`) }));
      build.onResolve({ filter: /^driftlog:wasm$/ }, () => ({ path: './wasm.js', external: true }));
      build.onResolve({ filter: /\/pkg\/instance\.js$/ }, () => ({ path: join(bound, 'instance.js') }));
    },
  };
}

/** The engine may import only what wasm-bindgen provides: an import from `env` means that system code leaked in. */
async function refuseForeignImports(path) {
  const module = await WebAssembly.compile(await readFile(path));
  const foreign = WebAssembly.Module.imports(module).filter((entry) => entry.module !== './driftlog_bg.js');
  if (foreign.length > 0) {
    const names = foreign.map((entry) => `${entry.module}.${entry.name}`).join(', ');
    throw new Error(`the wasm imports what no browser provides: ${names}`);
  }
}

/** Licences of what is bundled, and the texts that npm shows. */
async function copyTexts() {
  const msgpack = dirname(require.resolve('@msgpack/msgpack/package.json'));
  const licence = await readFile(join(msgpack, 'LICENSE'), 'utf8');
  await writeFile(join(dist, 'THIRD-PARTY-LICENSES.txt'), `@msgpack/msgpack\n\n${licence}`);
  for (const name of ['README.md', 'LICENSE-MIT', 'LICENSE-APACHE']) {
    await cp(join(root, name), join(here, name)).catch((error) => {
      if (error.code !== 'ENOENT') throw error;
    });
  }
}

/**
 * Runs `work` unless its inputs have the bytes they had when it last succeeded and its outputs are still there.
 *
 * @param {string} name
 * @param {string[]} inputs
 * @param {string[]} outputs
 * @param {() => Promise<unknown>} work
 */
export async function unlessUnchanged(name, inputs, outputs, work) {
  const stamp = join(target, 'stamps', name);
  const hash = await hashOf(inputs);
  const before = await readFile(stamp, 'utf8').catch(() => '');
  const present = await Promise.all(outputs.map((path) => stat(path).then(() => true, () => false)));
  if (before === hash && present.every(Boolean)) return;
  await rm(stamp, { force: true });
  await work();
  await mkdir(dirname(stamp), { recursive: true });
  await writeFile(stamp, hash);
}

async function hashOf(paths) {
  const hash = createHash('sha256');
  for (const path of paths) {
    const bytes = await readFile(path);
    hash.update(`${relative(root, path)}\0${bytes.length}\0`).update(bytes);
  }
  return hash.digest('hex');
}

/** Every file below a folder, in a fixed order; an absent folder has none. */
export async function filesUnder(folder) {
  const entries = await readdir(folder, { withFileTypes: true, recursive: true }).catch(() => []);
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
    .filter((path) => !path.includes(`${sep}node_modules${sep}`) && !path.includes(`${sep}dist${sep}`))
    .sort();
}

/** The script behind a package's command, to be run by this very Node on every system. */
export function binPath(packageName, command) {
  const manifest = require.resolve(`${packageName}/package.json`);
  const { bin } = require(manifest);
  return join(dirname(manifest), typeof bin === 'string' ? bin : bin[command]);
}

async function printStep(name, work) {
  const start = Date.now();
  const result = await work({ run: runInherited });
  console.log(`${name}: ${((Date.now() - start) / 1000).toFixed(1)} s`);
  return result;
}

function runInherited(command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, stdio: 'inherit' });
    child.on('error', reject);
    child.on('exit', (code, signal) => (code === 0 ? resolve() : reject(new Error(`${command} ended with ${signal ?? code}`))));
  });
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  await buildPackage({ release: process.argv.includes('--release') }).catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
}
