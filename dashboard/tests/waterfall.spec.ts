// A run as rows and as a graph, used with the keys and with the pointer.

import AxeBuilder from '@axe-core/playwright';
import type { Page } from '@playwright/test';
import { expect, newTrace, span, test, type OtlpSpan } from './harness';

/** A planner whose writer fails; nothing of the editor is told but what is in it. */
function crew(trace: string, isOpen: boolean): OtlpSpan[] {
  const at = Date.now() - 10_000;
  const id = (n: number): string => trace.slice(0, 14) + n.toString(16).padStart(2, '0');
  const step = (
    n: number,
    parent: number | null,
    name: string,
    times: [number, number],
    about: Record<string, string>,
  ) =>
    span({
      trace,
      id: id(n),
      ...(parent === null ? {} : { parent: id(parent) }),
      name,
      start: at + times[0],
      end: isOpen && n < 3 ? null : at + times[1],
      attributes: about,
      ...(name === 'execute_tool print' ? { error: 'no paper' } : {}),
    });
  const agent = (name: string) => ({ 'gen_ai.operation.name': 'invoke_agent', 'gen_ai.agent.name': name });
  const model = { 'gen_ai.operation.name': 'chat', 'gen_ai.request.model': 'gpt-4.1' };
  const tool = (name: string) => ({ 'gen_ai.operation.name': 'execute_tool', 'gen_ai.tool.name': name });
  return [
    step(1, null, 'invoke_agent planner', [0, 6000], agent('planner')),
    step(2, 1, 'invoke_agent writer', [2000, 5500], agent('writer')),
    step(3, 1, 'chat gpt-4.1', [0, 2000], model),
    step(4, 2, 'chat gpt-4.1', [2000, 3000], model),
    step(5, 2, 'execute_tool print', [3000, 5000], tool('print')),
    ...(isOpen ? [step(6, 99, 'chat gpt-4.1', [3000, 4000], model)] : []),
  ];
}

/** The rows that are drawn, as depth and name. */
const rows = (page: Page): Promise<string[]> =>
  page
    .locator('[role=row][aria-level]')
    .evaluateAll((all) =>
      all.map((row) => `${row.getAttribute('aria-level') ?? ''} ${row.querySelector('bdi')?.textContent ?? ''}`),
    );

const active = (page: Page): Promise<string | null> =>
  page.evaluate(() => {
    const id = document.activeElement?.getAttribute('aria-activedescendant');
    return id == null ? null : (document.getElementById(id)?.querySelector('bdi')?.textContent ?? null);
  });

test('the waterfall is used with the keys alone', async ({ page, server }) => {
  const trace = newTrace();
  await server.spans(crew(trace, false));
  await page.goto(`/runs/${trace}`);
  const grid = page.getByRole('treegrid', { name: 'Steps of the run' });
  await expect(grid).toHaveAttribute('aria-rowcount', '6');
  expect(await rows(page)).toEqual([
    '1 invoke_agent planner',
    '2 chat gpt-4.1',
    '2 invoke_agent writer',
    '3 chat gpt-4.1',
    '3 execute_tool print',
  ]);
  await grid.focus();
  await page.keyboard.press('End');
  await expect.poll(() => active(page)).toBe('execute_tool print');
  await page.keyboard.press('ArrowLeft');
  await expect.poll(() => active(page)).toBe('invoke_agent writer');
  await page.keyboard.press('ArrowLeft');
  await expect(grid).toHaveAttribute('aria-rowcount', '4');
  await expect(grid.getByText('+2, 1 failed')).toBeVisible();

  // A search opens what hides its hit.
  await page.keyboard.press('/');
  await page.keyboard.type('no paper');
  await expect(page.getByText('1 hit', { exact: true })).toBeVisible();
  await page.keyboard.press('Enter');
  await expect(page.getByText('1 of 1')).toBeVisible();
  await expect(grid).toHaveAttribute('aria-rowcount', '6');
  await page.keyboard.press('Escape');
  await expect(grid).toBeFocused();
  await expect.poll(() => active(page)).toBe('execute_tool print');

  await page.keyboard.press('Enter');
  await expect(page).toHaveURL(/span=/);
  await expect(grid.locator('[aria-selected=true]')).toContainText('execute_tool print');

  const fit = page.getByRole('button', { name: 'Fit' });
  await expect(fit).toBeDisabled();
  await page.keyboard.press('z');
  await expect(fit).toBeEnabled();
  await page.keyboard.press('Shift+ArrowLeft');
  await page.keyboard.press('0');
  await expect(fit).toBeDisabled();
  await page.keyboard.press('Home');
  await page.keyboard.press('e');
  await expect.poll(() => active(page)).toBe('execute_tool print');
});

test('a run that moves grows row by row, and tells what it waits for', async ({ page, server }) => {
  const trace = newTrace();
  const all = crew(trace, true);
  await server.spans(all.slice(0, 3));
  await page.goto(`/runs/${trace}`);
  const grid = page.getByRole('treegrid');
  await expect(grid).toHaveAttribute('aria-rowcount', '4');
  await expect(grid.locator('.grows')).toHaveCount(2);
  const said = grid.locator('.row .length').first();
  const before = await said.textContent();
  await expect(said).not.toHaveText(before ?? '');
  await server.spans(all.slice(3));
  // A parent that nobody told of stands in, dashed.
  await expect(grid).toHaveAttribute('aria-rowcount', '8');
  await expect(grid.locator('.ghost .bar')).toHaveCSS('border-top-style', 'dashed');
  await expect(grid.locator('.failed')).toContainText('failed');
  await expect(grid.locator('.critical').first()).toBeVisible();
});

test('the graph of agents says who called whom, and leads to the steps', async ({ page, server }) => {
  const trace = newTrace();
  await server.spans(crew(trace, false));
  await page.goto(`/runs/${trace}?view=graph`);
  await page.getByRole('button', { name: /^tool print: 1 call, .* 1 failed$/ }).press('Enter');
  const calls = page.getByRole('region', { name: 'Calls of print' });
  await calls.getByRole('button', { name: /execute_tool print/ }).press('Enter');
  await expect(page).toHaveURL(/span=/);
  await page.getByRole('button', { name: /^planner → writer: 1 call/ }).click();
  await expect(page.getByRole('region', { name: 'Calls of planner → writer' })).toBeVisible();
  await page.getByRole('button', { name: 'Agents only' }).click();
  await expect(page.getByRole('button', { name: /^tool print/ })).toHaveCount(0);
  await page.getByRole('button', { name: 'Table' }).click();
  await expect(page.getByRole('row', { name: /planner.*writer/ })).toBeVisible();
});

test('neither view breaks a rule of accessibility', async ({ page, server }) => {
  const trace = newTrace();
  await server.spans(crew(trace, true));
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme });
    for (const view of ['waterfall', 'graph']) {
      await page.goto(`/runs/${trace}?view=${view}`);
      await expect(page.getByText('writer').first()).toBeVisible();
      if (view === 'waterfall') await page.getByRole('treegrid').focus();
      const found = await new AxeBuilder({ page }).include('.waterfall, .agents').analyze();
      expect(found.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(' ')}`)).toEqual([]);
    }
    await page.getByRole('button', { name: 'Table' }).click();
    expect(
      (await new AxeBuilder({ page }).include('.waterfall, .agents').analyze()).violations.map(({ id }) => id),
    ).toEqual([]);
  }
});
