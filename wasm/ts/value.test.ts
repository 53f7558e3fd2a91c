/** Values: what has a canonical form, and the order of all of them. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DriftlogError } from './errors.js';
import { canonical, compare } from './value.js';

function refused(value: unknown, path: string): void {
  assert.throws(
    () => canonical(value, 'v'),
    (error) => error instanceof DriftlogError && error.code === 'bad-value' && error.details.path === path,
  );
}

test('values with a canonical form are copied and frozen', () => {
  const list = [1, 'a', null, true, 1.5, { b: 1, a: new Uint8Array([1]) }];
  const copy = canonical(list, 'v');
  assert.deepEqual(copy, list);
  assert.notEqual(copy, list);
  assert.ok(Object.isFrozen(copy));
});

test('keys without a value are left out', () => {
  assert.deepEqual(canonical({ a: undefined, b: 1 }, 'v'), { b: 1 });
});

test('values without a canonical form are refused with their path', () => {
  refused(undefined, 'v');
  refused([undefined], 'v[0]');
  refused({ a: [0, Number.NaN] }, 'v.a[1]');
  refused(Number.POSITIVE_INFINITY, 'v');
  refused(-0, 'v');
  refused(2 ** 53, 'v');
  refused('\ud800', 'v');
  refused({ '\udc00': 1 }, 'v');
  refused({ d: new Date(0) }, 'v.d');
  refused(() => 1, 'v');
  refused(1n, 'v');
  refused(JSON.parse('{"__proto__": 1}'), 'v');
  const loop: unknown[] = [];
  loop.push(loop);
  refused(loop, `v${'[0]'.repeat(32)}`);
});

test('the largest safe integer and whole surrogate pairs have a canonical form', () => {
  assert.equal(canonical(2 ** 53 - 1, 'v'), 2 ** 53 - 1);
  assert.equal(canonical('😀', 'v'), '😀');
});

test('values of all kinds have one order', () => {
  const sorted = [
    undefined,
    null,
    false,
    true,
    -1,
    0,
    1.5,
    2,
    '',
    'a',
    'ab',
    '\uffff',
    '😀',
    new Uint8Array([1]),
    [],
    [1],
    { a: 1 },
  ];
  for (let at = 1; at < sorted.length; at++) {
    assert.ok(compare(sorted[at - 1], sorted[at]) < 0, `at ${at}`);
    assert.ok(compare(sorted[at], sorted[at - 1]) > 0, `at ${at}`);
  }
});
