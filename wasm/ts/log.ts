/**
 * An open log: its actions, its live queries, its own entries.
 *
 * `do.NAME(args)` runs the mutator once, hands its ops to the engine in one crossing, and returns when the view and
 * its subscribers have changed. Storing and shipping go on behind it.
 */

import {
  decode,
  encode,
  type WireEngine,
  type WireEntry,
  type WireEntryFilter,
  type WireLogState,
  type WireNotice,
  type WirePatch,
  type WirePriority,
  type WireQuery,
  type WireRow,
  type WireTrap,
  type WireWriteDetail,
} from './boundary.js';
import { type DeadLetters, LetterList } from './dead_letters.js';
import { type DraftSource, draftOps } from './draft.js';
import { type DeadLetter, type Entry, type EntryFilter, entryOf } from './entry.js';
import { engineError, fail, fromEngine } from './errors.js';
import { type Fold, type FoldDefinition, type FoldView, OpenFolds } from './fold.js';
import { type Pressure, pressureOf } from './pressure.js';
import { OpenPresence, type Presence } from './presence.js';
import { type Query, type QuerySpec, QueryView, wireQuery } from './query.js';
import { Cell, type Readable, type Turn } from './readable.js';
import { type ArgumentsOf, type LogDefinition, type ParamsOf, type RowIn } from './schema.js';
import { canonical, freeze } from './value.js';
import { OpenWrite, type Write, type WriteId } from './write.js';

/** How far a log is. */
export interface LogStatus {
  /**
   * `local`: no answer of the server in this session yet; `behind`: catching up; `synced`: everything that the server
   * had is in the views; `held`: the server asked to push own entries later, for `reason`; `read-only`: as `synced`, but
   * the token gives no right to append, so own actions wait in the outbox; `append-only`: own actions are sent, but the
   * token gives no right to read, so nothing comes back; `forbidden`: the token gives no right at all;
   * `update-needed`: an entry needs a newer version of this package; `degraded`: an entry could not be applied, and the
   * log waits before it for a snapshot of the server that covers it, or the engine is being begun again.
   * Local work goes on in all of them, nothing is refused for a missing right, and the next token with that right
   * resumes by itself.
   */
  readonly state: WireLogState['status'];
  /** Why, for people; `undefined` if there is nothing to say. */
  readonly reason: string | undefined;
  /** For `held`: when own entries are pushed again, in milliseconds since 1970; `undefined` while that is tried. */
  readonly retryAt: number | undefined;
  /** End of the confirmed prefix that the views show: the offset after its last entry. */
  readonly end: number;
}

/** Own entries without a verdict. */
export interface Outbox {
  readonly count: number;
  /** Their bytes, as they are stored. */
  readonly bytes: number;
}

/** A log that is open in this tab. */
export interface Log<D extends LogDefinition = LogDefinition> {
  /** The log's name: the pattern, filled. */
  readonly name: string;
  /**
   * The actions. Each call changes the view before it returns, offline too.
   *
   * Throws what the mutator throws (`no-such-record`, `bad-value`, `bad-position`, the app's own), `backlog-full` and
   * `closed`; then nothing is recorded.
   */
  readonly do: { readonly [Name in keyof D['actions']]: (...args: ArgumentsOf<D['actions'][Name]>) => Write };
  /**
   * What became of an own action, after any number of reloads; `undefined` if this device does not know it. Of accepted
   * actions it keeps the newest. Rejects with `storage-failed` if the database cannot be read now: ask again.
   */
  entry(id: WriteId): Promise<Entry<D> | undefined>;
  /** Own entries that this device still keeps, oldest first. Rejects as `entry` does. */
  entries<Name extends keyof D['actions'] & string = keyof D['actions'] & string>(
    filter?: EntryFilter<D, Name>,
  ): Promise<readonly Extract<Entry<D>, { action: Name }>[]>;
  /** A live query. Throws `bad-query`, `bad-value`. Queries with equal arguments share one view. */
  query<Name extends keyof D['collections'] & string>(
    spec: QuerySpec<D['collections'], Name>,
  ): Query<RowIn<D['collections'], Name>>;
  /**
   * A fold of this log, from its last checkpoint on. The same definition gives the same fold.
   *
   * Throws `already-open` if another definition of that name is open.
   */
  fold<Accumulator>(definition: FoldDefinition<D, Accumulator>): Fold<Accumulator>;
  readonly status: Readable<LogStatus>;
  readonly outbox: Readable<Outbox>;
  /** Whether own work piles up here, and why. */
  readonly pressure: Readable<Pressure>;
  /** Refused entries, kept whole: redriven, edited or discarded when somebody decides. */
  readonly deadLetters: DeadLetters<D>;
  /** Who else is here at the moment, and what they say of themselves. */
  readonly presence: Presence;
  /** Ends the log in this tab; what it recorded is shipped all the same. */
  close(): void;
  [Symbol.dispose](): void;
}

