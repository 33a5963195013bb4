import { expect, it } from 'vitest';
import { count, duration, percent, usd } from './amounts';

it('tells how long', () => {
  expect([0, 0.42, 812, 999.6, 1_363, 10_000, 59_960, 125_000, 3_720_000].map(duration)).toEqual([
    '0.0 ms',
    '0.4 ms',
    '812 ms',
    '1.00 s',
    '1.36 s',
    '10.0 s',
    '1 m 00 s',
    '2 m 05 s',
    '1 h 02 m',
  ]);
});

it('tells how many and how much', () => {
  expect([950, 1_250, 48_210, 999_960, 1_340_000].map(count)).toEqual(['950', '1,250', '48.2 k', '1.0 M', '1.3 M']);
  expect([0, 1.2, 0.013, 0.000_24, 1e-9].map(usd)).toEqual(['$0', '$1.20', '$0.013', '$0.00024', '< $0.000001']);
  expect([0, 0.003, 0.9521, 1].map(percent)).toEqual(['0 %', '0.3 %', '95 %', '100 %']);
});
