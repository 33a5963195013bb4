/** Runs for tests of the models: made of a few words for each span, or thrown by a fixed die. */

import { Overview } from './overview';
import type { Run, RunStatus, Span } from './run';

export function span(id: string, more: Partial<Span> = {}): Span {
  return {
    id,
    parent: null,
    name: id,
    kind: 'other',
    agent: null,
    start: 0,
    end: null,
    state: more.end === undefined || more.end === null ? 'open' : 'ok',
    ghost: false,
    stalledSince: null,
    model: null,
    tool: null,
    inputTokens: null,
    outputTokens: null,
    cost: null,
    error: null,
    firstSeq: 1,
    lastSeq: 1,
    earlier: null,
    ...more,
  };
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
