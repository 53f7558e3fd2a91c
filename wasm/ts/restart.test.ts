/** Engines that trap: what the app holds stays valid, nothing is lost or doubled, and it ends where it must. */

import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { decode, type WireQuery } from './boundary.js';
import { openClient } from './client.js';
import { DriftlogError } from './errors.js';
import { fold } from './fold.js';
import { FakeEngine, FakeServer, board, quiet } from './testing/board.js';
import { fakeEngines } from './testing/engine.js';
import { guarded, Witness } from './witness.js';

const is = (code: string) => (error: unknown) => error instanceof DriftlogError && error.code === code;

/** A client whose database outlives its engines. */
async function durableClient(server: FakeServer, engines: FakeEngine[] = []) {
  const client = await openClient(fakeEngines(server, engines), { name: 'alice', storage: 'indexeddb' });
  return { client, engines, log: await client.open(board, { id: '1' }) };
}

/** Lets timers and what they start come to rest. */
async function rest(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 5));
  await quiet();
}

test('queries, promises, folds and states of before a trap go on with the next engine', async () => {
  const server = new FakeServer();
  const { client, engines, log } = await durableClient(server);
  const counts = log.fold(fold(board, 'count', 1, { init: 0, on: { addTodo: (count) => count + 1 } }));
  await log.do.addTodo({ id: 'a', title: 'a' }).accepted;
  await quiet();
  server.up = false;
  const query = log.query({ from: 'todos' });
  const kinds: string[] = [];
  query.subscribe((_, patches) => kinds.push(patches.map(({ kind, index }) => `${kind} ${index}`).join()));
  const stored = log.do.addTodo({ id: 'b', title: 'b' });
  await stored.stored;
  const pending = log.do.addTodo({ id: 'c', title: 'c' });
  const [before] = query.getSnapshot();
  engines[0]!.trap();
  assert.equal(log.status.getSnapshot().state, 'degraded');
  assert.throws(() => log.do.vote({ id: 'a' }), is('restarting'));
  assert.equal(query.getSnapshot().length, 3, 'what was shown stays');
  const late = log.query({ from: 'todos', where: { title: 'a' } });
  assert.deepEqual(late.getSnapshot(), []);
  server.up = true;
  await rest();
  assert.equal(engines.length, 2);
  await pending.stored;
  const { offset } = await pending.accepted;
  assert.deepEqual([offset, (await stored.accepted).offset], [2, 1]);
  assert.deepEqual(server.logs.get('board/1')?.map(({ writeId }) => writeId).slice(1), [stored.id, pending.id], 'under their ids');
  assert.equal(query.getSnapshot()[0], before, 'what did not change keeps its identity');
  assert.deepEqual(query.getSnapshot().map(({ id }) => id), ['a', 'b', 'c']);
  assert.deepEqual(late.getSnapshot().map(({ id }) => id), ['a']);
  await new Promise<void>((counted) => counts.subscribe(({ value }) => value === 3 && counted()));
  assert.deepEqual([log.status.getSnapshot().state, client.connection.getSnapshot().state], ['synced', 'live']);
  const told = kinds.length;
  log.do.vote({ id: 'a' });
  assert.deepEqual([kinds.length, kinds.at(-1)], [told + 1, 'update 0'], 'the subscription is the same');
  const next = log.do.addTodo({ id: 'd', title: 'd' });
  assert.ok(next.id > pending.id, 'numbers go on');
  await client.close();
});

test('questions that an engine did not answer are asked again, and a client closes without an engine', async () => {
  const { client, engines, log } = await durableClient(new FakeServer());
  const { id } = log.do.addTodo({ id: 'a', title: 'a' });
  await quiet();
  engines[0]!.entry = () => new Promise(() => {});
  const asked = log.entry(id);
  engines[0]!.trap();
  assert.equal((await asked)?.status, 'accepted');
  client.disconnect();
  await quiet();
  engines[1]!.trap();
  const later = log.do;
  await client.close();
  assert.throws(() => later.clearDone(), is('closed'));
  await rest();
  assert.equal(engines.length, 2, 'none is begun for a closed client');
});

test('a query that the engine does not come back from is left as it is, visibly, and everything else goes on', async () => {
  const server = new FakeServer();
  const { client, engines, log } = await durableClient(server);
  const [todos, head] = [log.query({ from: 'todos' }), log.query({ from: 'head' })];
  for (const query of [todos, head]) query.subscribe(() => {});
  await log.do.addTodo({ id: 'a', title: 'a' }).accepted;
  await quiet();
  server.begun = (engine) => {
    const { query } = engine;
    engine.query = (handle, bytes) => {
      if (decode<WireQuery>(bytes)[0] !== 'todos') return query.call(engine, handle, bytes);
      engine.trap();
      throw new WebAssembly.RuntimeError('unreachable');
    };
  };
  engines[0]!.trap();
  await new Promise<void>((settled) => log.status.subscribe(({ reason }) => reason?.includes('query of todos') && settled()));
  await log.entries();
  assert.equal(log.status.getSnapshot().state, 'degraded');
  assert.equal(engines.length, 3, 'the next engine is not asked for it');
  log.do.addTodo({ id: 'b', title: 'b' });
  log.do.rename({ name: 'mine' });
  assert.equal(head.getSnapshot()[0]?.name, 'mine');
  await quiet();
  assert.equal(server.logs.get('board/1')?.length, 3);
  await client.close();
});

