/** `kill -9` right after a promise was kept: what was promised is there afterwards, 20 times each. */
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
    assert.equal((await alice.todos()).length, round);
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
