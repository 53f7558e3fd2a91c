/** The demo as a new user tries it: both devices offline, one reloaded with the server stopped, then both online. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { join } from 'node:path';
import { demoFolder } from '../commands/build.mjs';
import { root } from '../commands/run.mjs';
import { startBrowser } from './harness/browser.mjs';
import { startServer } from './harness/server.mjs';
import { eventually } from './harness/story.mjs';

/** One of the two devices on the page. */
function panelOf(page, key) {
  const panel = page.locator(`[data-device=${key}]`);
  const item = (title) => panel.locator('li', { has: page.getByLabel(`Done: ${title}`) });
  return {
    async add(title) {
      await panel.getByLabel('New to-do').fill(title);
      await panel.getByRole('button', { name: 'Add', exact: true }).click();
      await item(title).waitFor();
    },
    async vote(title) {
      await item(title).locator('button.vote').click();
    },
    async tag(title, tag) {
      await item(title).locator('.new-tag').fill(tag);
      await item(title).locator('.new-tag').press('Enter');
    },
    async write(words) {
      await panel.locator('textarea').click();
      await panel.locator('textarea').press('End');
      await panel.locator('textarea').pressSequentially(words);
    },
    switchNetwork: () => panel.getByRole('switch').click(),
    waiting: async () => Number(await panel.getAttribute('data-waiting')),
    /** Everything is durable here, so that a reload loses nothing. */
    stored: () => eventually(async () => assert.equal(await panel.locator('.status.pending').count(), 0)),
    board: async () => ({
      todos: await panel.locator('li[data-id]').evaluateAll((items) =>
        items.map((item) => ({
          title: item.querySelector('.title').value,
          votes: item.querySelector('.vote span').textContent,
          tags: [...item.querySelectorAll('.tag')].map((tag) => tag.textContent),
        })),
      ),
      note: await panel.locator('textarea').inputValue(),
    }),
  };
}

test('a device that the server downgraded comes back, with what it did meanwhile on top', async (t) => {
  const server = await startServer({ staticFolder: demoFolder });
  t.after(() => server.kill());
  const device = await startBrowser();
  t.after(() => device.kill());
  const page = await device.open(`http://127.0.0.1:${server.port}/`);
  const [a, b] = [panelOf(page, 'a'), panelOf(page, 'b')];
  await a.add('together');
  await eventually(async () => assert.equal((await b.board()).todos.length, 1));
  const panel = page.locator('[data-device=a]');
  await panel.getByRole('button', { name: 'Let the server forget this device' }).click();
  await panel.getByText('Inactive: the server keeps nothing for this device, because somebody asked for that.').waitFor();
  const listed = await (await fetch(`http://127.0.0.1:${server.port}/connections`)).json();
  assert.deepEqual(
    listed.connections.map(({ device, state, reason }) => [device, state, reason]).sort(),
    [
      ['Device A', 'inactive', 'asked'],
      ['Device B', 'active', null],
    ],
  );
  // Both go on meanwhile, and each counts once.
  await a.vote('together');
  await b.vote('together');
  await a.add('made while inactive');
  assert.equal(await a.waiting(), 2);
  await panel.getByText('Connected and active again').waitFor();
  const both = [a, b];
  await eventually(async () => {
    for (const one of both) {
      assert.deepEqual(
        (await one.board()).todos.map(({ title, votes }) => [title, votes]),
        [
          ['together', '2'],
          ['made while inactive', '0'],
        ],
      );
    }
  });
  assert.equal(await a.waiting(), 0);
});

test('two devices act offline, one is reloaded with the server stopped, and both end with the same board', async (t) => {
  const server = await startServer({ staticFolder: demoFolder });
  t.after(() => server.kill());
  const device = await startBrowser();
  t.after(() => device.kill());
  const page = await device.open(`http://127.0.0.1:${server.port}/`);
  await page.getByText('Ready: this page opens without a network too.').waitFor();
  const [a, b] = [panelOf(page, 'a'), panelOf(page, 'b')];
  await a.add('together');
  await eventually(async () => assert.equal((await b.board()).todos.length, 1));
  await a.switchNetwork();
  await b.switchNetwork();
  await a.add('from a');
  await b.add('from b');
  await a.vote('together');
  await a.vote('together');
  await b.vote('together');
  await a.tag('together', 'red');
  await b.tag('together', 'blue');
  await a.write('written on a. ');
  await b.write('written on b. ');
  assert.ok((await a.waiting()) > 0);
  await a.stored();
  await b.stored();
  await server.stop();
  await page.reload();
  await eventually(async () => assert.equal((await a.board()).todos.length, 2));
  assert.deepEqual((await a.board()).todos.map(({ title, votes }) => [title, votes]), [['together', '2'], ['from a', '0']]);
  assert.equal((await a.board()).note, 'written on a. ');
  await server.start();
  await a.switchNetwork();
  await b.switchNetwork();
  await eventually(async () => {
    const [boardA, boardB] = [await a.board(), await b.board()];
    assert.equal(boardA.todos.length, 3);
    assert.deepEqual(boardB, boardA);
  }, 60_000);
  const { todos, note } = await a.board();
  const together = todos.find(({ title }) => title === 'together');
  assert.equal(together.votes, '3');
  assert.deepEqual(together.tags, ['blue', 'red']);
  assert.ok(note.includes('written on a. ') && note.includes('written on b. '), note);
  assert.deepEqual(device.uncaught, []);
});

