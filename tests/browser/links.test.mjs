/** Links that break in mid-work: whatever breaks, every action arrives once. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { converge, eventually, startWorld } from './harness/story.mjs';

/** A writer behind a link that can be broken, and a reader with a good one. */
async function startPair(t) {
  const world = await startWorld(t);
  const { proxy, url } = await world.link();
  const writer = await world.tab(await world.device(), { name: 'writer', url });
  const reader = await world.tab(await world.device(), { name: 'reader' });
  await writer.verdict(await writer.act('addTodo', { id: 'a', title: 'first' }));
  return { world, proxy, writer, reader };
}

test('a link that closes loses nothing and doubles nothing', async (t) => {
  const { proxy, writer, reader } = await startPair(t);
  for (let round = 0; round < 3; round++) {
    await writer.act('vote', { id: 'a' });
    await proxy.close();
    await writer.act('vote', { id: 'a' });
    await eventually(async () => assert.notEqual((await writer.state()).connection, 'live'));
    await proxy.open();
    await writer.connect();
    await writer.shipped();
  }
  await converge([writer, reader], 1);
  assert.equal((await reader.todos())[0].votes, 6);
});

test('a black hole is noticed, and what fell into it arrives later, once', async (t) => {
  const { proxy, writer, reader } = await startPair(t);
  proxy.blackHole();
  await writer.stored(await writer.act('vote', { id: 'a' }));
  await eventually(async () => assert.notEqual((await writer.state()).connection, 'live'), 90_000);
  await proxy.open();
  await writer.connect();
  await writer.shipped();
  await converge([writer, reader], 1);
  assert.equal((await reader.todos())[0].votes, 1);
});

for (const direction of ['up', 'down']) {
  test(`a frame cut in the middle on its way ${direction} is sent again, once`, async (t) => {
    const { proxy, writer, reader } = await startPair(t);
    const cut = proxy.cutInMidFrame(direction);
    const write = await writer.act('vote', { id: 'a' });
    await cut;
    await writer.connect();
    assert.equal(typeof (await writer.verdict(write)).offset, 'number');
    await converge([writer, reader], 1);
    assert.equal((await reader.todos())[0].votes, 1);
  });
}

test('a browser in offline mode works on, and ships when it is back', async (t) => {
  const world = await startWorld(t);
  const device = await world.device();
  const alice = await world.tab(device);
  await alice.verdict(await alice.act('addTodo', { id: 'a', title: 'x' }));
  await device.context.setOffline(true);
  await alice.disconnect();
  await alice.stored(await alice.act('vote', { id: 'a' }));
  assert.equal((await alice.state()).outbox, 1);
  await device.context.setOffline(false);
  await alice.connect();
  await alice.shipped();
});
