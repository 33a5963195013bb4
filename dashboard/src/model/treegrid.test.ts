import { expect, test } from 'vitest';
import { runOf, span } from './testing';
import { actOf } from './treegrid';
import { Waterfall } from './waterfall';

const waterfall = new Waterfall();
waterfall.update(
  runOf([
    span('root', { start: 0 }),
    span('a', { parent: 'root', start: 1 }),
    span('a1', { parent: 'a', start: 2 }),
    span('b', { parent: 'root', start: 3 }),
  ]),
);

test.each([
  [null, 'ArrowDown', { to: 'root' }],
  ['root', 'ArrowDown', { to: 'a' }],
  ['b', 'ArrowDown', { to: 'b' }],
  ['root', 'ArrowUp', { to: 'root' }],
  ['root', 'End', { to: 'b' }],
  ['b', 'Home', { to: 'root' }],
  ['root', 'PageDown', { to: 'a1' }],
  ['b', 'PageUp', { to: 'a' }],
  ['a', 'ArrowRight', { to: 'a1' }],
  ['a1', 'ArrowRight', null],
  ['a', 'ArrowLeft', { collapse: 'a' }],
  ['a1', 'ArrowLeft', { to: 'a' }],
  ['root', 'x', null],
  ['unknown', 'ArrowLeft', null],
])('from %s, %s', (active, key, act) => {
  expect(actOf(waterfall, active, key, 3)).toEqual(act);
});

test('a closed row is opened before it is entered', () => {
  waterfall.collapse('a');
  expect(actOf(waterfall, 'a', 'ArrowRight', 3)).toEqual({ expand: 'a' });
  expect(actOf(waterfall, 'a', 'ArrowLeft', 3)).toEqual({ to: 'root' });
});
