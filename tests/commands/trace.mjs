/**
 * `npm run trace -- FILE.json.gz [--offline] [--release]`: replays an editing trace through real browsers and the
 * real server, as actions on a `text` field, and prints one JSON line.
 *
 * A sequential trace is typed by one browser and read by a second; a concurrent one is typed by as many browsers as it
 * has typists, all at once. `--offline`: each types stretches of 500 transactions without a link, with a reload of the
 * page in the middle, and ships between them. It fails unless every entry is accepted and every copy, the server's
 * too, is the same text.
 */
import { join, resolve } from 'node:path';
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { buildPackage, buildReleaseServer, buildServer } from './build.mjs';
import { root } from './run.mjs';
import { setUpToTest } from './setup.mjs';
import { command, step, Stopped } from './steps.mjs';
import { readTrace } from './trace/editing_trace.mjs';

const stretch = 500;
const stalledMs = 120_000;

await command(async () => {
  const { path, offline, release } = readArguments();
  const trace = await readTrace(path);
  await setUpToTest();
  await buildServer();
  if (release) await buildReleaseServer();
  await buildPackage({ release, compileTool: false });
  const result = await step(`type ${trace.name}${offline ? ' offline' : ''}`, ({ tell }) => replay(trace, { offline, release, tell }));
  console.log(`\n${JSON.stringify(result)}`);
  const { accepted, entries, refused, chars, equal, server_equal } = result;
  if (accepted !== entries || refused !== 0 || chars === 0 || !equal || !server_equal) process.exitCode = 1;
  // Sockets of browsers that were told to go may linger.
  process.exit();
});

function readArguments() {
  try {
    const { values, positionals } = parseArgs({ allowPositionals: true, options: { offline: { type: 'boolean', default: false }, release: { type: 'boolean', default: false } } });
    if (positionals.length !== 1) throw new Error('one trace is needed');
    // npm runs us at the top of the repository, whatever folder the person is in.
    return { path: resolve(process.env.INIT_CWD ?? '.', positionals[0]), ...values };
  } catch (error) {
    throw new Stopped(`${error.message}\nusage: npm run trace -- FILE.json.gz [--offline] [--release]`);
  }
}

async function replay(trace, { offline, release, tell }) {
  const { startServer } = await import('../browser/harness/server.mjs');
  const { servePage } = await import('../browser/harness/page.mjs');
  const { temporaryFolder } = await import('../browser/harness/processes.mjs');
  const transactions = temporaryFolder('trace');
  const site = await servePage({ folders: { '/trace/': join(root, 'tests', 'commands', 'trace'), '/transactions/': transactions } });
  const server = await startServer({ release });
  const start = Date.now();
  const typists = await Promise.all(
    trace.typists.map(async (list, index) => {
      const all = index === 0 && trace.startContent ? [[[0, 0, trace.startContent]], ...list] : list;
      writeFileSync(join(transactions, `${index}.json`), JSON.stringify(all));
      return startTypist({ name: `typist-${index}`, site, server, total: all.length });
    }),
  );
  const readers = trace.kind === 'sequential' ? [await startTypist({ name: 'reader', site, server, total: 0 })] : [];
  const everyone = [...typists, ...readers];
  const watch = watchProgress(everyone, tell);
  try {
    for (const reader of readers) await reader.openPage();
    await Promise.race([watch.stalled, Promise.all(typists.map((typist) => (offline ? typeOffline(typist) : typeOnline(typist))))]);
    const entries = typists.reduce((sum, typist) => sum + typist.total, 0);
    await Promise.race([watch.stalled, Promise.all(everyone.map((one) => one.call('caughtUp', entries)))]);
    const seconds = (Date.now() - start) / 1000;
    return await report({ trace, offline, server, typists, everyone, entries, seconds });
  } finally {
    watch.stop();
  }
}

