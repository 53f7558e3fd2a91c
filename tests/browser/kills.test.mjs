/** `kill -9` right after a promise was kept, and in the middle of writing: what was promised is there afterwards. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { converge, startWorld } from './harness/story.mjs';

const rounds = 20;

test('nothing accepted is missing after kill -9 of the server', async (t) => {
  const world = await startWorld(t);
  const alice = await world.tab(await world.device(), { name: 'alice' });
  for (let round = 0; round < rounds; round++) {
    const write = await alice.act('addTodo', { id: `todo-${round}`, title: String(round) });
    await alice.connect();
    assert.equal((await alice.verdict(write)).offset, round);
    await world.server.kill();
    await world.server.start();
  }
  const bob = await world.tab(await world.device(), { name: 'bob' });
  await alice.connect();
  await converge([alice, bob], rounds);
});

test('nothing stored is missing after kill -9 of the browser', async (t) => {
  const world = await startWorld(t);
  const device = await world.device();
  const written = [];
  for (let round = 0; round < rounds; round++) {
    const alice = await world.tab(device, { name: 'alice' });
    // What a browser did to its database after a kill shows in the state.
    assert.equal((await alice.todos()).length, round, JSON.stringify(await alice.state()));
    for (const id of written) assert.ok(['stored', 'accepted'].includes((await alice.entry(id))?.status), id);
    const write = await alice.act('addTodo', { id: `todo-${round}`, title: String(round) });
    await alice.stored(write);
    await device.kill();
    written.push(write);
    await device.start();
  }
  const alice = await world.tab(device, { name: 'alice' });
  await alice.shipped();
  const bob = await world.tab(await world.device(), { name: 'bob' });
  await converge([alice, bob], rounds);
});

test('nothing stored is missing after kill -9 of the browser in mid-write', async (t) => {
  const world = await startWorld(t);
  const device = await world.device();
  // What is stored stays pending: the link is cut until the end.
  const { proxy, url } = await world.link();
  await proxy.close();
  const stored = new Set();
  for (let round = 0; round < rounds; round++) {
    const alice = await world.tab(device, { name: 'alice', url });
    const found = new Map(await alice.fates());
    for (const id of stored) assert.equal(found.get(id), 'stored', `${id} in round ${round}`);
    // Each round is cut at another moment of the stream; more actions are under way whenever it is cut.
    const enough = stored.size + 1 + round * 3;
    await new Promise((resolve) => {
      void alice.pour(`round-${round}-`, (id) => {
        stored.add(id);
        if (stored.size >= enough) resolve();
      });
    });
    await device.kill();
    await device.start();
  }
  const alice = await world.tab(device, { name: 'alice', url });
  const { outbox } = await alice.state();
  assert.ok(outbox >= stored.size, `${outbox} pending, ${stored.size} stored`);
  await proxy.open();
  await alice.connect();
  await alice.shipped(60_000);
  const found = new Map(await alice.fates());
  // Of what is accepted only the newest is listed for ever; the board has all of it.
  for (const id of stored) assert.ok(['accepted', undefined].includes(found.get(id)), `${id} is ${found.get(id)}`);
  assert.equal((await alice.todos()).length, outbox);
});
