/**
 * A client: one installation's local database, its connection, and the logs that are open in this tab.
 *
 * Everything that decides lives in the engine; this file turns its notices into values, promises and listeners.
 */

import {
  decode,
  encode,
  type OpenEngine,
  type WireConnection,
  type WireEngine,
  type WireLogState,
  type WireNotice,
  type WireStorage,
} from './boundary.js';
import { fail } from './errors.js';
import { guard, guardAsync, type Log, type LogHost, type OpenArguments, OpenLog, typed } from './log.js';
import { Cell, type Readable, Turn } from './readable.js';
import { type LogDefinition, logName, wireSchema } from './schema.js';

/** How to open a client. */
export interface ClientOptions {
  /** Names the local database: one per user of this origin, so that one user's queue never ships as another's. */
  readonly name: string;
  /** Where the server is, as `wss://host/sync`; without it the client stays local. */
  readonly url?: string;
  /**
   * The token that the server checks, or a function that gives one: called before each connection, with the reason
   * why one is wanted. Without it the client connects unauthenticated, which servers allow only for development.
   */
  readonly token?: string | ((reason: string) => string | Promise<string>);
  /** Who acts, for `tx.user`; without it, who the server says we are. */
  readonly user?: string;
  /**
   * Where entries are kept. `auto` (the default) is IndexedDB where there is one, else memory; `client.storage` says
   * which it is.
   */
  readonly storage?: 'auto' | 'indexeddb' | 'memory';
}

/** The connection to the server. */
export interface Connection {
  /**
   * `idle`: no server or nothing wanted; `connecting`; `live`: the server answers; `backing-off`: waits until
   * `retryAt`; `offline`: switched off by `disconnect`, or the browser is offline; `needs-auth`: waits for a token;
   * `blocked`: stopped for `reason`, such as `user-changed`; `closed`.
   */
  readonly state: WireConnection['state'];
  /** Why, for people; `undefined` if there is nothing to say. */
  readonly reason: string | undefined;
  /** When the next attempt starts, in ms since 1970, while backing off. */
  readonly retryAt: number | undefined;
  /** Who the server says we are, once it has. */
  readonly user: string | undefined;
}

/** What this client can promise about what it stores. */
export interface Storage {
  readonly mode: 'indexeddb' | 'memory';
  /** Whether stored entries survive the page. */
  readonly durable: boolean;
  /**
   * `many`: any number of tabs share the client; without Web Locks (plain http on a network has none) they take turns
   * by a lease, which `reason` then says. `one`: what this tab keeps in memory is its own.
   */
  readonly tabs: 'many' | 'one';
  /** Why it is less than durable and many, for people. */
  readonly reason: string | undefined;
}

/** A client, open until `close`. */
export interface Client {
  readonly name: string;
  readonly connection: Readable<Connection>;
  readonly storage: Storage;
  /**
   * Opens a log from local content, offline too.
   *
   * Rejects with `bad-param` for a missing or empty parameter, `already-open` if it is open under another definition,
   * `closed`, and storage errors.
   */
  open<D extends LogDefinition>(definition: D, ...params: OpenArguments<D>): Promise<Log<D>>;
  /** Connects, after a `disconnect`; at once, if the client waits for its next attempt. */
  connect(): void;
  /** Closes the socket and stays offline until `connect`. Local work goes on. */
  disconnect(): void;
  /** Closes all logs, flushes what is not stored yet, and ends. What waits to be shipped is shipped next time. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Opens a client on an engine. @internal */
export async function openClient(open: OpenEngine, options: ClientOptions): Promise<Client> {
  const client = new OpenClient(options);
  await client.start(open);
  return client as Client;
}

class OpenClient implements LogHost {
  readonly name: string;
  readonly turn = new Turn();
  readonly connection = new Cell<Connection>(
    this.turn,
    Object.freeze({ state: 'idle', reason: undefined, retryAt: undefined, user: undefined }),
  );
  readonly #logs = new Map<string, { definition: LogDefinition; opened: Promise<OpenLog> }>();
  readonly #byHandle = new Map<number, OpenLog>();
  #arrived: WireNotice[] = [];
  #engine: WireEngine | undefined;
  #storage: Storage | undefined;
  #closing: Promise<void> | undefined;

  constructor(private readonly options: ClientOptions) {
    this.name = options.name;
  }

