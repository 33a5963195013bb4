/**
 * Which stretch of time a waterfall shows, where a span lies in it, and how it is moved. All times are milliseconds; where they are not said to be lengths, since the epoch.
 */

export interface Stretch {
  readonly from: number;
  readonly to: number;
}

/** Percent of the width of what is shown. */
export interface Bar {
  readonly left: number;
  readonly width: number;
}

export interface Tick {
  /** Percent of the width. */
  readonly left: number;
  readonly label: string;
}

/** Closer than this nobody looks: clocks of producers are no finer. */
export const SHORTEST_MS = 0.01;

/** The whole of a run. While it goes on the end lies ahead of now, on a round length, so that the picture stands still while it fills. */
export function extent(start: number | null, lastEnd: number | null, now: number, isLive: boolean): Stretch {
  const from = start ?? now;
  const known = Math.max(lastEnd ?? from, from);
  if (!isLive) return { from, to: Math.max(known, from + SHORTEST_MS) };
  return { from, to: from + roundLength(Math.max(known, now) - from) };
}

const STEPS = [1, 1.25, 1.6, 2, 2.5, 3.2, 4, 5, 6.4, 8];

/** The next of a row of lengths, each about a quarter longer than the one before; at least a second. */
function roundLength(length: number): number {
  const wanted = Math.max(length * 1.04, 1000);
  const power = 10 ** Math.floor(Math.log10(wanted));
  const step = STEPS.find((each) => each * power >= wanted);
  return step === undefined ? 10 * power : step * power;
}

/** Keeps a stretch within the whole, at its length where that can be. */
export function within(shown: Stretch, whole: Stretch): Stretch {
  const length = Math.min(Math.max(shown.to - shown.from, SHORTEST_MS), whole.to - whole.from);
  const from = Math.min(Math.max(shown.from, whole.from), whole.to - length);
  return { from, to: from + length };
}

/** Makes what is shown `factor` times as long (below 1: nearer), about a moment that stays where it is; `null` when that is the whole. */
export function zoomed(shown: Stretch, whole: Stretch, factor: number, about: number): Stretch | null {
  const length = Math.max((shown.to - shown.from) * factor, SHORTEST_MS);
  if (length >= whole.to - whole.from) return null;
  const share = (about - shown.from) / (shown.to - shown.from);
  const from = about - share * length;
  return within({ from, to: from + length }, whole);
}

/** Moves what is shown by a part of its length. */
export function panned(shown: Stretch, whole: Stretch, part: number): Stretch {
  const by = (shown.to - shown.from) * part;
  return within({ from: shown.from + by, to: shown.to + by }, whole);
}

/** A stretch that shows these times with a little air; `null` when that is the whole. */
export function around(start: number, end: number, whole: Stretch): Stretch | null {
  const air = Math.max((end - start) * 0.08, SHORTEST_MS);
  const shown = within({ from: start - air, to: end + air }, whole);
  return shown.to - shown.from >= whole.to - whole.from ? null : shown;
}

/** Where a time from `start` to `end` lies in what is shown; `null` when none of it does. */
export function placed(start: number, end: number, shown: Stretch): Bar | null {
  const length = shown.to - shown.from;
  const from = Math.max(start, shown.from);
  const to = Math.min(Math.max(end, start), shown.to);
  if (to < from || length <= 0) return null;
  return { left: ((from - shown.from) / length) * 100, width: ((to - from) / length) * 100 };
}

/** Round moments, counted from the run's start, no closer than the labels need. */
export function ticks(shown: Stretch, runStart: number, most: number): Tick[] {
  const length = shown.to - shown.from;
  const step = roundStep(length / Math.max(most, 1));
  const first = Math.ceil((shown.from - runStart) / step - 1e-9);
  const found: Tick[] = [];
  for (let at = first; at * step <= shown.to - runStart + step * 1e-9 && found.length <= most + 1; at += 1) {
    found.push({
      left: ((at * step + runStart - shown.from) / length) * 100,
      label: moment(at * step, step, shown.to - runStart),
    });
  }
  return found;
}

const MINUTE = 60_000;
const HOUR = 3_600_000;
const ROUND_TIMES = [
  MINUTE,
  2 * MINUTE,
  5 * MINUTE,
  10 * MINUTE,
  15 * MINUTE,
  30 * MINUTE,
  HOUR,
  2 * HOUR,
  3 * HOUR,
  6 * HOUR,
  12 * HOUR,
  24 * HOUR,
];

function roundStep(least: number): number {
  if (least > 24 * HOUR) return Math.ceil(least / (24 * HOUR)) * 24 * HOUR;
  if (least > 30_000) return ROUND_TIMES.find((each) => each >= least) ?? 24 * HOUR;
  const power = 10 ** Math.floor(Math.log10(Math.max(least, SHORTEST_MS / 100)));
  const step = [1, 2, 5, 10].find((each) => each * power >= least * (1 - 1e-9)) ?? 10;
  return step * power === 20_000 || step * power === 50_000 ? 30_000 : step * power;
}

/** A moment of a run as an axis says it, as exact as its steps are, in the unit of the axis' end. */
function moment(at: number, step: number, end: number): string {
  if (Math.abs(at) < step / 1e6) return '0';
  if (step >= MINUTE || (end >= 10 * MINUTE && step >= 1000)) {
    const seconds = Math.round(Math.abs(at) / 1000);
    const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
    const parts = [hours > 0 ? `${hours}h` : '', minutes > 0 ? `${minutes}m` : '', rest > 0 ? `${rest}s` : ''];
    return parts.filter((part) => part !== '').join(' ');
  }
  if (end >= 1000) return `${digits(at / 1000, step / 1000)} s`;
  if (end >= 1) return `${digits(at, step)} ms`;
  return `${digits(at * 1000, step * 1000)} µs`;
}

function digits(value: number, step: number): string {
  const places = Math.min(6, Math.max(0, Math.ceil(-Math.log10(step) - 1e-9)));
  return value.toFixed(places);
}
