/**
 * Live queries: rows of one collection, filtered, sorted and limited by the engine and kept here by its patches.
 *
 * Invariant: a row is the same object as long as nothing of it changes, as is each value in it, and the list is the same
 * as long as no row of it changes. Queries with equal arguments share one view.
 */

import { spliced, type WirePatch, type WireQuery, type WireRow, type WireSplice } from './boundary.js';
import { shown } from './draft.js';
import { badQuery, conditions, type Filter } from './filter.js';
import { guarded, Listeners, type Readable, type Turn } from './readable.js';
import type { Collection, Collections, Row, RowIn, Single } from './schema.js';
import { freeze, same } from './value.js';

/** What to show of a collection. */
export interface QuerySpec<C extends Collections, Name extends keyof C> {
  readonly from: Name;
  /** Conditions that all hold; without any, every record. */
  readonly where?: Filter<C[Name]['fields']>;
  /** Keys in falling weight; ties, and queries without an order, go by id. */
  readonly orderBy?: readonly (readonly [
    field: (keyof C[Name]['fields'] & string) | 'id',
    direction: 'asc' | 'desc',
  ])[];
  /** At most so many rows; without it, all. */
  readonly limit?: number;
  /** So many rows are skipped at the front; 0 by default. */
  readonly offset?: number;
  /**
   * `keep`: rows stay as the user left them when an own action on them is refused, marked in `$` with `status:
   * 'refused'`, code and reason, until the dead letter is discarded or redriven. What was to be deleted is there, marked;
   * what was typed into a text that others have is not shown in it. By default (`hide`) a refused action leaves no trace
   * in the rows.
   */
  readonly refused?: 'hide' | 'keep';
}

/** One change of a query's rows. Indexes hold after the changes before it. */
export type RowPatch<R> =
  | { readonly kind: 'insert'; readonly index: number; readonly row: R }
  | { readonly kind: 'remove'; readonly index: number }
  | {
      readonly kind: 'update';
      readonly index: number;
      readonly row: R;
      /** How texts of the row changed, where that is known: an editor need not compare. Absent where none is. */
      readonly splices?: { readonly [Field in keyof R]?: readonly TextSplice[] };
    };

/** One step of how a text changed, on what the steps before it left; positions in UTF-16 code units. */
export interface TextSplice {
  readonly at: number;
  readonly deleted: number;
  readonly inserted: string;
}

/** Rows that stay up to date. */
export interface Query<R> extends Readable<readonly R[]> {
  /** The rows now. The same list until one of them changes; unchanged rows keep their identity. */
  getSnapshot(): readonly R[];
  /**
   * Calls the listener at once, with no patches, and after every change with the patches that lead to the new rows
   * from those it was called with before; returns its own undo. A local action calls it before `do` returns.
   */
  subscribe(listener: (rows: readonly R[], patches: readonly RowPatch<R>[]) => void): () => void;
}

/** Where queries get their rows. @internal */
export interface QuerySource {
  /** Starts patches for a query; `undefined` while there is no engine: `resume` follows. */
  start(query: WireQuery, view: QueryView): { id: number; rows: WireRow[] } | undefined;
  stop(id: number): void;
}

/** A query that nobody watches stays up to date for so long after it was last read. */
const LINGER_MS = 5_000;

const NO_PATCHES: readonly never[] = Object.freeze([]);

/** The view behind equal queries. @internal */
export class QueryView implements Query<Row> {
  readonly #listeners = new Listeners<readonly Row[]>();
  #id: number | undefined;
  #rows: readonly Row[] = [];
  #patches: RowPatch<Row>[] = [];
  #linger: ReturnType<typeof setTimeout> | undefined;
  /** Rows are wanted, and there is no engine to ask. */
  #paused = false;
  readonly #row: (raw: WireRow) => Row;
  readonly #absent: Row | undefined;

