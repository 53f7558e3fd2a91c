/**
 * The draft that a mutator works on: it shows current rows with the action's own writes on top, and records ops.
 *
 * Reads go to the engine one record at a time; the first write of a record copies what it shows. Texts are read by
 * themselves, and only by who asks for them whole: typing into a long one costs what typing into a short one does.
 * Nothing is sent before the mutator has returned: a throwing mutator leaves no trace.
 *
 * Invariant: an op is recorded exactly when a write was made, in the order of the writes.
 */

import type { Strategy, WireFieldOp, WireOp, WireRow, WireSplice } from './boundary.js';
import { DraftText, type TextSource } from './draft/text.js';
import { fail } from './errors.js';
import { type Conditions, conditions, type Filter, matches } from './filter.js';
import type { Collection, Collections, DraftOf, Field, Fields, RecordId, RecordInit, Single } from './schema.js';
import { canonical, compare, freeze, isName, isWellFormed, RECORD_ID_BYTES_MAX, same } from './value.js';

/** A counter in a draft. In rows it is a plain number. */
export interface CounterDraft {
  /** The sum, with this action's increments. Assigning x records the difference x − shown. */
  value: number;
  /** Adds an integer, 1 if none is given. Throws `bad-value` for other numbers. */
  increment(by?: number): void;
}

/** A set in a draft. In rows it is a frozen list. */
export interface SetDraft<T> extends Iterable<T> {
  readonly size: number;
  has(value: T): boolean;
  /** Adds a value; adding one that is there wins over a concurrent removal. */
  add(value: T): void;
  /** Removes a value as far as it was seen: concurrent additions stay. False, and nothing recorded, if it is not there. */
  delete(value: T): boolean;
}

/** A text in a draft. In rows it is a string. Positions and lengths count UTF-16 code units; out of range throws `bad-position`. */
export interface TextDraft {
  readonly length: number;
  insert(at: number, inserted: string): void;
  delete(at: number, length: number): void;
  /** Deletes `deleted` code units at `at` and inserts a string there. */
  splice(at: number, deleted: number, inserted: string): void;
  toString(): string;
}

type Rich = CounterDraft | SetDraft<never> | TextDraft;
type RichKey<F extends Fields> = { [K in keyof F]: DraftOf<F[K]> extends Rich ? K : never }[keyof F];

/** A record in a draft: registers are assigned, counters, sets and texts have methods. */
export type RecordDraft<F extends Fields> = { readonly id: RecordId } & {
  -readonly [K in Exclude<keyof F, RichKey<F>>]: DraftOf<F[K]>;
} & { readonly [K in RichKey<F>]: DraftOf<F[K]> };

/** A collection in a draft. */
export interface CollectionDraft<F extends Fields> {
  /** The record; throws `no-such-record` if the view does not show it. */
  get(id: RecordId): RecordDraft<F>;
  /** The record, or `undefined`. */
  find(id: RecordId): RecordDraft<F> | undefined;
  has(id: RecordId): boolean;
  /** The records that meet all conditions (all records without any), by id. */
  where(filter?: Filter<F>): RecordDraft<F>[];
  /** Inserts a record; where the id exists already, the given fields are written to it. */
  insert(id: RecordId, init?: RecordInit<F>): RecordDraft<F>;
  /**
   * Deletes a record. False, and nothing recorded, if it is not there. What becomes of changes that this device has not
   * seen is said by `onDelete` of the collection.
   */
  delete(id: RecordId): boolean;
}

/** Where a draft reads what is shown at present. @internal */
export interface DraftSource extends TextSource {
  /** A row without its texts. */
  read(collection: string, id: string): WireRow | undefined;
  /** Rows without their texts. */
  where(collection: string, conditions: Conditions): readonly WireRow[];
}

