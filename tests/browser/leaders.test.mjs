/** One tab ships for all. What happens when that tab stands still, is left, or comes back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually, startWorld } from './harness/story.mjs';

test('a frozen leader is replaced at once, and works on when it thaws', async (t) => {
  const { leader, follower, write } = await twoTabs(t);
  const session = await leader.page.context().newCDPSession(leader.page);
  await session.send('Page.setWebLifecycleState', { state: 'frozen' });
  await write(follower, 'while frozen');
  await session.send('Page.setWebLifecycleState', { state: 'active' });
  await eventually(async () => assert.equal((await leader.todos()).length, 1));
  await write(leader, 'after the thaw');
});

test('a leader whose thread hangs is replaced, and finds itself deposed when it wakes', async (t) => {
  const { leader, follower, write } = await twoTabs(t);
  const hangs = leader.page.evaluate(() => {
    const start = Date.now();
    while (Date.now() - start < 40_000);
  });
  await write(follower, 'while it hangs');
  await hangs;
  await eventually(async () => assert.equal((await leader.todos()).length, 1));
  await write(leader, 'after it woke');
});

test('a page in the back/forward cache holds neither lock nor socket', async (t) => {
  const { leader, follower, write } = await twoTabs(t);
  await leader.page.evaluate(() => dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true })));
  await write(follower, 'while it is cached');
  await leader.page.evaluate(() => dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true })));
  await write(leader, 'after it came back');
});

/** Two tabs of one device; the first leads. `write` acts in a tab and waits for the server's acceptance. */
async function twoTabs(t) {
  const world = await startWorld(t);
  const device = await world.device();
  const leader = await world.tab(device);
  await eventually(async () => assert.equal((await leader.state()).connection, 'live'));
  const follower = await world.tab(device);
  let written = 0;
  const write = async (tab, title) => {
    const fate = await tab.verdict(await tab.act('addTodo', { id: `todo-${written}`, title }));
    assert.equal(fate.offset, written++, title);
  };
  return { leader, follower, write };
}
