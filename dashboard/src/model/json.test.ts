import { describe, expect, it } from 'vitest';
import {
  CHILDREN,
  MOST_ROWS,
  copied,
  expression,
  extended,
  openAtFirst,
  pressed,
  rows,
  shortJson,
  structureIn,
  toggled,
} from './json';

const value = { name: 'x', list: [1, { deep: true }], 'a b': null };

describe('a value as rows', () => {
  it('opens what fits', () => {
    const shown = rows(value, openAtFirst(value));
    expect(shown.map((row) => [row.id, row.depth, row.kind])).toEqual([
      ['', 0, 'object'],
      ['/name', 1, 'string'],
      ['/list', 1, 'array'],
      ['/list/0', 2, 'number'],
      ['/list/1', 2, 'object'],
      ['/list/1/deep', 3, 'boolean'],
      ['/a b', 1, 'null'],
    ]);
  });

  it('shows a hundred children, then more', () => {
    const list = Array.from({ length: 10_000 }, (_, index) => index);
    let open: ReadonlyMap<string, number> = new Map([['', CHILDREN]]);
    let shown = rows(list, open);
    expect(shown.length).toBe(1 + CHILDREN + 1);
    const more = shown.at(-1);
    expect(more?.hidden).toBe(9_900);
    if (more !== undefined) open = extended(open, more);
    shown = rows(list, open);
    expect(shown.length).toBe(1 + 6 * CHILDREN + 1);
    expect(rows(list, new Map([['', 1_000_000]])).length).toBe(MOST_ROWS + 1);
  });

  it('goes into any depth without falling', () => {
    let deep: unknown = 'bottom';
    for (let level = 0; level < 500; level++) deep = [deep];
    const open = new Map<string, number>();
    for (let level = 0, at = ''; level < 500; level++, at += '/0') open.set(at, CHILDREN);
    expect(rows(deep, open).length).toBe(65);
    expect(openAtFirst(deep).size).toBe(3);
  });

  it('opens a text that is JSON', () => {
    const shown = rows(
      { arguments: '{"city":"Riga"}' },
      new Map([
        ['', 100],
        ['/arguments', 100],
      ]),
    );
    expect(shown.map((row) => row.id)).toEqual(['', '/arguments', '/arguments/city']);
    expect(shown[1]?.isText).toBe(true);
    for (const text of ["{'a': 1}", '{broken', '12', '"x"', '[INST] hello', 'null'])
      expect(structureIn(text)).toBeUndefined();
  });

  it('opens and closes', () => {
    const open = openAtFirst(value);
    const list = rows(value, open)[2];
    expect(list?.id).toBe('/list');
    if (list !== undefined) expect(rows(value, toggled(open, list)).length).toBe(4);
  });

  it('has names like those of an object', () => {
    const shown = rows(JSON.parse('{"__proto__":{"x":1},"constructor":2}') as unknown, new Map([['', 9]]));
    expect(shown.map((row) => row.key)).toEqual([null, '__proto__', 'constructor']);
  });
});

it('is copied as it was', () => {
  expect(expression(['list', 1, 'a b'])).toBe('$.list[1]["a b"]');
  expect(copied('text')).toBe('text');
  expect(copied({ a: 1 })).toBe('{\n  "a": 1\n}');
});

it('is walked by keys', () => {
  const list = rows(value, openAtFirst(value));
  expect(pressed('ArrowDown', 0, list)).toEqual({ at: 1, toggle: false });
  expect(pressed('ArrowLeft', 5, list)).toEqual({ at: 4, toggle: false });
  expect(pressed('ArrowLeft', 2, list)).toEqual({ at: 2, toggle: true });
  expect(pressed('End', 0, list)).toEqual({ at: 6, toggle: false });
  expect(pressed('x', 0, list)).toBeNull();
});

it('is one line when it is short and flat', () => {
  expect(shortJson({ city: 'Riga', days: 3 })).toBe('{ "city": "Riga", "days": 3 }');
  expect(shortJson(['a', 1])).toBe('[ "a", 1 ]');
  for (const value of [
    { a: { b: 1 } },
    { a: 'x'.repeat(61) },
    [1, 2, 3, 4, 5],
    { a: 'x'.repeat(40), b: 'y'.repeat(40) },
  ])
    expect(shortJson(value)).toBeNull();
});
