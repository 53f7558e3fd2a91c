/** The harness itself: what the stories rely on is true of it. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { test } from 'node:test';
import { startBrowser } from './harness/browser.mjs';
import { servePage } from './harness/page.mjs';
import { startProxy } from './harness/proxy.mjs';

/** A server that answers every piece with the same piece. */
async function startEcho(t) {
  const server = createServer((socket) => socket.on('error', () => undefined).pipe(socket));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return server.address().port;
}

async function dial(port) {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  return socket;
}

test('a closed proxy cuts connections and refuses new ones until it is opened on the same port', async (t) => {
  const proxy = await startProxy(await startEcho(t));
  t.after(() => proxy.close());
  const socket = await dial(proxy.port);
  socket.write('hello');
  assert.equal(String((await once(socket, 'data'))[0]), 'hello');
  const cut = once(socket, 'close');
  await proxy.close();
  await cut;
  await assert.rejects(once(connect(proxy.port, '127.0.0.1'), 'connect'), { code: 'ECONNREFUSED' });
  const { port } = proxy;
  await proxy.open();
  assert.equal(proxy.port, port);
  (await dial(proxy.port)).destroy();
});

test('a black hole keeps connections up and lets nothing pass', async (t) => {
  const proxy = await startProxy(await startEcho(t));
  t.after(() => proxy.close());
  const socket = await dial(proxy.port);
  socket.write('before');
  await once(socket, 'data');
  proxy.blackHole();
  let heard = '';
  socket.on('data', (bytes) => (heard += bytes));
  socket.write('into the void');
  const late = await dial(proxy.port);
  late.write('me too');
  const cut = once(socket, 'close');
  assert.equal(proxy.bytes.down, 'before'.length);
  await proxy.open();
  await cut;
  assert.equal(heard, '');
});

test('a frame cut in the middle arrives by half', async (t) => {
  const proxy = await startProxy(await startEcho(t));
  t.after(() => proxy.close());
  const socket = await dial(proxy.port);
  const cut = proxy.cutInMidFrame('down');
  let heard = '';
  socket.on('data', (bytes) => (heard += bytes));
  const closed = once(socket, 'close');
  socket.write('0123456789');
  await cut;
  await closed;
  assert.equal(heard, '01234');
});

test('the package loads its wasm in Chromium, from base64 and from the exported file', async (t) => {
  const site = await servePage();
  t.after(() => site.close());
  const device = await startBrowser();
  t.after(() => device.kill());
  for (const source of ['packaged', 'fetched']) {
    const page = await device.open(site.url);
    const kind = await page.evaluate(async (source) => {
      const { initWasm } = await import('/driftlog/index.js');
      await initWasm(source === 'fetched' ? fetch('/driftlog/driftlog_bg.wasm') : undefined);
      return 'loaded';
    }, source);
    assert.equal(kind, 'loaded');
    await page.close();
  }
  assert.deepEqual(device.uncaught, []);
});

test('a strict transaction survives kill -9 of the browser', async (t) => {
  const site = await servePage();
  t.after(() => site.close());
  const device = await startBrowser();
  t.after(() => device.kill());
  const page = await device.open(site.url);
  await page.evaluate(
    () =>
      new Promise((resolve, reject) => {
        const opening = indexedDB.open('proof', 1);
        opening.onupgradeneeded = () => opening.result.createObjectStore('rows');
        opening.onerror = reject;
        opening.onsuccess = () => {
          const transaction = opening.result.transaction('rows', 'readwrite', { durability: 'strict' });
          transaction.objectStore('rows').put('kept', 'key');
          transaction.oncomplete = resolve;
        };
      }),
  );
  await device.kill();
  await device.start();
  const again = await device.open(site.url);
  const kept = await again.evaluate(
    () =>
      new Promise((resolve) => {
        const opening = indexedDB.open('proof', 1);
        opening.onsuccess = () => {
          const get = opening.result.transaction('rows').objectStore('rows').get('key');
          get.onsuccess = () => resolve(get.result);
        };
      }),
  );
  assert.equal(kept, 'kept');
});
