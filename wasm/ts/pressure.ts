/** Own work that piles up on this device: how much, why, and how much of it there may be. */

import type { WirePressureLevel } from './boundary.js';
import { fail } from './errors.js';

/**
 * How much of each log may wait for the server. Beyond it `do` throws `backlog-full` and records nothing; what was
 * recorded before stays and is sent. Without a bound it is what the device can store.
 */
export interface BacklogBound {
  /** Actions. */
  readonly count?: number;
  /** Their bytes, as they are stored; the action that reaches it may reach beyond. */
  readonly bytes?: number;
}

/** Own work that waits for the server's verdict. */
export interface Pressure {
  /**
   * `none`: it is sent as it comes, or there is no connection, which `client.connection` says; `waiting`: the server
   * gives no credit for more, so it waits here until there is some; `high`: three quarters of the backlog's bound are
   * used; `full`: the bound is reached, and `do` throws `backlog-full` until the server has answered some of it;
   * `storage-full`: this device stored no more: free space; the next action tries it.
   */
  readonly state: WirePressureLevel;
  /** The same for people, with the numbers; `undefined` for `none`. */
  readonly reason: string | undefined;
  /** Actions that wait, in this log or, for `client.pressure`, in all of them. */
  readonly count: number;
  /** Their bytes. */
  readonly bytes: number;
  /** The log that `state` is about; `undefined` for `none`. */
  readonly log: string | undefined;
}

/** A bound as the engine takes it. @internal */
export function wireBound({ count, bytes }: BacklogBound): { entries: number | null; bytes: number | null } {
  return { entries: checked('count', count), bytes: checked('bytes', bytes) };
}

function checked(name: string, bound: number | undefined): number | null {
  if (bound === undefined) return null;
  if (Number.isSafeInteger(bound) && bound > 0) return bound;
  const path = `backlog.${name}`;
  throw fail('bad-value', { path, problem: `${bound} is no whole number above 0` }, `${path} is ${bound}`);
}

/** @internal */
export function pressureOf(
  state: WirePressureLevel,
  { count, bytes }: { count: number; bytes: number },
  log: string | undefined,
): Pressure {
  const waiting = `${count} action${count === 1 ? '' : 's'} (${bytes} bytes) wait`;
  const reason = {
    none: undefined,
    waiting: `the server takes no more for now: ${waiting} on this device`,
    high: `${waiting} for the server, and ${log} may keep little more`,
    full: `${waiting} for the server, and ${log} may keep no more`,
    'storage-full': `this device can store no more: ${waiting} for the server`,
  }[state];
  return Object.freeze({ state, reason, count, bytes, log: state === 'none' ? undefined : log });
}
