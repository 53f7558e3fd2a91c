/**
 * What is known of an instance of the wasm when it traps: what it was working on, and what it holds of the world.
 *
 * After a trap nothing of an instance runs any more, neither its functions nor the callbacks that it left with sockets,
 * timers and the database: whatever calls into it comes back with nothing. What it held is let go of by JavaScript.
 * `wasm/src/witness.rs` is the other side.
 */

import type { WireTrap } from './boundary.js';

/** What is thrown out of an instance's own functions and not by them: a trap, a full stack, an error of what it called. */
type Thrown = unknown;

const kinds = { own: 1, confirmed: 2, snapshot: 3 } as const;

/** The witness of one instance. The methods are called by the instance. @internal */
export class Witness {
  readonly #held = new Set<() => void>();
  #log = '';
  #kind = 0;
  #high = 0;
  #low = 0;
  #number = 0;

  /** The work told from now on is on this log. */
  enter(log: string): void {
    this.#log = log;
  }

  /** This is worked on; kind 0: nothing that belongs to an entry. */
  work(kind: number, high: number, low: number, number: number): void {
    this.#kind = kind;
    this.#high = high;
    this.#low = low;
    this.#number = number;
  }

  /** To be called after a trap. */
  hold(release: () => void): void {
    this.#held.add(release);
  }

  /** Not to be called any more. */
  release(release: () => void): void {
    this.#held.delete(release);
  }

  /** Lets go of everything that the instance holds: sockets, locks, open transactions. */
  letGo(): void {
    for (const release of this.#held) {
      try {
        release();
      } catch {
        // It was gone already, such as a transaction that is being committed.
      }
    }
    this.#held.clear();
  }

  /** What the instance did not come back from. */
  testify(thrown: Thrown): WireTrap {
    const trap: WireTrap = { log: this.#log, reason: thrown instanceof Error ? thrown.message : String(thrown) };
    const hex = (half: number): string => half.toString(16).padStart(8, '0');
    if (this.#kind === kinds.own) trap.own = `${hex(this.#high)}${hex(this.#low)}-${this.#number}`;
    else if (this.#kind === kinds.confirmed) trap.confirmed = this.#number;
    else if (this.#kind === kinds.snapshot) trap.snapshot = true;
    return trap;
  }
}

/** What a call into a trapped instance comes back with: the bindings look for parts of an answer, and find none. */
const NOTHING: unknown = Object.freeze([]);

/** Functions that TypeScript calls: whoever called them is told what was thrown. The others are called by the browser. */
const CALLED_BY_US = /^(engine_|open_client$)/;

/**
 * The exports of an instance, with a guard around each function. The first one that is left by an exception, instead of
 * returning, ends the instance: `trapped` is called, once, and every later call comes back with nothing. @internal
 */
export function guarded(
  exports: WebAssembly.Exports,
  trapped: (thrown: Thrown) => void,
): Record<string, WebAssembly.ExportValue> {
  let over = false;
  let depth = 0;
  const guard =
    (name: string, run: (...args: unknown[]) => unknown) =>
    (...args: unknown[]): unknown => {
      if (over) return NOTHING;
      depth++;
      try {
        return run(...args);
      } catch (thrown) {
        if (!over) {
          over = true;
          trapped(thrown);
        }
        // What called it from within the instance must not go on either.
        if (depth > 1 || CALLED_BY_US.test(name)) throw thrown;
        return NOTHING;
      } finally {
        depth--;
      }
    };
  return Object.fromEntries(
    Object.entries(exports).map(([name, value]) => [
      name,
      typeof value === 'function' ? guard(name, value as (...args: unknown[]) => unknown) : value,
    ]),
  );
}
