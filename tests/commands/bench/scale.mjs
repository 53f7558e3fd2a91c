/**
 * The figures of what there is a lot of: pending actions, records, logs, connections, and actions that were ever made.
 *
 * What needs no browser is measured by the program `scale` of the tests.
 */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** Actions ever made, on the same fields. */
const growthAt = [100, 1_000, 10_000, 50_000];
const growthFields = 100;

export const scaleFigures = [
  { name: '100,000 actions made in 30 days offline', measure: (stage) => stage.native('scale', ['offline', '100000']) },
  { name: 'one log of 100,000 records', measure: (stage) => stage.native('scale', ['log', '100000']) },
  { name: 'one log of 1,000,000 records', measure: (stage) => stage.native('scale', ['log', '1000000']) },
  { name: '10,000 small logs on one client', measure: (stage) => stage.native('scale', ['logs', '10000']) },
  { name: 'server memory, 10,000 registered and 1,000 active connections', measure: (stage) => stage.native('scale', ['connections', '10000', '1000']) },
  { name: '20,000 pending actions in the browser', measure: (stage) => pendingActions(stage, 20_000) },
  {
    name: 'growth in the browser',
    measure: growth,
    plot: {
      file: 'growth-in-the-browser.svg',
      title: `What it comes to, against the actions ever made on the same ${growthFields} fields`,
      at: growthAt,
      series: [
        { key: 'client_bytes', label: 'bytes stored by the client' },
        { key: 'server_bytes', label: 'bytes stored by the server' },
        { key: 'sent_bytes', label: 'bytes sent' },
        { key: 'first_view_us', label: 'µs to the first view of a new client' },
      ],
    },
  },
];

/** Made without a link, started from there without a link, then sent. */
async function pendingActions(stage, actions) {
  const link = await stage.link();
  await link.proxy.close();
  const options = { name: 'pending', id: '1', url: link.url };
  const page = await stage.open();
  await page.actOffline(options, actions);
  const stored_bytes = await page.storedBytes();
  await page.reload();
  const { first_view_ms, pending, rows } = await page.startPending(options);
  if (pending !== actions || rows !== actions / 2) throw new Error(`${pending} pending and ${rows} rows after a reload`);
  await link.proxy.open();
  const upload_ms = await page.connectAndUpload(actions);
  return { first_view_ms, upload_ms, accepted: actions, stored_bytes, up_bytes_an_action: link.bytes.up / actions };
}

/** Bytes and times after so many actions on the same fields, each on a server and a device of its own. */
async function growth(stage) {
  const figures = {};
  for (const actions of growthAt) {
    const server = await stage.startServer({ args: ['--retention', '*=last:0'] });
    const link = await stage.link(server);
    const page = await stage.open();
    const end = await page.overwrite({ name: 'writer', id: '1', url: link.url }, growthFields, actions);
    const url = `ws://127.0.0.1:${server.port}/sync`;
    const reader = await stage.open();
    const first_view_ms = await reader.firstViews({ name: 'reader', id: '1', url, storage: 'memory' }, end, 5);
    figures[`client_bytes_at_${actions}`] = await page.storedBytes();
    figures[`sent_bytes_at_${actions}`] = link.bytes.up;
    figures[`first_view_us_at_${actions}`] = first_view_ms * 1_000;
    await page.closeAll();
    await server.stop();
    figures[`server_bytes_at_${actions}`] = bytesUnder(join(server.folder, 'data'));
  }
  return figures;
}

function bytesUnder(folder) {
  return readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
}
