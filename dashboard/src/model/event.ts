// An event of a stream as the page needs it. Strangers write what is in it: everything is looked at before it is used.

import type { components } from '../api/schema';
import type { Kind } from './run';

export type StreamEvent = components['schemas']['Event'];
export type Row = components['schemas']['SpanRow'];

/** The text of a data frame as an event; `null` for what is none. */
export function readEvent(data: string): StreamEvent | null {
  try {
    const value: unknown = JSON.parse(data);
    if (typeof value !== 'object' || value === null) return null;
    const { seq, event_type } = value as Record<string, unknown>;
    return typeof seq === 'number' && typeof event_type === 'string' ? (value as StreamEvent) : null;
  } catch {
    return null;
  }
}

const KINDS: Readonly<Record<string, Kind>> = {
  agent: 'agent',
  llm: 'llm',
  llm_fetch: 'llm',
  tool: 'tool',
  mcp: 'tool',
  retriever: 'retrieval',
  embedding: 'retrieval',
  reranker: 'retrieval',
  workflow: 'workflow',
  task: 'workflow',
};

/** What a span's kind is drawn as; kinds that nobody has heard of are `other`. */
export function kindOf(kind: string | null | undefined): Kind {
  return (kind != null && Object.hasOwn(KINDS, kind) ? KINDS[kind] : undefined) ?? 'other';
}

/** How a native event's type tells what its span is. */
export function kindOfType(type: string): Kind {
  if (type.startsWith('llm_')) return 'llm';
  if (type.startsWith('tool_')) return 'tool';
  if (type.startsWith('retrieval_')) return 'retrieval';
  if (type.startsWith('workflow_')) return 'workflow';
  if (type.startsWith('agent_') || type.startsWith('task_')) return 'agent';
  return 'other';
}

/** RFC 3339 as milliseconds since 1970, with the fractions that `Date` would lose; `null` for what is no time. */
export function milliseconds(time: string | null | undefined): number | null {
  if (time == null) return null;
  const whole = Date.parse(time);
  if (Number.isNaN(whole)) return null;
  // Date keeps three places of a second; the rest, down to nanoseconds, is put back.
  const finer = /\.\d{3}(\d{1,6})/.exec(time)?.[1];
  return finer === undefined ? whole : whole + Number(`0.${finer}`);
}
