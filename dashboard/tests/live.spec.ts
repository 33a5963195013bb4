import type { Page } from '@playwright/test';
import { createHash } from 'node:crypto';
import { expect, newTrace, span, test, type Server } from './harness';

const LENS = 'level=standard&event_types=*';

interface Digest {
  through: number;
  events: number;
  sha256: string;
}

const digest = (server: Server, trace: string): Promise<Digest> => server.json(`/traces/${trace}/digest?${LENS}`);

/** What the page says that it has. */
async function received(page: Page): Promise<{ state: string; events: number; digest: string }> {
  const link = page.locator('details.link');
  if (!(await link.evaluate((element: HTMLDetailsElement) => element.open))) await link.locator('summary').click();
  await expect(link.locator('.digest')).toHaveText(/^[0-9a-f]{64}$/);
  return {
    state: (await link.getAttribute('data-state')) ?? '',
    events: Number(await link.getAttribute('data-events')),
    digest: (await link.locator('.digest').textContent()) ?? '',
  };
}

const state = (page: Page) => page.locator('details.link');

/** The stream as another reader has it: the count and the digest without the page and without the server's own. */
async function streamed(server: Server, trace: string): Promise<{ events: number; sha256: string }> {
  const response = await fetch(`${server.url}/traces/${trace}/stream?${LENS}`);
  const frames = (await response.text()).split('\n\n').filter((frame) => !frame.includes('event: '));
  const hash = createHash('sha256');
  let events = 0;
  for (const frame of frames) {
    const data = /^data: (.*)$/m.exec(frame)?.[1];
    if (data === undefined) continue;
    events += 1;
    hash.update(`${data}\n`);
  }
  return { events, sha256: hash.digest('hex') };
}

test('a run is seen growing, and is complete through a reload and a restart of the server', async ({
  page,
  fresh: server,
}) => {
  test.setTimeout(150_000);
  await page.goto(server.url);
  await expect(page.getByRole('heading', { name: 'Connect an agent' })).toBeVisible();
  const demo = server.demo({ runs: 1, speed: 1.5 });
  const trace = await demo.trace;
  // The list shows the new run by itself. The demo names it before it sends anything of it.
  const row = page.locator(`a[href="/runs/${trace}"]`);
  await expect(row).toBeVisible();
  demo.pause();
  await row.click();
  await expect(page).toHaveURL(new RegExp(`/runs/${trace}`));
  const link = state(page);
  const events = async () => Number(await link.getAttribute('data-events'));
  await expect(link).toHaveAttribute('data-state', 'connected');
  await expect(page.locator('.pill.running').first()).toBeVisible();
  const early = await events();
  demo.goOn();
  await expect.poll(events).toBeGreaterThan(early + 2);
  demo.pause();

  await page.reload();
  await expect(link).toHaveAttribute('data-state', 'connected');
  const before = await events();
  expect(before).toBeGreaterThan(early + 2);

  await server.down('SIGKILL');
  await expect(link).toHaveAttribute('data-state', 'reconnecting');
  await expect(page.getByText('Reconnecting…')).toBeVisible();
  // It waits for a server that is away, as exporters do.
  demo.goOn();
  await server.up();
  await expect.poll(events, { timeout: 45_000 }).toBeGreaterThan(before);

  await demo.done;
  await expect(link).toHaveAttribute('data-state', 'verified complete', { timeout: 45_000 });
  await expect(page.getByText('Verified complete')).toBeVisible();
  const page_ = await received(page);
  const told = await digest(server, trace);
  expect(page_).toEqual({ state: 'verified complete', events: told.events, digest: told.sha256 });
  expect(await streamed(server, trace)).toEqual({ events: told.events, sha256: told.sha256 });
  expect(told.events).toBe(told.through);

  // And whoever comes later has the same.
  await page.reload();
  await expect(link).toHaveAttribute('data-state', 'verified complete');
  expect((await received(page)).digest).toBe(told.sha256);
});

test('a page that has something else than the server says so, and loads the run anew', async ({ page, server }) => {
  const trace = newTrace();
  await server.spans([span({ trace, name: 'root' })]);
  // Somebody between the page and the server changes a name once.
  let changed = 0;
  await page.route(`**/traces/${trace}/stream*`, async (route) => {
    changed += 1;
    if (changed > 1) return route.continue();
    const answer = await route.fetch();
    await route.fulfill({ response: answer, body: (await answer.text()).replace('"root"', '"forged"') });
  });
  await page.goto(`/runs/${trace}`);
  await expect(state(page)).toHaveAttribute('data-state', 'verified complete');
  expect(changed).toBeGreaterThan(1);
  await state(page).locator('summary').click();
  await expect(
    page.getByText('What had arrived was not what the server has, so the run was loaded anew.'),
  ).toBeVisible();
  expect((await received(page)).digest).toBe((await digest(server, trace)).sha256);
});

test('a run that has not begun is waited for, and the next run of the same trace is shown too', async ({
  page,
  server,
}) => {
  await page.goto('/runs/waited-for');
  await expect(page.getByText('There is no run of this name yet.')).toBeVisible();
  await server.events('waited-for', [
    { event_type: 'workflow_started', span_id: 'w', name: 'flow' },
    { event_type: 'workflow_completed', span_id: 'w' },
  ]);
  const link = state(page);
  await expect(link).toHaveAttribute('data-state', 'verified complete', { timeout: 20_000 });
  await expect(link).toHaveAttribute('data-events', '2');
  await server.events('waited-for', [{ event_type: 'workflow_started', span_id: 'w2', name: 'again' }]);
  await expect(link).toHaveAttribute('data-state', 'connected');
  await expect(link).toHaveAttribute('data-events', '3');
  await server.events('waited-for', [{ event_type: 'workflow_completed', span_id: 'w2' }]);
  await expect(link).toHaveAttribute('data-state', 'verified complete');
  await expect(link).toHaveAttribute('data-events', '4');
  // Begun anew under the same name: nothing of the old one stays.
  await server.post('/traces/waited-for/events?replace=true', [{ event_type: 'agent_called', agent_id: 'other' }]);
  await expect(link).toHaveAttribute('data-events', '1');
});
