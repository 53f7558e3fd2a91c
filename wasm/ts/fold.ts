/**
 * Folds: views with the app's own code. A fold goes over a log's entries in the order of the log and makes one value of
 * them; own pending entries are laid on top.
 *
 * The engine decides what is folded when, keeps checkpoints, and tells a poison entry from an outage; this file calls
 * the app's handlers and holds the accumulator. Accumulators are frozen: a handler returns a new one.
 */

import {
  decode,
  encode,
  type WireEngine,
  type WireFoldAct,
  type WireFoldBatch,
  type WireFoldLetter,
  type WireFoldState,
} from './boundary.js';
import { fail } from './errors.js';
import { Cell, type Readable, type Turn } from './readable.js';
import type { ArgsOf, LogDefinition } from './schema.js';
import { canonical, DEPTH_MAX, freeze, isName, NAME_BYTES_MAX } from './value.js';
import type { WriteId } from './write.js';

/** What a handler learns of an entry besides its arguments. */
export interface FoldEntry {
  /** Its place in the log; `undefined` while it is pending. */
  readonly offset: number | undefined;
  readonly id: WriteId;
  /** The user who acted; of a pending entry `undefined` before the first connection. */
  readonly author: string | undefined;
  /** When it counts, in ms since 1970: the same on every device once it is accepted. */
  readonly time: number;
  /** `accepted`: it is in the server's log; `pending`: it is not yet, and is folded again when it is. */
  readonly status: 'pending' | 'accepted';
}

/** One handler for each action that counts; the others are passed over. */
export type FoldHandlers<D extends LogDefinition, Accumulator> = {
  readonly [Name in keyof D['actions'] & string]?: (
    accumulator: Accumulator,
    args: ArgsOf<D['actions'][Name]>,
    entry: FoldEntry,
  ) => Accumulator;
};

/** A fold's declaration, made by `fold`. */
export interface FoldDefinition<D extends LogDefinition = LogDefinition, Accumulator = unknown> {
  readonly log: D;
  readonly name: string;
  readonly version: number;
  readonly init: Accumulator;
  // Handlers of any log fit a definition of any log: what checks them is `fold` itself.
  readonly on: { readonly [name: string]: ((accumulator: any, args: any, entry: FoldEntry) => unknown) | undefined };
}

/** What a fold has come to. */
export interface FoldSnapshot<Accumulator> {
  /** The accumulator after everything confirmed, with the pending entries on top. */
  readonly value: Accumulator;
  /**
   * The first offset that is in it; `undefined` before anything of the log is known. Equal `version` and equal `from`
   * give equal confirmed values on every device.
   */
  readonly from: number | undefined;
  /** The offset behind the last confirmed entry that is in it. */
  readonly end: number;
  /**
   * `loading`; `behind`: entries are still being folded; `waiting`: for entries that only the server has; `live`. The
   * value shown is the last complete one.
   */
  readonly state: WireFoldState['status'];
  /**
   * `closed`: all goes well. `open`: ten entries in a row failed, so it is not the entries: nothing was parked, and it
   * is tried again at `retryAt`. `probing`: it is being tried.
   */
  readonly breaker: WireFoldState['breaker'];
  /** When what failed is tried again, in ms since 1970. */
  readonly retryAt: number | undefined;
  /** Entries that failed and on which nothing is decided: they are left out for now. */
  readonly suspected: readonly { readonly offset: number; readonly reason: string; readonly attempts: number }[];
  /** Own pending entries that failed: they are left out until they are confirmed and folded in their place. */
  readonly failing: readonly { readonly id: WriteId; readonly reason: string }[];
}

/** An entry that a handler cannot take, kept whole. It is left out of this fold, and of nothing else. */
export interface ParkedEntry {
  readonly offset: number;
  readonly id: WriteId;
  readonly author: string | undefined;
  readonly time: number;
  readonly action: string;
  readonly args: unknown;
  /** What the handler threw the last time. */
  readonly reason: string;
  readonly attempts: number;
  /** When it failed first and last, in ms since 1970. */
  readonly firstAt: number;
  readonly lastAt: number;
}

