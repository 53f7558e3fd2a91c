/**
 * The service worker: keeps the page, its code and the wasm, so that the board opens without server and network.
 *
 * Pages come from the network while it answers soon, else from the cache; files with a hash in their name come from the
 * cache first. The sync connection and the server's own addresses are left alone. The build puts FILES in front.
 */

const CACHE = `driftlog-demo ${FILES.join(' ')}`;
const PATIENCE_MS = 1500;

self.addEventListener('install', (event) => {
  event.waitUntil(keepAll().then(() => self.skipWaiting()));
});

self.addEventListener('activate', (event) => {
  event.waitUntil(dropOthers().then(() => self.clients.claim()));
});

self.addEventListener('fetch', (event) => {
  const { request } = event;
  if (request.method !== 'GET' || new URL(request.url).origin !== self.location.origin) return;
  if (request.mode === 'navigate') event.respondWith(page(request));
  else if (isKept(request.url)) event.respondWith(file(request));
});

async function keepAll() {
  const cache = await caches.open(CACHE);
  await cache.addAll(FILES.map((name) => new Request(name, { cache: 'reload' })));
}

async function dropOthers() {
  const names = await caches.keys();
  await Promise.all(
    names.filter((name) => name.startsWith('driftlog-demo ') && name !== CACHE).map((name) => caches.delete(name)),
  );
}

async function page(request) {
  const kept = await (await caches.open(CACHE)).match('./');
  if (!kept) return fetch(request);
  const late = new Promise((resolve) => setTimeout(resolve, PATIENCE_MS, kept));
  return Promise.race([
    fetch(request).then(
      (answer) => (answer.ok ? answer : kept),
      () => kept,
    ),
    late,
  ]);
}

async function file(request) {
  return (await (await caches.open(CACHE)).match(request)) ?? fetch(request);
}

function isKept(url) {
  return FILES.some((name) => url === new URL(name, self.registration.scope).href);
}
