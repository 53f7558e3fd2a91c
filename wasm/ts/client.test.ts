/** The client on an engine in memory: actions, queries, verdicts, closing. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DriftlogError, type ErrorCode } from './errors.js';
import { collection, defineLog, logName, register, set, text } from './schema.js';
import { board, clientOf, FakeServer, quiet } from './testing/board.js';

function is(code: ErrorCode): (error: unknown) => boolean {
  return (error) => error instanceof DriftlogError && error.code === code;
}

test('an action shows in the same tick, is stored, and is accepted', async () => {
  const { client } = await clientOf(new FakeServer());
  const log = await client.open(board, { id: '1' });
  const titles: string[][] = [];
  log.query({ from: 'todos' }).subscribe((rows) => titles.push(rows.map(({ title, $ }) => `${title} ${$.status}`)));
  const write = log.do.addTodo({ id: 'a', title: 'x' });
  assert.deepEqual(titles, [[], ['x pending']]);
  await write.stored;
  const { offset, author, outcome } = await write.accepted;
  assert.deepEqual({ offset, author, outcome }, { offset: 0, author: 'alice', outcome: 'applied' });
  await quiet();
  assert.deepEqual(titles.at(-1), ['x accepted']);
  const entry = await log.entry(write.id);
  assert.equal(entry?.status, 'accepted');
  assert.deepEqual(entry?.args, { id: 'a', title: 'x' });
  await client.close();
});

test('two devices converge, also after acting offline', async () => {
  const server = new FakeServer();
  const [a, b] = [await clientOf(server, { name: 'a' }), await clientOf(server, { name: 'b' })];
  const [atA, atB] = [await a.client.open(board, { id: '1' }), await b.client.open(board, { id: '1' })];
  await atA.do.addTodo({ id: 't', title: 'both' }).accepted;
  await quiet();
  a.client.disconnect();
  await quiet();
  assert.equal(a.client.connection.getSnapshot().state, 'offline');
  atA.do.vote({ id: 't' });
  atB.do.vote({ id: 't' });
  await quiet();
  assert.equal(atA.outbox.getSnapshot().count, 1);
  a.client.connect();
  await quiet();
  for (const log of [atA, atB]) assert.equal(log.query({ from: 'todos' }).getSnapshot()[0]?.votes, 2);
  assert.equal(atA.outbox.getSnapshot().count, 0);
});

test('a throwing mutator throws from do and records nothing', async () => {
  const { client } = await clientOf(new FakeServer());
  const log = await client.open(board, { id: '1' });
  const rows = log.query({ from: 'todos' });
  assert.throws(() => log.do.fail(), /of the app/);
  assert.throws(() => log.do.toggle({ id: 'zz' }), is('no-such-record'));
  assert.throws(() => log.do.addTodo({ id: 'a', title: 3n as never }), is('bad-value'));
  assert.deepEqual(rows.getSnapshot(), []);
  assert.deepEqual(await log.entries(), []);
  log.do.addTodo({ id: 'a', title: 'x' });
  assert.equal(rows.getSnapshot().length, 1);
});

test('a refused action leaves the view, rejects accepted and becomes a dead letter', async () => {
  const server = new FakeServer();
  server.policy = ({ action }) => (action === 'vote' ? 'not-allowed' : undefined);
  const { client } = await clientOf(server);
  const log = await client.open(board, { id: '1' });
  await log.do.addTodo({ id: 'a', title: 'x' }).accepted;
  const write = log.do.vote({ id: 'a' });
  await assert.rejects(write.accepted, is('not-allowed'));
  await write.stored;
  await quiet();
  assert.equal(log.query({ from: 'todos' }).getSnapshot()[0]?.votes, 0);
  const [letter] = log.deadLetters.getSnapshot();
  assert.equal(letter?.writeId, write.id);
  assert.equal(letter?.code, 'not-allowed');
  assert.deepEqual((await log.entries({ status: 'refused' })).length, 1);
  assert.deepEqual((await log.entries({ action: 'addTodo' })).length, 1);
});

test('a new dead letter is read without those before it', async () => {
  const server = new FakeServer();
  server.policy = () => 'not-allowed';
  const { client } = await clientOf(server);
  const log = await client.open(board, { id: '1' });
  const refuse = async (id: string) => {
    await assert.rejects(log.do.addTodo({ id, title: id }).accepted, is('not-allowed'));
    await quiet();
    return log.deadLetters.getSnapshot();
  };
  const [first] = await refuse('a');
  const both = await refuse('b');
  assert.deepEqual(both.map(({ args }) => (args as { id: string }).id), ['a', 'b']);
  assert.equal(both[0], first, 'the same object, since nothing of it was read again');
  log.deadLetters.discard(both[0]!);
  await quiet();
  assert.deepEqual(log.deadLetters.getSnapshot().map(({ writeId }) => writeId), [both[1]!.writeId]);
});

test('a query that keeps refused rows shows them marked, beside one that does not', async () => {
  const server = new FakeServer();
  server.policy = ({ args }) => ((args as { title: string }).title.length > 5 ? 'not-allowed' : undefined);
  const { client } = await clientOf(server);
  const log = await client.open(board, { id: '1' });
  const [hiding, keeping] = [log.query({ from: 'todos' }), log.query({ from: 'todos', refused: 'keep' })];
  assert.notEqual(hiding, keeping);
  assert.equal(log.query({ from: 'todos', refused: 'hide' }), hiding);
  const told: (string | undefined)[] = [];
  keeping.subscribe(([row]) => told.push(row && `${row.title} ${row.$.status} ${row.$.code} ${row.$.reason}`));
  const write = log.do.addTodo({ id: 'a', title: 'far too long' });
  await assert.rejects(write.accepted, is('not-allowed'));
  await quiet();
  assert.deepEqual(hiding.getSnapshot(), []);
  assert.equal(told[1], 'far too long pending undefined undefined');
  assert.equal(told.at(-1), 'far too long refused not-allowed by policy');
  log.deadLetters.redrive(log.deadLetters.get(write.id)!, { id: 'a', title: 'short' });
  assert.match(told.at(-1) ?? '', /^short pending undefined/);
  assert.throws(() => log.query({ from: 'todos', refused: 'burn' as never }), is('bad-query'));
});

test('a dead letter is redriven with other arguments, once, and goes when the replacement is accepted', async () => {
  const server = new FakeServer();
  server.policy = ({ args }) => ((args as { title: string }).title.length > 5 ? 'not-allowed' : undefined);
  const { client } = await clientOf(server);
  const log = await client.open(board, { id: '1' });
  const write = log.do.addTodo({ id: 'a', title: 'far too long' });
  await assert.rejects(write.accepted, is('not-allowed'));
  await quiet();
  const letter = log.deadLetters.get(write.id);
  assert.ok(letter?.action === 'addTodo' && letter.args?.title === 'far too long');
  assert.equal(JSON.parse(log.deadLetters.export()).letters[0].args.title, 'far too long');
  const again = log.deadLetters.redrive(letter, { id: 'a', title: 'short' });
  assert.equal(log.query({ from: 'todos' }).getSnapshot()[0]?.title, 'short', 'in view before the call returns');
  assert.throws(() => log.deadLetters.redrive(letter), is('already-redriven'));
  await again.accepted;
  await quiet();
  assert.deepEqual(log.deadLetters.getSnapshot(), []);
  assert.throws(() => log.deadLetters.discard(letter), is('no-such-dead-letter'));
});

test('rejections that nobody awaits are not unhandled', async () => {
  const unhandled: unknown[] = [];
  const hear = (error: unknown): void => void unhandled.push(error);
  process.on('unhandledRejection', hear);
  const server = new FakeServer();
  server.policy = () => 'not-allowed';
  const { client, engine } = await clientOf(server);
  const log = await client.open(board, { id: '1' });
  void log.do.addTodo({ id: 'a', title: 'x' }).accepted;
  engine.appendFailure = 'storage-full';
  const write = log.do.addTodo({ id: 'b', title: 'x' });
  void write.stored;
  await quiet();
  await assert.rejects(write.accepted, is('storage-full'));
  assert.deepEqual(log.query({ from: 'todos' }).getSnapshot(), []);
  await client.close();
  process.off('unhandledRejection', hear);
  assert.deepEqual(unhandled, []);
});

test('unchanged rows keep their identity and equal queries share one view', async () => {
  const { client, engine } = await clientOf(new FakeServer());
  const log = await client.open(board, { id: '1' });
  for (const id of ['a', 'b', 'c']) log.do.addTodo({ id, title: id });
  await quiet();
  const query = log.query({ from: 'todos', where: { done: false }, orderBy: [['title', 'desc']] });
  assert.equal(query, log.query({ from: 'todos', where: { done: false }, orderBy: [['title', 'desc']] }));
  const before = query.getSnapshot();
  assert.equal(query.getSnapshot(), before);
  const kinds: string[] = [];
  const stop = query.subscribe((_, patches) => kinds.push(patches.map(({ kind, index }) => `${kind} ${index}`).join()));
  log.do.toggle({ id: 'b' });
  const after = query.getSnapshot();
  assert.deepEqual(kinds, ['', 'remove 1']);
  assert.notEqual(after, before);
  assert.equal(after[0], before[0]);
  assert.equal(after[1], before[2]);
  assert.equal(engine.activeQueries(0), 1);
  stop();
  log.close();
});

test('a value of a row that did not change is the same object, whatever else of the row does', async () => {
  const fields = { place: register({ city: '' }), tags: set<string>(), title: register('') };
  const places = defineLog('places/:id', {
    collections: { plain: collection(fields), noted: collection({ ...fields, note: text() }) },
    actions: {
      put: (tx, { id }: { id: string }) => {
        for (const rows of [tx.plain, tx.noted]) rows.insert(id, { place: { city: 'Ghent' }, tags: ['quiet'] });
      },
      retitle: (tx, { id, title }: { id: string; title: string }) => {
        for (const rows of [tx.plain, tx.noted]) rows.get(id).title = title;
      },
    },
  });
  const { client } = await clientOf(new FakeServer());
  const log = await client.open(places, { id: '1' });
  log.do.put({ id: 'a' });
  for (const from of ['plain', 'noted'] as const) {
    const query = log.query({ from });
    const [before] = query.getSnapshot();
    log.do.retitle({ id: 'a', title: `the ${from} one` });
    const [after] = query.getSnapshot();
    assert.deepEqual([after?.title, after?.place, after?.tags], [`the ${from} one`, { city: 'Ghent' }, ['quiet']]);
    assert.equal(after?.place, before?.place, from);
    assert.equal(after?.tags, before?.tags, from);
    assert.notEqual(after, before);
  }
});

test('a keystroke tells the splice of its text and leaves the other fields what they were', async () => {
  const { client, engine } = await clientOf(new FakeServer());
  const log = await client.open(board, { id: '1' });
  log.do.addTodo({ id: 'a', title: 'x' });
  log.do.type({ id: 'a', at: 0, s: 'hello' });
  const query = log.query({ from: 'todos' });
  const before = query.getSnapshot()[0];
  let told: unknown;
  query.subscribe((_, patches) => (told = patches));
  log.do.type({ id: 'a', at: 5, s: ' 😀' });
  const after = query.getSnapshot()[0];
  assert.equal(after?.note, 'hello 😀');
  assert.equal(after.tags, before?.tags);
  assert.equal(before?.note, 'hello', 'a row that was given never changes');
  assert.ok(Object.isFrozen(after) && Object.isFrozen(after.$));
  const note = [{ at: 5, deleted: 0, inserted: ' 😀' }];
  assert.deepEqual(told, [{ kind: 'update', index: 0, row: after, splices: { note } }]);
  assert.throws(() => log.do.type({ id: 'a', at: 7, s: '-' }), is('bad-position'));
  log.do.vote({ id: 'a' });
  assert.equal(query.getSnapshot()[0]?.note, 'hello 😀');
  assert.deepEqual(told, [{ kind: 'update', index: 0, row: query.getSnapshot()[0] }], 'no text changed');
  assert.equal(engine.textsRead, 0);
});

test('a listener that acts is called once more, with everything', async () => {
  const { client } = await clientOf(new FakeServer());
  const log = await client.open(board, { id: '1' });
  const lengths: number[] = [];
  log.query({ from: 'todos' }).subscribe((rows) => {
    lengths.push(rows.length);
    if (rows.length === 1) log.do.addTodo({ id: 'second', title: '2' });
  });
  log.do.addTodo({ id: 'first', title: '1' });
  assert.deepEqual(lengths, [0, 1, 2]);
});

test('a single shows its defaults before it is written', async () => {
  const { client } = await clientOf(new FakeServer());
  const log = await client.open(board, { id: '1' });
  const names: (string | undefined)[] = [];
  log
    .query({ from: 'head' })
    .subscribe(([head], patches) => names.push(`${head?.name} ${patches.map(({ kind }) => kind)}`));
  log.do.rename({ name: 'mine' });
  assert.deepEqual(names, ['untitled ', 'mine update']);
});

test('arguments are recorded unless switched off', async () => {
  const { client } = await clientOf(new FakeServer());
  const log = await client.open(board, { id: '1' });
  log.do.addTodo({ id: 'a', title: 'x' });
  const write = log.do.type({ id: 'a', at: 0, s: 'hello' });
  assert.equal((await log.entry(write.id))?.args, undefined);
  assert.equal(log.query({ from: 'todos' }).getSnapshot()[0]?.note, 'hello');
});

test('an action cannot be called from within a mutator', async () => {
  const { client } = await clientOf(new FakeServer());
  let inner: () => unknown = () => {};
  const nested = defineLog('nested', {
    collections: { a: collection({}) },
    actions: { outer: () => void inner(), other: () => {} },
  });
  const log = await client.open(nested);
  inner = () => log.do.other();
  assert.throws(() => log.do.outer(), is('draft-closed'));
  inner = () => {};
  log.do.outer();
});

test('one log has one definition per client, and a closed one can be opened again', async () => {
  const { client } = await clientOf(new FakeServer());
  const log = await client.open(board, { id: 'a' });
  assert.equal(await client.open(board, { id: 'a' }), log);
  const other = defineLog('board/:id', { collections: {} });
  await assert.rejects(client.open(other, { id: 'a' }), is('already-open'));
  log.close();
  assert.throws(() => log.do.clearDone(), is('closed'));
  assert.throws(() => log.query({ from: 'todos' }), is('closed'));
  assert.notEqual(await client.open(board, { id: 'a' }), log);
  await client.close();
  await assert.rejects(client.open(board, { id: 'a' }), is('closed'));
  assert.equal(client.connection.getSnapshot().state, 'closed');
});

test('closing rejects what waits', async () => {
  const server = new FakeServer();
  server.up = false;
  const { client } = await clientOf(server);
  const log = await client.open(board, { id: '1' });
  const write = log.do.addTodo({ id: 'a', title: 'x' });
  await write.stored;
  await client.close();
  await assert.rejects(write.accepted, is('closed'));
});

test('the token is given when it is wanted', async () => {
  const reasons: string[] = [];
  const { client, engine } = await clientOf(new FakeServer(), { token: (reason) => (reasons.push(reason), 'secret') });
  const given: (string | undefined)[] = [];
  engine.setToken = (...tokens: string[]) => void given.push(...tokens);
  engine.tell(['token-wanted', 'token-expired']);
  await quiet();
  assert.deepEqual([reasons, given], [['token-expired'], ['secret']]);
  await client.close();
});

test('names of logs are filled and encoded', () => {
  assert.equal(logName('a/:b/c', { b: 'x y/z' }), 'a/x%20y%2Fz/c');
  assert.equal(logName('a/:b', { b: 7 }), 'a/7');
  for (const b of [undefined, '', null, {}, Number.NaN, '\ud800'])
    assert.throws(() => logName('a/:b', { b }), is('bad-param'));
  assert.throws(() => logName('a/:toString', {}), is('bad-param'));
});

test('reserved names are refused', () => {
  const fields = (name: string): object => ({ [name]: register('') });
  for (const name of ['id', '$status', '', '__proto__x'.slice(0, 0)]) {
    assert.throws(() => defineLog('x', { collections: { todos: collection(fields(name) as never) } }), is('bad-name'));
  }
  for (const name of ['now', 'user', '$x'])
    assert.throws(() => defineLog('x', { collections: { [name]: collection({}) } as never }), is('bad-name'));
  assert.throws(() => defineLog('', { collections: {} }), is('bad-name'));
});

test('at the bound of its backlog a log takes no more work until the server has answered', async () => {
  const { client, engine } = await clientOf(new FakeServer(), { backlog: { count: 2 } });
  const log = await client.open(board, { id: '1' });
  client.disconnect();
  await quiet();
  const states: string[] = [];
  log.pressure.subscribe(({ state, count }) => states.push(`${state} ${count}`));
  log.do.addTodo({ id: 'a', title: 'a' });
  log.do.addTodo({ id: 'b', title: 'b' });
  assert.throws(() => log.do.addTodo({ id: 'c', title: 'c' }), is('backlog-full'));
  assert.equal(log.query({ from: 'todos' }).getSnapshot().length, 2);
  const { reason, bytes, log: about } = log.pressure.getSnapshot();
  assert.deepEqual({ reason, bytes, about }, {
    reason: '2 actions (20 bytes) wait for the server, and board/1 may keep no more',
    bytes: 20,
    about: 'board/1',
  });
  client.connect();
  await quiet();
  log.do.addTodo({ id: 'c', title: 'c' });
  assert.deepEqual(states, ['none 0', 'none 1', 'full 2', 'none 0', 'none 1']);
  engine.tell(['pressure', { level: 'waiting', log: 'board/1', count: 1, bytes: 10 }]);
  await quiet();
  const all = client.pressure.getSnapshot();
  assert.equal(all.reason, 'the server takes no more for now: 1 action (10 bytes) wait on this device');
  assert.deepEqual([all.state, all.count, all.log], ['waiting', 1, 'board/1']);
});

test('a bound that is no whole number is an error of the call', async () => {
  for (const backlog of [{ count: 0 }, { bytes: 1.5 }, { bytes: NaN }])
    await assert.rejects(clientOf(new FakeServer(), { backlog }), is('bad-value'));
});
