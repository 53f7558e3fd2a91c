/** Errors: refusals keep their codes, and the union of codes covers the numbered ones of core. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { DriftlogError, fromEngine, REFUSALS, refusal } from './errors.js';

const details = { writeId: 'r-1', entryId: 'a-1', reason: 'no', number: 9 };

test('a refusal keeps its code', () => {
  const error = refusal('not-allowed', details);
  assert.ok(error instanceof DriftlogError);
  assert.equal(error.code, 'not-allowed');
});

test('a code that is newer than this client arrives as refused, with its name in the reason', () => {
  const error = refusal('brand-new', details);
  assert.equal(error.code, 'refused');
  assert.equal((error.details as typeof details).reason, 'brand-new: no');
});

test('every numbered code of a single entry is in the closed union', () => {
  // The compiled tests lie elsewhere; tests are started in the repository.
  const source = readFileSync('core/src/protocol/code.rs', 'utf8');
  const names = [...source.matchAll(/= 5\d\d, "([^"]+)"/g)].map(([, name]) => name!);
  assert.ok(names.length > 0);
  for (const name of names) assert.ok(REFUSALS.has(name), name);
});

test('what the engine throws is typed by its code', () => {
  for (const code of ['storage-full', 'bad-value', 'bad-query', 'closed', 'engine-failed']) {
    const error = fromEngine(Object.assign(new Error('why'), { code }));
    assert.ok(error instanceof DriftlogError);
    assert.equal(error.code, code);
  }
  const trap = fromEngine(new WebAssembly.RuntimeError('unreachable'));
  assert.ok(trap instanceof DriftlogError && trap.code === 'engine-failed');
});
