/**
 * A real headless Chromium with a profile of its own: one device.
 *
 * It is started by us and driven over the DevTools protocol, so that `kill()` really is `kill -9` of the browser and
 * all its processes, and `start()` after it opens the same profile again.
 */
import { chromium } from 'playwright-core';
import { findBrowser } from '../../commands/setup/browser.mjs';
import { kill, startProgram, temporaryFolder } from './processes.mjs';

const quiet = [
  '--headless',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--no-default-browser-check',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  // Timers of hidden tabs would otherwise slow to one a second: tests hold several tabs that nobody looks at.
  '--disable-background-timer-throttling',
  '--disable-backgrounding-occluded-windows',
  '--disable-renderer-backgrounding',
  // Containers lack what the sandbox needs; only our own pages are opened.
  ...(process.platform === 'linux' ? ['--no-sandbox', '--disable-dev-shm-usage'] : []),
];

/** Starts a browser with a fresh profile; `args` are more command line switches. */
export async function startBrowser({ args = [] } = {}) {
  const device = new Device(args);
  await device.start();
  return device;
}

class Device {
  /** The profile: what survives `kill()`. */
  folder = temporaryFolder('profile');
  /** Lines that pages wrote to their consoles, and errors that nobody caught. */
  console = [];

  #args;
  #program;
  #browser;

  constructor(args) {
    this.#args = args;
  }

  async start() {
    const executable = findBrowser();
    if (!executable) throw new Error('no Chromium found: npm test says what to install');
    this.#program = await startProgram(
      executable,
      [...quiet, '--remote-debugging-port=0', `--user-data-dir=${this.folder}`, ...this.#args, 'about:blank'],
      /DevTools listening on (ws:\S+)/,
    );
    this.#browser = await chromium.connectOverCDP(this.#program.match[1]);
  }

  /** A new tab at this address. */
  async open(url) {
    const page = await this.context.newPage();
    page.on('console', (line) => this.console.push(line.text()));
    page.on('pageerror', (error) => this.console.push(`uncaught: ${error.stack ?? error.message}`));
    await page.goto(url);
    return page;
  }

  /** `kill -9` of the browser with all its processes. */
  async kill() {
    await kill(this.#program.child);
    await this.#browser.close().catch(() => undefined);
  }

  /** Ends the browser as a user would. */
  async close() {
    const gone = new Promise((resolve) => this.#program.child.once('exit', resolve));
    const session = await this.#browser.newBrowserCDPSession();
    await session.send('Browser.close').catch(() => undefined);
    await gone;
  }

  /** Playwright's view of the profile, for `setOffline` and the like. */
  get context() {
    return this.#browser.contexts()[0];
  }

  /** Errors that no page caught. */
  get uncaught() {
    return this.console.filter((line) => line.startsWith('uncaught: '));
  }
}
