/**
 * One flipped bit in each row of a real database: found, never applied, and nothing lost that was whole.
 *
 * Which bit does not matter here: `tests/engine/integrity.rs` takes every one, on a database in memory.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually, startWorld } from './harness/story.mjs';

/** First byte of the keys of own entries. */
const own = '11';
/** Seqs from here on are pending when the bit flips. */
const pendingFrom = 3;

test('a flipped bit in any row of IndexedDB is found, and costs at most the pending entry that it is in', async (t) => {
  const world = await startWorld(t);
  const device = await world.device();
  const reader = await world.device();
  const taken = new Set();
  let parked = 0;
  for (let index = 0; ; index++) {
    // A client and a board of its own: the server remembers what became of each seq.
    const name = `case-${index}`;
    const page = await leave(world, device, name);
    const [place, key] = [...places(await page.evaluate(rowKeys, name))].find(([place]) => !taken.has(place)) ?? [];
    if (!place) break;
    taken.add(place);
    await page.evaluate(flipBit, [name, key, 100 + index * 7]);
    const alice = await world.tab(device, { name, id: name });
    await alice.connect();
    await alice.shipped();
    const { deadLetters, log, outbox } = await alice.state();
    assert.deepEqual({ log, outbox }, { log: 'synced', outbox: 0 }, key);
    const seq = parseInt(key.slice(-16), 16);
    const isPending = key.startsWith(own) && seq >= pendingFrom;
    assert.equal(deadLetters, isPending ? 1 : 0, key);
    parked += deadLetters;
    const shown = await alice.todos();
    assert.equal(shown.length, 4 - deadLetters, key);
    const bob = await world.tab(reader, { name: `bob-${index}`, id: name });
    await eventually(async () => assert.deepEqual(await bob.todos(), shown, key));
    await Promise.all([alice.page.close(), bob.page.close(), page.close()]);
  }
  assert.equal(parked, 2);
  assert.ok(taken.size >= 8, `few rows: ${[...taken]}`);
});

/** A client with two accepted and two pending to-dos, each of the latter in a row of its own, and its tab gone. */
async function leave(world, device, name) {
  const tab = await world.tab(device, { name, id: name });
  for (const id of ['milk', 'tea']) await tab.act('addTodo', { id, title: id });
  await tab.shipped();
  await tab.disconnect();
  for (const id of ['salt', 'figs']) await tab.stored(await tab.act('addTodo', { id, title: id }));
  await tab.close();
  return tab.page;
}

/**
 * Keys by their table and their place in it, counted from its end: how many rows hold what was accepted differs from
 * run to run.
 */
function places(keys) {
  const counts = new Map();
  const named = keys.toReversed().map((key) => {
    const table = key.slice(0, 2);
    counts.set(table, (counts.get(table) ?? 0) + 1);
    return [`${table}-${counts.get(table)}`, key];
  });
  return new Map(named);
}

/** In the page: the keys of all rows, in hex. */
function rowKeys(name) {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open(`driftlog:${name}`);
    opening.onerror = () => reject(opening.error);
    opening.onsuccess = () => {
      const database = opening.result;
      const keys = database.transaction('rows').objectStore('rows').getAllKeys();
      keys.onsuccess = () => {
        database.close();
        resolve(keys.result.map((key) => [...new Uint8Array(key)].map((byte) => byte.toString(16).padStart(2, '0')).join('')));
      };
    };
  });
}

/** In the page: flips a bit of a row's value; counts on from the start when the row is shorter. */
function flipBit([name, key, bit]) {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open(`driftlog:${name}`);
    opening.onerror = () => reject(opening.error);
    opening.onsuccess = () => {
      const database = opening.result;
      const transaction = database.transaction('rows', 'readwrite');
      const rows = transaction.objectStore('rows');
      const bytes = Uint8Array.from(key.match(/../g), (byte) => parseInt(byte, 16));
      const reading = rows.get(bytes);
      reading.onsuccess = () => {
        const value = reading.result;
        value[(bit >> 3) % value.length] ^= 1 << (bit & 7);
        rows.put(value, bytes);
      };
      transaction.onabort = () => reject(transaction.error);
      transaction.oncomplete = () => {
        database.close();
        resolve();
      };
    };
  });
}
