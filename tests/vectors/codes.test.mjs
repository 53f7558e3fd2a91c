/** Codes of core and errors of the TypeScript API: every verdict reaches the app as one error of the closed union. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { bundle } from '../../wasm/build.mjs';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const source = readFileSync(join(root, 'core', 'src', 'protocol', 'code.rs'), 'utf8');
const codes = [...source.matchAll(/^ {4}(\w+) = (\d+), "([^"]+)";$/gm)].map(([, , number, name]) => ({ number: Number(number), name }));

const outfile = join(root, 'target', 'node-tests', 'errors.mjs');
mkdirSync(dirname(outfile), { recursive: true });
await bundle({ entry: join(root, 'wasm', 'ts', 'errors.ts'), outfile, platform: 'node' });
const { DriftlogError, REFUSALS, refusal } = await import(pathToFileURL(outfile).href);

const details = (number) => ({ writeId: 'run-1', entryId: 'actor-1', reason: 'because', number });

test('the codes are read', () => {
  assert.ok(codes.length > 20);
  assert.ok(codes.some(({ name }) => name === 'depends-on'));
});

test('every code of a single entry is a code of the API', () => {
  for (const { number, name } of codes.filter(({ number }) => number >= 500 && number < 600)) {
    assert.ok(REFUSALS.has(name), name);
    const error = refusal(name, details(number));
    assert.ok(error instanceof DriftlogError);
    assert.equal(error.code, name);
    assert.deepEqual(error.details, details(number));
  }
});

test('any other code that a server marks an entry with arrives as one of the API, with its number and its words', () => {
  for (const { number, name } of [...codes, { number: 599, name: 'brand-new' }]) {
    const error = refusal(name, details(number));
    assert.equal(error.code, REFUSALS.has(name) ? name : 'refused', name);
    assert.equal(error.details.number, number);
    assert.match(error.details.reason, /because$/);
    if (error.code === 'refused') assert.ok(error.details.reason.startsWith(name), 'the name that this version does not know is told');
  }
});

test('every refusal of the API is declared with what a refusal carries', () => {
  const declared = readFileSync(join(root, 'wasm', 'ts', 'errors.ts'), 'utf8');
  for (const name of REFUSALS) assert.match(declared, new RegExp(`^  '?${name}'?: Refusal;$`, 'm'), name);
});