/**
 * After a reading of dead letters comes a rest of a millisecond for each of so many that were read. A letter costs some
 * 10 µs to read, so that readings take a fifth of the time at most, and new ones alone next to none.
 */
const LETTERS_A_MS = 25;

/** What a log needs of its client. @internal */
export interface LogHost {
  /** The engine. Throws `restarting`, `engine-failed` or `closed` while there is none. */
  readonly engine: WireEngine;
  /** The engine, if there is one now. */
  readonly current: WireEngine | undefined;
  /** Asks the engine, and the next one if this one traps before it has answered. */
  ask<T>(question: (engine: WireEngine) => Promise<T>): Promise<T>;
  /** An action has this id. */
  acted(write: WriteId): void;
  readonly turn: Turn;
  /** The user as far as known. */
  user(): string | undefined;
  /** Takes in what the engine told outside of a call, so that it stays before what the next call returns. */
  catchUp(): void;
  /** Takes in what a call returned, and ends the turn. */
  deliver(notices: WireNotice[]): void;
}

/** The log behind `Log`. @internal */
export class OpenLog {
  readonly do: Record<string, (args?: unknown) => Write> = {};
  readonly status: Cell<LogStatus>;
  readonly outbox: Cell<Outbox>;
  readonly pressure: Cell<Pressure>;
  readonly deadLetters: LetterList;
  readonly presence: OpenPresence;
  readonly #views = new Map<string, QueryView>();
  readonly #active = new Map<number, QueryView>();
  readonly #writes = new Map<WriteId, OpenWrite>();
  readonly #source: DraftSource;
  readonly #folds: OpenFolds;
  #drafting: string | undefined;
  #closed = false;
  /** From which seq on the list is to be read; none: it is as the engine has it. */
  #lettersFrom: number | undefined;
  #lettersReading: Promise<void> | undefined;
  #lettersRest: Promise<void> | undefined;
  /** Counts engines: what one that is gone was asked for never comes. */
  #lettersEngine = 0;
  #handle: number;
  /** Why not all queries are up to date. */
  #outdated: string | undefined;

