/** What the server refused on one device: why, and what can be done about it. Shown only when there is something. */

import type { DeadLetter, Write } from 'driftlog';
import type { BoardLog, board } from './board';
import { arrange, element, say } from './element';
import { actionWords } from './words';

type Letter = DeadLetter<typeof board>;

interface Item {
  readonly root: HTMLLIElement;
  show(letter: Letter): void;
}

/** The section of a board. `act` performs an action and reports what it throws. */
export function refusals(log: BoardLog, act: (action: () => void) => void): HTMLElement {
  const items = new Map<string, Item>();
  const list = element('ul');
  const section = element(
    'section',
    { class: 'refusals', 'aria-label': 'Refused actions', hidden: true },
    element('h3', {}, 'Not taken'),
    element('p', { class: 'hint' }, 'The server refused these. They are kept here until you decide.'),
    list,
  );
  log.deadLetters.subscribe((letters) => {
    // What was tried again and refused again stands for the line of attempts.
    const lines = new Map(letters.map((letter) => [lineOf(letter), letter]));
    for (const line of items.keys()) if (!lines.has(line)) items.delete(line);
    for (const [line, letter] of lines) {
      const item = items.get(line) ?? refusal(log, line, act);
      items.set(line, item);
      item.show(letter);
    }
    arrange(
      list,
      [...lines.keys()].map((line) => items.get(line)!.root),
    );
    section.hidden = lines.size === 0;
  });
  return section;
}

/** The first entry of a line of attempts. */
function lineOf({ entryId, replaces }: Letter): string {
  return replaces ?? entryId;
}

function refusal(log: BoardLog, line: string, act: (action: () => void) => void): Item {
  let shown: Letter | undefined;
  const what = element('strong');
  const why = element('p', { class: 'why' });
  const text = element('input', { 'aria-label': 'Change it', autocomplete: 'off', enterkeyhint: 'done' });
  const again = element('button', { type: 'submit', class: 'again' });
  const discard = element('button', { type: 'button', onclick: () => drop() }, 'Discard');
  const form = element(
    'form',
    { onsubmit: (event: SubmitEvent) => redrive(event) },
    text,
    element('span', { class: 'choices' }, again, discard),
  );

  function redrive(event: SubmitEvent): void {
    event.preventDefault();
    const letter = shown;
    if (letter !== undefined) act(() => void (editing(log, letter)?.redrive(text.value.trim()) ?? log.deadLetters.redrive(letter)));
  }

  function drop(): void {
    act(() => {
      for (const letter of log.deadLetters.getSnapshot()) if (lineOf(letter) === line) log.deadLetters.discard(letter);
    });
  }

  function show(letter: Letter): void {
    const edit = editing(log, letter);
    if (shown?.entryId !== letter.entryId) text.value = edit?.text ?? '';
    shown = letter;
    say(what, actionWords(letter, 1));
    say(why, letter.redriven ? 'Sent again. No answer yet.' : `Refused: ${letter.reason || letter.code}.`);
    say(again, edit === undefined ? 'Try again' : 'Try again as edited');
    text.hidden = edit === undefined;
    form.hidden = letter.redriven;
  }

  return { root: element('li', {}, what, why, form), show };
}

/** The one text of an action that can be changed before it is tried again. */
function editing(log: BoardLog, letter: Letter): { text: string; redrive(text: string): Write } | undefined {
  const { deadLetters } = log;
  switch (letter.action) {
    case 'addTodo':
    case 'retitle': {
      const { args } = letter;
      return args && { text: args.title, redrive: (title) => deadLetters.redrive(letter, { ...args, title }) };
    }
    case 'tag': {
      const { args } = letter;
      return args && { text: args.tag, redrive: (tag) => deadLetters.redrive(letter, { ...args, tag }) };
    }
    case 'renameBoard': {
      const { args } = letter;
      return args && { text: args.name, redrive: (name) => deadLetters.redrive(letter, { name }) };
    }
    default:
      return undefined;
  }
}
