/** Poison in real browsers: entries that the engine does not come back from, and entries that a fold cannot take. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { converge, eventually, startWorld } from './harness/story.mjs';
import { packageForTesting } from './harness/testing.mjs';

/** A world whose package traps where its pages say so. */
async function startTrappingWorld(t) {
  return startWorld(t, {}, { '/driftlog/': await packageForTesting() });
}

/** In the page: from now on its engine traps when it works on this, so many times at most. */
function setTrap([kind, at, times]) {
  globalThis.traps = 0;
  globalThis.driftlogTraps = (_log, worked, where) => {
    if (worked !== kind || where !== at || globalThis.traps >= times) return false;
    globalThis.traps++;
    return true;
  };
}

const trapOn = (tab, kind, at, times = 1_000) => tab.page.evaluate(setTrap, [kind, at, times]);

const traps = (tab) => tab.page.evaluate(() => globalThis.traps);
const titles = async (tab) => (await tab.todos()).map(({ title }) => title);

test('an own pending action that traps is a dead letter in the end, and everything else goes on as if it were not there', async (t) => {
  const world = await startTrappingWorld(t);
  const { proxy, url } = await world.link();
  const device = await world.device();
  const alice = await world.tab(device, { url });
  await alice.verdict(await alice.act('addTodo', { id: 'a', title: 'before' }));
  await proxy.close();
  const milk = await alice.act('addTodo', { id: 'b', title: 'milk' });
  const poison = await alice.act('addTodo', { id: 'c', title: 'poison' });
  const tea = await alice.act('addTodo', { id: 'd', title: 'tea' });
  await alice.stored(tea);
  await trapOn(alice, 'own', poison);
  await proxy.open();
  await alice.connect();
  assert.equal((await alice.verdict(poison)).code, 'trapped', 'the promise of before the traps');
  assert.equal(await traps(alice), 3);
  const [first, last] = [await alice.verdict(milk), await alice.verdict(tea)];
  assert.ok(first.offset === 1 && last.offset > 1, JSON.stringify([first, last]));
  assert.deepEqual(await titles(alice), ['before', 'milk', 'tea'], 'the query of before the traps');
  assert.deepEqual([(await alice.state()).deadLetters, (await alice.state()).log], [1, 'synced']);
  const bob = await world.tab(await world.device(), { name: 'bob' });
  await converge([alice, bob], 3);
  await alice.verdict(await alice.act('vote', { id: 'b' }));
  await eventually(async () => assert.equal((await bob.todos())[1].votes, 1));
  await alice.reload();
  assert.deepEqual((await alice.entry(poison)).code, 'trapped');
  assert.deepEqual(device.uncaught, [], 'the page never saw an error that it did not ask for');
});

test('a page that starts on an action that traps opens all the same, without it', async (t) => {
  const world = await startTrappingWorld(t);
  const { proxy, url } = await world.link();
  const device = await world.device();
  const alice = await world.tab(device, { url });
  await proxy.close();
  const milk = await alice.act('addTodo', { id: 'a', title: 'milk' });
  const poison = await alice.act('addTodo', { id: 'b', title: 'poison' });
  await alice.stored(poison);
  await alice.page.addInitScript(setTrap, ['own', poison, 1_000]);
  await alice.reload();
  assert.equal(await traps(alice), 3, 'it opened with the engine that gave it up');
  assert.deepEqual(await titles(alice), ['milk']);
  assert.equal((await alice.entry(poison)).code, 'trapped');
  await proxy.open();
  await alice.connect();
  await alice.shipped();
  assert.equal((await alice.entry(milk)).status, 'accepted');
  assert.deepEqual(device.uncaught, []);
});

test('an action that was not stored when the engine trapped is stored once, under its id', async (t) => {
  const world = await startTrappingWorld(t);
  const alice = await world.tab(await world.device());
  await alice.verdict(await alice.act('addTodo', { id: 'a', title: 'before' }));
  const [milk, thrown] = await alice.page.evaluate(() => {
    const milk = globalThis.board.act('addTodo', { id: 'b', title: 'milk' });
    globalThis.driftlogTraps = () => {
      globalThis.driftlogTraps = undefined;
      return true;
    };
    try {
      // In the same tick, so nothing of the first one can be stored yet.
      globalThis.board.act('addTodo', { id: 'c', title: 'traps' });
    } catch ({ code }) {
      return [milk, code];
    }
    return [milk, 'nothing'];
  });
  assert.equal(thrown, 'engine-failed', 'what trapped at the call is told at the call, and is not recorded');
  await alice.stored(milk);
  assert.equal((await alice.verdict(milk)).offset, 1);
  assert.deepEqual(await titles(alice), ['before', 'milk']);
  assert.equal((await alice.entry(milk)).status, 'accepted');
  const bob = await world.tab(await world.device(), { name: 'bob' });
  await converge([alice, bob], 2);
});

