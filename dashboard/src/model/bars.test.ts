import { expect, test } from 'vitest';
import { aside, drawn } from './bars';
import { runOf, span } from './testing';

const shown = { from: 0, to: 100 };

test('an open step grows to now, an ended one does not', () => {
  const open = span('a', { start: 20 });
  const run = runOf([open]);
  expect(drawn(open, run, shown, 70, [])).toMatchObject({
    bar: { left: 20, width: 50 },
    grows: true,
    look: 'open',
    note: null,
  });
  const ended = span('a', { start: 20, end: 30 });
  expect(drawn(ended, run, shown, 70, [{ from: 20, to: 25 }])).toMatchObject({
    bar: { left: 20, width: 10 },
    grows: false,
    critical: [{ left: 20, width: 5 }],
    said: 'from 0.0 ms, took 10 ms, the run waited 5.0 ms for it',
  });
});

test('what is stalled says since when, what is lost that it never ended', () => {
  const stalled = span('a', { start: 20, state: 'stalled', stalledSince: 40 });
  expect(drawn(stalled, runOf([stalled]), shown, 60, [])).toMatchObject({
    bar: { left: 20, width: 40 },
    silent: { left: 40, width: 20 },
    note: 'silent for 20 ms',
  });
  const lost = span('a', { start: 20, state: 'lost', stalledSince: 30 });
  expect(drawn(lost, runOf([lost], 'lost'), shown, 99, [])).toMatchObject({
    bar: { left: 20, width: 10 },
    note: 'never ended',
    look: 'lost',
  });
});

test('a step outside of what is shown has no bar, and stretches that touch are one', () => {
  const far = span('a', { start: 200, end: 300 });
  expect(drawn(far, runOf([far]), shown, 0, []).bar).toBe(null);
  const near = span('a', { start: 0, end: 50, state: 'failed' });
  const found = drawn(near, runOf([near]), shown, 0, [
    { from: 0, to: 10 },
    { from: 10.1, to: 20 },
    { from: 30, to: 40 },
  ]);
  expect(found.critical).toHaveLength(2);
  expect(found.note).toBe('failed');
});

test('a second name is told where it adds something', () => {
  expect(aside(span('a', { name: 'chat', kind: 'llm', model: 'gpt', agent: 'x' }), span('p', { agent: 'x' }))).toBe(
    'gpt',
  );
  expect(
    aside(span('a', { name: 'search', kind: 'tool', tool: 'search', agent: 'y' }), span('p', { agent: 'x' })),
  ).toBe('y');
  expect(aside(span('a', { name: 'x', agent: 'x' }), null)).toBe(null);
});
