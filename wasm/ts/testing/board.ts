/** The log that tests of this folder work on, and a client on the fake engine. */

import { type Client, type ClientOptions, openClient } from '../client.js';
import { collection, counter, defineLog, optional, register, set, single, text } from '../schema.js';
import { FakeEngine, FakeServer, fakeEngines } from './engine.js';

export const board = defineLog('board/:id', {
  collections: {
    todos: collection({
      title: register<string>(''),
      done: register(false),
      due: optional<number>(),
      votes: counter(),
      tags: set<string>(),
      note: text(),
    }),
    head: single({ name: register<string>('untitled') }),
  },
  actions: {
    addTodo: (tx, { id, title }: { id: string; title: string }) => {
      tx.todos.insert(id, { title });
    },
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
    rename: (tx, { name }: { name: string }) => {
      tx.head.name = name;
    },
    type: (tx, { id, at, s }: { id: string; at: number; s: string }) => {
      tx.todos.get(id).note.insert(at, s);
    },
    fail: (tx) => {
      tx.todos.insert('never', { title: 'never' });
      throw new RangeError('of the app');
    },
  },
  options: { type: { args: 'omit' } },
});

export { FakeEngine, FakeServer };

/** A client of a fake server, and its engine. */
export async function clientOf(
  server: FakeServer,
  options: Partial<ClientOptions> = {},
): Promise<{ client: Client; engine: FakeEngine }> {
  const engines: FakeEngine[] = [];
  const client = await openClient(fakeEngines(server, engines), { name: 'alice', ...options });
  return { client, engine: engines[0]! };
}

/** Lets everything that is under way in this process come to rest. */
export function quiet(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
