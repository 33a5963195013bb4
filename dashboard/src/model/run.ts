// The contract between the stream of a run and the panels that draw it.

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
  start: number | null;
  lastEventAt: number | null;
  events: number;
  version: number;
}
