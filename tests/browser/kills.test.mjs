/** `kill -9` right after a promise was kept, and in the middle of writing: what was promised is there afterwards. */
import assert from 'node:assert/strict';
import { appendFileSync, existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import { converge, eventually, startWorld } from './harness/story.mjs';

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

test('half a record at the end of what the browser wrote costs nothing', async (t) => {
  const world = await startWorld(t);
  const device = await world.device();
  const { proxy, url } = await world.link();
  await proxy.close();
  const before = await world.tab(device, { name: 'alice', url });
  await before.stored(await before.act('addTodo', { id: 'before', title: 'x' }));
  await device.kill();
  const log = browserLog(device);
  appendFileSync(log, halfRecord);

  await device.start();
  const behind = await world.tab(device, { name: 'alice', url });
  await behind.stored(await behind.act('addTodo', { id: 'behind', title: 'x' }));
  // On a machine that is busy a sync alone may take seconds.
  await eventually(async () => assert.ok(!existsSync(log), `it goes on behind half a record:\n${told(device)}`), 60_000);
  await behind.stored(await behind.act('addTodo', { id: 'rolled', title: 'x' }));
  await device.kill();

  await device.start();
  const after = await world.tab(device, { name: 'alice', url });
  assert.deepEqual((await after.todos()).map(({ id }) => id).toSorted(), ['before', 'behind', 'rolled']);
  assert.equal((await after.state()).storage.lost, undefined);
  await proxy.open();
  await after.connect();
  await after.shipped();
});

test('a page is told that the browser found its database damaged and deleted it', async (t) => {
  const world = await startWorld(t);
  const device = await world.device();
  const { proxy, url } = await world.link();
  const before = await world.tab(device, { name: 'alice', url });
  await before.act('addTodo', { id: 'accepted', title: 'x' });
  await before.shipped();
  await proxy.close();
  await before.stored(await before.act('addTodo', { id: 'only here', title: 'x' }));
  await device.kill();
  const log = browserLog(device);
  const bytes = readFileSync(log);
  bytes[bytes.length >> 1] ^= 1;
  writeFileSync(log, bytes);

  await device.start();
  const after = await world.tab(device, { name: 'alice', url });
  assert.match((await after.state()).storage.lost, /corrupt/);
  await proxy.open();
  await after.connect();
  await eventually(async () => assert.deepEqual((await after.todos()).map(({ id }) => id), ['accepted']));
  await after.act('addTodo', { id: 'later', title: 'x' });
  await after.shipped();
  await after.reload();
  assert.equal((await after.state()).storage.lost, undefined);
});

/** A header of LevelDB (checksum, length, type) without its payload: what a kill between the two writes leaves. */
const halfRecord = Buffer.from([0xaa, 0xab, 0xac, 0xad, 100, 0, 1]);

/** The files of the LevelDB in which a Chromium keeps the databases of the page. */
function browserFiles(device) {
  const folder = join(device.folder, 'Default', 'IndexedDB');
  return readdirSync(folder, { recursive: true }).map((path) => join(folder, path));
}

/** The log that a killed browser wrote last; a kill while it was rolled leaves the one before, too. */
function browserLog(device) {
  const logs = browserFiles(device).filter((path) => path.endsWith('.log'));
  assert.ok(logs.length > 0, 'this Chromium keeps IndexedDB in something else than LevelDB');
  return logs.toSorted().at(-1);
}

/** What LevelDB says that it did, and what there is. */
function told(device) {
  const files = browserFiles(device);
  return [...files, readFileSync(files.find((path) => basename(path) === 'LOG'), 'utf8'), ...device.console].join('\n');
}
