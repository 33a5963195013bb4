import { describe, expect, it } from 'vitest';
import { firstWindow, isLastStep, line, pieces, windowAfter, windowBefore, STEPS, named } from './text';

const shown = (text: string): string =>
  pieces(text)
    .map((piece) => piece.text)
    .join('');
const original = (text: string): string =>
  pieces(text)
    .map((piece) => piece.original ?? piece.text)
    .join('');

describe('what nobody would see is shown', () => {
  const cases: [string, string, string][] = [
    ['an escape sequence', '\u001b[31mred\u001b[0m', '␛[31mred␛[0m'],
    ['a bidi override', 'user\u202etxt.exe', 'user⟨U+202E⟩txt.exe'],
    ['a zero-width space', 'pay\u200bpal', 'pay⟨U+200B⟩pal'],
    ['a lone surrogate', 'a\ud800b', 'a⟨U+D800⟩b'],
    ['hidden tags', 'hi\u{e0068}\u{e0069}', 'hi⟨U+E0068⟩⟨U+E0069⟩'],
    ['a null', 'a\u0000b', 'a␀b'],
    ['a line separator', 'a\u2028b', 'a⟨U+2028⟩b'],
    ['a carriage return that would hide a line', 'rm -rf /\rls', 'rm -rf /␍ls'],
  ];
  it.each(cases)('%s', (_, text, expected) => {
    expect(shown(text)).toBe(expected);
    expect(original(text)).toBe(text);
  });

  it('what belongs to a script or a picture stays', () => {
    for (const text of [
      'tab\tand\nline\r\nend',
      '👩‍👩‍👧 family',
      '🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}',
      'می‌خواهم',
      'naïve façade 日本語 שלום',
    ]) {
      expect(pieces(text)).toEqual([{ text, original: null, title: '' }]);
    }
  });

  it('a tower of combining characters is cut', () => {
    const text = `Z${'\u0301'.repeat(500)}!`;
    expect(shown(text)).toBe(`Z${'\u0301'.repeat(8)}+492!`);
    expect(original(text)).toBe(text);
  });

  it('a text of nothing but marks has few pieces', () => {
    expect(pieces('a\u001b'.repeat(50_000)).length).toBeLessThan(1_100);
    expect(pieces('\u001b'.repeat(50_000)).length).toBe(1);
    expect(original('\u001b'.repeat(50_000))).toBe('\u001b'.repeat(50_000));
  });

  it('names stay on one line', () => {
    expect(line('a\nb\tc', 80)).toBe('a␊b␉c');
    expect(line('😀'.repeat(10), 3)).toBe('😀…');
  });
});

describe('a long text is shown in windows', () => {
  const long = 'word '.repeat(2_000_000);

  it('grows in steps, then is turned like pages, and nothing is lost', () => {
    expect(firstWindow(long, 0).to).toBeLessThanOrEqual(STEPS[0] ?? 0);
    expect(firstWindow(long, 9)).toEqual(firstWindow(long, STEPS.length - 1));
    expect(isLastStep(STEPS.length - 1)).toBe(true);
    let seen = '';
    let window: ReturnType<typeof windowAfter> = firstWindow(long, 2);
    while (window !== null) {
      expect(window.to).toBeGreaterThan(window.from);
      seen += long.slice(window.from, window.to);
      window = windowAfter(long, window);
    }
    expect(seen === long).toBe(true);
  });

  it('goes back', () => {
    const second = windowAfter(long, firstWindow(long, 2));
    expect(second).not.toBeNull();
    if (second !== null) expect(windowBefore(long, second)?.to).toBe(second.from);
    expect(windowBefore(long, firstWindow(long, 2))).toBeNull();
  });

  it('counts lines too', () => {
    expect(firstWindow('\n'.repeat(1_000), 0).to).toBe(40);
    expect(firstWindow('short', 0)).toEqual({ from: 0, to: 5 });
  });

  it('never parts a pair', () => {
    const text = '😀'.repeat(5_000);
    for (const step of [0, 1, 2]) {
      const { to } = firstWindow(`a${text}`, step);
      expect(() => encodeURIComponent(`a${text}`.slice(0, to))).not.toThrow();
    }
  });
});

it('finds the names in a sentence of ours', () => {
  expect(named('tool `weather` of agent `planner` failed')).toEqual([
    'tool ',
    'weather',
    ' of agent ',
    'planner',
    ' failed',
  ]);
  expect(named('`a` and `b')).toEqual(['', 'a', ' and `b']);
  expect(named('plain')).toEqual(['plain']);
});
