/**
 * Declarations: what a log holds, and which actions change it. Types of drafts, rows and arguments are inferred here.
 *
 * A declaration is plain, frozen and shared by all clients of a page; it holds no state.
 */

import type { Strategy, WireSchema } from './boundary.js';
import type { CollectionDraft, CounterDraft, RecordDraft, SetDraft, TextDraft } from './draft.js';
import { fail } from './errors.js';
import { canonical, isName, LOG_NAME_BYTES_MAX, NAME_BYTES_MAX, type Value } from './value.js';

declare const types: unique symbol;

/** A field: how it merges, and its types in a draft, in a row and at `insert`. Made by `register`, `counter`, … */
export interface Field<Draft, Row, Init> {
  readonly strategy: Strategy;
  readonly default: Value | undefined;
  readonly [types]?: { draft: Draft; row: Row; init: Init };
}

/** Fields by name. `id` and names that start with `$` are refused by `defineLog`. */
export type Fields = { readonly [name: string]: Field<any, any, any> };

/** A collection of records, each with an id of the app's making. */
export interface Collection<F extends Fields = Fields> {
  readonly single: false;
  readonly fields: F;
  readonly onDelete: OnDelete;
}

/**
 * What a delete does to changes of the record that its author had not seen. With `delete-wins` the record goes, and they
 * are reported to who made them (outcome `record-gone`). With `update-wins` they keep the record, or bring it back with
 * all it held, if they are accepted within 30 days of the delete.
 */
export type OnDelete = 'delete-wins' | 'update-wins';

/** What is not said by the fields of a collection. */
export interface CollectionOptions {
  /** `delete-wins` is the default. */
  readonly onDelete?: OnDelete;
}

/** One record that always exists, in every log. */
export interface Single<F extends Fields = Fields> {
  readonly single: true;
  readonly fields: F;
}

/** Collections by name. `now`, `user` and names that start with `$` are refused by `defineLog`. */
export type Collections = { readonly [name: string]: Collection | Single };

/** A record's id: made by the app, 1 to 128 UTF-8 bytes without control characters; random ids never meet by accident. */
export type RecordId = string;

/** What a draft shows of a field. */
export type DraftOf<F> = F extends Field<infer Draft, unknown, unknown> ? Draft : never;
/** What a row shows of a field. */
export type RowOf<F> = F extends Field<unknown, infer Row, unknown> ? Row : never;
/** What `insert` takes for a field. */
export type InitOf<F> = F extends Field<unknown, unknown, infer Init> ? Init : never;

/** What `insert` takes: any of the fields; the others read their default. */
export type RecordInit<F extends Fields> = { readonly [K in keyof F]?: InitOf<F[K]> };

/** What is known about a record besides its fields. */
export interface RowState {
  /**
   * The least settled of the own actions that the row shows: `pending` is not durable yet, `stored` is durable on this
   * device, `accepted` is in the server's log. `refused` appears only in queries with `refused: 'keep'`: an own action
   * on the row was refused, and the row shows what it did until its dead letter is discarded or redriven.
   */
  readonly status: 'pending' | 'stored' | 'accepted' | 'refused';
  /** Of a refused one: the code of the last refusal, as in `DriftlogError`. */
  readonly code?: string;
  /** Of a refused one: why, for people. */
  readonly reason?: string;
  /** Who inserted the record. */
  readonly createdBy: string;
  /** When it was inserted, in ms since 1970. */
  readonly createdAt: number;
  /** When one of its fields was last written, in ms since 1970. */
  readonly updatedAt: number;
}

/**
 * A record as a query shows it: frozen, and the same object as long as nothing of it changes.
 * Counters are numbers, texts are strings, sets are lists in the canonical order of values.
 */
export type Row<F extends Fields = Fields> = { readonly id: RecordId } & { readonly [K in keyof F]: RowOf<F[K]> } & {
  readonly $: RowState;
};

/** The rows of one collection of a log. */
export type RowIn<C extends Collections, Name extends keyof C> = Row<C[Name]['fields']>;

/** What a mutator works on: one draft for each collection, the time and the user. */
export type Transaction<C extends Collections> = {
  readonly [Name in keyof C]: C[Name] extends Single<infer F>
    ? RecordDraft<F>
    : C[Name] extends Collection<infer F>
      ? CollectionDraft<F>
      : never;
} & {
  /** When the action was called, in ms since 1970. Use this instead of `Date.now()`: it is the entry's time. */
  readonly now: number;
  /** Who acts: `user` of `createClient`, or who the server said we are; `undefined` before the first connection. */
  readonly user: string | undefined;
};

