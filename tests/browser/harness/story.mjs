/**
 * What stories are told with: `world` starts the server and devices of one test and ends them with it; a tab is a page
 * on a device with one board open.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { root } from '../../commands/run.mjs';
import { startBrowser } from './browser.mjs';
import { servePage } from './page.mjs';
import { startProxy } from './proxy.mjs';
import { startServer } from './server.mjs';

/**
 * The server, the page and a link to the server, for one test.
 *
 * @param {import('node:test').TestContext} t
 * @param {object} [options] of `startServer`
 * @param {object} [folders] that the page is served from, besides its own
 */
export async function startWorld(t, options, folders = {}) {
  const site = await servePage({ folders: { '/pages/': join(root, 'tests', 'browser', 'pages'), ...folders } });
  const server = await startServer(options);
  const world = {
    site,
    server,
    /** The address of the server itself. */
    url: `ws://127.0.0.1:${server.port}/sync`,
    /** A link of its own to the server, that can be broken. */
    async link() {
      const proxy = await startProxy(server.port);
      t.after(() => proxy.close());
      return { proxy, url: `ws://127.0.0.1:${proxy.port}/sync` };
    },
    /** A browser with an empty profile. */
    async device(browserOptions) {
      const device = await startBrowser(browserOptions);
      t.after(() => device.kill());
      return device;
    },
    /** A tab on a device, with a board open. */
    async tab(device, { name = 'alice', id = '1', url = world.url, ...rest } = {}) {
      const tab = new Tab(await device.open(site.url), { name, id, url, ...rest });
      await tab.open();
      return tab;
    },
  };
  t.after(async () => {
    await server.kill();
    await site.close();
  });
  return world;
}

class Tab {
  constructor(page, options) {
    this.page = page;
    this.options = options;
  }

  /** Opens the board, after a reload again. */
  async open() {
    await this.page.evaluate(async (options) => {
      globalThis.board = await import('/pages/board.js');
      await globalThis.board.open(options);
    }, this.options);
  }

  async reload() {
    await this.page.reload();
    await this.open();
  }

  /** Performs an action; the view shows it. Returns the write id. */
  act(action, args) {
    return this.#call('act', action, args);
  }

  /** Performs an action that may not be taken; resolves to the code of the error, if it is not. */
  attempt(action, args) {
    return this.#call('attempt', action, args);
  }

  pressure() {
    return this.#call('pressure');
  }

  present(value) {
    return this.#call('present', value);
  }

  others() {
    return this.#call('others');
  }

  addMany(count, prefix) {
    return this.#call('addMany', count, prefix);
  }

  /**
   * Performs actions without end. `stored` hears of each that the page knows to be durable.
   *
   * @param {(id: string) => void} stored
   */
  async pour(prefix, stored) {
    await this.page.exposeFunction('harnessStored', stored);
    await this.#call('pour', prefix, 'harnessStored');
  }

  stored(id) {
    return this.#call('stored', id);
  }

  verdict(id) {
    return this.#call('verdict', id);
  }

  entry(id) {
    return this.#call('entry', id);
  }

  /** Write id and status of every own entry that is kept here. */
  fates() {
    return this.#call('fates');
  }

  todos() {
    return this.#call('todos');
  }

  plans() {
    return this.#call('plans');
  }

  state() {
    return this.#call('state');
  }

  connect() {
    return this.#call('connect');
  }

  disconnect() {
    return this.#call('disconnect');
  }

  close() {
    return this.#call('close');
  }

  /** What the activity fold of the board has come to; opens it if need be. */
  folded() {
    return this.#call('folded');
  }

  /** Resolves when every own entry has a verdict. */
  shipped(ms) {
    return eventually(async () => assert.equal((await this.state()).outbox, 0), ms);
  }

  #call(method, ...args) {
    return this.page.evaluate(([method, args]) => globalThis.board[method](...args), [method, args]);
  }
}

/** Asks until it holds, and fails with the last answer when it does not within the time. */
export async function eventually(check, ms = 20_000) {
  const start = Date.now();
  for (;;) {
    try {
      return await check();
    } catch (error) {
      if (Date.now() - start > ms) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

/** All tabs, and the server if given, show the same board, and it has so many to-dos. */
export function converge(tabs, count, ms) {
  return eventually(async () => {
    const [first, ...others] = await Promise.all(tabs.map((tab) => tab.todos()));
    assert.equal(first.length, count);
    for (const other of others) assert.deepEqual(other, first);
  }, ms);
}
