/** Drafts: what a mutator records, and what it sees of its own writes. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { WireOp, WireRow } from './boundary.js';
import type { FieldPath } from './draft/text.js';
import { type DraftSource, draftOps } from './draft.js';
import { DriftlogError, type ErrorCode } from './errors.js';
import { matches } from './filter.js';
import { collection, register, type Transaction } from './schema.js';
import { board } from './testing/board.js';

type Tx = Transaction<(typeof board)['collections']>;

const $ = { status: 'accepted', createdBy: 'bob', createdAt: 1, updatedAt: 1 } as const;
const rows: Record<string, WireRow[]> = {
  todos: [
    { id: 'a', title: 'A', done: false, votes: 3, tags: ['x'], note: 'hi 😀', $ },
    { id: 'b', title: 'B', done: true, votes: 0, tags: [], note: '', $ },
  ],
  head: [],
};

/** Texts that were read whole. */
let textsRead = 0;

function ops(run: (tx: Tx) => unknown): WireOp[] {
  const withoutTexts = ({ note: _, ...row }: WireRow): WireRow => row as WireRow;
  const find = (collection: string, id: string) => rows[collection]?.find((row) => row.id === id);
  const text = (...[collection, id, field]: FieldPath) => (find(collection, id)?.[field] ?? '') as string;
  const source: DraftSource = {
    read: (collection, id) => find(collection, id) && withoutTexts(find(collection, id)!),
    where: (collection, list) =>
      rows[collection]!.filter((row) => matches(list, (field) => row[field])).map(withoutTexts),
    text: (...field) => {
      textsRead++;
      return text(...field);
    },
    textLength: (...field) => text(...field).length,
    splitsCharacter: (at, ...field) => text(...field).codePointAt(at - 1)! > 0xffff,
  };
  return draftOps('act', board.collections, source, { now: 5, user: 'alice' }, (tx) => run(tx as Tx));
}

function throws(code: ErrorCode, run: (tx: Tx) => unknown): void {
  assert.throws(
    () => ops(run),
    (error) => error instanceof DriftlogError && error.code === code,
  );
}

test('an insert records the given fields, each with its strategy', () => {
  const recorded = ops((tx) =>
    tx.todos.insert('c', { title: 'C', votes: 2, tags: ['x', 'y'], note: 'n', due: undefined }),
  );
  assert.deepEqual(recorded, [
    [
      'insert',
      'todos',
      'c',
      [
        ['title', ['set', 'C']],
        ['votes', ['increment', 2]],
        ['tags', ['add', ['x', 'y']]],
        ['note', ['initial', 'n']],
      ],
    ],
  ]);
});

test('reads see earlier writes of the same action', () => {
  ops((tx) => {
    const c = tx.todos.insert('c', { title: 'C' });
    assert.equal(c.done, false);
    assert.equal(c.due, undefined);
    c.done = true;
    c.votes.increment(2);
    c.votes.increment();
    c.tags.add('z');
    c.note.insert(0, 'world');
    c.note.insert(0, 'hello ');
    const again = tx.todos.get('c');
    assert.equal(again.done, true);
    assert.equal(again.votes.value, 3);
    assert.deepEqual([...again.tags], ['z']);
    assert.equal(String(again.note), 'hello world');
    assert.deepEqual(
      tx.todos.where({ done: true }).map(({ id }) => id),
      ['b', 'c'],
    );
    assert.deepEqual(
      tx.todos.where({ votes: { gte: 3 }, tags: { has: 'z' } }).map(({ id }) => id),
      ['c'],
    );
    tx.todos.get('b').done = false;
    assert.equal(tx.todos.where({ done: true }).length, 1);
    tx.todos.delete('a');
    assert.equal(tx.todos.find('a'), undefined);
    assert.equal(tx.todos.has('a'), false);
  });
});

test('assigning a counter records the difference to what is shown', () => {
  const recorded = ops((tx) => {
    tx.todos.get('a').votes.value = 10;
  });
  assert.deepEqual(recorded, [['update', 'todos', 'a', 'votes', ['increment', 7]]]);
});

test('an absent value is written as null', () => {
  const recorded = ops((tx) => {
    tx.todos.get('a').due = undefined;
  });
  assert.deepEqual(recorded, [['update', 'todos', 'a', 'due', ['set', null]]]);
});

test('a set records only removals of what it shows', () => {
  const recorded = ops((tx) => {
    const { tags } = tx.todos.get('a');
    assert.equal(tags.delete('nothing'), false);
    assert.equal(tags.delete('x'), true);
    assert.equal(tags.size, 0);
  });
  assert.deepEqual(recorded, [['update', 'todos', 'a', 'tags', ['remove', ['x']]]]);
});

test('a single is there without an insert, and its writes are inserts', () => {
  const recorded = ops((tx) => {
    assert.equal(tx.head.name, 'untitled');
    tx.head.name = 'mine';
    assert.equal(tx.head.name, 'mine');
  });
  assert.deepEqual(recorded, [['insert', 'head', '', [['name', ['set', 'mine']]]]]);
});

