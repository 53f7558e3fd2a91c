/**
 * The boundary to the wasm engine: every type that crosses it, and the one codec of its bytes.
 *
 * Requests and answers are msgpack, both ways; keys of maps are strings, positions are UTF-16 code units, times are
 * milliseconds since 1970. The engine never calls back from within a call: what a call causes is returned by it, and
 * only what happens later (storage, socket, timers, other tabs) comes through the listener.
 *
 * Invariant: no other file knows the shape of these bytes.
 */

import { Decoder, Encoder } from '@msgpack/msgpack';

/** What a field's writes merge by. */
export type Strategy = 'register' | 'counter' | 'set' | 'text';

/** A collection as the engine needs it: how to read each field. `default` is absent for fields that read `undefined`. */
export interface WireCollection {
  single: boolean;
  fields: Record<string, { strategy: Strategy; default?: unknown }>;
}

/** All collections of a log. */
export type WireSchema = Record<string, WireCollection>;

/** One step of editing a text, on what the steps before it left. */
export type WireSplice = [at: number, deleted: number, inserted: string];

/** One write of one field. `initial` is the first content of a text, the same change on every device. */
export type WireFieldOp =
  | ['set', unknown]
  | ['increment', number]
  | ['add', unknown[]]
  | ['remove', unknown[]]
  | ['initial', string]
  | ['text', WireSplice[]];

/** One op of an action. The record of a `single` is '' and its writes are always inserts. */
export type WireOp =
  | ['insert', collection: string, record: string, fields: [field: string, op: WireFieldOp][]]
  | ['update', collection: string, record: string, field: string, op: WireFieldOp]
  | ['delete', collection: string, record: string, policy?: 'update-wins'];

/** Request of `act`: name, args (nil if switched off), ops, lifetime in ms (nil: for ever). */
export type WireAct = [name: string, args: unknown, ops: WireOp[], lifetimeMs: number | null];

/** A comparison of a query; `has` is membership in a set, `exists` tells an absent value. */
export type WireComparison = 'eq' | 'ne' | 'gt' | 'gte' | 'lt' | 'lte' | 'in' | 'has' | 'exists';

/**
 * A query: all conditions must hold; ties of the order are broken by id; no order means by id.
 * The order of values is docs/log-format.md, "Order of values".
 */
export type WireQuery = [
  collection: string,
  conditions: [field: string, comparison: WireComparison, value: unknown][],
  order: [field: string, direction: 'asc' | 'desc'][],
  limit: number | null,
  offset: number,
  refused?: 'keep',
];

/** A row as the engine shows it: id, fields read by the schema, and what is known about the record. */
export interface WireRow {
  id: string;
  $: {
    status: 'pending' | 'stored' | 'accepted' | 'refused';
    createdBy: string;
    createdAt: number;
    updatedAt: number;
    /** Of a refused one. */
    code?: string;
    reason?: string;
  };
  [field: string]: unknown;
}

/**
 * One change of a query's rows; indexes hold after the changes before it. The row of an `edit` lacks the texts whose
 * splices follow; a text that did not change has none.
 */
export type WirePatch =
  | ['insert', index: number, row: WireRow]
  | ['remove', index: number]
  | ['update', index: number, row: WireRow]
  | ['edit', index: number, row: WireRow, texts: Record<string, WireSplice[]>];

/** What the engine has to tell. `failed` says that the entry was not recorded and has left the view. */
export type WireNotice =
  | ['patch', handle: number, query: number, patches: WirePatch[]]
  | [
      'write',
      handle: number,
      writeId: string,
      status: 'stored' | 'accepted' | 'refused' | 'failed',
      detail: WireWriteDetail,
    ]
  | ['connection', WireConnection]
  | ['pressure', WirePressure]
  | ['log', handle: number, WireLogState]
  | ['deadLetters', handle: number, from: number]
  | ['presence', handle: number]
  | ['fold', handle: number, fold: number]
  | ['token-wanted', reason: string]
  | ['tape', handle: number, ...event: unknown[]];

/** What comes with the status of a write; which keys are there depends on the status. */
export interface WireWriteDetail {
  offset?: number | null;
  acceptedAt?: number | null;
  author?: string | null;
  outcome?: string | null;
  code?: string | null;
  number?: number | null;
  reason?: string | null;
  entryId?: string | null;
}

/** The connection of this client. */
export interface WireConnection {
  state: 'idle' | 'connecting' | 'live' | 'backing-off' | 'offline' | 'needs-auth' | 'blocked' | 'closed';
  reason?: string | null;
  /** When the next attempt starts. */
  retryAt?: number | null;
  /** Who the server says we are. */
  user?: string | null;
  kept?: WireKept | null;
}

