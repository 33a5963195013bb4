// The connection to a run's stream as a state machine: what has happened goes in, what is to be done comes out. It knows no socket and
// no clock; `lib/follow.svelte.ts` does what it says. The rules are those of docs/dashboard.md.
//
// Every event is taken once: a frame that is known is passed over, a hole that no `gap` explains is asked for again. What was taken is
// counted and hashed, and at the end of a run the count and the digest must be the server's, or the run is loaded anew.

import { sha256 } from '@noble/hashes/sha2.js';
import { readEvent, type StreamEvent } from './event';
import type { RunStatus } from './run';

/** How the page stands to the run. Only `verified complete` says that everything is here. */
export type ConnectionState =
  | 'connecting'
  | 'catching up'
  | 'connected'
  | 'gap'
  | 'reconnecting'
  | 'paused'
  | 'checking'
  | 'verified complete'
  | 'not verified'
  | 'absent'
  | 'refused';

/** Events that cannot be shown any more, and why. */
export interface Gap {
  reason: string;
  from: number;
  to: number;
}

/** What the stream is to be opened with. `next`: the run ended and was checked; only what may come after it is awaited. */
export interface Opening {
  cursor: string | null;
  until: 'end' | 'next';
}

export type Effect =
  | { do: 'open'; with: Opening }
  | { do: 'close' }
  /** Everything taken so far is void: begin with an empty run. */
  | { do: 'reset' }
  | { do: 'apply'; event: StreamEvent }
  | { do: 'end'; status: RunStatus }
  /** Ask for the digest up to this event. */
  | { do: 'check'; through: number }
  /** Ask how far the run is, and how it stands. */
  | { do: 'ask' };

export interface Frame {
  id: string | null;
  /** `null` for data. */
  name: string | null;
  data: string;
}

export interface ServerDigest {
  through: number;
  events: number;
  sha256: string;
}

/** A connection that says nothing for so long is dead: heartbeats come after 15 s. */
const SILENCE_MS = 45_000;
/** Between two ticks only a machine that slept is silent for so long. */
const SLEPT_MS = 30_000;
/** A tab that nobody sees gives its connection back after so long. */
const HIDDEN_MS = 10_000;
/** When the server did not answer the question for its digest. */
const CHECK_AGAIN_MS = 5_000;
const RETRY_MS = 1_000;
const MOST_RETRY_MS = 15_000;
/** A run is loaded anew so often before the page says that it cannot be verified. */
const MOST_RELOADS = 3;
const ENDS: readonly string[] = ['completed', 'failed', 'lost', 'deleted', 'expired'];

export class Connection {
  /** How often the run was loaded anew because it was not what the server has. */
  reloads = 0;
  readonly gaps: Gap[] = [];
  /** Why the server does not show the run: its status and words. */
  refusal: { status: number; message: string } | null = null;
  /** Of the events that were taken. */
  count = 0;
  lastSeq = 0;

  #hash = sha256.create();
  #cursor: string | null = null;
  #phase: 'new' | 'opening' | 'open' | 'retry' | 'paused' | 'checking' | 'stopped' = 'new';
  #until: Opening['until'] = 'end';
  #ended: RunStatus | null = null;
  #verified: boolean | null = null;
  /** The run has events up to here; what is before is caught up with. */
  #target: number | null = null;
  #attempt = 0;
  #retryAt = 0;
  #retryMs = RETRY_MS;
  #heardAt = 0;
  #tickedAt: number | null = null;
  #hiddenSince: number | null = null;
  #checkAt = 0;
  #wasOpen = false;
  /** The hole that the connection was already opened again for. */
  #asked = 0;

