// A real `tailspan serve` for the tests, with its own data and its own Redis, that can be stopped and started again.
//
//   TAILSPAN_BIN        the program; default: debug/tailspan of CARGO_TARGET_DIR, else of ../target
//   TAILSPAN_EMBEDDED   1: the pages in the program; else those in dist/ as they are now
//
//   import { expect, test } from './harness';
//   test('shows a run', async ({ page, server }) => { await server.spans([span({ name: 'x' })]); await page.goto(server.url); ... });

import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { test as base } from '@playwright/test';

export { expect } from '@playwright/test';

const here = import.meta.dirname;
const program =
  process.env.TAILSPAN_BIN ?? join(process.env.CARGO_TARGET_DIR ?? resolve(here, '../../target'), 'debug/tailspan');

export class Server {
  #child: ChildProcess | null = null;
  readonly #data: string;
  readonly #options: readonly string[];
  readonly port: number;

  private constructor(port: number, data: string, options: readonly string[]) {
    this.port = port;
    this.#data = data;
    this.#options = options;
  }

  static async start(options: readonly string[] = []): Promise<Server> {
    // Short: the path of a socket in it has at most 107 bytes.
    const data = await mkdtemp(join(tmpdir(), 'ts-e2e-'));
    const server = new Server(await freePort(), data, options);
    await server.up();
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Starts the program on the data and the port that it had. */
  async up(): Promise<void> {
    const environment = Object.entries(process.env).filter(([name]) => !name.startsWith('TAILSPAN_'));
    const pages = process.env.TAILSPAN_EMBEDDED === '1' ? {} : { TAILSPAN_DASHBOARD: resolve(here, '../dist') };
    const port = String(this.port);
    const given = ['serve', '--port', port, '--otlp-port', port, '--data-dir', this.#data, ...this.#options];
    const child = spawn(program, given, {
      env: { ...Object.fromEntries(environment), ...pages },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child = child;
    let said = '';
    child.stderr.on('data', (text: Buffer) => (said = (said + text.toString()).slice(-10_000)));
    const failed = once(child, 'exit').then(() => {
      throw new Error(`${program} ended: ${said}`);
    });
    const listening = (async () => {
      for await (const line of createInterface({ input: child.stdout })) if (line.startsWith('listening on ')) return;
    })();
    await Promise.race([listening, failed]);
    failed.catch(() => {});
    child.stdout.resume();
  }

  /** Ends the program, as Ctrl-C does or (`SIGKILL`) as a power cut does. What was acknowledged is still there after `up`. */
  async down(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    await gone;
  }

  async remove(): Promise<void> {
    await this.down();
    await rm(this.#data, { recursive: true, force: true });
  }

  /** The JSON that a path is answered with. */
  async json<T = unknown>(path: string, init: RequestInit = {}): Promise<T> {
    const response = await fetch(this.url + path, init);
    if (!response.ok) throw new Error(`${path} answered ${response.status}: ${await response.text()}`);
    const text = await response.text();
    return (text === '' ? null : JSON.parse(text)) as T;
  }

  async post<T = unknown>(path: string, body: unknown): Promise<T> {
    return this.json<T>(path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
  }

  /** Native events of a trace. */
  async events(trace: string, events: readonly Record<string, unknown>[]): Promise<void> {
    await this.post(`/traces/${encodeURIComponent(trace)}/events`, events);
  }

  /** Spans by OTLP, as they are made by `span`. */
  async spans(spans: readonly OtlpSpan[]): Promise<void> {
    const resource = { attributes: attributes({ 'service.name': 'dashboard-tests' }) };
    await this.post('/v1/traces', { resourceSpans: [{ resource, scopeSpans: [{ spans }] }] });
  }

  /** Runs examples/demo/demo.py for so many runs; `done` settles when it has ended, `trace` is its first run. */
  demo({ runs = 1, speed = 1 } = {}): Demo {
    const demo = resolve(here, '../../examples/demo/demo.py');
    const given = [demo, '--url', this.url, '--rounds', String(runs), '--speed', String(speed)];
    const child = spawn('python3', given, { stdio: ['ignore', 'pipe', 'inherit'] });
    const trace = (async () => {
      for await (const line of createInterface({ input: child.stdout })) {
        const id = /runs\/([0-9a-f]{32})/.exec(line)?.[1];
        if (id !== undefined) {
          child.stdout.resume();
          return id;
        }
      }
      throw new Error('the demo names no run');
    })();
    const done = once(child, 'exit').then(() => {});
    return { trace, done, pause: () => void child.kill('SIGSTOP'), goOn: () => void child.kill('SIGCONT') };
  }
}

export interface Demo {
  trace: Promise<string>;
  done: Promise<void>;
  /** Holds it where it is, however slow the browser: a test then sees the moments that it means. */
  pause: () => void;
  goOn: () => void;
}

export interface OtlpSpan {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name: string;
  kind: number;
  startTimeUnixNano: string;
  endTimeUnixNano?: string;
  attributes: unknown[];
  status?: { code: number; message?: string };
}

/** A span that ended, or (`end: null`) goes on; times are milliseconds since 1970. */
export function span(of: {
  trace: string;
  id?: string;
  parent?: string;
  name: string;
  start?: number;
  end?: number | null;
  error?: string;
  attributes?: Record<string, unknown>;
}): OtlpSpan {
  const start = of.start ?? Date.now();
  const end = of.end === undefined ? start + 10 : of.end;
  return {
    traceId: of.trace,
    spanId: of.id ?? randomBytes(8).toString('hex'),
    ...(of.parent === undefined ? {} : { parentSpanId: of.parent }),
    name: of.name,
    kind: 1,
    startTimeUnixNano: nanoseconds(start),
    ...(end === null ? {} : { endTimeUnixNano: nanoseconds(end) }),
    attributes: attributes(of.attributes ?? {}),
    ...(of.error === undefined ? {} : { status: { code: 2, message: of.error } }),
  };
}

export const newTrace = (): string => randomBytes(16).toString('hex');

function nanoseconds(milliseconds: number): string {
  return String(BigInt(Math.round(milliseconds * 1000)) * 1000n);
}

function attributes(of: Record<string, unknown>): unknown[] {
  return Object.entries(of).map(([key, value]) => ({ key, value: anyValue(value) }));
}

function anyValue(value: unknown): unknown {
  if (typeof value === 'boolean') return { boolValue: value };
  if (typeof value === 'number') return Number.isInteger(value) ? { intValue: String(value) } : { doubleValue: value };
  return { stringValue: typeof value === 'string' ? value : JSON.stringify(value) };
}

/** Below the range that outgoing connections take theirs from: one of those could have the port while the server restarts. */
async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const port = 15_000 + Math.floor(Math.random() * 15_000);
    const free = await new Promise<boolean>((answer) => {
      const probe = createServer();
      probe.once('error', () => answer(false));
      probe.listen(port, '127.0.0.1', () => probe.close(() => answer(true)));
    });
    if (free) return port;
  }
  throw new Error('no port is free');
}

/** `server`: one for all tests that do not mind what others sent; `fresh`: one of this test alone. `page` begins at the first. */
export const test = base.extend<{ baseURL: string; fresh: Server }, { server: Server }>({
  server: [
    async ({}, use) => {
      const server = await Server.start();
      await use(server);
      await server.remove();
    },
    { scope: 'worker' },
  ],
  fresh: async ({}, use) => {
    const server = await Server.start();
    await use(server);
    await server.remove();
  },
  baseURL: async ({ server }, use) => use(server.url),
});
