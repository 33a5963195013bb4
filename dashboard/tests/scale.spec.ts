// What a large run costs the page: figures, printed and not asserted, for they are the machine's as well.
//
//   TAILSPAN_LONG=1     also a minute of 500 events a second, and what it leaves in memory

import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { CDPSession, Page } from '@playwright/test';
import { expect, newTrace, span, test, type OtlpSpan, type Server } from './harness';

const BATCH = 1000;

/** A run as agents make them: a root, agents in it, model calls and tools in those. Times are milliseconds since 1970. */
function steps(trace: string, count: number, begin: number): OtlpSpan[] {
  const agents = Math.max(1, Math.floor(count / 100));
  const id = (at: number): string => (at + 1).toString(16).padStart(16, '0');
  const length = count * 10;
  const found = [
    span({
      trace,
      id: id(0),
      name: 'invoke_agent conductor',
      start: begin,
      end: begin + length,
      attributes: { 'gen_ai.operation.name': 'invoke_agent', 'gen_ai.agent.name': 'conductor' },
    }),
  ];
  for (let at = 1; at < count; at += 1) {
    const isAgent = at <= agents;
    const agent = isAgent ? at : 1 + ((at - agents - 1) % agents);
    const start =
      begin + (isAgent ? (at / agents) * length * 0.5 : 1 + (agent / agents) * length * 0.5 + (at % 97) * 20);
    const isTool = at % 3 === 0;
    const about = isAgent
      ? { 'gen_ai.operation.name': 'invoke_agent', 'gen_ai.agent.name': `worker-${agent}` }
      : isTool
        ? { 'gen_ai.operation.name': 'execute_tool', 'gen_ai.tool.name': `look_up_${at % 7}` }
        : {
            'gen_ai.operation.name': 'chat',
            'gen_ai.request.model': 'gpt-4.1',
            'gen_ai.usage.input_tokens': 1000 + (at % 500),
            'gen_ai.usage.output_tokens': at % 300,
          };
    found.push(
      span({
        trace,
        id: id(at),
        parent: isAgent ? id(0) : id(agent),
        name: isAgent ? `invoke_agent worker-${agent}` : isTool ? `execute_tool look_up_${at % 7}` : 'chat gpt-4.1',
        start,
        end: start + (isAgent ? 2000 : 15),
        attributes: about,
        ...(at % 211 === 0 ? { error: 'the index does not answer' } : {}),
      }),
    );
  }
  return found;
}

async function send(server: Server, spans: readonly OtlpSpan[]): Promise<void> {
  for (let at = 0; at < spans.length; at += BATCH) await patiently(server, spans.slice(at, at + BATCH));
}

async function ended(server: Server, trace: string): Promise<void> {
  const status = async (): Promise<string> =>
    (await server.json<{ status: string }>(`/traces/${trace}/summary`)).status;
  await expect.poll(status, { timeout: 30_000 }).toMatch(/completed|failed/);
}

/** Opens a run and waits until all of its steps are there; how long that took, in ms. */
async function opened(page: Page, url: string, trace: string, count: number): Promise<number> {
  const before = performance.now();
  await page.goto(`${url}/runs/${trace}`);
  await hasRows(page, count);
  return performance.now() - before;
}

async function hasRows(page: Page, count: number): Promise<void> {
  await page.waitForFunction((wanted) => {
    const grid = document.querySelector('[role=treegrid]');
    return Number(grid?.getAttribute('aria-rowcount') ?? 0) >= wanted && grid?.querySelector('[aria-level]') !== null;
  }, count + 1);
}

interface Front {
  url: string;
  close: () => void;
}

/**
 * A server in front of the real one that answers a second time from memory: what is measured behind it is the page, whatever build
 * of the program it is tried with (without optimisation the program needs seconds for what the page reads in milliseconds).
 */
