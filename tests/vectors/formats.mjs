/**
 * Readers of Driftlog's formats, written from docs/log-format.md and docs/protocol.md alone: the second opinion on
 * what the Rust code writes. Everything comes back as the plain JSON in which the vectors describe it.
 */
import { createHash } from 'node:crypto';
import { decode, decodeMulti } from '@msgpack/msgpack';

/** What the bytes say is not what the format allows. `code` is the name of the code to answer a frame with. */
export class Refused extends Error {
  constructor(reason, code = 'malformed-frame') {
    super(reason);
    this.code = code;
  }
}

const demand = (condition, reason) => {
  if (!condition) throw new Refused(reason);
};

export const fromHex = (hex) => Uint8Array.from(Buffer.from(hex, 'hex'));
export const toHex = (bytes) => Buffer.from(bytes).toString('hex');
export const sha256 = (...parts) => new Uint8Array(createHash('sha256').update(Buffer.concat(parts)).digest());

// Checksums and records

const crcTable = Uint32Array.from({ length: 256 }, (_, index) => {
  let crc = index;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

/** CRC32C (Castagnoli, reflected). */
export function crc32c(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = crcTable[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

const u32 = (bytes, at) => new DataView(bytes.buffer, bytes.byteOffset).getUint32(at, true);

/** The payloads of sealed records that follow each other. */
export function unsealAll(bytes) {
  const payloads = [];
  for (let at = 0; at < bytes.length; ) {
    demand(bytes.length - at >= 8, 'a record is cut in its head');
    const payload = bytes.subarray(at + 8, at + 8 + u32(bytes, at));
    demand(payload.length === u32(bytes, at), 'a record is cut');
    demand(crc32c(payload) === u32(bytes, at + 4), 'the checksum of a record');
    payloads.push(payload);
    at += 8 + payload.length;
  }
  return payloads;
}

// Values

/** Reads one msgpack value; 64-bit integers come as BigInt. */
function unpack(bytes) {
  try {
    return decode(bytes, { useBigInt64: true });
  } catch (error) {
    throw new Refused(error.message);
  }
}

function unpackAll(bytes) {
  try {
    return [...decodeMulti(bytes, { useBigInt64: true })];
  } catch (error) {
    throw new Refused(error.message);
  }
}

/** A value in its one canonical encoding. */
export function encodeValue(value) {
  if (value === null) return [0xc0];
  if (typeof value === 'boolean') return [value ? 0xc3 : 0xc2];
  if (typeof value === 'bigint' || Number.isInteger(value)) return encodeInteger(value);
  if (typeof value === 'number') return [0xcb, ...bigEndian(8, (view) => view.setFloat64(0, value))];
  if (typeof value === 'string') return encodeText(value);
  if (value instanceof Uint8Array) return [...lengthOf(value.length, [[0xff, 0xc4, 1], [0xffff, 0xc5, 2], [2 ** 32 - 1, 0xc6, 4]]), ...value];
  if (Array.isArray(value)) return [...countOf(value.length, 0x90, 0xdc), ...value.flatMap(encodeValue)];
  demand(Object.getPrototypeOf(value) === Object.prototype, 'no value');
  const members = Object.entries(value).sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  return [...countOf(members.length, 0x80, 0xde), ...members.flatMap(([key, part]) => [...encodeText(key), ...encodeValue(part)])];
}

function encodeInteger(value) {
  demand(!Object.is(value, -0), 'negative zero');
  const unsigned = [[0x7fn, 0, 0], [0xffn, 0xcc, 1], [0xffffn, 0xcd, 2], [0xffffffffn, 0xce, 4], [2n ** 64n - 1n, 0xcf, 8]];
  const signed = [[-32n, 0, 0], [-0x80n, 0xd0, 1], [-0x8000n, 0xd1, 2], [-0x80000000n, 0xd2, 4], [-(2n ** 63n), 0xd3, 8]];
  const number = BigInt(value);
  const [, head, size] = number >= 0n ? unsigned.find(([max]) => number <= max) : signed.find(([min]) => number >= min);
  const bytes = bigEndian(8, (view) => view.setBigUint64(0, BigInt.asUintN(64, number)));
  return size === 0 ? bytes.slice(7) : [head, ...bytes.slice(8 - size)];
}

function encodeText(text) {
  const bytes = Buffer.from(text);
  const sizes = [[0xff, 0xd9, 1], [0xffff, 0xda, 2], [2 ** 32 - 1, 0xdb, 4]];
  return [...(bytes.length < 32 ? [0xa0 + bytes.length] : lengthOf(bytes.length, sizes)), ...bytes];
}

const countOf = (count, fix, long) => (count < 16 ? [fix + count] : lengthOf(count, [[0xffff, long, 2], [2 ** 32 - 1, long + 1, 4]]));

function lengthOf(length, sizes) {
  const [, head, size] = sizes.find(([max]) => length <= max);
  return [head, ...bigEndian(4, (view) => view.setUint32(0, length)).slice(4 - size)];
}

function bigEndian(size, write) {
  const view = new DataView(new ArrayBuffer(size));
  write(view);
  return [...new Uint8Array(view.buffer)];
}

/** Refuses what JavaScript and Rust would not represent alike. */
function checkNumbers(value) {
  if (typeof value === 'number') demand(Number.isFinite(value) && !(Number.isInteger(value) && !Number.isSafeInteger(value)), 'number');
  if (typeof value === 'bigint') demand(Number.isSafeInteger(Number(value)), 'integer');
  if (value !== null && typeof value === 'object' && !(value instanceof Uint8Array)) Object.values(value).forEach(checkNumbers);
}

/** Reads a value and insists on its canonical encoding. */
export function readValue(bytes) {
  const value = unpack(bytes);
  checkNumbers(value);
  demand(toHex(encodeValue(value)) === toHex(bytes), 'not canonical');
  return any(value);
}

// Grammar: each reader takes what msgpack decoded to, and gives its description.

/** Anything, as the vectors describe it. */
function any(value) {
  if (typeof value === 'bigint') return Number.isSafeInteger(Number(value)) ? Number(value) : { $int: String(value) };
  if (value instanceof Uint8Array) return { $bytes: toHex(value) };
  if (Array.isArray(value)) return value.map(any);
  if (value !== null && typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, any(part)]));
  return value;
}

const of = (type, is) => (value) => {
  demand(is(value), `no ${type}`);
  return any(value);
};
const integer = of('integer', (value) => typeof value === 'bigint' || Number.isInteger(value));
const natural = of('natural number', (value) => (typeof value === 'bigint' || Number.isInteger(value)) && value >= 0);
const text = of('text', (value) => typeof value === 'string');
const flag = of('flag', (value) => typeof value === 'boolean');
const bytes = of('bytes', (value) => value instanceof Uint8Array);
const random = (length) => of(`${length} bytes`, (value) => value instanceof Uint8Array && value.length === length);
const format = of('format 1', (value) => value === 1);
const nothing = of('nil', (value) => value === null);
const optional = (reader) => (value) => (value === null ? null : reader(value));
const list = (reader) => (value) => {
  demand(Array.isArray(value), 'no list');
  return value.map((part) => reader(part));
};
const tuple = (...readers) => (value) => {
  demand(Array.isArray(value) && value.length === readers.length, `no tuple of ${readers.length}`);
  return readers.map((reader, at) => reader(value[at]));
};
const struct = (fields) => (value) => {
  const parts = tuple(...Object.values(fields))(value);
  return Object.fromEntries(Object.keys(fields).map((name, at) => [name, parts[at]]));
};
const tagged = (kinds, unknown) => (value) => {
  const [tag, content] = tuple(natural, (part) => part)(value);
  const reader = kinds[tag] ?? unknown;
  demand(reader, `unknown tag ${tag}`);
  return [tag, reader(content)];
};

const actor = random(16);
const digest = random(32);
const chain = digest;
const nonce = random(16);
const cursor = struct({ next: natural, chain });
const entryId = struct({ actor, seq: natural });
const replaced = struct({ id: entryId, digest });
const timeStep = tuple(integer, natural);
const epoch = tuple(random(8), natural);

const change = struct({ root: natural, incarnation: natural, bytes });
const root = struct({ root: natural, content: text, until: natural });
const moved = struct({ original: change, root: natural, bytes });
const edit = tagged({ 0: text, 1: change, 2: root, 3: moved }, any);
const fieldOp = tagged({ 0: any, 1: integer, 2: list(any), 3: list(any), 4: edit }, any);
const erase = (name) => tagged({ 0: tuple(name, text), 1: nothing, 2: list(actor), 3: nothing }, any);
const policy = (value) => {
  if (value === 0) return 0;
  demand(value[0] !== 0, 'policy 0 with content');
  return tagged({ 1: natural }, any)(value);
};
const ops = (name) =>
  list(
    tagged(
      {
        0: struct({ collection: name, record: text, fields: list(tuple(name, fieldOp)) }),
        1: struct({ collection: name, record: text, field: name, op: fieldOp }),
        2: struct({ collection: name, record: text, policy }),
        3: erase(name),
      },
      any,
    ),
  );
const body = (name) => struct({ format, name, args: any, ops: ops(name), lifetime_ms: optional(natural), salt: random(8) });
const header = struct({
  format,
  run: random(8),
  n: natural,
  seq: natural,
  base: struct({ epoch: random(8), end: natural }),
  own: optional(natural),
  time: natural,
  needs: list(natural),
  replaces: optional(replaced),
});

/** Reads an entry and checks the rules of docs/log-format.md, "Entry". */
export function readEntry(entryBytes) {
  const parts = unpackAll(entryBytes);
  demand(parts.length === 2, 'header and body');
  demand(toHex(parts.flatMap(encodeValue)) === toHex(entryBytes), 'not canonical');
  const entry = { header: header(parts[0]), body: body(text)(parts[1]) };
  const [, , n, seq, , own, , needs] = parts[0];
  demand(seq >= 1 && n >= 1 && (own === null || own < seq), 'numbering');
  demand(needs.every((need, at) => need > (needs[at - 1] ?? 0) && need < seq), 'needs');
  demand(entry.body.lifetime_ms === null || entry.body.ops.length === 0, 'a lifetime with ops');
  for (const [kind, op] of entry.body.ops) {
    demand(kind !== 2 || op.policy[0] !== 1 || op.policy[1] <= 366 * 86_400_000, 'a grace');
    const fields = kind === 0 ? op.fields : kind === 1 ? [[op.field, op.op]] : [];
    for (const [field, [fieldKind, content]] of fields) {
      demand(field !== 'id' && !field.startsWith('$'), 'a reserved field name');
      demand(fieldKind !== 1 || Number.isSafeInteger(content), 'an increment');
    }
  }
  return entry;
}

const stamp = struct({ accepted: timeStep, base: optional(natural) });
const packedEntry = struct({
  actor: natural,
  run: natural,
  n: integer,
  seq: integer,
  epoch: natural,
  base: integer,
  own: optional(natural),
  time: timeStep,
  needs: list(natural),
  replaces: optional(replaced),
  stamp: optional(stamp),
  body: body(natural),
});
const packed = struct({
  actors: list(tuple(actor, optional(text))),
  runs: list(random(8)),
  epochs: list(random(8)),
  names: list(text),
  items: list(
    tagged({
      0: packedEntry,
      1: struct({ actor: natural, seq: integer, stamp }),
      2: struct({ end: natural, reason: natural, chain, accepted: natural, effective: natural, authors: list(tuple(natural, natural)) }),
      3: struct({ from: natural, through: natural, reason: text }),
    }),
  ),
});

const hello = struct({
  protocol_min: natural,
  protocol_max: natural,
  client: random(16),
  actor,
  predecessor: optional(actor),
  user: optional(text),
  nonces: list(nonce),
  device: text,
  token: optional(text),
  now: natural,
});
const subscribeLog = struct({
  log: natural,
  name: text,
  log_id: optional(random(16)),
  cursor: optional(cursor),
  epoch: optional(epoch),
  read: flag,
  decided: natural,
  held: natural,
  priority: natural,
  end: optional(natural),
  begun: optional(struct({ cursor, bytes: natural, digest })),
});
const opened = struct({
  log: natural,
  log_id: random(16),
  epochs: list(epoch),
  end: natural,
  accepted: natural,
  seq: natural,
  chain,
  checkpoints: list(tuple(natural, chain)),
  append: flag,
  backed_up: optional(natural),
});
const ack = struct({
  log: natural,
  through: natural,
  accepted: list(struct({ seq: natural, offset: natural, count: natural, accepted: natural })),
  marked: list(struct({ seq: natural, status: natural, code: optional(natural), reason: text })),
});
const ping = struct({ nonce: natural });

/** Type number → name and content. */
export const frames = {
  0: ['hello', hello],
  1: ['token', struct({ token: text })],
  2: ['subscribe', struct({ logs: list(subscribeLog) })],
  3: ['unsubscribe', struct({ log: natural })],
  4: ['push', struct({ log: natural, first: natural, chain, entries: packed })],
  5: ['settled', struct({ log: natural, through: natural })],
  6: ['present', struct({ log: natural, value: optional(bytes) })],
  7: ['priority', struct({ log: natural, priority: natural })],
  16: ['welcome', struct({ protocol: natural, user: text, nonce, now: natural, idle_ms: natural, credit: natural })],
  17: ['opened', opened],
  18: ['ack', ack],
  19: ['entries', struct({ log: natural, from: natural, after: cursor, end: natural, entries: packed })],
  20: ['snapshot-part', struct({ log: natural, cursor, at: natural, total: natural, bytes })],
  21: ['go-away', struct({ code: natural, retry_ms_min: natural, retry_ms_max: natural })],
  22: ['held', struct({ log: natural, seq: natural, reason: text, retry_ms: natural })],
  24: ['presence', struct({ log: natural, connection: actor, said: optional(tuple(text, bytes)) })],
  23: ['connection', struct({ state: natural, reason: optional(natural), since: optional(natural) })],
  32: ['credit', struct({ bytes: natural, of_log: optional(tuple(natural, natural)) })],
  33: ['ping', ping],
  34: ['pong', ping],
  35: ['error', struct({ code: natural, reason: text, log: optional(natural), expected: optional(natural) })],
};

/** Reads a frame. */
export function readFrame(frameBytes) {
  demand(frameBytes.length >= 4, 'too short for a checksum');
  const content = frameBytes.subarray(4);
  if (crc32c(content) !== u32(frameBytes, 0)) throw new Refused('checksum', 'frame-checksum');
  const [tag, is] = tagged(Object.fromEntries(Object.entries(frames).map(([tag, [, reader]]) => [tag, reader])))(unpack(content));
  return { type: frames[tag][0], is };
}

// Rows of a client's database

const identity = struct({
  format, client: random(16), actor, predecessor: optional(actor), user: optional(text), nonces: list(nonce), logs: natural,
});
const verdicts = struct({ format, actor, through: natural, chain, marked: list(tuple(natural, natural)), settled: natural, rewound: natural });
const received = struct({ log_id: random(16), epoch, from: natural, after: cursor, entries: packed });
const deadLetter = struct({
  format,
  write: optional(struct({ run: random(8), n: natural })),
  seqs: natural,
  entry: bytes,
  status: natural,
  code: optional(natural),
  reason: text,
  at: natural,
  redriven: optional(natural),
});

const oneRecord = (rowBytes) => {
  const payloads = unsealAll(rowBytes);
  demand(payloads.length === 1, 'one record');
  return payloads[0];
};
const sealed = (reader) => (rowBytes) => reader(unpack(oneRecord(rowBytes)));

const voids = struct({
  format,
  stretches: list(struct({ from: natural, through: natural, reason: text })),
  earlier: list(tuple(bytes, natural)),
});
/** A row that stands twice: the first copy that is whole counts. */
const twice = (reader) => (rowBytes) => {
  const middle = rowBytes.length >> 1;
  try {
    return sealed(reader)(rowBytes.subarray(0, middle));
  } catch {
    return sealed(reader)(rowBytes.subarray(middle));
  }
};

/** Kind of row → reader of its bytes. */
export const rows = {
  record: (rowBytes) => ({ $bytes: toHex(oneRecord(rowBytes)) }),
  identity: twice(identity),
  next: twice(natural),
  leader: twice(natural),
  voids: twice(voids),
  run: sealed(entryId),
  verdicts: sealed(verdicts),
  received: sealed(received),
  'dead letter': sealed(deadLetter),
  purged: sealed(struct({ format, expires: optional(natural), erased: natural, looked: natural })),
  own: (rowBytes) => unsealAll(rowBytes).map(readEntry),
  key: readKey,
  snapshot: readSnapshot,
};

function readKey(key) {
  const table = key[0];
  if (table < 0x10) return { table };
  const nameEnd = 3 + ((key[1] << 8) | key[2]);
  const log = Buffer.from(key.subarray(3, nameEnd)).toString();
  let rest = key.subarray(nameEnd);
  const read = { table, log };
  if (table === 0x16) {
    read.run = any(rest.subarray(0, 8));
    rest = rest.subarray(8);
  }
  if (table === 0x11 || table === 0x15 || table === 0x17) {
    read.actor = any(rest.subarray(0, 16));
    rest = rest.subarray(16);
  }
  if (rest.length === 8) read.number = Number(Buffer.from(rest).readBigUInt64BE());
  return read;
}

const columns = struct({
  offset: list(natural),
  actor: list(natural),
  seq: list(integer),
  run: list(natural),
  n: list(integer),
  ms: list(integer),
  counter: list(natural),
});
const field = struct({
  name: natural,
  register: list(tuple(any, natural)),
  counter: optional(integer),
  set: optional(list(tuple(any, list(natural)))),
  text: optional(
    struct({
      root: natural,
      begun: natural,
      base: optional(bytes),
      folded: natural,
      edits: list(edit),
      shown: optional(text),
      initials: list(bytes),
      old: list(
        struct({ root: natural, next: natural, base: optional(bytes), edits: list(edit), until: natural, late: list(edit) }),
      ),
    }),
  ),
});
const record = struct({ id: text, inserts: list(natural), created: natural, edits: list(natural), fields: list(field) });
const snapshot = struct({
  format,
  log: random(16),
  cursor,
  epochs: list(epoch),
  accepted_last: natural,
  effective_max: natural,
  actors: list(tuple(actor, text, natural)),
  runs: list(random(8)),
  names: list(text),
  stamps: columns,
  collections: list(tuple(natural, list(record))),
  erased: list(tuple(natural, erase(text))),
  tombstones: list(struct({ collection: natural, record, deletes: list(natural), until: natural })),
});

function readSnapshot(snapshotBytes) {
  const content = snapshotBytes.subarray(0, -32);
  const found = toHex(sha256(content));
  demand(found === toHex(snapshotBytes.subarray(-32)), 'the digest of a snapshot');
  snapshot(unpack(content));
  return { digest: found, bytes: content.length };
}
