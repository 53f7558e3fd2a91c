/** Folds on an engine in memory: handlers, accumulators, pending entries on top. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DriftlogError } from './errors.js';
import { fold } from './fold.js';
import { board, clientOf, FakeServer, quiet } from './testing/board.js';

const counts = fold(board, 'activity', 1, {
  init: {} as Record<string, number>,
  on: {
    addTodo: (counts, { title }, { author }) => {
      if (title === 'poison') throw new RangeError('not this one');
      const who = author ?? 'me';
      return { ...counts, [who]: (counts[who] ?? 0) + 1 };
    },
  },
});

test('a fold shows a pending action in the same tick, and counts it once when it is confirmed', async () => {
  const { client } = await clientOf(new FakeServer());
  const log = await client.open(board, { id: '1' });
  const values: unknown[] = [];
  const activity = log.fold(counts);
  assert.equal(log.fold(counts), activity);
  activity.subscribe(({ value }) => values.push(value));
  const write = log.do.addTodo({ id: 'a', title: 'x' });
  assert.deepEqual(values, [{}, { alice: 1 }]);
  await write.accepted;
  await quiet();
  const { value, from, end, state } = activity.getSnapshot();
  assert.deepEqual({ value, from, end, state }, { value: { alice: 1 }, from: 0, end: 1, state: 'live' });
  await client.close();
});

test('a pending action that a handler cannot take is left out and named, and parked once it is confirmed', async () => {
  const { client } = await clientOf(new FakeServer());
  const log = await client.open(board, { id: '1' });
  const activity = log.fold(counts);
  const write = log.do.addTodo({ id: 'a', title: 'poison' });
  log.do.addTodo({ id: 'b', title: 'x' });
  assert.deepEqual(activity.getSnapshot().value, { alice: 1 });
  assert.deepEqual(activity.getSnapshot().failing, [{ id: write.id, reason: 'RangeError: not this one' }]);
  await quiet();
  log.do.addTodo({ id: 'c', title: 'x' });
  await quiet();
  assert.deepEqual(activity.getSnapshot().value, { alice: 2 });
  const [parked] = activity.parked.getSnapshot();
  assert.deepEqual([parked?.id, parked?.action, parked?.args], [write.id, 'addTodo', { id: 'a', title: 'poison' }]);
  activity.discard(0);
  assert.deepEqual(activity.parked.getSnapshot(), []);
});

test('an accumulator cannot be changed in place, and has a canonical form', async () => {
  const { client } = await clientOf(new FakeServer());
  const log = await client.open(board, { id: '1' });
  const init = { list: [] as string[] };
  const inPlace = fold(board, 'in-place', 1, {
    init,
    on: {
      addTodo: (all, { id }) => {
        all.list.push(id);
        return all;
      },
    },
  });
  const broken = fold(board, 'broken', 1, { init: 0, on: { addTodo: () => Number.NaN } });
  const folds = [log.fold(inPlace), log.fold(broken)];
  log.do.addTodo({ id: 'a', title: 'x' });
  const reasons = folds.map((one) => one.getSnapshot().failing[0]?.reason ?? '');
  assert.match(reasons[0]!, /^TypeError/);
  assert.match(reasons[1]!, /no canonical form: NaN/);
  assert.deepEqual(init.list, []);
});

test('definitions are checked, and one name is one definition', async () => {
  const bad = (run: () => unknown, code: string): void =>
    assert.throws(run, (error) => error instanceof DriftlogError && error.code === code);
  bad(() => fold(board, '', 1, { init: 0, on: {} }), 'bad-name');
  bad(() => fold(board, 'x', 1.5, { init: 0, on: {} }), 'bad-value');
  bad(() => fold(board, 'x', 1, { init: Number.NaN, on: {} }), 'bad-value');
  bad(() => fold(board, 'x', 1, { init: 0, on: { nothing: () => 0 } as object }), 'bad-name');
  const { client } = await clientOf(new FakeServer());
  const log = await client.open(board, { id: '1' });
  log.fold(counts);
  bad(() => log.fold(fold(board, 'activity', 2, { init: 0, on: {} })), 'already-open');
});
