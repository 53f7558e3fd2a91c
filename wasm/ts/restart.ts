/**
 * The engine of a client, begun again when it traps.
 *
 * ```text
 *  begun ──► runs ──trap──► waits ──► begun ──► what is open is brought over ──► runs
 *              ▲              ▲                              │ trap
 *              │              └──────────────────────────────┘   20 in a row: stopped, visibly
 *              └── a quiet minute: traps are counted from 0 again
 * ```
 *
 * A trapped engine is never asked anything again. The next one reads everything from the local database; what the one
 * before did not come back from is told to it, and it decides what follows (core/src/engine/traps.rs).
 */

import type { OpenEngine, WireEngine, WireTrap } from './boundary.js';
import { fail } from './errors.js';

/** Traps in a row after which the engine is not begun again. */
const TRAPS_MAX = 20;

/** An engine that ran for so long without a trap is well again. */
const QUIET_MS = 60_000;

/** The wait before the second restart in a row; the first is at once, each further one waits twice as long. */
const WAIT_MS_FIRST = 100;

/** The longest wait before a restart. */
const WAIT_MS_MAX = 10_000;

/** What a client does as its engine goes and comes. @internal */
export interface EngineHost {
  /** What engines are begun with; `trap` is what the one before did not come back from. */
  options(trap: WireTrap | null): Uint8Array;
  hear(notices: Uint8Array): void;
  /** Why this client's engine cannot be begun again; `undefined` if it can. */
  lastOne(): string | undefined;
  /** The engine trapped: nothing can be asked before the next one runs, at `retryAt` at the earliest. */
  paused(reason: string, retryAt: number): void;
  /**
   * A new engine runs: brings over what is open. What is returned is called in the moment from which on others ask it
   * too.
   */
  resume(engine: WireEngine, trap: WireTrap | null): Promise<() => void>;
  /** It is not begun again any more. */
  stopped(reason: string): void;
}

