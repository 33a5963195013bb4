/** How a step is drawn on the axis, and what is said of it. Times are milliseconds since the epoch. */

import { duration } from './amounts';
import type { Segment } from './critical';
import type { Run, Span, SpanState } from './run';
import { placed, type Bar, type Stretch } from './timescale';
import { count } from './words';

export interface Drawn {
  /** `null`: it lies outside of what is shown. */
  readonly bar: Bar | null;
  /** The part of the bar in which nothing was heard of it any more. */
  readonly silent: Bar | null;
  readonly look: 'open' | 'ghost' | 'earlier' | Exclude<SpanState, 'open'>;
  /** It goes on beyond the end of what is known, to now. */
  readonly grows: boolean;
  /** The stretches in which the run waited for it. */
  readonly critical: readonly Bar[];
  readonly length: string;
  /** A word beside the bar, where something is to be told. */
  readonly note: string | null;
  readonly noteBefore: boolean;
  /** All of it as a sentence. */
  readonly said: string;
}

export function endOf(span: Span, run: Run, now: number): number {
  if (span.end !== null) return Math.max(span.end, span.start);
  const end =
    run.status === 'running' && span.state !== 'lost' ? now : (span.stalledSince ?? run.lastEventAt ?? span.start);
  return Math.max(end, span.start);
}

export function drawn(span: Span, run: Run, shown: Stretch, now: number, critical: readonly Segment[]): Drawn {
  const end = endOf(span, run, now);
  const grows = span.end === null && run.status === 'running' && span.state !== 'lost';
  const isSilent = span.state === 'stalled' && span.stalledSince !== null;
  const look = span.earlier !== null ? 'earlier' : span.ghost ? 'ghost' : span.state;
  const bar = placed(span.start, end, shown);
  const length = duration(end - span.start);
  const note = noteOf(span, now);
  const from = run.start ?? span.start;
  const waited = critical.reduce((sum, segment) => sum + segment.to - segment.from, 0);
  return {
    bar,
    silent: isSilent ? placed(Math.max(span.stalledSince ?? end, span.start), end, shown) : null,
    look,
    grows,
    critical: visible(critical, shown),
    length,
    note,
    noteBefore: bar !== null && bar.left + bar.width > 72,
    said: [
      `from ${duration(Math.max(0, span.start - from))}`,
      grows ? `open for ${length}` : `took ${length}`,
      note ?? (look === 'failed' ? 'failed' : null),
      span.earlier === null ? null : 'counted and not shown one by one: Enter loads them',
      span.ghost ? 'not told yet, times are those of what is in it' : null,
      waited > 0 ? `the run waited ${duration(waited)} for it` : null,
    ]
      .filter((part) => part !== null)
      .join(', '),
  };
}

function noteOf(span: Span, now: number): string | null {
  if (span.earlier !== null) return span.earlier.failed === 0 ? null : `${count(span.earlier.failed)} failed`;
  if (span.state === 'stalled') return `silent for ${duration(Math.max(0, now - (span.stalledSince ?? span.start)))}`;
  if (span.state === 'lost') return 'never ended';
  if (span.state === 'failed') return 'failed';
  return null;
}

/** Percent of the width: less of a stretch is not seen, and as little between two does not part them. */
const LEAST_SEEN = 0.15;

/** Stretches in what is shown. */
function visible(critical: readonly Segment[], shown: Stretch): Bar[] {
  const found: Bar[] = [];
  for (const { from, to } of critical) {
    const bar = placed(from, to, shown);
    if (bar === null) continue;
    const last = found.at(-1);
    if (last !== undefined && bar.left - (last.left + last.width) < LEAST_SEEN)
      found[found.length - 1] = { left: last.left, width: bar.left + bar.width - last.left };
    else found.push(bar);
  }
  return found.filter((bar) => bar.width >= LEAST_SEEN);
}

/** The second name beside a step's own: what it runs on, or in whose name where that is not its caller. */
export function aside(span: Span, parent: Span | null): string | null {
  const said = span.kind === 'llm' ? span.model : span.kind === 'tool' ? span.tool : null;
  const agent = span.agent !== null && span.agent !== parent?.agent ? span.agent : null;
  const name = span.name.toLowerCase();
  const found = [said, agent].filter((part) => part !== null && !name.includes(part.toLowerCase()));
  return found.length === 0 ? null : found.join(' · ');
}
