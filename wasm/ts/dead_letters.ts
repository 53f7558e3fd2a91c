/**
 * Dead letters: own entries that the server refused, kept whole until somebody redrives or discards them.
 *
 * Of one dead letter, however often and wherever it is redriven, at most one replacement is ever accepted.
 */

import type { DeadLetter } from './entry.js';
import { Cell, type Readable, type Turn } from './readable.js';
import type { LogDefinition } from './schema.js';
import type { Write, WriteId } from './write.js';

/** The dead letters of a log, oldest first; they survive reloads, and every tab has the same. */
export interface DeadLetters<D extends LogDefinition> extends Readable<readonly DeadLetter<D>[]> {
  /** The dead letter of a write; `undefined` if it is none, or none any more. */
  get(id: WriteId): DeadLetter<D> | undefined;
  /**
   * Tries again: the action's mutator runs anew, on what the view shows now, with the given arguments or those of the
   * letter. An action that recorded no arguments is issued again with the same effect, unless arguments are given.
   *
   * The result is a new action that replaces the old one. The letter is `redriven` from now on; it goes when the new
   * action is accepted, and is back when that is refused (then the new one is a dead letter too, and whichever is
   * redriven next, one of them counts). Throws what the mutator throws, `no-such-dead-letter`, `already-redriven`, and
   * `needs-arguments` if the letter changes a text and recorded no arguments.
   */
  redrive<L extends DeadLetter<D>>(letter: L, args?: L['args']): Write;
  /** Drops a letter for good; the list tells when it is gone. Throws `closed`. */
  discard(letter: DeadLetter<D>): void;
  /**
   * All letters as JSON text, to be saved: what is known of each, and the bytes of its entry in base64
   * (docs/log-format.md, "Entry").
   */
  export(): string;
}

/** What the list needs of its log. @internal */
export interface LetterSource {
  readonly name: string;
  redrive(letter: DeadLetter<LogDefinition>, given: { args: unknown } | undefined): Write;
  discard(entryId: string): void;
  bytes(entryId: string): Uint8Array | undefined;
}

/** The list behind `DeadLetters`. @internal */
export class LetterList extends Cell<readonly DeadLetter<LogDefinition>[]> implements DeadLetters<LogDefinition> {
  constructor(
    turn: Turn,
    private readonly source: LetterSource,
  ) {
    super(turn, Object.freeze([]));
  }

  /** From this seq on the letters are these; those before it are as they were. */
  replaceFrom(seq: number, letters: readonly DeadLetter<LogDefinition>[]): void {
    const kept = this.getSnapshot().filter((letter) => seqOf(letter) < seq);
    this.set(Object.freeze([...kept, ...letters]));
  }

  get(id: WriteId): DeadLetter<LogDefinition> | undefined {
    return this.getSnapshot().find(({ writeId }) => writeId === id);
  }

  redrive(letter: DeadLetter<LogDefinition>, args?: unknown): Write {
    return this.source.redrive(letter, args === undefined ? undefined : { args });
  }

  discard({ entryId }: DeadLetter<LogDefinition>): void {
    this.source.discard(entryId);
  }

  export(): string {
    const letters = this.getSnapshot().map((letter) => ({ ...letter, entry: base64(this.source.bytes(letter.entryId)) }));
    return JSON.stringify({ format: 1, log: this.source.name, letters }, null, 2);
  }
}

function seqOf({ entryId }: DeadLetter<LogDefinition>): number {
  return Number(entryId.split('-')[1]);
}

function base64(bytes: Uint8Array | undefined): string | undefined {
  return bytes && btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''));
}
