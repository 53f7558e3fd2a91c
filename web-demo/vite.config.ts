/** Builds the demo, and the service worker that lets it open without a network. */

import { readFileSync } from 'node:fs';
import { defineConfig, type Plugin } from 'vite';

export default defineConfig({
  base: './',
  // The engine is one large chunk, loaded beside the page's own code.
  build: { target: 'es2022', chunkSizeWarningLimit: 4096 },
  plugins: [offline()],
});

/** Writes `worker.js` with the list of everything that was built; its name for the cache changes with any of it. */
function offline(): Plugin {
  return {
    name: 'offline',
    apply: 'build',
    generateBundle: {
      order: 'post',
      handler(_, bundle) {
        // File names carry a hash of their content, except those of pages.
        const files = Object.keys(bundle).filter((name) => !name.endsWith('.map'));
        const source = readFileSync(new URL('./src/worker.js', import.meta.url), 'utf8');
        this.emitFile({
          type: 'asset',
          fileName: 'worker.js',
          source: `const FILES = ${JSON.stringify(['./', 'icon.svg', ...files.filter((name) => name !== 'index.html')])};\n${source}`,
        });
      },
    },
  };
}
