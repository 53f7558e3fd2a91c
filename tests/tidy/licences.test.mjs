/** Every dependency may be used in a work under MIT OR Apache-2.0. An exception stands here with its reason. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const allowed = new Set(['MIT', 'Apache-2.0', 'Apache-2.0 WITH LLVM-exception', 'BSD-2-Clause', 'BSD-3-Clause', 'ISC', 'Zlib', '0BSD', 'Unicode-3.0', 'Unlicense', 'BSL-1.0', 'CC0-1.0', 'MIT-0', 'BlueOak-1.0.0']);
/** Run while building, never shipped: weak copyleft is fine. */
const allowedForTools = new Set([...allowed, 'MPL-2.0', 'Python-2.0', 'CC-BY-4.0']);

/** Whether an SPDX expression can be met; `/` is an old way to write OR. */
function isMet(expression, licences) {
  const [, inner, rest] = /^\((.*)\)( AND .*)?$/.exec(expression) ?? [];
  if (inner && !inner.includes(')')) return isMet(inner, licences) && (!rest || isMet(rest.slice(5), licences));
  return expression.split(' AND ').every((all) => all.split(/ OR |\//).some((one) => licences.has(one.replaceAll(/[()]/g, '').trim())));
}

test('the licence of every crate is allowed', () => {
  const metadata = JSON.parse(
    execFileSync('cargo', ['metadata', '--format-version', '1'], { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28, stdio: ['ignore', 'pipe', 'ignore'] }),
  );
  const refused = metadata.packages.filter(({ license }) => !license || !isMet(license, allowed)).map(({ name, license }) => `${name}: ${license}`);
  assert.deepEqual(refused, []);
});

test('the licence of every npm package is allowed', () => {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));
  const refused = Object.entries(packages)
    .filter(([path, { link }]) => path.includes('node_modules/') && !link)
    .filter(([, { license, dev }]) => !license || !isMet(license, dev ? allowedForTools : allowed))
    .map(([path, { license }]) => `${path}: ${license}`);
  assert.deepEqual(refused, []);
});

test('the npm package depends on nothing at run time', () => {
  const { dependencies = {} } = JSON.parse(readFileSync(join(root, 'wasm', 'package.json'), 'utf8'));
  assert.deepEqual(dependencies, {});
});
