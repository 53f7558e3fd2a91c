/** Programs and folders that a test started: whatever happens to the test, none outlives it. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const running = new Set();
const folders = new Set();
const groups = process.platform !== 'win32';

process.on('exit', () => {
  for (const child of running) killNow(child);
  for (const folder of folders) rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
});
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));

/** A new empty folder, gone when the tests end. */
export function temporaryFolder(purpose) {
  const folder = mkdtempSync(join(tmpdir(), `driftlog-${purpose}-`));
  folders.add(folder);
  return folder;
}

/**
 * Starts a program and resolves with it and the first match of `ready` in what it prints.
 *
 * @returns {Promise<{ child: import('node:child_process').ChildProcess, match: RegExpExecArray, output: () => string }>}
 */
export function startProgram(command, args, ready) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: groups });
  running.add(child);
  let output = '';
  return new Promise((resolve, reject) => {
    const hear = (text) => {
      output = (output + text).slice(-100_000);
      const match = ready.exec(output);
      if (match) resolve({ child, match, output: () => output });
    };
    child.stdout.setEncoding('utf8').on('data', hear);
    child.stderr.setEncoding('utf8').on('data', hear);
    child.on('error', reject);
    child.on('exit', (code, signal) => {
      running.delete(child);
      reject(new Error(`${command} ended with ${signal ?? code} before it was ready:\n${output}`));
    });
  });
}

/** `kill -9` of a program and of every process it started; resolves when it is gone. */
export async function kill(child) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once('exit', resolve));
  killNow(child);
  await gone;
}

function killNow(child) {
  try {
    process.kill(groups ? -child.pid : child.pid, 'SIGKILL');
  } catch {
    // It is gone already.
  }
}