async function remembering(server: Server): Promise<Front> {
  const answers = new Map<string, Promise<{ status: number; headers: Record<string, string>; body: Buffer }>>();
  const asked = async (path: string, headers: IncomingHttpHeaders) => {
    const kept = ['accept', 'last-event-id'].flatMap((name) => {
      const value = headers[name];
      return typeof value === 'string' ? [[name, value] as const] : [];
    });
    const answer = await fetch(server.url + path, { headers: Object.fromEntries(kept) });
    const body = Buffer.from(await answer.arrayBuffer());
    const told = Object.fromEntries(
      [...answer.headers].filter(
        ([name]) => !/^(content-encoding|content-length|transfer-encoding|connection)$/.test(name),
      ),
    );
    return { status: answer.status, headers: told, body };
  };
  const front = createServer((request, response) => {
    const path = request.url ?? '/';
    const key = `${path} ${request.headers['last-event-id'] ?? ''}`;
    const known = answers.get(key) ?? asked(path, request.headers);
    answers.set(key, known);
    known.then(
      ({ status, headers, body }) => response.writeHead(status, headers).end(body),
      () => response.writeHead(502).end(),
    );
  });
  await new Promise<void>((up) => front.listen(0, '127.0.0.1', up));
  return { url: `http://127.0.0.1:${(front.address() as AddressInfo).port}`, close: () => front.close() };
}

/** From now on the page takes down its long tasks, ms. */
async function watchTasks(page: Page): Promise<void> {
  await page.evaluate(() => {
    const tasks: number[] = [];
    Object.assign(window, { tasks });
    new PerformanceObserver((list) => tasks.push(...list.getEntries().map((entry) => entry.duration))).observe({
      entryTypes: ['longtask'],
    });
  });
}

/** The long tasks since the last call. */
async function longTasks(page: Page): Promise<string> {
  // An observer is told after the task: two frames later all that were before are there.
  const tasks = await page.evaluate(
    () =>
      new Promise<number[]>((answer) =>
        requestAnimationFrame(() =>
          requestAnimationFrame(() =>
            setTimeout(() => answer((window as unknown as { tasks: number[] }).tasks.splice(0))),
          ),
        ),
      ),
  );
  return tasks.length === 0
    ? 'no task over 50 ms'
    : `${tasks.length} tasks over 50 ms, the longest ${Math.max(...tasks)} ms`;
}

const median = (of: number[]): number => [...of].sort((one, other) => one - other)[Math.floor(of.length / 2)] ?? NaN;
const rounded = (of: number[]): string => of.map((each) => each.toFixed(0)).join(', ');

test('ten thousand steps open, scroll and close like a few hundred', async ({ browser, page, server }) => {
  test.setTimeout(240_000);
  const sizes = [500, 10_000];
  const begin = Date.now() - 3_600_000;
  const traces = new Map<number, string>();
  for (const count of sizes) {
    const trace = newTrace();
    traces.set(count, trace);
    await send(server, steps(trace, count, begin));
    await ended(server, trace);
  }
  const front = await remembering(server);
  const took = new Map<number, number[]>(sizes.map((count) => [count, []]));
  for (let round = 0; round < 6; round += 1) {
    for (const count of sizes) {
      const ms = await opened(page, front.url, traces.get(count) ?? '', count);
      // In the first round the server is asked, and the browser's caches are filled.
      if (round === 0) console.log(`opening ${count} steps for the first time: ${ms.toFixed(0)} ms`);
      else took.get(count)?.push(ms);
    }
  }
  front.close();
  const [few, many] = sizes.map((count) => took.get(count) ?? []);
  const times = (median(many ?? []) / median(few ?? [])).toFixed(2);
  console.log(
    `opening 500 steps: ${rounded(few ?? [])} ms; 10,000: ${rounded(many ?? [])} ms; medians: ${times} times`,
  );

  const grid = page.getByRole('treegrid');
  await expect(grid).toHaveAttribute('aria-rowcount', '10001');
  await watchTasks(page);
  await browser.startTracing(page, { categories: ['toplevel'] });
  const frames = await grid.evaluate(
    (box) =>
      new Promise<number>((answer) => {
        let frames = 0;
        const step = (): void => {
          frames += 1;
          box.scrollTop += 1000;
          if (box.scrollTop + box.clientHeight >= box.scrollHeight - 1) answer(frames);
          else requestAnimationFrame(step);
        };
        step();
      }),
  );
  console.log(`scrolling through 10,000 rows in ${frames} frames: ${tasksOf(await browser.stopTracing())}`);
  await longTasks(page);
  await expect(page.locator('[role=treegrid] [aria-rowindex="10001"]')).toBeVisible();

  await grid.focus();
  for (const [key, rows] of [
    ['_', 102],
    ['*', 10_001],
  ] as const) {
    await page.keyboard.press(key);
    await expect(grid).toHaveAttribute('aria-rowcount', String(rows));
  }
  await page.keyboard.press('Home');
  await expect(page.locator('[role=treegrid] [aria-rowindex="2"]')).toBeVisible();
  console.log(`closing and opening all of it: ${await longTasks(page)}`);

  await page.keyboard.press('/');
  await page.keyboard.type('look_up_3');
  await page.keyboard.press('Enter');
  await expect(page.getByRole('status').filter({ hasText: /^1 of / })).toBeVisible();
  console.log(`searching it: ${await longTasks(page)}`);
});

