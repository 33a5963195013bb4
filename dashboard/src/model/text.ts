/**
 * How a stranger's text is shown: as text, in windows that a page can lay out, with what is invisible or would reorder its surroundings made visible.
 * Nothing here changes the text itself: what is copied is the original.
 */

/** A run of text as it stands, or a mark that stands for characters which nobody would see. */
export interface Piece {
  text: string;
  /** What the mark stands for, as it was; `null` for text as it stands. */
  original: string | null;
  /** What the mark is called; empty for text. */
  title: string;
}

/** A part of a text, in UTF-16 units, and whether there is more before or behind it. */
export interface Window {
  from: number;
  to: number;
}

/** Characters shown at first, and after each "show more"; beyond the last the text is turned like pages of that size. */
export const STEPS: readonly number[] = [2_000, 16_000, 64_000];
/** Lines shown at first, and after each "show more": a thousand empty lines are few characters. */
const STEP_LINES: readonly number[] = [40, 400, 4_000];
/** Marks in one window that have an element of their own; those behind them are written into the text. */
const MOST_MARKS = 500;
/** Combining characters on one letter, beyond which they would run over the lines around it. */
const MOST_COMBINING = 8;

/**
 * The window that is shown of a text after so many "show more" (0: none yet).
 * It never parts a surrogate pair, and ends at a line's end where one is near.
 */
export function firstWindow(text: string, step: number): Window {
  const at = Math.min(step, STEPS.length - 1);
  return { from: 0, to: end(text, 0, STEPS[at] ?? 0, STEP_LINES[at] ?? 0) };
}

/** The window behind this one, of the largest size; `null` at the end of the text. */
export function windowAfter(text: string, window: Window): Window | null {
  if (window.to >= text.length) return null;
  return { from: window.to, to: end(text, window.to, STEPS.at(-1) ?? 0, STEP_LINES.at(-1) ?? 0) };
}

/** The window before this one; `null` at the start of the text. */
export function windowBefore(text: string, window: Window): Window | null {
  if (window.from <= 0) return null;
  const from = Math.max(0, window.from - (STEPS.at(-1) ?? 0));
  return { from: startsInPair(text, from) ? from + 1 : from, to: window.from };
}

/** Whether the steps of "show more" are used up, so that what follows is shown instead of what is there. */
export function isLastStep(step: number): boolean {
  return step >= STEPS.length - 1;
}

function end(text: string, from: number, characters: number, lines: number): number {
  let to = Math.min(text.length, from + characters);
  let at = from;
  for (let line = 0; line < lines; line++) {
    const next = text.indexOf('\n', at);
    if (next < 0 || next >= to) return to === text.length ? to : whole(text, from, to);
    at = next + 1;
  }
  to = at;
  return to;
}

/** A cut that falls neither into a surrogate pair nor, where a line or word ends just before, into a word. */
function whole(text: string, from: number, to: number): number {
  const near = text.slice(Math.max(from, to - 120), to);
  const line = near.lastIndexOf('\n');
  const space = near.lastIndexOf(' ');
  const back = line > 0 ? near.length - line - 1 : space > 0 ? near.length - space - 1 : 0;
  const cut = to - back;
  return startsInPair(text, cut) ? cut - 1 : cut;
}

function startsInPair(text: string, at: number): boolean {
  const before = text.charCodeAt(at - 1);
  const here = text.charCodeAt(at);
  return before >= 0xd800 && before <= 0xdbff && here >= 0xdc00 && here <= 0xdfff;
}

// What nobody sees, or what moves what they see: controls but tab and line feed, the bidi controls, zero-width and invisible characters, tags,
// line and paragraph separators, annotation marks, what is no character at all, and letters that carry too many combining ones.
const HIDDEN = new RegExp(
  [
    String.raw`[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]+`,
    String.raw`[\ud800-\udfff]+`,
    String.raw`\p{M}{${String(MOST_COMBINING + 1)},}`,
  ].join('|'),
  'gu',
);
const STARTS_COMBINING = /^(?![\u180b-\u180f])\p{M}/u;
const PICTURE = /\p{Extended_Pictographic}/u;
// Scripts in which joiners shape letters.
const JOINED =
  /[\p{Script=Arabic}\p{Script=Syriac}\p{Script=Mongolian}\p{Script=Devanagari}\p{Script=Bengali}\p{Script=Gujarati}\p{Script=Gurmukhi}\p{Script=Kannada}\p{Script=Malayalam}\p{Script=Oriya}\p{Script=Sinhala}\p{Script=Tamil}\p{Script=Telugu}\p{Script=Khmer}]/u;

