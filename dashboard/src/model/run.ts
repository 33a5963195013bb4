// The contract between the stream of a run and the panels that draw it.

import type { Overview } from './overview';

export type Kind = 'agent' | 'llm' | 'tool' | 'retrieval' | 'workflow' | 'other';
export type SpanState = 'open' | 'ok' | 'failed' | 'stalled' | 'lost';

/** One timed step as it is known now. A span that changes is a new object under the same id; objects are never changed. */
export interface Span {
  id: string;
  parent: string | null;
  name: string;
  kind: Kind;
  agent: string | null;
  /** Milliseconds since 1970, fractional. */
  start: number;
  end: number | null;
  state: SpanState;
  /** Known only as the parent of others: its times are those of what is in it. */
  ghost: boolean;
  stalledSince: number | null;
  model: string | null;
  tool: string | null;
  inputTokens: number | null;
  outputTokens: number | null;
  /** US dollars. */
  cost: number | null;
  error: string | null;
  /** The first and the last event that told of it. */
  firstSeq: number;
  lastSeq: number;
  /** Of the row that stands for steps which the page does not hold any more: what was counted of them. */
  earlier: Earlier | null;
}

/** What is said of a step of which nobody told anything. */
export const UNTOLD = {
  parent: null,
  kind: 'other',
  agent: null,
  end: null,
  ghost: false,
  stalledSince: null,
  model: null,
  tool: null,
  inputTokens: null,
  outputTokens: null,
  cost: null,
  error: null,
  earlier: null,
} as const satisfies Partial<Span>;

/** Steps that ended long ago in one place of a run, and all that was in them. */
export interface Earlier {
  steps: number;
  failed: number;
  inputTokens: number;
  outputTokens: number;
  /** US dollars; `null` when none is known. */
  cost: number | null;
  /** Milliseconds in which any of them ran, or little less. */
  busy: number;
  agents: ReadonlySet<string>;
  calls: readonly Calls[];
}

export type NodeKind = 'agent' | 'llm' | 'tool' | 'retrieval' | 'workflow';

/** Calls of one kind that are among those steps, for the graph of agents. */
export interface Calls {
  /** `kind:name` of what called; `null`: what the steps were in. */
  from: string | null;
  /** In whose name. */
  agent: string | null;
  kind: NodeKind;
  name: string;
  calls: number;
  failed: number;
  /** Milliseconds, added over the calls; and those of their own. */
  total: number;
  self: number;
}

export type RunStatus = 'running' | 'completed' | 'failed' | 'lost' | 'deleted' | 'expired';

/**
 * A run as of `events` events. Each change is a new object with a higher `version`; the maps within are the same ones, grown, so
 * derive from `run` and not from its maps.
 */
export interface Run {
  id: string;
  status: RunStatus;
  spans: ReadonlyMap<string, Span>;
  /** In order of start. The roots stand under `null`. */
  children: ReadonlyMap<string | null, readonly string[]>;
  /** All steps over time, held or not. */
  overview: Overview;
  start: number | null;
  lastEventAt: number | null;
  events: number;
  version: number;
}
