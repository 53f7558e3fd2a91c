/**
 * `npm start [-- --fresh] [-- --host]`: builds and serves the demo and the sync server on one address.
 *
 * `--fresh` empties the data folder first. `--host` serves the local network too, and then asks for a token, which
 * stands in the printed link. `PORT` changes the port.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { buildDemo, buildPackage, buildServer, demoFolder, serverBinary } from './build.mjs';
import { root, run } from './run.mjs';
import { command, Stopped } from './steps.mjs';
import { setUpToServe } from './setup.mjs';

const folder = join(root, '.driftlog');
const dataFolder = join(folder, 'data');
const secretFile = join(folder, 'secret');
const rulesFile = join(root, 'web-demo', 'rules.json');

await command(async () => {
  const { fresh, host } = readArguments();
  const port = readPort();
  await setUpToServe(port);
  await buildServer();
  await buildPackage({ compileTool: false });
  await buildDemo();
  if (fresh) rmSync(dataFolder, { recursive: true, force: true });
  mkdirSync(dataFolder, { recursive: true });
  const links = host ? await linksWithToken(port) : [`http://localhost:${port}`];
  await serve(host ? ['--listen', `0.0.0.0:${port}`, '--secret-file', secretFile] : [...loopback(port), '--dev'], links);
});

function readArguments() {
  try {
    return parseArgs({ options: { fresh: { type: 'boolean' }, host: { type: 'boolean' } } }).values;
  } catch (error) {
    throw new Stopped(`${error.message}\nusage: npm start [-- --fresh] [-- --host]`);
  }
}

function readPort() {
  const port = Number(process.env.PORT || 8787);
  if (!Number.isInteger(port) || port < 1 || port > 65535) throw new Stopped(`PORT must be from 1 to 65535, not ${process.env.PORT}`);
  return port;
}

/** `localhost` is one or the other, depending on the system. */
function loopback(port) {
  const ipv6 = Object.values(networkInterfaces()).flat().some((address) => address.address === '::1');
  return ['--listen', `127.0.0.1:${port}`, ...(ipv6 ? ['--listen', `[::1]:${port}`] : [])];
}

async function linksWithToken(port) {
  const token = await run(serverBinary(), ['token', '--create', '--secret-file', secretFile, '--sub', 'demo']);
  const hosts = Object.values(networkInterfaces())
    .flat()
    .filter((address) => address.family === 'IPv4' && !address.internal)
    .map((address) => address.address);
  return [...hosts, 'localhost'].map((host) => `http://${host}:${port}/#token=${token.trim()}`);
}

/** Runs the server until it ends or is interrupted. Its first line says that it is bound. */
function serve(args, links) {
  const demo = existsSync(demoFolder) ? ['--static', demoFolder] : [];
  const server = spawn(serverBinary(), ['serve', '--data', dataFolder, '--rules', rulesFile, ...args, ...demo], { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] });
  let listening = false;
  server.stdout.once('data', () => {
    listening = true;
    console.log(`\n  Driftlog is at  ${links.join('\n                  ')}`);
    console.log(`  Its data is in  ${relative(root, dataFolder)}  (npm start -- --fresh empties it). Ctrl+C stops it.\n`);
  });
  server.stdout.resume();
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => server.kill(signal));
  return new Promise((resolve, reject) => {
    server.on('error', reject);
    server.on('close', (code, signal) => {
      if (listening && (code === 0 || signal === 'SIGINT' || signal === 'SIGTERM')) resolve();
      else reject(new Stopped(`the server ended with ${signal ?? code}${listening ? '' : ' before it was listening'}`));
    });
  });
}
