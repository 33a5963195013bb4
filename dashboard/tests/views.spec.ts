// The pages as a person uses them: comparison, evaluation, files, the keyboard alone; each view without a violation of accessibility, and as a picture.
//
// The pictures are in test-results/views.

import AxeBuilder from '@axe-core/playwright';
import type { Page } from '@playwright/test';
import { mkdir } from 'node:fs/promises';
import { expect, newTrace, span, test, type OtlpSpan, type Server } from './harness';

const PICTURES = 'test-results/views';
// Every view in four ways is much for a busy machine.
test.describe.configure({ timeout: 180_000 });

const SIZES = { wide: { width: 1440, height: 900 }, narrow: { width: 390, height: 844 } } as const;

interface Told {
  trace: string;
  session: string;
  city: string;
  answer: string;
  /** What is done beside the weather. */
  extra?: string;
  failed?: boolean;
  /** The root's end is still to come. */
  open?: boolean;
  steps?: number;
}

const messages = (role: string, text: string): string =>
  JSON.stringify([{ role, parts: [{ type: 'text', content: text }] }]);

/** A run of a planner that asks a model, calls tools and hands over to a writer. */
function run({ trace, session, city, answer, extra, failed = false, open = false, steps = 9 }: Told): OtlpSpan[] {
  const at = Date.now() - 20_000;
  const hex = (n: number): string => trace.slice(0, 14) + n.toString(16).padStart(2, '0');
  const of = (
    n: number,
    parent: number | null,
    name: string,
    [start, end]: [number, number],
    attributes: Record<string, unknown>,
    more: { error?: string; end?: null } = {},
  ): OtlpSpan =>
    span({
      trace,
      id: hex(n),
      ...(parent === null ? {} : { parent: hex(parent) }),
      name,
      start: at + start,
      end: more.end === null ? null : at + end,
      ...(more.error === undefined ? {} : { error: more.error }),
      attributes: { 'gen_ai.conversation.id': session, ...attributes },
    });
  const agent = (name: string): Record<string, unknown> => ({
    'gen_ai.operation.name': 'invoke_agent',
    'gen_ai.agent.name': name,
  });
  const model = (input: number, output: number, asked: string, said: string): Record<string, unknown> => ({
    'gen_ai.operation.name': 'chat',
    'gen_ai.request.model': 'gpt-4o',
    'gen_ai.provider.name': 'openai',
    'gen_ai.usage.input_tokens': input,
    'gen_ai.usage.output_tokens': output,
    'gen_ai.input.messages': messages('user', asked),
    'gen_ai.output.messages': messages('assistant', said),
  });
  const tool = (name: string, args: unknown, result: unknown): Record<string, unknown> => ({
    'gen_ai.operation.name': 'execute_tool',
    'gen_ai.tool.name': name,
    'gen_ai.tool.call.id': `call-${name}`,
    'gen_ai.tool.call.arguments': JSON.stringify(args),
    'gen_ai.tool.call.result': JSON.stringify(result),
  });
  const question = 'What is the weather, and what should I wear?';
  return [
    of(
      1,
      null,
      'invoke_agent planner',
      [0, 9_000],
      {
        ...agent('planner'),
        'gen_ai.input.messages': messages('user', question),
        'gen_ai.output.messages': messages('assistant', answer),
      },
      open ? { end: null } : {},
    ),
    of(2, 1, 'chat gpt-4o', [100, 1_900], model(412, 38, question, `I look up the weather in ${city}.`)),
    of(
      3,
      1,
      'execute_tool weather',
      [2_000, 2_600],
      tool('weather', { city }, { degrees: city === 'Oslo' ? -4 : 24 }),
      failed ? { error: 'the station does not answer' } : {},
    ),
    ...(extra === undefined
      ? []
      : [of(4, 1, `execute_tool ${extra}`, [2_700, 3_100], tool(extra, { city, days: 3 }, []))]),
    of(5, 1, 'retrieve wardrobe', [3_200, 3_900], {
      'gen_ai.operation.name': 'retrieval',
      'gen_ai.data_source.id': 'wardrobe',
    }),
    of(6, 1, 'invoke_agent writer', [4_000, 8_800], agent('writer')),
    of(7, 6, 'chat gpt-4o', [4_100, 6_800], model(920, 140, `Write what to wear in ${city}.`, answer)),
    of(8, 6, 'execute_tool spell_check', [6_900, 7_000], tool('spell_check', { text: answer }, { mistakes: 0 })),
    of(9, 6, 'chat gpt-4o', [7_100, 8_700], model(1_088, 96, 'Make it shorter.', answer)),
  ].slice(0, steps);
}

