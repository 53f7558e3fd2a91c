/** Presence between two browsers: shown at once, the last value, in every tab, and gone with the connection. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually, startWorld } from './harness/story.mjs';

const shows = (tab, expected) => eventually(async () => assert.deepEqual(await tab.others(), expected));

test('what a browser says of itself shows in another, the last value, until it is gone', async (t) => {
  const world = await startWorld(t);
  const [first, second] = [await world.device(), await world.device()];
  const alice = await world.tab(first, { name: 'alice' });
  const bob = await world.tab(second, { name: 'bob' });
  const bobToo = await world.tab(second, { name: 'bob' });
  await alice.present({ at: 1 });
  await shows(bob, [['dev', { at: 1 }]]);
  await shows(bobToo, [['dev', { at: 1 }]]);
  for (let at = 2; at <= 40; at++) await alice.present({ at });
  await shows(bob, [['dev', { at: 40 }]]);
  // Whichever tab says it, it is the client that is present; and it does not hear itself.
  await bobToo.present('typing');
  await shows(alice, [['dev', 'typing']]);
  await bob.present('reading');
  await shows(alice, [['dev', 'reading']]);
  assert.deepEqual(await bob.others(), [['dev', { at: 40 }]]);
  // Nobody is known to be there while there is no connection, and all are when it is back.
  await bob.disconnect();
  await shows(alice, []);
  await shows(bob, []);
  await shows(bobToo, []);
  await bob.connect();
  await shows(alice, [['dev', 'reading']]);
  await shows(bobToo, [['dev', { at: 40 }]]);
  await alice.present(undefined);
  await shows(bob, []);
  await second.kill();
  await shows(alice, []);
});
