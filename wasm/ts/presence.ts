/**
 * Presence: what everybody who has a log open says of themselves at the moment, such as where their cursor is. Never
 * stored, the last value wins, gone with the connection.
 */

import { decode, encode, type WireEngine, type WirePresent } from './boundary.js';
import { fail } from './errors.js';
import { Cell, type Readable, type Turn } from './readable.js';
import { canonical, freeze, type Value } from './value.js';

/** Bytes of a value at most; docs/protocol.md, "present". */
const BYTES_MAX = 4096;

/** Somebody else who is here. */
export interface Present {
  /** Names the connection: one client, with all its tabs. */
  readonly connection: string;
  /** Whose it is, as the server says. */
  readonly user: string;
  readonly value: Value;
}

/** Who else is here, by connection, and what this client says of itself. Nobody is while there is no connection. */
export interface Presence extends Readable<readonly Present[]> {
  /**
   * Says something to the others, in place of what was said before; `undefined`: nothing any more. It is said for the
   * client with all its tabs, again after each reconnection, and until the log is closed here. Several values within
   * 50 ms count as the last of them.
   *
   * Throws `bad-value` for what is no value or takes more than 4,096 bytes, and `closed`.
   */
  set(value: Value | undefined): void;
}

/** @internal */
export interface PresenceSource {
  readonly handle: number;
  readonly isClosed: boolean;
  readonly name: string;
}

/** The presence behind `Presence`. @internal */
export class OpenPresence implements Presence {
  readonly #present: Cell<readonly Present[]>;
  /** What was said last: the next engine is told. */
  #said: Uint8Array | undefined;
  readonly #log: PresenceSource;
  readonly #engine: () => WireEngine;

  constructor(turn: Turn, log: PresenceSource, engine: () => WireEngine) {
    this.#present = new Cell<readonly Present[]>(turn, Object.freeze([]));
    this.#log = log;
    this.#engine = engine;
  }

  set(value: Value | undefined): void {
    const { handle, isClosed, name } = this.#log;
    if (isClosed) throw fail('closed', { what: name }, `the log ${name} is closed`);
    const said = value === undefined ? undefined : encode(canonical(value, 'presence'));
    if (said !== undefined && said.length > BYTES_MAX) {
      const problem = `${said.length} bytes; it may have ${BYTES_MAX}`;
      throw fail('bad-value', { path: 'presence', problem }, `presence takes ${problem}`);
    }
    this.#engine().present(handle, said);
    this.#said = said;
  }

  getSnapshot(): readonly Present[] {
    return this.#present.getSnapshot();
  }

  subscribe(listener: (present: readonly Present[]) => void): () => void {
    return this.#present.subscribe(listener);
  }

  /** Reads who is here now. */
  read(engine: WireEngine): void {
    const all = decode<WirePresent[]>(engine.presence(this.#log.handle)).flatMap(({ connection, user, value }) => {
      try {
        return [freeze({ connection, user, value: decode<Value>(value) })];
      } catch {
        // Whatever somebody else's app said is no reason to hear nobody.
        return [];
      }
    });
    this.#present.set(Object.freeze(all));
  }

  /** Another engine has the log open. */
  again(engine: WireEngine): void {
    if (this.#said !== undefined) engine.present(this.#log.handle, this.#said);
    this.read(engine);
  }

  /** The log closes here: nothing is said any more. */
  end(engine: WireEngine | undefined): void {
    if (this.#said !== undefined) engine?.present(this.#log.handle, undefined);
    this.#said = undefined;
    this.#present.set(Object.freeze([]));
  }
}