/** What a mutator may return: anything but a promise. What it returns is ignored. */
export type Synchronous =
  void | undefined | null | string | number | bigint | boolean | (object & { readonly then?: never });

/** A function that performs one action on a draft. It runs once, on the device where the user acts. */
export type Mutator<C extends Collections> = (tx: Transaction<C>, args: any) => Synchronous;

/** Actions by name. */
export type Actions<C extends Collections> = { readonly [name: string]: Mutator<C> };

/** The arguments of `do.NAME`: none for a mutator that takes only the draft. */
export type ArgumentsOf<M> = M extends (tx: never, ...rest: infer Rest) => unknown ? Rest : never;

/** The recorded arguments of an action: `undefined` if it has none. */
export type ArgsOf<M> = ArgumentsOf<M> extends [] ? undefined : ArgumentsOf<M>[0];

/** The parameters in a pattern, as an object: `board/:id` has `{ id: string | number }`. */
export type ParamsOf<Pattern extends string> = { readonly [Name in ParamIn<Pattern>]: string | number };
type ParamIn<Pattern extends string> = Pattern extends `${infer Part}/${infer Rest}`
  ? ParamIn<Part> | ParamIn<Rest>
  : Pattern extends `:${infer Name}`
    ? Name
    : never;

/** A log's declaration, made by `defineLog`. */
export interface LogDefinition<
  Pattern extends string = string,
  C extends Collections = Collections,
  A extends { readonly [name: string]: (tx: any, args: any) => Synchronous } = any,
> {
  readonly pattern: Pattern;
  readonly collections: C;
  readonly actions: A;
  readonly options: { readonly [name: string]: ActionOptions | undefined };
}

/**
 * A field that holds one value; the latest write wins. Without a default it reads `undefined` until it is written,
 * and again after `undefined` was written.
 */
export function register<T>(): Field<T | undefined, T | undefined, T | undefined>;
export function register<T>(initial: T): Field<T, T, T>;
export function register(initial?: unknown): Field<unknown, unknown, unknown> {
  return field('register', initial === undefined ? undefined : canonical(initial, 'default'));
}

/** A register that may be absent: the same as `register<T>()`, for reading. */
export function optional<T>(): Field<T | undefined, T | undefined, T | undefined> {
  return field('register', undefined);
}

/** A sum of integer increments, from 0: concurrent increments all count. */
export function counter(): Field<CounterDraft, number, number> {
  return field('counter', undefined);
}

/** A set of values: concurrent additions and removals of one value leave it in. */
export function set<T = string>(): Field<SetDraft<T>, readonly T[], Iterable<T>> {
  return field('set', undefined);
}

/** A text that many write at once: insertions and deletions merge by position. UTF-16 code units, as in JavaScript. */
export function text(): Field<TextDraft, string, string> {
  return field('text', undefined);
}

/** A collection of records. Throws `bad-value` for an `onDelete` that there is not. */
export function collection<const F extends Fields>(
  fields: F & Unreserved<F>,
  { onDelete = 'delete-wins' }: CollectionOptions = {},
): Collection<F> {
  if (onDelete !== 'delete-wins' && onDelete !== 'update-wins') {
    throw fail('bad-value', { path: 'onDelete', problem: String(onDelete) }, `there is no onDelete: ${String(onDelete)}`);
  }
  return Object.freeze({ single: false, fields: Object.freeze({ ...fields }), onDelete });
}

/** One record that is always there: settings, a title. */
export function single<const F extends Fields>(fields: F & Unreserved<F>): Single<F> {
  return Object.freeze({ single: true, fields: Object.freeze({ ...fields }) });
}

/** Refuses reserved names where the types are checked; `defineLog` refuses them once more for JavaScript. */
type Unreserved<Names> = { readonly [K in keyof Names]: K extends 'id' | `$${string}` ? never : Names[K] };
type UnreservedCollections<Names> = {
  readonly [K in keyof Names]: K extends 'now' | 'user' | `$${string}` ? never : Names[K];
};