test('the demo opens with every action while the browser is offline', async (t) => {
  const server = await startServer({ staticFolder: demoFolder });
  t.after(() => server.kill());
  const device = await startBrowser();
  t.after(() => device.kill());
  const page = await device.open(`http://127.0.0.1:${server.port}/`);
  await page.getByText('Ready: this page opens without a network too.').waitFor();
  const a = panelOf(page, 'a');
  await a.add('before');
  await device.context.setOffline(true);
  await a.add('without a network');
  await a.stored();
  await page.reload();
  await eventually(async () => assert.deepEqual((await a.board()).todos.map(({ title }) => title), ['before', 'without a network']));
});

test('a refused action is kept over a reload, edited, tried again and taken', async (t) => {
  const server = await startServer({ staticFolder: demoFolder, args: ['--rules', join(root, 'web-demo', 'rules.json')] });
  t.after(() => server.kill());
  const device = await startBrowser();
  t.after(() => device.kill());
  const page = await device.open(`http://127.0.0.1:${server.port}/`);
  const [a, b] = [panelOf(page, 'a'), panelOf(page, 'b')];
  const refused = page.locator('[data-device=a]').getByRole('region', { name: 'Refused actions' });
  await a.add('milk');
  const field = page.locator('[data-device=a]').getByLabel('New to-do');
  await field.fill('far too long '.repeat(10));
  await field.press('Enter');
  await refused.getByText('a title has at most 120 characters').waitFor();
  await eventually(async () => assert.deepEqual((await a.board()).todos.map(({ title }) => title), ['milk'], 'gone from the view'));
  await page.reload();
  await refused.getByText('a title has at most 120 characters').waitFor();
  await refused.getByLabel('Change it').fill('short enough');
  await refused.getByRole('button', { name: 'Try again as edited' }).click();
  await eventually(async () => assert.deepEqual((await b.board()).todos.map(({ title }) => title), ['milk', 'short enough']));
  await refused.waitFor({ state: 'hidden' });
  await page.reload();
  await eventually(async () => assert.equal((await a.board()).todos.length, 2));
  assert.equal(await refused.isVisible(), false, 'it does not come back');
  await field.fill('too long again '.repeat(10));
  await field.press('Enter');
  await refused.getByRole('button', { name: 'Discard' }).click();
  await refused.waitFor({ state: 'hidden' });
  assert.equal((await b.board()).todos.length, 2);
  assert.deepEqual(device.uncaught, []);
});

test('a poison is set aside by the activity, in words, while the board goes on', async (t) => {
  const server = await startServer({ staticFolder: demoFolder });
  t.after(() => server.kill());
  const device = await startBrowser();
  t.after(() => device.kill());
  const page = await device.open(`http://127.0.0.1:${server.port}/`);
  const [a, b] = [panelOf(page, 'a'), panelOf(page, 'b')];
  const activityOf = (key) => page.locator(`[data-device=${key}]`).getByRole('region', { name: 'Activity' });
  const asideOf = (key) => activityOf(key).getByRole('region', { name: 'Set aside by the activity' });
  await a.add('milk');
  await activityOf('a').getByRole('button', { name: 'Plant a poison' }).click();
  await activityOf('b').getByText('This view cannot take an action.').waitFor();
  await a.vote('milk');
  for (const key of ['a', 'b']) {
    await asideOf(key).getByText('cheer “inscrutable”, at 1 in the log').waitFor();
    await asideOf(key).getByText("TypeError: Cannot read properties of undefined (reading 'face')").waitFor();
    await activityOf(key).getByText('2 actions so far.').waitFor();
  }
  await b.add('tea');
  await eventually(async () => assert.deepEqual((await a.board()).todos.map(({ title, votes }) => [title, votes]), [['milk', '1'], ['tea', '0']]));
  await activityOf('a').getByText('3 actions so far.').waitFor();
  await page.reload();
  await asideOf('a').getByText('cheer “inscrutable”, at 1 in the log').waitFor();
  await asideOf('a').getByRole('button', { name: 'Try again' }).click();
  await asideOf('a').getByText('cheer “inscrutable”, at 1 in the log').waitFor();
  await activityOf('a').getByText('3 actions so far.').waitFor();
  await asideOf('a').getByRole('button', { name: 'Discard' }).click();
  await asideOf('a').waitFor({ state: 'hidden' });
  assert.ok(await asideOf('b').isVisible(), 'each device decides for its own view');
  assert.equal((await a.board()).todos.length, 2);
  assert.deepEqual(device.uncaught, []);
});
