/** Lines that must compile, and lines that must not. Checked by the compiler; never run, never published. */

import {
  type Client,
  collection,
  counter,
  defineLog,
  fold,
  DriftlogError,
  type Log,
  optional,
  register,
  set,
  single,
  text,
} from './index.js';

const board = defineLog('board/:id', {
  collections: {
    todos: collection({
      title: register<string>(''),
      done: register(false),
      due: optional<number>(),
      color: register<'red' | 'blue'>(),
      votes: counter(),
      tags: set<string>(),
      note: text(),
    }),
    head: single({ name: register<string>('untitled'), visits: counter() }),
  },
  actions: {
    addTodo: (tx, { id, title }: { id: string; title: string }) => {
      tx.todos.insert(id, { title });
    },
    insertOnly: (tx, { id }: { id: string }) =>
      tx.todos.insert(id, { tags: ['a'], votes: 2, note: 'hello', due: undefined }),
    toggle: (tx, { id }: { id: string }) => {
      const todo = tx.todos.get(id);
      todo.done = !todo.done;
    },
    vote: (tx, { id }: { id: string }) => {
      tx.todos.get(id).votes.increment(1);
    },
    clearDone: (tx) => {
      for (const todo of tx.todos.where({ done: true })) tx.todos.delete(todo.id);
    },
    later: (tx, by?: number) => {
      tx.head.visits.increment(by);
    },
    type: (tx, { id, at, s }: { id: string; at: number; s: string }) => {
      tx.todos.get(id).note.insert(at, s);
    },
    drafts: (tx) => {
      const found = tx.todos.find('x');
      // @ts-expect-error find may give undefined
      found.title;
      const todo = tx.todos.get('x');
      todo.title = todo.title.toUpperCase();
      todo.due = undefined;
      // @ts-expect-error a register with a default is never undefined
      todo.title = undefined;
      // @ts-expect-error a register holds its type
      todo.done = 'yes';
      // @ts-expect-error a register without a default may be undefined
      todo.color.length;
      // @ts-expect-error a counter is not assigned
      todo.votes = 3;
      todo.votes.value = 0;
      // @ts-expect-error a set holds its type
      todo.tags.add(1);
      // @ts-expect-error a text is not assigned
      todo.note = 'x';
      // @ts-expect-error ids do not change
      todo.id = 'y';
      // @ts-expect-error no such field
      todo.nothing;
      // @ts-expect-error no such collection
      tx.nothing;
      // @ts-expect-error the only record of a single is there already
      tx.head.insert('x');
      tx.head.name = `${tx.user ?? 'nobody'} at ${tx.now + 1}`;
      // @ts-expect-error time does not change
      tx.now = 0;
      // @ts-expect-error a filter names fields
      tx.todos.where({ nothing: 1 });
      // @ts-expect-error a filter's value has the field's type
      tx.todos.where({ done: 'yes' });
    },
  },
  options: { type: { args: 'omit', lifetimeMs: 1_000 } },
});

collection({ title: register('') }, { onDelete: 'update-wins' });
// @ts-expect-error there is no such policy
collection({ title: register('') }, { onDelete: 'nobody-wins' });
// @ts-expect-error the one record of a single is never deleted
single({ title: register('') }, { onDelete: 'update-wins' });

const activity = fold(board, 'activity', 1, {
  init: {} as Record<string, number>,
  on: {
    addTodo: (counts, { title }, { author, status }) => ({
      ...counts,
      [author ?? status]: (counts[title] ?? 0) + 1,
    }),
    // @ts-expect-error a handler returns an accumulator
    vote: () => 'x',
    // @ts-expect-error the action has no such argument
    toggle: (counts, { nothing }) => counts,
  },
});
// @ts-expect-error the log has no such action
fold(board, 'x', 1, { init: 0, on: { nothing: (sum) => sum } });

declare const client: Client;
declare const log: Log<typeof board>;

export async function opening(): Promise<void> {
  const opened: Log<typeof board> = await client.open(board, { id: '42' });
  opened.close();
  await client.open(board, { id: 42 });
  // @ts-expect-error the pattern needs an id
  await client.open(board);
  // @ts-expect-error the pattern needs an id
  await client.open(board, {});
  // @ts-expect-error the pattern has no such parameter
  await client.open(board, { id: '42', room: 'x' });
  await client.open(board, { id: '42' }, { priority: 'high' });
  // @ts-expect-error no such priority
  await client.open(board, { id: '42' }, { priority: 'urgent' });
  await client.open(defineLog('settings', { collections: {} }), {}, { priority: 'low' });
  await client.open(defineLog('settings', { collections: {} }));
  await client.open(defineLog('a/:b/c/:d', { collections: {} }), { b: 'x', d: 'y' });
}

export function folding(): number | undefined {
  const { value, from } = log.fold(activity).getSnapshot();
  // @ts-expect-error a fold of another log
  log.fold(fold(defineLog('other', { collections: {}, actions: { act: () => {} } }), 'x', 1, { init: 0, on: {} }));
  // @ts-expect-error values are numbers
  value.alice?.length;
  return value.alice ?? from;
}

