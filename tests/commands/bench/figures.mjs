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
import { scaleFigures } from './scale.mjs';

/** Clients of one page: their memories must fit its address space. */
const readersAPage = 50;

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
  { name: 'poison at 1 % of the input', measure: poison },
  { name: 'fan-out with one stuck reader', measure: stuckReader },
  { name: 'typing through gate workers', measure: gateWorkers },
  { name: 'small write beside a bulk transfer', measure: smallWrite },
  ...scaleFigures,
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

/** Readers share few pages: what is sent must come slower than a page can take it, or its queue is measured. */
async function fanOut(stage, readers, apartMs) {
  const url = await stage.url();
  const writing = await stage.open();
  const sends = 100;
  const reading = await readersOf(stage, Array.from({ length: readers }, () => url));
  await writing.send({ name: 'writer', id: '1', url }, sends, apartMs);
  await stage.until(async () => (await reading.delivered()) >= sends * readers);
  return { ...(await reading.takeDelays()), sends_per_second: 1_000 / apartMs };
}

/** A reader of the same board at each of these addresses. Each client has a wasm memory of its own; a page holds some dozens. */
async function readersOf(stage, urls) {
  const options = urls.map((url, index) => ({ name: `reader-${index}`, id: '1', url, storage: 'memory' }));
  const pages = [];
  for (let at = 0; at < options.length; at += readersAPage) {
    pages.push(await stage.open());
    await pages.at(-1).listen(options.slice(at, at + readersAPage));
  }
  const all = (method) => Promise.all(pages.map((page) => page[method]()));
  return {
    delivered: async () => (await all('delivered')).reduce((sum, count) => sum + count, 0),
    takeDelays: async () => quantiles((await all('takeDelays')).flat()),
  };
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
  const join = (count) => readersOf(stage, Array.from({ length: count }, () => url));
  // The first ones fill the caches that all share.
  await join(20);
  const before = residentBytes((await stage.server()).pid);
  await join(connections);
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

/**
 * Healthy entries a second, with one entry in a hundred refused by a rule beside them and without.
 *
 * Pairs, of which every other one begins with the refusals: the board grows from round to round, so whichever always came
 * second would be measured on the larger one. Two rounds of one kind differ by a third on a noisy machine, so they are
 * short and many, and the error of their mean is told.
 */
async function poison(stage) {
  const server = await stage.startServer({ args: ['--rules', join(root, 'web-demo', 'rules.json')] });
  const page = await stage.open();
  const options = { name: 'writer', id: '1', url: `ws://127.0.0.1:${server.port}/sync` };
  const rounds = { without: [], with: [], ratios: [] };
  await page.ingestBeside(options, 2_000, 0);
  for (let pair = 0; pair < 101; pair++) {
    const rates = {};
    for (const every of pair % 2 === 0 ? [0, 100] : [100, 0]) rates[every] = await page.ingestBeside(options, 2_000, every);
    rounds.without.push(rates[0]);
    rounds.with.push(rates[100]);
    rounds.ratios.push(rates[100] / rates[0]);
  }
  return {
    per_second_without: median(rounds.without),
    per_second_with: median(rounds.with),
    ratio: median(rounds.ratios),
    ...meanRatio(rounds.ratios),
  };
}

/** 200 readers; then one of them takes nothing any more; then it is gone. */
async function stuckReader(stage) {
  const [url, link] = [await stage.url(), await stage.link()];
  const writing = await stage.open();
  const [readers, sends, apartMs] = [200, 100, 200];
  const reading = await readersOf(stage, Array.from({ length: readers }, (_, index) => (index === 0 ? link.url : url)));
  const phase = async (count) => {
    await writing.send({ name: 'writer', id: '1', url }, sends, apartMs);
    await stage.until(async () => (await reading.delivered()) >= sends * count);
    return (await reading.takeDelays()).p99_ms;
  };
  const all = await phase(readers);
  link.proxy.blackHole();
  const stuck = await phase(readers - 1);
  await link.proxy.close();
  const gone = await phase(readers - 1);
  return { p99_ms_all_read: all, p99_ms_one_stuck: stuck, p99_ms_one_gone: gone, ratio: (2 * stuck) / (all + gone) };
}

/** What it costs honest typing that each change is read in another process first, in turns with a server where it is not. */
async function gateWorkers(stage) {
  const [workers, inside] = [await stage.startServer(), await stage.startServer({ args: ['--gate-workers', '0'] })];
  const page = await stage.open();
  const measured = { workers: { each: [], many: [] }, inside: { each: [], many: [] } };
  const servers = { workers, inside };
  for (let round = 0; round < 3; round++) {
    for (const [name, server] of Object.entries(servers)) {
      const options = { name: `${name}-${round}`, url: `ws://127.0.0.1:${server.port}/sync` };
      const { p50_ms, per_second } = await page.typing(options, 300, 3_000);
      measured[name].each.push(p50_ms);
      measured[name].many.push(per_second);
    }
  }
  const [each, eachInside] = [median(measured.workers.each), median(measured.inside.each)];
  const [many, manyInside] = [median(measured.workers.many), median(measured.inside.many)];
  return {
    p50_ms: each,
    p50_ms_in_process: eachInside,
    added_ms: each - eachInside,
    per_second: many,
    per_second_in_process: manyInside,
    ratio: many / manyInside,
  };
}

/** What it costs a small write that large boards arrive over its session. */
async function smallWrite(stage) {
  const url = await stage.url();
  const writing = await stage.open();
  const ends = {};
  for (const id of ['bulk-0', 'bulk-1', 'bulk-2', 'bulk-3', 'bulk-4']) {
    ends[id] = await writing.fill({ name: `writer of ${id}`, id, url }, 20_000, 100);
  }
  await writing.closeAll();
  const { alone, beside } = await (await stage.open()).writeBesideBulk({ name: 'reader', id: 'small', url }, ends, 200);
  return {
    p50_ms_alone: alone.p50_ms,
    p99_ms_alone: alone.p99_ms,
    p50_ms_beside: beside.p50_ms,
    p99_ms_beside: beside.p99_ms,
    samples_beside: beside.samples,
    ratio: beside.p50_ms / alone.p50_ms,
  };
}

function quantiles(times) {
  const sorted = times.toSorted((a, b) => a - b);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
  return { p50_ms: at(0.5), p99_ms: at(0.99), samples: sorted.length };
}

/** The geometric mean of ratios, and its standard error as a part of it. */
function meanRatio(ratios) {
  const logs = ratios.map(Math.log);
  const mean = logs.reduce((sum, log) => sum + log, 0) / logs.length;
  const variance = logs.reduce((sum, log) => sum + (log - mean) ** 2, 0) / (logs.length - 1);
  return { ratio_mean: Math.exp(mean), ratio_error: Math.sqrt(variance / logs.length) };
}

function median(numbers) {
  return numbers.toSorted((a, b) => a - b)[numbers.length >> 1];
}
