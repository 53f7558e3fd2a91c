/** What `do` returns: the id of an action that is in the view already, and promises of what becomes of it. */

import type { WireWriteDetail } from './boundary.js';
import { engineError, refusal } from './errors.js';

/** The id of an action, known at the call: (run, number within it) as `run-n`. It finds the entry after any reload. */
export type WriteId = string;

/** The server's verdict on an entry that it took. */
export interface Acceptance {
  /** The entry's place in the server's log, from 0; `undefined` if it is known only through a snapshot. */
  readonly offset: number | undefined;
  /** When the server took it, in ms since 1970; `undefined` if it is known only through a snapshot. */
  readonly acceptedAt: number | undefined;
  /** The user whose entry it is. */
  readonly author: string | undefined;
  /**
   * `applied`; `record-gone` if a record that it changes had been deleted, so that it changed nothing there;
   * `expired` if its lifetime was over.
   */
  readonly outcome: 'applied' | 'record-gone' | 'expired';
}

/** A performed action. Nobody has to await its promises: their rejections are never unhandled. */
export interface Write {
  readonly id: WriteId;
  /**
   * Resolves when the entry is durable on this device.
   *
   * Rejects with `storage-full`, `storage-failed` or `needs-failed`: it was not recorded and has left the view; with `closed` when the client is closed before.
   */
  readonly stored: Promise<void>;
  /**
   * Resolves when the server's log has the entry, durably: for an offline device that may be weeks later.
   *
   * Rejects with the server's refusal (the entry is then in `log.deadLetters`), with the error of `stored`, or with
   * `closed` when the client is closed before: the entry is still shipped, ask `log.entry(id)` later.
   */
  readonly accepted: Promise<Acceptance>;
}

/** An action as the engine took it. @internal */
export interface Recording {
  readonly request: Uint8Array;
  /** End of the confirmed prefix that its author had seen. */
  readonly seen: number;
}

/** A write that waits for its fate. @internal */
export class OpenWrite implements Write {
  readonly #stored = new Later<void>();
  readonly #accepted = new Later<Acceptance>();
  /** How it is recorded again if the engine ends before it is stored; `undefined` once it is, or if it cannot be. */
  again: Recording | undefined;

  constructor(
    readonly id: WriteId,
    again?: Recording,
  ) {
    this.again = again;
  }

  get stored(): Promise<void> {
    return this.#stored.promise;
  }

  get accepted(): Promise<Acceptance> {
    return this.#accepted.promise;
  }

  /** Takes in what became of the entry; true when nothing more is to come. */
  settle(status: 'stored' | 'accepted' | 'refused' | 'failed', detail: WireWriteDetail): boolean {
    if (status === 'failed') {
      this.reject(engineError(detail.code ?? 'storage-failed', detail.reason ?? 'the entry was not recorded'));
      return true;
    }
    this.#stored.resolve();
    this.again = undefined;
    if (status === 'accepted') {
      this.#accepted.resolve({
        offset: detail.offset ?? undefined,
        acceptedAt: detail.acceptedAt ?? undefined,
        author: detail.author ?? undefined,
        outcome: (detail.outcome ?? 'applied') as Acceptance['outcome'],
      });
    } else if (status === 'refused') {
      const { code, reason, entryId, number } = detail;
      this.#accepted.reject(
        refusal(code ?? 'refused', {
          writeId: this.id,
          entryId: entryId ?? undefined,
          reason: reason ?? '',
          number: number ?? 0,
        }),
      );
    }
    return status !== 'stored';
  }

  reject(error: unknown): void {
    this.#stored.reject(error);
    this.#accepted.reject(error);
  }
}

/** A promise that exists once somebody asks for it: most writes are never awaited. */
class Later<T> {
  #promise: Promise<T> | undefined;
  #settle: ((resolve: (value: T) => void, reject: (error: unknown) => void) => void) | undefined;
  #waiting: { resolve: (value: T) => void; reject: (error: unknown) => void } | undefined;

  get promise(): Promise<T> {
    if (this.#promise === undefined) {
      this.#promise = new Promise<T>((resolve, reject) => {
        if (this.#settle !== undefined) this.#settle(resolve, reject);
        else this.#waiting = { resolve, reject };
      });
      this.#promise.catch(() => {});
    }
    return this.#promise;
  }

  resolve(value: T): void {
    this.#settle ??= (resolve) => resolve(value);
    this.#waiting?.resolve(value);
    this.#waiting = undefined;
  }

  reject(error: unknown): void {
    this.#settle ??= (_, reject) => reject(error);
    this.#waiting?.reject(error);
    this.#waiting = undefined;
  }
}