const NAMES: Readonly<Record<number, string>> = {
  0x00: 'null',
  0x07: 'bell',
  0x08: 'backspace',
  0x0d: 'carriage return',
  0x1b: 'escape',
  0x7f: 'delete',
  0xad: 'soft hyphen',
  0x61c: 'Arabic letter mark',
  0x200b: 'zero-width space',
  0x200c: 'zero-width non-joiner',
  0x200d: 'zero-width joiner',
  0x200e: 'left-to-right mark',
  0x200f: 'right-to-left mark',
  0x2028: 'line separator',
  0x2029: 'paragraph separator',
  0x202a: 'left-to-right embedding',
  0x202b: 'right-to-left embedding',
  0x202c: 'pop directional formatting',
  0x202d: 'left-to-right override',
  0x202e: 'right-to-left override',
  0x2060: 'word joiner',
  0x2066: 'left-to-right isolate',
  0x2067: 'right-to-left isolate',
  0x2068: 'first strong isolate',
  0x2069: 'pop directional isolate',
  0xfeff: 'zero-width no-break space',
};

/** A text as pieces: what can be read as it stands, and marks for what cannot. The originals, in order, are the text. */
export function pieces(text: string): Piece[] {
  const found: Piece[] = [];
  let plain = '';
  let marks = 0;
  let at = 0;
  const flush = (): void => {
    if (plain !== '') found.push({ text: plain, original: null, title: '' });
    plain = '';
  };
  for (const match of text.matchAll(HIDDEN)) {
    const run = match[0];
    const from = match.index;
    const to = from + run.length;
    plain += text.slice(at, from);
    at = to;
    if (isHarmless(text, run, from, to)) {
      plain += run;
      continue;
    }
    if (marks >= MOST_MARKS) {
      plain += STARTS_COMBINING.test(run) ? '…' : picture(run.codePointAt(0) ?? 0) + (run.length > 1 ? '…' : '');
      continue;
    }
    const shown = mark(run);
    marks += 1;
    flush();
    found.push(shown);
  }
  plain += text.slice(at);
  flush();
  return found;
}

/** The same on one line, for names: line feeds and tabs are marks too, and of a long name the beginning is shown. */
export function line(text: string, characters: number): string {
  const cut = text.length > characters;
  const to = cut ? (startsInPair(text, characters) ? characters - 1 : characters) : text.length;
  const shown = pieces(text.slice(0, to))
    .map((piece) => piece.text)
    .join('')
    .replace(/\n/gu, '␊')
    .replace(/\t/gu, '␉');
  return cut ? `${shown}…` : shown;
}

function isHarmless(text: string, run: string, from: number, to: number): boolean {
  if (run === '\r') return text[to] === '\n';
  if (run === '\u200d' || run === '\u200c') {
    const before = text.slice(Math.max(0, from - 4), from);
    const behind = text.slice(to, to + 2);
    const pictures = run === '\u200d' && PICTURE.test(before) && PICTURE.test(behind);
    return pictures || (JOINED.test(before) && JOINED.test(behind));
  }
  // The flags of England, Scotland and Wales are spelt with tags behind a black flag.
  if (text.slice(from - 2, from) === '\u{1f3f4}') return /^[\u{e0061}-\u{e007a}]{2,6}\u{e007f}$/u.test(run);
  return false;
}

function mark(run: string): Piece {
  if (STARTS_COMBINING.test(run)) {
    const kept = run.slice(0, MOST_COMBINING);
    const more = Array.from(run).length - MOST_COMBINING;
    return {
      text: `${kept}+${String(more)}`,
      original: run,
      title: `${String(more)} more combining characters`,
    };
  }
  const points = Array.from(run.slice(0, 16), (one) => one.codePointAt(0) ?? 0);
  const more = run.length > 16 ? `+${String(run.length - 16)}` : '';
  const titles = points.map((point) => {
    const name = NAMES[point];
    return name === undefined ? unicode(point) : `${name} ${unicode(point)}`;
  });
  return {
    text: points.map(picture).join('') + more,
    original: run,
    title: titles.join(', ') + (more === '' ? '' : ', …'),
  };
}

function unicode(point: number): string {
  return `U+${point.toString(16).toUpperCase().padStart(4, '0')}`;
}

function picture(point: number): string {
  if (point < 0x20) return String.fromCodePoint(0x2400 + point);
  if (point === 0x7f) return '␡';
  return `⟨${unicode(point)}⟩`;
}

/** How long a text is, for people. */
export function size(characters: number): string {
  if (characters < 10_000) return `${characters.toLocaleString('en')} characters`;
  if (characters < 1_000_000) return `${(characters / 1_000).toFixed(0)} k characters`;
  return `${(characters / 1_000_000).toFixed(1)} M characters`;
}

/** A sentence of ours and the names in it, which stand between backticks: every second part is a name. One backtick too many is a letter. */
export function named(text: string): string[] {
  const parts = text.split('`');
  if (parts.length % 2 === 1) return parts;
  const last = parts.pop() ?? '';
  return [...parts.slice(0, -1), `${parts.at(-1) ?? ''}\`${last}`];
}
