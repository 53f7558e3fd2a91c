/** The shared note: a text area that shows the log's text, and turns input into splices. */

import type { BoardLog } from './board';
import { element } from './element';
import { moved, spliceBetween } from './splice';

/** The note of a board. `act` performs an action and reports what it throws. */
export function note(log: BoardLog, label: string, act: (action: () => void) => void): HTMLElement {
  // What the text area showed when both sides last agreed. While an input method composes, the log may run ahead.
  let agreed = '';
  let current = '';
  let composing = false;

  const area = element('textarea', {
    class: 'note',
    rows: 4,
    'aria-label': `Shared note on ${label}`,
    placeholder: 'A note that both write at once…',
    spellcheck: 'false',
    oninput: () => {
      if (!composing) take();
    },
    oncompositionstart: () => {
      composing = true;
    },
    oncompositionend: () => {
      composing = false;
      take();
    },
  });

  /** Puts what was typed into the log, where others' changes may have moved its place. */
  function take(): void {
    const typed = spliceBetween(agreed, area.value);
    if (typed !== undefined) {
      const meanwhile = spliceBetween(agreed, current);
      const at = meanwhile === undefined ? typed.at : moved(typed.at, meanwhile);
      const end = meanwhile === undefined ? typed.at + typed.deleted : moved(typed.at + typed.deleted, meanwhile);
      agreed = area.value;
      act(() => log.do.writeNote({ at, deleted: Math.max(0, end - at), inserted: typed.inserted }));
    }
    show();
  }

  /** Shows the log's text; the caret stays with the characters around it. */
  function show(): void {
    if (composing) return;
    const change = spliceBetween(area.value, current);
    if (change !== undefined) {
      const { selectionStart, selectionEnd, selectionDirection } = area;
      area.value = current;
      area.setSelectionRange(moved(selectionStart, change), moved(selectionEnd, change), selectionDirection);
    }
    agreed = current;
  }

  log.query({ from: 'head' }).subscribe(([head]) => {
    current = head?.note ?? '';
    show();
  });
  return area;
}