/** Runs a mutator and gives back its ops. Throws what the mutator throws. @internal */
export function draftOps(
  action: string,
  collections: Collections,
  source: DraftSource,
  context: { now: number; user: string | undefined },
  run: (tx: never) => unknown,
): WireOp[] {
  const draft = new Draft(action, source);
  const tx: Record<string, unknown> = { now: context.now, user: context.user };
  for (const [name, declared] of Object.entries(collections)) {
    Object.defineProperty(tx, name, {
      enumerable: true,
      get: () =>
        declared.single ? draft.records(name, declared).get('').facade : draft.records(name, declared).facade,
    });
  }
  try {
    const returned = run(Object.freeze(tx) as never);
    if (typeof (returned as { then?: unknown } | undefined)?.then === 'function') {
      throw fail('mutator-async', { action }, `the mutator of ${action} returned a promise; mutators are synchronous`);
    }
    return draft.ops;
  } finally {
    draft.closed = true;
  }
}

/** What a field without a written value shows. */
const EMPTY: Record<Strategy, unknown> = { register: undefined, counter: 0, set: Object.freeze([]), text: '' };

/** What a field shows for the value in the engine's row. @internal */
export function shown({ strategy, default: initial }: Field<unknown, unknown, unknown>, raw: unknown): unknown {
  const absent = raw === undefined || (raw === null && initial === undefined);
  if (!absent) return raw;
  return initial === undefined ? EMPTY[strategy] : initial;
}

class Draft {
  readonly ops: WireOp[] = [];
  closed = false;
  readonly #collections = new Map<string, Records>();

  constructor(
    readonly action: string,
    readonly source: DraftSource,
  ) {}

  records(name: string, declared: Collection | Single): Records {
    let records = this.#collections.get(name);
    if (records === undefined) {
      records = new Records(this, name, declared);
      this.#collections.set(name, records);
    }
    return records;
  }

  record(op: WireOp): void {
    this.open();
    this.ops.push(op);
  }

  /** Adds splices to the last op, if that is of the same text: they become one change of it. */
  extend(collection: string, record: string, field: string, splices: WireSplice[]): boolean {
    const last = this.ops.at(-1);
    if (last === undefined || last[0] === 'delete' || last[1] !== collection || last[2] !== record) return false;
    const [written, op] = last[0] === 'update' ? [last[3], last[4]] : (last[3].length === 1 && last[3][0]) || [];
    if (written !== field || op?.[0] !== 'text') return false;
    op[1].push(...splices);
    return true;
  }

  open(): void {
    if (!this.closed) return;
    throw fail(
      'draft-closed',
      { action: this.action },
      `the draft of ${this.action} was used after its mutator had returned`,
    );
  }
}

/** The records of one collection as this draft shows them. */
class Records {
  readonly #known = new Map<string, RecordState>();
  readonly facade: CollectionDraft<Fields>;

  constructor(
    readonly draft: Draft,
    readonly name: string,
    readonly declared: Collection | Single,
  ) {
    this.facade = Object.freeze({
      get: (id: string) => this.get(id).facade,
      find: (id: string) => this.find(id)?.facade,
      has: (id: string) => this.find(id) !== undefined,
      where: (filter?: object) => this.where(filter),
      insert: (id: string, init?: object) => this.insert(id, init ?? {}).facade,
      delete: (id: string) => this.delete(id),
    });
  }

  find(id: string): RecordState | undefined {
    this.draft.open();
    const state = this.#state(id);
    return state.exists || this.declared.single ? state : undefined;
  }

  get(id: string): RecordState {
    const state = this.find(id);
    if (state !== undefined) return state;
    throw fail('no-such-record', { collection: this.name, id }, `no record ${id} in ${this.name}`);
  }

  where(filter: object | undefined): RecordDraft<Fields>[] {
    this.draft.open();
    const list = conditions(this.declared.fields, filter);
    const found: RecordState[] = [];
    for (const row of this.draft.source.where(this.name, list)) {
      const state = this.#known.get(row.id) ?? this.#keep(row.id, row);
      if (!state.touched) found.push(state);
    }
    for (const state of this.#known.values()) {
      if (state.touched && state.exists && matches(list, (field) => state.read(field))) found.push(state);
    }
    return found.sort((a, b) => compare(a.id, b.id)).map((state) => state.facade);
  }