  constructor(
    private readonly source: QuerySource,
    private readonly turn: Turn,
    declared: Collection | Single,
    private readonly query: WireQuery,
  ) {
    this.#row = rowReader(declared);
    const whole = query[1].length === 0 && query[3] === null && query[4] === 0;
    this.#absent =
      declared.single && whole
        ? this.#row({ id: '', $: { status: 'accepted', createdBy: '', createdAt: 0, updatedAt: 0 } })
        : undefined;
  }

  /** The collection whose rows it shows. */
  get collection(): string {
    return this.query[0];
  }

  getSnapshot(): readonly Row[] {
    this.#start();
    if (this.#listeners.size === 0) this.#stopLater();
    return this.#rows;
  }

  subscribe(listener: (rows: readonly Row[], patches: readonly RowPatch<Row>[]) => void): () => void {
    this.#start();
    clearTimeout(this.#linger);
    // Patches of this turn that are not announced yet are part of what the listener gets at once.
    let known = this.#patches.length;
    const stop = this.#listeners.add((rows) => {
      const patches = this.#announced.slice(known);
      known = 0;
      if (patches.length > 0) listener(rows, patches);
    });
    guarded(() => listener(this.#rows, NO_PATCHES));
    return () => {
      stop();
      if (this.#listeners.size === 0) this.#stopLater();
    };
  }

  /** Applies the engine's patches; listeners hear of them at the end of the turn. */
  apply(patches: readonly WirePatch[]): void {
    const wasAbsent = this.#absent !== undefined && this.#rows[0] === this.#absent;
    const rows = wasAbsent ? [] : [...this.#rows];
    for (const [kind, index, raw, texts] of patches) {
      if (kind === 'remove') {
        rows.splice(index, 1);
        this.#patches.push({ kind, index });
        continue;
      }
      if (kind === 'edit') {
        rows[index] = this.#row(edited(raw, rows[index]!, texts));
        this.#patches.push({ kind: 'update', index, row: rows[index], ...changesOf(texts) });
        continue;
      }
      const row = this.#row(kind === 'update' && !wasAbsent ? keeping(raw, rows[index]!) : raw);
      rows.splice(index, kind === 'insert' ? 0 : 1, row);
      this.#patches.push({ kind: wasAbsent ? 'update' : kind, index, row });
    }
    this.#show(rows);
    this.turn.add(this.#announce);
  }

  /** The engine is gone; what is shown stays. */
  pause(): void {
    this.#paused ||= this.#id !== undefined;
    this.#id = undefined;
  }

  /** There is another engine: asks it, and tells what differs. */
  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    const before = this.#rows;
    this.#start();
    const known = new Map(before.map((row) => [row.id, row]));
    this.#rows = this.#rows.map((row) => (same(known.get(row.id), row) ? known.get(row.id)! : row));
    const patches = patchesBetween(before, this.#rows);
    if (patches.length === 0) {
      this.#rows = before;
      return;
    }
    this.#patches.push(...patches);
    this.turn.add(this.#announce);
  }

  /** Ends the view; what it shows stays readable. */
  close(): void {
    clearTimeout(this.#linger);
    this.#paused = false;
    if (this.#id !== undefined) this.source.stop(this.#id);
    this.#id = undefined;
  }

  #announced: readonly RowPatch<Row>[] = NO_PATCHES;
  readonly #announce = () => {
    this.#announced = this.#patches;
    this.#patches = [];
    this.#listeners.announce(this.#rows);
  };

  #start(): void {
    if (this.#id !== undefined || this.#paused) return;
    const started = this.source.start(this.query, this);
    this.#paused = started === undefined;
    if (started === undefined) return;
    this.#id = started.id;
    this.#show(started.rows.map(this.#row));
  }

  #stopLater(): void {
    clearTimeout(this.#linger);
    this.#linger = setTimeout(() => this.close(), LINGER_MS);
    // In Node a timer must not keep the process alive.
    (this.#linger as { unref?: () => void }).unref?.();
  }

  #show(rows: readonly Row[]): void {
    this.#rows = rows.length === 0 && this.#absent !== undefined ? [this.#absent] : rows;
  }
}

/** Makes the engine's rows into rows as the app sees them, in place: every declared field, frozen. @internal */
export function rowReader({ fields }: Collection | Single): (raw: WireRow) => Row {
  const declared = Object.entries(fields);
  return (raw) => {
    for (const [name, field] of declared) raw[name] = freeze(shown(field, raw[name]));
    Object.freeze(raw.$);
    return Object.freeze(raw) as unknown as Row;
  };
}

/** What leads from some rows to others; rows that are the same object did not change. */
function patchesBetween(before: readonly Row[], after: readonly Row[]): RowPatch<Row>[] {
  const patches: RowPatch<Row>[] = [];
  const rows = [...before];
  const remove = (index: number): void => {
    rows.splice(index, 1);
    patches.push({ kind: 'remove', index });
  };
  const wanted = new Set(after.map(({ id }) => id));
  for (let index = rows.length - 1; index >= 0; index--) if (!wanted.has(rows[index]!.id)) remove(index);
  after.forEach((row, index) => {
    if (rows[index]?.id === row.id) {
      if (rows[index] !== row) patches.push({ kind: 'update', index, row });
      rows[index] = row;
      return;
    }
    const moved = rows.findIndex(({ id }, at) => at > index && id === row.id);
    if (moved >= 0) remove(moved);
    rows.splice(index, 0, row);
    patches.push({ kind: 'insert', index, row });
  });
  return patches;
}

/** Completes the row of an edit, in place: texts by their splices, and what is as it was by being the same object. */
function edited(raw: WireRow, before: Row, texts: Record<string, WireSplice[]>): WireRow {
  keeping(raw, before);
  for (const [field, splices] of Object.entries(texts)) raw[field] = spliced(before[field] as string, splices);
  return raw;
}

/** Puts the objects of a row before in place of those that are equal to them: who compares by identity sees no change. */
function keeping(raw: WireRow, before: Row): WireRow {
  for (const [field, value] of Object.entries(raw)) {
    if (typeof value === 'object' && same(before[field], value)) raw[field] = before[field];
  }
  return raw;
}

function changesOf(texts: Record<string, WireSplice[]>): { splices?: { [field: string]: readonly TextSplice[] } } {
  const changed = Object.entries(texts).filter(([, splices]) => splices.length > 0);
  if (changed.length === 0) return {};
  const told = changed.map(([field, splices]): [string, readonly TextSplice[]] => [
    field,
    splices.map(([at, deleted, inserted]) => ({ at, deleted, inserted })),
  ]);
  return { splices: freeze(Object.fromEntries(told)) };
}

/** A query as the engine takes it. Throws `bad-query` or `bad-value`. @internal */
export function wireQuery<C extends Collections, Name extends keyof C>(
  collections: C,
  spec: QuerySpec<C, Name>,
): WireQuery {
  const from = String(spec.from);
  const declared = Object.hasOwn(collections, from) ? collections[from] : undefined;
  if (declared === undefined) throw badQuery(`no collection ${from}`);
  const order = (spec.orderBy ?? []).map(([field, direction]): [string, 'asc' | 'desc'] => {
    if (field !== 'id' && !Object.hasOwn(declared.fields, field)) throw badQuery(`no field ${field} in ${from}`);
    if (direction !== 'asc' && direction !== 'desc') throw badQuery(`no direction ${String(direction)}`);
    return [field, direction];
  });
  const limit = count(spec.limit, 'limit');
  const offset = count(spec.offset, 'offset') ?? 0;
  const { refused = 'hide' } = spec;
  if (refused !== 'hide' && refused !== 'keep') throw badQuery(`refused rows are kept or hidden: ${String(refused)}`);
  const wire: WireQuery = [from, conditions(declared.fields, spec.where), order, limit ?? null, offset];
  if (refused === 'keep') wire[5] = refused;
  return wire;
}

function count(value: number | undefined, what: string): number | undefined {
  if (value === undefined || (Number.isInteger(value) && value >= 0 && value < 2 ** 32)) return value;
  throw badQuery(`${what} is not a count: ${value}`);
}

/** The rows' type of a query. */
export type RowsOf<C extends Collections, Name extends keyof C> = readonly RowIn<C, Name>[];