/** One browser with one client behind a link of its own. */
async function startTypist({ name, site, server, total }) {
  const { startBrowser } = await import('../browser/harness/browser.mjs');
  const { startProxy } = await import('../browser/harness/proxy.mjs');
  const proxy = await startProxy(server.port);
  const device = await startBrowser();
  const page = await device.open(site.url);
  const openPage = async () => {
    await page.evaluate(
      async (options) => {
        globalThis.typist = await import('/trace/typist.js');
        await globalThis.typist.open(options);
      },
      { name, url: `ws://127.0.0.1:${proxy.port}/sync`, id: 'trace', transactionsUrl: total > 0 ? `/transactions/${name.replace('typist-', '')}.json` : undefined },
    );
  };
  return {
    name,
    total,
    proxy,
    device,
    openPage,
    reload: async () => {
      await page.reload();
      await openPage();
    },
    call: (method, ...args) => page.evaluate(([method, args]) => globalThis.typist[method](...args), [method, args]),
    /** Counted by pages that are gone, and ids of theirs that have no verdict yet. */
    before: { typed: 0, accepted: 0, refused: 0 },
    unsettled: [],
  };
}

async function typeOnline(typist) {
  await typist.openPage();
  await typist.call('type', 0, typist.total);
  await typist.call('shipped');
}

async function typeOffline(typist) {
  await typist.proxy.close();
  await typist.openPage();
  for (let start = 0; start < typist.total; start += stretch) {
    await typist.proxy.close();
    const end = Math.min(start + stretch, typist.total);
    const middle = (start + end) >> 1;
    await typist.call('type', start, middle);
    await typist.call('stored');
    await leavePage(typist);
    await typist.reload();
    await typist.call('type', middle, end);
    await typist.proxy.open();
    await typist.call('connect');
    await typist.call('shipped');
    const late = await typist.call('verdicts', typist.unsettled.splice(0));
    for (const key of Object.keys(late)) typist.before[key] += late[key];
  }
}

async function leavePage(typist) {
  const progress = await typist.call('progress');
  for (const key of Object.keys(typist.before)) typist.before[key] += progress[key];
  typist.unsettled.push(...(await typist.call('unsettled')));
}

async function report({ trace, offline, server, typists, everyone, entries, seconds }) {
  const sum = { accepted: 0, refused: 0 };
  for (const typist of typists) {
    const now = await typist.call('progress');
    for (const key of Object.keys(sum)) sum[key] += typist.before[key] + now[key];
  }
  const texts = await Promise.all(everyone.map((one) => one.call('read')));
  const expected = trace.kind === 'sequential' ? trace.endContent : texts[0];
  const { collections, end } = await server.snapshot('paper/trace');
  const bytes = (direction) => everyone.reduce((total, { proxy }) => total + proxy.bytes[direction], 0);
  return {
    trace: trace.name,
    kind: trace.kind,
    edits: trace.edits,
    entries,
    ...sum,
    chars: [...texts[0]].length,
    clients: everyone.length,
    offline,
    equal: texts.every((text) => text === expected),
    // The log has an entry for each, and those of the server's own.
    server_equal: end >= entries && collections?.paper?.['']?.text === texts[0],
    seconds: Number(seconds.toFixed(1)),
    bytes_up: bytes('up'),
    bytes_down: bytes('down'),
  };
}

/** Shows how far it is, and gives up when nothing moves any more. */
function watchProgress(everyone, tell) {
  let last = '';
  let since = Date.now();
  let giveUp;
  const stalled = new Promise((_, reject) => {
    giveUp = reject;
  });
  stalled.catch(() => undefined);
  const ticking = setInterval(async () => {
    const all = await Promise.all(everyone.map((one) => one.call('progress').catch(() => undefined)));
    const shown = all.map((progress, index) => `${everyone[index].name} ${progress ? `${everyone[index].before.typed + progress.typed}/${everyone[index].total}, log ${progress.end}, waiting ${progress.waiting}` : 'loading'}`).join('; ');
    tell(shown);
    if (shown !== last) [last, since] = [shown, Date.now()];
    else if (Date.now() - since > stalledMs) {
      const consoles = everyone.flatMap(({ name, device }) => device.console.slice(-20).map((line) => `${name}: ${line}`));
      giveUp(new Stopped(`nothing moved for ${stalledMs / 1000} s: ${JSON.stringify(all)}\n${consoles.join('\n')}`));
    }
  }, 2_000);
  return { stalled, stop: () => clearInterval(ticking) };
}
