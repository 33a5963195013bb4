import { expect, test } from 'vitest';
import type { Span } from './run';
import { runOf, span, thrower } from './testing';
import { Waterfall } from './waterfall';

const shown = (waterfall: Waterfall): string[] =>
  waterfall.slice(0, 1e6).map((row) => `${'.'.repeat(row.depth)}${row.span.id}`);

const family = [
  span('root', { start: 0 }),
  span('a', { parent: 'root', start: 1, end: 5, state: 'failed', error: 'Boom: out of GLUE' }),
  span('a1', { parent: 'a', start: 2, end: 3, kind: 'tool', tool: 'glue_gun' }),
  span('a2', { parent: 'a', start: 3, kind: 'llm', model: 'gpt' }),
  span('b', { parent: 'root', start: 4, end: 6 }),
];

test('rows stand as the spans nest, in the order of their starts', () => {
  const waterfall = new Waterfall();
  expect(waterfall.update(runOf(family))).toBe(true);
  expect(shown(waterfall)).toEqual(['root', '.a', '..a1', '..a2', '.b']);
  expect(waterfall.slice(1, 2)).toMatchObject([
    { index: 1, expanded: true, position: 1, siblings: 2, below: { spans: 2, failed: 0, open: 1 } },
  ]);
  expect(waterfall.below('root')).toMatchObject({ spans: 4, failed: 1, open: 1 });
  expect([waterfall.lastEnd, waterfall.failedCount, waterfall.openCount]).toEqual([6, 1, 2]);
});

test('closing hides what is in a span and says what it was; revealing opens what is above', () => {
  const waterfall = new Waterfall();
  waterfall.update(runOf(family));
  waterfall.collapse('a');
  expect(shown(waterfall)).toEqual(['root', '.a', '.b']);
  expect(waterfall.indexOf('a1')).toBe(-1);
  waterfall.collapseSubtree('root');
  expect(shown(waterfall)).toEqual(['root']);
  waterfall.expand('root');
  expect(shown(waterfall)).toEqual(['root', '.a', '.b']);
  waterfall.reveal('a2');
  expect(shown(waterfall)).toEqual(['root', '.a', '..a1', '..a2', '.b']);
  waterfall.collapseAll();
  expect(shown(waterfall)).toEqual(['root', '.a', '.b']);
  waterfall.expandSubtree('root');
  expect(shown(waterfall)).toHaveLength(5);
  waterfall.collapse('b');
  expect(waterfall.isClosed('b')).toBe(false);
});

test('a search finds names, tools, models and errors, and goes around', () => {
  const waterfall = new Waterfall();
  waterfall.update(runOf(family));
  expect(waterfall.search(' glue ')).toBe(2);
  expect(waterfall.hitFrom(null, 1)).toEqual({ id: 'a', place: 1 });
  expect(waterfall.hitFrom('a', 1)).toEqual({ id: 'a1', place: 2 });
  expect(waterfall.hitFrom('b', 1)).toEqual({ id: 'a', place: 1 });
  expect(waterfall.hitFrom('a', -1)).toEqual({ id: 'a1', place: 2 });
  expect(waterfall.hitFrom('b', -1)).toEqual({ id: 'a1', place: 2 });
  waterfall.update(runOf([...family, span('late', { parent: 'b', start: 5, tool: 'GLUE' })]));
  expect(waterfall.hitCount).toBe(3);
  expect(waterfall.failureFrom(null, 1)).toEqual({ id: 'a', place: 1 });
  expect(waterfall.search('')).toBe(0);
  expect(waterfall.hitFrom(null, 1)).toBe(null);
});

test('another run begins anew', () => {
  const waterfall = new Waterfall();
  waterfall.update(runOf(family));
  waterfall.collapse('root');
  const other = runOf([span('root', { start: 0 }), span('x', { parent: 'root', start: 1 })], 'running', 'other');
  waterfall.update(other);
  expect(shown(waterfall)).toEqual(['root', '.x']);
  const replaced = [span('root', { start: 0 }), span('y', { start: 1 })];
  const told: (string | null)[] = [];
  waterfall.update(runOf(replaced, 'running', 'other'), {
    clear: () => told.push(null),
    tell: (each) => told.push(each.id),
  });
  expect(shown(waterfall)).toEqual(['root', 'y']);
  expect(told).toEqual([null, 'root', 'y']);
});

test('ten thousand steps below one another are laid out', () => {
  const chain = Array.from({ length: 10_000 }, (_, at) =>
    span(String(at), { parent: at === 0 ? null : String(at - 1), start: at }),
  );
  const waterfall = new Waterfall();
  waterfall.update(runOf(chain));
  expect(waterfall.rowCount).toBe(10_000);
  expect(waterfall.below('0').spans).toBe(9999);
});

test('a run that grows, moves and is closed and opened has the rows of one that is laid out at once', () => {
  const pick = thrower(11);
  for (let round = 0; round < 8; round += 1) {
    const spans = new Map<string, Span>();
    const grown = new Waterfall();
    const closed = new Set<string>();
    let previous = new Map<string, Span>();
    for (let step = 0; step < 40; step += 1) {
      for (let each = 0; each < 1 + pick(8); each += 1) {
        const number = pick(6) > 0 ? spans.size : pick(spans.size);
        const id = String(number);
        // A parent has a lower number, so that nothing goes in a circle.
        const parent = pick(5) === 0 || number === 0 ? null : String(pick(number));
        const end = pick(2) === 0 ? null : 2000;
        const before = spans.get(id);
        const start = pick(1000);
        const state = end === null ? 'open' : pick(4) === 0 ? 'failed' : 'ok';
        spans.set(
          id,
          before !== undefined && pick(2) === 0 ? { ...before, end, state } : span(id, { parent, start, end, state }),
        );
      }
      const run = runOf([...spans.values()]);
      const told: string[] = [];
      grown.update(run, { clear: () => told.push('clear'), tell: (each) => told.push(each.id) });
      const changed = [...spans.values()].filter((each) => previous.get(each.id) !== each).map((each) => each.id);
      expect(told).toEqual(step === 0 ? ['clear', ...changed] : changed);
      previous = new Map(spans);
      const id = String(pick(spans.size));
      if (pick(3) === 0) {
        grown.toggle(id);
        if (grown.isClosed(id)) closed.add(id);
        else closed.delete(id);
      }
      const fresh = new Waterfall();
      fresh.update(run);
      for (const each of closed) fresh.collapse(each);
      for (const each of [...closed].filter((each) => !fresh.isClosed(each))) {
        grown.expand(each);
        closed.delete(each);
      }
      expect(shown(grown)).toEqual(shown(fresh));
      const counts = (of: Waterfall): unknown[] => [...spans.keys()].map((each) => ({ ...of.below(each), span: null }));
      expect(counts(grown)).toEqual(counts(fresh));
      expect([grown.failedCount, grown.openCount]).toEqual([fresh.failedCount, fresh.openCount]);
    }
  }
});
