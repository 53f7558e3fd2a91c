/** Driftlog: a write-ahead log for the browser. */
/// <reference lib="esnext.disposable" preserve="true" />

export type { Client, ClientOptions, Connection, KeptConnection, Storage } from './client.js';
export { createClient } from './create.js';
export type { CollectionDraft, CounterDraft, RecordDraft, SetDraft, TextDraft } from './draft.js';
export type { DeadLetters } from './dead_letters.js';
export type { DeadLetter, Entry, EntryFilter, EntryOf, EntryStatus } from './entry.js';
export { DriftlogError, type DriftlogErrorOf, type ErrorCode, type ErrorDetails, type Refusal } from './errors.js';
export {
  type Fold,
  type FoldDefinition,
  type FoldEntry,
  type FoldHandlers,
  type FoldSnapshot,
  fold,
  type ParkedEntry,
} from './fold.js';
export type { Comparison, Condition, Filter, Membership } from './filter.js';
export type { Log, LogStatus, OpenArguments, OpenOptions, Outbox, Priority } from './log.js';
export type { Presence, Present } from './presence.js';
export type { BacklogBound, Pressure } from './pressure.js';
export type { Query, QuerySpec, RowPatch, TextSplice } from './query.js';
export type { Readable } from './readable.js';
export {
  type ActionOptions,
  type Actions,
  type ArgsOf,
  type ArgumentsOf,
  type Collection,
  type CollectionOptions,
  type Collections,
  collection,
  counter,
  defineLog,
  type Field,
  type Fields,
  type LogDefinition,
  type Mutator,
  type OnDelete,
  optional,
  type ParamsOf,
  type RecordId,
  type RecordInit,
  type Row,
  type RowIn,
  type RowState,
  register,
  type Single,
  type Synchronous,
  set,
  single,
  type Transaction,
  text,
} from './schema.js';
export type { Value } from './value.js';
export type { Acceptance, Write, WriteId } from './write.js';
export { initWasm, type WasmSource } from './wasm.js';
