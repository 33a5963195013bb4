// What happens to runs anywhere: `GET /stream?view=traces`. Says that something moved, not what: the list is asked anew then, so nothing
// here has to be complete, and a lost connection costs a moment.

import { createParser } from 'eventsource-parser';
import { onDestroy } from 'svelte';
import { answered, ApiError } from '../api/client';

const RETRY_MS = 1_000;
const MOST_RETRY_MS = 15_000;
const SILENCE_MS = 45_000;

export class News {
  /** Whether what happens is heard of at once. */
  isLive = $state(false);
}

/** Calls `moved` after each opening and with each notice, for as long as the component lives that calls this. */
export function news(path: string, moved: () => void): News {
  const told = new News();
  const gone = new AbortController();
  let stop: AbortController | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let failures = 0;
  let heardAt = 0;

  async function read(): Promise<void> {
    clearTimeout(timer);
    stop?.abort();
    const own = new AbortController();
    stop = own;
    const signal = AbortSignal.any([own.signal, gone.signal]);
    try {
      heardAt = Date.now();
      const response = await answered(path, { signal, headers: { accept: 'text/event-stream' }, cache: 'no-store' });
      told.isLive = true;
      failures = 0;
      moved();
      const parser = createParser({ onEvent: () => moved() });
      const text = response.body?.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const chunk = await text?.read();
        heardAt = Date.now();
        if (chunk === undefined || chunk.done) break;
        parser.feed(chunk.value);
      }
    } catch (error) {
      if (signal.aborted) return;
      failures += 1;
      // Who may not look is told so by the list itself.
      if (error instanceof ApiError && (error.status === 401 || error.status === 403)) failures = 10;
    }
    if (signal.aborted) return;
    told.isLive = false;
    timer = setTimeout(() => void read(), Math.min(MOST_RETRY_MS, RETRY_MS * 2 ** Math.min(failures, 5)));
  }

  function close(): void {
    clearTimeout(timer);
    stop?.abort();
    told.isLive = false;
  }

  const seen = () => {
    if (document.hidden) close();
    else void read();
  };
  const online = () => void read();
  // A connection that says nothing for so long is dead, or the machine slept.
  const watch = setInterval(() => {
    if (!document.hidden && told.isLive && Date.now() - heardAt > SILENCE_MS) void read();
  }, 5_000);
  document.addEventListener('visibilitychange', seen);
  addEventListener('online', online);
  onDestroy(() => {
    gone.abort();
    clearTimeout(timer);
    clearInterval(watch);
    document.removeEventListener('visibilitychange', seen);
    removeEventListener('online', online);
  });
  if (!document.hidden) void read();
  return told;
}
