/**
 * A text in a draft: the engine's, with the action's splices on it.
 *
 * It promises that nothing is read whole that was not asked for whole, so that typing into a long text costs what
 * typing into a short one does. Whether splices fit is checked by who records them.
 */

import { spliced, type WireSplice } from '../boundary.js';

/** Names a field. @internal */
export type FieldPath = [collection: string, record: string, field: string];

/** Where texts are read as they are shown at present. @internal */
export interface TextSource {
  text(...field: FieldPath): string;
  textLength(...field: FieldPath): number;
  splitsCharacter(at: number, ...field: FieldPath): boolean;
}

/** A text as a draft shows it. @internal */
export class DraftText {
  readonly #base: { source: TextSource; path: FieldPath } | undefined;
  #splices: WireSplice[] = [];
  #length: number;
  /** The whole, once somebody has asked for it. */
  #whole: string | undefined;

  constructor(base: { source: TextSource; path: FieldPath } | undefined) {
    this.#base = base;
    this.#length = base === undefined ? 0 : base.source.textLength(...base.path);
    if (this.#length === 0) this.#whole = '';
  }

  get length(): number {
    return this.#length;
  }

  /** Whether a position lies between the two halves of a character. */
  splitsCharacter(position: number): boolean {
    if (position <= 0 || position >= this.#length) return false;
    if (this.#whole !== undefined || this.#base === undefined) return splitsPair(this.toString(), position);
    // Back through the splices: it lies in what one of them inserted, or in what was there before.
    let at = position;
    for (const [begin, deleted, inserted] of [...this.#splices].reverse()) {
      if (at <= begin) continue;
      if (at < begin + inserted.length) return splitsPair(inserted, at - begin);
      at += deleted - inserted.length;
    }
    return this.#base.source.splitsCharacter(at, ...this.#base.path);
  }

  splice(splices: readonly WireSplice[]): void {
    for (const [, deleted, inserted] of splices) this.#length += inserted.length - deleted;
    if (this.#whole === undefined) this.#splices.push(...splices);
    else this.#whole = spliced(this.#whole, splices);
  }

  become(content: string): void {
    this.#whole = content;
    this.#length = content.length;
  }

  toString(): string {
    this.#whole ??= spliced(this.#base!.source.text(...this.#base!.path), this.#splices);
    return this.#whole;
  }
}

function splitsPair(text: string, at: number): boolean {
  return (
    at > 0 &&
    at < text.length &&
    (text.charCodeAt(at) & 0xfc00) === 0xdc00 &&
    (text.charCodeAt(at - 1) & 0xfc00) === 0xd800
  );
}
