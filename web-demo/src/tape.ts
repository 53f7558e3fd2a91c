/**
 * The tape: the log itself, between the devices that write it.
 *
 * Accepted entries stand at their offsets; what a device has only stored stands at its side, below the end. Offsets that
 * neither device here wrote are shown as a gap: they came from elsewhere.
 */

import type { Entry } from 'driftlog';
import type { board } from './board';
import type { Device } from './device';
import { arrange, element, say } from './element';
import { actionWords } from './words';

type BoardEntry = Entry<typeof board>;

/** Consecutive entries that are shown as one line. */
interface Line {
  readonly key: string;
  readonly device: Device;
  readonly entry: BoardEntry;
  readonly first: number | undefined;
  last: number | undefined;
  times: number;
}

const LINES_MAX = 200;

/** The tape of some devices' log. */
export function tape(devices: readonly Device[]): HTMLElement {
  const list = element('ol', { class: 'lines', tabindex: 0, 'aria-label': 'Entries of the log' });
  const summary = element('p', { class: 'words' });
  const panel = element(
    'section',
    { class: 'tape', 'aria-label': 'The log' },
    element('header', {}, element('h2', {}, 'The log')),
    summary,
    list,
  );
  const shown = new Map<string, HTMLLIElement>();
  let reading = false;
  let stale = false;

  /** Reads own entries of all devices; a change in the meantime makes it read once more. */
  async function read(): Promise<void> {
    stale = true;
    if (reading) return;
    reading = true;
    try {
      while (stale) {
        // Once a frame is often enough for eyes.
        await new Promise(requestAnimationFrame);
        stale = false;
        const all = await Promise.all(devices.map(async (device) => ({ device, entries: await device.log.entries() })));
        show(linesOf(all.flatMap(({ device, entries }) => entries.map((entry) => ({ device, entry })))));
      }
    } finally {
      reading = false;
    }
  }

  function show(lines: readonly Line[]): void {
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    const items: HTMLLIElement[] = [];
    let end = lines.find(({ first }) => first !== undefined)?.first ?? 0;
    const gapTo = (next: number): void => {
      if (next > end) items.push(gapItem(shown, end, next));
      end = Math.max(end, next);
    };
    const total = Math.max(0, ...devices.map(({ log }) => log.status.getSnapshot().end));
    for (const line of lines) {
      if (line.first !== undefined) gapTo(line.first);
      else if (line.entry.status !== 'accepted') gapTo(total);
      if (line.last !== undefined) end = Math.max(end, line.last + 1);
      items.push(lineItem(shown, line));
    }
    gapTo(total);
    const kept = new Set(items);
    for (const [key, item] of shown) if (!kept.has(item)) shown.delete(key);
    arrange(list, items);
    if (atEnd) list.scrollTop = list.scrollHeight;
    const waiting = lines
      .filter(({ entry }) => entry.status === 'stored' || entry.status === 'pending')
      .reduce((sum, { times }) => sum + times, 0);
    say(
      summary,
      `${end} ${end === 1 ? 'entry' : 'entries'} in the server's log. ${waiting === 0 ? 'None waits' : `${waiting} wait${waiting === 1 ? 's' : ''}`} on a device.`,
    );
  }

  for (const { log } of devices) {
    for (const part of [log.status, log.outbox, log.deadLetters]) part.subscribe(() => void read());
    // Any row that changes its status is an entry that changed its own.
    log.query({ from: 'todos' }).subscribe(() => void read());
    log.query({ from: 'head' }).subscribe(() => void read());
  }
  return panel;
}

/** Accepted lines by offset (those whose offset a snapshot covers first), then the others in the order of their time. */
function linesOf(all: readonly { device: Device; entry: BoardEntry }[]): Line[] {
  const rank = ({ status, offset }: BoardEntry): number => (status === 'accepted' ? (offset ?? -1) : Infinity);
  const sorted = [...all].sort((a, b) => rank(a.entry) - rank(b.entry) || a.entry.time - b.entry.time);
  const lines: Line[] = [];
  for (const { device, entry } of sorted) {
    const before = lines.at(-1);
    if (before !== undefined && joins(before, device, entry)) {
      before.last = entry.offset ?? undefined;
      before.times++;
    } else {
      lines.push({ key: entry.writeId, device, entry, first: entry.offset, last: entry.offset, times: 1 });
    }
  }
  return lines.slice(-LINES_MAX);
}

/** Keystrokes and votes in a row are one line. */
function joins(line: Line, device: Device, entry: BoardEntry): boolean {
  if (line.device !== device || line.entry.action !== entry.action || line.entry.status !== entry.status) return false;
  if (line.last !== undefined && entry.offset !== line.last + 1) return false;
  if (entry.action === 'writeNote') return true;
  return entry.action === 'vote' && line.entry.action === 'vote' && line.entry.args?.id === entry.args?.id;
}

function lineItem(shown: Map<string, HTMLLIElement>, { key, device, entry, first, last, times }: Line): HTMLLIElement {
  const place =
    first === undefined
      ? PLACES[entry.status]
      : last !== undefined && last > first
        ? `${first}–${last}`
        : String(first);
  const words = actionWords(entry, times);
  let item = shown.get(key);
  if (item === undefined) {
    item = element(
      'li',
      {},
      element('b', { class: 'place' }),
      element('span', { class: 'what' }),
      element('em', { class: 'who' }, device.label),
    );
    shown.set(key, item);
  }
  item.className = `${device.key} ${entry.status}`;
  item.dataset['write'] = entry.writeId;
  say(item.children[0]!, place);
  say(item.children[1]!, words);
  return item;
}

const PLACES: Record<BoardEntry['status'], string> = {
  pending: 'pending',
  stored: 'stored',
  accepted: 'accepted',
  refused: 'refused',
};

function gapItem(shown: Map<string, HTMLLIElement>, from: number, end: number): HTMLLIElement {
  const key = `gap ${from}`;
  let item = shown.get(key);
  if (item === undefined) {
    item = element('li', { class: 'gap' });
    shown.set(key, item);
  }
  say(item, end - from === 1 ? `${from}, from elsewhere` : `${from}–${end - 1}, from elsewhere`);
  return item;
}
