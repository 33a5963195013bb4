// What a page's EventSource makes of the streams, and whether our own pages work, in a real browser. Prints a line of JSON for each case: {case, wrong}.
//
//   node browser.mjs CHROMIUM URL SHORT_URL      SHORT_URL: a server whose streams live for two seconds

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { chromium } from 'playwright-core';

const [executablePath, longLived, shortLived] = process.argv.slice(2);
const EVENTS = 40;
const PATIENCE_MS = 30_000;
/** From a native event's request to the page's script; generous, for a busy machine. */
const PROMPT_MS = 1_000;
/** What the stream tells a browser to wait before it comes back. */
const RETRY_MS = 1_000;

const flags = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--no-proxy-server',
];

/** Reports native events to a trace. */
async function send(server, trace, events) {
  const request = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(events) };
  const answer = await fetch(`${server}/traces/${trace}/events`, request);
  if (!answer.ok) throw new Error(`an event was answered ${answer.status}: ${await answer.text()}`);
}

const progress = (number) => ({ event_type: 'tool_progress', agent_id: 'browser', details: { number } });
const started = { event_type: 'workflow_started', agent_id: 'browser' };
const completed = { event_type: 'workflow_completed', agent_id: 'browser' };

/** A page of `origin` on which an EventSource listens to `url`; says what it saw and which answers it got. */
async function listen(browser, origin, url) {
  const page = await browser.newPage();
  const answers = [];
  let asked = 0;
  page.on('request', (request) => {
    asked += request.url() === url;
  });
  page.on('response', (response) => {
    if (response.url() === url) answers.push(response.status());
  });
  await page.goto(origin);
  await page.evaluate((url) => {
    const source = new EventSource(url);
    const seen = { seqs: [], at: [], ends: [], gaps: [] };
    source.onmessage = (message) => {
      const event = JSON.parse(message.data);
      seen.seqs.push(event.seq);
      seen.at.push(Date.now());
    };
    source.addEventListener('end', (message) => seen.ends.push(JSON.parse(message.data).status));
    source.addEventListener('gap', (message) => seen.gaps.push(message.data));
    globalThis.seen = () => ({ ...seen, closed: source.readyState === EventSource.CLOSED });
  }, url);
  return {
    seen: async () => ({ asked, answers, ...(await page.evaluate(() => globalThis.seen())) }),
    /** Waits until the browser has given up the stream, and a little longer for what it should not do then. */
    async closed() {
      await page.waitForFunction(() => globalThis.seen().closed, undefined, { timeout: PATIENCE_MS });
      await sleep(2 * RETRY_MS);
    },
    close: () => page.close(),
  };
}

/** What differs, in words; empty when nothing does. */
function differences(found, expected) {
  const text = (value) => JSON.stringify(value);
  const names = Object.keys(expected).filter((name) => text(found[name]) !== text(expected[name]));
  return names.map((name) => `${name}: ${text(found[name])}, not ${text(expected[name])}`).join('; ');
}

const oneTo = (count) => Array.from({ length: count }, (_, index) => index + 1);

async function finishedRun(browser, origin, server) {
  const trace = `browser-finished-${Date.now()}`;
  await send(server, trace, [started, ...oneTo(EVENTS - 2).map(progress), completed]);
  // The run is settled by then, so that the first look already ends.
  await sleep(500);
  const page = await listen(browser, origin, `${server}/traces/${trace}/stream`);
  await page.closed();
  const found = await page.seen();
  await page.close();
  return differences(found, { asked: 2, answers: [200, 204], seqs: oneTo(EVENTS), ends: ['completed'], gaps: [] });
}

async function liveRun(browser, server) {
  const trace = `browser-live-${Date.now()}`;
  await send(server, trace, started);
  const page = await listen(browser, `${server}/health`, `${server}/traces/${trace}/stream`);
  const sentAt = [0];
  for (const number of oneTo(EVENTS - 2)) {
    await sleep(150);
    sentAt.push(Date.now());
    await send(server, trace, progress(number));
  }
  sentAt.push(Date.now());
  await send(server, trace, completed);
  await page.closed();
  const found = await page.seen();
  await page.close();
  const wrong = [differences(found, { seqs: oneTo(EVENTS), gaps: [] })];
  // A clean end may fall between the last event and the settlement: the page then learns from the 204 alone that it has all.
  if (found.ends.length > 1 || found.ends.some((status) => status !== 'completed')) wrong.push(`ends: ${found.ends}`);
  // Six seconds of events over streams of at most two: 200 at the start and after each clean end, 204 after the run's end.
  const { answers } = found;
  const repeats = answers.length >= 4 && answers.at(-1) === 204 && answers.slice(0, -1).every((status) => status === 200);
  if (!repeats) wrong.push(`answers: ${answers}, not 200 at least three times and then 204`);
  // While it is connected the page is told at once; what happens between two connections waits for the next.
  const lags = found.at.map((at, index) => at - sentAt[index]).slice(1).sort((a, b) => a - b);
  const middle = lags[Math.floor(lags.length / 2)];
  const slowest = lags.at(-1);
  if (!(middle < PROMPT_MS)) wrong.push(`half of the events took longer than ${middle} ms`);
  if (!(slowest < RETRY_MS + 2 * PROMPT_MS)) wrong.push(`the slowest event took ${slowest} ms`);
  return wrong.filter(Boolean).join('; ');
}

async function noSuchRun(browser, server) {
  const page = await listen(browser, `${server}/health`, `${server}/traces/nobody-sent-this/stream`);
  await page.closed();
  const found = await page.seen();
  await page.close();
  return differences(found, { asked: 1, answers: [404], seqs: [], ends: [] });
}

