/**
 * `npm run bench [-- NAME …] [--unoptimized]`: measures in the real browser against the real server, both optimized,
 * and prints one JSON line a figure. Names choose the figures that contain them. `--unoptimized` is for trying a figure
 * out without the long builds.
 */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { buildPackage, buildReleaseServer, buildServer, nativeBinary } from './build.mjs';
import { root, run } from './run.mjs';
import { setUpToTest } from './setup.mjs';
import { command, step } from './steps.mjs';

/** The clock of an isolated page has steps of 5 µs instead of 100. */
const isolation = { 'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp', 'cross-origin-resource-policy': 'same-origin' };
const figureMs = 600_000;

await command(async () => {
  const { values, positionals: names } = parseArgs({ allowPositionals: true, options: { unoptimized: { type: 'boolean', default: false } } });
  const release = !values.unoptimized;
  await setUpToTest();
  await buildServer();
  if (release) await buildReleaseServer();
  await buildPackage({ release, compileTool: false });
  const { figures } = await import('./bench/figures.mjs');
  const { draw } = await import('./bench/plot.mjs');
  const lines = [];
  for (const figure of figures.filter(({ name }) => names.length === 0 || names.some((part) => name.includes(part)))) {
    const stage = await openStage(release);
    try {
      const numbers = await step(figure.name, () => within(figureMs, figure.measure(stage)));
      lines.push(JSON.stringify({ figure: figure.name, ...rounded(numbers), ...(release ? {} : { unoptimized: true }) }));
      if (figure.plot) draw(figure.plot, JSON.parse(lines.at(-1)));
    } catch (error) {
      lines.push(JSON.stringify({ figure: figure.name, failed: error.message.split('\n')[0] }));
      console.error(error.stack, stage.consoles());
      process.exitCode = 1;
    } finally {
      await stage.close();
    }
  }
  console.log(`\n${lines.join('\n')}`);
  // Sockets of browsers that were told to go may linger.
  process.exit();
});

/** Server, browsers and links of one figure, each started when first asked for. */
async function openStage(release) {
  const { startServer } = await import('../browser/harness/server.mjs');
  const { startBrowser } = await import('../browser/harness/browser.mjs');
  const { startProxy } = await import('../browser/harness/proxy.mjs');
  const { servePage } = await import('../browser/harness/page.mjs');
  const site = await servePage({ folders: { '/bench/': join(root, 'tests', 'commands', 'bench') }, headers: isolation });
  const devices = [];
  const servers = [];
  const start = async (options) => {
    servers.push(await startServer({ release, ...options }));
    return servers.at(-1);
  };
  let started;
  const server = () => (started ??= start());
  const device = async () => {
    devices.push(await startBrowser());
    return devices.at(-1);
  };
  return {
    server,
    /** Runs a program of the tests and gives the figures that it prints, `name=number …`. */
    native: (name, args) => nativeFigures(name, args, release),
    /** One more server, with options of `startServer`. */
    startServer: start,
    device,
    url: async () => `ws://127.0.0.1:${(await server()).port}/sync`,
    /** A link to one server or the first one, whose bytes are counted, and that can be broken. */
    async link(to) {
      const proxy = await startProxy((to ?? (await server())).port);
      return { url: `ws://127.0.0.1:${proxy.port}/sync`, bytes: proxy.bytes, proxy };
    },
    /** A page in a browser of its own; its functions are those of bench/page.js. */
    async open({ device: chosen } = {}) {
      const page = await (chosen ?? (await device())).open(site.url);
      return new Proxy({}, {
        get: (_, method) =>
          method === 'then'
            ? undefined
            : method === 'reload'
              ? () => page.reload()
              : (...args) => page.evaluate(async ([method, args]) => (await import('/bench/page.js'))[method](...args), [method, args]),
      });
    },
    until: async (condition) => {
      while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 20));
    },
    consoles: () => devices.flatMap((device) => device.console.slice(-20)).join('\n'),
    async close() {
      await Promise.all(devices.map((device) => device.kill()));
      await started;
      await Promise.all(servers.map((server) => server.kill()));
      await site.close();
    },
  };
}

async function nativeFigures(name, args, release) {
  await run('cargo', ['build', ...(release ? ['--release'] : []), '--workspace', '--bin', name]);
  const printed = await run(nativeBinary(name, { release }), args, { timeout: figureMs });
  return Object.fromEntries([...printed.matchAll(/(\w+)=([\d.]+)/g)].map(([, key, number]) => [key, Number(number)]));
}

function within(ms, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not finished in ${ms / 1000} s`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function rounded(numbers) {
  return Object.fromEntries(Object.entries(numbers).map(([key, value]) => [key, Number(value.toPrecision(4))]));
}
