import { defineConfig } from '@playwright/test';

// The tests of the pages: Debian's Chromium against the real program. `tests/harness.ts` starts a server for each test file.
export default defineConfig({
  testDir: 'tests',
  outputDir: 'test-results',
  timeout: 60_000,
  expect: { timeout: 15_000 },
  fullyParallel: false,
  workers: 1,
  retries: 0,
  forbidOnly: process.env.CI === 'true',
  reporter: [['list']],
  use: {
    browserName: 'chromium',
    viewport: { width: 1440, height: 900 },
    launchOptions: {
      executablePath: process.env.TAILSPAN_CHROMIUM ?? '/usr/bin/chromium',
      // Containers run as root, where Chromium's own sandbox cannot start.
      args: process.getuid?.() === 0 ? ['--no-sandbox'] : [],
    },
  },
});
