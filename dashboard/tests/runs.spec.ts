import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { expect, newTrace, span, test } from './harness';

test('an empty list says how to connect an agent to this very server', async ({ page, fresh: server, context }) => {
  test.setTimeout(120_000);
  await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: server.url });
  await page.goto(server.url);
  await page.getByRole('radio', { name: 'LangGraph' }).check({ force: true });
  await expect(page.locator('pre')).toContainText(`OTEL_EXPORTER_OTLP_ENDPOINT=${server.url}`);
  await page.getByRole('radio', { name: 'curl' }).check({ force: true });
  await page.getByRole('button', { name: 'Copy' }).click();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  // What was copied works as it stands.
  await promisify(execFile)('bash', ['-c', copied]);
  await expect(page.locator('a[href="/runs/first-run"]')).toBeVisible();
});

test('filters live in the address', async ({ page, server }) => {
  const agent = (name: string) => ({ 'gen_ai.operation.name': 'invoke_agent', 'gen_ai.agent.name': name });
  await server.spans([
    span({ trace: newTrace(), name: 'invoke_agent good', attributes: agent('good-agent') }),
    span({ trace: newTrace(), name: 'invoke_agent bad', attributes: agent('bad-agent'), error: 'no such hotel' }),
  ]);
  await page.goto('/');
  const good = page.getByRole('link', { name: 'good-agent' });
  const bad = page.getByRole('link', { name: 'bad-agent' });
  await expect(good).toBeVisible();
  await expect(bad).toBeVisible();
  // States change without a reload: the runs settle a second after their roots ended.
  await expect(page.locator('.row', { has: bad }).locator('.pill')).toHaveText('failed');

  await page.getByRole('combobox', { name: 'Status' }).selectOption('failed');
  await expect(page).toHaveURL(/\?status=failed/);
  await expect(good).toBeHidden();
  await expect(bad).toBeVisible();
  await page.reload();
  await expect(bad).toBeVisible();
  await expect(good).toBeHidden();
  await page.getByRole('button', { name: 'Clear' }).click();
  await expect(good).toBeVisible();

  await page.getByRole('searchbox').fill('hotel');
  await expect(page).toHaveURL(/text=hotel/);
  await expect(good).toBeHidden();
  await bad.click();
  await expect(page).toHaveURL(/\/runs\//);
  await page.goBack();
  await expect(page).toHaveURL(/text=hotel/);
  await expect(page.getByRole('searchbox')).toHaveValue('hotel');
  await page.goto('/?agent_id=good-agent');
  await expect(good).toBeVisible();
  await expect(bad).toBeHidden();
  await page.goto('/?text=nothing-like-it');
  await expect(page.getByText('No run fits these filters.')).toBeVisible();
});

test('a server that asks for a token is shown with it, and it stays out of the address', async ({ page }) => {
  const { Server } = await import('./harness');
  const closed = await Server.start(['--token', 'sesame']);
  try {
    await page.goto(closed.url);
    await page.getByLabel('Token').fill('sesame');
    await page.getByRole('button', { name: 'Use it in this tab' }).click();
    await expect(page.getByRole('heading', { name: 'Connect an agent' })).toBeVisible();
    await page.goto(`${closed.url}/?token=sesame&status=failed`);
    await expect(page).toHaveURL(`${closed.url}/?status=failed`);
    await page.goto(`${closed.url}/`);
    await expect(page.locator('pre')).toContainText('authorization=Bearer%20sesame');
  } finally {
    await closed.remove();
  }
});

test('the first view is small', async ({ page, server }) => {
  const loaded = new Set<string>();
  page.on('response', (response) => {
    if (response.url().endsWith('.js')) loaded.add(new URL(response.url()).pathname);
  });
  const trace = newTrace();
  await server.spans([span({ trace, name: 'root' })]);
  const dist = resolve(import.meta.dirname, '../dist');
  const size = async (paths: Iterable<string>): Promise<number> => {
    let bytes = 0;
    for (const path of paths) bytes += gzipSync(await readFile(join(dist, path)), { level: 9 }).length;
    return bytes;
  };
  await page.goto('/');
  await expect(page.getByRole('table')).toBeVisible();
  const list = await size(loaded);
  await page.goto(`/runs/${trace}`);
  await expect(page.locator('details.link')).toHaveAttribute('data-state', 'verified complete');
  const run = await size(loaded);
  const all = await size(
    (await readdir(join(dist, 'assets'))).filter((name) => name.endsWith('.js')).map((name) => `assets/${name}`),
  );
  console.log(`gzipped JavaScript: the list ${list} bytes, with a run ${run}, all there is ${all}`);
  expect(run).toBeLessThanOrEqual(200_000);
});
