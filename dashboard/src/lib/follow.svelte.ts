// A run on the screen: does what `model/stream.ts` says, folds what comes, and gives the panels one new `Run` per frame at most.

import { createParser } from 'eventsource-parser';
import { onDestroy } from 'svelte';
import { answered, ApiError, get } from '../api/client';
import { isEarlierRow } from '../model/earlier';
import { Fold, ROOM, type Room } from '../model/fold';
import type { Run } from '../model/run';
import { Connection, type ConnectionState, type Effect, type Gap, type Opening } from '../model/stream';

/** Every event, and of each no more than names, numbers and times: the words are fetched by the panels that show them. */
const LENS = 'level=standard&event_types=*';
const STALLED_MS = 60_000;
const LOST_MS = 15 * 60_000;
/** Between two requests for the server's tree, at least; and so many times what the last one took. */
const TREE_MS = 2_000;
const TREE_REST = 20;
/** Of a run whose first steps are only counted: all of it would be asked for, to show little of it. */
const LONG_TREE_MS = 15_000;
/** A run that ended and has been still for so long is shown with more of its steps. */
const STILL_MS = 3_000;

/** How the connection stands, for the page. A new object with each change. */
export interface Link {
  state: ConnectionState;
  events: number;
  lastSeq: number;
  gaps: readonly Gap[];
  reloads: number;
  verified: boolean | null;
  refusal: { status: number; message: string } | null;
}

export class Followed {
  run: Run;
  now: number;
  link: Link;
  /** Sessions and the like, that spans do not tell. */
  sessions: readonly string[];
  readonly check: () => void;
  readonly again: () => void;
  /** The digest of what was received so far. */
  readonly digest: () => string;
  /** Brings back steps that are only counted. */
  readonly more: () => void;
  /** These steps are looked at: they stay, and come back where they are only counted. */
  readonly keep: (ids: readonly string[]) => void;

  constructor(id: string, actions: Pick<Followed, 'check' | 'again' | 'digest' | 'more' | 'keep'>, link: Link) {
    this.run = $state.raw(new Fold(id).view());
    this.now = $state(Date.now());
    this.link = $state.raw(link);
    this.sessions = $state.raw([]);
    this.check = actions.check;
    this.again = actions.again;
    this.digest = actions.digest;
    this.more = actions.more;
    this.keep = actions.keep;
  }
}

