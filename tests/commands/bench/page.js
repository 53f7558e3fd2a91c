/**
 * What is measured inside of the browser. Each function returns plain numbers; times are in milliseconds.
 *
 * The page is cross-origin isolated, so that its clock has steps of 5 µs.
 */
import { collection, counter, createClient, defineLog, initWasm, register, single, text } from '/driftlog/index.js';

const board = defineLog('board/:id', {
  collections: { todos: collection({ title: register(''), done: register(false), votes: counter() }) },
  actions: {
    add: (tx, { id, title }) => tx.todos.insert(id, { title }),
    addMany: (tx, { from, count }) => {
      for (let index = from; index < from + count; index++) tx.todos.insert(`t${index}`, { title: `to-do ${index}` });
    },
    vote: (tx, { id }) => tx.todos.get(id).votes.increment(1),
    rename: (tx, { id, title }) => {
      tx.todos.get(id).title = title;
    },
  },
  options: { addMany: { args: 'omit' } },
});

const paper = defineLog('paper/:id', {
  collections: { paper: single({ text: text() }) },
  actions: { type: (tx, { at, inserted }) => tx.paper.text.insert(at, inserted) },
  options: { type: { args: 'omit' } },
});

const clients = [];
/** The board of `ingestBeside`, the same in each of its rounds. */
let ingesting;

/** Opens a client and one board. */
export async function openBoard({ name, url, id, storage }) {
  const client = await createClient({ name, url, storage });
  clients.push(client);
  return client.open(board, { id });
}

/** Ends every client of this page. */
export async function closeAll() {
  await Promise.all(clients.splice(0).map((client) => client.close()));
}

/** Time from the call of an action until the listeners of a query that shows it have been called. */
export async function actionToView(options, count) {
  const log = await openBoard(options);
  let shown;
  log.query({ from: 'todos', orderBy: [['title', 'asc']], limit: 50 }).subscribe(() => (shown = performance.now()));
  const times = [];
  for (let index = 0; index < count; index++) {
    // Titles fall, so that each new one is shown.
    const title = String(count - index).padStart(8, '0');
    const start = performance.now();
    log.do.add({ id: `v${index}`, title });
    times.push(shown - start);
    if (index % 20 === 0) await nextTask();
  }
  return quantiles(times);
}

/** Actions per second, each durable before the next begins. */
export async function durableAwaited(options, forMs) {
  const log = await openBoard(options);
  const start = performance.now();
  let count = 0;
  while (performance.now() - start < forMs) await log.do.add({ id: `a${count++}`, title: 'awaited' }).stored;
  return count / ((performance.now() - start) / 1000);
}

/** Actions per second until all are durable, none awaited. */
export async function durablePipelined(options, count) {
  const log = await openBoard(options);
  const start = performance.now();
  await pipeline(log, count, 'stored');
  return count / ((performance.now() - start) / 1000);
}

/** Actions per second until the server's verdicts on all are here, by several clients at once on logs of their own. */
export async function ingest(optionsOfEach, count) {
  const logs = await Promise.all(optionsOfEach.map(openBoard));
  await Promise.all(logs.map((log) => log.do.add({ id: 'first', title: 'connected' }).accepted));
  const start = performance.now();
  await Promise.all(logs.map((log) => pipeline(log, count / logs.length, 'accepted')));
  return count / ((performance.now() - start) / 1000);
}

/** Actions per second that are good and accepted, while one in so many beside them is refused; 0: none is. */
export async function ingestBeside(options, count, refusedEvery) {
  ingesting ??= await openBoard(options);
  const round = crypto.randomUUID();
  const start = performance.now();
  const [accepts, refusals] = [[], []];
  for (let index = 0; index < count; index++) {
    accepts.push(ingesting.do.add({ id: `${round}${index}`, title: 'in a row' }).accepted);
    if (refusedEvery > 0 && index % refusedEvery === 0) {
      const { accepted } = ingesting.do.add({ id: `${round}-${index}`, title: 'too long '.repeat(20) });
      refusals.push(accepted.then(() => Promise.reject(new Error('it was accepted')), ({ code }) => code));
    }
    if (index % 100 === 0) await nextTask();
  }
  await Promise.all(accepts);
  const seconds = (performance.now() - start) / 1000;
  await Promise.all(refusals);
  return count / seconds;
}

/** Fills a board with records, so many an action, and waits until the server has them. */
export async function fill(options, count, inOneAction = 500) {
  const log = await openBoard(options);
  let last;
  for (let from = 0; from < count; from += inOneAction) {
    last = log.do.addMany({ from, count: Math.min(inOneAction, count - from) });
    await (options.url ? last.accepted : last.stored);
  }
  return log.status.getSnapshot().end;
}

/** Adds entries one by one, as fast as the server takes them. */
export async function addEntries(options, count) {
  const log = await openBoard(options);
  await pipeline(log, count, 'accepted');
}

