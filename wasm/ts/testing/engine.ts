/**
 * An engine in memory, for tests of the TypeScript layer alone: it folds naively and forgets everything.
 *
 * It keeps the rules of `boundary.ts` (patches come back from the call that caused them, everything later comes through
 * the listener), and none of the promises of the real engine. Never published.
 */

import {
  decode,
  encode,
  type OpenEngine,
  spliced,
  type WireAct,
  type WireConnection,
  type WireEngine,
  type WireEntry,
  type WireEntryFilter,
  type WireFieldOp,
  type WireFold,
  type WireFoldAct,
  type WireFoldBatch,
  type WireFoldLetter,
  type WireFoldReport,
  type WireLogState,
  type WireNotice,
  type WireOp,
  type WireOptions,
  type WirePatch,
  type WirePriority,
  type WireQuery,
  type WireRow,
  type WireSchema,
  type WireSplice,
  type WireTrap,
} from '../boundary.js';
import { matches } from '../filter.js';
import { compare, same } from '../value.js';

interface FakeEntry {
  writeId: string;
  author: string;
  action: string;
  args: unknown;
  ops: WireOp[];
  time: number;
}

/** The server's logs, and who follows them. */
export class FakeServer {
  readonly logs = new Map<string, FakeEntry[]>();
  readonly followers = new Set<FakeEngine>();
  /** Refuses what it returns a code for. */
  policy: (entry: FakeEntry) => string | undefined = () => undefined;
  up = true;
  /** Called with each engine that is opened. */
  begun: (engine: FakeEngine) => void = () => {};

  /** Lets every connected engine push and catch up. */
  settle(): void {
    for (const engine of this.followers) engine.push();
    for (const engine of this.followers) engine.pull();
  }
}

/** Opens fake engines on a server; `opened` collects them. One that trapped leaves what it stored to the next one. */
export function fakeEngines(server: FakeServer, opened: FakeEngine[] = []): OpenEngine {
  return (bytes, listener, trapped) => {
    const options = decode<WireOptions>(bytes);
    const before = opened.findLast(({ user }) => user === options.name);
    const engine = new FakeEngine(server, options, listener, trapped, before);
    opened.push(engine);
    server.begun(engine);
    return Promise.resolve(engine);
  };
}

interface FakeLog {
  name: string;
  schema: WireSchema;
  confirmed: FakeEntry[];
  own: {
    entry: FakeEntry;
    status: WireEntry['status'];
    offset?: number;
    code?: string;
    replaces?: string;
    /** A dead letter that is discarded or redeemed. */
    gone?: boolean;
  }[];
  queries: Map<number, { query: WireQuery; rows: WireRow[] }>;
}

interface FakeFold {
  handle: number;
  actions: string[];
  start: unknown[];
  /** Confirmed entries that were handed out, by their offset. */
  done: number;
  handed: number[];
  parked: WireFoldLetter[];
}

let runs = 0;

/** One client's engine. */
export class FakeEngine implements WireEngine {
  readonly #logs: FakeLog[] = [];
  readonly #folds: FakeFold[] = [];
  readonly #run: string;
  readonly user: string;
  #acts: number;
  #queries = 0;
  #online = false;
  /** What it was told of logs. */
  readonly priorities = new Map<string, WirePriority>();
  /** What the next append fails with. */
  appendFailure: string | undefined;
  #over = false;

  constructor(
    readonly server: FakeServer,
    readonly options: WireOptions,
    readonly listener: (notices: Uint8Array) => void,
    readonly trapped: (trap: WireTrap) => void,
    readonly before: FakeEngine | undefined,
  ) {
    this.user = options.name;
    const [run, acts] = options.after?.split('-') ?? [`run${++runs}`, '0'];
    this.#run = run!;
    this.#acts = Number(acts);
    if (options.offline) this.disconnect();
    else this.connect();
  }

  /** Ends the engine as a trap does: what it was about to do does not happen. */
  trap(trap: Partial<WireTrap> = {}): void {
    this.#over = true;
    this.server.followers.delete(this);
    this.trapped({ log: '', reason: 'unreachable', ...trap });
  }

  tell(...notices: WireNotice[]): void {
    this.listener(encode(notices));
  }

