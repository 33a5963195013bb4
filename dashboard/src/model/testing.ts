/** Runs for tests of the models: made of a few words for each span, or thrown by a fixed die. */

import { Overview } from './overview';
import type { StreamEvent } from './event';
import { UNTOLD, type Run, type RunStatus, type Span } from './run';

export function span(id: string, more: Partial<Span> = {}): Span {
  return {
    ...UNTOLD,
    id,
    name: id,
    start: 0,
    state: more.end === undefined || more.end === null ? 'open' : 'ok',
    firstSeq: 1,
    lastSeq: 1,
    ...more,
  };
}

/** A time of the tests, so many milliseconds after their beginning. */
export function at(ms: number): string {
  return new Date(1_700_000_000_000 + ms).toISOString();
}

/** The event of a span that began and, with `to`, ended at so many milliseconds; `more` says what it is. */
export function spanEvent(
  id: string,
  parent: string | null,
  from: number,
  to: number | null,
  more: Partial<StreamEvent>,
): StreamEvent {
  return {
    trace_id: 't',
    timestamp: at(to ?? from),
    agent_id: 'a',
    span_id: id,
    ...(parent === null ? {} : { parent_span_id: parent }),
    name: id,
    status: to === null ? 'running' : 'ok',
    start_time: at(from),
    ...(to === null ? {} : { end_time: at(to) }),
    ...more,
  } as StreamEvent;
}

let versions = 0;

export function runOf(spans: readonly Span[], status: RunStatus = 'running', id = 'run'): Run {
  const children = new Map<string | null, string[]>();
  const byId = new Map(spans.map((each) => [each.id, each]));
  const ordered = [...spans].sort((one, other) => one.start - other.start || (one.id < other.id ? -1 : 1));
  for (const each of ordered) {
    const parent = each.parent !== null && byId.has(each.parent) ? each.parent : null;
    const siblings = children.get(parent);
    if (siblings === undefined) children.set(parent, [each.id]);
    else siblings.push(each.id);
  }
  versions += 1;
  const start = ordered[0]?.start ?? null;
  const overview = new Overview();
  for (const each of ordered) overview.tell(each, null);
  const events = spans.length;
  return { id, status, spans: byId, children, overview, start, lastEventAt: null, events, version: versions };
}

/** Numbers below a bound that look thrown and are the same in every run. */
export function thrower(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}
