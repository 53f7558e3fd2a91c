/** States in words. */

import type { Connection, Entry, LogStatus } from 'driftlog';
import type { board } from './board';

/** A device's connection and what waits on it, as one sentence or two. */
export function connectionWords(
  { state, reason, retryAt, kept }: Connection,
  log: LogStatus,
  waiting: number,
  refused: number,
  now: number,
): string {
  const queue = waiting === 0 ? '' : ` ${actions(waiting)} wait${waiting === 1 ? 's' : ''} on this device.`;
  switch (state) {
    case 'live':
      if (log.state === 'forbidden') return 'Connected, but the token gives no right to this board.';
      if (log.state === 'update-needed' || log.state === 'degraded')
        return `This board cannot be kept up to date: ${log.reason ?? log.state}.`;
      if (log.state === 'read-only')
        return `Connected, but the token gives no right to change this board.${queue || ' You see what others do.'}`;
      if (log.state === 'append-only' && waiting === 0)
        return 'Connected, but the token gives no right to read this board. What you did is in the log.';
      if (waiting > 0) return `Connected. Sending ${actions(waiting)}.`;
      if (log.state === 'behind') return 'Connected. Catching up.';
      return (
        (kept?.reason === undefined
          ? 'Connected.'
          : `Connected and active again: the server had kept nothing for this device, because ${because[kept.reason]}.`) +
        (refused > 0 ? ' All but what was refused is in the log.' : ' Everything is in the log.')
      );
    case 'connecting':
      return `Connecting…${queue}`;
    case 'backing-off': {
      const seconds = Math.max(0, Math.ceil(((retryAt ?? now) - now) / 1000));
      const when = seconds === 0 ? 'now' : `in ${seconds} s`;
      if (kept?.state === 'inactive')
        return `Inactive: the server keeps nothing for this device, because ${because[kept.reason ?? 'other']}. It comes back ${when} and loses nothing.${queue}`;
      return `No answer from the server. Next try ${when}.${queue}`;
    }
    case 'offline':
      return `Offline.${queue === '' ? ' Nothing waits to be sent.' : queue}`;
    case 'needs-auth':
      return `The server wants a token: open the link that npm start printed.${queue}`;
    case 'blocked':
      return `Stopped: ${reason ?? 'the server refused this device'}.${queue}`;
    case 'closed':
      return 'Closed.';
    case 'idle':
      return `Not connected yet.${queue}`;
  }
}

/** Why a connection was downgraded. */
const because = {
  idle: 'it was away for long',
  lag: 'it was far behind',
  pressure: 'it had too many others to serve',
  asked: 'somebody asked for that',
  other: 'it had its reasons',
} as const;

/** What an action did, in words; `times` of them in a row. */
export function actionWords(entry: Entry<typeof board>, times: number): string {
  switch (entry.action) {
    case 'addTodo':
      return `add “${entry.args?.title ?? ''}”`;
    case 'retitle':
      return `retitle “${entry.args?.title ?? ''}”`;
    case 'renameBoard':
      return `name the board “${entry.args?.name ?? ''}”`;
    case 'tag':
    case 'untag':
      return `${entry.action} “${entry.args?.tag ?? ''}”`;
    case 'writeNote':
      return times === 1 ? 'type in the note' : `type in the note, ${times}×`;
    case 'cheer':
      return `cheer, ${entry.args?.mood ?? ''}`;
    case 'toggle':
      return 'tick';
    case 'clearDone':
      return 'clear what is done';
    case 'vote':
      return times === 1 ? 'vote' : `vote, ${times}×`;
    default:
      return entry.action;
  }
}

function actions(count: number): string {
  return count === 1 ? '1 action' : `${count} actions`;
}
