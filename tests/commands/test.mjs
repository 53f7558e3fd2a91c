/**
 * `npm test [-- SUITE …]`: sets up, builds, and runs every test: Rust, TypeScript and the browser tests.
 *
 * It promises one summary line at the end and a failing exit on any failure. Nothing is ever skipped silently: a
 * test that asks to be skipped counts as failed.
 */
import { buildDemo, buildPackage, buildServer, buildWorkspace } from './build.mjs';
import { command, Stopped } from './steps.mjs';
import { setUpToTest } from './setup.mjs';
import { suites } from './suites.mjs';

await command(async () => {
  const chosen = choose(process.argv.slice(2));
  await setUpToTest();
  await (chosen.some((suite) => suite.name === 'rust') ? buildWorkspace() : buildServer());
  await buildPackage({ compileTool: false });
  await buildDemo();
  const total = { passed: 0, failed: 0 };
  for (const suite of chosen) {
    const { passed, failed } = await suite.run();
    total.passed += passed;
    total.failed += failed;
  }
  console.log(`\ntests: ${total.passed} passed, ${total.failed} failed`);
  if (total.failed > 0) process.exitCode = 1;
});

function choose(names) {
  const unknown = names.filter((name) => !suites.some((suite) => suite.name === name));
  if (unknown.length > 0) throw new Stopped(`no suite ${unknown.join(', ')}: there are ${suites.map((suite) => suite.name).join(', ')}`);
  return suites.filter((suite) => names.length === 0 || names.includes(suite.name));
}
