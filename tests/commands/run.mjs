/**
 * Runs programs for the commands, on every system alike.
 *
 * It promises that a program's output is shown when it fails and kept out of the way when it does not.
 */
import { spawn } from 'node:child_process';
import { delimiter, dirname, join } from 'node:path';
import { homedir } from 'node:os';
import { fileURLToPath } from 'node:url';

/** The repository's top folder; every program runs there. */
export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

// A shell that was open when rustup was installed does not know its folder yet.
process.env.PATH = [process.env.PATH, join(homedir(), '.cargo', 'bin')].join(delimiter);

/** A program ended with something else than success. */
export class ProgramFailed extends Error {
  constructor(command, args, ending, output) {
    super(`${[command, ...args].join(' ')} ended with ${ending}`);
    this.output = output;
  }
}

/**
 * Runs a program to its end and returns what it printed, or rejects with {@link ProgramFailed}.
 *
 * @param {string} command
 * @param {string[]} args
 * @param {object} [options]
 * @param {Record<string, string>} [options.env] added to the environment
 * @param {(line: string) => void} [options.onLine] hears every line as it comes
 * @param {string} [options.cwd]
 * @param {number} [options.timeout] milliseconds after which it is killed
 * @returns {Promise<string>}
 */
export function run(command, args, { env = {}, onLine, cwd = root, timeout } = {}) {
  return new Promise((resolve, reject) => {
    const stdio = ['ignore', 'pipe', 'pipe'];
    const child = spawn(command, args, { cwd, env: { ...process.env, ...env }, stdio, timeout, killSignal: 'SIGKILL' });
    let output = '';
    let line = '';
    const hear = (text) => {
      output += text;
      const lines = (line + text).split('\n');
      line = lines.pop() ?? '';
      for (const whole of lines) onLine?.(whole);
    };
    child.stdout.setEncoding('utf8').on('data', hear);
    child.stderr.setEncoding('utf8').on('data', hear);
    child.on('error', (error) => reject(new ProgramFailed(command, args, error.message, output)));
    child.on('close', (code, signal) => {
      if (line) onLine?.(line);
      if (code === 0) resolve(output);
      else reject(new ProgramFailed(command, args, signal ?? code, output));
    });
  });
}

/** What a program prints, or `undefined` where it is missing or fails. */
export async function ask(command, args) {
  try {
    return (await run(command, args)).trim();
  } catch {
    return undefined;
  }
}

/** Runs npm by the very file that runs us, because `npm` is a script that Windows cannot spawn. */
export function npm(args, options) {
  const script = process.env.npm_execpath;
  if (script?.endsWith('js')) return run(process.execPath, [script, ...args], options);
  if (process.platform === 'win32') return run('cmd.exe', ['/d', '/s', '/c', 'npm', ...args], options);
  return run('npm', args, options);
}