/** What is not said by the mutator itself. */
export interface ActionOptions {
  /** `record` (the default) keeps the arguments in the entry; `omit` keeps only what they did: for keystrokes. */
  readonly args?: 'record' | 'omit';
  /** How long the entry is worth delivering, in ms from the action; without it for ever. */
  readonly lifetimeMs?: number;
}

/**
 * Declares a log: a pattern for its name (`board/:id`), its collections and its actions.
 *
 * Throws `bad-name` for a reserved or empty name, `bad-value` for a lifetime that is not a positive number of ms.
 */
export function defineLog<const Pattern extends string, const C extends Collections, const A extends Actions<C>>(
  pattern: Pattern,
  definition: {
    readonly collections: C & UnreservedCollections<C>;
    readonly actions?: A;
    /** By action; an action without options is recorded with its arguments, for ever. */
    readonly options?: { readonly [Name in keyof A]?: ActionOptions };
  },
): LogDefinition<Pattern, C, A> {
  if (pattern === '') throw badName(pattern, 'the pattern');
  const collections: C = definition.collections;
  for (const [name, { fields }] of Object.entries(collections)) {
    if (isReserved(name) || name === 'now' || name === 'user') throw badName(name, 'collections');
    for (const fieldName of Object.keys(fields)) {
      if (isReserved(fieldName) || fieldName === 'id') throw badName(fieldName, `collections.${name}`);
    }
  }
  const actions = (definition.actions ?? {}) as A;
  for (const name of Object.keys(actions)) if (isReserved(name)) throw badName(name, 'actions');
  const options = { ...definition.options } as { [name: string]: ActionOptions | undefined };
  for (const [name, settings] of Object.entries(options)) {
    if (!Object.hasOwn(actions, name)) throw badName(name, 'options');
    checkLifetime(settings?.lifetimeMs);
  }
  return Object.freeze({
    pattern,
    collections: Object.freeze({ ...collections }),
    actions: Object.freeze({ ...actions }),
    options: Object.freeze(options),
  });
}

/** The log's name: values fill the pattern, percent-encoded. Throws `bad-param`. @internal */
export function logName(pattern: string, params: { readonly [name: string]: unknown }): string {
  const parts = pattern.split('/').map((part) => {
    if (!part.startsWith(':')) return part;
    const param = part.slice(1);
    const value = Object.hasOwn(params, param) ? params[param] : undefined;
    const filled = typeof value === 'number' && Number.isFinite(value) ? String(value) : value;
    if (!isName(filled, LOG_NAME_BYTES_MAX)) {
      throw fail('bad-param', { pattern, param }, `${pattern} needs a value for ${param}`);
    }
    return encodeURIComponent(filled);
  });
  const name = parts.join('/');
  if (isName(name, LOG_NAME_BYTES_MAX)) return name;
  throw fail('bad-param', { pattern, param: '' }, `the name ${name} is longer than ${LOG_NAME_BYTES_MAX} bytes`);
}

/** What the engine needs of a declaration. @internal */
export function wireSchema(collections: Collections): WireSchema {
  const schema: WireSchema = {};
  for (const [name, { single, fields }] of Object.entries(collections)) {
    schema[name] = { single, fields: {} };
    for (const [fieldName, { strategy, default: initial }] of Object.entries(fields)) {
      schema[name].fields[fieldName] = initial === undefined ? { strategy } : { strategy, default: initial };
    }
  }
  return schema;
}

function field<Draft, Row, Init>(strategy: Strategy, initial: Value | undefined): Field<Draft, Row, Init> {
  return Object.freeze({ strategy, default: initial });
}

function checkLifetime(ms: number | undefined): void {
  if (ms === undefined || (Number.isSafeInteger(ms) && ms > 0)) return;
  throw fail('bad-value', { path: 'lifetimeMs', problem: String(ms) }, `a lifetime is a positive number of ms: ${ms}`);
}

/** A name that is empty or too long, starts with `$`, or would reach JavaScript's prototypes. */
function isReserved(name: string): boolean {
  return !isName(name, NAME_BYTES_MAX) || name.startsWith('$') || name === '__proto__' || name === 'constructor';
}

function badName(name: string, where: string): Error {
  return fail(
    'bad-name',
    { name, where },
    `the name "${name}" in ${where} is reserved, or not 1 to ${NAME_BYTES_MAX} bytes without control characters`,
  );
}
