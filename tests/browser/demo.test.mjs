/** The demo as a new user tries it: both devices offline, one reloaded with the server stopped, then both online. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { demoFolder } from '../commands/build.mjs';
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
