/**
 * Shows the steps of a command with the time each took.
 *
 * On a terminal the running step ticks and shows the program's last line; elsewhere one line a step is printed.
 */
import { run } from './run.mjs';

const terminal = process.stdout.isTTY === true;
const nameWidth = 44;

/**
 * Runs one step and returns its result. A failure prints what the program printed and is thrown on.
 *
 * @template T
 * @param {string} name
 * @param {(tools: { run: typeof run, tell: (line: string) => void }) => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function step(name, work) {
  const start = Date.now();
  let last = '';
  const seconds = () => `${((Date.now() - start) / 1000).toFixed(1)} s`.padStart(8);
  const tell = (line) => {
    last = line.trim();
  };
  const ticking = setInterval(() => {
    if (terminal) rewrite(`  ${name.padEnd(nameWidth)}${seconds()}  ${last}`);
    else if (Date.now() - start > 30_000) console.log(`  … ${name}, ${seconds().trim()}: ${last}`);
  }, terminal ? 100 : 60_000);
  try {
    const result = await work({
      run: (command, args, options) => run(command, args, { onLine: tell, ...options }),
      tell,
    });
    if (terminal) rewrite('');
    console.log(`  ${name.padEnd(nameWidth)}${seconds()}`);
    return result;
  } catch (error) {
    if (terminal) rewrite('');
    console.log(`  ${name.padEnd(nameWidth)}${seconds()}  failed`);
    throw error;
  } finally {
    clearInterval(ticking);
  }
}

function rewrite(line) {
  const columns = process.stdout.columns ?? 80;
  process.stdout.write(`\r\x1b[2K${line.slice(0, columns - 1)}`);
}

/** Runs a command's body; a failure ends the process with what a person needs to see, without our own stack. */
export async function command(body) {
  try {
    await body();
  } catch (error) {
    if (error.output) console.error(`\n${error.output.trimEnd()}`);
    console.error(`\n${error.expected || error.output !== undefined ? error.message : error.stack}`);
    // At once, and with it every program that it started: a browser that is left open would keep it from ending.
    process.exitCode = 1;
    process.stderr.write('', () => process.exit());
  }
}

/** A failure that is the caller's to mend: its text says how, so no stack is shown. */
export class Stopped extends Error {
  expected = true;
}
