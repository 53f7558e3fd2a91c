/**
 * Values that every replica represents alike: null, booleans, numbers, strings, bytes, lists and maps of them.
 *
 * `canonical` checks one and gives back a frozen copy, so that what was recorded cannot change afterwards.
 * The encoding is docs/log-format.md, "Values".
 */

import { fail } from './errors.js';

/** A value that can be stored. Keys whose value is `undefined` are left out, as in JSON; in lists it is an error. */
export type Value =
  null | boolean | number | string | Uint8Array | readonly Value[] | { readonly [key: string]: Value | undefined };

/** How deep lists and maps may nest. */
export const DEPTH_MAX = 32;

/** Bytes of an action, collection or field name (core/src/limits.rs). */
export const NAME_BYTES_MAX = 64;
/** Bytes of a record id (core/src/limits.rs). */
export const RECORD_ID_BYTES_MAX = 128;
/** Bytes of a log's name (core/src/limits.rs). */
export const LOG_NAME_BYTES_MAX = 256;

/** Whether a string is well-formed, has 1 to so many UTF-8 bytes, and no control characters. */
export function isName(name: unknown, bytesMax: number): name is string {
  if (typeof name !== 'string' || name === '' || name.length > bytesMax) return false;
  if (/[\p{Surrogate}\p{Cc}]/u.test(name)) return false;
  return name.length * 3 <= bytesMax || new TextEncoder().encode(name).length <= bytesMax;
}

/** Whether no half of a surrogate pair stands alone. */
export function isWellFormed(text: string): boolean {
  return !/\p{Surrogate}/u.test(text);
}

/**
 * A frozen copy of a value.
 *
 * Throws `bad-value` with the path to the first part that has no canonical form.
 */
export function canonical(value: unknown, path: string, depth = 0): Value {
  switch (typeof value) {
    case 'boolean':
      return value;
    case 'number':
      return canonicalNumber(value, path);
    case 'string':
      if (!isWellFormed(value)) throw bad(path, 'a lone surrogate');
      return value;
    case 'object':
      if (value === null) return null;
      if (depth >= DEPTH_MAX) throw bad(path, `nested deeper than ${DEPTH_MAX} levels`);
      if (Array.isArray(value)) return canonicalList(value, path, depth);
      if (value instanceof Uint8Array) return value.slice();
      return canonicalMap(value, path, depth);
    default:
      throw bad(path, typeof value);
  }
}

function canonicalNumber(value: number, path: string): number {
  if (!Number.isFinite(value)) throw bad(path, String(value));
  if (Object.is(value, -0)) throw bad(path, '-0');
  if (Number.isInteger(value) && !Number.isSafeInteger(value)) throw bad(path, `an integer beyond 2^53-1: ${value}`);
  return value;
}

function canonicalList(list: readonly unknown[], path: string, depth: number): readonly Value[] {
  const copy: Value[] = [];
  for (let index = 0; index < list.length; index++) copy.push(canonical(list[index], `${path}[${index}]`, depth + 1));
  return Object.freeze(copy);
}

function canonicalMap(map: object, path: string, depth: number): Value {
  const prototype: unknown = Object.getPrototypeOf(map);
  if (prototype !== Object.prototype && prototype !== null) {
    throw bad(path, `an instance of ${(map.constructor as { name?: string } | undefined)?.name || 'a class'}`);
  }
  const copy: { [key: string]: Value } = {};
  for (const [key, part] of Object.entries(map)) {
    if (part === undefined) continue;
    if (!isWellFormed(key)) throw bad(path, 'a lone surrogate in a key');
    // A plain assignment to this key would change the prototype instead.
    if (key === '__proto__') throw bad(path, 'a key __proto__');
    copy[key] = canonical(part, `${path}.${key}`, depth + 1);
  }
  return Object.freeze(copy);
}

function bad(path: string, problem: string): Error {
  return fail('bad-value', { path, problem }, `${path} has no canonical form: ${problem}`);
}

/** Freezes what the engine gave, lists and maps all the way down. Bytes cannot be frozen. */
export function freeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value;
  for (const part of Object.values(value)) freeze(part);
  return Object.freeze(value);
}

/** Whether two canonical values are the same. */
export function same(a: unknown, b: unknown): boolean {
  return a === b || compare(a, b) === 0;
}

/**
 * The total order of values, the same as the engine's: absent < null < false < true < numbers < strings (by UTF-8
 * bytes) < bytes < lists < maps.
 */
export function compare(a: unknown, b: unknown): number {
  const rank = rankOf(a);
  const difference = rank - rankOf(b);
  if (difference !== 0) return difference;
  switch (rank) {
    case 2:
      return Number(a) - Number(b);
    case 3:
      return (a as number) - (b as number);
    case 4:
      return compareStrings(a as string, b as string);
    case 5:
    case 6:
      return compareLists(Array.from(a as ArrayLike<unknown>), Array.from(b as ArrayLike<unknown>));
    case 7:
      return compareLists(sortedParts(a as object), sortedParts(b as object));
    default:
      return 0;
  }
}

function rankOf(value: unknown): number {
  if (value === undefined) return 0;
  if (value === null) return 1;
  switch (typeof value) {
    case 'boolean':
      return 2;
    case 'number':
      return 3;
    case 'string':
      return 4;
    default:
      if (value instanceof Uint8Array) return 5;
      return Array.isArray(value) ? 6 : 7;
  }
}

/** UTF-8 byte order is code point order; UTF-16 order differs where surrogates meet U+E000–U+FFFF. */
function compareStrings(a: string, b: string): number {
  if (a === b) return 0;
  const length = Math.min(a.length, b.length);
  for (let at = 0; at < length; at++) {
    const left = a.charCodeAt(at);
    const right = b.charCodeAt(at);
    if (left !== right) return aboveSurrogates(left) - aboveSurrogates(right);
  }
  return a.length - b.length;
}

function aboveSurrogates(unit: number): number {
  return unit >= 0xe000 ? unit - 0x800 : unit >= 0xd800 ? unit + 0x2000 : unit;
}

function compareLists(a: readonly unknown[], b: readonly unknown[]): number {
  const length = Math.min(a.length, b.length);
  for (let at = 0; at < length; at++) {
    const order = compare(a[at], b[at]);
    if (order !== 0) return order;
  }
  return a.length - b.length;
}

function sortedParts(map: object): unknown[] {
  return Object.entries(map).sort(([a], [b]) => compareStrings(a, b));
}
