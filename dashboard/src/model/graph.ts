/**
 * Who called whom in a run: agents, and what they used (models, tools, retrievals), with how often, how long, and where it failed.
 *
 * A step that only wraps another of the same name is one call with it. Steps of other kinds are passed through. Where steps name an agent that has no step of its own, one call of
 * that agent is taken to hold them.
 */

import { continues, nodeOf } from './earlier';
import type { Calls, NodeKind, Run, Span } from './run';

export type { NodeKind } from './run';

export interface Counts {
  calls: number;
  open: number;
  failed: number;
  /** Milliseconds, added over the calls; those that are open up to now. */
  total: number;
  /** The spans of the calls, by start. */
  spans: string[];
  /** The first call that failed, best one in which nothing else failed. */
  failure: string | null;
}

export interface GraphNode extends Counts {
  key: string;
  kind: NodeKind;
  name: string;
  /** Without the time in which something that it called ran. */
  self: number;
  /** Failed calls in which no call had failed: where it arose. */
  arose: number;
}

export interface GraphEdge extends Counts {
  key: string;
  from: string;
  to: string;
}

export interface AgentGraph {
  /** In the order in which they first appeared, callers before those that they called. */
  nodes: GraphNode[];
  edges: GraphEdge[];
}

export interface Asked {
  /** Milliseconds since 1970: up to when open calls last. */
  now: number;
  /** Only agents; what they used is their own time. */
  agentsOnly: boolean;
}

interface Call {
  node: GraphNode;
  edge: GraphEdge | null;
  holder: Call | null;
  /** The agent in whose name it runs. */
  agent: string | null;
  span: string;
  start: number;
  end: number;
  isOpen: boolean;
  hasFailed: boolean;
  failedBelow: boolean;
  within: [number, number][];
  /** Milliseconds that steps took in it which are not held any more. */
  gone: number;
  /** Calls that are only told of by the steps in them, by agent. */
  implied: Map<string, Call> | null;
  isImplied: boolean;
}