interface Traced {
  name: string;
  ph: string;
  pid: number;
  tid: number;
  /** Microseconds by the clock, and of the processor. */
  dur?: number;
  tdur?: number;
  args?: { name?: string };
}

/** The tasks of the page's own thread in a browser's trace. What others on the machine did meanwhile is in their time, not in what they had of the processor. */
function tasksOf(trace: Buffer): string {
  const { traceEvents } = JSON.parse(trace.toString()) as { traceEvents: Traced[] };
  const thread = ({ pid, tid }: Traced): string => `${pid}:${tid}`;
  const named = traceEvents.filter((each) => each.name === 'thread_name' && each.args?.name === 'CrRendererMain');
  const own = new Set(named.map(thread));
  const tasks = traceEvents.filter((each) => each.ph === 'X' && each.name.endsWith('RunTask') && own.has(thread(each)));
  const most = (of: (each: Traced) => number): string =>
    (tasks.reduce((top, each) => Math.max(top, of(each)), 0) / 1000).toFixed(0);
  return `the longest task took ${most((each) => each.dur ?? 0)} ms, and none more than ${most((each) => each.tdur ?? 0)} ms of the processor`;
}

async function heap(cdp: CDPSession): Promise<number> {
  // Twice: while a collection is being prepared what is allocated counts as used.
  for (let times = 0; times < 2; times += 1) await cdp.send('HeapProfiler.collectGarbage');
  const { usedSize } = await cdp.send('Runtime.getHeapUsage');
  return usedSize / 2 ** 20;
}

/** Sends as an exporter does: again, while the program says that it cannot take it just now. */
async function patiently(server: Server, spans: readonly OtlpSpan[]): Promise<void> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await server.spans(spans);
    } catch (error) {
      if (attempt === 30 || !String(error).includes('answered 503')) throw error;
      await new Promise((resume) => setTimeout(resume, 1000));
    }
  }
}

/** Posts 50 spans every 100 ms for so many seconds, later where the program takes longer; says how long it took in all, in s. */
async function pour(
  server: Server,
  seconds: number,
  batch: () => OtlpSpan[],
  marks: Record<number, () => Promise<void>>,
): Promise<number> {
  const begin = performance.now();
  for (let at = 0; at < seconds * 10; at += 1) {
    const wait = begin + at * 100 - performance.now();
    if (wait > 0) await new Promise((resume) => setTimeout(resume, wait));
    await patiently(server, batch());
    await marks[(at + 1) / 10]?.();
  }
  return (performance.now() - begin) / 1000;
}

interface Kind {
  /** Steps that are there, and open, before it begins. */
  known: number;
  /** The next 50 events. */
  batch: (open: readonly OtlpSpan[], sent: number) => OtlpSpan[];
}

const tool = (open: readonly OtlpSpan[], sent: number, more: { end?: null } = {}): OtlpSpan =>
  span({
    trace: open[0]?.traceId ?? '',
    parent: open[0]?.spanId ?? '',
    id: (sent + 1_000_000).toString(16).padStart(16, '0'),
    name: `execute_tool look_up_${sent % 7}`,
    ...more,
    attributes: { 'gen_ai.operation.name': 'execute_tool', 'gen_ai.tool.name': `look_up_${sent % 7}` },
  });