/** How the server keeps the connection of this client, as far as it has said so. */
export interface WireKept {
  state: 'active' | 'inactive';
  reason?: 'idle' | 'lag' | 'pressure' | 'asked' | 'other' | null;
  /** By the server's clock. */
  since?: number | null;
}

/** What somebody else says of itself in a log; `value` is what its app encoded. */
export interface WirePresent {
  connection: string;
  user: string;
  value: Uint8Array;
}

/** How own work piles up. */
export type WirePressureLevel = 'none' | 'waiting' | 'high' | 'full' | 'storage-full';

/** Own work of all logs that waits for the server; `log` has the level. */
export interface WirePressure {
  level: WirePressureLevel;
  log?: string | null;
  count: number;
  bytes: number;
}

/** The state of one log. */
export interface WireLogState {
  /** `behind` until everything the server had at subscribe is folded. */
  status:
    | 'local'
    | 'behind'
    | 'synced'
    | 'held'
    | 'update-needed'
    | 'degraded'
    | 'forbidden'
    | 'read-only'
    | 'append-only';
  reason?: string | null;
  /** For `held`: when own entries are pushed again. */
  retryAt?: number | null;
  /** End of the confirmed prefix that views have applied. */
  end?: number | null;
  /** Own entries without a verdict. */
  outbox: number;
  /** Their bytes. */
  outboxBytes: number;
  pressure: WirePressureLevel;
  /** Entries kept whole in the dead letters. */
  deadLetters: number;
}

/** An own entry as `entry` and `entries` give it. */
export interface WireEntry {
  writeId: string;
  entryId?: string | null;
  action: string;
  args?: unknown;
  status: 'pending' | 'stored' | 'accepted' | 'refused';
  time: number;
  offset?: number | null;
  acceptedAt?: number | null;
  author?: string | null;
  outcome?: string | null;
  code?: string | null;
  number?: number | null;
  reason?: string | null;
  replaces?: string | null;
  redriven?: boolean;
}

/** Request of `openFold`: name, version, the actions it has handlers for, the initial accumulator. */
export type WireFold = [name: string, version: number, actions: string[], initial: unknown];

/**
 * Request of `stepFold`: which batch, how many of its actions were folded, why the one behind them failed, and the
 * accumulator (one, or none) after those that were folded: with a failure, and when it was wanted. Empty: no report.
 */
export type WireFoldReport = [ticket: number, done: number, failure: string | null, accumulator: unknown[]];

/** An action as a fold's handler gets it; `offset` is absent while it is pending. */
export interface WireFoldAct {
  offset?: number | null;
  id: string;
  author?: string | null;
  time: number;
  action: string;
  args?: unknown;
}

/** A dead letter of a fold. */
export interface WireFoldLetter extends WireFoldAct {
  offset: number;
  reason: string;
  attempts: number;
  first: number;
  last: number;
}

/** How a fold stands. */
export interface WireFoldState {
  status: 'loading' | 'waiting' | 'behind' | 'live';
  from?: number | null;
  end: number;
  breaker: 'closed' | 'open' | 'probing';
  retryAt?: number | null;
  suspects: { offset: number; reason: string; attempts: number }[];
}

/** What is to be folded next; `start` (none or one) replaces the confirmed accumulator before it. */
export interface WireFoldBatch {
  ticket: number;
  start: unknown[];
  acts: WireFoldAct[];
  wantsAccumulator: boolean;
  /** More follows as soon as this is reported. */
  more: boolean;
  tail: 'unchanged' | 'appended' | 'replaced';
  tailActs: WireFoldAct[];
  state: WireFoldState;
  /** The fold's dead letters, if they changed. */
  parked?: WireFoldLetter[] | null;
}

/** Request of `entries`: absent keys do not filter. */
export interface WireEntryFilter {
  action?: string;
  status?: string[];
  /** Of dead letters alone: those from this seq on. */
  from?: number;
}

/** Options of `open_client`. `token`: whether the engine shall ask for one before each hello. */
export interface WireOptions {
  name: string;
  url: string | null;
  storage: 'auto' | 'indexeddb' | 'memory';
  token: boolean;
  /** What the device calls itself. */
  device: string | null;
  /** How much of each log may wait for the server. */
  backlog: { entries: number | null; bytes: number | null };
  /** The last write id of this page, if an engine before this one gave it: ids go on behind it. */
  after: string | null;
  /** Whether to begin offline, as after a `disconnect`. */
  offline: boolean;
  /** What the engine before did not come back from. */
  trap: WireTrap | null;
}

/** A trap. What was worked on is one of the last three, as far as it is known. */
export interface WireTrap {
  log: string;
  reason: string;
  own?: string;
  confirmed?: number;
  snapshot?: true;
}