const GOLDEN: Told = {
  trace: newTrace(),
  session: 'golden',
  city: 'Oslo',
  answer: 'It is freezing in Oslo: wear a warm coat, gloves and a hat.',
};
const OTHER: Told = {
  trace: newTrace(),
  session: 'candidate',
  city: 'Rome',
  answer: 'It is mild in Rome: wear a light coat and no hat.',
  extra: 'forecast',
  failed: true,
};

let isSeeded = false;
async function seed(server: Server): Promise<void> {
  if (isSeeded) return;
  isSeeded = true;
  for (const told of [GOLDEN, OTHER]) await server.spans(run(told));
  const names = [GOLDEN, OTHER].map((told) => told.session);
  await expect
    .poll(async () => {
      const { data } = await server.json<{ data: { sessionId: string; isComplete: boolean }[] }>(
        '/api/streaming/sessions',
      );
      return data.filter((session) => session.isComplete && names.includes(session.sessionId)).length;
    })
    .toBe(2);
}

async function settled(page: Page): Promise<void> {
  await expect(page.locator('main')).not.toBeEmpty();
  await expect(page.getByText(/^(Loading|Reading|Comparing)…$/)).toHaveCount(0);
}

const VIEWS: Record<string, { path: string; ready: (page: Page) => Promise<void> }> = {
  runs: { path: '/', ready: (page) => expect(page.getByRole('link', { name: /planner/ }).first()).toBeVisible() },
  waterfall: { path: `/runs/${OTHER.trace}`, ready: (page) => expect(page.getByText('weather').first()).toBeVisible() },
  detail: {
    path: `/runs/${OTHER.trace}?span=${OTHER.trace.slice(0, 14)}03`,
    ready: (page) => expect(page.getByText('the station does not answer').first()).toBeVisible(),
  },
  graph: {
    path: `/runs/${OTHER.trace}?view=graph`,
    ready: (page) => expect(page.getByText('writer').first()).toBeVisible(),
  },
  conversation: {
    path: `/runs/${OTHER.trace}?view=conversation`,
    ready: (page) => expect(page.getByText('It is mild in Rome').first()).toBeVisible(),
  },
  findings: { path: `/runs/${OTHER.trace}?view=findings`, ready: settled },
  session: { path: '/conversations/golden', ready: (page) => expect(page.getByText('golden').first()).toBeVisible() },
  'compare-empty': {
    path: '/compare',
    ready: (page) => expect(page.getByRole('heading', { name: 'Compare two runs' })).toBeVisible(),
  },
  compare: {
    path: `/compare?a=${GOLDEN.trace}&b=${OTHER.trace}`,
    ready: (page) => expect(page.getByRole('region', { name: 'The selected step in both runs' })).toBeVisible(),
  },
  evaluate: {
    path: '/evaluate?session=candidate',
    ready: (page) => expect(page.getByRole('checkbox', { name: /candidate/ })).toBeChecked(),
  },
};

