/** Tests of the repository itself: what rustfmt, clippy and the compilers cannot hold. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const tracked = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '-z'], { cwd: root, encoding: 'utf8' })
  .split('\0')
  .filter((path) => path && existsSync(join(root, path)));
const sources = tracked.filter((path) => /\.(rs|ts|tsx|mjs|js|css|html)$/.test(path));
const read = (path) => readFileSync(join(root, path), 'utf8');

/** @returns {string[]} `path:line: text` of every line that matches */
function linesWith(paths, pattern) {
  return paths.flatMap((path) =>
    read(path)
      .split('\n')
      .flatMap((line, index) => (pattern.test(line) ? [`${path}:${index + 1}: ${line.trim()}`] : [])),
  );
}

/** The code of a Rust file before its inline tests, without comments. */
function shippedCode(path) {
  const [code] = read(path).split(/^#\[cfg\(test\)\]\n(?:#\[.*\]\n)*mod /m);
  return code.replaceAll(/\/\/.*$/gm, '');
}

test('no file is longer than 600 lines', () => {
  const long = sources.map((path) => [path, read(path).split('\n').length - 1]).filter(([, lines]) => lines > 600);
  assert.deepEqual(long, []);
});

test('every source file says at its top what it is', () => {
  const openings = { rs: /^(#!.*\n)?\/\/[/!]/, ts: /^\/\*\*/, tsx: /^\/\*\*/, mjs: /^(#!.*\n)?\/\*\*/ };
  const mute = sources.filter((path) => {
    const opening = openings[path.split('.').pop()];
    return opening && !/\.test\.ts$/.test(path) && !opening.test(read(path));
  });
  assert.deepEqual(mute, []);
});

test('no file is named after nothing in particular', () => {
  const vague = /(^|[_-])(message|manager|helpers?|utils?|common|data|info|v2|hub|misc)([_-]|$)/;
  const files = sources.filter((path) => path.split('/').some((part) => vague.test(part.replace(/\..*$/, ''))));
  assert.deepEqual(files, []);
});

test('no type or function is named after nothing in particular', () => {
  const types = /\b(struct|enum|trait|class|interface|type|mod)\s+\w*(Manager|Helper|Util|Hub|manager|helper|util\b|hub\b)/;
  assert.deepEqual(linesWith(sources.filter((path) => !path.startsWith('tests/tidy/')), types), []);
});

test('modules are name.rs beside name/', () => {
  assert.deepEqual(tracked.filter((path) => path.endsWith('/mod.rs')), []);
});

test('core depends on no other crate here, and wasm and server never on each other', () => {
  const names = (path) => [...read(path).matchAll(/^(driftlog-\w+)/gm)].map((match) => match[1]).sort();
  assert.deepEqual(names('core/Cargo.toml'), []);
  assert.deepEqual(names('wasm/Cargo.toml'), ['driftlog-core']);
  assert.deepEqual(names('server/Cargo.toml'), ['driftlog-core']);
});

test('only one module of core names automerge', () => {
  const naming = tracked.filter((path) => path.endsWith('.rs') && /\bautomerge::|extern crate automerge/.test(shippedCode(path)));
  assert.deepEqual(naming.filter((path) => path !== 'core/src/rich.rs' && !path.startsWith('core/src/rich/')), []);
});

test('only the seam names the generated wasm', () => {
  const naming = linesWith(sources.filter((path) => path.startsWith('wasm/ts/') || path.startsWith('web-demo/')), /pkg\/driftlog/);
  assert.deepEqual(naming.filter((line) => !line.startsWith('wasm/ts/wasm.ts:')), []);
});

test('core uses no clock, entropy, environment, thread, file or socket', () => {
  const banned = /\bstd::(env|fs|io|net|os|process|thread)\b|\bstd::time::(?!Duration\b)|\b(getrandom|rand|tokio)::|\bunsafe\b/;
  const using = tracked
    .filter((path) => path.startsWith('core/src/') && path.endsWith('.rs'))
    .flatMap((path) => shippedCode(path).split('\n').filter((line) => banned.test(line)).map((line) => `${path}: ${line.trim()}`));
  assert.deepEqual(using, []);
});

test('the package is free of top-level await and of new URL in what browsers load', () => {
  const index = join(root, 'wasm', 'dist', 'index.js');
  assert.ok(existsSync(index), 'wasm/dist is not built: node wasm/build.mjs');
  const code = readFileSync(index, 'utf8');
  assert.doesNotMatch(code, /new URL\([^)]*import\.meta/);
  assert.doesNotMatch(code, /^await |^(const|let|var) .*= await /m);
});

test('generated files are not tracked', () => {
  assert.deepEqual(tracked.filter((path) => /(^|\/)(dist|pkg|target|node_modules)\//.test(path)), []);
});

test('lines end as .gitattributes says', () => {
  assert.deepEqual(sources.filter((path) => read(path).includes('\r')), []);
});

test('a cargo command that is written down is one that cargo takes', () => {
  const pages = tracked.filter((path) => /\.(md|rs|mjs)$/.test(path));
  const runs = linesWith(pages, /cargo run /).filter((line) => !line.startsWith('tests/tidy/'));
  const bins = tracked.flatMap((path) => /^(?:tests|server)\/(?:src\/bin|examples)\/([\w-]+)\.rs$/.exec(path)?.[1] ?? []);
  const wrong = runs.filter((line) => {
    const [, command] = /cargo run ([^`]*)/.exec(line);
    const named = / ?--(?:bin|example) ([\w-]+)/.exec(command);
    return command.includes('--workspace') || (named && ![...bins, 'driftlog-server'].includes(named[1]));
  });
  assert.deepEqual(wrong, []);
  assert.ok(runs.length > 5, 'there are some');
});

test('every test that docs/interleavings.md names is there', () => {
  const [wrong, seen] = [[], new Set()];
  for (const row of read('docs/interleavings.md').split('\n').filter((line) => line.startsWith('|'))) {
    let path;
    for (const [, named] of row.matchAll(/`([^`]+)`/g)) {
      const whole = /^([\w./-]+\.(?:rs|ts|mjs)): (.+)$/.exec(named);
      if (whole) path = /^(?:core|server|wasm)\//.test(whole[1]) ? whole[1] : `tests/${whole[1]}`;
      if (!path) continue;
      const name = whole ? whole[2] : named;
      const title = /^"(.*)"$/.exec(name)?.[1];
      const found = tracked.includes(path) && (title ? read(path).includes(title) : new RegExp(`fn ${name}\\(`).test(read(path)));
      if (!found) wrong.push(`${path}: ${name}`);
      seen.add(name);
    }
  }
  assert.deepEqual(wrong, []);
  assert.ok(seen.size > 60, `${seen.size} names`);
});
