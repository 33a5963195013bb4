// A run on the screen: reads its stream, folds it, and gives the panels one new `Run` per frame at most.

import { onDestroy } from 'svelte';
import { answered } from '../api/client';
import { createParser } from 'eventsource-parser';
import { readEvent } from '../model/event';
import { Fold } from '../model/fold';
import type { Run, RunStatus } from '../model/run';

export class Followed {
  run: Run = $state.raw(new Fold('').view());
  now: number = $state(Date.now());
}

/** Follows a run for as long as the component lives that calls this. */
export function follow(id: string): Followed {
  const followed = new Followed();
  const fold = new Fold(id);
  followed.run = fold.view();
  const stop = new AbortController();
  let frame = 0;
  const draw = () => {
    frame = 0;
    if (fold.version !== followed.run.version) followed.run = fold.view();
    followed.now = Date.now();
  };
  const changed = () => {
    if (frame === 0) frame = requestAnimationFrame(draw);
  };
  const clock = setInterval(() => {
    if (followed.run.status === 'running') changed();
  }, 200);
  onDestroy(() => {
    stop.abort();
    clearInterval(clock);
    cancelAnimationFrame(frame);
  });
  void read();
  return followed;

  async function read(): Promise<void> {
    const response = await answered(`/traces/${encodeURIComponent(id)}/stream?level=detailed&wait=60s`, {
      signal: stop.signal,
      headers: { accept: 'text/event-stream' },
    });
    const parser = createParser({
      onEvent: ({ event, data }) => {
        if (event === 'end') fold.end((JSON.parse(data) as { status: RunStatus }).status);
        else if (event === undefined) {
          const read = readEvent(data);
          if (read !== null) fold.apply(read);
        }
        changed();
      },
    });
    const text = response.body?.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const chunk = await text?.read();
      if (chunk === undefined || chunk.done) return;
      parser.feed(chunk.value);
    }
  }
}