/** A fold of an open log. */
export interface Fold<Accumulator> extends Readable<FoldSnapshot<Accumulator>> {
  /** The dead letters of this fold, in the order of the log. They survive reloads, until a new version. */
  readonly parked: Readable<readonly ParkedEntry[]>;
  /** Tries a parked entry again, or all of them. Everything is folded anew, so that it stands in its place. */
  redrive(offset?: number): void;
  /** Takes a parked entry off the list. It stays left out of this fold. */
  discard(offset: number): void;
  /** Ends the fold; what it shows stays readable. */
  close(): void;
}

/**
 * Declares a fold of a log.
 *
 * Raise `version` whenever `init` or a handler changes: then everything is folded anew from the history that is kept.
 * Handlers are pure functions: no clock, no randomness, nothing but their arguments. Entries with a lifetime are left
 * out. Throws `bad-name` and `bad-value`.
 */
export function fold<D extends LogDefinition, Accumulator>(
  log: D,
  name: string,
  version: number,
  { init, on }: { readonly init: Accumulator; readonly on: FoldHandlers<D, NoInfer<Accumulator>> },
): FoldDefinition<D, Accumulator> {
  if (!isName(name, NAME_BYTES_MAX)) throw fail('bad-name', { name, where: 'folds' }, `"${name}" is not a name`);
  if (!Number.isSafeInteger(version) || version < 0) {
    throw fail('bad-value', { path: 'version', problem: String(version) }, `a version is a whole number: ${version}`);
  }
  for (const action of Object.keys(on)) {
    if (!Object.hasOwn(log.actions, action))
      throw fail('bad-name', { name: action, where: 'on' }, `${log.pattern} has no action ${action}`);
  }
  const initial = canonical(init, 'init') as Accumulator;
  return Object.freeze({ log, name, version, init: initial, on: Object.freeze({ ...on }) });
}

/** The log whose folds these are, and where its engine is. @internal */
export interface FoldHost {
  readonly engine: WireEngine;
  readonly current: WireEngine | undefined;
  readonly turn: Turn;
}

/** The folds of one open log. @internal */
export class OpenFolds {
  readonly #views = new Map<string, FoldView>();
  readonly #byId = new Map<number, FoldView>();

  constructor(
    private readonly log: { readonly handle: number },
    private readonly host: FoldHost,
  ) {}

  /** The fold of a definition: the same for all who ask. Throws `already-open` if its name is another's. */
  open(definition: FoldDefinition): FoldView {
    const known = this.#views.get(definition.name);
    if (known !== undefined) {
      if (known.definition === definition) return known;
      const { name } = definition;
      throw fail('already-open', { log: name }, `the fold ${name} is open under another definition`);
    }
    const view = new FoldView(this.log, this.host, definition, {
      opened: (id) => this.#byId.set(id, view),
      closed: (id) => {
        if (id !== undefined) this.#byId.delete(id);
        this.#views.delete(definition.name);
      },
    });
    view.start();
    this.#views.set(definition.name, view);
    return view;
  }

  /** A fold has something to do. */
  work(id: number): void {
    this.#byId.get(id)?.work();
  }

