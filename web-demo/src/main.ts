/** Two devices on one page, and the log between them. `?device=a` shows one alone, `?board=name` another board. */

import { createClient } from 'driftlog';
import { board } from './board';
import { type Device, devicePanel } from './device';
import { element, say } from './element';
import { tape } from './tape';

const query = new URLSearchParams(location.search);
const stage = document.querySelector('#stage')!;
const readiness = document.querySelector('#readiness')!;

try {
  const only = query.get('device');
  const keys = only === 'a' || only === 'b' ? [only] : ['a', 'b'];
  const devices = await Promise.all(keys.map(openDevice));
  const [first, second] = devices.map(devicePanel);
  stage.append(...[first, tape(devices), second].filter((panel) => panel !== undefined));
  stage.classList.toggle('alone', devices.length === 1);
} catch (error) {
  stage.append(
    element(
      'p',
      { class: 'trouble', role: 'alert' },
      `The board cannot be opened: ${error instanceof Error ? error.message : String(error)}`,
    ),
  );
  throw error;
}
await keepForOffline();

async function openDevice(key: string): Promise<Device> {
  const url = new URL(import.meta.env.DEV ? 'http://localhost:8787/sync' : './sync', location.href);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  const token = linkToken();
  const client = await createClient({
    name: `device-${key}`,
    device: `Device ${key.toUpperCase()}`,
    url: `${url.origin}${url.pathname}`,
    ...(token === undefined ? {} : { token }),
  });
  const log = await client.open(board, { id: query.get('board') || 'demo' });
  return { key, label: `Device ${key.toUpperCase()}`, client, log, operated: token === undefined };
}

/** The token of the link that was opened last; what stands after # is never sent to a server. */
function linkToken(): string | undefined {
  const token = new URLSearchParams(location.hash.slice(1)).get('token');
  if (token !== null) localStorage.setItem('driftlog-demo token', token);
  return localStorage.getItem('driftlog-demo token') ?? undefined;
}

async function keepForOffline(): Promise<void> {
  if (!('serviceWorker' in navigator)) {
    say(
      readiness,
      'This address is not secure (https or localhost), so the page itself cannot be kept for offline use.',
    );
    return;
  }
  if (import.meta.env.DEV) return;
  await navigator.serviceWorker.register('./worker.js');
  await navigator.serviceWorker.ready;
  say(readiness, 'Ready: this page opens without a network too.');
}
