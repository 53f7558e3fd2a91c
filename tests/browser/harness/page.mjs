/**
 * Serves one empty page and the built package, on an address that stays the same while servers come and go, because
 * a browser's storage belongs to the address of the page.
 *
 * In the page, `await import('/driftlog/index.js')` is the package as it is published.
 */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { root } from '../../commands/run.mjs';

const types = { '.html': 'text/html', '.js': 'text/javascript', '.mjs': 'text/javascript', '.wasm': 'application/wasm', '.map': 'application/json', '.json': 'application/json' };
const emptyPage = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>Driftlog</title>';

/**
 * @param {object} [options]
 * @param {Record<string, string>} [options.folders] more folders by the path under which they are served
 * @param {string} [options.host]
 * @param {Record<string, string>} [options.headers] sent with every answer
 */
export async function servePage({ folders = {}, host = '127.0.0.1', headers = {} } = {}) {
  const served = { '/driftlog/': join(root, 'wasm', 'dist'), ...folders };
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, 'http://page');
    const prefix = Object.keys(served).find((prefix) => pathname.startsWith(prefix));
    if (!prefix) return response.writeHead(200, { 'content-type': 'text/html', ...headers }).end(emptyPage);
    const path = join(served[prefix], normalize(`/${pathname.slice(prefix.length)}`));
    try {
      const bytes = await readFile(path);
      const type = types[extname(path)] ?? 'application/octet-stream';
      response.writeHead(200, { 'content-type': type, 'cache-control': 'no-store', ...headers }).end(bytes);
    } catch {
      response.writeHead(404).end();
    }
  });
  server.listen(0, host);
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    port: server.address().port,
    /** Stops answering: the page is as unreachable as with the network gone. */
    close() {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}
