import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

// `npm run dev` serves the sources and passes the API on to a running `tailspan serve`.
const server = process.env.TAILSPAN_URL ?? 'http://127.0.0.1:8001';
const api = [
  '/traces',
  '/sessions',
  '/agents',
  '/stats',
  '/stream',
  '/api',
  '/v1',
  '/openapi.json',
  '/docs',
  '/health',
];

export default defineConfig({
  plugins: [svelte()],
  build: {
    target: 'es2023',
    // The policy of the page forbids inline anything; a data: URL would be one.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: {
    proxy: Object.fromEntries(api.map((path) => [path, { target: server, changeOrigin: true }])),
  },
  test: {
    include: ['src/**/*.test.ts'],
    environment: 'node',
  },
});