/** From nothing in memory to the first view of every record: the whole, and its parts. */
export async function coldStart(options) {
  const times = [performance.now()];
  await initWasm();
  times.push(performance.now());
  const log = await openBoard(options);
  times.push(performance.now());
  const rows = log.query({ from: 'todos' }).getSnapshot().length;
  times.push(performance.now());
  const [wasm_ms, open_ms, rows_ms] = times.slice(1).map((time, at) => time - times[at]);
  return { first_view_ms: open_ms + rows_ms, open_ms, rows_ms, wasm_ms, rows };
}

/** Adds half as many records as there are actions, and votes once for each; all are stored when it returns. */
export async function actOffline(options, actions) {
  const log = await openBoard(options);
  const half = actions / 2;
  const stored = [];
  for (let index = 0; index < actions; index++) {
    const id = `o${index % half}`;
    stored.push((index < half ? log.do.add({ id, title: `made offline, ${index}` }) : log.do.vote({ id })).stored);
    if (index % 100 === 0) await nextTask();
  }
  await Promise.all(stored);
}

/** As `coldStart`; the log stays open, for `connectAndUpload`. */
export async function startPending(options) {
  const figures = await coldStart(options);
  globalThis.pending = await clients.at(-1).open(board, { id: options.id });
  return { ...figures, pending: pending.outbox.getSnapshot().count };
}

/** Time until the server's verdicts on everything that waits are here; and whether each action counts once. */
export async function connectAndUpload(actions) {
  const start = performance.now();
  clients.at(-1).connect();
  await reached(pending.outbox, ({ count }) => count === 0);
  await reached(pending.status, ({ state }) => state === 'synced');
  const ms = performance.now() - start;
  const rows = pending.query({ from: 'todos' }).getSnapshot();
  const { end } = pending.status.getSnapshot();
  const letters = pending.deadLetters.getSnapshot().length;
  const counted = rows.filter(({ votes }) => votes === 1).length;
  if (end !== actions || letters > 0 || counted !== actions / 2) {
    throw new Error(`${actions} actions: ${end} in the log, ${letters} refused, ${counted} of ${rows.length} records counted once`);
  }
  return ms;
}

/** Sets the same fields in turn, so many times altogether, no faster than the server takes it. */
export async function overwrite(options, fields, actions) {
  const log = await openBoard(options);
  let last = log.do.addMany({ from: 0, count: fields });
  for (let index = 0; index < actions; index++) {
    last = log.do.rename({ id: `t${index % fields}`, title: `${index} `.padEnd(100, 'abcdefghij') });
    if (index % 200 === 0) {
      await nextTask();
      await reached(log.outbox, ({ count }) => count < 1_000);
    }
  }
  await last.accepted;
  await reached(log.outbox, ({ count }) => count === 0);
  return log.status.getSnapshot().end;
}

/** Bytes of every key and value in the databases of this page. */
export async function storedBytes() {
  let bytes = 0;
  for (const { name } of await indexedDB.databases()) {
    const database = await answered(indexedDB.open(name));
    for (const store of database.objectStoreNames) {
      const rows = database.transaction(store).objectStore(store);
      for (const list of [await answered(rows.getAllKeys()), await answered(rows.getAll())]) {
        for (const one of list) bytes += one.byteLength ?? new TextEncoder().encode(JSON.stringify(one)).length;
      }
    }
    database.close();
  }
  return bytes;
}