export function agentGraph(run: Run, asked: Asked): AgentGraph {
  const nodes = new Map<string, GraphNode>();
  const edges = new Map<string, GraphEdge>();
  const calls: Call[] = [];
  const outside = new Map<string, Call>();

  const nodeFor = (kind: NodeKind, name: string): GraphNode => {
    const key = `${kind}:${name}`;
    const node = nodes.get(key) ?? { key, kind, name, self: 0, arose: 0, ...nothing() };
    nodes.set(key, node);
    return node;
  };
  const edgeFor = (from: string, to: string): GraphEdge => {
    const key = `${from}\n${to}`;
    const edge = edges.get(key) ?? { key, from, to, ...nothing() };
    edges.set(key, edge);
    return edge;
  };

  const begin = (span: Span, kind: NodeKind, name: string, holder: Call | null, isImplied: boolean): Call => {
    const node = nodeFor(kind, name);
    const edge = holder === null ? null : edgeFor(holder.node.key, node.key);
    const call: Call = {
      node,
      edge,
      holder,
      agent: kind === 'agent' ? name : (holder?.agent ?? null),
      span: span.id,
      start: span.start,
      end: endOf(span, run, asked.now),
      isOpen: isOpen(span),
      hasFailed: !isImplied && span.state === 'failed',
      failedBelow: false,
      within: [],
      gone: 0,
      implied: null,
      isImplied,
    };
    calls.push(call);
    return call;
  };

  /** The one call of an agent that is only told of by the steps in it. */
  const imply = (span: Span, agent: string, holder: Call | null): Call => {
    const told: Map<string, Call> = holder === null ? outside : (holder.implied ??= new Map<string, Call>());
    const call = told.get(agent) ?? begin(span, 'agent', agent, holder, true);
    told.set(agent, call);
    call.start = Math.min(call.start, span.start);
    call.end = Math.max(call.end, endOf(span, run, asked.now));
    call.isOpen ||= isOpen(span);
    return call;
  };

  /** Calls that are not held any more are counted where they were. */
  const recall = (row: Span, gone: readonly Calls[], holder: Call | null): void => {
    const shown = gone.filter((each) => !asked.agentsOnly || each.kind === 'agent');
    for (const each of shown) nodeFor(each.kind, each.name);
    for (const each of shown) {
      let from = each.from !== null && nodes.has(each.from) ? each.from : null;
      if (from === null) {
        if (continues(holder?.node ?? null, each)) continue;
        const isOthers = each.kind !== 'agent' && each.agent !== null && each.agent !== (holder?.agent ?? null);
        from = (isOthers ? imply(row, each.agent ?? '', holder) : holder)?.node.key ?? null;
      }
      const node = nodeFor(each.kind, each.name);
      node.self += each.self;
      node.arose += each.failed;
      for (const counts of from === null || from === node.key ? [node] : [node, edgeFor(from, node.key)]) {
        counts.calls += each.calls;
        counts.failed += each.failed;
        counts.total += each.total;
        // It leads to the row that stands for them.
        if (counts.spans.at(-1) !== row.id) counts.spans.push(row.id);
      }
    }
  };

  const stack: { id: string; holder: Call | null }[] = [];
  const enter = (ids: readonly string[], holder: Call | null): void => {
    for (let at = ids.length - 1; at >= 0; at -= 1) stack.push({ id: ids[at] ?? '', holder });
  };
  const seen = new Set<string>();
  enter(run.children.get(null) ?? [], null);
  for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
    const span = run.spans.get(next.id);
    if (span === undefined || seen.has(next.id)) continue;
    seen.add(next.id);
    let holder = next.holder;
    if (span.earlier !== null) {
      if (holder !== null) holder.gone += span.earlier.busy;
      recall(span, span.earlier.calls, holder);
      continue;
    }
    const could = nodeOf(span, holder !== null);
    const is = asked.agentsOnly && could?.kind !== 'agent' && could?.kind !== 'workflow' ? null : could;
    if (
      is?.kind !== 'agent' &&
      span.agent !== null &&
      span.agent !== (holder?.agent ?? null) &&
      (is !== null || holder !== null || asked.agentsOnly)
    ) {
      holder = imply(span, span.agent, holder);
    }
    if (is !== null && !continues(holder?.node ?? null, is)) holder = begin(span, is.kind, is.name, holder, false);
    enter(run.children.get(span.id) ?? [], holder);
  }

  // What is in a call was begun after it: backwards, a call is counted when all in it were.
  for (const call of calls.reverse()) {
    const holder = call.holder;
    if (holder !== null) {
      holder.within.push([call.start, call.end]);
      holder.failedBelow ||= call.hasFailed || call.failedBelow;
      if (holder.isImplied) {
        holder.start = Math.min(holder.start, call.start);
        holder.end = Math.max(holder.end, call.end);
        holder.isOpen ||= call.isOpen;
      }
    }
    const length = call.end - call.start;
    for (const counts of call.edge === null ? [call.node] : [call.node, call.edge]) {
      counts.calls += 1;
      counts.total += length;
      counts.spans.push(call.span);
      if (call.isOpen) counts.open += 1;
      if (!call.hasFailed) continue;
      counts.failed += 1;
      if (counts.failure === null || !call.failedBelow) counts.failure = call.span;
    }
    if (call.hasFailed && !call.failedBelow) call.node.arose += 1;
    call.node.self += Math.max(0, length - covered(call.within, call.start, call.end) - call.gone);
  }
  for (const counts of [...nodes.values(), ...edges.values()]) counts.spans.reverse();
  return { nodes: [...nodes.values()], edges: [...edges.values()] };
}

function nothing(): Counts {
  return { calls: 0, open: 0, failed: 0, total: 0, spans: [], failure: null };
}

function isOpen(span: Span): boolean {
  return span.end === null && span.state !== 'lost' && !span.ghost;
}

function endOf(span: Span, run: Run, now: number): number {
  const end =
    span.end ??
    (run.status === 'running' && span.state !== 'lost' ? now : (span.stalledSince ?? run.lastEventAt ?? span.start));
  return Math.max(end, span.start);
}

/** How much of a stretch is covered by others. */
function covered(within: [number, number][], from: number, to: number): number {
  let until = from;
  let sum = 0;
  for (const [start, end] of within.sort((one, other) => one[0] - other[0])) {
    const low = Math.max(start, until);
    const high = Math.min(end, to);
    if (high <= low) continue;
    sum += high - low;
    until = high;
  }
  return sum;
}
