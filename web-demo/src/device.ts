/** One device: its switch, its state in words, and its board. */

import { type Client, DriftlogError } from 'driftlog';
import { activityPanel } from './activity';
import type { BoardLog } from './board';
import { element, say } from './element';
import { note } from './note';
import { refusals } from './refusals';
import { todos } from './todos';
import { connectionWords } from './words';

/** A device of this page: a client of its own, with its own storage. */
export interface Device {
  /** `a` or `b`. */
  readonly key: string;
  readonly label: string;
  readonly client: Client;
  readonly log: BoardLog;
  /** Whether this page may act as the server's operator: it runs without tokens. */
  readonly operated: boolean;
}

/** The panel of a device. */
export function devicePanel(device: Device): HTMLElement {
  const { key, label, client, log } = device;
  const words = element('p', { class: 'words', role: 'status' });
  const trouble = element('p', { class: 'trouble', role: 'alert', hidden: true });
  const power = powerSwitch(device);
  const panel = element(
    'section',
    { class: `device ${key}`, 'aria-label': label, 'data-device': key },
    element('header', {}, element('h2', {}, label), power),
    words,
    trouble,
    boardName(log, act),
    addForm(log, act),
    todos(log, act),
    element(
      'button',
      { class: 'clear', type: 'button', onclick: () => act(() => log.do.clearDone()) },
      'Clear what is done',
    ),
    element('h3', {}, 'Shared note'),
    note(log, label, act),
    activityPanel(log, act),
    refusals(log, act),
  );
  if (device.operated) panel.append(downgradeButton(device, trouble));

  /** Actions throw when they cannot be done, such as voting for what another device has just removed. */
  function act(action: () => void): void {
    trouble.hidden = true;
    try {
      action();
    } catch (error) {
      if (!(error instanceof DriftlogError)) throw error;
      trouble.hidden = false;
      say(trouble, error.code === 'no-such-record' ? 'That is gone: it was removed.' : error.message);
    }
  }

  function describe(): void {
    const connection = client.connection.getSnapshot();
    const [waiting, refused] = [log.outbox.getSnapshot().count, log.deadLetters.getSnapshot().length];
    say(words, connectionWords(connection, log.status.getSnapshot(), waiting, refused, Date.now()));
    panel.dataset['state'] = connection.state;
    panel.dataset['kept'] = connection.kept?.state ?? '';
    panel.dataset['waiting'] = String(log.outbox.getSnapshot().count);
  }
  for (const part of [client.connection, log.status, log.outbox, log.deadLetters]) part.subscribe(describe);
  // The seconds to the next try count down.
  setInterval(() => {
    if (client.connection.getSnapshot().state === 'backing-off') describe();
  }, 1000);
  const { reason, lost } = client.storage;
  if (lost !== undefined) {
    const gone = 'Your browser found what it had stored damaged and deleted it. What the server has comes back; what was only here is gone.';
    panel.append(element('p', { class: 'hint', title: lost }, gone));
  }
  if (reason !== undefined) panel.append(element('p', { class: 'hint' }, `Good to know: ${reason}.`));
  return panel;
}

/** The switch that closes the device's socket. A reload keeps its position. */
function powerSwitch({ key, label, client }: Device): HTMLElement {
  const stored = `driftlog-demo offline ${key}`;
  const state = element('span');
  const power = element(
    'button',
    {
      class: 'switch',
      type: 'button',
      role: 'switch',
      'aria-label': `${label}: network`,
      onclick: () => turn(!isOn()),
    },
    state,
    element('i', { 'aria-hidden': 'true' }),
  );
  const isOn = (): boolean => power.getAttribute('aria-checked') === 'true';

  function show(): void {
    const on = localStorage.getItem(stored) === null;
    power.setAttribute('aria-checked', String(on));
    say(state, on ? 'Online' : 'Offline');
  }

  function turn(on: boolean): void {
    if (on) localStorage.removeItem(stored);
    else localStorage.setItem(stored, '');
    show();
    if (on) client.connect();
    else client.disconnect();
  }

  turn(localStorage.getItem(stored) === null);
  // Another tab of the same device may turn it too.
  addEventListener('storage', show);
  return power;
}

/** How long a device that was downgraded from here stays away, in milliseconds. */
const AWAY_MS = 8_000;

/** Has the server downgrade the device, as its operator would: it comes back by itself. */
function downgradeButton({ label, client }: Device, trouble: HTMLElement): HTMLButtonElement {
  const button = element(
    'button',
    {
      class: 'clear downgrade',
      type: 'button',
      title: 'The server forgets where this device stands. It comes back to the current state, with its own work on top.',
      onclick: () => {
        downgrade(label).catch((error: unknown) => {
          trouble.hidden = false;
          say(trouble, `The server did not downgrade this device: ${String(error)}`);
        });
      },
    },
    'Let the server forget this device',
  );
  client.connection.subscribe(({ state }) => {
    button.disabled = state !== 'live';
  });
  return button;
}

/** Docs: `GET /connections` and `POST /connections/{connection}/downgrade`, docs/protocol.md, "HTTP". */
async function downgrade(label: string): Promise<void> {
  const listed = await fetch('./connections');
  if (!listed.ok) throw new Error(`it answers ${listed.status}`);
  const { connections }: { connections: { connection: number; device: string; live: boolean }[] } = await listed.json();
  // This page's own device may have been here before under another database: the newest one is it.
  const own = connections.filter(({ device, live }) => live && device === label).at(-1);
  if (own === undefined) throw new Error('it knows no such device');
  const answer = await fetch(`./connections/${own.connection}/downgrade?away_ms=${AWAY_MS}`, { method: 'POST' });
  if (!answer.ok) throw new Error(`it answers ${answer.status}`);
}

function boardName(log: BoardLog, act: (action: () => void) => void): HTMLElement {
  const input = element('input', {
    class: 'board-name',
    'aria-label': 'Name of the board',
    autocomplete: 'off',
    onchange: () => {
      const name = input.value.trim();
      if (name !== '') act(() => log.do.renameBoard({ name }));
    },
    onkeydown: (event: KeyboardEvent) => {
      if (event.key === 'Enter') input.blur();
    },
  });
  log.query({ from: 'head' }).subscribe(([head]) => {
    if (document.activeElement !== input) input.value = head?.name ?? '';
  });
  return input;
}

function addForm(log: BoardLog, act: (action: () => void) => void): HTMLElement {
  const title = element('input', {
    name: 'title',
    placeholder: 'What is to be done?',
    'aria-label': 'New to-do',
    autocomplete: 'off',
    enterkeyhint: 'done',
  });
  const submit = (event: SubmitEvent): void => {
    event.preventDefault();
    const text = title.value.trim();
    if (text === '') return;
    title.value = '';
    act(() => log.do.addTodo({ id: newId(), title: text }));
  };
  return element('form', { class: 'add', onsubmit: submit }, title, element('button', { type: 'submit' }, 'Add'));
}

/** A random id. `crypto.randomUUID` needs a secure context, which a phone on the local network has not. */
function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
