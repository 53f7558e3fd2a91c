/** Own work that piles up: at the bound nothing more is recorded, and nothing that was recorded is lost. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually, startWorld } from './harness/story.mjs';

test('at the bound of the backlog `do` throws, also after a reload, until the server has answered', async (t) => {
  const world = await startWorld(t);
  const { proxy, url } = await world.link();
  const alice = await world.tab(await world.device(), { url, backlog: { count: 4 } });
  await alice.verdict(await alice.act('addTodo', { id: 'a', title: 'milk' }));
  await proxy.close();
  for (const level of ['none', 'none', 'high', 'full']) {
    await alice.stored(await alice.act('vote', { id: 'a' }));
    assert.equal((await alice.pressure()).log.state, level);
  }
  assert.equal(await alice.attempt('vote', { id: 'a' }), 'backlog-full');
  await alice.reload();
  assert.equal(await alice.attempt('vote', { id: 'a' }), 'backlog-full');
  assert.equal((await alice.todos())[0].votes, 4);
  const { log, all } = await alice.pressure();
  assert.deepEqual([log.state, log.count, all.state, all.count, all.log], ['full', 4, 'full', 4, 'board/1']);
  assert.match(log.reason, /^4 actions \(\d+ bytes\) wait for the server/);
  await proxy.open();
  await alice.connect();
  await alice.shipped();
  await eventually(async () => assert.equal((await alice.pressure()).all.state, 'none'));
  await alice.verdict(await alice.act('vote', { id: 'a' }));
  const { collections } = await world.server.snapshot('board/1');
  assert.equal(collections.todos.a.votes, 5);
});