  constructor(
    readonly name: string,
    readonly definition: LogDefinition,
    handle: number,
    private readonly host: LogHost,
    state: WireLogState,
    private readonly onClose: () => void,
  ) {
    this.#handle = handle;
    this.status = new Cell(host.turn, statusOf(state));
    this.outbox = new Cell(host.turn, outboxOf(state));
    this.pressure = new Cell(host.turn, pressureOf(state.pressure, outboxOf(state), name));
    this.deadLetters = new LetterList(host.turn, {
      name,
      redrive: this.#redrive.bind(this),
      discard: (entryId) => {
        this.#open();
        guard(() => host.engine.discard(this.handle, entryId));
      },
      bytes: (entryId) => host.engine.letter(this.handle, entryId),
    });
    this.presence = new OpenPresence(host.turn, this, () => host.engine);
    for (const action of Object.keys(definition.actions)) this.do[action] = (args) => this.#perform(action, args);
    Object.freeze(this.do);
    this.#folds = new OpenFolds(this, host);
    this.#source = {
      read: (collection, id) => {
        const row = host.engine.read(this.handle, collection, id);
        return row === undefined ? undefined : freeze(decode<WireRow>(row));
      },
      where: (collection, list) =>
        freeze(decode<WireRow[]>(host.engine.select(this.handle, encode([collection, list, [], null, 0])))),
      text: (...field) => host.engine.text(this.handle, ...field),
      textLength: (...field) => host.engine.textLength(this.handle, ...field),
      splitsCharacter: (at, ...field) => host.engine.splitsCharacter(this.handle, ...field, at),
    };
  }

  /** Under which the engine that runs knows the log. */
  get handle(): number {
    return this.#handle;
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  #perform(action: string, given: unknown): Write {
    const request = this.#record(action, given);
    return this.#recorded(() => this.host.engine.act(this.handle, request), request);
  }

  #redrive({ action, args, entryId }: DeadLetter<LogDefinition>, given: { args: unknown } | undefined): Write {
    this.#open();
    // What it did cannot be worked out anew without its arguments, nor by an app that has no such action any more.
    const { args: recording = 'record' } = this.definition.options[action] ?? {};
    const isKnown = Object.hasOwn(this.definition.actions, action);
    const anew = isKnown && (given !== undefined || recording === 'record');
    const request = anew ? this.#record(action, given === undefined ? args : given.args) : undefined;
    return this.#recorded(() => this.host.engine.redrive(this.handle, entryId, request));
  }

  /** Runs a mutator: the request that records what it did. */
  #record(action: string, given: unknown): Uint8Array {
    this.#open();
    if (this.#drafting !== undefined) {
      throw fail('draft-closed', { action }, `${action} was called from within the mutator of ${this.#drafting}`);
    }
    const { host, definition } = this;
    const mutator = definition.actions[action] as (tx: never, args: unknown) => unknown;
    const { args: recording = 'record', lifetimeMs } = definition.options[action] ?? {};
    const args = given === undefined || recording === 'omit' ? given : canonical(given, 'args');
    this.#drafting = action;
    let ops: ReturnType<typeof draftOps>;
    try {
      ops = draftOps(action, definition.collections, this.#source, { now: Date.now(), user: host.user() }, (tx) =>
        mutator(tx, args),
      );
    } finally {
      this.#drafting = undefined;
    }
    return encode([action, recording === 'record' ? (args ?? null) : null, ops, lifetimeMs ?? null]);
  }

  /** Hands an action to the engine. */
  #recorded(call: () => Uint8Array, request?: Uint8Array): Write {
    this.host.catchUp();
    const seen = this.status.getSnapshot().end;
    const [id, ...notices] = decode<[WriteId, ...WireNotice[]]>(guard(call));
    const write = new OpenWrite(id, request && { request, seen });
    this.host.acted(id);
    this.#writes.set(id, write);
    this.host.deliver(notices);
    return write;
  }

  async entry(id: WriteId): Promise<Entry<LogDefinition> | undefined> {
    this.#open();
    const bytes = await guardAsync(() => this.host.ask((engine) => engine.entry(this.handle, id)));
    return bytes === undefined ? undefined : entryOf(decode<WireEntry>(bytes));
  }

  async entries({ action, status }: EntryFilter<LogDefinition, string> = {}): Promise<readonly Entry<LogDefinition>[]> {
    const filter: WireEntryFilter = {};
    if (action !== undefined) filter.action = action;
    if (status !== undefined) filter.status = typeof status === 'string' ? [status] : [...status];
    return this.#entries(filter);
  }

  async #entries(filter: WireEntryFilter): Promise<readonly Entry<LogDefinition>[]> {
    this.#open();
    const bytes = await guardAsync(() => this.host.ask((engine) => engine.entries(this.handle, encode(filter))));
    return Object.freeze(decode<WireEntry[]>(bytes).map((entry) => entryOf<LogDefinition>(entry)));
  }

  query(spec: QuerySpec<LogDefinition['collections'], string>): QueryView {
    this.#open();
    const query = wireQuery(this.definition.collections, spec);
    const key = String.fromCharCode(...encode(query));
    let view = this.#views.get(key);
    if (view === undefined) {
      const source = { start: this.#startView.bind(this, key), stop: this.#stopView.bind(this, key) };
      view = new QueryView(source, this.host.turn, this.definition.collections[query[0]]!, query);
      this.#views.set(key, view);
    }
    return view;
  }

  #startView(key: string, query: WireQuery, view: QueryView): { id: number; rows: WireRow[] } | undefined {
    this.#open();
    this.#views.set(key, view);
    if (this.host.current === undefined) return undefined;
    this.host.catchUp();
    const [id, rows] = decode<[number, WireRow[]]>(guard(() => this.host.engine.query(this.handle, encode(query))));
    this.#active.set(id, view);
    return { id, rows };
  }

  #stopView(key: string, id: number): void {
    if (this.#views.get(key) === this.#active.get(id)) this.#views.delete(key);
    this.#active.delete(id);
    if (!this.#closed) this.host.current?.unquery(this.handle, id);
  }

  fold(definition: FoldDefinition): FoldView {
    this.#open();
    return guard(() => this.#folds.open(definition));
  }

  /** A fold has something to do. */
  workFold(id: number): void {
    this.#folds.work(id);
  }

  /** Takes in patches of a query. */
  patch(query: number, patches: WirePatch[]): void {
    this.#active.get(query)?.apply(patches);
  }

  /** Takes in what became of an entry. */
  settle(id: WriteId, status: 'stored' | 'accepted' | 'refused' | 'failed', detail: WireWriteDetail): void {
    if (this.#writes.get(id)?.settle(status, detail)) this.#writes.delete(id);
  }

  /** Takes in the log's state. */
  become(state: WireLogState): void {
    const told = statusOf(state);
    const reason = this.#outdated;
    // What keeps the whole log back says more.
    const tells = reason !== undefined && told.reason === undefined;
    const status: LogStatus = tells ? Object.freeze({ ...told, state: 'degraded', reason }) : told;
    const before = this.status.getSnapshot();
    if (status.state !== before.state || status.reason !== before.reason || status.end !== before.end)
      this.status.set(status);
    const outbox = outboxOf(state);
    const waited = this.outbox.getSnapshot();
    const waitsAsBefore = outbox.count === waited.count && outbox.bytes === waited.bytes;
    if (!waitsAsBefore) this.outbox.set(outbox);
    if (!waitsAsBefore || state.pressure !== this.pressure.getSnapshot().state)
      this.pressure.set(pressureOf(state.pressure, outbox, this.name));
  }

  /** Reads the dead letters from a seq on. Whatever changes while they are read is answered by one more reading. */
  readDeadLetters(from: number): Promise<void> {
    this.#lettersFrom = Math.min(from, this.#lettersFrom ?? from);
    const engine = this.#lettersEngine;
    this.#lettersReading ??= this.#readWhileChanged(engine).finally(() => {
      if (engine === this.#lettersEngine) this.#lettersReading = undefined;
    });
    return this.#lettersReading;
  }

  async #readWhileChanged(engine: number): Promise<void> {
    while (this.#lettersFrom !== undefined) {
      await this.#lettersRest;
      const from = this.#lettersFrom;
      this.#lettersFrom = undefined;
      let letters: readonly DeadLetter<LogDefinition>[];
      try {
        letters = (await this.#entries({ status: ['refused'], from })) as readonly DeadLetter<LogDefinition>[];
      } catch (error) {
        this.#lettersFrom = Math.min(from, this.#lettersFrom ?? from);
        throw error;
      }
      if (this.#closed || engine !== this.#lettersEngine) return;
      this.deadLetters.replaceFrom(from, letters);
      this.host.turn.end();
      // Many that change with each answer would take the time of everything else.
      const rest = Math.floor(letters.length / LETTERS_A_MS);
      this.#lettersRest = rest === 0 ? undefined : new Promise((resolve) => setTimeout(resolve, rest));
    }
  }

  /** The engine is gone: what is shown stays, until another one runs. */
  pause(reason: string): void {
    this.#lettersEngine += 1;
    this.#lettersReading = undefined;
    const { end } = this.status.getSnapshot();
    this.status.set(Object.freeze({ state: 'degraded', reason, retryAt: undefined, end }));
    this.#active.clear();
    for (const view of this.#views.values()) view.pause();
    this.#folds.pause();
  }

  /** No engine will run any more: what was not stored is not recorded. */
  fail(reason: string): void {
    this.pause(reason);
    for (const [id, write] of this.#writes) {
      if (write.again === undefined) continue;
      write.reject(engineError('engine-failed', reason));
      this.#writes.delete(id);
    }
  }

  /** Another engine has the log open. */
  reopen(handle: number, state: WireLogState): void {
    this.#handle = handle;
    this.become(state);
  }

  /**
   * Learns from another engine what became of the actions whose fate is open. What is returned takes the log over:
   * actions that are stored nowhere are recorded again, in their order, and queries and folds begin again.
   */
  async bringOver(engine: WireEngine, trap: WireTrap | null): Promise<() => void> {
    this.presence.again(engine);
    const listed = await engine.entries(this.handle, encode({ status: ['pending', 'stored', 'refused'] }));
    const known = new Map(decode<WireEntry[]>(listed).map((entry) => [entry.writeId, entry]));
    const unstored: OpenWrite[] = [];
    for (const write of [...this.#writes.values()]) {
      let entry = known.get(write.id);
      if (entry === undefined) {
        const bytes = await engine.entry(this.handle, write.id);
        entry = bytes && decode<WireEntry>(bytes);
      }
      if (entry === undefined) unstored.push(write);
      else if (entry.status !== 'pending') this.settle(write.id, entry.status, entry);
    }
    return () => {
      for (const write of unstored) this.#recordAgain(engine, write, trap);
      for (const view of this.#views.values()) this.#resumeView(view);
      this.#folds.resume();
      void this.readDeadLetters(0).catch(() => {});
    };
  }

  /** A query that an engine does not come back from is not asked again by itself; it shows what it did, and is told of. */
  #resumeView(view: QueryView): void {
    try {
      view.resume();
    } catch (error) {
      this.#outdated = `a query of ${view.collection} is not up to date: the engine did not come back from it`;
      throw error;
    }
  }

  #recordAgain(engine: WireEngine, write: OpenWrite, trap: WireTrap | null): void {
    const { again, id } = write;
    try {
      if (again === undefined || trap?.own === id) throw fail('engine-failed', { reason: trap?.reason ?? '' }, 'it trapped');
      const number = Number(id.slice(id.indexOf('-') + 1));
      const [, ...notices] = decode<[WriteId, ...WireNotice[]]>(
        guard(() => engine.actAgain(this.handle, again.request, number, again.seen)),
      );
      this.host.deliver(notices);
    } catch (error) {
      // If it is the engine that is gone, the next one is asked to record it.
      if (this.host.current === undefined) throw error;
      write.reject(error);
      this.#writes.delete(id);
    }
  }

  close(): void {
    if (this.#closed) return;
    for (const view of this.#views.values()) view.close();
    this.#folds.close();
    this.presence.end(this.host.current);
    this.#closed = true;
    this.host.current?.shut(this.handle);
    const error = fail('closed', { what: this.name }, `the log ${this.name} was closed`);
    for (const write of this.#writes.values()) write.reject(error);
    this.#writes.clear();
    this.onClose();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #open(): void {
    if (this.#closed) throw fail('closed', { what: this.name }, `the log ${this.name} is closed`);
  }
}

/** A log as its definition types it. @internal */
export function typed<D extends LogDefinition>(log: OpenLog): Log<D> {
  return log as unknown as Log<D>;
}

/** How a log is opened. */
export interface OpenOptions {
  /**
   * How much of the way between client and server the log gets while others want it too; each step is about eight times
   * the share. `normal` where nothing is said. What is small never waits for what is large, under any priority.
   *
   * A client has one connection for all of its tabs, and so one priority for each log: what was said last counts.
   */
  priority?: Priority;
}

/** How much of the way a log gets. */
export type Priority = WirePriority;

/** The parameters that `open` needs; none where the pattern has none. */
export type OpenArguments<D extends LogDefinition> = keyof ParamsOf<D['pattern']> extends never
  ? [params?: Record<never, never>, options?: OpenOptions]
  : [params: ParamsOf<D['pattern']>, options?: OpenOptions];

function statusOf({ status, reason, retryAt, end }: WireLogState): LogStatus {
  return Object.freeze({ state: status, reason: reason ?? undefined, retryAt: retryAt ?? undefined, end: end ?? 0 });
}

function outboxOf({ outbox: count, outboxBytes: bytes }: WireLogState): Outbox {
  return Object.freeze({ count, bytes });
}

/** Calls the engine; what it throws becomes a typed error. @internal */
export function guard<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw fromEngine(error);
  }
}

/** @internal */
export async function guardAsync<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw fromEngine(error);
  }
}
