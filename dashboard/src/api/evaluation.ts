// What the evaluation page asks the server.

import { createParser } from 'eventsource-parser';
import {
  storedOf,
  turnsOf,
  validation,
  type EvalSet,
  type Metric,
  type Stored,
  type Turn,
  type Validation,
} from '../model/evaluation';
import { answered, get, request, type Answer } from './client';

export type Session = Answer<'/api/streaming/sessions'>['data'][number];

export async function sessions(signal: AbortSignal): Promise<Session[]> {
  return (await get<'/api/streaming/sessions'>('/api/streaming/sessions', signal)).data;
}

export async function metrics(signal: AbortSignal): Promise<Metric[]> {
  return (await get<'/api/metrics'>('/api/metrics', signal)).data;
}

function post(path: string, body: unknown): Promise<unknown> {
  return request(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
}

/** Whether a file is an eval set, and what is wrong with it. */
export async function validate(file: File): Promise<Validation> {
  const form = new FormData();
  form.set('eval_set_file', file);
  return validation(await request('/api/validate/eval-set', { method: 'POST', body: form }));
}

/** The eval set that expects what a session was. */
export async function build(session: string, id: string): Promise<EvalSet> {
  const answer = (await post('/api/streaming/create-eval-set', { session_id: session, eval_set_id: id })) as {
    data: { evalSet: unknown };
  };
  return { id, cases: 1, text: JSON.stringify(answer.data.evalSet, null, 2), from: `session ${session}` };
}

/** A session as a trace file, and the trace id that its spans have there. */
export async function fileOf(session: Session): Promise<File> {
  const answer = (await post('/api/streaming/get-trace', { session_id: session.sessionId })) as {
    data: { traceContent: string };
  };
  return new File([answer.data.traceContent], `agentevals_${session.sessionId}.jsonl`);
}

/** What was said and done in the traces of files, by their ids. */
export async function turns(files: readonly File[], signal: AbortSignal): Promise<Map<string, Turn[]>> {
  const form = new FormData();
  for (const file of files) form.append('trace_files', file);
  const answer = await request<{ data: { traces: { traceId: string; invocations: unknown }[] } }>('/api/convert', {
    method: 'POST',
    body: form,
    signal,
  });
  return new Map(answer.data.traces.map((trace) => [trace.traceId, turnsOf(trace.invocations)]));
}

/** Evaluates, and tells each frame of how it goes. Ends with the stream. */
export async function evaluate(
  files: readonly File[],
  set: EvalSet | null,
  config: Record<string, unknown>,
  onframe: (event: string | undefined, data: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const form = new FormData();
  for (const file of files) form.append('trace_files', file);
  form.set('config', JSON.stringify(config));
  if (set !== null) form.set('eval_set_file', new File([set.text], 'eval_set.json', { type: 'application/json' }));
  const response = await answered('/api/evaluate/stream', { method: 'POST', body: form, signal });
  const parser = createParser({ onEvent: ({ event, data }) => onframe(event, data) });
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const chunk = await reader?.read();
    if (chunk === undefined || chunk.done) return;
    parser.feed(chunk.value);
  }
}

/** Traces of a session whose stored results are read. */
const MOST_TRACES = 50;

/** What evaluations at the ends of runs found, by trace; traces without any are left out. */
export async function stored(session: string, signal: AbortSignal): Promise<{ trace: string; results: Stored[] }[]> {
  const found = await get<'/sessions/{session_id}'>(
    `/sessions/${encodeURIComponent(session)}?limit=${MOST_TRACES}`,
    signal,
  );
  const all = await Promise.all(
    found.traces.map(async ({ trace_id: trace }) => {
      const path = `/traces/${encodeURIComponent(trace)}/events?event_types=gen_ai.evaluation.result&level=debug&limit=500`;
      const page = await get<'/traces/{trace_id}/events'>(path, signal);
      return { trace, results: storedOf(page.events) };
    }),
  );
  return all.filter(({ results }) => results.length > 0);
}
