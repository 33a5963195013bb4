// The words of a run, read beside its stream: the turns as the server tells them, and the events that hold what was said, each once.

import { onDestroy } from 'svelte';
import { ApiError, get, type Answer } from '../api/client';
import { conversation, Talk, type Conversation } from '../model/conversation';

/** A stream says that something came; what came is asked for at most so often. */
const PAUSE_MS = 600;
/** So long the first view waits for the turns. */
const PATIENCE_MS = 1_000;

export class Talking {
  shown: Conversation | null = $state.raw(null);
  session: string | null = $state(null);
  error: ApiError | null = $state.raw(null);
  /** Events that cannot be shown any more. */
  hasGaps = $state(false);
}

/**
 * Reads the conversation of a run, and goes on whenever `moved` is called, for as long as the component lives that calls this.
 * One request at a time, the next after a pause that grows with what the last one took: a page never asks more than a fraction of the time.
 */
export function talking(id: string): { talking: Talking; moved: () => void } {
  const talking = new Talking();
  const path = `/traces/${encodeURIComponent(id)}`;
  const stop = new AbortController();
  let talk = new Talk();
  let cursor: string | null = null;
  let isBusy = false;
  let isDue = false;
  let timer: ReturnType<typeof setTimeout> | undefined;

  onDestroy(() => {
    stop.abort();
    clearTimeout(timer);
  });
  return { talking, moved };

  function moved(): void {
    isDue = true;
    if (!isBusy) void read();
  }

  async function read(): Promise<void> {
    isBusy = true;
    isDue = false;
    const began = performance.now();
    let pause = PAUSE_MS;
    try {
      await readEvents();
      // Of a long run the turns take a while: its steps are shown until they are known.
      const patience = setTimeout(() => (talking.shown ??= conversation(talk, [])), PATIENCE_MS);
      const turns = await get<'/traces/{trace_id}/invocations'>(`${path}/invocations`, stop.signal).finally(() =>
        clearTimeout(patience),
      );
      talking.shown = conversation(talk, turns);
      talking.session = talk.session;
      talking.error = null;
    } catch (error) {
      if (stop.signal.aborted) return;
      talking.error = error instanceof ApiError ? error : new ApiError(0, 'unreadable', 'the answer cannot be read');
      // Away, or too busy: again, without being asked.
      if (talking.error.status === 0 || talking.error.status === 429 || talking.error.status >= 500) {
        isDue = true;
        pause = talking.error.retryAfterMs ?? 3_000;
      }
    }
    timer = setTimeout(
      () => {
        isBusy = false;
        if (isDue) void read();
      },
      Math.max(pause, 2 * (performance.now() - began)),
    );
  }

  async function readEvents(): Promise<void> {
    for (;;) {
      const query = new URLSearchParams({ level: 'debug', exclude: 'attributes', limit: '1000' });
      if (cursor !== null) query.set('cursor', cursor);
      const page: Answer<'/traces/{trace_id}/events'> = await get<'/traces/{trace_id}/events'>(
        `${path}/events?${query.toString()}`,
        stop.signal,
      );
      if (page.gap?.reason === 'replaced') {
        talk = new Talk();
        talking.hasGaps = false;
      } else if (page.gap != null) talking.hasGaps = true;
      for (const event of page.events) if ('seq' in event) talk.apply(event);
      cursor = page.cursor;
      if (page.next_cursor == null) return;
      // A long run is shown while it is read.
      if (talking.shown === null && talk.size > 0) talking.shown = conversation(talk, []);
    }
  }
}
