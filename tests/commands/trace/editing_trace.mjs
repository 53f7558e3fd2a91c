/**
 * Editing traces: recordings of people who type, from the public editing-traces collection (`.json.gz`).
 *
 * A transaction is a list of patches `[position, deleted, inserted]`, each on what the one before it left; positions
 * count Unicode code points. A concurrent trace says who typed each transaction; a sequential one has one typist.
 */
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { Stopped } from '../steps.mjs';

/**
 * @typedef {[position: number, deleted: number, inserted: string][]} Transaction
 * @typedef {object} EditingTrace
 * @property {string} name
 * @property {'sequential' | 'concurrent'} kind
 * @property {string} startContent
 * @property {string | undefined} endContent
 * @property {Transaction[][]} typists the transactions of each typist, in order
 * @property {number} edits how many transactions there are
 */

/**
 * Reads a trace. Its text is there before anybody types: where it is not empty, the first typist begins with it.
 *
 * @param {string} path
 * @returns {Promise<EditingTrace>}
 */
export async function readTrace(path) {
  const bytes = await readFile(path).catch((error) => {
    throw new Stopped(`cannot read ${path}: ${error.message}`);
  });
  const { kind, startContent = '', endContent, numAgents = 1, txns } = parse(path, bytes);
  if (!Array.isArray(txns)) throw new Stopped(`${path} is not an editing trace: it has no transactions`);
  const concurrent = kind === 'concurrent';
  const typists = Array.from({ length: concurrent ? numAgents : 1 }, () => []);
  for (const { agent = 0, patches } of txns) typists[concurrent ? agent : 0].push(patches);
  return {
    name: basename(path).replace(/\.json(\.gz)?$/, ''),
    kind: concurrent ? 'concurrent' : 'sequential',
    startContent,
    endContent,
    typists,
    edits: txns.length,
  };
}

function parse(path, bytes) {
  try {
    return JSON.parse(path.endsWith('.gz') ? gunzipSync(bytes) : bytes);
  } catch (error) {
    throw new Stopped(`${path} is not an editing trace: ${error.message}`);
  }
}
