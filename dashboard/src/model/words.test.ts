import { describe, expect, it } from 'vitest';
import { ago, count, dollars, duration, short } from './words';

describe('words for numbers', () => {
  it('are short and never lie about their size', () => {
    expect(
      [0, 0.25, 12.4, 999.6, 2_500, 9_960, 42_000, 185_000, 3_600_000, 7_800_000, 273_600_000].map(duration),
    ).toEqual([
      '0 ms',
      '0.25 ms',
      '12 ms',
      '1.0 s',
      '2.5 s',
      '10 s',
      '42 s',
      '3 min 5 s',
      '1 h',
      '2 h 10 min',
      '3 d 4 h',
    ]);
    expect(duration(-5)).toBe('0 ms');
    expect([0, 0.000123, 0.0042, 0.0213, 0.5, 1.25, 1250.4].map(dollars)).toEqual([
      '$0',
      '$0.00012',
      '$0.0042',
      '$0.021',
      '$0.500',
      '$1.25',
      '$1,250',
    ]);
    expect([count(12_345), short(9_999), short(12_345), short(4_500_000)]).toEqual([
      '12,345',
      '9,999',
      '12.3K',
      '4.5M',
    ]);
  });

  it('tell how long ago', () => {
    const now = Date.UTC(2026, 0, 2);
    expect([1, 30, 400, 9_000, 200_000].map((seconds) => ago(now - seconds * 1000, now))).toEqual([
      'now',
      '30 s ago',
      '6 min ago',
      '2 h ago',
      '2025-12-30',
    ]);
  });
});
