import { describe, expect, test } from 'vitest';
import { align, askedOf, changes, sections, shapeOf, shown, stepsOf, type Asked, type Step } from './compare';
import { Overview } from './overview';
import type { Run, Span } from './run';
import { span as made } from './testing';

const span = (id: string, parent: string | null, name: string, more: Partial<Span> = {}): Span =>
  made(id, { parent, name, end: 1, ...more });

function run(...spans: Span[]): Run {
  const children = new Map<string | null, string[]>();
  for (const one of spans) children.set(one.parent, [...(children.get(one.parent) ?? []), one.id]);
  return {
    id: 'r',
    status: 'completed',
    spans: new Map(spans.map((one) => [one.id, one])),
    children,
    overview: new Overview(),
    start: 0,
    lastEventAt: 0,
    events: spans.length,
    version: 1,
  };
}

/** `a b(c d)`: steps under a root, in order, a millisecond each. */
function steps(names: string, more: Partial<Step> = {}): Step[] {
  return names
    .split(' ')
    .filter((name) => name !== '')
    .map((name, at) => ({
      id: `${name}${at}`,
      parent: null,
      depth: 0,
      key: name,
      weak: name.replace(/\/.*/, ''),
      label: name,
      agent: null,
      kind: 'tool',
      model: null,
      state: 'ok',
      durationMs: 1,
      tokens: null,
      cost: null,
      words: '',
      error: null,
      ...more,
    }));
}

function told(a: string, b: string, options = {}): string {
  const [left, right] = [steps(a), steps(b)];
  const name = (of: Step[], at: number | null): string => (at === null ? '-' : (of[at]?.label ?? '?'));
  return align(left, right, options)
    .rows.map((row) => {
      const [x, y] = [name(left, row.a), name(right, row.b)];
      return row.how === 'same' ? x : `${row.how}:${x}|${y}`;
    })
    .join(' ');
}