test('a priority is said with the opening, changed by opening again, and outlives the engine', async () => {
  const { client, engines } = await durableClient(new FakeServer());
  const first = await client.open(board, { id: '2' }, { priority: 'low' });
  const said = () => [...engines.at(-1)!.priorities];
  assert.deepEqual(said(), [['board/2', 'low']]);
  assert.equal(await client.open(board, { id: '2' }, { priority: 'high' }), first);
  await client.open(board, { id: '2' });
  assert.deepEqual(said(), [['board/2', 'high']]);
  engines[0]!.trap();
  await rest();
  assert.deepEqual([engines.length, ...said()], [2, ['board/2', 'high']]);
  await client.close();
});

test('a wish to be offline outlives the engine', async () => {
  const { client, engines } = await durableClient(new FakeServer());
  client.disconnect();
  await quiet();
  engines[0]!.trap();
  await rest();
  assert.deepEqual([engines.length, engines[1]!.options.offline], [2, true]);
  assert.equal(client.connection.getSnapshot().state, 'offline');
  await client.close();
});

test('an engine that always traps is begun again with growing waits, and then stops visibly', async () => {
  mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  const server = new FakeServer();
  const { client, engines, log } = await durableClient(server);
  const write = log.do.addTodo({ id: 'a', title: 'a' });
  server.begun = (engine) => queueMicrotask(() => engine.trap({ own: write.id }));
  engines[0]!.trap({ own: write.id });
  const waits: number[] = [];
  for (let at = Date.now(); client.connection.getSnapshot().state === 'backing-off'; at = Date.now()) {
    waits.push((client.connection.getSnapshot().retryAt ?? at) - at);
    mock.timers.tick(waits.at(-1)!);
    await quiet();
  }
  mock.timers.reset();
  assert.deepEqual(waits.slice(0, 5), [0, 100, 200, 400, 800]);
  assert.deepEqual([waits.length, Math.max(...waits), engines.length], [20, 10_000, 21]);
  assert.equal(client.connection.getSnapshot().state, 'blocked');
  assert.equal(log.status.getSnapshot().state, 'degraded');
  assert.match(log.status.getSnapshot().reason ?? '', /20 times in a row/);
  assert.throws(() => log.do.clearDone(), is('engine-failed'));
  await assert.rejects(write.stored, is('engine-failed'));
  assert.deepEqual(engines[1]!.options.trap, { log: '', reason: 'unreachable', own: write.id }, 'the next one is told');
  await client.close();
});

test('a client in memory stops visibly: what it held is gone with its engine', async () => {
  const engines: FakeEngine[] = [];
  const client = await openClient(fakeEngines(new FakeServer(), engines), { name: 'alice' });
  const log = await client.open(board, { id: '1' });
  engines[0]!.trap();
  await rest();
  assert.deepEqual([engines.length, log.status.getSnapshot().state], [1, 'degraded']);
  await client.close();
});

test('after a trap nothing of an instance runs, and what it held is let go of', () => {
  const calls: string[] = [];
  const testimony: unknown[] = [];
  const witness = new Witness();
  witness.enter('board/1');
  witness.work(1, 0x01020304, 0x0a0b0c0d, 7);
  witness.hold(() => calls.push('socket closed'));
  const released = (): void => void calls.push('released before');
  witness.hold(released);
  witness.release(released);
  witness.hold(() => {
    throw new Error('a transaction that is over');
  });
  const trap = () => {
    throw new WebAssembly.RuntimeError('unreachable');
  };
  const instance = { engine_act: trap, callback: () => calls.push('ran'), memory: {} as WebAssembly.Memory };
  const exports = guarded(instance, (thrown) => {
    testimony.push(witness.testify(thrown));
    witness.letGo();
  }) as unknown as typeof instance;
  assert.equal(exports.memory, instance.memory);
  exports.callback();
  assert.throws(() => exports.engine_act(), WebAssembly.RuntimeError, 'who called it is told');
  assert.deepEqual(exports.callback(), [], 'the browser may still call what the instance left with it');
  assert.deepEqual(calls, ['ran', 'socket closed']);
  assert.deepEqual(testimony, [{ log: 'board/1', reason: 'unreachable', own: '010203040a0b0c0d-7' }]);
  const other = guarded({ closure: trap }, () => {}) as unknown as { closure(): unknown };
  assert.deepEqual(other.closure(), [], 'and is not told');
});
