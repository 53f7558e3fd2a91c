/**
 * A TCP proxy between browser and server that breaks the link in the ways real links break.
 *
 *   open ──close()──► closed: connections are cut, new ones refused ──open()──► open
 *   open ──blackHole()──► silent: everything stays connected, nothing passes ──open()──► open
 *   open ──cutInMidFrame(direction)──► the next bytes that way pass by half, then that connection is cut
 *
 * The browser's own offline mode leaves open sockets open, so it is no substitute. Counts the bytes that pass.
 */
import { once } from 'node:events';
import { connect, createServer } from 'node:net';

/** @typedef {'up' | 'down'} Direction up is from browser to server */

/** Starts a proxy on a free port of 127.0.0.1. */
export async function startProxy(targetPort) {
  const proxy = new TcpProxy(targetPort);
  await proxy.open();
  return proxy;
}

class TcpProxy {
  /** The port that browsers connect to; the same one each time it is opened. */
  port = 0;
  /** Bytes passed from browser to server, and back. */
  bytes = { up: 0, down: 0 };

  #targetPort;
  #listener;
  #links = new Set();
  #silent = false;
  /** @type {{ direction: Direction, done: () => void } | undefined} */
  #cutNext;

  constructor(targetPort) {
    this.#targetPort = targetPort;
  }

  /** Passes everything again. Connections held silent are cut, as a router that comes back forgets them. */
  async open() {
    if (this.#silent) this.#cutAll();
    this.#silent = false;
    if (this.#listener) return;
    this.#listener = createServer((client) => this.#link(client));
    this.#listener.listen(this.port, '127.0.0.1');
    await once(this.#listener, 'listening');
    this.port = this.#listener.address().port;
  }

  /** Cuts every connection and refuses new ones. */
  async close() {
    const listener = this.#listener;
    this.#listener = undefined;
    this.#cutAll();
    if (listener) await new Promise((resolve) => listener.close(resolve));
  }

  /** Lets nothing pass while every connection stays up, new ones too. */
  blackHole() {
    this.#silent = true;
    for (const { client, server } of this.#links) {
      client.pause();
      server.pause();
    }
  }

  /** Lets half of the next bytes in this direction pass and then cuts that connection; resolves when it did. */
  cutInMidFrame(direction) {
    return new Promise((done) => {
      this.#cutNext = { direction, done };
    });
  }

  /** How many connections are up. */
  get links() {
    return this.#links.size;
  }

  #link(client) {
    const link = { client, server: undefined };
    // A dead upstream must look dead: no connection is held open on behalf of a server that is gone.
    link.server = connect(this.#targetPort, '127.0.0.1');
    this.#links.add(link);
    const cut = () => {
      this.#links.delete(link);
      client.destroy();
      link.server.destroy();
    };
    for (const socket of [client, link.server]) {
      socket.setNoDelay(true);
      socket.on('error', cut);
      socket.on('close', cut);
    }
    client.on('data', (bytes) => this.#pass('up', bytes, link.server, cut));
    link.server.on('data', (bytes) => this.#pass('down', bytes, client, cut));
    if (this.#silent) for (const socket of [client, link.server]) socket.pause();
  }

  #pass(direction, bytes, to, cut) {
    if (this.#cutNext?.direction === direction && bytes.length > 1) {
      const { done } = this.#cutNext;
      this.#cutNext = undefined;
      to.write(bytes.subarray(0, bytes.length >> 1), () => {
        cut();
        done();
      });
      return;
    }
    this.bytes[direction] += bytes.length;
    to.write(bytes);
  }

  #cutAll() {
    for (const { client, server } of this.#links) {
      client.destroy();
      server.destroy();
    }
    this.#links.clear();
  }
}