for (const [name, { path, ready }] of Object.entries(VIEWS))
  test(`${name}: nothing that keeps anybody out, in light and dark, wide and narrow`, async ({ page, server }) => {
    await seed(server);
    await mkdir(PICTURES, { recursive: true });
    await page.goto(path);
    for (const colorScheme of ['light', 'dark'] as const)
      for (const [size, viewport] of Object.entries(SIZES)) {
        await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
        await page.setViewportSize(viewport);
        await ready(page);
        await settled(page);
        const { violations } = await new AxeBuilder({ page })
          .withTags(['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'])
          .analyze();
        await page.screenshot({ path: `${PICTURES}/${name}-${size}-${colorScheme}.png` });
        const found = violations.map(
          ({ id, nodes }) =>
            `${id}: ${nodes.map(({ html, failureSummary }) => `${html.slice(0, 160)} ${failureSummary ?? ''}`).join(' | ')}`,
        );
        expect(found, `${size}, ${colorScheme}`).toEqual([]);
        const overflow = await page.evaluate(
          () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
        );
        expect(overflow, `the page scrolls sideways: ${size}`).toBeLessThanOrEqual(0);
      }
  });

test('two runs are chosen, aligned, and walked through by their differences', async ({ page, server }) => {
  await seed(server);
  await page.goto('/compare');
  for (const [side, told] of [
    ['A', GOLDEN],
    ['B', OTHER],
  ] as const) {
    await page.getByRole('button', { name: new RegExp(`^Run ${side}:`) }).click();
    const dialog = page.getByRole('dialog', { name: `Choose run ${side}` });
    await dialog.locator(`a[href*="${told.trace}"]`).click();
  }
  await expect(page).toHaveURL(new RegExp(`a=${GOLDEN.trace}&b=${OTHER.trace}`));
  const steps = page.getByRole('listbox', { name: 'Steps of both runs' });
  await expect(steps.getByRole('option')).toHaveCount(9);
  // Where they part first is shown without asking: the same call that failed in one of them.
  const detail = page.getByRole('region', { name: 'The selected step in both runs' });
  await expect(detail.getByRole('heading', { name: 'weather' })).toBeVisible();
  await expect(detail.locator('del')).toContainText(['Oslo']);
  await expect(detail.locator('ins')).toContainText(['Rome']);
  await expect(page.getByText(/of 9 steps differ/)).toBeVisible();

  await page.getByRole('button', { name: 'Next difference (n)' }).click();
  await expect(detail.getByRole('heading', { name: 'forecast' })).toBeVisible();
  await expect(steps.locator('[aria-selected=true]')).toContainText('only in B');
  await expect(page).toHaveURL(/step=/);
  await page.reload();
  await expect(detail.getByRole('heading', { name: 'forecast' })).toBeVisible();

  await steps.focus();
  await page.keyboard.press('p');
  await expect(detail.getByRole('heading', { name: 'weather' })).toBeVisible();
  await page.keyboard.press('Escape');
  await expect(detail).toHaveCount(0);
  await page.getByRole('button', { name: 'Swap A and B' }).click();
  await expect(steps.getByText('only in A')).toHaveCount(1);
});

test('a run that goes on is compared as it moves', async ({ page, server }) => {
  await seed(server);
  const moving: Told = { ...GOLDEN, trace: newTrace(), session: 'moving', open: true };
  await server.spans(run({ ...moving, steps: 3 }));
  await page.goto(`/compare?a=${GOLDEN.trace}&b=${moving.trace}`);
  await expect(page.getByText('not yet in B')).toHaveCount(5);
  await expect(page.getByText('The same steps so far')).toBeVisible();
  await server.spans(run({ ...moving, steps: 4 }).slice(3));
  await expect(page.getByText('not yet in B')).toHaveCount(4);
  await server.spans(run({ ...moving, open: false }));
  await expect(page.getByText('not yet in B')).toHaveCount(0);
  await expect(page.getByText('The same steps', { exact: true })).toBeVisible();
});