function answered(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** Time from an action on one of many records until the listeners of a live query have been called. */
export async function liveQuery(options, records, count) {
  const log = await openBoard(options);
  let shown;
  log.query({ from: 'todos', where: { done: false }, orderBy: [['votes', 'desc']], limit: 50 }).subscribe(() => (shown = performance.now()));
  const times = [];
  for (let index = 0; index < count; index++) {
    const id = `t${(index * 7919) % records}`;
    const start = performance.now();
    log.do.vote({ id });
    times.push(Math.max(shown, start) - start);
    if (index % 20 === 0) await nextTask();
  }
  return quantiles(times);
}

/** Time from opening an empty device to showing everything up to `end`. */
export async function catchUp(options, end) {
  await initWasm();
  const start = performance.now();
  const log = await openBoard(options);
  await reached(log.status, (status) => status.end >= end);
  return performance.now() - start;
}

/** … to the rows of everything up to `end`, of so many empty devices one after the other: the median. */
export async function firstViews(options, end, devices) {
  await initWasm();
  const times = [];
  for (let device = 0; device < devices; device++) {
    const start = performance.now();
    const log = await openBoard({ ...options, name: `${options.name} ${device}` });
    await reached(log.status, (status) => status.end >= end);
    if (log.query({ from: 'todos' }).getSnapshot().length === 0) throw new Error('there are no rows');
    times.push(performance.now() - start);
    await clients.pop().close();
  }
  return quantiles(times).p50_ms;
}

/** Connects clients that only listen; `takeDelays()` tells how long after it was sent they saw what. */
export async function listen(optionsOfEach) {
  const delays = [];
  for (const options of optionsOfEach) {
    const log = await openBoard(options);
    // By patches: what arrives together is announced once, and each entry of it counts.
    log.query({ from: 'todos' }).subscribe((_, patches) => {
      for (const patch of patches) if (patch.kind === 'insert') delays.push(now() - Number(patch.row.title));
    });
    await reached(log.status, ({ state }) => state === 'synced');
  }
  globalThis.delays = delays;
}

/** How many deliveries the listeners have seen. */
export function delivered() {
  return globalThis.delays.length;
}

/** The delays they saw since the last call. */
export function takeDelays() {
  return globalThis.delays.splice(0);
}

/** Sends actions that carry the time they were performed at, one after the other, and so many ms apart. */
export async function send(options, count, apartMs = 0) {
  const log = await openBoard(options);
  for (let index = 0; index < count; index++) {
    const next = performance.now() + apartMs;
    await log.do.add({ id: crypto.randomUUID(), title: now().toFixed(3) }).accepted;
    if (apartMs > 0) await new Promise((resolve) => setTimeout(resolve, next - performance.now()));
  }
}

/** From a small write to its acceptance: one after the other, and then beside boards that arrive over the same session. */
export async function writeBesideBulk(options, ends, count) {
  const log = await openBoard(options);
  const client = clients.at(-1);
  const write = async () => {
    const start = performance.now();
    await log.do.add({ id: crypto.randomUUID(), title: 'small' }).accepted;
    return performance.now() - start;
  };
  await write();
  const [alone, beside] = [[], []];
  for (let index = 0; index < count; index++) alone.push(await write());
  for (const [id, end] of Object.entries(ends)) {
    const bulk = await client.open(board, { id });
    while (bulk.status.getSnapshot().end < end) beside.push(await write());
  }
  return { alone: quantiles(alone), beside: quantiles(beside) };
}

/** Types into a text: from one keystroke to its acceptance, one after the other, and keystrokes accepted a second. */
export async function typing({ name, url }, one, many) {
  const client = await createClient({ name, url });
  clients.push(client);
  const log = await client.open(paper, { id: name });
  let at = 0;
  const type = () => log.do.type({ at: at++, inserted: 'abcdefghij '[at % 11] }).accepted;
  await type();
  const times = [];
  for (let count = 0; count < one; count++) {
    const start = performance.now();
    await type();
    times.push(performance.now() - start);
  }
  const start = performance.now();
  const fates = [];
  for (let count = 0; count < many; count++) {
    fates.push(type());
    if (count % 50 === 0) await nextTask();
  }
  await Promise.all(fates);
  return { ...quantiles(times), per_second: many / ((performance.now() - start) / 1000) };
}

/** Types into one text until it has had so many changes; the cost of the last ones before each mark. */
export async function richChanges({ name, url, marks, sample }) {
  const client = await createClient({ name, url });
  clients.push(client);
  const log = await client.open(paper, { id: name });
  log.query({ from: 'paper' }).subscribe(() => undefined);
  const costs = {};
  let at = 0;
  for (const mark of marks) {
    const times = [];
    for (; at < mark; at++) {
      const start = performance.now();
      log.do.type({ at, inserted: 'abcdefghij '[at % 11] });
      if (at >= mark - sample) times.push(performance.now() - start);
      if (at % 50 === 0) await nextTask();
      if (at % 2_000 === 0) await reached(log.outbox, (outbox) => outbox.count < 500);
    }
    costs[mark] = quantiles(times);
  }
  return costs;
}

async function pipeline(log, count, fate) {
  const fates = [];
  for (let index = 0; index < count; index++) {
    fates.push(log.do.add({ id: `p${index}`, title: 'in a row' })[fate]);
    if (index % 100 === 0) await nextTask();
  }
  await Promise.all(fates);
}

/** One clock for all tabs. */
function now() {
  return performance.timeOrigin + performance.now();
}

function quantiles(times) {
  const sorted = Float64Array.from(times).sort();
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
  return { p50_ms: at(0.5), p99_ms: at(0.99), samples: sorted.length };
}

function reached(readable, condition) {
  return new Promise((resolve) => {
    const stop = readable.subscribe((value) => {
      if (!condition(value)) return;
      resolve();
      queueMicrotask(() => stop());
    });
  });
}

const channel = new MessageChannel();
const tasks = [];
channel.port1.onmessage = () => tasks.shift()();
function nextTask() {
  return new Promise((resolve) => {
    tasks.push(resolve);
    channel.port2.postMessage(undefined);
  });
}
