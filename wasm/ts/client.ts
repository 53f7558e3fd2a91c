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
  type WireOptions,
  type WireStorage,
  type WireTrap,
} from './boundary.js';
import { fail } from './errors.js';
import { guard, guardAsync, type Log, type LogHost, type OpenArguments, OpenLog, type OpenOptions, type Priority, typed } from './log.js';
import { type BacklogBound, type Pressure, pressureOf, wireBound } from './pressure.js';
import { Cell, type Readable, Turn } from './readable.js';
import { type EngineHost, Engines } from './restart.js';
import { type LogDefinition, logName, wireSchema } from './schema.js';
import type { WriteId } from './write.js';

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
  /** What this device is called where its owner or an operator looks; by default what the browser says of itself. */
  readonly device?: string;
  /** How much of each log may wait for the server; by default what the device can store. */
  readonly backlog?: BacklogBound;
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
  /** How the server keeps this connection, which outlives its sockets; `undefined` until it is `live` once. */
  readonly kept: KeptConnection | undefined;
}

/**
 * How the server keeps a connection. `active`: it keeps our place in each log. `inactive`: it keeps nothing for us; we
 * come back by ourselves and get the current state with our own pending work on top, so nothing is lost by it.
 */
export interface KeptConnection {
  readonly state: 'active' | 'inactive';
  /**
   * Why it is inactive; when `active`, why it was until now. `idle`: we were away for too long; `lag`: too far behind;
   * `pressure`: the server had more than it keeps; `asked`: its operator said so.
   */
  readonly reason: 'idle' | 'lag' | 'pressure' | 'asked' | 'other' | undefined;
  /** Since when it is, or was, inactive: ms since 1970 by the server's clock. */
  readonly since: number | undefined;
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
  /**
   * What the browser said when it found its databases of this origin damaged and deleted them: what was accepted comes
   * back from the server, what was not is gone, so tell the user. Only Chromium says it, and only to the page that
   * opened a database first.
   */
  readonly lost: string | undefined;
}

/** A client, open until `close`. */
export interface Client {
  readonly name: string;
  readonly connection: Readable<Connection>;
  /** Own work of all logs that waits for the server: whether it piles up, and why. */
  readonly pressure: Readable<Pressure>;
  readonly storage: Storage;
  /**
   * Opens a log from local content, offline too. Opened again, it is the same log, with the priority that is given.
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
  const client = new OpenClient(open, options);
  await client.start();
  return client as Client;
}

class OpenClient implements LogHost, EngineHost {
  readonly name: string;
  readonly turn = new Turn();
  readonly connection = new Cell<Connection>(
    this.turn,
    Object.freeze({ state: 'idle', reason: undefined, retryAt: undefined, user: undefined, kept: undefined }),
  );
  readonly pressure = new Cell<Pressure>(this.turn, pressureOf('none', { count: 0, bytes: 0 }, undefined));
  readonly #logs = new Map<string, { definition: LogDefinition; opened: Promise<OpenLog> }>();
  /** What the app said of logs: the next engine is told again. */
  readonly #priorities = new Map<string, Priority>();
  readonly #open = new Set<OpenLog>();
  /** The open logs by their handles in the engine that runs. */
  readonly #byHandle = new Map<number, OpenLog>();
  #arrived: WireNotice[] = [];
  readonly #engines: Engines;
  /** The id of the last action: the next engine's ids go on behind it. */
  #lastWrite: WriteId | undefined;
  /** Whether the app, in whichever tab, wants to stay offline. */
  #offline = false;
  #storage: Storage | undefined;
  #closing: Promise<void> | undefined;

  constructor(
    open: OpenEngine,
    private readonly given: ClientOptions,
  ) {
    this.name = given.name;
    this.#engines = new Engines(given.name, open, this);
  }

