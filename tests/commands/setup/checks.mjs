/**
 * What the commands need from the machine. Each check answers with what it found, and with the command that mends
 * it on Debian, macOS and Windows; some can mend themselves.
 *
 * A check is `{ name, look(): Promise<Finding>, mend: { debian, macos, windows }, mendNow? }`;
 * a finding is `{ found, ok }`.
 */
import { existsSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { ask, root, run } from '../run.mjs';
import { findBrowser } from './browser.mjs';

const gigabyte = 1e9;
const debianRoot = existsSync('/etc/debian_version') && process.getuid?.() === 0;

const apt = (packageName) => async (tools = { run }) => {
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  await tools.run('apt-get', ['update'], { env });
  await tools.run('apt-get', ['install', '--yes', '--no-install-recommends', packageName], { env });
};

/** Node runs these scripts and the tools of the package. */
export const node = {
  name: 'Node',
  async look() {
    const [major, minor] = process.versions.node.split('.').map(Number);
    return { found: process.versions.node, ok: major > 20 || (major === 20 && minor >= 19) };
  },
  mend: {
    debian: 'curl -fsSL https://deb.nodesource.com/setup_22.x | sudo bash - && sudo apt-get install -y nodejs',
    macos: 'brew install node',
    windows: 'winget install OpenJS.NodeJS.LTS',
  },
};

/** rustup installs the toolchain that `rust-toolchain.toml` names, the first time it is asked. */
export const rust = {
  name: 'Rust',
  async look() {
    const [rustup, rustc] = [await ask('rustup', ['--version']), await ask('rustc', ['--version'])];
    const version = /rustc (\d+)\.(\d+)\S*/.exec(rustc ?? '');
    const ok = version !== null && (Number(version[1]) > 1 || Number(version[2]) >= 95);
    const manager = /rustup \S+/.exec(rustup ?? '')?.[0];
    return { found: [version?.[0], manager].filter(Boolean).join(', ') || 'not found', ok, mendable: manager !== undefined };
  },
  mendNow: { name: 'install the Rust toolchain', work: (tools) => tools.run('rustup', ['toolchain', 'install']) },
  mend: {
    debian: "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y",
    macos: "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y",
    windows: 'winget install Rustlang.Rustup',
  },
};

/** The engine is compiled to wasm. */
export const wasmTarget = {
  name: 'wasm target',
  async look() {
    const folder = await ask('rustc', ['--print', 'target-libdir', '--target', 'wasm32-unknown-unknown']);
    const ok = folder !== undefined && existsSync(folder);
    return { found: ok ? 'wasm32-unknown-unknown' : 'not found', ok, mendable: (await ask('rustup', ['--version'])) !== undefined };
  },
  mendNow: {
    name: 'add the wasm target',
    work: (tools) => tools.run('rustup', ['target', 'add', 'wasm32-unknown-unknown']),
  },
  mend: {
    debian: 'rustup target add wasm32-unknown-unknown',
    macos: 'rustup target add wasm32-unknown-unknown',
    windows: 'rustup target add wasm32-unknown-unknown',
  },
};

/** SQLite is compiled into the server, and Rust links with the system's linker. */
export const compiler = {
  name: 'C compiler',
  async look() {
    const found = process.platform === 'win32' ? await visualStudio() : await ask(process.env.CC ?? 'cc', ['--version']);
    return { found: found?.split('\n')[0] ?? 'not found', ok: Boolean(found), mendable: debianRoot };
  },
  mendNow: { name: 'install a C compiler with apt', work: apt('build-essential') },
  mend: {
    debian: 'sudo apt-get install -y build-essential',
    macos: 'xcode-select --install',
    windows: 'winget install Microsoft.VisualStudio.2022.BuildTools --override "--add Microsoft.VisualStudio.Workload.VCTools --includeRecommended --passive"',
  },
};

async function visualStudio() {
  const folder = process.env['ProgramFiles(x86)'] ?? 'C:\\Program Files (x86)';
  const where = join(folder, 'Microsoft Visual Studio', 'Installer', 'vswhere.exe');
  return ask(where, ['-latest', '-products', '*', '-requires', 'Microsoft.VisualStudio.Component.VC.Tools.x86.x64', '-property', 'displayName']);
}

/** The browser tests run in a real Chromium. */
export const browser = {
  name: 'browser',
  async look() {
    const path = findBrowser();
    return { found: path ?? 'no Chromium found', ok: path !== undefined, mendable: debianRoot };
  },
  mendNow: { name: 'install Chromium with apt', work: apt('chromium') },
  mend: {
    debian: 'sudo apt-get install -y chromium    (or name one: CHROMIUM=/path/to/chromium npm test)',
    macos: 'brew install --cask google-chrome    (or name one: CHROMIUM=/path/to/chromium npm test)',
    windows: 'winget install Google.Chrome',
  },
};

/** A first build writes some gigabytes. */
export const disk = {
  name: 'disk',
  async look() {
    const { bavail, bsize } = await statfs(root);
    const free = bavail * bsize;
    const needed = (existsSync(join(root, 'target')) ? 1 : 5) * gigabyte;
    return { found: `${(free / gigabyte).toFixed(0)} GB free, ${needed / gigabyte} needed`, ok: free >= needed };
  },
  mend: {
    debian: 'free some space, for instance: sudo apt-get clean',
    macos: 'free some space, for instance: brew cleanup',
    windows: 'free some space: cleanmgr',
  },
};

/** The address that `npm start` serves. */
export const port = (number) => ({
  name: 'port',
  async look() {
    const taken = (await Promise.all(['127.0.0.1', '::1'].map((host) => isTaken(number, host)))).some(Boolean);
    return { found: taken ? `${number} is taken by another program` : String(number), ok: !taken };
  },
  mend: {
    debian: `PORT=${number + 1} npm start`,
    macos: `PORT=${number + 1} npm start`,
    windows: `set PORT=${number + 1}&& npm start`,
  },
});

/** The tests ask the system for free ports. */
export const anyPort = {
  name: 'port',
  async look() {
    const taken = await isTaken(0, '127.0.0.1');
    return { found: taken ? 'none to be had on 127.0.0.1' : 'free ones on 127.0.0.1', ok: !taken };
  },
  mend: { debian: 'sudo ip link set lo up', macos: 'sudo ifconfig lo0 up', windows: 'netsh winsock reset' },
};

/** Only `EADDRINUSE` and `EACCES` count: a machine without IPv6 answers otherwise. */
function isTaken(number, host) {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error) => resolve(error.code === 'EADDRINUSE' || error.code === 'EACCES'));
    server.listen({ port: number, host, exclusive: true }, () => server.close(() => resolve(false)));
  });
}
