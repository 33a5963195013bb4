// The dev server's own web interface on Tailspan, in a real browser: a live session with its conversation, set as golden, and the others evaluated
// against it. Prints a line of JSON for each case: {case, wrong}.
//
//   node page.mjs CHROMIUM INTERFACE TAILSPAN GOLDEN OTHER LIVE PYTHON AGENT
//
// INTERFACE: the folder of the interface's files. GOLDEN, OTHER: names of sessions that are complete. LIVE: the name of the session that the program AGENT, run by PYTHON, streams.
//
// The interface asks the server that it comes from, so a small one gives out its files and hands on the rest to Tailspan.

import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import { createRequire } from 'node:module';

const require = createRequire(new URL('../js/package.json', import.meta.url));
const { chromium } = require('playwright-core');

const [executablePath, folder, tailspan, golden, other, live, python, agent] = process.argv.slice(2);
const PATIENCE_MS = 30_000;
const flags = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--no-proxy-server',
];
const KINDS = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };

const server = http.createServer(async (request, response) => {
  if (/^\/(api|stream)\//.test(request.url)) {
    const headers = { ...request.headers, host: new URL(tailspan).host };
    const onward = http.request(tailspan + request.url, { method: request.method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      // A stream that says nothing yet is open all the same.
      response.flushHeaders();
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    response.on('close', () => onward.destroy());
    request.pipe(onward);
    return;
  }
  const wanted = path.join(folder, path.normalize(new URL(request.url, 'http://x').pathname));
  const file = path.extname(wanted) ? wanted : path.join(folder, 'index.html');
  try {
    const content = await readFile(file);
    response.writeHead(200, { 'content-type': KINDS[path.extname(file)] ?? 'application/octet-stream' });
    response.end(content);
  } catch {
    response.writeHead(404).end();
  }
});

function expect(what, is) {
  if (!is) throw new Error(what);
}

/** Begins the agent that streams a session. It goes on until it is told to end. */
function stream() {
  const program = spawn(python, [agent, tailspan, live], { stdio: ['pipe', 'ignore', 'pipe'] });
  let said = '';
  program.stderr.on('data', (text) => (said += text));
  const exited = new Promise((resolve) => program.on('exit', resolve));
  return async () => {
    program.stdin.end('\n');
    const code = await exited;
    if (code) throw new Error(`the agent ended with ${code}: ${said.slice(-600)}`);
  };
}

const browser = await chromium.launch({ executablePath, args: flags });
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const page = await browser.newPage({ viewport: { width: 1500, height: 1000 } });
page.setDefaultTimeout(PATIENCE_MS);
const refused = [];
page.on('response', async (answer) => {
  if (/\/(api|stream)\//.test(answer.url()) && answer.status() >= 400) refused.push(`${answer.url()} ${answer.status()}`);
});
let failed = 0;

async function check(name, does) {
  let wrong = '';
  try {
    await does();
    if (refused.length) wrong = `refused: ${refused.join(', ')}`;
  } catch (error) {
    wrong = String(error.message ?? error).slice(0, 600);
    const shown = await page.locator('body').innerText().catch(() => '');
    wrong += ` | on the page: ${shown.replace(/\s+/g, ' ').slice(0, 900)}`;
  }
  failed += wrong !== '';
  console.log(JSON.stringify({ case: name, wrong }));
  return wrong === '';
}

/** The card of a session: what stands around its name with the button that makes it golden. */
const card = (name) =>
  page.getByText(name, { exact: true }).locator('xpath=ancestor::*[.//button[contains(., "EvalSet")]][1]');

const goesOn =
  (await check('a live session shows with its conversation while it is streamed', async () => {
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    await page.getByText('I am developing an agent').click();
    await page.getByText('Connected', { exact: true }).waitFor();
    await page.getByText(golden, { exact: true }).waitFor();
    const end = stream();
    await page.getByText(live, { exact: true }).waitFor();
    // Opened by itself with the first thing that happens.
    await page.getByText('Roll a die for the page').first().waitFor();
    await page.getByText('roll_die').first().waitFor();
    await page.getByText(/^1 active/).waitFor();
    await end();
    await page.getByText(/^0 active/).waitFor();
    const closed = card(live).getByText('▼');
    if (await closed.count()) await closed.click();
    await page.getByText('It shows 11 on the page.').first().waitFor();
  })) &&
  (await check('a golden session is chosen, and the sessions go to the evaluation', async () => {
    await card(golden).getByRole('button', { name: 'Set as EvalSet' }).click();
    await page.getByText('Continue to Evaluation').click();
    await page.getByText('3 trace(s) ready').waitFor();
    await page.getByText(`eval_set_${golden}.json`).waitFor();
    await page.getByText('tool_trajectory_avg_score').first().waitFor();
  })) &&
  (await check('the evaluation shows its results', async () => {
    await page.getByRole('button', { name: /^(Run|Evaluate)/ }).last().click();
    await page.getByText('Evaluation Results').waitFor();
    const row = (name) => page.locator('tr', { hasText: name });
    await row(golden).getByText('1.00').waitFor();
    await row(other).getByText('0.50').waitFor();
    await row(live).getByText('0.00').waitFor();
    const shown = await page.locator('body').innerText();
    expect('one of three passes', /\(1\/3 TRACES\)/i.test(shown));
  }));
await browser.close();
server.close();
process.exit(goesOn && !failed ? 0 : 1);
