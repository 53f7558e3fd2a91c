/** From an action in one browser to the others: online, offline, reloaded, in several tabs. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { converge, eventually, startWorld } from './harness/story.mjs';

test('an action shows at once, is accepted, and shows in a second browser', async (t) => {
  const world = await startWorld(t);
  const [alice, bob] = [await world.tab(await world.device(), { name: 'alice' }), await world.tab(await world.device(), { name: 'bob' })];
  const write = await alice.act('addTodo', { id: 'a', title: 'milk' });
  assert.equal((await alice.todos())[0].title, 'milk');
  await alice.stored(write);
  assert.deepEqual((await alice.verdict(write)).offset, 0);
  await converge([alice, bob], 1);
  const { collections } = await world.server.snapshot('board/1');
  assert.equal(collections.todos.a.title, 'milk');
});

test('work done offline survives reloads while the server is stopped, and is shipped once', async (t) => {
  const world = await startWorld(t);
  const { proxy, url } = await world.link();
  const device = await world.device();
  const alice = await world.tab(device, { url });
  await alice.verdict(await alice.act('addTodo', { id: 'a', title: 'online' }));
  await world.server.stop();
  const write = await alice.act('addTodo', { id: 'b', title: 'offline' });
  await alice.stored(write);
  await alice.reload();
  assert.equal((await alice.entry(write)).status, 'stored');
  await alice.act('vote', { id: 'b' });
  await alice.stored(await alice.act('vote', { id: 'b' }));
  await alice.reload();
  assert.deepEqual((await alice.todos()).map(({ title, votes }) => [title, votes]), [['online', 0], ['offline', 2]]);
  await world.server.start();
  await alice.connect();
  await alice.shipped();
  assert.equal((await alice.entry(write)).status, 'accepted');
  assert.equal((await alice.state()).end, 4);
  await proxy.close();
});

test('concurrent work of two offline devices merges', async (t) => {
  const world = await startWorld(t);
  const [linkA, linkB] = [await world.link(), await world.link()];
  const alice = await world.tab(await world.device(), { name: 'alice', url: linkA.url });
  const bob = await world.tab(await world.device(), { name: 'bob', url: linkB.url });
  await alice.verdict(await alice.act('addTodo', { id: 'a', title: 'both' }));
  await alice.verdict(await alice.act('write', { id: 'a', at: 0, inserted: 'middle' }));
  await converge([alice, bob], 1);
  await linkA.proxy.close();
  await linkB.proxy.close();
  await alice.act('vote', { id: 'a', by: 2 });
  await bob.act('vote', { id: 'a', by: 3 });
  await alice.act('tag', { id: 'a', tag: 'red' });
  await bob.act('tag', { id: 'a', tag: 'blue' });
  await alice.act('write', { id: 'a', at: 0, inserted: 'start ' });
  await bob.act('write', { id: 'a', at: 6, inserted: ' end' });
  await bob.stored(await bob.act('addTodo', { id: 'b', title: 'of bob' }));
  await bob.reload();
  await linkA.proxy.open();
  await linkB.proxy.open();
  await alice.connect();
  await bob.connect();
  await converge([alice, bob], 2);
  const [merged] = await alice.todos();
  assert.equal(merged.votes, 5);
  assert.deepEqual(merged.tags, ['blue', 'red']);
  assert.equal(merged.note, 'start middle end');
});

test('an edit made offline brings back what was deleted meanwhile, where updates win', async (t) => {
  const world = await startWorld(t);
  const link = await world.link();
  const alice = await world.tab(await world.device(), { name: 'alice' });
  const bob = await world.tab(await world.device(), { name: 'bob', url: link.url });
  await alice.verdict(await alice.act('addPlan', { id: 'a', title: 'picnic' }));
  await eventually(async () => assert.equal((await bob.plans()).length, 1));
  await link.proxy.close();
  await bob.stored(await bob.act('votePlan', { id: 'a' }));
  await alice.verdict(await alice.act('removePlan', { id: 'a' }));
  assert.deepEqual([await alice.plans(), (await bob.plans()).length], [[], 1]);
  await alice.reload();
  await link.proxy.open();
  await bob.connect();
  const back = [{ id: 'a', title: 'picnic', votes: 1 }];
  await eventually(async () => assert.deepEqual([await alice.plans(), await bob.plans()], [back, back]));
  const { collections } = await world.server.snapshot('board/1');
  assert.deepEqual(collections.plans.a, { title: 'picnic', votes: 1 });
});

test('500 actions from each of two tabs at once give 1,000 on the server', async (t) => {
  const world = await startWorld(t);
  const device = await world.device();
  const [left, right] = [await world.tab(device), await world.tab(device)];
  await Promise.all([left.addMany(500, 'left'), right.addMany(500, 'right')]);
  await Promise.all([left.shipped(60_000), right.shipped(60_000)]);
  await converge([left, right], 1_000, 60_000);
  const { collections } = await world.server.snapshot('board/1');
  assert.equal(Object.keys(collections.todos).length, 1_000);
  assert.equal((await left.state()).end, 1_000);
});

test('a tab that is left takes over from the leader that was closed', async (t) => {
  const world = await startWorld(t);
  const device = await world.device();
  const [leader, follower] = [await world.tab(device), await world.tab(device)];
  await leader.verdict(await leader.act('addTodo', { id: 'a', title: 'by the leader' }));
  await eventually(async () => assert.equal((await follower.todos()).length, 1));
  await leader.page.close();
  const write = await follower.act('addTodo', { id: 'b', title: 'by the follower' });
  assert.equal((await follower.verdict(write)).offset, 1);
});

test('a new device catches up with what others did before', async (t) => {
  const world = await startWorld(t);
  const alice = await world.tab(await world.device(), { name: 'alice' });
  await alice.addMany(300, 'early');
  await alice.shipped();
  const bob = await world.tab(await world.device(), { name: 'bob' });
  await converge([alice, bob], 300);
});

test('without a secure context the client works and says what it cannot promise', async (t) => {
  // As a phone on the local network: a name that is not localhost, over http, with a token.
  const world = await startWorld(t, { secret: 'a secret of thirty-two characters' });
  const device = await world.device({ args: ['--host-resolver-rules=MAP driftlog.test 127.0.0.1'] });
  world.site.url = world.site.url.replace('127.0.0.1', 'driftlog.test');
  const alice = await world.tab(device, { token: await world.server.token({ sub: 'alice' }) });
  assert.equal(await alice.page.evaluate(() => globalThis.isSecureContext), false);
  const { storage } = await alice.state();
  assert.match(storage.reason, /Web Locks/);
  assert.equal((await alice.verdict(await alice.act('addTodo', { id: 'a', title: 'x' }))).offset, 0);
});