  /** For the page. */
  get state(): ConnectionState {
    switch (this.#phase) {
      case 'paused':
        return this.#verified === true ? 'verified complete' : 'paused';
      case 'stopped':
        if (this.refusal !== null) return this.refusal.status === 404 ? 'absent' : 'refused';
        break;
      case 'checking':
        return 'checking';
      case 'retry':
        if (this.#verified === true && this.#attempt < 2) return 'verified complete';
        return this.refusal?.status === 404 ? 'absent' : 'reconnecting';
      case 'new':
      case 'opening':
        if (this.#until === 'next') return this.#verified === true ? 'verified complete' : 'not verified';
        return this.#wasOpen ? 'reconnecting' : 'connecting';
      case 'open':
    }
    if (this.#until === 'next') return this.#verified === true ? 'verified complete' : 'not verified';
    if (this.#ended !== null) return 'not verified';
    if (this.#target === null || this.lastSeq < this.#target) return 'catching up';
    return this.gaps.length > 0 ? 'gap' : 'connected';
  }

  /** The digest of what was taken, as the server writes it. */
  get digest(): string {
    return hex(this.#hash.clone().digest());
  }

  /** How the run ended, until something comes after that. */
  get ended(): RunStatus | null {
    return this.#ended;
  }

  start(now: number): Effect[] {
    this.#tickedAt = now;
    return this.#open(now);
  }

  /** The server answered the request for the stream. `retryAfterMs`: when it says to come again. */
  answered(status: number, message: string, retryAfterMs: number | null, now: number): Effect[] {
    if (this.#phase !== 'opening') return [];
    this.#heardAt = now;
    if (status === 200) {
      this.#phase = 'open';
      this.#wasOpen = true;
      this.#attempt = 0;
      this.refusal = null;
      // The target is asked for at each opening: while it was closed the run may have moved on.
      this.#target = this.#until === 'next' ? this.lastSeq : null;
      return this.#until === 'next' ? [] : [{ do: 'ask' }];
    }
    // The run ended, and everything of it was shown before the connection was cut.
    if (status === 204) return this.#finish(now);
    if (status === 429 || status >= 500) return this.#retry(now, retryAfterMs);
    this.refusal = { status, message };
    // Nothing of this name yet, or not any more: it is asked for now and then.
    if (status === 404) return this.#retry(now, MOST_RETRY_MS / 3);
    this.#phase = 'stopped';
    return [];
  }

  /** The answer to `ask`: the run has events up to `seq`, and stands so. A 204 does not say how the run ended; this does. */
  told(seq: number, status: RunStatus): Effect[] {
    this.#target = Math.max(seq, this.#target ?? 0);
    if (this.#until !== 'next' || this.#ended !== null || status === 'running') return [];
    this.#ended = status;
    return [{ do: 'end', status }];
  }

  /** A comment or anything else was heard: the connection lives. */
  heard(now: number): void {
    this.#heardAt = now;
  }

  frame(frame: Frame, now: number): Effect[] {
    if (this.#phase !== 'open') return [];
    this.#heardAt = now;
    switch (frame.name) {
      case null:
        return this.#data(frame, now);
      case 'gap':
        return this.#gap(frame);
      case 'end':
        return this.#end(frame, now);
      default:
        return [];
    }
  }

  /** The stream closed without `end`: its lifetime is over, or the server restarts. */
  closed(now: number): Effect[] {
    if (this.#phase !== 'open' && this.#phase !== 'opening') return [];
    return this.#retry(now, this.#retryMs);
  }

  /** The connection could not be made, or broke. `random`: 0 to 1, so that viewers do not all come back in the same moment. */
  failed(now: number, random: number): Effect[] {
    if (this.#phase !== 'open' && this.#phase !== 'opening') return [];
    const wait = Math.min(MOST_RETRY_MS, this.#retryMs * 2 ** Math.min(this.#attempt, 5));
    return this.#retry(now, wait * (0.5 + random / 2));
  }

  /** The stream's `retry:` line. */
  retryEvery(milliseconds: number): void {
    this.#retryMs = Math.min(MOST_RETRY_MS, Math.max(100, milliseconds));
  }

  /** Called about once a second. */
  tick(now: number): Effect[] {
    const slept = this.#tickedAt !== null && now - this.#tickedAt > SLEPT_MS && this.#hiddenSince === null;
    this.#tickedAt = now;
    const isHidden = this.#hiddenSince !== null && now - this.#hiddenSince >= HIDDEN_MS;
    switch (this.#phase) {
      case 'open':
      case 'opening':
        if (isHidden) {
          this.#phase = 'paused';
          return [{ do: 'close' }];
        }
        // Nothing tells the page that the other end went while the machine slept.
        if (slept || now - this.#heardAt > SILENCE_MS) return [{ do: 'close' }, ...this.#open(now)];
        if (this.#until === 'next' && this.#verified === null && now >= this.#checkAt) {
          this.#checkAt = now + CHECK_AGAIN_MS;
          return this.check();
        }
        return [];
      case 'retry':
        if (isHidden) this.#phase = 'paused';
        else if (now >= this.#retryAt) return this.#open(now);
        return [];
      case 'new':
      case 'paused':
      case 'checking':
      case 'stopped':
        return [];
    }
  }

  hidden(now: number): void {
    this.#hiddenSince ??= now;
  }

  shown(now: number): Effect[] {
    this.#hiddenSince = null;
    this.#tickedAt = now;
    return this.#phase === 'paused' ? this.#open(now) : [];
  }

  /** The network is back, or somebody asks for it: no waiting. */
  again(now: number): Effect[] {
    if (this.#phase === 'stopped') {
      this.refusal = null;
      return this.#open(now);
    }
    return this.#phase === 'retry' ? this.#open(now) : [];
  }

  /** Somebody asks whether everything is here: at any time. */
  check(): Effect[] {
    return this.lastSeq === 0 ? [] : [{ do: 'check', through: this.lastSeq }];
  }

  /** The answer to `check`; `null` when there was none. What came in meanwhile makes it worthless. */
  checked(server: ServerDigest | null, through: number, now: number): Effect[] {
    if (through !== this.lastSeq) return this.#phase === 'checking' ? this.check() : [];
    if (server === null) {
      this.#verified = null;
      return this.#phase === 'checking' ? this.#await(now) : [];
    }
    const agrees = server.events === this.count && server.sha256 === this.digest && server.through === this.lastSeq;
    if (agrees) {
      this.#verified = true;
      return this.#phase === 'checking' ? this.#await(now) : [];
    }
    if (this.reloads < MOST_RELOADS) {
      this.reloads += 1;
      return [{ do: 'close' }, ...this.#reset(), ...this.#open(now)];
    }
    this.#verified = false;
    return this.#phase === 'checking' ? this.#await(now) : [];
  }

  /** Whether the last comparison agreed; `null` when there was none since the last event. */
  get verified(): boolean | null {
    return this.#verified;
  }

  #data(frame: Frame, now: number): Effect[] {
    const event = readEvent(frame.data);
    if (event === null || event.seq <= this.lastSeq) return [];
    const isHole = this.lastSeq > 0 && event.seq > this.lastSeq + 1;
    if (isHole && this.#asked !== event.seq) {
      this.#asked = event.seq;
      return [{ do: 'close' }, ...this.#open(now)];
    }
    if (isHole) this.gaps.push({ reason: 'missing', from: this.lastSeq + 1, to: event.seq - 1 });
    this.#hash.update(utf8.encode(`${frame.data}\n`));
    this.count += 1;
    this.lastSeq = event.seq;
    this.#cursor = frame.id ?? String(event.seq);
    this.#ended = null;
    this.#verified = null;
    this.#until = 'end';
    return [{ do: 'apply', event }];
  }

  #gap(frame: Frame): Effect[] {
    const said = object(frame.data);
    const [reason, from, to] = [said.reason, said.from, said.to];
    if (typeof reason !== 'string') return [];
    if (reason === 'replaced') return [...this.#reset(), { do: 'ask' }];
    if (typeof from === 'number' && typeof to === 'number') {
      this.gaps.push({ reason, from, to });
      this.lastSeq = Math.max(this.lastSeq, to);
      if (frame.id !== null) this.#cursor = frame.id;
    }
    return [];
  }

  #end(frame: Frame, now: number): Effect[] {
    const status = object(frame.data).status;
    // Told again of what was compared already: nothing came since.
    const isKnown = this.#until === 'next' && this.#ended !== null;
    this.#ended = ENDS.includes(String(status)) ? (status as RunStatus) : 'completed';
    const ended: Effect = { do: 'end', status: this.#ended };
    // With the trace there is nothing left to compare with, and nothing comes after it.
    if (this.#ended === 'deleted' || this.#ended === 'expired') {
      this.#phase = 'stopped';
      return [ended, { do: 'close' }];
    }
    if (this.#until === 'next') return isKnown ? [] : [ended];
    return [ended, { do: 'close' }, ...this.#finish(now)];
  }

  #finish(now: number): Effect[] {
    if (this.lastSeq === 0) return this.#await(now);
    this.#phase = 'checking';
    return this.check();
  }

  /** Everything was shown and compared: waits for what may come after. */
  #await(now: number): Effect[] {
    this.#until = 'next';
    this.#checkAt = now + CHECK_AGAIN_MS;
    // After a 204 the page does not know yet how the run ended.
    return this.#ended === null ? [{ do: 'ask' }, ...this.#open(now)] : this.#open(now);
  }

  #open(now: number): Effect[] {
    this.#phase = 'opening';
    this.#heardAt = now;
    return [{ do: 'open', with: { cursor: this.#cursor, until: this.#until } }];
  }

  #retry(now: number, wait: number | null): Effect[] {
    this.#phase = 'retry';
    this.#retryAt = now + (wait ?? this.#retryMs);
    this.#attempt += 1;
    return [];
  }

  #reset(): Effect[] {
    this.#hash = sha256.create();
    this.#cursor = null;
    this.#ended = null;
    this.#verified = null;
    this.#until = 'end';
    this.#target = null;
    this.#asked = 0;
    this.count = 0;
    this.lastSeq = 0;
    this.gaps.length = 0;
    return [{ do: 'reset' }];
  }
}

const utf8 = new TextEncoder();

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function object(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
