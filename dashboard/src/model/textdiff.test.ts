import { expect, test } from 'vitest';
import { difference, side } from './textdiff';

test('words that differ are marked on their side', async () => {
  const parts = (await difference('the red fox', 'the blue fox')) ?? [];
  const told = (of: 'removed' | 'added'): string =>
    side(parts, of, true)
      .map((piece) => ('left' in piece ? '' : piece.mark === 'same' ? piece.text : `[${piece.text}]`))
      .join('');
  expect(told('removed')).toBe('the [red] fox');
  expect(told('added')).toBe('the [blue] fox');
});

test('long equal stretches are left out and counted, and no character is cut in half', async () => {
  const long = '😀'.repeat(2_000);
  const parts = (await difference(`${long} a`, `${long} b`)) ?? [];
  const pieces = side(parts, 'removed', false);
  expect(pieces.some((piece) => 'left' in piece && piece.left > 1_000)).toBe(true);
  for (const piece of pieces) if (!('left' in piece)) expect(() => encodeURIComponent(piece.text)).not.toThrow();
  expect(side(parts, 'removed', true).every((piece) => !('left' in piece))).toBe(true);
});

test('texts that have nothing in common are not compared for ever', async () => {
  const lines = (of: string): string => Array.from({ length: 20_000 }, (_, at) => `${of}${at}`).join('\n');
  const begun = performance.now();
  const parts = await difference(lines('a'), lines('b'));
  expect(parts === null || parts.length > 0).toBe(true);
  expect(performance.now() - begun).toBeLessThan(5_000);
});