test('a confirmed entry that traps is never skipped: the log waits, visibly, for a snapshot that covers it', async (t) => {
  const world = await startTrappingWorld(t);
  const { proxy, url } = await world.link();
  const alice = await world.tab(await world.device(), { url });
  const bob = await world.tab(await world.device(), { name: 'bob' });
  await bob.addMany(3, 'early');
  await converge([alice, bob], 3);
  await trapOn(alice, 'confirmed', '3');
  await bob.verdict(await bob.act('addTodo', { id: 'poison', title: 'poison' }));
  await eventually(async () => {
    const { log, end, why } = await alice.state();
    assert.deepEqual([log, end, /offset 3/.test(why)], ['degraded', 3, true]);
  });
  assert.equal(await traps(alice), 3);
  const own = await alice.act('addTodo', { id: 'own', title: 'of alice' });
  assert.ok((await alice.verdict(own)).offset >= 4, 'local work goes on, and is shipped');
  assert.equal((await alice.todos()).length, 4, 'what is confirmed behind the entry is not shown without it');
  await alice.reload();
  await trapOn(alice, 'confirmed', '3');
  assert.deepEqual([(await alice.state()).log, (await alice.state()).end], ['degraded', 3], 'also after a reload');
  // Enough for the server to make a snapshot.
  for (let n = 0; n < 8; n++) await bob.verdict(await bob.act('addTodo', { id: `big${n}`, title: 'x'.repeat(100_000) }));
  await eventually(async () => {
    await proxy.close();
    await proxy.open();
    await alice.connect();
    await eventually(async () => assert.equal((await alice.state()).log, 'synced'), 3_000);
  }, 60_000);
  await converge([alice, bob], 13);
  assert.equal(await traps(alice), 0, 'it was not worked on again');
});

test('other tabs are not harmed by a tab that traps, and the lead is taken again', async (t) => {
  const world = await startTrappingWorld(t);
  const device = await world.device();
  const [left, right] = [await world.tab(device), await world.tab(device)];
  await left.verdict(await left.act('addTodo', { id: 'a', title: 'by the leader' }));
  await eventually(async () => assert.equal((await right.todos()).length, 1));
  // Each tab in its turn: whichever leads, it traps once and is well again.
  for (const [tab, other, id] of [[left, right, 'b'], [right, left, 'c']]) {
    await trapOn(tab, 'confirmed', id === 'b' ? '1' : '3', 1);
    await other.verdict(await other.act('addTodo', { id, title: id }));
    await eventually(async () => assert.equal(await traps(tab), 1));
    await eventually(async () => assert.deepEqual([(await tab.state()).log, (await other.state()).log], ['synced', 'synced']));
    await tab.verdict(await tab.act('vote', { id }));
    await converge([left, right], id === 'b' ? 2 : 3);
  }
});

test('a poison entry is parked by the fold that cannot take it, and the page goes on', async (t) => {
  const world = await startWorld(t);
  const device = await world.device();
  const alice = await world.tab(device);
  await alice.folded();
  for (const [id, title] of [['a', 'milk'], ['b', 'poison'], ['c', 'tea'], ['d', 'rice']]) {
    await alice.verdict(await alice.act('addTodo', { id, title }));
  }
  await eventually(async () => {
    const { value, parked, state } = await alice.folded();
    assert.deepEqual([value, state, parked.length], [3, 'live', 1]);
    assert.deepEqual([parked[0].offset, parked[0].args.title, parked[0].reason], [1, 'poison', 'RangeError: not this one']);
  });
  assert.equal((await alice.todos()).length, 4, 'only the fold left it out');
  await alice.reload();
  await eventually(async () => assert.deepEqual([(await alice.folded()).value, (await alice.folded()).parked.length], [3, 1]));
  assert.deepEqual(device.uncaught, []);
});

test('an outage of a fold parks nothing, and it resumes by itself', async (t) => {
  const world = await startWorld(t);
  const alice = await world.tab(await world.device());
  await alice.verdict(await alice.act('addTodo', { id: 'first', title: 'x' }));
  // Folded as confirmed, not only on top: what the outage meets first is `during`.
  await eventually(async () => assert.deepEqual([(await alice.folded()).value, (await alice.folded()).end], [1, 1]));
  await alice.page.evaluate(() => (globalThis.outage = true));
  await alice.addMany(30, 'during');
  await alice.shipped();
  await eventually(async () => assert.equal((await alice.folded()).breaker, 'open'));
  assert.deepEqual([(await alice.folded()).value, (await alice.folded()).parked], [1, []]);
  assert.equal((await alice.todos()).length, 31);
  await alice.page.evaluate(() => (globalThis.outage = false));
  await eventually(async () => {
    const { value, breaker, parked } = await alice.folded();
    assert.deepEqual([value, breaker, parked], [31, 'closed', []]);
  }, 60_000);
});
