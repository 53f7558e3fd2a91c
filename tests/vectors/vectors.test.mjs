/** Golden vectors, read by a second implementation: what Rust wrote must mean the same in JavaScript. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Refused, crc32c, frames, fromHex, readEntry, readFrame, readValue, rows, sha256, toHex } from './formats.mjs';

const here = dirname(fileURLToPath(import.meta.url));

/** One test per vector of a file. */
function each(file, check, refuse) {
  describe(file, () => {
    for (const vector of JSON.parse(readFileSync(join(here, file), 'utf8')).vectors) {
      const bytes = fromHex(vector.hex);
      test(vector.name, () => (vector.refused ? refuse(bytes, vector) : check(bytes, vector)));
    }
  });
}

const refusedBy = (read) => (bytes) => assert.throws(() => read(bytes), Refused);

test('the checksum is CRC32C', () => {
  assert.equal(crc32c(Buffer.from('123456789')), 0xe3069283);
});

each('values.json', (bytes, { is }) => assert.deepEqual(readValue(bytes), is), refusedBy(readValue));

each(
  'entries.json',
  (bytes, { digest, is }) => {
    assert.deepEqual(readEntry(bytes), is);
    assert.equal(toHex(sha256(bytes)), digest);
  },
  refusedBy(readEntry),
);

each(
  'frames.json',
  (bytes, { type, is }) => assert.deepEqual(readFrame(bytes), { type, is }),
  (bytes, { code }) => assert.throws(() => readFrame(bytes), (error) => error instanceof Refused && error.code === code),
);

each('rows.json', (bytes, { row, is }) => assert.deepEqual(rows[row](bytes), is), (bytes, { row }) => assert.throws(() => rows[row](bytes), Refused));

each('chains.json', (bytes, { is }) => assert.equal(toHex(sha256(...is.sha256.map(fromHex))), toHex(bytes)));

test('every type of frame has a vector', () => {
  const { vectors } = JSON.parse(readFileSync(join(here, 'frames.json'), 'utf8'));
  const types = new Set(vectors.map(({ type }) => type));
  for (const [name] of Object.values(frames)) assert.ok(types.has(name), name);
});
