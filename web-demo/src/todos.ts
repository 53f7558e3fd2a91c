/** The list of to-dos: one element a row, kept as long as its row, so that focus stays where it is. */

import type { BoardLog, Todo } from './board';
import { arrange, element, say } from './element';

interface Item {
  readonly root: HTMLLIElement;
  show(todo: Todo): void;
}

const STATUS_WORDS: Record<Todo['$']['status'], string> = {
  pending: 'being stored',
  stored: 'stored on this device',
  accepted: 'in the log',
  refused: 'refused',
};

/** The list of a board. `act` performs an action and reports what it throws. */
export function todos(log: BoardLog, act: (action: () => void) => void): HTMLElement {
  const items = new Map<string, Item>();
  const list = element('ul', { class: 'todos' });
  const nothing = element('p', { class: 'nothing' }, 'Nothing to do. Add something above.');
  const query = log.query({
    from: 'todos',
    orderBy: [
      ['addedAt', 'asc'],
      ['id', 'asc'],
    ],
  });
  query.subscribe((rows) => {
    const gone = new Set(items.keys());
    for (const row of rows) {
      gone.delete(row.id);
      let item = items.get(row.id);
      if (item === undefined) {
        item = todoItem(log, row.id, act);
        items.set(row.id, item);
      }
      item.show(row);
    }
    for (const id of gone) items.delete(id);
    arrange(
      list,
      rows.map(({ id }) => items.get(id)!.root),
    );
    nothing.hidden = rows.length > 0;
  });
  return element('div', {}, list, nothing);
}

function todoItem(log: BoardLog, id: string, act: (action: () => void) => void): Item {
  const done = element('input', { type: 'checkbox', onchange: () => act(() => log.do.toggle({ id })) });
  const title = element('input', {
    class: 'title',
    'aria-label': 'Title',
    autocomplete: 'off',
    onchange: () => retitle(),
    onkeydown: (event: KeyboardEvent) => {
      if (event.key === 'Enter') title.blur();
      if (event.key === 'Escape') {
        title.value = shown?.title ?? '';
        title.blur();
      }
    },
  });
  const count = element('span');
  const vote = element(
    'button',
    { class: 'vote', type: 'button', onclick: () => act(() => log.do.vote({ id })) },
    '▲ ',
    count,
  );
  const remove = element(
    'button',
    { class: 'remove', type: 'button', onclick: () => act(() => log.do.remove({ id })) },
    '×',
  );
  const tags = element('span', { class: 'tags' });
  const newTag = tagInput((tag) => act(() => log.do.tag({ id, tag })));
  const status = element('span', { class: 'status', role: 'img' });
  const root = element(
    'li',
    { 'data-id': id },
    element('div', { class: 'line' }, done, title, vote, remove),
    element('div', { class: 'line small' }, tags, newTag, status),
  );
  let shown: Todo | undefined;

  function retitle(): void {
    const next = title.value.trim();
    if (next === '' || shown === undefined) title.value = shown?.title ?? '';
    else if (next !== shown.title) act(() => log.do.retitle({ id, title: next }));
  }

  function show(todo: Todo): void {
    if (todo === shown) return;
    const before = shown;
    shown = todo;
    done.checked = todo.done;
    done.setAttribute('aria-label', `Done: ${todo.title}`);
    // What somebody is typing is not overwritten; it is written when they leave the field.
    if (document.activeElement !== title) title.value = todo.title;
    say(count, String(todo.votes));
    vote.setAttribute('aria-label', `Vote for ${todo.title}, ${todo.votes} so far`);
    remove.setAttribute('aria-label', `Remove ${todo.title}`);
    newTag.setAttribute('aria-label', `Add a tag to ${todo.title}`);
    if (before?.tags.join('\n') !== todo.tags.join('\n')) tags.replaceChildren(...todo.tags.map(tagChip));
    root.classList.toggle('done', todo.done);
    status.className = `status ${todo.$.status}`;
    status.setAttribute('aria-label', STATUS_WORDS[todo.$.status]);
    status.title = STATUS_WORDS[todo.$.status];
  }

  function tagChip(tag: string): HTMLElement {
    const untag = () => act(() => log.do.untag({ id, tag }));
    return element(
      'button',
      { class: 'tag', type: 'button', 'aria-label': `Remove the tag ${tag}`, title: 'Remove', onclick: untag },
      tag,
    );
  }

  return { root, show };
}

function tagInput(add: (tag: string) => void): HTMLInputElement {
  const input = element('input', {
    class: 'new-tag',
    placeholder: '+ tag',
    maxlength: 24,
    autocomplete: 'off',
    onchange: () => {
      const tag = input.value.trim();
      input.value = '';
      if (tag !== '') add(tag);
    },
  });
  return input;
}
