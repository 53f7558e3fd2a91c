/** The page of the stories: one board, driven by the harness. What crosses to the harness is plain values. */
import { collection, counter, createClient, defineLog, fold, register, set, text } from '/driftlog/index.js';

const board = defineLog('board/:id', {
  collections: {
    todos: collection({ title: register(''), done: register(false), votes: counter(), tags: set(), note: text() }),
    plans: collection({ title: register(''), votes: counter() }, { onDelete: 'update-wins' }),
  },
  actions: {
    addTodo: (tx, { id, title }) => tx.todos.insert(id, { title }),
    rename(tx, { id, title }) {
      tx.todos.get(id).title = title;
    },
    toggle(tx, { id }) {
      const todo = tx.todos.get(id);
      todo.done = !todo.done;
    },
    vote: (tx, { id, by = 1 }) => tx.todos.get(id).votes.increment(by),
    tag: (tx, { id, tag }) => tx.todos.get(id).tags.add(tag),
    untag: (tx, { id, tag }) => tx.todos.get(id).tags.remove(tag),
    write: (tx, { id, at, inserted }) => tx.todos.get(id).note.insert(Math.min(at, tx.todos.get(id).note.length), inserted),
    remove: (tx, { id }) => tx.todos.delete(id),
    addPlan: (tx, { id, title }) => tx.plans.insert(id, { title }),
    votePlan: (tx, { id }) => tx.plans.get(id).votes.increment(1),
    removePlan: (tx, { id }) => tx.plans.delete(id),
  },
});

/** Counts what was added. Its handler cannot take a poison, and nothing at all while there is an outage. */
const activity = fold(board, 'activity', 1, {
  init: 0,
  on: {
    addTodo: (count, { title }) => {
      if (globalThis.outage) throw new Error('nothing works');
      if (title === 'poison') throw new RangeError('not this one');
      return count + 1;
    },
  },
});

const writes = new Map();
let client;
let log;
let rows;

/** Opens a client and its board. */
export async function open({ id, ...options }) {
  client = await createClient(options);
  log = await client.open(board, { id });
  rows = log.query({ from: 'todos' });
  rows.subscribe(() => undefined);
}

/** Performs an action and returns its write id; the view has changed by then. */
export function act(action, args) {
  const write = log.do[action](args);
  writes.set(write.id, write);
  return write.id;
}

/** Performs an action that may not be taken: the code of the error, or nothing. */
export function attempt(action, args) {
  try {
    act(action, args);
  } catch ({ code }) {
    return code;
  }
}

/** How own work piles up, in this log and in all. */
export function pressure() {
  return { log: log.pressure.getSnapshot(), all: client.pressure.getSnapshot() };
}

/** Performs many actions without waiting, and returns when all are durable here. */
export async function addMany(count, prefix) {
  const fates = [];
  for (let index = 0; index < count; index++) {
    fates.push(log.do.addTodo({ id: `${prefix}${index}`, title: `${prefix} ${index}` }).stored);
    if (index % 50 === 0) await new Promise((resolve) => setTimeout(resolve));
  }
  await Promise.all(fates);
}

/**
 * Performs actions without end, a few in each turn of the event loop, and names each to `told` once it is durable here.
 * `told` is a function that the harness put into the page.
 */
export function pour(prefix, told) {
  let count = 0;
  setInterval(() => {
    for (let index = 0; index < 5; index++) {
      const write = log.do.addTodo({ id: `${prefix}${count}`, title: `${prefix} ${count}` });
      count += 1;
      void write.stored.then(() => globalThis[told](write.id));
    }
  });
}

/** Resolves when the write is durable here. */
export async function stored(id) {
  await writes.get(id).stored;
}

/** The server's acceptance of a write of this page, or the code of its refusal. */
export async function verdict(id) {
  return writes.get(id).accepted.catch(({ code }) => ({ code }));
}

/** What became of a write, of this page or of an earlier one. */
export async function entry(id) {
  const found = await log.entry(id);
  return found && { status: found.status, action: found.action, offset: found.offset, code: found.code };
}

/** Write id and status of every own entry that is kept here. */
export async function fates() {
  return (await log.entries()).map(({ writeId, status }) => [writeId, status]);
}

/** The to-dos shown, without what differs between devices. */
export function todos() {
  return rows.getSnapshot().map(({ $: _, ...todo }) => todo);
}

/** The plans shown, likewise. */
export function plans() {
  const shown = log.query({ from: 'plans' }).getSnapshot();
  return shown.map(({ $: _, ...plan }) => plan);
}

/** What the activity fold shows. */
export function folded() {
  const counted = log.fold(activity);
  const { value, state, end, breaker, suspected } = counted.getSnapshot();
  const parked = counted.parked.getSnapshot().map(({ offset, action, args, reason }) => ({ offset, action, args, reason }));
  return { value, state, end, breaker, suspected: suspected.length, parked };
}

/** State of connection, log and outbox. */
export function state() {
  return {
    connection: client.connection.getSnapshot().state,
    reason: client.connection.getSnapshot().reason,
    log: log.status.getSnapshot().state,
    end: log.status.getSnapshot().end,
    why: log.status.getSnapshot().reason,
    outbox: log.outbox.getSnapshot().count,
    deadLetters: log.deadLetters.getSnapshot().length,
    storage: client.storage,
  };
}

/** Says something of this client to the others in the board. */
export function present(value) {
  log.presence.set(value);
}

/** Who else is in the board, and what they say. */
export function others() {
  return log.presence.getSnapshot().map(({ user, value }) => [user, value]);
}

/** Connects at once. */
export function connect() {
  client.connect();
}

/** Goes offline. */
export function disconnect() {
  client.disconnect();
}

/** Ends the client. */
export async function close() {
  await client.close();
}
