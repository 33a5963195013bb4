import { expect, test } from 'vitest';
import { broken, excerpt, onlyRun, refusal, taken, told, type Dropped, type FileState } from './filedrop';

test('an excerpt shows the place with what is around it', () => {
  const found = excerpt('one\ntwo\nthr€e!four\nfive', 3, 7);
  expect(found?.lines).toEqual([
    { number: 1, text: 'one', isPlace: false },
    { number: 2, text: 'two', isPlace: false },
    { number: 3, text: 'thr€e!four', isPlace: true },
  ]);
  // Six bytes before it are four characters.
  expect(found?.before).toBe(4);
  const long = excerpt(`${'x'.repeat(5_000)}?${'y'.repeat(5_000)}`, 1, 5_001);
  const shown = long?.lines[0]?.text ?? '';
  expect(shown.length).toBeLessThan(120);
  expect(shown.charAt(long?.before ?? 0)).toBe('?');
  expect(excerpt('one', 5, 1)).toBeNull();
});

test('what the server says of a broken file comes with its place', () => {
  const said = { error: { code: 'invalid_file', message: 'expected value', line: 2, column: 3 } };
  expect(broken(said, 400, 'a\nbcd')).toMatchObject({
    message: 'expected value',
    line: 2,
    column: 3,
    excerpt: { before: 2 },
  });
  expect(broken(said, 400, null).excerpt).toBeNull();
  expect(broken('nonsense', 502, null).message).toBe('the server answered 502');
});

test('the answer is read as it is found', () => {
  expect(taken({ traces: [{ trace_id: 'a', accepted: 3, duplicates: 1 }, { nothing: 1 }] })).toEqual([
    { id: 'a', accepted: 3, duplicates: 1, deleted: false },
  ]);
  expect(taken([])).toBeNull();
});

test('files that are too large or empty are not sent', () => {
  expect(refusal('a.json', 0)).toContain('empty');
  expect(refusal('a.json', 1 << 27)).toContain('tailspan import a.json');
  expect(refusal('a; rm -rf.json', 1 << 27)).toContain('tailspan import FILE');
  expect(refusal('a.json', 10)).toBeNull();
});

test('one run is gone to, several are listed', () => {
  const file = (state: FileState): Dropped => ({ key: 1, name: 'a', bytes: 1, state });
  const done = (...ids: string[]): Dropped =>
    file({ phase: 'done', traces: ids.map((id) => ({ id, accepted: 1, duplicates: 0, deleted: false })) });
  const failed = file({ phase: 'failed', broken: broken(null, 400, null) });
  expect(onlyRun([done('x')])).toBe('x');
  expect(onlyRun([done('x'), done('x')])).toBe('x');
  expect(onlyRun([done('x', 'y')])).toBeNull();
  expect(onlyRun([done('x'), failed])).toBeNull();
  expect(told([done('x', 'y'), failed])).toBe('2 runs imported, 1 file not taken');
  expect(told([file({ phase: 'sending' }), done('x')])).toBe('Importing: 1 of 2 files done');
});