  async start(open: OpenEngine): Promise<void> {
    const { name, url, token, storage = 'auto' } = this.options;
    const request = encode({ name, url: url ?? null, storage, token: token !== undefined });
    this.#engine = await guardAsync(() => open(request, (notices) => this.#hear(notices)));
    const { mode, durable, tabs, reason } = decode<WireStorage>(this.#engine.storage());
    this.#storage = Object.freeze({ mode, durable, tabs, reason: reason ?? undefined });
    this.#takeIn();
  }

  get engine(): WireEngine {
    if (this.#engine === undefined || this.#closing !== undefined)
      throw fail('closed', { what: this.name }, `the client ${this.name} is closed`);
    return this.#engine;
  }

  get storage(): Storage | undefined {
    return this.#storage;
  }

  async open(definition: LogDefinition, params: object = {}): Promise<Log> {
    const engine = this.engine;
    const name = logName(definition.pattern, params as Record<string, unknown>);
    let entry = this.#logs.get(name);
    if (entry === undefined) {
      entry = { definition, opened: this.#openLog(engine, name, definition) };
      this.#logs.set(name, entry);
      entry.opened.catch(() => this.#logs.delete(name));
    }
    if (entry.definition !== definition)
      throw fail('already-open', { log: name }, `the log ${name} is open under another definition`);
    return typed(await entry.opened);
  }

  async #openLog(engine: WireEngine, name: string, definition: LogDefinition): Promise<OpenLog> {
    const answer = await guardAsync(() => engine.open(encode([name, wireSchema(definition.collections)])));
    const [handle, state] = decode<[number, WireLogState]>(answer);
    const log = new OpenLog(name, definition, handle, this, state, () => {
      this.#logs.delete(name);
      this.#byHandle.delete(handle);
    });
    this.#byHandle.set(handle, log);
    if (state.deadLetters > 0) await log.readDeadLetters();
    return log;
  }

  user(): string | undefined {
    return this.options.user ?? this.connection.getSnapshot().user;
  }

  connect(): void {
    guard(() => this.engine.connect());
  }

  disconnect(): void {
    guard(() => this.engine.disconnect());
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const engine = this.#engine;
    for (const log of this.#byHandle.values()) log.close();
    await guardAsync(async () => engine?.close());
    this.connection.set(
      Object.freeze({
        state: 'closed',
        reason: undefined,
        retryAt: undefined,
        user: this.connection.getSnapshot().user,
      }),
    );
    this.turn.end();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The engine may be in the middle of its own work when it tells: listeners, which may act, are called after it. */
  #hear(bytes: Uint8Array): void {
    if (this.#arrived.length === 0) queueMicrotask(() => this.#takeIn());
    this.#arrived.push(...decode<WireNotice[]>(bytes));
  }

  #takeIn(): void {
    this.catchUp();
    this.turn.end();
  }

  catchUp(): void {
    const notices = this.#arrived;
    this.#arrived = [];
    for (const notice of notices) this.#take(notice);
  }

  deliver(notices: WireNotice[]): void {
    for (const notice of notices) this.#take(notice);
    this.turn.end();
  }

  #take(notice: WireNotice): void {
    switch (notice[0]) {
      case 'patch':
        return this.#byHandle.get(notice[1])?.patch(notice[2], notice[3]);
      case 'write':
        return this.#byHandle.get(notice[1])?.settle(notice[2], notice[3], notice[4] ?? {});
      case 'connection': {
        const { state, reason, retryAt, user } = notice[1];
        return this.connection.set(
          Object.freeze({ state, reason: reason ?? undefined, retryAt: retryAt ?? undefined, user: user ?? undefined }),
        );
      }
      case 'log':
        return this.#byHandle.get(notice[1])?.become(notice[2]);
      case 'deadLetters':
        // A reading that fails leaves the list as it was; the next notice reads again.
        return void this.#byHandle
          .get(notice[1])
          ?.readDeadLetters()
          .catch(() => {});
      case 'fold':
        return this.#byHandle.get(notice[1])?.workFold(notice[2]);
      case 'token-wanted':
        return void this.#giveToken(notice[1]);
      case 'tape':
        return;
    }
  }

  async #giveToken(reason: string): Promise<void> {
    const { token } = this.options;
    let given: string | undefined;
    try {
      given = typeof token === 'function' ? await token(reason) : token;
    } catch {
      // The engine shows `needs-auth` and asks again.
    }
    if (this.#closing === undefined) this.#engine?.setToken(given);
  }
}
