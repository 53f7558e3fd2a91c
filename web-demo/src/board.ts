/** What a board holds, and what people do with it. This file is all that an app has to say about sync. */

import { collection, counter, defineLog, type Log, register, type RowIn, set, single, text } from 'driftlog';

export const board = defineLog('board/:id', {
  collections: {
    todos: collection({
      title: register<string>(''),
      done: register(false),
      votes: counter(),
      tags: set<string>(),
      addedAt: register(0),
    }),
    head: single({ name: register<string>('Our board'), note: text() }),
  },
  actions: {
    addTodo: (tx, { id, title }: { id: string; title: string }) => {
      tx.todos.insert(id, { title, addedAt: tx.now });
    },
    retitle: (tx, { id, title }: { id: string; title: string }) => {
      tx.todos.get(id).title = title;
    },
    toggle: (tx, { id }: { id: string }) => {
      const todo = tx.todos.get(id);
      todo.done = !todo.done;
    },
    vote: (tx, { id }: { id: string }) => {
      tx.todos.get(id).votes.increment();
    },
    tag: (tx, { id, tag }: { id: string; tag: string }) => {
      tx.todos.get(id).tags.add(tag);
    },
    untag: (tx, { id, tag }: { id: string; tag: string }) => {
      tx.todos.get(id).tags.delete(tag);
    },
    remove: (tx, { id }: { id: string }) => {
      tx.todos.delete(id);
    },
    clearDone: (tx) => {
      for (const todo of tx.todos.where({ done: true })) tx.todos.delete(todo.id);
    },
    renameBoard: (tx, { name }: { name: string }) => {
      tx.head.name = name;
    },
    /** Changes nothing: it is in the log, for whoever folds it. */
    cheer: (_tx, _mood: { mood: string }) => {},
    writeNote: (tx, { at, deleted, inserted }: Splice) => {
      tx.head.note.splice(at, deleted, inserted);
    },
  },
  // What was typed is in the text: keeping each keystroke's arguments too would double it.
  options: { writeNote: { args: 'omit' } },
});

/** One change of a text, in UTF-16 code units. */
export interface Splice {
  readonly at: number;
  readonly deleted: number;
  readonly inserted: string;
}

export type BoardLog = Log<typeof board>;
export type Todo = RowIn<(typeof board)['collections'], 'todos'>;
