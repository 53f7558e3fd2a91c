/** Links that break in mid-work: whatever breaks, every action arrives once. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startBrowser } from './harness/browser.mjs';
import { servePage } from './harness/page.mjs';
import { converge, eventually, startWorld } from './harness/story.mjs';
import { bindForTesting } from './harness/testing.mjs';

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

test('answers are taken in before the entries that wait in the page, and nothing else is', async (t) => {
  const site = await servePage({ folders: { '/testing/': await bindForTesting() } });
  t.after(() => site.close());
  const device = await startBrowser();
  t.after(() => device.kill());
  const page = await device.open(site.url);
  const told = await page.evaluate(async () => {
    const [opened, ack, entries, pong, error] = [17, 18, 19, 34, 35];
    const sockets = [];
    globalThis.WebSocket = class {
      constructor() {
        sockets.push(this);
      }
      close() {}
    };
    const wasm = await import('/testing/driftlog.js');
    await wasm.default({ module_or_path: '/testing/driftlog_bg.wasm' });
    const brings = (socket, type, length) => {
      const frame = new Uint8Array(length);
      frame.set([0x92, type], 4);
      socket.onmessage({ data: frame.buffer });
    };
    const tasks = async (count) => {
      for (; count > 0; count--) await new Promise((resolve) => setTimeout(resolve));
    };
    const socket = wasm.TestSocket.open('ws://nowhere', 1);
    const [raw] = sockets;
    raw.onopen();
    for (const type of [opened, entries, pong]) brings(raw, type, 100);
    const small = socket.events();
    for (let count = 0; count < 3; count++) brings(raw, entries, 64_000);
    brings(raw, ack, 200);
    const overtaken = socket.events();
    brings(raw, error, 200);
    for (const type of [ack, pong, opened]) brings(raw, type, 200);
    raw.onclose({ code: 1006, reason: '' });
    const waiting = socket.events();
    await tasks(20);
    const all = socket.events();
    const dropped = wasm.TestSocket.open('ws://nowhere', 2);
    brings(sockets[1], entries, 64_000);
    dropped.free();
    await tasks(5);
    return { small, overtaken, waiting, all };
  });
  const frames = (...types) => types.map((type) => `1 Frame ${type}`);
  const begin = ['1 Opened', ...frames(17, 19, 34)];
  assert.deepEqual(told.small, begin, 'what is small is taken in at once while nothing waits');
  assert.deepEqual(told.overtaken, [...begin, ...frames(18)]);
  assert.deepEqual(told.waiting, told.overtaken, 'behind an error nothing passes it');
  assert.deepEqual(told.all.slice(begin.length + 1, -1), frames(19, 19, 19, 35, 18, 34, 17));
  assert.match(told.all.at(-1), /^1 Closed/);
  assert.deepEqual(device.console, [], 'a socket that was dropped with a frame in it is silent');
});