describe('align', () => {
  test('equal steps stand beside each other, the others alone', () => {
    expect(told('a b c d', 'a b c d')).toBe('a b c d');
    expect(told('a b c d', 'a x c d')).toBe('a only-a:b|- only-b:-|x c d');
    expect(told('', 'a')).toBe('only-b:-|a');
    expect(told('a b c', 'b c a')).toBe('only-a:a|- b c only-b:-|a');
  });

  test('the same call with arguments of another shape has changed', () => {
    const hows = (words: string): string[] =>
      align(steps('a t/1 c', { words: 'x' }), steps('a t/2 c', { words })).rows.map((row) => row.how);
    expect(hows('y')).toEqual(['same', 'changed', 'same']);
    // What nobody recorded is not known to differ.
    expect(hows('')).toEqual(['same', 'same', 'same']);
  });

  test('the first divergence is where the steps part or end otherwise', () => {
    expect(align(steps('a b c'), steps('a b c')).divergence).toBeNull();
    expect(align(steps('a b c'), steps('a x c')).divergence).toBe(1);
    const failed = steps('a b c').map((step) => (step.label === 'c' ? { ...step, state: 'failed' as const } : step));
    expect(align(steps('a b c'), failed).divergence).toBe(2);
  });

  test('what a run that goes on has not done yet is no difference', () => {
    expect(told('a b c', 'a b', { bRuns: true })).toBe('a b pending-b:c|-');
    expect(told('a b c', 'a c', { bRuns: true })).toBe('a only-a:b|- c');
    const inner = (state: Step['state'], names: string): Step[] => [
      ...steps('root', { state }),
      ...steps(names).map((step) => ({ ...step, id: `i${step.id}`, parent: 'root0', depth: 1 })),
    ];
    const hows = (bState: Step['state'], b: string): string[] =>
      align(inner('ok', 'x y z'), inner(bState, b), { bRuns: true }).rows.map((row) => row.how);
    expect(hows('open', 'x')).toEqual(['same', 'same', 'pending-b', 'pending-b']);
    expect(hows('ok', 'x')).toEqual(['same', 'same', 'only-a', 'only-a']);
    expect(hows('open', 'x z')).toEqual(['same', 'same', 'only-a', 'same']);
  });

  test('is as good as the longest common subsequence, and in order', () => {
    let seed = 7;
    const random = (below: number): number => {
      seed = (seed * 1103515245 + 12345) % 2147483648;
      return Math.floor((seed / 2147483648) * below);
    };
    for (let round = 0; round < 300; round += 1) {
      const words = (count: number): string => Array.from({ length: random(count) }, () => 'abcd'[random(4)]).join(' ');
      const [left, right] = [steps(words(14)), steps(words(14))];
      const { rows, coarse } = align(left, right);
      expect(coarse).toBe(false);
      expect(rows.flatMap((row) => (row.a === null ? [] : [row.a]))).toEqual(left.map((_, at) => at));
      expect(rows.flatMap((row) => (row.b === null ? [] : [row.b]))).toEqual(right.map((_, at) => at));
      const same = rows.filter((row) => row.how === 'same');
      for (const row of same) expect(left[row.a ?? -1]?.key).toBe(right[row.b ?? -1]?.key);
      expect(same.length).toBe(lcs(left, right));
    }
  });

  test('too much work makes it coarse, never slow or wrong', () => {
    const left = steps(Array.from({ length: 20_000 }, (_, at) => `a${(at * 7919) % 1013}`).join(' '));
    const right = steps(Array.from({ length: 20_000 }, (_, at) => `a${(at * 104729) % 1019}`).join(' '));
    const { rows, coarse } = align(left, right);
    expect(coarse).toBe(true);
    expect(rows.filter((row) => row.a !== null).length).toBe(20_000);
    expect(rows.filter((row) => row.b !== null).length).toBe(20_000);
    const long = steps(Array.from({ length: 20_000 }, (_, at) => `a${at}`).join(' '));
    expect(align(long, [...long.slice(0, 9_000), ...steps('x y'), ...long.slice(9_001)])).toMatchObject({
      coarse: false,
      divergence: 9_000,
    });
  });
});

function lcs(a: readonly Step[], b: readonly Step[]): number {
  const best = Array.from({ length: a.length + 1 }, () => new Array<number>(b.length + 1).fill(0));
  a.forEach((x, i) =>
    b.forEach((y, j) => {
      const row = best[i + 1] ?? [];
      row[j + 1] = x.key === y.key ? (best[i]?.[j] ?? 0) + 1 : Math.max(best[i]?.[j + 1] ?? 0, row[j] ?? 0);
    }),
  );
  return best[a.length]?.[b.length] ?? 0;
}

test('a shape has fields and types, no values, and reads JSON in text', () => {
  expect(shapeOf({ b: 1, a: 'x', c: [1, 2], d: null })).toBe('{a:text,b:number,c:[number],d:}');
  expect(shapeOf('{"a": {"b": true}}')).toBe('{a:{b:boolean}}');
  expect(shapeOf('{"a"')).toBe('text');
  expect(shapeOf(undefined)).toBe('');
});

test('what a call was made with is read off its event', () => {
  expect(askedOf({ span_id: 's', tool: { name: 't', arguments: { city: 'Rome' } } })).toEqual({
    span: 's',
    asked: { shape: '{city:text}', words: '{"city":"Rome"}' },
  });
  expect(askedOf({ span_id: 's', retrieval: { query: 'q' } })?.asked.shape).toBe('text');
  expect(askedOf({ span_id: 's', tool: { name: 't' } })).toBeNull();
  expect(askedOf({ tool: { arguments: 1 } })).toBeNull();
});

