/**
 * The figures of `npm run bench`: each starts a server and browsers of its own, so that none warms the next.
 *
 * A figure is `{ name, measure(stage) }` and gives plain numbers with their unit in the name.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';
import { root } from '../run.mjs';

/** In the order of the table in docs/performance.md. */
export const figures = [
  {
    name: 'local action to view',
    measure: async (stage) => (await stage.open()).actionToView({ name: 'local', id: '1' }, 5_000),
  },
  {
    name: 'durable local actions, awaited',
    measure: async (stage) => ({ per_second: await (await stage.open()).durableAwaited({ name: 'local', id: '1' }, 3_000) }),
  },
  {
    name: 'durable local actions, pipelined',
    measure: async (stage) => ({ per_second: await (await stage.open()).durablePipelined({ name: 'local', id: '1' }, 20_000) }),
  },
  { name: 'cold start with 10,000 records', measure: coldStart },
  { name: 'live query update at 100,000 records', measure: liveQuery },
  { name: 'server durable ingest, 1 writer', measure: (stage) => ingest(stage, 1) },
  { name: 'server durable ingest, 10 writers', measure: (stage) => ingest(stage, 10) },
  { name: 'fan-out to 20 readers', measure: (stage) => fanOut(stage, 20, 50) },
  { name: 'fan-out to 200 readers', measure: (stage) => fanOut(stage, 200, 200) },
  { name: 'bytes per action, one by one', measure: bytesPerAction },
  { name: 'bytes per action, pipelined', measure: bytesPipelined },
  { name: 'catch-up of 10,000 entries', measure: (stage) => catchUp(stage, 10_000) },
  { name: 'catch-up of 50,000 entries', measure: (stage) => catchUp(stage, 50_000) },
  { name: 'server memory per idle connection', measure: idleMemory },
  { name: 'wasm size', measure: wasmSize },
  { name: 'cost per rich change', measure: richChanges },
];

async function coldStart(stage) {
  const device = await stage.device();
  const url = await stage.url();
  const first = await stage.open({ device });
  await first.fill({ name: 'cold', id: '1', url }, 10_000);
  await first.closeAll();
  await device.close();
  await device.start();
  return (await stage.open({ device })).coldStart({ name: 'cold', id: '1' });
}

async function liveQuery(stage) {
  const page = await stage.open();
  await page.fill({ name: 'live', id: '1' }, 100_000, 1_000);
  return page.liveQuery({ name: 'live', id: '1' }, 100_000, 1_000);
}

async function ingest(stage, writers) {
  const url = await stage.url();
  const each = Array.from({ length: writers }, (_, index) => ({ name: `writer-${index}`, id: String(index), url }));
  return { per_second: await (await stage.open()).ingest(each, 20_000) };
}

/** All readers run in one page: what is sent must come slower than the page can take it, or its queue is measured. */
async function fanOut(stage, readers, apartMs) {
  const url = await stage.url();
  const [reading, writing] = [await stage.open(), await stage.open()];
  const sends = 100;
  await reading.listen(Array.from({ length: readers }, (_, index) => ({ name: `reader-${index}`, id: '1', url, storage: 'memory' })));
  await writing.send({ name: 'writer', id: '1', url }, sends, apartMs);
  await stage.until(async () => (await reading.delivered()) >= sends * readers);
  return { ...(await reading.delays()), sends_per_second: 1_000 / apartMs };
}

async function bytesPerAction(stage) {
  return bytes(stage, 1_000, (page, options) => page.send(options, 1_000));
}

async function bytesPipelined(stage) {
  return bytes(stage, 10_000, (page, options) => page.addEntries(options, 10_000));
}

async function bytes(stage, count, act) {
  const [up, down] = [await stage.link(), await stage.link()];
  const [reading, writing] = [await stage.open(), await stage.open()];
  await reading.listen([{ name: 'reader', id: '1', url: down.url, storage: 'memory' }]);
  const before = { up: up.bytes.up, down: down.bytes.down };
  const caughtUp = reading.catchUp({ name: 'second reader', id: '1', url: await stage.url(), storage: 'memory' }, count);
  await act(writing, { name: 'writer', id: '1', url: up.url });
  await caughtUp;
  return { up: (up.bytes.up - before.up) / count, down: (down.bytes.down - before.down) / count };
}

async function catchUp(stage, entries) {
  const url = await stage.url();
  await (await stage.open()).addEntries({ name: 'writer', id: '1', url }, entries);
  return { ms: await (await stage.open()).catchUp({ name: 'new device', id: '1', url }, entries) };
}

async function idleMemory(stage) {
  const connections = 200;
  const url = await stage.url();
  const page = await stage.open();
  const join = (from, count) => page.listen(Array.from({ length: count }, (_, index) => ({ name: `idle-${from + index}`, id: '1', url, storage: 'memory' })));
  // The first ones fill the caches that all share.
  await join(0, 20);
  const before = residentBytes((await stage.server()).pid);
  await join(20, connections);
  return { kilobytes: (residentBytes((await stage.server()).pid) - before) / 1000 / connections, connections };
}

function residentBytes(pid) {
  if (process.platform === 'win32') {
    return Number(execFileSync('powershell', ['-NoProfile', '-Command', `(Get-Process -Id ${pid}).WorkingSet64`], { encoding: 'utf8' }));
  }
  return Number(execFileSync('ps', ['-o', 'rss=', '-p', String(pid)], { encoding: 'utf8' })) * 1024;
}

async function wasmSize() {
  const bytes = readFileSync(join(root, 'wasm', 'dist', 'driftlog_bg.wasm'));
  const brotli = brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } });
  return { raw_bytes: bytes.length, gzip_bytes: gzipSync(bytes, { level: 9 }).length, brotli_bytes: brotli.length };
}

async function richChanges(stage) {
  const costs = await (await stage.open()).richChanges({ name: 'rich', url: await stage.url(), marks: [1_000, 10_000, 100_000], sample: 500 });
  return Object.fromEntries(Object.entries(costs).flatMap(([mark, { p50_ms, p99_ms }]) => [[`p50_ms_at_${mark}`, p50_ms], [`p99_ms_at_${mark}`, p99_ms]]));
}
