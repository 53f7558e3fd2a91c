/**
 * The suites of `npm test`, in the order in which they run: what fails fast first, browsers last.
 *
 * Each runs to its end whatever fails, prints the output of what failed, and returns how many tests passed and failed.
 */
import { mkdir, rm, cp, readFile } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { root, run } from './run.mjs';
import { step } from './steps.mjs';

/** A test that takes longer hangs. */
const testMs = 300_000;
const scratch = join(root, 'target', 'node-tests');

/** @type {{ name: string, run: () => Promise<{ passed: number, failed: number }> }[]} */
export const suites = [
  { name: 'tidy', run: () => nodeTests('the repository itself', join('tests', 'tidy')) },
  { name: 'types', run: checkTypes },
  { name: 'rust', run: rustTests },
  { name: 'vectors', run: () => nodeTests('golden vectors in JavaScript', join('tests', 'vectors')) },
  { name: 'typescript', run: typescriptTests },
  { name: 'browser', run: () => nodeTests('in Chromium, against the server', join('tests', 'browser')) },
  { name: 'packaging', run: () => nodeTests('the packed npm package', join('tests', 'packaging')) },
];

/** Every line that must compile does, and every line under `@ts-expect-error` does not. */
async function checkTypes() {
  const { binPath } = await import('../../wasm/build.mjs');
  const totals = { passed: 0, failed: 0 };
  for (const folder of ['wasm', 'web-demo']) {
    const { passed, failed } = await counted(`TypeScript types of ${folder}`, async ({ run }) => {
      await run(process.execPath, [binPath('typescript', 'tsc'), '--noEmit', '--project', join(folder, 'tsconfig.json')]);
      return { passed: 1, failed: 0 };
    });
    totals.passed += passed;
    totals.failed += failed;
  }
  return totals;
}

async function rustTests() {
  return counted('Rust', async ({ run }) => countRust(await run('cargo', ['test', '--workspace', '--no-fail-fast'])), countRust);
}

function countRust(output) {
  const count = (word) => [...output.matchAll(new RegExp(`^test result: .* (\\d+) ${word};`, 'gm'))].reduce((sum, match) => sum + Number(match[1]), 0);
  return { passed: count('passed'), failed: count('failed') };
}

/** Unit tests lie beside their sources; each is bundled the way the package is for Node. */
async function typescriptTests() {
  const { bundle, filesUnder } = await import('../../wasm/build.mjs');
  const folder = join(scratch, 'typescript');
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  await cp(join(root, 'wasm', 'dist', 'driftlog_bg.wasm'), join(folder, 'driftlog_bg.wasm'));
  const sources = (await filesUnder(join(root, 'wasm', 'ts'))).filter((path) => path.endsWith('.test.ts'));
  for (const entry of sources) {
    await bundle({ entry, outfile: join(folder, basename(entry).replace(/ts$/, 'mjs')), platform: 'node' });
  }
  return nodeTests('TypeScript units', folder);
}

/** Runs the `*.test.mjs` of a folder by Node's own runner, one file after the other. */
async function nodeTests(title, folder) {
  const { filesUnder } = await import('../../wasm/build.mjs');
  const files = (await filesUnder(resolve(root, folder))).filter((path) => path.endsWith('.test.mjs'));
  if (files.length === 0) return { passed: 0, failed: 0 };
  await mkdir(scratch, { recursive: true });
  const counts = join(scratch, `${basename(folder)}.tap`);
  const reporters = ['--test-reporter=spec', '--test-reporter-destination=stdout', '--test-reporter=tap', `--test-reporter-destination=${counts}`];
  const count = async () => countTap(await readFile(counts, 'utf8').catch(() => ''));
  return counted(
    title,
    async ({ run }) => {
      await run(process.execPath, ['--test', '--test-concurrency=1', `--test-timeout=${testMs}`, ...reporters, ...files]);
      return count();
    },
    count,
  );
}

function countTap(output) {
  const count = (word) => Number(new RegExp(`^# ${word} (\\d+)$`, 'm').exec(output)?.[1] ?? 0);
  return { passed: count('pass'), failed: count('fail') + count('cancelled') + count('skipped') + count('todo') };
}

/** Runs one suite as a step. What failed without being counted (it did not compile) counts as one failure. */
async function counted(title, work, countFailed = () => ({ passed: 0, failed: 0 })) {
  let counts;
  try {
    counts = await step(`test: ${title}`, work);
  } catch (error) {
    console.log(error.output ?? error.stack);
    const { passed, failed } = await countFailed(error.output ?? '');
    counts = { passed, failed: Math.max(failed, 1) };
  }
  console.log(`    ${counts.passed} of ${counts.passed + counts.failed} passed`);
  return counts;
}
