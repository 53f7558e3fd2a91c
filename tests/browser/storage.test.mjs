/** The local database when it is well, when it breaks in mid-commit, and when it is gone. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startBrowser } from './harness/browser.mjs';
import { servePage } from './harness/page.mjs';
import { converge, eventually, startWorld } from './harness/story.mjs';
import { bindForTesting } from './harness/testing.mjs';

const acts = 100;

test('IndexedDB and memory pass the conformance suite of stores', async (t) => {
  const page = await testingPage(t);
  const passed = (kind) => page.evaluate((kind) => globalThis.wasm.store_conformance(kind, 'conformance'), kind);
  const [memory, indexedDb] = [await passed('memory'), await passed('indexeddb')];
  assert.equal(memory, indexedDb);
  await page.evaluate(() => globalThis.wasm.store_connection_loss('loss'));
  await page.evaluate(
    () =>
      new Promise((resolve, reject) => {
        const deletion = indexedDB.deleteDatabase('loss');
        deletion.onsuccess = resolve;
        deletion.onblocked = () => reject(new Error('a store that was closed holds a connection'));
      }),
  );
});

test('commits with an unknown outcome lose nothing and double nothing', async (t) => {
  const world = await startWorld(t);
  const { proxy, url } = await world.link();
  const alice = await world.tab(await world.device(), { url });
  await proxy.close();
  await alice.page.evaluate(breakStore, 0.3);
  const written = [];
  for (let index = 0; index < acts; index++) {
    written.push(await alice.act('addTodo', { id: `todo-${index}`, title: 'x' }));
    written.push(await alice.act('vote', { id: `todo-${index}` }));
  }
  for (const write of written) await alice.stored(write);
  const faults = await alice.page.evaluate(() => globalThis.faults);
  assert.ok(Math.min(...Object.values(faults)) > 0, JSON.stringify(faults));
  await alice.reload();
  assert.deepEqual((await alice.todos()).map(({ votes }) => votes), Array(acts).fill(1));
  await proxy.open();
  await alice.connect();
  await alice.shipped();
  const bob = await world.tab(await world.device(), { name: 'bob' });
  await converge([alice, bob], acts);
  assert.equal((await bob.state()).end, 2 * acts);
});

test('an action on a deleted database is refused by name and leaves the view', async (t) => {
  const world = await startWorld(t);
  const alice = await world.tab(await world.device());
  await alice.stored(await alice.act('addTodo', { id: 'kept', title: 'x' }));
  await alice.page.evaluate(
    () =>
      new Promise((resolve, reject) => {
        const deletion = indexedDB.deleteDatabase('driftlog:alice');
        deletion.onsuccess = resolve;
        deletion.onerror = reject;
      }),
  );
  const write = await alice.act('addTodo', { id: 'late', title: 'x' });
  await assert.rejects(alice.stored(write), /storage-failed/);
  await eventually(async () => assert.deepEqual((await alice.todos()).map(({ id }) => id), ['kept']));
});

/**
 * In the page: some transactions throw before they write, some lose their connection, and some are complete but say
 * that they were aborted.
 */
function breakStore(rate) {
  globalThis.faults = { thrown: 0, closed: 0, denied: 0 };
  const { add } = IDBObjectStore.prototype;
  const { commit } = IDBTransaction.prototype;
  IDBObjectStore.prototype.add = function (...row) {
    const chance = Math.random();
    if (chance < rate / 3) {
      globalThis.faults.thrown++;
      throw new DOMException('Connection to Indexed Database server lost', 'UnknownError');
    }
    if (chance < (rate * 2) / 3) {
      globalThis.faults.closed++;
      this.transaction.db.close();
    }
    return add.apply(this, row);
  };
  IDBTransaction.prototype.commit = function () {
    if (this.mode === 'readwrite' && Math.random() < rate / 2) {
      globalThis.faults.denied++;
      const { onabort } = this;
      this.oncomplete = null;
      this.onabort = null;
      this.addEventListener('complete', () => onabort?.call(this, new Event('abort')));
    }
    return commit.call(this);
  };
}

/** A page with the engine built for tests: `globalThis.wasm` are its exports. */
async function testingPage(t) {
  const site = await servePage({ folders: { '/testing/': await bindForTesting() } });
  t.after(() => site.close());
  const device = await startBrowser();
  t.after(() => device.kill());
  const page = await device.open(site.url);
  await page.evaluate(async () => {
    globalThis.wasm = await import('/testing/driftlog.js');
    await globalThis.wasm.default({ module_or_path: '/testing/driftlog_bg.wasm' });
  });
  return page;
}
