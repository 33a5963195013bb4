import { expect, test } from 'vitest';
import { COLUMNS, Overview } from './overview';
import type { Span } from './run';
import { span, thrower } from './testing';

test('counts how many of a kind ran at once', () => {
  const overview = new Overview();
  overview.tell(span('a', { kind: 'llm', start: 1000, end: 1008 }), null);
  overview.tell(span('b', { kind: 'llm', start: 1002, end: 1004 }), null);
  overview.tell(span('c', { kind: 'tool', start: 1004, end: 1012, state: 'failed' }), null);
  overview.tell(span('d', { kind: 'agent', start: 1000, end: 1012 }), null);
  expect(overview.columns(1012)).toEqual({
    width: 4,
    columns: [
      { llm: 1.5, tool: 0, retrieval: 0, failed: 0 },
      { llm: 1, tool: 1, retrieval: 0, failed: 0 },
      { llm: 0, tool: 1, retrieval: 0, failed: 0 },
    ],
  });
});

test('an open step runs to now', () => {
  const overview = new Overview();
  const open = span('a', { kind: 'llm', start: 0 });
  overview.tell(open, null);
  expect(overview.columns(10).columns.map((each) => each.llm)).toEqual([1, 1, 0.5]);
  overview.tell({ ...open, end: 5 }, open);
  expect(overview.columns(10).columns.map((each) => each.llm)).toEqual([1, 0.25, 0]);
});

test('is the same however the run grew', () => {
  const pick = thrower(3);
  const final: Span[] = [];
  const grown = new Overview();
  for (let at = 0; at < 400; at += 1) {
    const start = 1e9 + pick(2000 * (at + 1)) - (at === 200 ? 5_000 : 0);
    const first = span(String(at), { kind: at % 2 === 0 ? 'llm' : 'tool', start });
    const then = { ...first, start: start + pick(3), end: start + 3 + pick(5000) };
    grown.tell(first, null);
    grown.tell(then, first);
    final.push(then);
  }
  const from = grown.from ?? 0;
  const until = Math.max(...final.map((each) => each.end ?? 0));
  const { width, columns } = grown.columns(until);
  expect(columns.length).toBeLessThanOrEqual(COLUMNS);
  expect(columns.length).toBeGreaterThan(COLUMNS / 3);
  for (const [index, column] of columns.entries()) {
    const low = from + index * width;
    let llm = 0;
    for (const each of final) {
      if (each.kind === 'llm' && each.end !== null)
        llm += Math.max(0, Math.min(each.end, low + width) - Math.max(each.start, low)) / width;
    }
    expect(column.llm).toBeCloseTo(llm, 4);
  }
});