test('a session is evaluated against a golden one, and each turn says why', async ({ page, server }) => {
  await seed(server);
  await page.goto('/evaluate');
  await page.getByRole('checkbox', { name: /golden/ }).check();
  await page.getByRole('checkbox', { name: /candidate/ }).check();
  await page.getByLabel('A golden session').selectOption('golden');
  await page.getByRole('button', { name: 'Build eval set' }).click();
  await expect(page.getByText('1 case, from session golden')).toBeVisible();
  const download = page.waitForEvent('download');
  await page.getByRole('button', { name: 'Download' }).click();
  expect((await download).suggestedFilename()).toBe('golden_golden.json');
  await page.getByLabel('Threshold of response_match_score').fill('0.9');
  await page.getByRole('button', { name: 'Evaluate 2 runs' }).click();
  const results = page.getByRole('region', { name: 'Results', exact: true });
  await expect(results.getByText('Done')).toBeVisible();
  await expect(results.getByText('3 passed')).toBeVisible();
  const candidate = results.getByRole('article').filter({ hasText: 'candidate' });
  await expect(candidate.getByRole('row', { name: /response_match_score/ })).toContainText('failed');
  await expect(candidate.getByRole('row', { name: /response_match_score/ })).toContainText('0.9');
  await expect(candidate.getByRole('row', { name: /forecast/ })).toContainText('not expected');
  await expect(candidate.locator('ins').first()).toBeVisible();
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map(({ id, nodes }) => `${id} ${nodes[0]?.html ?? ''}`)).toEqual([]);
  await page.screenshot({ path: `${PICTURES}/evaluated-wide-light.png` });
});

test('what is no eval set or no trace is said plainly', async ({ page, server }) => {
  await seed(server);
  await page.goto('/evaluate');
  await page.getByLabel("An eval set's file").setInputFiles({
    name: 'set.json',
    mimeType: 'application/json',
    buffer: Buffer.from('{"eval_set_id": "x", "eval_cases": [{"eval_id": "a"}]}'),
  });
  await expect(page.getByRole('alert')).toContainText('eval_cases[0]');
  await page
    .getByLabel('Trace files to evaluate')
    .setInputFiles({ name: 'broken.json', mimeType: 'application/json', buffer: Buffer.from('{"resourceSpans": [') });
  await page.getByRole('button', { name: 'Evaluate 1 run' }).click();
  await expect(page.getByRole('region', { name: 'Results', exact: true })).toContainText('broken.json: line 1');
});

/** Drops files on the page, as a person's pointer does. */
async function drop(page: Page, files: { name: string; text: string }[]): Promise<void> {
  const data = await page.evaluateHandle((list) => {
    const transfer = new DataTransfer();
    for (const { name, text } of list) transfer.items.add(new File([text], name));
    return transfer;
  }, files);
  await page.dispatchEvent('main', 'dragenter', { dataTransfer: data });
  await expect(page.getByText('Drop trace files to see them as runs')).toBeVisible();
  await page.dispatchEvent('main', 'drop', { dataTransfer: data });
}

const exported = (spans: OtlpSpan[]): string => JSON.stringify({ resourceSpans: [{ scopeSpans: [{ spans }] }] });

test('a dropped trace file is seen as a run; several are listed, and a broken one says where', async ({ page }) => {
  await page.goto('/');
  await expect(page.locator('main')).not.toBeEmpty();
  const one = newTrace();
  await drop(page, [{ name: 'one.json', text: exported(run({ ...GOLDEN, trace: one })) }]);
  await expect(page).toHaveURL(new RegExp(`/runs/${one}`));
  await expect(page.getByText('weather').first()).toBeVisible();

  const two = newTrace();
  await drop(page, [
    { name: 'two.json', text: exported(run({ ...OTHER, trace: two })) },
    { name: 'broken.jsonl', text: '{"resourceSpans": []}\n{"resourceSpans": [oops]}\n' },
  ]);
  const tray = page.getByRole('region', { name: 'Imported files' });
  await expect(tray.getByRole('heading', { name: '1 run imported, 1 file not taken' })).toBeVisible();
  await expect(tray).toContainText('Line 2, column');
  await expect(tray.locator('.place')).toContainText('oops');
  await page.screenshot({ path: `${PICTURES}/import-wide-light.png` });
  const { violations } = await new AxeBuilder({ page }).include('.tray').analyze();
  expect(violations.map(({ id, nodes }) => `${id} ${nodes[0]?.html ?? ''}`)).toEqual([]);
  await tray.getByRole('link', { name: two }).click();
  await expect(page).toHaveURL(new RegExp(`/runs/${two}`));
  await tray.getByRole('button', { name: 'Close' }).click();
  await expect(tray).toHaveCount(0);

  const chooser = page.waitForEvent('filechooser');
  await page.getByRole('button', { name: /^Import/ }).click();
  const three = newTrace();
  await (
    await chooser
  ).setFiles({
    name: 'three.json',
    mimeType: 'application/json',
    buffer: Buffer.from(exported(run({ ...GOLDEN, trace: three }))),
  });
  await expect(page).toHaveURL(new RegExp(`/runs/${three}`));
});

