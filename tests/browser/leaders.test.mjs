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

test('two tabs without Web Locks have one leader, and the other goes on when it hangs or is closed', async (t) => {
  // As a phone on the local network: a name that is not localhost, over http.
  const world = await startWorld(t, { secret: 'a secret of thirty-two characters' });
  world.site.url = world.site.url.replace('127.0.0.1', 'driftlog.test');
  const device = await world.device({ args: ['--host-resolver-rules=MAP driftlog.test 127.0.0.1'] });
  const { leader, follower, write } = await twoTabsOf(world, device, { token: await world.server.token({ sub: 'alice' }) });
  assert.equal(await leader.page.evaluate(() => navigator.locks), undefined);
  await write(leader, 'by the one that leads');
  await write(follower, 'by the other');
  const hangs = leader.page.evaluate(() => {
    const start = Date.now();
    while (Date.now() - start < 40_000);
  });
  await write(follower, 'while it hangs');
  await hangs;
  await write(leader, 'after it woke');
  await follower.page.close();
  await write(leader, 'when it is alone');
});

/** Two tabs of one device; the first leads. `write` acts in a tab and waits for the server's acceptance. */
async function twoTabs(t) {
  const world = await startWorld(t);
  return twoTabsOf(world, await world.device());
}

async function twoTabsOf(world, device, options) {
  const leader = await world.tab(device, options);
  await eventually(async () => assert.equal((await leader.state()).connection, 'live'));
  const follower = await world.tab(device, options);
  let written = 0;
  const write = async (tab, title) => {
    const fate = await tab.verdict(await tab.act('addTodo', { id: `todo-${written}`, title }));
    assert.equal(fate.offset, written++, title);
  };
  return { leader, follower, write };
}