/** Follows a run for as long as the component lives that calls this; `room`: how many of its steps are held. */
export function follow(id: string, room: Room = ROOM): Followed {
  const path = `/traces/${encodeURIComponent(id)}`;
  const connection = new Connection();
  const gone = new AbortController();
  let fold = new Fold(id, room);
  let stop: AbortController | null = null;
  let frame = 0;
  let arrivedAt = Date.now();
  /** Events up to here were there before the page: when they arrived, only the server knows. */
  let history = Number.POSITIVE_INFINITY;
  let isReset = false;
  let hasCaughtUp = false;
  /** A tree is wanted that is not older than this. */
  let isWanted = false;
  let tree = { asked: false, at: 0, tookMs: 0, version: -1 };

  const followed = new Followed(
    id,
    {
      check: () => act(connection.check()),
      again: () => act(connection.again(Date.now())),
      digest: () => connection.digest,
      more: () => {
        if (fold.goneCount === 0) return;
        fold.more();
        want();
      },
      keep: (ids) => {
        fold.keep(new Set(ids));
        if (ids.some((each) => !isEarlierRow(each) && fold.isGone(each))) want();
      },
    },
    link(),
  );

  function link(): Link {
    return {
      state: connection.state,
      events: connection.count,
      lastSeq: connection.lastSeq,
      gaps: [...connection.gaps],
      reloads: connection.reloads,
      verified: connection.verified,
      refusal: connection.refusal,
    };
  }

  function want(): void {
    isWanted = true;
    void plant();
  }

  function draw(): void {
    frame = 0;
    if (!hasCaughtUp && (connection.state === 'connected' || connection.state === 'gap')) {
      hasCaughtUp = true;
      fold.move();
    }
    if (isReset || fold.version !== followed.run.version) followed.run = fold.view();
    isReset = false;
    followed.now = Date.now();
    const before = followed.link;
    const state = connection.state;
    if (
      before.state !== state ||
      before.events !== connection.count ||
      before.gaps.length !== connection.gaps.length ||
      before.reloads !== connection.reloads ||
      before.verified !== connection.verified ||
      before.refusal !== connection.refusal
    )
      followed.link = link();
  }

  function changed(): void {
    if (frame === 0) frame = requestAnimationFrame(draw);
  }

  function act(effects: readonly Effect[]): void {
    for (const effect of effects) {
      switch (effect.do) {
        case 'open':
          void read(effect.with);
          break;
        case 'close':
          stop?.abort();
          break;
        case 'reset':
          fold = new Fold(id, room);
          hasCaughtUp = false;
          isReset = true;
          break;
        case 'apply':
          fold.apply(effect.event);
          if (effect.event.seq > history) arrivedAt = Date.now();
          break;
        case 'end':
          fold.end(effect.status);
          void plant();
          break;
        case 'check':
          void check(effect.through);
          break;
        case 'ask':
          void ask();
          break;
      }
    }
    changed();
  }

  async function read({ cursor, until }: Opening): Promise<void> {
    stop?.abort();
    const own = new AbortController();
    stop = own;
    const signal = AbortSignal.any([own.signal, gone.signal]);
    // Whatever comes of an older connection is not this one's.
    const isOwn = () => stop === own && !signal.aborted;
    try {
      const headers: Record<string, string> = { accept: 'text/event-stream' };
      if (cursor !== null) headers['last-event-id'] = cursor;
      const response = await answered(`${path}/stream?${LENS}${until === 'next' ? '&until=closed' : ''}`, {
        signal,
        headers,
        cache: 'no-store',
      });
      if (!isOwn()) return;
      act(connection.answered(response.status, '', null, Date.now()));
      if (response.body === null || response.status !== 200) return;
      const parser = createParser({
        onEvent: ({ id: at, event, data }) => {
          if (isOwn()) act(connection.frame({ id: at ?? null, name: event ?? null, data }, Date.now()));
        },
        onRetry: (every) => connection.retryEvery(every),
        onComment: () => connection.heard(Date.now()),
      });
      const text = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await text.read();
        if (!isOwn()) return;
        if (done) break;
        parser.feed(value);
      }
      if (isOwn()) act(connection.closed(Date.now()));
    } catch (error) {
      if (!isOwn()) return;
      if (error instanceof ApiError && error.status > 0)
        act(connection.answered(error.status, error.message, error.retryAfterMs, Date.now()));
      else act(connection.failed(Date.now(), Math.random()));
    }
  }

  async function check(through: number): Promise<void> {
    const of = connection;
    try {
      const server = await get<'/traces/{trace_id}/digest'>(`${path}/digest?${LENS}&through=${through}`, gone.signal);
      act(of.checked(server, through, Date.now()));
    } catch {
      if (!gone.signal.aborted) act(of.checked(null, through, Date.now()));
    }
  }

  async function ask(): Promise<void> {
    try {
      const summary = await get<'/traces/{trace_id}/summary'>(`${path}/summary?level=minimal`, gone.signal);
      followed.sessions = summary.sessions;
      const { status } = summary;
      const open = status === 'running' || status === 'stalled' || status === 'lost';
      history = Math.min(history, summary.as_of_seq);
      act(connection.told(summary.as_of_seq, open ? 'running' : status));
      if (status === 'stalled') arrivedAt = Math.min(arrivedAt, Date.now() - STALLED_MS);
      if (status === 'lost') arrivedAt = Math.min(arrivedAt, Date.now() - LOST_MS);
    } catch {
      // Nothing is known of how far it is: what is there is shown as it comes.
      if (!gone.signal.aborted) act(connection.told(0, 'running'));
    }
  }

  /** Takes over the server's tree: what spans do not say of themselves. */
  async function plant(): Promise<void> {
    if (tree.asked) return;
    const began = performance.now();
    const of = fold;
    tree = { ...tree, asked: true, version: fold.version };
    isWanted = false;
    try {
      const told = await get<'/traces/{trace_id}'>(path, gone.signal);
      if (of === fold && 'spans' in told) fold.adopt(told.spans, told.as_of_seq);
    } catch {
      // What is drawn stands; it is asked for again.
    }
    tree = { asked: false, at: performance.now(), tookMs: performance.now() - began, version: fold.version };
    changed();
    // What was asked for meanwhile.
    if (isWanted && !gone.signal.aborted) void plant();
  }

  function tick(): void {
    const now = Date.now();
    act(connection.tick(now));
    const state = connection.state;
    const isLive = state === 'connected' || state === 'gap';
    if (!isLive && state !== 'verified complete' && state !== 'not verified') return;
    if (isLive && now - arrivedAt >= STALLED_MS)
      fold.silence(now - arrivedAt >= LOST_MS ? 'lost' : 'stalled', followed.run.lastEventAt ?? arrivedAt);
    if (followed.run.status !== 'running' && now - arrivedAt >= STILL_MS && fold.rest()) void want();
    const isLong = fold.goneCount > 0;
    const least = isLong ? LONG_TREE_MS : TREE_MS;
    // What spans say of themselves stands in a long run until it ends, or something else is wanted of the tree.
    if (isLong && !fold.needsTree && followed.run.status === 'running') return;
    const rest = Math.max(least, tree.tookMs * TREE_REST) * (fold.needsTree ? 1 : 5);
    if (fold.version !== tree.version && performance.now() - tree.at >= rest) void plant();
  }

  const clock = setInterval(tick, 1_000);
  // Open spans grow: ten times a second is smooth enough, and nothing is drawn of a run that is over.
  const growing = setInterval(() => {
    if (followed.run.status === 'running' && !document.hidden) changed();
  }, 100);
  const seen = () => {
    if (document.hidden) connection.hidden(Date.now());
    else act(connection.shown(Date.now()));
  };
  const online = () => act(connection.again(Date.now()));
  document.addEventListener('visibilitychange', seen);
  addEventListener('online', online);
  onDestroy(() => {
    gone.abort();
    clearInterval(clock);
    clearInterval(growing);
    cancelAnimationFrame(frame);
    document.removeEventListener('visibilitychange', seen);
    removeEventListener('online', online);
  });
  act(connection.start(Date.now()));
  if (document.hidden) connection.hidden(Date.now());
  return followed;
}