  async open(request: Uint8Array): Promise<Uint8Array> {
    const [name, schema, priority] = decode<[string, WireSchema, WirePriority | null]>(request);
    if (priority !== null) this.priorities.set(name, priority);
    const stored = this.before?.stored(name) ?? [];
    this.#logs.push({ name, schema, confirmed: [], own: stored, queries: new Map() });
    this.#soon(() => this.server.settle());
    const state = this.#state(this.#logs.length - 1);
    return encode([this.#logs.length - 1, state[2]]);
  }

  /** What of a log outlives the engine. */
  stored(name: string): FakeLog['own'] {
    return this.#logs.find((log) => log.name === name)?.own.filter(({ status }) => status !== 'pending') ?? [];
  }

  prioritize(handle: number, priority: Uint8Array): void {
    this.priorities.set(this.#logs[handle]!.name, decode<WirePriority>(priority));
  }

  shut(handle: number): void {
    this.#logs[handle]!.queries.clear();
  }

  act(handle: number, request: Uint8Array): Uint8Array {
    if (this.#waiting(handle) >= (this.options.backlog.entries ?? Infinity))
      throw Object.assign(new Error(`${this.#logs[handle]!.name} takes no more work`), { code: 'backlog-full' });
    return this.actAgain(handle, request, this.#acts + 1);
  }

  actAgain(handle: number, request: Uint8Array, number: number, _seen = 0, replaces?: string): Uint8Array {
    if (this.#over) throw new WebAssembly.RuntimeError('unreachable');
    const log = this.#logs[handle]!;
    const [action, args, ops] = decode<WireAct>(request);
    this.#acts = Math.max(this.#acts, number);
    const writeId = `${this.#run}-${number}`;
    const own: FakeLog['own'][number] = {
      entry: { writeId, author: this.user, action, args, ops, time: Date.now() },
      status: 'pending',
    };
    if (replaces !== undefined) own.replaces = replaces;
    log.own.push(own);
    const notices = this.#patches(handle);
    const failure = this.appendFailure;
    this.appendFailure = undefined;
    this.#soon(() => {
      if (failure !== undefined) {
        log.own = log.own.filter((one) => one !== own);
        this.tell(...this.#patches(handle), [
          'write',
          handle,
          writeId,
          'failed',
          { code: failure, reason: 'no space' },
        ]);
        return;
      }
      own.status = 'stored';
      this.tell(['write', handle, writeId, 'stored', {}], ...this.#patches(handle), this.#state(handle));
      this.server.settle();
    });
    return encode([writeId, ...notices, this.#state(handle)]);
  }

  redrive(handle: number, entryId: string, request: Uint8Array | undefined): Uint8Array {
    const log = this.#logs[handle]!;
    const letter = this.#letter(handle, entryId);
    if (this.#wireEntry(log, letter).redriven)
      throw Object.assign(new Error(`${entryId} is being redriven`), { code: 'already-redriven' });
    const { action, args, ops } = letter.entry;
    const again = request ?? encode([action, args ?? null, ops, null]);
    const answer = this.actAgain(handle, again, this.#acts + 1, 0, entryId);
    this.#soon(() => this.tell(['deadLetters', handle, seqOf(entryId)]));
    return answer;
  }

  discard(handle: number, entryId: string): void {
    this.#letter(handle, entryId).gone = true;
    this.#soon(() => this.tell(['deadLetters', handle, seqOf(entryId)]));
  }

  letter(handle: number, entryId: string): Uint8Array | undefined {
    return encode(this.#letter(handle, entryId).entry);
  }

  #letter(handle: number, entryId: string): FakeLog['own'][number] {
    const found = this.#logs[handle]!.own.find((own, at) => own.status === 'refused' && !own.gone && this.#id(at) === entryId);
    if (found === undefined) throw Object.assign(new Error(entryId), { code: 'no-such-dead-letter' });
    return found;
  }

  #id(at: number): string {
    return `${this.user}-${at + 1}`;
  }

  read(handle: number, collection: string, record: string): Uint8Array | undefined {
    const row = this.#rows(handle, collection).find(({ id }) => id === record);
    return row === undefined ? undefined : encode(this.#withoutTexts(handle, collection, row));
  }

  select(handle: number, query: Uint8Array): Uint8Array {
    const wanted = decode<WireQuery>(query);
    return encode(this.#select(handle, wanted).map((row) => this.#withoutTexts(handle, wanted[0], row)));
  }

  /** Texts that were read whole. */
  textsRead = 0;

  text(handle: number, collection: string, record: string, field: string): string {
    this.textsRead++;
    return this.#text(handle, collection, record, field);
  }

  textLength(handle: number, collection: string, record: string, field: string): number {
    return this.#text(handle, collection, record, field).length;
  }

  splitsCharacter(handle: number, collection: string, record: string, field: string, at: number): boolean {
    return (this.#text(handle, collection, record, field).codePointAt(at - 1) ?? 0) > 0xffff;
  }

  #text(handle: number, collection: string, record: string, field: string): string {
    const row = this.#rows(handle, collection).find(({ id }) => id === record);
    return (row?.[field] ?? '') as string;
  }

  #withoutTexts(handle: number, collection: string, row: WireRow): WireRow {
    const { fields } = this.#logs[handle]!.schema[collection]!;
    const kept = Object.entries(row).filter(([name]) => fields[name]?.strategy !== 'text');
    return Object.fromEntries(kept) as WireRow;
  }

  query(handle: number, query: Uint8Array): Uint8Array {
    const wanted = decode<WireQuery>(query);
    const rows = this.#select(handle, wanted);
    this.#logs[handle]!.queries.set(++this.#queries, { query: wanted, rows });
    return encode([this.#queries, rows]);
  }

  unquery(handle: number, query: number): void {
    this.#logs[handle]!.queries.delete(query);
  }

  activeQueries(handle: number): number {
    return this.#logs[handle]!.queries.size;
  }

  async entry(handle: number, writeId: string): Promise<Uint8Array | undefined> {
    const log = this.#logs[handle]!;
    const found = log.own.find((own) => own.entry.writeId === writeId);
    return found && encode(this.#wireEntry(log, found));
  }

  async entries(handle: number, filter: Uint8Array): Promise<Uint8Array> {
    const { action, status, from = 0 } = decode<WireEntryFilter>(filter);
    const log = this.#logs[handle]!;
    const all = log.own.filter((own, at) => !own.gone && at + 1 >= from).map((own) => this.#wireEntry(log, own));
    return encode(
      all.filter(
        (one) =>
          (action === undefined || one.action === action) && (status === undefined || status.includes(one.status)),
      ),
    );
  }

  openFold(handle: number, request: Uint8Array): number {
    const [, , actions, initial] = decode<WireFold>(request);
    return this.#folds.push({ handle, actions, start: [initial], done: 0, handed: [], parked: [] }) - 1;
  }

  /** Everything at once; what fails is parked at once. */
  stepFold(handle: number, id: number, report: Uint8Array): Uint8Array {
    const fold = this.#folds[id]!;
    const { confirmed, own } = this.#logs[handle]!;
    if (report.length > 0) {
      const [, done, reason] = decode<WireFoldReport>(report);
      const last = fold.handed.at(-1);
      fold.done = fold.handed[done] ?? (last === undefined ? fold.done : last + 1);
      if (reason !== null) {
        const offset = fold.done++;
        fold.parked.push({ ...actOf(confirmed[offset]!), offset, reason, attempts: 1, first: 0, last: 0 });
      }
    }
    const counts = ({ action }: FakeEntry): boolean => fold.actions.includes(action);
    fold.handed = confirmed.map((_, offset) => offset).filter((offset) => offset >= fold.done && counts(confirmed[offset]!));
    const pending = own.filter((one) => one.status !== 'refused' && !confirmed.includes(one.entry) && counts(one.entry));
    const batch: WireFoldBatch = {
      ticket: 0,
      start: fold.start.splice(0),
      acts: fold.handed.map((offset) => ({ ...actOf(confirmed[offset]!), offset })),
      wantsAccumulator: false,
      more: false,
      tail: 'replaced',
      tailActs: pending.map(({ entry }) => actOf(entry)),
      state: { status: 'live', from: 0, end: fold.done, breaker: 'closed', suspects: [] },
      parked: fold.parked,
    };
    return encode(batch);
  }

  shutFold(): void {}

  redriveFold(): void {}

  discardFolded(_handle: number, id: number, offset: number): void {
    const fold = this.#folds[id]!;
    fold.parked = fold.parked.filter((letter) => letter.offset !== offset);
  }

  storage(): Uint8Array {
    const durable = this.options.storage === 'indexeddb';
    return encode({ mode: durable ? 'indexeddb' : 'memory', durable, tabs: 'one', reason: 'a test' });
  }

  connect(): void {
    this.#online = true;
    this.server.followers.add(this);
    this.#connection({ state: this.server.up ? 'live' : 'backing-off', user: this.user });
    this.#soon(() => this.server.settle());
  }

  disconnect(): void {
    this.#online = false;
    this.server.followers.delete(this);
    this.#connection({ state: 'offline', reason: 'switched off', user: this.user });
  }

  setToken(): void {}

  present(): void {}

  presence(): Uint8Array {
    return encode([]);
  }

  async close(): Promise<void> {
    this.server.followers.delete(this);
  }

  /** Sends what is stored. */
  push(): void {
    if (!this.#online || !this.server.up) return;
    for (const log of this.#logs) {
      for (const own of log.own) {
        if (own.status !== 'stored') continue;
        const code = this.server.policy(own.entry);
        const shared = this.server.logs.get(log.name) ?? [];
        this.server.logs.set(log.name, shared);
        if (code === undefined) own.offset = shared.push(own.entry) - 1;
        else own.code = code;
        own.status = code === undefined ? 'accepted' : 'refused';
        const redeemed = code === undefined && log.own.find((_, at) => this.#id(at) === own.replaces);
        if (redeemed) redeemed.gone = true;
      }
    }
  }

  /** Takes in the server's logs, and tells verdicts. */
  pull(): void {
    if (!this.#online || !this.server.up) return;
    this.#logs.forEach((log, handle) => {
      log.confirmed = [...(this.server.logs.get(log.name) ?? [])];
      const told = log.own.filter(
        (own) => (own.status === 'accepted' || own.status === 'refused') && !this.#told.has(own),
      );
      const notices = told.map((own): WireNotice => {
        this.#told.add(own);
        const { writeId } = own.entry;
        const detail =
          own.code === undefined
            ? { offset: own.offset!, acceptedAt: Date.now(), author: this.user }
            : { code: own.code, reason: 'by policy', entryId: `${this.user}-1` };
        return ['write', handle, writeId, own.status as 'accepted', detail];
      });
      const letters = told.flatMap((own) => [
        ...(own.code === undefined ? [] : [log.own.indexOf(own) + 1]),
        ...(own.replaces === undefined ? [] : [seqOf(own.replaces)]),
      ]);
      if (letters.length > 0) notices.push(['deadLetters', handle, Math.min(...letters)]);
      this.tell(...this.#patches(handle), ...notices, this.#state(handle));
    });
  }

  readonly #told = new WeakSet<object>();

  #connection(state: WireConnection): void {
    this.#soon(() => this.tell(['connection', state]));
  }

  /** Own entries without a verdict; each counts as 10 bytes. */
  #waiting(handle: number): number {
    return this.#logs[handle]!.own.filter(({ status }) => status === 'pending' || status === 'stored').length;
  }

  #state(handle: number): ['log', number, WireLogState] {
    const { own, confirmed } = this.#logs[handle]!;
    const outbox = this.#waiting(handle);
    const deadLetters = own.filter(({ status }) => status === 'refused').length;
    const pressure = outbox >= (this.options.backlog.entries ?? Infinity) ? 'full' : 'none';
    const status = this.#online ? 'synced' : 'local';
    return [
      'log',
      handle,
      { status, end: confirmed.length, outbox, outboxBytes: 10 * outbox, pressure, deadLetters },
    ];
  }

  #soon(work: () => void): void {
    queueMicrotask(() => {
      if (!this.#over) work();
    });
  }

  #wireEntry({ own }: FakeLog, one: FakeLog['own'][number]): WireEntry {
    const { entry, status, offset, code, replaces } = one;
    const entryId = this.#id(own.indexOf(one));
    const redriven = own.some((other) => other.replaces === entryId && ['pending', 'stored'].includes(other.status));
    const known = { offset: offset ?? null, code: code ?? null, replaces: replaces ?? null };
    return { ...entry, entryId, status, ...known, redriven, args: entry.args };
  }

  #patches(handle: number): WireNotice[] {
    const notices: WireNotice[] = [];
    const { queries, schema } = this.#logs[handle]!;
    for (const [id, live] of queries) {
      const rows = this.#select(handle, live.query);
      const fields = Object.entries(schema[live.query[0]]!.fields);
      const texts = fields.filter(([, { strategy }]) => strategy === 'text').map(([name]) => name);
      const patches = difference(live.rows, rows, texts);
      live.rows = rows;
      if (patches.length > 0) notices.push(['patch', handle, id, patches]);
    }
    this.#folds.forEach((fold, id) => {
      if (fold.handle === handle) notices.push(['fold', handle, id]);
    });
    return notices;
  }

  #select(handle: number, [from, conditions, order, limit, offset, refused]: WireQuery): WireRow[] {
    const rows = this.#rows(handle, from, refused).filter((row) => matches(conditions, (field) => row[field]));
    rows.sort((a, b) => {
      for (const [field, direction] of order) {
        const difference = compare(a[field], b[field]);
        if (difference !== 0) return direction === 'asc' ? difference : -difference;
      }
      return compare(a.id, b.id);
    });
    return rows.slice(offset, limit === null ? undefined : offset + limit);
  }

  #rows(handle: number, collection: string, refused?: 'keep'): WireRow[] {
    const log = this.#logs[handle]!;
    const { schema, confirmed, own } = log;
    const records = new Map<string, WireRow>();
    const pending = own.filter((one) => one.status !== 'refused' && !confirmed.includes(one.entry));
    for (const entry of confirmed) fold(records, collection, entry, 'accepted');
    for (const { entry, status } of pending)
      fold(records, collection, entry, status === 'pending' ? 'pending' : 'stored');
    for (const letter of refused === 'keep' ? own : []) {
      if (letter.status !== 'refused' || letter.gone || this.#wireEntry(log, letter).redriven) continue;
      fold(records, collection, letter.entry, 'refused', { code: letter.code!, reason: 'by policy' });
    }
    for (const row of records.values()) {
      for (const [field, { default: initial }] of Object.entries(schema[collection]!.fields)) row[field] ??= initial;
    }
    return [...records.values()].sort((a, b) => compare(a.id, b.id));
  }
}

function actOf({ writeId, author, time, action, args }: FakeEntry): WireFoldAct {
  return { id: writeId, author, time, action, args };
}

function fold(
  records: Map<string, WireRow>,
  wanted: string,
  { ops, time, author }: FakeEntry,
  status: WireRow['$']['status'],
  why: { code?: string; reason?: string } = {},
): void {
  for (const op of ops) {
    const [kind, collection, id] = op;
    if (collection !== wanted) continue;
    if (kind === 'delete') {
      records.delete(id);
      continue;
    }
    const existing = records.get(id);
    if (existing === undefined && kind === 'update') continue;
    const row: WireRow = existing ?? { id, $: { status, createdBy: author, createdAt: time, updatedAt: time } };
    row.$ = { ...row.$, status, updatedAt: time, ...why };
    const fields: [string, WireFieldOp][] = kind === 'insert' ? op[3] : [[op[3], op[4]]];
    for (const [field, fieldOp] of fields) row[field] = written(row[field], fieldOp);
    records.set(id, row);
  }
}

function written(before: unknown, [kind, value]: WireFieldOp): unknown {
  const list = (before ?? []) as unknown[];
  switch (kind) {
    case 'set':
    case 'initial':
      return value;
    case 'increment':
      return ((before ?? 0) as number) + value;
    case 'add':
      return [...list.filter((one) => !value.some((added) => same(one, added))), ...value].sort(compare);
    case 'remove':
      return list.filter((one) => !value.some((gone) => same(one, gone)));
    case 'text':
      return spliced((before ?? '') as string, value);
  }
}

/** Texts by the splice that replaces what differs. */
function update(index: number, before: WireRow, after: WireRow, texts: readonly string[]): WirePatch {
  const known = texts.filter((field) => typeof before[field] === 'string' && typeof after[field] === 'string');
  if (known.length === 0) return ['update', index, after];
  const splices = known.map((field): [string, WireSplice[]] => {
    const [was, is] = [before[field] as string, after[field] as string];
    let at = 0;
    while (at < was.length && was[at] === is[at]) at++;
    return [field, was === is ? [] : [[at, was.length - at, is.slice(at)]]];
  });
  const row = Object.fromEntries(Object.entries(after).filter(([name]) => !known.includes(name))) as WireRow;
  return ['edit', index, row, Object.fromEntries(splices)];
}

function difference(before: readonly WireRow[], after: readonly WireRow[], texts: readonly string[]): WirePatch[] {
  const patches: WirePatch[] = [];
  const rows = [...before];
  for (let index = rows.length - 1; index >= 0; index--) {
    if (after.some(({ id }) => id === rows[index]!.id)) continue;
    patches.push(['remove', index]);
    rows.splice(index, 1);
  }
  after.forEach((row, index) => {
    const at = rows.findIndex(({ id }) => id === row.id);
    if (at === index) {
      if (JSON.stringify(rows[at]) !== JSON.stringify(row)) patches.push(update(index, rows[at]!, row, texts));
      return;
    }
    if (at > index) {
      patches.push(['remove', at]);
      rows.splice(at, 1);
    }
    patches.push(['insert', index, row]);
    rows.splice(index, 0, row);
  });
  return patches;
}

/** The seq in an entry id. */
function seqOf(entryId: string): number {
  return Number(entryId.split('-')[1]);
}
