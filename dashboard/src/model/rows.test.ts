import { expect, test } from 'vitest';
import { RowList } from './rows';
import { thrower } from './testing';

test('answers as an array would, however it was changed', () => {
  const pick = thrower(7);
  const rows = new RowList();
  let plain: string[] = [];
  for (let step = 0; step < 1000; step += 1) {
    const index = pick(plain.length + 1);
    if (pick(4) > 0) {
      const ids = Array.from({ length: 1 + pick(step % 100 === 0 ? 2000 : 3) }, (_, n) => `${step}.${n}`);
      rows.insert(index, ids);
      plain = [...plain.slice(0, index), ...ids, ...plain.slice(index)];
    } else {
      const count = pick(40);
      rows.remove(index, count);
      plain = [...plain.slice(0, index), ...plain.slice(index + count)];
    }
  }
  expect(rows.size).toBe(plain.length);
  expect(rows.slice(0, plain.length)).toEqual(plain);
  expect(plain.every((id, index) => rows.indexOf(id) === index && rows.at(index) === id)).toBe(true);
});

test('knows nothing of rows that are not there', () => {
  const rows = new RowList();
  expect([rows.indexOf('a'), rows.at(0), rows.slice(-5, 9)]).toEqual([-1, undefined, []]);
  rows.insert(99, ['a', 'b']);
  rows.remove(0, 1);
  expect([rows.indexOf('a'), rows.has('a'), rows.slice(-5, 9)]).toEqual([-1, false, ['b']]);
  rows.clear();
  expect(rows.size).toBe(0);
});