export async function acting(): Promise<void> {
  const write = log.do.addTodo({ id: 'a', title: 'x' });
  const nothing: void = await write.stored;
  const { offset, acceptedAt, author } = await write.accepted;
  void [nothing, offset, acceptedAt, author];
  log.do.clearDone();
  // @ts-expect-error clearDone takes no arguments
  log.do.clearDone({});
  // @ts-expect-error toggle takes arguments
  log.do.toggle();
  // @ts-expect-error of its own type
  log.do.toggle({ id: 1 });
  // @ts-expect-error no such action
  log.do.nothing();
  log.do.later();
  log.do.later(3);
  log.do.type({ id: 'a', at: 0, s: 'x' });
  // @ts-expect-error options do not change the arguments
  log.do.type({ id: 'a' });
}

export function querying(): void {
  const open = log.query({
    from: 'todos',
    where: { done: false, votes: { gte: 3 } },
    orderBy: [
      ['votes', 'desc'],
      ['id', 'asc'],
    ],
    limit: 50,
  });
  const stop: () => void = open.subscribe((rows) => {
    for (const row of rows) {
      const votes: number = row.votes;
      const tags: readonly string[] = row.tags;
      const note: string = row.note;
      const due: number | undefined = row.due;
      const title: string = row.title;
      const done: boolean = row.done;
      const status: 'pending' | 'stored' | 'accepted' | 'refused' = row.$.status;
      void [votes, tags, note, due, title, done, status, row.id, row.$.createdAt];
      // @ts-expect-error due may be undefined
      row.due.toFixed();
      // @ts-expect-error rows are read only
      row.title = 'x';
      // @ts-expect-error lists in rows are read only
      row.tags.push('x');
    }
  });
  stop();
  log.query({
    from: 'todos',
    where: { tags: { has: 'x' }, color: { in: ['red'] }, id: { gt: 'a' }, due: { exists: true } },
  });
  log.query({ from: 'head' }).getSnapshot()[0]?.name.length;
  const reason: string | undefined = log.query({ from: 'todos', refused: 'keep' }).getSnapshot()[0]?.$.reason;
  void reason;
  // @ts-expect-error refused rows are kept or hidden
  log.query({ from: 'todos', refused: true });
  // @ts-expect-error no such collection
  log.query({ from: 'nothing' });
  // @ts-expect-error no such field
  log.query({ from: 'todos', where: { nothing: 1 } });
  // @ts-expect-error a set is asked for membership
  log.query({ from: 'todos', where: { tags: 'x' } });
  // @ts-expect-error no such field to order by
  log.query({ from: 'todos', orderBy: [['nothing', 'asc']] });
  // @ts-expect-error no such direction
  log.query({ from: 'todos', orderBy: [['votes', 'up']] });
}

export async function listing(): Promise<void> {
  const entry = await log.entry('run-1');
  if (entry?.action === 'addTodo') entry.args?.title.length;
  // @ts-expect-error args depend on the action
  entry?.args.title;
  for (const { args } of await log.entries({ action: 'addTodo', status: ['stored', 'refused'] })) args?.title.length;
  // @ts-expect-error no such action
  await log.entries({ action: 'nothing' });
  const letter = log.deadLetters.getSnapshot()[0];
  if (letter?.action === 'toggle') letter.args?.id.length;
  if (letter?.action === 'addTodo') {
    const write = log.deadLetters.redrive(letter, { id: 'a', title: 'shorter' });
    await write.accepted;
    // @ts-expect-error edited args are of the letter's action
    log.deadLetters.redrive(letter, { id: 'a' });
  }
  if (letter !== undefined) {
    log.deadLetters.redrive(letter).id.length;
    log.deadLetters.discard(letter);
    letter.redriven satisfies boolean;
    letter.replaces?.length;
  }
  // @ts-expect-error any entry is not a dead letter
  if (entry !== undefined) log.deadLetters.redrive(entry);
  log.deadLetters.get('run-1')?.code.length;
  log.deadLetters.subscribe((letters) => letters.length.toFixed());
  log.deadLetters.export() satisfies string;
  log.outbox.subscribe(({ count }) => count.toFixed());
  log.status.getSnapshot().state satisfies string;
  client.connection.subscribe(({ state, retryAt }) => void [state === 'live', retryAt]);
}

export function failing(error: unknown): void {
  if (!(error instanceof DriftlogError)) return;
  if (error.code === 'no-such-record') error.details.id.length;
  // @ts-expect-error details depend on the code
  error.details.id;
  // @ts-expect-error the union of codes is closed
  if (error.code === 'nothing') return;
  // @ts-expect-error only this package makes them
  new DriftlogError('closed', { what: '' }, '');
}

const collections = { todos: collection({ done: register(false) }) };

defineLog('x', {
  collections,
  actions: {
    // @ts-expect-error a mutator is synchronous
    later: async (tx) => {
      tx.todos.insert('x');
    },
  },
});
defineLog('x', {
  collections,
  actions: {
    // @ts-expect-error a mutator returns no promise
    later: (tx, { id }: { id: string }) => Promise.resolve(tx.todos.insert(id)),
  },
});
defineLog('x', {
  collections,
  actions: { add: (tx) => void tx.todos.insert('x') },
  // @ts-expect-error options are of actions
  options: { nothing: {} },
});
// @ts-expect-error the name id is reserved
collection({ id: register('') });
// @ts-expect-error names that start with $ are reserved
collection({ $status: register('') });
// @ts-expect-error the names now and user are reserved for the transaction
defineLog('x', { collections: { now: collection({}) } });