  insert(id: string, init: object): RecordState {
    this.draft.open();
    if (!isName(id, RECORD_ID_BYTES_MAX)) {
      const problem = `not a string of 1 to ${RECORD_ID_BYTES_MAX} bytes without control characters`;
      throw fail('bad-value', { path: 'id', problem }, `an id of ${this.name} is ${problem}`);
    }
    const state = this.#state(id);
    const fields: [string, WireFieldOp][] = [];
    const edits: [string, string][] = [];
    for (const [name, value] of Object.entries(init)) {
      if (value === undefined) continue;
      const declared = Object.hasOwn(this.declared.fields, name) ? this.declared.fields[name] : undefined;
      const path = `${this.name}.${id}.${name}`;
      if (declared === undefined)
        throw fail('bad-value', { path, problem: 'no such field' }, `${this.name} has no field ${name}`);
      // The content of a text that is there is replaced: its initial content may be in it already.
      if (declared.strategy === 'text' && state.text(name).length > 0) edits.push([name, textOf(value, path)]);
      else fields.push([name, initialOp(declared.strategy, value, path)]);
    }
    this.draft.record(['insert', this.name, id, fields]);
    state.create();
    for (const [name, op] of fields) state.apply(name, op);
    for (const [name, content] of edits) {
      const text = state.part(name) as TextPart;
      if (text.toString() !== content) text.splice(0, text.length, content);
    }
    return state;
  }

  delete(id: string): boolean {
    this.draft.open();
    const state = this.#state(id);
    if (!state.exists) return false;
    const updateWins = !this.declared.single && this.declared.onDelete === 'update-wins';
    this.draft.record(updateWins ? ['delete', this.name, id, 'update-wins'] : ['delete', this.name, id]);
    state.remove();
    return true;
  }

  #state(id: string): RecordState {
    const known = this.#known.get(id);
    if (known !== undefined) return known;
    // What cannot be an id names no record; the engine need not be asked.
    const possible = this.declared.single || isName(id, RECORD_ID_BYTES_MAX);
    return this.#keep(id, possible ? this.draft.source.read(this.name, id) : undefined);
  }

  #keep(id: string, row: WireRow | undefined): RecordState {
    const state = new RecordState(this, id, row);
    this.#known.set(id, state);
    return state;
  }
}

/** One record as this draft shows it: the engine's row, then the action's writes. */
class RecordState {
  exists: boolean;
  touched = false;
  readonly #written = new Map<string, unknown>();
  readonly #texts = new Map<string, DraftText>();
  readonly #parts = new Map<string, Part>();
  #row: WireRow | undefined;
  #facade: RecordDraft<Fields> | undefined;

  constructor(
    readonly records: Records,
    readonly id: string,
    row: WireRow | undefined,
  ) {
    this.#row = row;
    this.exists = row !== undefined;
  }

  get facade(): RecordDraft<Fields> {
    this.#facade ??= facadeOf(this);
    return this.#facade;
  }

