// The rows of the list of runs, from what the API says of them. The newest page comes again whenever something moves; the pages
// below it stay as they were loaded.

import type { components } from '../api/schema';
import { milliseconds } from './event';

export type Listed = components['schemas']['ListedTrace'];
export type SessionRow = components['schemas']['SessionRow'];

export interface RunLine {
  id: string;
  name: string;
  status: Listed['status'];
  startedAt: number | null;
  lastEventAt: number | null;
  /** Of a run that goes on, until now. */
  durationMs: number | null;
  agents: readonly string[];
  errors: number;
  tokens: number | null;
  cost: number | null;
  events: number;
}

/** A row as it is drawn at `now`. */
export function line(row: Listed, now: number): RunLine {
  const run = row.run ?? null;
  const startedAt = milliseconds(run?.started_at) ?? milliseconds(row.started_at);
  const goesOn = row.status === 'running' || row.status === 'stalled';
  const arrived = milliseconds(row.started_at);
  // Arrival, not the producer's clock: that one may be another day's.
  const until = row.status === 'running' ? now : milliseconds(row.last_event_at);
  const name = run?.name ?? '';
  return {
    id: row.trace_id,
    name: name === '' ? row.trace_id : name,
    status: row.status,
    startedAt,
    lastEventAt: milliseconds(row.last_event_at),
    durationMs: goesOn
      ? arrived === null || until === null
        ? null
        : Math.max(0, until - arrived)
      : (run?.duration_ms ?? null),
    agents: run?.agents ?? [],
    errors: run?.errors_count ?? 0,
    tokens: run === null ? null : run.total_tokens,
    cost: run?.cost_usd ?? null,
    events: row.total_events,
  };
}

/** The newest page before what was loaded below it; a row that stands in both is as the newest page has it. */
export function merged(newest: readonly Listed[], below: readonly Listed[]): Listed[] {
  const known = new Set(newest.map((row) => row.trace_id));
  return [...newest, ...below.filter((row) => !known.has(row.trace_id))];
}
