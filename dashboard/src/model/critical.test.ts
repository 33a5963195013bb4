import { expect, test } from 'vitest';
import { criticalPath } from './critical';
import { runOf, span } from './testing';

const path = (...of: Parameters<typeof criticalPath>): Record<string, [number, number][]> =>
  Object.fromEntries(
    [...criticalPath(...of).segments].map(([id, list]) => [id, list.map(({ from, to }) => [from, to])]),
  );

test('a step waits for what ended last in it, and for itself in between', () => {
  const run = runOf(
    [
      span('root', { start: 0, end: 100 }),
      span('a', { parent: 'root', start: 10, end: 40 }),
      span('short', { parent: 'root', start: 50, end: 60 }),
      span('long', { parent: 'root', start: 50, end: 90 }),
      span('deep', { parent: 'long', start: 55, end: 85 }),
    ],
    'completed',
  );
  expect(path(run, 0)).toEqual({
    root: [
      [0, 10],
      [40, 50],
      [90, 100],
    ],
    a: [[10, 40]],
    long: [
      [50, 55],
      [85, 90],
    ],
    deep: [[55, 85]],
  });
});

test('of a run that goes on it leads through what is open', () => {
  const run = runOf([
    span('root', { start: 0 }),
    span('done', { parent: 'root', start: 0, end: 30 }),
    span('open', { parent: 'root', start: 20 }),
  ]);
  expect(path(run, 100)).toEqual({ open: [[20, 100]], done: [[0, 20]] });
});

test('what was begun in a step and outlived it is followed, and what ran beside the path is where nothing else was', () => {
  const run = runOf(
    [
      span('root', { start: 0, end: 50 }),
      span('after', { parent: 'root', start: 40, end: 80 }),
      span('beside', { start: 0, end: 100 }),
      span('later', { start: 100, end: 120 }),
      span('next turn', { start: 200, end: 210 }),
    ],
    'completed',
  );
  expect(path(run, 0)).toEqual({ beside: [[0, 100]], later: [[100, 120]], 'next turn': [[200, 210]] });
});

test('a ghost lasted as long as what is in it, a lost step is not waited for', () => {
  const run = runOf([
    span('ghost', { start: 0, ghost: true }),
    span('in it', { parent: 'ghost', start: 10, end: 30 }),
    span('lost', { parent: 'ghost', start: 20, state: 'lost' }),
  ]);
  expect(path(run, 99)).toEqual({ ghost: [[0, 10]], 'in it': [[10, 30]] });
});

test("every moment of a tree of steps without holes is somebody's, once", () => {
  const spans = [span('0', { start: 0, end: 20_000 })];
  for (let at = 1; at < 20_000; at += 1) {
    const parent = Math.floor((at - 1) / 3);
    const above = spans[parent];
    if (above === undefined || above.end === null) continue;
    const third = (above.end - above.start) / 3;
    const start = above.start + third * ((at - 1) % 3) * 0.9;
    spans.push(span(String(at), { parent: String(parent), start, end: start + third }));
  }
  const found = criticalPath(runOf(spans, 'completed'), 0);
  expect(found.length).toBeCloseTo(20_000, 3);
});
