/**
 * What happened lately: a fold, which is a view with code of the app. One action that this code cannot take is left out
 * of this view, kept, and shown; everything else goes on.
 */

import { type Fold, type FoldSnapshot, fold, type ParkedEntry } from 'driftlog';
import { type BoardLog, board } from './board';
import { arrange, element, say } from './element';

/** What the fold comes to. */
interface Activity {
  readonly actions: number;
  /** In words, the latest first. */
  readonly latest: readonly string[];
}

const LATEST_MAX = 4;

/** The moods that this version of the demo knows. */
const MOODS: Record<string, { readonly face: string; readonly words: string }> = {
  glad: { face: '♥', words: 'somebody cheers' },
};

/** No version of the demo knows this one. */
const UNKNOWN_MOOD = 'inscrutable';

const activity = fold(board, 'activity', 1, {
  init: { actions: 0, latest: [] } as Activity,
  on: {
    addTodo: (before, { title }) => told(before, `+ “${title}” was added`),
    retitle: (before, { title }) => told(before, `✎ now it is “${title}”`),
    toggle: (before) => told(before, '✓ something was ticked'),
    vote: (before) => told(before, '▲ a vote'),
    remove: (before) => told(before, '× something was removed'),
    clearDone: (before) => told(before, '× what is done was cleared'),
    // A newer version may send a mood that this one does not know. Then this throws: that is what the button is for.
    cheer: (before, { mood }) => told(before, `${MOODS[mood]!.face} ${MOODS[mood]!.words}`),
  },
});

function told({ actions, latest }: Activity, words: string): Activity {
  return { actions: actions + 1, latest: [words, ...latest].slice(0, LATEST_MAX) };
}

/** The section of a board. `act` performs an action and reports what it throws. */
export function activityPanel(log: BoardLog, act: (action: () => void) => void): HTMLElement {
  const view = log.fold(activity);
  const count = element('p', { class: 'words' });
  const trouble = element('p', { class: 'doubt', role: 'status', hidden: true });
  const latest = element('ol', { class: 'latest', 'aria-label': 'Latest activity' });
  view.subscribe((snapshot) => {
    const { actions } = snapshot.value;
    say(count, actions === 0 ? 'Nothing yet.' : `${actions} ${actions === 1 ? 'action' : 'actions'} so far.`);
    latest.replaceChildren(...snapshot.value.latest.map((words) => element('li', {}, words)));
    const doubt = doubtWords(snapshot);
    say(trouble, doubt);
    trouble.hidden = doubt === '';
  });
  return element(
    'section',
    { class: 'activity', 'aria-label': 'Activity' },
    element('h3', {}, 'Activity'),
    count,
    latest,
    element(
      'div',
      { class: 'choices' },
      element('button', { type: 'button', onclick: () => act(() => log.do.cheer({ mood: 'glad' })) }, '♥ Cheer'),
      element(
        'button',
        {
          type: 'button',
          class: 'poison',
          title: 'An action that the server takes and the code of this view cannot',
          onclick: () => act(() => log.do.cheer({ mood: UNKNOWN_MOOD })),
        },
        '☠ Plant a poison',
      ),
    ),
    trouble,
    parkedList(view),
  );
}

/** What is not decided yet, in words. */
function doubtWords({ state, breaker, suspected, failing }: FoldSnapshot<Activity>): string {
  if (breaker !== 'closed')
    return 'Everything fails in this view, so it is not the actions. Nothing is left out for good; it is tried again by itself.';
  if (suspected.length + failing.length > 0)
    return 'This view cannot take an action. It is passed over for now; once later ones have worked, it is set aside.';
  if (state === 'waiting') return 'Waits for older actions that only the server has.';
  return '';
}

function parkedList(view: Fold<Activity>): HTMLElement {
  const items = new Map<number, HTMLLIElement>();
  const list = element('ul');
  const section = element(
    'section',
    { class: 'refusals parked', 'aria-label': 'Set aside by the activity', hidden: true },
    element('h3', {}, 'Set aside by this view'),
    element('p', { class: 'hint' }, 'The code of this view cannot take these. The board, the log and the other views have them.'),
    list,
  );
  view.parked.subscribe((parked) => {
    const offsets = new Set(parked.map(({ offset }) => offset));
    for (const offset of items.keys()) if (!offsets.has(offset)) items.delete(offset);
    for (const entry of parked) if (!items.has(entry.offset)) items.set(entry.offset, parkedItem(view, entry));
    arrange(
      list,
      parked.map(({ offset }) => items.get(offset)!),
    );
    section.hidden = parked.length === 0;
  });
  return section;
}

function parkedItem(view: Fold<Activity>, { offset, action, args, reason, attempts }: ParkedEntry): HTMLLIElement {
  const mood = (args as { mood?: string } | undefined)?.mood;
  return element(
    'li',
    {},
    element('strong', {}, `${action}${mood === undefined ? '' : ` “${mood}”`}, at ${offset} in the log`),
    element('p', { class: 'why' }, `${reason} (tried ${attempts} times)`),
    element(
      'span',
      { class: 'choices' },
      element('button', { type: 'button', onclick: () => view.redrive(offset) }, 'Try again'),
      element('button', { type: 'button', onclick: () => view.discard(offset) }, 'Discard'),
    ),
  );
}
