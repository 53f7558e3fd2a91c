/**
 * The real server binary, on a port that the system chooses, with a data folder of its own.
 *
 * `kill()` is `kill -9`; `start()` after it comes back on the same port with the same data.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { serverBinary } from '../../commands/build.mjs';
import { run } from '../../commands/run.mjs';
import { kill, startProgram, temporaryFolder } from './processes.mjs';

/**
 * @param {object} [options]
 * @param {boolean} [options.release] the binary built for measuring
 * @param {string} [options.secret] asks for tokens made with it; without one the server runs with `--dev`
 * @param {string} [options.staticFolder] pages that it serves
 * @param {string[]} [options.args] more arguments of `driftlog-server serve`
 */
export async function startServer(options = {}) {
  const server = new Server(options);
  await server.start();
  return server;
}

class Server {
  /** Where data and secret are. */
  folder = temporaryFolder('server');
  /** The port it listens on, the same one after each restart. */
  port = 0;

  #options;
  #program;

  constructor(options) {
    this.#options = options;
    if (options.secret) writeFileSync(this.#secretFile, options.secret);
  }

  async start() {
    const { secret, staticFolder, args = [], release } = this.#options;
    this.#program = await startProgram(
      serverBinary({ release }),
      [
        'serve',
        ...['--data', join(this.folder, 'data'), '--listen', `127.0.0.1:${this.port}`],
        ...(secret ? ['--secret-file', this.#secretFile] : ['--dev']),
        ...(staticFolder ? ['--static', staticFolder] : []),
        ...args,
      ],
      /127\.0\.0\.1:(\d+)/,
    );
    this.port = Number(this.#program.match[1]);
  }

  /** `kill -9`. */
  async kill() {
    await kill(this.#program.child);
  }

  /** Asks it to end, and waits until it did. */
  async stop() {
    const { child } = this.#program;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    await gone;
  }

  /**
   * A token for one user; patterns name the logs.
   *
   * @param {{ sub: string, logs?: string[], rights?: ('read' | 'append')[] }} claims
   */
  async token({ sub, logs = ['*'], rights = ['read', 'append'] }) {
    const args = [...logs.flatMap((pattern) => ['--log', pattern]), ...rights.map((right) => `--${right}`)];
    return (await run(serverBinary(this.#options), ['token', '--secret-file', this.#secretFile, '--sub', sub, ...args])).trim();
  }

  /** The materialized records of a log, read from the server process over HTTP. */
  async snapshot(log, token) {
    return this.#get(`/logs/${encodeURIComponent(log)}/snapshot`, token);
  }

  async health() {
    return this.#get('/health');
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  get pid() {
    return this.#program.child.pid;
  }

  /** What it printed, for a failing test to show. */
  get output() {
    return this.#program.output();
  }

  get #secretFile() {
    return join(this.folder, 'secret');
  }

  async #get(path, token) {
    const response = await fetch(this.url + path, token ? { headers: { authorization: `Bearer ${token}` } } : {});
    if (!response.ok) throw new Error(`GET ${path}: ${response.status} ${await response.text()}`);
    return response.json();
  }
}
