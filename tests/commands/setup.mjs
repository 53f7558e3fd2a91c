/**
 * Set-up: checks the machine, prints one short table, and installs the npm packages if need be.
 *
 * What can be mended here is mended (the Rust toolchain and its wasm target; as root on Debian a C compiler and a
 * browser). For the rest it prints the command for each system and stops. Needs nothing but Node.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { npm, root } from './run.mjs';
import { step, Stopped } from './steps.mjs';
import { browser, anyPort, compiler, disk, node, port, rust, wasmTarget } from './setup/checks.mjs';

/** Set-up of `npm start`: no browser needed, but its port. */
export function setUpToServe(portNumber) {
  return setUp([node, rust, wasmTarget, compiler, disk, port(portNumber)]);
}

/** Set-up of everything that runs browsers. */
export function setUpToTest() {
  return setUp([node, rust, wasmTarget, compiler, browser, disk, anyPort]);
}

async function setUp(checks) {
  const findings = await Promise.all(checks.map((check) => check.look()));
  for (const [index, check] of checks.entries()) {
    if (findings[index].ok || !findings[index].mendable || !check.mendNow) continue;
    await step(check.mendNow.name, check.mendNow.work).catch((error) => console.log(error.output ?? error.message));
    findings[index] = await check.look();
  }
  printTable(checks, findings);
  const missing = checks.filter((_, index) => !findings[index].ok);
  if (missing.length > 0) throw new Stopped(missing.map(howToMend).join('\n\n'));
  await installPackages();
}

function printTable(checks, findings) {
  const names = Math.max(...checks.map((check) => check.name.length)) + 2;
  const marks = { true: 'ok', false: 'NO' };
  for (const [index, check] of checks.entries()) {
    console.log(`  ${check.name.padEnd(names)}${marks[findings[index].ok]}  ${findings[index].found}`);
  }
  console.log('');
}

function howToMend({ name, mend }) {
  return [`${name}: not as needed. To mend it:`, `  Debian    ${mend.debian}`, `  macOS     ${mend.macos}`, `  Windows   ${mend.windows}`].join('\n');
}

/** Installs exactly what the lock file says, unless it already did. */
async function installPackages() {
  const lock = await readFile(join(root, 'package-lock.json'));
  const hash = createHash('sha256').update(lock).digest('hex');
  const stamp = join(root, 'node_modules', '.driftlog-lock');
  const before = existsSync(stamp) ? await readFile(stamp, 'utf8') : '';
  if (before === hash) return;
  await step('install npm packages', ({ tell }) => npm(['ci', '--no-audit', '--no-fund', '--prefer-offline'], { onLine: tell }));
  await writeFile(stamp, hash);
}
