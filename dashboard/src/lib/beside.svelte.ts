// What a comparison asks for beside a run's stream: what calls were made with, and what the run adds up to.

import { onDestroy } from 'svelte';
import { ApiError, get } from '../api/client';
import { askedOf, type Asked, type Measured } from '../model/compare';

/** Between two questions about a run that moves. */
const PAUSE_MS = 1_000;
/** Calls whose arguments are held. */
const MOST_CALLS = 50_000;
const TYPES = ['tool_call_started', 'tool_call_completed', 'retrieval_started', 'retrieval_completed'].join(',');

export class Beside {
  asked: ReadonlyMap<string, Asked> = $state.raw(new Map());
  measured: Measured | null = $state.raw(null);
  /** What went wrong last. */
  problem: string | null = $state(null);
  /** Everything that `version` told of has been read. */
  settled: boolean = $state(false);
}

/** Asks again, a little later, whenever `version` changes. For the life of the component that calls it. */
export function beside(id: string, version: () => number): Beside {
  const found = new Beside();
  const stop = new AbortController();
  const path = `/traces/${encodeURIComponent(id)}`;
  let asked = new Map<string, Asked>();
  let cursor: string | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let busy = false;
  /** The run has changed since the last question. */
  let isWanted = false;

  async function calls(): Promise<void> {
    for (;;) {
      const from = cursor === null ? '' : `&cursor=${encodeURIComponent(cursor)}`;
      const page = await get<'/traces/{trace_id}/events'>(
        `${path}/events?level=detailed&limit=1000&event_types=${TYPES}${from}`,
        stop.signal,
      );
      if (page.gap?.reason === 'replaced') asked = new Map();
      for (const event of page.events) {
        const told = askedOf(event as unknown as Record<string, unknown>);
        if (told !== null && (asked.has(told.span) || asked.size < MOST_CALLS)) asked.set(told.span, told.asked);
      }
      const next = page.next_cursor ?? null;
      cursor = next ?? page.cursor ?? cursor;
      if (next === null) return;
    }
  }

  async function ask(): Promise<void> {
    busy = true;
    isWanted = false;
    try {
      await calls();
      const summary = await get<'/traces/{trace_id}/summary'>(`${path}/summary`, stop.signal);
      found.asked = new Map(asked);
      found.measured = {
        durationMs: summary.duration_ms ?? null,
        cost: summary.cost_usd ?? null,
        inputTokens: summary.input_tokens,
        outputTokens: summary.output_tokens,
        llmCalls: summary.total_llm_calls,
        toolCalls: summary.total_tool_calls,
        errors: summary.errors_count,
      };
      found.problem = null;
    } catch (error) {
      if (stop.signal.aborted) return;
      found.problem = error instanceof ApiError ? error.message : 'the server sent what cannot be read';
    }
    busy = false;
    found.settled = !isWanted;
    timer = setTimeout(() => {
      timer = undefined;
      if (isWanted) void ask();
    }, PAUSE_MS);
  }

  $effect(() => {
    if (version() === 0) return;
    found.settled = false;
    if (busy || timer !== undefined) isWanted = true;
    else void ask();
  });
  onDestroy(() => {
    stop.abort();
    clearTimeout(timer);
  });
  return found;
}
