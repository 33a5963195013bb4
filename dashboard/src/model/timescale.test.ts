import { expect, test } from 'vitest';
import { around, extent, panned, placed, ticks, within, zoomed } from './timescale';

const whole = { from: 1000, to: 2000 };

test('the whole of a run that goes on ends ahead of now, and stays while it fills', () => {
  expect(extent(1000, null, 1000, true)).toEqual({ from: 1000, to: 2000 });
  expect(extent(1000, 1100, 2000, true)).toEqual(extent(1000, 1900, 2150, true));
  expect(extent(1000, 1900, 9999, false)).toEqual({ from: 1000, to: 1900 });
  expect(extent(null, null, 5, false).to).toBeGreaterThan(5);
});

test('zooming keeps the moment under the pointer, and ends at the whole', () => {
  const near = zoomed(whole, whole, 0.5, 1250);
  expect(near).toEqual({ from: 1125, to: 1625 });
  expect(zoomed(near ?? whole, whole, 4, 1250)).toBe(null);
  expect(zoomed(whole, whole, 1e-12, 1500)?.to).toBeGreaterThan(1500);
});

test('panning and showing a span stay within the run', () => {
  expect(panned({ from: 1100, to: 1200 }, whole, -5)).toEqual({ from: 1000, to: 1100 });
  expect(panned({ from: 1100, to: 1200 }, whole, 0.5)).toEqual({ from: 1150, to: 1250 });
  expect(within({ from: 0, to: 9000 }, whole)).toEqual(whole);
  expect(around(1400, 1500, whole)).toEqual({ from: 1392, to: 1508 });
  expect(around(1000, 2000, whole)).toBe(null);
});

test('a span is placed in percent, cut at the edges, and not at all outside', () => {
  expect(placed(1250, 1500, whole)).toEqual({ left: 25, width: 25 });
  expect(placed(500, 1500, whole)).toEqual({ left: 0, width: 50 });
  expect(placed(1500, 1400, whole)).toEqual({ left: 50, width: 0 });
  expect(placed(2001, 2500, whole)).toBe(null);
});

test.each([
  [100, 5, ['0', '20 ms', '40 ms', '60 ms', '80 ms', '100 ms']],
  [2500, 5, ['0', '0.5 s', '1.0 s', '1.5 s', '2.0 s', '2.5 s']],
  [90_000, 4, ['0', '30 s', '60 s', '90 s']],
  [3_600_000 * 3, 4, ['0', '1h', '2h', '3h']],
  [0.05, 5, ['0', '10 µs', '20 µs', '30 µs', '40 µs', '50 µs']],
])('an axis of %d ms says round moments', (length, most, labels) => {
  expect(ticks({ from: 0, to: length }, 0, most).map((tick) => tick.label)).toEqual(labels);
});

test('ticks deep in a run tell their moments apart', () => {
  const labels = ticks({ from: 1_900_000, to: 1_900_500 }, 1000, 5).map((tick) => tick.label);
  expect(new Set(labels).size).toBe(labels.length);
});