const kinds: Readonly<Record<string, Kind>> = {
  'about steps that are known': {
    known: 10_000,
    batch: (open, sent) =>
      Array.from({ length: 50 }, (_, at) => {
        const each = open[1 + ((sent + at) % (open.length - 1))];
        if (each === undefined) throw new Error('there are no steps');
        // Another content under the same id is an update.
        return {
          ...each,
          attributes: [...each.attributes, { key: 'progress', value: { intValue: String(sent + at) } }],
        };
      }),
  },
  'each a new step': {
    known: 1,
    batch: (open, sent) => Array.from({ length: 50 }, (_, at) => dated(tool(open, sent + at))),
  },
  'a new step with each two of them: 250 begin, 250 end': {
    known: 1,
    batch: (open, sent) =>
      Array.from({ length: 25 }, (_, at) => [
        dated({ ...tool(open, sent + at, { end: null }) }),
        dated(tool(open, sent + at)),
      ]).flat(),
  },
};

/** It happens now. */
function dated(step: OtlpSpan): OtlpSpan {
  const now = Date.now();
  const own = span({ trace: step.traceId, name: step.name, start: now - 10, end: now });
  const { startTimeUnixNano } = own;
  if (step.endTimeUnixNano === undefined) return { ...step, startTimeUnixNano };
  return {
    ...step,
    startTimeUnixNano,
    ...(own.endTimeUnixNano === undefined ? {} : { endTimeUnixNano: own.endTimeUnixNano }),
  };
}

/** Waits until the page has taken so many events. */
async function has(page: Page, events: number): Promise<void> {
  await page.waitForFunction(
    (wanted) => Number(document.querySelector('details[data-events]')?.getAttribute('data-events') ?? 0) >= wanted,
    events,
    { timeout: 120_000 },
  );
}

/** A run that moves, on the screen; and how to say what it costs the page. */
async function moving(page: Page, server: Server, kind: Kind) {
  const open = steps(newTrace(), kind.known, Date.now()).map(({ endTimeUnixNano: _, ...each }) => each);
  await send(server, open);
  await opened(page, server.url, open[0]?.traceId ?? '', kind.known);
  const cdp = await page.context().newCDPSession(page);
  await watchTasks(page);
  let sent = 0;
  const heaps: number[] = [];
  return {
    batch: (): OtlpSpan[] => {
      sent += 50;
      return kind.batch(open, sent - 50);
    },
    measure: async (): Promise<void> => {
      await has(page, kind.known + sent);
      heaps.push(await heap(cdp));
    },
    said: async (): Promise<string> => {
      const [first = NaN, last = NaN] = heaps;
      const rows = Number(await page.getByRole('treegrid').getAttribute('aria-rowcount')) - 1;
      const of = await page.locator('.over .facts').innerText();
      return (
        `heap ${first.toFixed(1)} MiB, then ${last.toFixed(1)} MiB, ${(last / first).toFixed(2)} times; ` +
        `${rows} rows (${of.replace(/\s+/g, ' ')}); ${await longTasks(page)}`
      );
    },
  };
}

test('what thirty thousand new steps leave in memory', async ({ page, server }) => {
  test.setTimeout(300_000);
  const kind = kinds['each a new step'];
  if (kind === undefined) throw new Error('no such kind');
  const run = await moving(page, server, kind);
  for (let thousand = 1; thousand <= 30; thousand += 1) {
    await patiently(server, Array.from({ length: 20 }, run.batch).flat());
    if (thousand === 10 || thousand === 30) await run.measure();
  }
  console.log(`after 10,000 new steps and after 30,000: ${await run.said()}`);
  await expect(page.locator('.over .facts')).toContainText('30,001 steps');
});

test.describe('a minute of 500 events a second', () => {
  test.skip(process.env.TAILSPAN_LONG !== '1', 'takes minutes: TAILSPAN_LONG=1');

  for (const [name, kind] of Object.entries(kinds)) {
    test(name, async ({ page, server }) => {
      test.setTimeout(900_000);
      const run = await moving(page, server, kind);
      const took = await pour(server, 60, run.batch, { 20: run.measure, 60: run.measure });
      console.log(
        `500 events/s, ${name}, after 20 s and after 60 s: ${await run.said()}; sent in ${took.toFixed(0)} s`,
      );
    });
  }
});
