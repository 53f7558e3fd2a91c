/**
 * The npm package as a stranger meets it: the packed tarball, installed in an empty folder outside of the repository,
 * running the example of the README in two browsers against the server with tokens.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { promisify } from 'node:util';
import { transform } from 'esbuild';
import * as vite from 'vite';
import { binPath } from '../../wasm/build.mjs';
import { npm, root } from '../commands/run.mjs';
import { startBrowser } from '../browser/harness/browser.mjs';
import { servePage } from '../browser/harness/page.mjs';
import { temporaryFolder } from '../browser/harness/processes.mjs';
import { startServer } from '../browser/harness/server.mjs';

const execute = promisify(execFile);
const app = temporaryFolder('app');

before(async () => {
  await npm(['pack', join(root, 'wasm'), '--ignore-scripts', '--pack-destination', app]);
  const tarball = readdirSync(app).find((name) => name.endsWith('.tgz'));
  writeFileSync(join(app, 'package.json'), JSON.stringify({ private: true, type: 'module' }));
  await npm(['install', `./${tarball}`, '--no-audit', '--no-fund'], { cwd: app });
});

/** The first block of TypeScript in the README, pointed at a running server. */
function example({ server, token, name }) {
  const block = /```ts\n([\s\S]*?)```/.exec(readFileSync(join(root, 'README.md'), 'utf8'))?.[1];
  assert.ok(block, 'README.md has no example');
  const adapted = [
    ['ws://localhost:8787', `ws://127.0.0.1:${server.port}`],
    ['YOUR-TOKEN', token],
    ["name: 'alice'", `name: '${name}'`],
  ].reduce((code, [from, to]) => {
    assert.ok(code.includes(from), `the example of README.md does not say ${from}`);
    return code.replaceAll(from, to);
  }, block);
  return adapted;
}

async function startWithToken(t, staticFolder) {
  const server = await startServer({ secret: 'a secret of thirty-two characters', staticFolder });
  t.after(() => server.kill());
  return { server, token: await server.token({ sub: 'alice', logs: ['board/*'] }) };
}

/** Opens the page in two browsers: each adds and votes for one to-do, both must show two. */
async function assertConverges(t, url) {
  const devices = [await startBrowser(), await startBrowser()];
  t.after(() => Promise.all(devices.map((device) => device.kill())));
  const pages = [];
  for (const device of devices) pages.push(await device.open(url));
  const expected = 'Try it offline: 1\nTry it offline: 1';
  for (const [index, page] of pages.entries()) {
    await page.waitForFunction((expected) => document.body.innerText === expected, expected, { timeout: 30_000 }).catch(async () => {
      assert.equal(await page.evaluate(() => document.body.innerText), expected, devices[index].console.join('\n'));
    });
    assert.deepEqual(devices[index].uncaught, []);
  }
}

function writePage(folder, scripts) {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'index.html'), `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>App</title><body></body>${scripts}`);
}

test('the package installs alone, and its types are strict', async () => {
  const installed = readdirSync(join(app, 'node_modules')).filter((name) => !name.startsWith('.'));
  assert.deepEqual(installed, ['driftlog']);
  const folder = join(app, 'types');
  mkdirSync(folder);
  writeFileSync(join(folder, 'example.ts'), example({ server: { port: 1 }, token: 't', name: 'types' }));
  const options = { strict: true, noEmit: true, target: 'ES2022', lib: ['ES2022', 'DOM'], module: 'ESNext', moduleResolution: 'bundler', skipLibCheck: false, exactOptionalPropertyTypes: true, types: [] };
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions: options }));
  const { stdout } = await execute(process.execPath, [binPath('typescript', 'tsc'), '--project', folder]).catch((error) => error);
  assert.equal(stdout, '');
});

test('Node imports the package and loads its wasm', async () => {
  const script = "const { initWasm } = await import('driftlog'); await initWasm(); console.log('loaded');";
  const { stdout } = await execute(process.execPath, ['--input-type=module', '--eval', script], { cwd: app });
  assert.equal(stdout, 'loaded\n');
});

test('the example of the README converges under the development server of Vite', async (t) => {
  const { server, token } = await startWithToken(t);
  const folder = join(app, 'vite-dev');
  writePage(folder, '<script type="module" src="/main.ts"></script>');
  writeFileSync(join(folder, 'main.ts'), example({ server, token, name: 'vite-dev' }));
  const development = await vite.createServer({ root: folder, configFile: false, logLevel: 'error', server: { port: 0, host: '127.0.0.1' } });
  t.after(() => development.close());
  await development.listen();
  await assertConverges(t, `http://127.0.0.1:${development.httpServer.address().port}/`);
});

test('the example of the README converges as built by Vite', async (t) => {
  const { server, token } = await startWithToken(t);
  const folder = join(app, 'vite-build');
  writePage(folder, '<script type="module" src="/main.ts"></script>');
  writeFileSync(join(folder, 'main.ts'), example({ server, token, name: 'vite-build' }));
  await vite.build({ root: folder, configFile: false, logLevel: 'error' });
  const site = await servePage({ folders: { '/': join(folder, 'dist') } });
  t.after(() => site.close());
  await assertConverges(t, `${site.url}index.html`);
});

test('the example of the README converges as a plain module, served by driftlog-server', async (t) => {
  const { server, token } = await startWithToken(t, app);
  const { code } = await transform(example({ server, token, name: 'plain' }), { loader: 'ts', target: 'es2022' });
  const map = { imports: { driftlog: '/node_modules/driftlog/dist/index.js' } };
  writePage(app, `<script type="importmap">${JSON.stringify(map)}</script><script type="module">${code}</script>`);
  await assertConverges(t, `${server.url}/index.html`);
});