  async start(): Promise<void> {
    await guardAsync(() => this.#engines.start());
    this.#storage ??= storageOf(this.#engines.running);
    this.#takeIn();
  }

  get engine(): WireEngine {
    if (this.#closing !== undefined) throw fail('closed', { what: this.name }, `the client ${this.name} is closed`);
    return this.#engines.running;
  }

  get current(): WireEngine | undefined {
    return this.#engines.current;
  }

  ask<T>(question: (engine: WireEngine) => Promise<T>): Promise<T> {
    return this.#engines.ask(question);
  }

  options(trap: WireTrap | null): Uint8Array {
    const { name, url, token, device, storage = 'auto', backlog = {} } = this.given;
    const options: WireOptions = {
      name,
      url: url ?? null,
      // What was kept in the database must not be looked for in memory now.
      storage: this.#storage?.mode ?? storage,
      token: token !== undefined,
      device: device ?? null,
      backlog: wireBound(backlog),
      after: this.#lastWrite ?? null,
      offline: this.#offline,
      trap,
    };
    return encode(options);
  }

  lastOne(): string | undefined {
    return this.#storage?.mode === 'memory' ? 'what was kept in memory is gone with it' : undefined;
  }

  paused(reason: string, retryAt: number): void {
    this.#arrived = [];
    this.#byHandle.clear();
    const why = `the engine stopped (${reason}) and is begun again`;
    for (const log of this.#open) log.pause(why);
    this.#become({ state: 'backing-off', reason: why, retryAt });
    queueMicrotask(() => this.turn.end());
  }

  async resume(engine: WireEngine, trap: WireTrap | null): Promise<() => void> {
    this.#storage ??= storageOf(engine);
    const finish: (() => void)[] = [];
    for (const log of [...this.#open]) {
      const [handle, state] = decode<[number, WireLogState]>(await engine.open(this.#openRequest(log.name, log.definition)));
      if (log.isClosed) continue;
      log.reopen(handle, state);
      // What the engine tells reaches the log from now on, so that nothing is missed between looking up and taking over.
      this.#byHandle.set(handle, log);
      finish.push(await log.bringOver(engine, trap));
    }
    return () => {
      this.catchUp();
      for (const each of finish) each();
      this.turn.end();
    };
  }

  stopped(reason: string): void {
    const why = `the engine is stopped: ${reason}`;
    this.#byHandle.clear();
    for (const log of this.#open) log.fail(why);
    this.#become({ state: 'blocked', reason: why });
    queueMicrotask(() => this.turn.end());
  }

  #become({ state, reason, retryAt }: Pick<Connection, 'state'> & Partial<Connection>): void {
    const { user, kept } = this.connection.getSnapshot();
    this.connection.set(Object.freeze({ state, reason, retryAt, user, kept }));
  }

  get storage(): Storage | undefined {
    return this.#storage;
  }

  async open(definition: LogDefinition, params: object = {}, { priority }: OpenOptions = {}): Promise<Log> {
    if (this.#closing !== undefined) throw fail('closed', { what: this.name }, `the client ${this.name} is closed`);
    const name = logName(definition.pattern, params as Record<string, unknown>);
    let entry = this.#logs.get(name);
    if (entry !== undefined && entry.definition !== definition)
      throw fail('already-open', { log: name }, `the log ${name} is open under another definition`);
    const again = entry !== undefined;
    if (priority !== undefined) this.#priorities.set(name, priority);
    if (entry === undefined) {
      entry = { definition, opened: this.#openLog(name, definition) };
      this.#logs.set(name, entry);
      entry.opened.catch(() => this.#logs.delete(name));
    }
    const log = await entry.opened;
    if (again && priority !== undefined) this.current?.prioritize(log.handle, encode(priority));
    return typed(log);
  }

  async #openLog(name: string, definition: LogDefinition): Promise<OpenLog> {
    const answer = await guardAsync(() => this.ask((engine) => engine.open(this.#openRequest(name, definition))));
    const [handle, state] = decode<[number, WireLogState]>(answer);
    const log: OpenLog = new OpenLog(name, definition, handle, this, state, () => {
      this.#logs.delete(name);
      this.#open.delete(log);
      if (this.#byHandle.get(log.handle) === log) this.#byHandle.delete(log.handle);
    });
    this.#open.add(log);
    this.#byHandle.set(handle, log);
    if (this.current !== undefined) log.presence.read(this.current);
    if (state.deadLetters > 0) await log.readDeadLetters(0);
    return log;
  }

  #openRequest(name: string, definition: LogDefinition): Uint8Array {
    return encode([name, wireSchema(definition.collections), this.#priorities.get(name) ?? null]);
  }

  user(): string | undefined {
    return this.given.user ?? this.connection.getSnapshot().user;
  }

  connect(): void {
    this.#wish(false, (engine) => engine.connect());
  }

  disconnect(): void {
    this.#wish(true, (engine) => engine.disconnect());
  }

  /** While the engine is being begun again, the next one begins with the wish. */
  #wish(offline: boolean, tell: (engine: WireEngine) => void): void {
    if (this.#closing !== undefined) throw fail('closed', { what: this.name }, `the client ${this.name} is closed`);
    this.#offline = offline;
    const engine = this.#engines.current;
    if (engine !== undefined) guard(() => tell(engine));
  }

  acted(write: WriteId): void {
    this.#lastWrite = write;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    for (const log of [...this.#open]) log.close();
    await guardAsync(() => this.#engines.close());
    this.#become({ state: 'closed' });
    this.turn.end();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The engine may be in the middle of its own work when it tells: listeners, which may act, are called after it. */
  hear(bytes: Uint8Array): void {
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
        this.#offline = notice[1].state === 'offline';
        return this.connection.set(connectionOf(notice[1]));
      }
      case 'pressure': {
        const { level, log, ...waiting } = notice[1];
        return this.pressure.set(pressureOf(level, waiting, log ?? undefined));
      }
      case 'log':
        return this.#byHandle.get(notice[1])?.become(notice[2]);
      case 'presence': {
        const engine = this.current;
        return engine && this.#byHandle.get(notice[1])?.presence.read(engine);
      }
      case 'deadLetters':
        // A reading that fails leaves the list as it was; the next notice reads again.
        return void this.#byHandle
          .get(notice[1])
          ?.readDeadLetters(notice[2])
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
    const { token } = this.given;
    let given: string | undefined;
    try {
      given = typeof token === 'function' ? await token(reason) : token;
    } catch {
      // The engine shows `needs-auth` and asks again.
    }
    if (this.#closing === undefined) this.#engines.current?.setToken(given);
  }
}

function storageOf(engine: WireEngine): Storage {
  const { mode, durable, tabs, reason, lost } = decode<WireStorage>(engine.storage());
  return Object.freeze({ mode, durable, tabs, reason: reason ?? undefined, lost: lost ?? undefined });
}

function connectionOf({ state, reason, retryAt, user, kept }: WireConnection): Connection {
  return Object.freeze({
    state,
    reason: reason ?? undefined,
    retryAt: retryAt ?? undefined,
    user: user ?? undefined,
    kept: kept
      ? Object.freeze({ state: kept.state, reason: kept.reason ?? undefined, since: kept.since ?? undefined })
      : undefined,
  });
}
