import { expect, test } from 'vitest';
import { IdSet } from './idset';

test('knows what was put in and nothing else, however much', () => {
  const set = new IdSet();
  expect(set.has('a')).toBe(false);
  const id = (at: number) => at.toString(16).padStart(16, '0');
  for (let at = 0; at < 50_000; at += 1) set.add(id(at));
  for (const other of ['', 'event:7', 'a', 'b', 'ab', 'ba', 'x'.repeat(10_000)]) set.add(other);
  set.add(id(7));
  expect(set.size).toBe(50_007);
  for (let at = 0; at < 50_000; at += 1) if (!set.has(id(at))) throw new Error(`${at} is missing`);
  for (let at = 50_000; at < 100_000; at += 1) if (set.has(id(at))) throw new Error(`${at} was never put in`);
  expect([set.has('ab'), set.has(''), set.has('event:8'), set.has('x'.repeat(9_999))]).toEqual([
    true,
    true,
    false,
    false,
  ]);
  set.clear();
  expect([set.size, set.has(id(1))]).toEqual([0, false]);
});