test('text positions are UTF-16 code units inside of the text and between characters', () => {
  const recorded = ops((tx) => {
    const { note } = tx.todos.get('a');
    note.splice(3, 2, 'you');
    assert.equal(String(note), 'hi you');
  });
  assert.deepEqual(recorded, [['update', 'todos', 'a', 'note', ['text', [[3, 2, 'you']]]]]);
  throws('bad-position', (tx) => tx.todos.get('a').note.insert(6, 'x'));
  throws('bad-position', (tx) => tx.todos.get('a').note.insert(4, 'x'));
  throws('bad-position', (tx) => tx.todos.get('a').note.insert(-1, 'x'));
  throws('bad-position', (tx) => tx.todos.get('a').note.delete(1, -1));
  throws('bad-position', (tx) => tx.todos.get('a').note.delete(0, 4));
});

test('splices in a row become one op', () => {
  const recorded = ops((tx) => {
    const { note } = tx.todos.get('b');
    note.insert(0, 'a');
    note.insert(1, 'b');
    tx.todos.get('a').done = true;
    note.delete(0, 2);
  });
  assert.deepEqual(recorded, [
    [
      'update',
      'todos',
      'b',
      'note',
      [
        'text',
        [
          [0, 0, 'a'],
          [1, 0, 'b'],
        ],
      ],
    ],
    ['update', 'todos', 'a', 'done', ['set', true]],
    ['update', 'todos', 'b', 'note', ['text', [[0, 2, '']]]],
  ]);
});

test('typing reads no text as a whole, whatever the action typed before', () => {
  textsRead = 0;
  const recorded = ops((tx) => {
    const { note } = tx.todos.get('a');
    assert.equal(note.length, 5);
    note.insert(3, 'x😀y');
    note.splice(3, 1, '');
    note.delete(0, 2);
    assert.equal(note.length, 6);
    for (const inside of [2, 5]) assert.throws(() => note.insert(inside, '-'), DriftlogError);
    for (const outside of [-1, 7]) assert.throws(() => note.insert(outside, '-'), DriftlogError);
    for (const at of [0, 1, 3, 4, 6]) note.insert(at, '');
    note.insert(4, '!');
  });
  assert.equal(textsRead, 0);
  const splices = [[3, 0, 'x😀y'], [3, 1, ''], [0, 2, ''], [4, 0, '!']];
  assert.deepEqual(recorded, [['update', 'todos', 'a', 'note', ['text', splices]]]);
  ops((tx) => {
    const { note } = tx.todos.get('a');
    note.insert(3, 'x😀y');
    note.splice(3, 1, '');
    assert.equal(String(note), 'hi 😀y😀');
    note.delete(0, 3);
    assert.equal(String(note), '😀y😀');
    tx.todos.delete('a');
    assert.equal(String(note), '');
  });
  assert.equal(textsRead, 1, 'once for an action that asks for the whole');
});

test('inserting where the record exists replaces the content of its text', () => {
  const recorded = ops((tx) => tx.todos.insert('a', { note: 'new' }));
  assert.deepEqual(recorded, [
    ['insert', 'todos', 'a', []],
    ['update', 'todos', 'a', 'note', ['text', [[0, 5, 'new']]]],
  ]);
});

test('a record that was deleted and inserted again starts from defaults', () => {
  ops((tx) => {
    tx.todos.delete('a');
    const a = tx.todos.insert('a');
    assert.equal(a.votes.value, 0);
    assert.equal(a.title, '');
  });
});

test('a delete says what the collection declares for unseen changes', () => {
  const source: DraftSource = {
    read: (_, id) => ({ id, $ }) as WireRow,
    where: () => [],
    text: () => '',
    textLength: () => 0,
    splitsCharacter: () => false,
  };
  const fields = { title: register('') };
  const collections = {
    gone: collection(fields),
    back: collection(fields, { onDelete: 'update-wins' }),
  };
  const recorded = draftOps('act', collections, source, { now: 5, user: undefined }, (tx) => {
    const { gone, back } = tx as Transaction<typeof collections>;
    gone.delete('a');
    back.delete('b');
  });
  assert.deepEqual(recorded, [
    ['delete', 'gone', 'a'],
    ['delete', 'back', 'b', 'update-wins'],
  ]);
  assert.throws(
    () => collection(fields, { onDelete: 'nobody-wins' as 'update-wins' }),
    (error) => error instanceof DriftlogError && error.code === 'bad-value',
  );
});

test('deleting what is not there records nothing', () => {
  assert.deepEqual(
    ops((tx) => assert.equal(tx.todos.delete('zz'), false)),
    [],
  );
});

test('what cannot be done throws a typed error', () => {
  throws('no-such-record', (tx) => tx.todos.get('zz'));
  throws('bad-value', (tx) => tx.todos.insert(''));
  throws('bad-value', (tx) => tx.todos.insert('c', { title: '\ud800' }));
  throws('bad-value', (tx) => tx.todos.get('a').votes.increment(0.5));
  throws('bad-value', (tx) => tx.todos.insert('c', { nothing: 1 } as never));
  throws('bad-query', (tx) => tx.todos.where({ nothing: 1 } as never));
  throws('mutator-async', () => Promise.resolve());
  throws('no-such-record', (tx) => {
    const a = tx.todos.get('a');
    tx.todos.delete('a');
    a.done = true;
  });
});

test('a draft cannot be used after its mutator', () => {
  let kept: Tx | undefined;
  ops((tx) => void (kept = tx));
  for (const use of [() => kept!.todos.insert('x'), () => kept!.todos.find('a'), () => kept!.head.name]) {
    assert.throws(use, (error) => error instanceof DriftlogError && error.code === 'draft-closed');
  }
});

test('the transaction has the time and the user', () => {
  ops((tx) => assert.deepEqual([tx.now, tx.user], [5, 'alice']));
});