  read(field: string): unknown {
    if (field === 'id') return this.id;
    if (this.records.declared.fields[field]!.strategy === 'text') return this.text(field).toString();
    if (this.#written.has(field)) return this.#written.get(field);
    return shown(this.records.declared.fields[field]!, this.#row?.[field]);
  }

  /** A text as it is shown. */
  text(field: string): DraftText {
    let text = this.#texts.get(field);
    if (text === undefined) {
      const { draft, name } = this.records;
      text = new DraftText(this.#row && { source: draft.source, path: [name, this.id, field] });
      this.#texts.set(field, text);
    }
    return text;
  }

  /** The draft of a counter, set or text. */
  part(field: string): Part {
    let part = this.#parts.get(field);
    if (part === undefined) {
      part = PARTS[this.records.declared.fields[field]!.strategy]!(this, field);
      this.#parts.set(field, part);
    }
    return part;
  }

  /** Records a write of one field, and shows it. */
  write(field: string, op: WireFieldOp): void {
    const { draft, name, declared } = this.records;
    draft.open();
    if (!this.exists && !declared.single)
      throw fail('no-such-record', { collection: name, id: this.id }, `record ${this.id} of ${name} was deleted`);
    if (op[0] !== 'text' || !draft.extend(name, this.id, field, op[1])) {
      draft.record(declared.single ? ['insert', name, this.id, [[field, op]]] : ['update', name, this.id, field, op]);
    }
    this.apply(field, op);
  }

  /** Shows a write of one field. */
  apply(field: string, op: WireFieldOp): void {
    this.touched = true;
    if (op[0] === 'text') this.text(field).splice(op[1]);
    else if (op[0] === 'initial') this.text(field).become(op[1]);
    else this.#written.set(field, applied(this.records.declared.fields[field]!, this.read(field), op));
  }

  create(): void {
    this.exists = true;
    this.touched = true;
  }

  remove(): void {
    this.exists = false;
    this.touched = true;
    this.#row = undefined;
    this.#written.clear();
    this.#texts.clear();
    this.#parts.clear();
  }
}

type Part = CounterPart | SetPart | TextPart;

const PARTS: Partial<Record<Strategy, (state: RecordState, field: string) => Part>> = {
  counter: (state, field) => new CounterPart(state, field),
  set: (state, field) => new SetPart(state, field),
  text: (state, field) => new TextPart(state, field),
};

class CounterPart implements CounterDraft {
  readonly #state: RecordState;
  readonly #field: string;
  constructor(state: RecordState, field: string) {
    this.#state = state;
    this.#field = field;
  }

  increment(by = 1): void {
    const path = `${this.#state.records.name}.${this.#state.id}.${this.#field}`;
    this.#state.write(this.#field, ['increment', integer(by, path, this.value)]);
  }

  get value(): number {
    return this.#state.read(this.#field) as number;
  }

  set value(next: number) {
    this.increment(next - this.value);
  }

  valueOf(): number {
    return this.value;
  }

  toString(): string {
    return String(this.value);
  }
}

class SetPart implements SetDraft<unknown> {
  readonly #state: RecordState;
  readonly #field: string;
  constructor(state: RecordState, field: string) {
    this.#state = state;
    this.#field = field;
  }

  get #values(): readonly unknown[] {
    return this.#state.read(this.#field) as readonly unknown[];
  }

  get size(): number {
    return this.#values.length;
  }

  has(value: unknown): boolean {
    return this.#values.some((one) => same(one, value));
  }

  add(value: unknown): void {
    this.#state.write(this.#field, ['add', [canonical(value, this.#path)]]);
  }

  delete(value: unknown): boolean {
    this.#state.records.draft.open();
    const element = canonical(value, this.#path);
    if (!this.has(element)) return false;
    this.#state.write(this.#field, ['remove', [element]]);
    return true;
  }

  [Symbol.iterator](): Iterator<unknown> {
    return this.#values[Symbol.iterator]();
  }

  get #path(): string {
    return `${this.#state.records.name}.${this.#state.id}.${this.#field}`;
  }
}

class TextPart implements TextDraft {
  readonly #state: RecordState;
  readonly #field: string;
  constructor(state: RecordState, field: string) {
    this.#state = state;
    this.#field = field;
  }

  get length(): number {
    return this.#state.text(this.#field).length;
  }

  insert(at: number, inserted: string): void {
    this.splice(at, 0, inserted);
  }

  delete(at: number, length: number): void {
    this.splice(at, length, '');
  }

  splice(at: number, deleted: number, inserted: string): void {
    const { records } = this.#state;
    records.draft.open();
    const path = `${records.name}.${this.#state.id}.${this.#field}`;
    const before = this.#state.text(this.#field);
    for (const position of [at, at + deleted]) {
      if (
        Number.isInteger(position) &&
        position >= at &&
        position >= 0 &&
        position <= before.length &&
        !before.splitsCharacter(position)
      )
        continue;
      throw fail(
        'bad-position',
        { field: path, at: position, length: before.length },
        `position ${position} in ${path} is outside of its ${before.length} code units, or inside a character`,
      );
    }
    const content = textOf(inserted, path);
    if (deleted === 0 && content === '') return;
    this.#state.write(this.#field, ['text', [[at, deleted, content]]]);
  }

  toString(): string {
    return this.#state.read(this.#field) as string;
  }
}

/** A record as the mutator sees it: an accessor for each field. */
function facadeOf(state: RecordState): RecordDraft<Fields> {
  const facade = Object.create(null) as object;
  const { draft, name, declared } = state.records;
  Object.defineProperty(facade, 'id', { value: state.id, enumerable: true });
  for (const [field, { strategy, default: initial }] of Object.entries(declared.fields)) {
    const path = `${name}.${state.id}.${field}`;
    Object.defineProperty(facade, field, {
      enumerable: true,
      get: () => {
        draft.open();
        return strategy === 'register' ? state.read(field) : state.part(field);
      },
      set: (value: unknown) => {
        if (strategy === 'register') state.write(field, setOp(value, path, initial === undefined));
        else if (strategy === 'counter') (state.part(field) as CounterPart).value = value as number;
        else
          throw fail(
            'bad-value',
            { path, problem: 'assigned' },
            `${path} is a ${strategy}: it has methods and cannot be assigned`,
          );
      },
    });
  }
  return Object.preventExtensions(facade) as RecordDraft<Fields>;
}

function initialOp(strategy: Strategy, value: unknown, path: string): WireFieldOp {
  switch (strategy) {
    case 'register':
      return setOp(value, path, false);
    case 'counter':
      return ['increment', integer(value as number, path, 0)];
    case 'set':
      return ['add', [...(value as Iterable<unknown>)].map((one) => canonical(one, path))];
    case 'text':
      return ['initial', textOf(value, path)];
  }
}

/** `undefined` empties a register that has no default; on the wire that is null. */
function setOp(value: unknown, path: string, mayBeAbsent: boolean): WireFieldOp {
  return ['set', value === undefined && mayBeAbsent ? null : canonical(value, path)];
}

function integer(by: number, path: string, sum: number): number {
  if (Number.isSafeInteger(by) && Number.isSafeInteger(sum + by)) return by === 0 ? 0 : by;
  throw fail(
    'bad-value',
    { path, problem: `an increment of ${by}` },
    `${path} counts integers up to 2^53-1, not ${by}`,
  );
}

function textOf(value: unknown, path: string): string {
  if (typeof value === 'string' && isWellFormed(value)) return value;
  throw fail(
    'bad-value',
    { path, problem: 'not a string, or a lone surrogate' },
    `${path} takes a string without lone surrogates`,
  );
}

/** What a field shows after a write. */
function applied(
  field: Field<unknown, unknown, unknown>,
  before: unknown,
  [kind, value]: Exclude<WireFieldOp, ['initial' | 'text', unknown]>,
): unknown {
  switch (kind) {
    case 'set':
      return shown(field, value);
    case 'increment':
      return (before as number) + value;
    case 'add':
      return union(before as readonly unknown[], value);
    case 'remove':
      return freeze((before as readonly unknown[]).filter((one) => !value.some((gone) => same(one, gone))));
  }
}

function union(before: readonly unknown[], added: readonly unknown[]): readonly unknown[] {
  const all = [...before];
  for (const value of added) if (!all.some((one) => same(one, value))) all.push(value);
  return freeze(all.sort(compare));
}
