// One step as the server holds it, whole: read when it is shown, and again when more was told of it.

import { onDestroy } from 'svelte';
import { ApiError, get, type Answer } from '../api/client';
import type { StreamEvent } from '../model/event';

export type Why = Answer<'/traces/{trace_id}/spans/{span_id}/why'>;

/** Events of a native step that are read: it has a start, an end, and what went on between them. */
const MOST_NATIVE = 20;

export class StepRead {
  /** What was told of the step; empty: it was never told of itself. `null`: not read yet. */
  events: StreamEvent[] | null = $state.raw(null);
  why: Why | null = $state.raw(null);
  error: ApiError | null = $state.raw(null);
}

/** Reads steps of a run, one at a time: the last one asked for counts. */
export function reading(runId: string): {
  step: StepRead;
  read: (id: string, lastSeq: number | null) => void;
  explain: (id: string) => void;
} {
  const step = new StepRead();
  const path = `/traces/${encodeURIComponent(runId)}`;
  let stop = new AbortController();
  let asked = '';
  onDestroy(() => stop.abort());
  return { step, read, explain };

  function read(id: string, lastSeq: number | null): void {
    stop.abort();
    stop = new AbortController();
    if (asked !== id) {
      step.events = null;
      step.why = null;
    }
    asked = id;
    void run(stop.signal, async (signal) => {
      step.events = (await quickly(id, lastSeq, signal)) ?? (await thoroughly(id, signal));
    });
  }

  function explain(id: string): void {
    if (step.why !== null && step.why.span_id === id) return;
    void run(stop.signal, async (signal) => {
      const why = await reasons(id, false, signal);
      if (asked === id) step.why = why;
    });
  }

  async function run(signal: AbortSignal, what: (signal: AbortSignal) => Promise<void>): Promise<void> {
    try {
      await what(signal);
      step.error = null;
    } catch (error) {
      if (signal.aborted) return;
      step.error = error instanceof ApiError ? error : new ApiError(0, 'unreadable', 'the answer cannot be read');
    }
  }

  /** The last event that told of the step is all of a span: no need to read the run for it. */
  async function quickly(id: string, lastSeq: number | null, signal: AbortSignal): Promise<StreamEvent[] | null> {
    if (lastSeq === null) return null;
    const event = await one(lastSeq, signal);
    const isSpan = event !== null && event.span_id === id && event.kind != null && event.kind !== 'log';
    return isSpan && event.event_type !== 'task_progress' ? [event] : null;
  }

  async function thoroughly(id: string, signal: AbortSignal): Promise<StreamEvent[]> {
    const why = await reasons(id, false, signal);
    step.why = why;
    const held = why.observations.find((one) => one.holds);
    if (held !== undefined) {
      const event = await one(held.seq, signal);
      return event === null ? (why.event == null ? [] : [why.event]) : [event];
    }
    const seqs = why.native_events.map((record) => record.seq);
    const some =
      seqs.length > MOST_NATIVE ? [...seqs.slice(0, MOST_NATIVE / 2), ...seqs.slice(-MOST_NATIVE / 2)] : seqs;
    const events = await Promise.all(some.map((seq) => one(seq, signal)));
    return events.filter((event) => event !== null);
  }

  async function one(seq: number, signal: AbortSignal): Promise<StreamEvent | null> {
    const query = `cursor=${String(seq - 1)}&limit=1&include=attributes,history`;
    const page = await get<'/traces/{trace_id}/events'>(`${path}/events?${query}`, signal);
    const event = page.events[0];
    return event !== undefined && 'seq' in event && event.seq === seq ? event : null;
  }

  async function reasons(id: string, attributes: boolean, signal: AbortSignal): Promise<Why> {
    const query = `attributes=${String(attributes)}`;
    return get<'/traces/{trace_id}/spans/{span_id}/why'>(
      `${path}/spans/${encodeURIComponent(id)}/why?${query}`,
      signal,
    );
  }
}

/** A log record that names a step, as it was told. */
export async function logRecord(runId: string, seq: number): Promise<StreamEvent | null> {
  const query = `cursor=${String(seq - 1)}&limit=1&level=debug`;
  const page = await get<'/traces/{trace_id}/events'>(`/traces/${encodeURIComponent(runId)}/events?${query}`);
  const event = page.events[0];
  return event !== undefined && 'seq' in event && event.seq === seq ? event : null;
}