/** One engine's time. */
class Life {
  /** What it did not come back from, once it is over. */
  trap: WireTrap | undefined;
  #end: (reason: unknown) => void = () => {};
  readonly #ended = new Promise<never>((_, reject) => {
    this.#end = reject;
  });

  constructor() {
    this.#ended.catch(() => {});
  }

  end(trap: WireTrap | undefined): void {
    this.trap ??= trap;
    this.#end(new Error(trap?.reason ?? 'the client was closed'));
  }

  /** The outcome, unless the engine's time is over before. */
  race<T>(work: Promise<T>): Promise<T> {
    return Promise.race([work, this.#ended]);
  }
}

/** The engines of one client, one at a time. @internal */
export class Engines {
  #engine: WireEngine | undefined;
  #life: Life | undefined;
  #restarting = false;
  #traps = 0;
  #runsSince = 0;
  #stopped: string | undefined;
  #closed = false;
  readonly #waiting = new Set<() => void>();
  #wake: (() => void) | undefined;

  constructor(
    private readonly name: string,
    private readonly open: OpenEngine,
    private readonly host: EngineHost,
  ) {}

  /** Begins the first engine. Rejects with what `open` rejects with. */
  async start(): Promise<void> {
    try {
      this.#run(await this.#begin(null));
    } catch (error) {
      const trap = this.#life?.trap;
      if (trap === undefined) throw error;
      await this.#restart(trap);
      if (this.#stopped !== undefined) throw this.#unusable();
    }
  }

  /** The engine. Throws `closed`, `restarting` or `engine-failed` while there is none. */
  get running(): WireEngine {
    if (this.#engine === undefined) throw this.#unusable();
    return this.#engine;
  }

  /** The engine, if there is one now. */
  get current(): WireEngine | undefined {
    return this.#engine;
  }

  /** Asks an engine; and the next one, if this one traps before it has answered. */
  async ask<T>(question: (engine: WireEngine) => Promise<T>): Promise<T> {
    for (;;) {
      const life = this.#life;
      if (this.#engine === undefined || life === undefined) {
        if (this.#closed || this.#stopped !== undefined) throw this.#unusable();
        await new Promise<void>((resume) => this.#waiting.add(resume));
        continue;
      }
      try {
        return await life.race(question(this.#engine));
      } catch (error) {
        if (life.trap === undefined) throw error;
      }
    }
  }

  /** Ends the engine; none is begun again. */
  async close(): Promise<void> {
    const engine = this.#engine;
    this.#closed = true;
    this.#engine = undefined;
    this.#wake?.();
    this.#resumeWaiting();
    // A trap on the last steps leaves nothing to do: what is stored is stored.
    if (engine !== undefined) await this.#life?.race(engine.close()).catch(this.#unlessTrapped(this.#life));
  }

  #unlessTrapped(life: Life): (error: unknown) => void {
    return (error) => {
      if (life.trap === undefined) throw error;
    };
  }

  async #begin(trap: WireTrap | null): Promise<WireEngine> {
    const life = new Life();
    this.#life = life;
    const hear = (notices: Uint8Array): void => {
      if (this.#life === life && life.trap === undefined) this.host.hear(notices);
    };
    return life.race(this.open(this.host.options(trap), hear, (trap) => this.#trapped(life, trap)));
  }

  #run(engine: WireEngine): void {
    this.#engine = engine;
    this.#runsSince = Date.now();
    this.#resumeWaiting();
  }

  #trapped(life: Life, trap: WireTrap): void {
    const ran = this.#engine !== undefined;
    this.#engine = undefined;
    life.end(trap);
    if (ran && !this.#closed) void this.#restart(trap);
  }

  async #restart(trap: WireTrap): Promise<void> {
    if (this.#restarting) return;
    this.#restarting = true;
    let last: WireTrap | null = trap;
    let { reason } = trap;
    while (!this.#closed) {
      if (Date.now() - this.#runsSince > QUIET_MS) this.#traps = 0;
      this.#runsSince = Date.now();
      this.#traps++;
      const final = this.host.lastOne() ?? (this.#traps > TRAPS_MAX ? `it trapped ${TRAPS_MAX} times in a row` : undefined);
      if (final !== undefined) {
        this.#stop(`${reason}; ${final}`);
        break;
      }
      const wait = this.#traps === 1 ? 0 : Math.min(WAIT_MS_FIRST * 2 ** (this.#traps - 2), WAIT_MS_MAX);
      this.host.paused(reason, Date.now() + wait);
      await this.#sleep(wait);
      if (this.#closed) break;
      try {
        if (await this.#next(last)) break;
        last = null;
      } catch (error) {
        // Not every failure is a trap: the database may not open. What trapped before is counted by then, or will be.
        last = this.#life?.trap ?? last;
        reason = this.#life?.trap?.reason ?? (error instanceof Error ? error.message : String(error));
      }
    }
    this.#restarting = false;
  }

  /** Begins an engine and brings over what is open. False if the client was closed meanwhile. */
  async #next(trap: WireTrap | null): Promise<boolean> {
    const engine = await this.#begin(trap);
    const life = this.#life!;
    const finish = await life.race(this.host.resume(engine, trap));
    if (this.#closed) {
      await life.race(engine.close());
      return false;
    }
    this.#engine = engine;
    finish();
    // What was brought over may have trapped it.
    if (life.trap !== undefined) throw new Error(life.trap.reason);
    this.#run(engine);
    return true;
  }

  #stop(reason: string): void {
    this.#stopped = reason;
    this.host.stopped(reason);
    this.#resumeWaiting();
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #resumeWaiting(): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const resume of waiting) resume();
  }

  #unusable(): Error {
    if (this.#closed) return fail('closed', { what: this.name }, `the client ${this.name} is closed`);
    if (this.#stopped !== undefined)
      return fail('engine-failed', { reason: this.#stopped }, `the engine is stopped: ${this.#stopped}`);
    const reason = 'the engine is being begun again';
    return fail('restarting', { reason }, `${reason}: nothing was done, call again when the log is not degraded`);
  }
}