describe('stepsOf', () => {
  const labels = (of: Run, asked = new Map<string, Asked>()): string[] =>
    stepsOf(of, asked, 100).map((step) => `${'.'.repeat(step.depth)}${step.label}`);

  test('callers come before what they call, in order of start', () => {
    expect(
      labels(
        run(
          span('r', null, 'root', { end: 9 }),
          span('b', 'r', 'second', { start: 5, end: 6 }),
          span('a', 'r', 'first', { start: 1, end: 2 }),
          span('c', 'a', 'inner'),
        ),
      ),
    ).toEqual(['root', '.first', '..inner', '.second']);
  });

  test('who of two parallel steps was first does not count', () => {
    const parallel = (x: number, y: number): Run =>
      run(
        span('r', null, 'root', { end: 20 }),
        span('1', 'r', 'x', { start: x, end: 10 }),
        span('2', 'r', 'y', { start: y, end: 10 }),
      );
    expect(labels(parallel(1, 2))).toEqual(labels(parallel(2, 1)));
    expect(labels(run(span('1', null, 'y', { start: 0, end: 1 }), span('2', null, 'x', { start: 1, end: 2 })))).toEqual(
      ['y', 'x'],
    );
  });

  test('ids in names, and models in the names of model calls, make no other step', () => {
    const key = (one: Span): string | undefined => stepsOf(run(one), new Map(), 0)[0]?.key;
    expect(key(span('1', null, 'job 123456'))).toBe(key(span('2', null, 'job 98765')));
    expect(key(span('1', null, 'chat gpt-4o', { kind: 'llm', model: 'gpt-4o' }))).toBe(
      key(span('1', null, 'chat o3', { kind: 'llm', model: 'o3' })),
    );
    expect(key(span('1', null, 'a', { agent: 'p' }))).not.toBe(key(span('1', null, 'a', { agent: 'q' })));
  });
});

test('long stretches of equal steps fold, and open', () => {
  const names = Array.from({ length: 20 }, (_, at) => `s${at}`);
  const alignment = align(steps(names.join(' ')), steps([...names.slice(0, 10), 'x', ...names.slice(11)].join(' ')));
  const of = (opened: number[]): unknown[] => shown(alignment, true, new Set(opened));
  expect(of([])).toEqual([
    { fold: 0, from: 0, to: 8 },
    { row: 8 },
    { row: 9 },
    { row: 10 },
    { row: 11 },
    { row: 12 },
    { row: 13 },
    { fold: 14, from: 14, to: 21 },
  ]);
  expect(of([0, 14]).length).toBe(21);
  expect(shown(alignment, false, new Set()).length).toBe(21);
});

test('changes say which run is better and by which share', () => {
  const measured = {
    durationMs: 1000,
    cost: 0.2,
    inputTokens: 0,
    outputTokens: null,
    llmCalls: 2,
    toolCalls: 1,
    errors: 0,
  };
  const [time, cost, input, output] = changes(measured, { ...measured, durationMs: 500, cost: 0.3, inputTokens: 5 });
  expect(time).toMatchObject({ delta: -500, share: -0.5, better: 'b' });
  expect(cost).toMatchObject({ better: 'a' });
  expect(input).toMatchObject({ delta: 5, share: null });
  expect(output).toMatchObject({ delta: null, better: null });
});

test('sections hold what went in and came out of both', () => {
  const a = { model: 'm', input: [{ role: 'user', content: 'hi' }], output: [{ role: 'assistant', content: 'yes' }] };
  const b = {
    tool: { name: 't', arguments: '{"b":1,"a":2}', result: 'x' },
    input: 'same again',
    error: { type: 'E', message: 'no' },
  };
  expect(sections(a, b)).toEqual([
    { title: 'Prompt', a: 'user: hi', b: '' },
    { title: 'Arguments', a: '', b: '{\n  "a": 2,\n  "b": 1\n}' },
    { title: 'Answer', a: 'assistant: yes', b: '' },
    { title: 'Result', a: '', b: 'x' },
    { title: 'Error', a: '', b: 'E: no' },
  ]);
});