/** Presses Tab until what has the focus is called so. */
async function tabTo(page: Page, name: RegExp): Promise<void> {
  const names: string[] = [];
  for (let presses = 0; presses < 80; presses += 1) {
    await page.keyboard.press('Tab');
    const focused = await page.evaluate(() => {
      const element = document.activeElement === document.body ? null : document.activeElement;
      return element?.getAttribute('aria-label') ?? (element instanceof HTMLElement ? element.innerText : '');
    });
    names.push(focused.slice(0, 40));
    if (!name.test(focused)) continue;
    // What has the focus shows it.
    const outlines = await page.evaluate(() => {
      const element = document.activeElement;
      // A row that is a link as a whole shows it on what covers the row.
      return element === null ? [] : ['', '::after'].map((part) => getComputedStyle(element, part).outlineStyle);
    });
    expect(new Set(outlines), `${focused} has the focus and does not show it`).not.toEqual(new Set(['none']));
    return;
  }
  throw new Error(`no way by Tab to ${name.source}: ${names.join(' · ')}`);
}

test('the main ways can be gone with the keyboard alone', async ({ page, server }) => {
  await seed(server);
  await page.goto('/');
  await expect(page.getByRole('link', { name: /planner/ }).first()).toBeVisible();
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  // Skipped to the content: the header's links are behind.
  await tabTo(page, /planner/);
  await page.keyboard.press('Enter');
  await expect(page).toHaveURL(/\/runs\//);
  await tabTo(page, /^Findings/);
  await page.keyboard.press('Enter');
  await expect(page).toHaveURL(/view=findings/);

  await page.goto('/compare');
  await tabTo(page, /^Run A/);
  await page.keyboard.press('Enter');
  await expect(page.getByRole('searchbox', { name: 'Look for a run' })).toBeFocused();
  await expect(page.getByRole('dialog', { name: 'Choose run A' }).getByRole('link').first()).toBeVisible();
  await tabTo(page, /planner/);
  await page.keyboard.press('Enter');
  await expect(page).toHaveURL(/[?]a=/);
  await tabTo(page, /^Run B/);
  await page.keyboard.press('Enter');
  await expect(page.getByRole('dialog', { name: 'Choose run B' }).getByRole('link').first()).toBeVisible();
  await tabTo(page, /planner/);
  await page.keyboard.press('Enter');
  await expect(page).toHaveURL(/[?]a=.*&b=/);
  await tabTo(page, /^Steps of both runs/);
  await expect(page.getByRole('option').first()).toBeVisible();
  await page.keyboard.press('ArrowDown');
  await expect(page.getByRole('region', { name: 'The selected step in both runs' })).toBeVisible();

  await page.goto('/evaluate');
  await expect(page.getByRole('checkbox', { name: /golden/ })).toBeVisible();
  await page.getByRole('checkbox', { name: /golden/ }).focus();
  await page.keyboard.press('Space');
  await tabTo(page, /^Evaluate 1 run/);
  await page.keyboard.press('Enter');
  await expect(page.getByRole('region', { name: 'Results', exact: true }).getByText('Done')).toBeVisible();
});
