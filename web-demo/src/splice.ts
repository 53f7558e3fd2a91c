/** Changes of a text as single splices, for a text area that others write in too. */

import type { Splice } from './board';

/** The smallest splice that leads from one text to another; it never cuts a character in two. */
export function spliceBetween(before: string, after: string): Splice | undefined {
  if (before === after) return undefined;
  const shorter = Math.min(before.length, after.length);
  let start = 0;
  while (start < shorter && before[start] === after[start]) start++;
  if (isHalf(before, start) || isHalf(after, start)) start--;
  let end = 0;
  while (end < shorter - start && before[before.length - 1 - end] === after[after.length - 1 - end]) end++;
  if (isHalf(before, before.length - end) || isHalf(after, after.length - end)) end--;
  return { at: start, deleted: before.length - end - start, inserted: after.slice(start, after.length - end) };
}

/** Where a position is after a splice by somebody else. */
export function moved(position: number, { at, deleted, inserted }: Splice): number {
  if (position <= at) return position;
  if (position >= at + deleted) return position + inserted.length - deleted;
  return at + inserted.length;
}

/** Whether a position lies between the two halves of one character. */
function isHalf(text: string, at: number): boolean {
  return (
    at > 0 &&
    at < text.length &&
    (text.charCodeAt(at) & 0xfc00) === 0xdc00 &&
    (text.charCodeAt(at - 1) & 0xfc00) === 0xd800
  );
}