  /** The engine is gone; what folds show stays. */
  pause(): void {
    this.#byId.clear();
    for (const view of this.#views.values()) view.pause();
  }

  /** Begins all of them again, in a new engine. */
  resume(): void {
    for (const view of this.#views.values()) view.start();
  }

  close(): void {
    for (const view of [...this.#views.values()]) view.close();
  }
}

/** How long handlers may run before the page gets its turn. */
const BUDGET_MS = 8;

const NOTHING = new Uint8Array();

/** The fold behind `Fold`. @internal */
export class FoldView implements Fold<unknown> {
  readonly parked: Cell<readonly ParkedEntry[]>;
  readonly #cell: Cell<FoldSnapshot<unknown>>;
  #id: number | undefined;
  #confirmed: unknown;
  #tail: readonly WireFoldAct[] = [];
  /** The value with the first `#laid` entries of the tail on top; unset when it must be made anew. */
  #top: { value: unknown; laid: number; failing: { id: WriteId; reason: string }[] } | undefined;
  #report = NOTHING;
  #end = 0;
  #shown = false;
  #scheduled = false;

  constructor(
    private readonly log: { readonly handle: number },
    private readonly host: FoldHost,
    readonly definition: FoldDefinition,
    private readonly register: { opened(id: number): void; closed(id: number | undefined): void },
  ) {
    this.parked = new Cell<readonly ParkedEntry[]>(host.turn, Object.freeze([]));
    this.#confirmed = definition.init;
    this.#cell = new Cell<FoldSnapshot<unknown>>(
      host.turn,
      Object.freeze({
        value: definition.init,
        from: undefined,
        end: 0,
        state: 'loading',
        breaker: 'closed',
        retryAt: undefined,
        suspected: Object.freeze([]),
        failing: Object.freeze([]),
      }),
    );
  }

  /** Opens the fold in the engine, also again in a new engine: it goes on from its checkpoint. */
  start(): void {
    const { name, version, on, init } = this.definition;
    this.#report = NOTHING;
    this.#tail = [];
    this.#top = undefined;
    this.#id = this.host.engine.openFold(this.log.handle, encode([name, version, Object.keys(on), init]));
    this.register.opened(this.#id);
    this.work();
  }

  getSnapshot(): FoldSnapshot<unknown> {
    return this.#cell.getSnapshot();
  }

  subscribe(listener: (snapshot: FoldSnapshot<unknown>) => void): () => void {
    return this.#cell.subscribe(listener);
  }

  redrive(offset?: number): void {
    if (this.#id === undefined) return;
    this.host.engine.redriveFold(this.log.handle, this.#id, offset);
    this.#workOn();
  }

  discard(offset: number): void {
    if (this.#id === undefined) return;
    this.host.engine.discardFolded(this.log.handle, this.#id, offset);
    this.#workOn();
  }

  /** The engine is gone: the fold does nothing until `start`. */
  pause(): void {
    this.#id = undefined;
  }

  close(): void {
    const id = this.#id;
    this.#id = undefined;
    if (id !== undefined) this.host.current?.shutFold(this.log.handle, id);
    this.register.closed(id);
  }

  /** Folds what there is, for as long as the page can spare; the rest in a later task. */
  work(): void {
    const begun = Date.now();
    while (this.#id !== undefined) {
      const bytes = this.host.engine.stepFold(this.log.handle, this.#id, this.#report);
      this.#report = NOTHING;
      const batch = decode<WireFoldBatch>(bytes);
      if (!this.#take(batch)) return;
      if (Date.now() - begun >= BUDGET_MS) return this.#later();
    }
  }

  #workOn(): void {
    this.work();
    this.host.turn.end();
  }

  #later(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setTimeout(() => {
      this.#scheduled = false;
      if (this.#id !== undefined) this.#workOn();
    });
  }

  /** Takes a batch in; true if the next one is wanted at once. */
  #take(batch: WireFoldBatch): boolean {
    if (batch.start.length > 0) {
      this.#confirmed = freeze(batch.start[0]);
      this.#top = undefined;
    }
    let done = 0;
    let failure: string | null = null;
    for (const act of batch.acts) {
      try {
        this.#confirmed = this.#apply(this.#confirmed, act, 'accepted');
        done++;
        this.#end = act.offset! + 1;
      } catch (error) {
        failure = reasonOf(error);
        break;
      }
    }
    if (done > 0) this.#top = undefined;
    if (batch.tail === 'replaced') {
      this.#tail = batch.tailActs;
      this.#top = undefined;
    } else if (batch.tail === 'appended') this.#tail = [...this.#tail, ...batch.tailActs];
    if (batch.parked !== undefined && batch.parked !== null) this.parked.set(Object.freeze(batch.parked.map(parkedOf)));

    const works = batch.acts.length > 0 || batch.wantsAccumulator;
    const tells = failure !== null || batch.wantsAccumulator;
    if (works) this.#report = encode([batch.ticket, done, failure, tells ? [this.#confirmed] : []]);
    // What is tentative is decided by how this went, so that is told at once, and not with what comes next.
    const tentative = batch.state.breaker !== 'closed' || batch.state.suspects.length > 0;
    const goesOn = works && (tells || batch.more || tentative);
    if (!goesOn) this.#show(batch.state);
    return goesOn;
  }

  #apply(accumulator: unknown, act: WireFoldAct, status: FoldEntry['status']): unknown {
    const handler = this.definition.on[act.action]!;
    const { offset, id, author, time } = act;
    const entry = Object.freeze({ offset: offset ?? undefined, id, author: author ?? undefined, time, status });
    const next = handler(accumulator, freeze(act.args ?? undefined), entry);
    seal(next, 'accumulator', 0);
    return next;
  }

  /** Shows what there is, unless a complete value is shown and the next one is not complete. */
  #show(state: WireFoldState): void {
    const complete = state.status === 'live' || state.breaker !== 'closed';
    const before = this.#cell.getSnapshot();
    const top = complete || !this.#shown ? this.#laid() : { value: before.value, failing: before.failing };
    this.#shown ||= complete;
    this.#cell.set(
      Object.freeze({
        value: top.value,
        from: state.from ?? undefined,
        end: Math.max(state.end, complete ? this.#end : 0),
        state: state.status,
        breaker: state.breaker,
        retryAt: state.retryAt ?? undefined,
        suspected: Object.freeze(state.suspects),
        failing: Object.freeze([...top.failing]),
      }),
    );
  }

  #laid(): { value: unknown; failing: { id: WriteId; reason: string }[] } {
    const top = (this.#top ??= { value: this.#confirmed, laid: 0, failing: [] });
    for (; top.laid < this.#tail.length; top.laid++) {
      const act = this.#tail[top.laid]!;
      try {
        top.value = this.#apply(top.value, act, 'pending');
      } catch (error) {
        top.failing.push({ id: act.id, reason: reasonOf(error) });
      }
    }
    return top;
  }
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}

function parkedOf(letter: WireFoldLetter): ParkedEntry {
  return Object.freeze({
    offset: letter.offset,
    id: letter.id,
    author: letter.author ?? undefined,
    time: letter.time,
    action: letter.action,
    args: freeze(letter.args ?? undefined),
    reason: letter.reason,
    attempts: letter.attempts,
    firstAt: letter.first,
    lastAt: letter.last,
  });
}

/** Parts of accumulators that were checked and frozen: they are shared by the next ones and not looked at again. */
const sealed = new WeakSet<object>();

/** Freezes what a handler returned, in place, and throws `bad-value` if it has no canonical form. */
function seal(value: unknown, path: string, depth: number): void {
  if (typeof value !== 'object' || value === null) return void canonical(value, path);
  if (sealed.has(value) || value instanceof Uint8Array) return;
  // Refuses what is not a plain list or map, and what nests too deep.
  if (depth >= DEPTH_MAX) throw fail('bad-value', { path, problem: 'nested too deep' }, `${path} is nested too deep`);
  const prototype: unknown = Object.getPrototypeOf(value);
  if (!Array.isArray(value) && prototype !== Object.prototype && prototype !== null) return void canonical(value, path);
  for (const [key, part] of Object.entries(value)) {
    if (part === undefined && !Array.isArray(value)) continue;
    canonical(key, path);
    seal(part, `${path}.${key}`, depth + 1);
  }
  sealed.add(Object.freeze(value));
}
