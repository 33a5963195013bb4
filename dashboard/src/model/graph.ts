/**
 * Who called whom in a run: agents, and what they used (models, tools, retrievals), with how often, how long, and where it failed.
 *
 * A step that only wraps another of the same name is one call with it. Steps of other kinds are passed through. Where steps name an agent that has no step of its own, one call of
 * that agent is taken to hold them.
 */

import type { Run, Span } from './run';

export type NodeKind = 'agent' | 'llm' | 'tool' | 'retrieval' | 'workflow';

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
  /** Calls that are only told of by the steps in them, by agent. */
  implied: Map<string, Call> | null;
  isImplied: boolean;
}

export function agentGraph(run: Run, asked: Asked): AgentGraph {
  const nodes = new Map<string, GraphNode>();
  const edges = new Map<string, GraphEdge>();
  const calls: Call[] = [];
  const outside = new Map<string, Call>();

  const begin = (span: Span, kind: NodeKind, name: string, holder: Call | null, isImplied: boolean): Call => {
    const key = `${kind}:${name}`;
    let node = nodes.get(key);
    if (node === undefined) {
      node = { key, kind, name, self: 0, arose: 0, ...nothing() };
      nodes.set(key, node);
    }
    let edge: GraphEdge | null = null;
    if (holder !== null) {
      const edgeKey = `${holder.node.key}\n${key}`;
      edge = edges.get(edgeKey) ?? { key: edgeKey, from: holder.node.key, to: key, ...nothing() };
      edges.set(edgeKey, edge);
    }
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
      implied: null,
      isImplied,
    };
    calls.push(call);
    return call;
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
    const is = nodeOf(span, holder, asked.agentsOnly);
    if (
      is?.kind !== 'agent' &&
      span.agent !== null &&
      span.agent !== (holder?.agent ?? null) &&
      (is !== null || holder !== null || asked.agentsOnly)
    ) {
      const told: Map<string, Call> = holder === null ? outside : (holder.implied ??= new Map<string, Call>());
      let call = told.get(span.agent);
      if (call === undefined) {
        call = begin(span, 'agent', span.agent, holder, true);
        told.set(span.agent, call);
      }
      call.start = Math.min(call.start, span.start);
      call.end = Math.max(call.end, endOf(span, run, asked.now));
      call.isOpen ||= isOpen(span);
      holder = call;
    }
    if (is !== null && !continues(holder, is)) holder = begin(span, is.kind, is.name, holder, false);
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
    call.node.self += length - covered(call.within, call.start, call.end);
  }
  for (const counts of [...nodes.values(), ...edges.values()]) counts.spans.reverse();
  return { nodes: [...nodes.values()], edges: [...edges.values()] };
}

function nothing(): Counts {
  return { calls: 0, open: 0, failed: 0, total: 0, spans: [], failure: null };
}

/** What a step is in the graph; `null`: it is passed through. */
function nodeOf(span: Span, holder: Call | null, agentsOnly: boolean): { kind: NodeKind; name: string } | null {
  if (span.kind === 'agent') return { kind: 'agent', name: span.agent ?? span.name };
  if (span.kind === 'workflow') return holder === null && !span.ghost ? { kind: 'workflow', name: span.name } : null;
  if (span.kind === 'other' || agentsOnly) return null;
  if (span.kind === 'llm') return { kind: 'llm', name: span.model ?? span.name };
  return { kind: span.kind, name: span.tool ?? span.name };
}

/** Whether a step goes on with the call that it is in: it repeats it, or is the request within a model call. */
function continues(holder: Call | null, is: { kind: NodeKind; name: string }): boolean {
  if (holder === null || holder.node.kind !== is.kind) return false;
  return is.kind === 'llm' || holder.node.name === is.name;
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