/** What the client says about its storage. `tabs` is `one` where each tab keeps its own work, in memory. */
export interface WireStorage {
  mode: 'indexeddb' | 'memory';
  durable: boolean;
  tabs: 'many' | 'one';
  reason?: string | null;
  lost?: string | null;
}

/** How much of the way a log gets among the others. */
export type WirePriority = 'high' | 'normal' | 'low';

/** The engine class that the wasm exports. Methods throw an `Error` with a string `code`. */
export interface WireEngine {
  /** [logName, schema, WirePriority?] → [handle, log state]. */
  open(request: Uint8Array): Promise<Uint8Array>;
  /** WirePriority: how much of the way the log gets from now on. */
  prioritize(handle: number, priority: Uint8Array): void;
  /** Ends the views of a log; its outbox is shipped all the same. */
  shut(handle: number): void;
  /** WireAct → [writeId, notices…]. */
  act(handle: number, request: Uint8Array): Uint8Array;
  /**
   * A WireAct that the engine before this one had in its view, but not stored: its number within the run, and the end
   * of the confirmed prefix that its author had seen → [writeId, notices…].
   */
  actAgain(handle: number, request: Uint8Array, number: number, seen: number): Uint8Array;
  /** The row without its texts, if the view shows the record. */
  read(handle: number, collection: string, record: string): Uint8Array | undefined;
  /** WireQuery → rows without their texts, once. */
  select(handle: number, query: Uint8Array): Uint8Array;
  /** A text, whole. Empty where there is none. */
  text(handle: number, collection: string, record: string, field: string): string;
  /** Its length; costs the same for every text. */
  textLength(handle: number, collection: string, record: string, field: string): number;
  /** Whether a position in it lies between the two halves of a character; costs the same for every text. */
  splitsCharacter(handle: number, collection: string, record: string, field: string, at: number): boolean;
  /** WireQuery → [queryId, rows]; patches follow until `unquery`. */
  query(handle: number, query: Uint8Array): Uint8Array;
  unquery(handle: number, query: number): void;
  /** Issues a dead letter again, by a WireAct or, without one, as it was → [writeId, notices…]. */
  redrive(handle: number, entryId: string, request: Uint8Array | undefined): Uint8Array;
  /** Discards a dead letter; a notice tells when it is gone. */
  discard(handle: number, entryId: string): void;
  /** The entry of a dead letter: header and body as docs/log-format.md has them. */
  letter(handle: number, entryId: string): Uint8Array | undefined;
  /** WireEntry, if this client authored it. */
  entry(handle: number, writeId: string): Promise<Uint8Array | undefined>;
  /** WireEntryFilter → WireEntry[], oldest first. */
  entries(handle: number, filter: Uint8Array): Promise<Uint8Array>;
  /** WireFold → its id; `fold` notices say when it has something to do. */
  openFold(handle: number, request: Uint8Array): number;
  /** WireFoldReport on the batch before, or nothing → WireFoldBatch. */
  stepFold(handle: number, fold: number, report: Uint8Array): Uint8Array;
  shutFold(handle: number, fold: number): void;
  /** Tries parked entries again: the one at this offset, or all. */
  redriveFold(handle: number, fold: number, offset: number | undefined): void;
  discardFolded(handle: number, fold: number, offset: number): void;
  /** Says something of this client in a log, or nothing any more. */
  present(handle: number, value: Uint8Array | undefined): void;
  /** → WirePresent[], by connection; a notice tells when they change. */
  presence(handle: number): Uint8Array;
  /** WireStorage. */
  storage(): Uint8Array;
  connect(): void;
  /** Closes the socket and stays offline until `connect`. */
  disconnect(): void;
  /** The answer to `token-wanted`; `undefined` if there is none. */
  setToken(token: string | undefined): void;
  close(): Promise<void>;
}

/**
 * Opens a client's engine; the listener gets arrays of notices. `trapped` is called once if the engine traps: from then
 * on its promises stay open for ever, and nothing of it may be called.
 */
export type OpenEngine = (
  options: Uint8Array,
  listener: (notices: Uint8Array) => void,
  trapped: (trap: WireTrap) => void,
) => Promise<WireEngine>;

const encoder = new Encoder({ ignoreUndefined: true, sortKeys: false });
const decoder = new Decoder();

/** What splices make of a text. */
export function spliced(text: string, splices: readonly WireSplice[]): string {
  // V8 joins the pieces when somebody reads them: appending costs the same for every text.
  return splices.reduce(
    (text, [at, deleted, inserted]) => text.slice(0, at) + inserted + text.slice(at + deleted),
    text,
  );
}

/** Bytes of a request. */
export function encode(value: unknown): Uint8Array<ArrayBuffer> {
  return encoder.encode(value);
}

/** The value of an answer; its type is the caller's knowledge of the method it called. */
export function decode<T>(bytes: Uint8Array): T {
  return decoder.decode(bytes) as T;
}
