/**
 * The page of one typist: types transactions as actions on a text field, one entry each, and says what became of them.
 *
 * It types as fast as the view takes it and never waits for an entry to be stored. Runs in the browser; the harness
 * calls its functions.
 */
import { createClient, defineLog, single, text } from '/driftlog/index.js';

/** So many entries may wait for a verdict before the typist rests: a bound for the memory of a page, not of a client. */
const waitingMax = 4_000;
/** After so many milliseconds of typing the page does what else it has to do. */
const turnMs = 8;

const paper = defineLog('paper/:id', {
  collections: { paper: single({ text: text() }) },
  actions: {
    type(tx, patches) {
      for (const [position, deleted, inserted] of patches) {
        const [from, to] = placeOf(tx.paper.text, position, deleted);
        tx.paper.text.splice(from, to - from, inserted);
      }
    },
  },
  options: { type: { args: 'omit' } },
});

const count = { typed: 0, accepted: 0, refused: 0 };
const waiting = new Map();
let client;
let log;
let rows;
let transactions;

/** Opens the log from what this device has. */
export async function open({ name, url, id, transactionsUrl }) {
  client = await createClient({ name, url });
  log = await client.open(paper, { id });
  rows = log.query({ from: 'paper' });
  // Watched all the time, as a page that shows the text would.
  rows.subscribe(() => undefined);
  transactions = transactionsUrl && (await (await fetch(transactionsUrl)).json());
}

/** Types the transactions from `start` to before `end`; resolves when all are in the view. */
export async function type(start, end) {
  let turn = performance.now();
  for (let index = start; index < end; index++) {
    const write = log.do.type(transactions[index]);
    count.typed++;
    waiting.set(write.id, write);
    write.accepted.then(
      () => settle(write.id, 'accepted'),
      (error) => error.code === 'closed' || settle(write.id, 'refused'),
    );
    if (performance.now() - turn > turnMs) {
      do await nextTask();
      while (waiting.size > waitingMax);
      turn = performance.now();
    }
  }
}

/** Resolves when everything typed is durable on this device. */
export async function stored() {
  await [...waiting.values()].at(-1)?.stored;
}

/** Connects at once, instead of at the next attempt. */
export function connect() {
  client.connect();
}

/** Resolves when nothing waits for a verdict. */
export async function shipped() {
  await reached(log.outbox, ({ count }) => count === 0);
  // The verdicts of what this page typed are told in the same turn or later; those of an earlier page only to it.
  while (waiting.size > 0) await nextTask();
}

/** Resolves when the view shows the whole log up to `end`. */
export async function caughtUp(end) {
  await reached(log.status, (status) => status.end >= end);
}

/** What the view shows. */
export function read() {
  return rows.getSnapshot()[0]?.text ?? '';
}

/** What this page knows of its entries, to be added up over reloads. */
export function progress() {
  const { state, reason } = client.connection.getSnapshot();
  return { ...count, waiting: waiting.size, outbox: log.outbox.getSnapshot().count, ...log.status.getSnapshot(), connection: state, reason };
}

/** Ids of the entries of this page that have no verdict yet. */
export function unsettled() {
  return [...waiting.keys()];
}

/**
 * What became of entries that an earlier page typed, once nothing waits for a verdict any more. Accepted ones are not
 * listed for ever: what is gone from the list, and is no dead letter, was accepted.
 */
export async function verdicts(ids) {
  const statuses = new Map((await log.entries()).map(({ writeId, status }) => [writeId, status]));
  const sum = { accepted: 0, refused: 0 };
  for (const id of ids) {
    const status = statuses.get(id) ?? 'accepted';
    if (!(status in sum)) throw new Error(`${id} is ${status}`);
    sum[status]++;
  }
  return sum;
}

function settle(id, verdict) {
  waiting.delete(id);
  count[verdict]++;
}

/** Converts code points to code units, and clamps a place that does not fit: somebody else may have deleted it. */
function placeOf(field, position, deleted) {
  const shown = field.toString();
  const from = unitsOf(shown, 0, position);
  return [from, unitsOf(shown, from, deleted)];
}

function unitsOf(shown, from, codePoints) {
  if (!hasPairs(shown)) return Math.min(from + codePoints, shown.length);
  let units = from;
  for (let left = codePoints; left > 0 && units < shown.length; left--) units += shown.codePointAt(units) > 0xffff ? 2 : 1;
  return units;
}

function hasPairs(shown) {
  return /[\ud800-\udbff]/.test(shown);
}

function reached(readable, condition) {
  return new Promise((resolve) => {
    let stop;
    let done = false;
    const check = (value) => {
      if (done || !condition(value)) return;
      done = true;
      stop?.();
      resolve();
    };
    stop = readable.subscribe(check);
    if (done) stop();
  });
}

/** Timers are clamped to 4 ms when they nest; a channel is not. */
const channel = new MessageChannel();
const tasks = [];
channel.port1.onmessage = () => tasks.shift()();
function nextTask() {
  return new Promise((resolve) => {
    tasks.push(resolve);
    channel.port2.postMessage(undefined);
  });
}
