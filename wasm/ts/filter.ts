/** Conditions on fields: their types, their form on the wire, and their meaning for records of a draft. */

import type { WireComparison, WireQuery } from './boundary.js';
import { fail } from './errors.js';
import type { Field, Fields, RowOf } from './schema.js';
import { canonical, compare, same } from './value.js';

/** Comparisons of one value; all that are given must hold. Values are ordered as in docs/log-format.md, "Values". */
export interface Comparison<T> {
  readonly eq?: T;
  readonly ne?: T;
  readonly gt?: T;
  readonly gte?: T;
  readonly lt?: T;
  readonly lte?: T;
  /** Equal to one of these. */
  readonly in?: readonly T[];
  /** Whether the field has a value at all: for fields without a default. */
  readonly exists?: boolean;
}

/** What a set must hold. */
export interface Membership<T> {
  readonly has?: T;
}

/**
 * A condition on one field: a value it must equal, or comparisons. A value that is a map itself needs `eq`.
 * A condition that is `undefined` is no condition.
 */
export type Condition<F> =
  F extends Field<{ has(value: never): boolean }, readonly (infer T)[], unknown>
    ? Membership<T>
    : Plain<RowOf<F>> | Comparison<RowOf<F>>;

type Plain<T> =
  Exclude<T, undefined> extends infer V
    ? V extends string | number | boolean | null | Uint8Array | readonly unknown[]
      ? V
      : never
    : never;

/** Conditions by field; all must hold. */
export type Filter<F extends Fields> = { readonly [K in keyof F]?: Condition<F[K]> | undefined } & {
  readonly id?: string | Comparison<string> | undefined;
};

/** Conditions as the engine takes them. */
export type Conditions = WireQuery[1];

const COMPARISONS: ReadonlySet<string> = new Set<WireComparison>([
  'eq',
  'ne',
  'gt',
  'gte',
  'lt',
  'lte',
  'in',
  'has',
  'exists',
]);

/** A filter as the engine takes it. Throws `bad-query` or `bad-value`. */
export function conditions(fields: Fields, filter: object | undefined): Conditions {
  const list: Conditions = [];
  for (const [name, condition] of Object.entries(filter ?? {})) {
    if (condition === undefined) continue;
    if (name !== 'id' && !Object.hasOwn(fields, name)) throw badQuery(`no field ${name}`);
    if (!isComparisons(condition)) {
      list.push([name, 'eq', canonical(condition, `where.${name}`)]);
      continue;
    }
    for (const [comparison, value] of Object.entries(condition)) {
      if (value === undefined) continue;
      if (!COMPARISONS.has(comparison)) throw badQuery(`no comparison ${comparison} (of ${name})`);
      list.push([name, comparison as WireComparison, canonical(value, `where.${name}.${comparison}`)]);
    }
  }
  return list;
}

/** Whether a record's shown values meet all conditions; the same answer as the engine's. */
export function matches(list: Conditions, read: (field: string) => unknown): boolean {
  return list.every(([field, comparison, value]) => holds(read(field), comparison, value));
}

/** A comparison with an absent value holds only for `ne`, and for `exists: false`. */
function holds(shown: unknown, comparison: WireComparison, value: unknown): boolean {
  if (comparison === 'exists') return (shown !== undefined) === value;
  if (shown === undefined) return comparison === 'ne';
  switch (comparison) {
    case 'eq':
      return same(shown, value);
    case 'ne':
      return !same(shown, value);
    case 'gt':
      return compare(shown, value) > 0;
    case 'gte':
      return compare(shown, value) >= 0;
    case 'lt':
      return compare(shown, value) < 0;
    case 'lte':
      return compare(shown, value) <= 0;
    case 'in':
      return Array.isArray(value) && value.some((one) => same(shown, one));
    case 'has':
      return Array.isArray(shown) && shown.some((one) => same(one, value));
  }
}

function isComparisons(condition: unknown): condition is object {
  return (
    typeof condition === 'object' &&
    condition !== null &&
    !Array.isArray(condition) &&
    !(condition instanceof Uint8Array)
  );
}

/** @internal */
export function badQuery(problem: string): Error {
  return fail('bad-query', { problem }, `not a query of this log: ${problem}`);
}