async function foreignPage(browser, server) {
  const trace = `browser-foreign-${Date.now()}`;
  await send(server, trace, [started, completed]);
  // An opaque origin: allowed by nobody, like that of any page from elsewhere. The browser hides the answer from it.
  const page = await listen(browser, 'data:text/html,foreign', `${server}/traces/${trace}/stream`);
  await page.closed();
  const found = await page.seen();
  await page.close();
  return differences(found, { asked: 1, seqs: [], ends: [] });
}

/** The page of docs/dashboard.md, as it stands, from an origin of its own: grows while the run goes on, over clean ends, and doubles nothing. */
async function dashboard(browser, server) {
  const html = await readFile(new URL('../../../examples/dashboard.html', import.meta.url));
  const pages = createServer((_, answer) => answer.setHeader('content-type', 'text/html').end(html)).listen(0, '127.0.0.1');
  await new Promise((listening) => pages.once('listening', listening));
  const trace = `browser-dashboard-${Date.now()}`;
  const page = await browser.newPage();
  const answers = [];
  page.on('response', (response) => response.url().includes('/stream') && answers.push(response.status()));
  const seen = () => page.evaluate(() => ({
    seqs: [...document.querySelectorAll('tr')].map((line) => Number(line.cells[0].textContent)),
    status: document.getElementById('status').textContent,
  }));
  try {
    const asked = new URLSearchParams({ trace, server });
    await page.goto(`http://localhost:${pages.address().port}/?${asked}`);
    await send(server, trace, started);
    await page.waitForFunction(() => document.querySelectorAll('tr').length === 1, undefined, { timeout: PATIENCE_MS });
    for (const number of oneTo(EVENTS - 2)) {
      await sleep(150);
      await send(server, trace, progress(number));
    }
    const during = await seen();
    await send(server, trace, completed);
    await page.waitForFunction(() => document.getElementById('status').textContent === 'completed', undefined, { timeout: PATIENCE_MS });
    // Longer than it would take to come back for what it has.
    await sleep(2 * RETRY_MS);
    const wrong = [differences(await seen(), { seqs: oneTo(EVENTS), status: 'completed' })];
    if (during.seqs.length < EVENTS / 4) wrong.push(`only ${during.seqs.length} rows while the run went on`);
    if (answers.filter((status) => status === 200).length < 2) wrong.push(`it never came back: ${answers}`);
    const readable = await page.evaluate(async (server) => {
      const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
      const headers = { 'content-type': 'application/json', 'x-parent-span': 'a-span', traceparent };
      const answer = await fetch(`${server}/traces/events`, { method: 'POST', headers, body: '{"event_type":"step"}' });
      return ['x-trace-id', 'x-parent-span', 'traceparent'].filter((name) => answer.headers.get(name));
    }, server);
    wrong.push(differences({ readable }, { readable: ['x-trace-id', 'x-parent-span', 'traceparent'] }));
    return wrong.filter(Boolean).join('; ');
  } finally {
    await page.close();
    pages.close();
  }
}

/** The page of the API's document: under its own policy it shows every operation with its parameters, and asks nobody else. */
async function apiPage(browser, server) {
  const page = await browser.newPage();
  const [complaints, asked] = [[], []];
  page.on('console', (message) => complaints.push(message.text()));
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('request', (request) => asked.push(new URL(request.url()).pathname));
  try {
    const { paths } = await (await fetch(`${server}/openapi.json`)).json();
    const operations = Object.values(paths).flatMap((path) => Object.values(path));
    const parameters = operations.flatMap((operation) => (operation.parameters ?? []).map((parameter) => `${operation.operationId} ${parameter.name}`));
    await page.goto(`${server}/docs`);
    await page.waitForSelector('#routes details');
    const shown = await page.evaluate(() => [...document.querySelectorAll('#routes section > details')].map((operation) => {
      operation.open = true;
      return operation.id;
    }));
    await page.waitForFunction(() => [...document.querySelectorAll('#routes section > details')].every((operation) => operation.children.length > 1));
    const told = await page.evaluate(() => [...document.querySelectorAll('#routes section > details > dl > dt')]
      .filter((term) => term.querySelector('.place'))
      .map((term) => `${term.closest('section > details').id} ${term.firstChild.textContent}`));
    const found = { shown: shown.sort(), told: told.sort(), complaints, asked: [...new Set(asked)] };
    return differences(found, {
      shown: operations.map((operation) => operation.operationId).sort(), told: parameters.sort(), complaints: [], asked: ['/docs', '/openapi.json'],
    });
  } finally {
    await page.close();
  }
}

const cases = {
  'a finished run takes two requests': (browser) => finishedRun(browser, `${longLived}/health`, longLived),
  'a page of another allowed origin': (browser) =>
    finishedRun(browser, `${longLived.replace('127.0.0.1', 'localhost')}/health`, longLived),
  'a live run goes on over clean ends': (browser) => liveRun(browser, shortLived),
  'the dashboard of the documentation': (browser) => dashboard(browser, shortLived),
  'the page of the API': (browser) => apiPage(browser, longLived),
  'an unknown run is asked for once': (browser) => noSuchRun(browser, longLived),
  'a foreign page sees nothing': (browser) => foreignPage(browser, longLived),
};

const profile = await mkdtemp(path.join(tmpdir(), 'peers-browser-'));
try {
  const browser = await chromium.launchPersistentContext(profile, { executablePath, headless: true, args: flags });
  await Promise.all(
    Object.entries(cases).map(async ([name, run]) => {
      const wrong = await run(browser).catch((error) => String(error).split('\n')[0]);
      console.log(JSON.stringify({ case: name, wrong }));
    }),
  );
  await browser.close();
} finally {
  await rm(profile, { recursive: true, force: true, maxRetries: 5 });
}
