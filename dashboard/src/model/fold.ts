// From the events of a run to the run: one event costs one look-up, one insertion, and a step per ancestor where a tree is joined.
//
// What is drawn here at once is what spans say of themselves. What only the whole run tells (events that name no span, calls that
// two spans tell of) is told by the server's tree: `adopt` takes it over, and `needsTree` says when it is wanted.

import { kindOf, kindOfType, milliseconds, type Row, type StreamEvent } from './event';
import type { Run, RunStatus, Span, SpanState } from './run';

type Told = Omit<Span, 'firstSeq' | 'lastSeq' | 'stalledSince' | 'ghost'>;

/** Where a run's events come together. Not the page's to read: `view()` is. */
export class Fold {
  /** There are events that only the server's tree places. */
  needsTree = false;

  readonly #id: string;
  readonly #spans = new Map<string, Span>();
  readonly #children = new Map<string | null, string[]>();
  /** Ids of the spans that have not ended. */
  readonly #open = new Set<string>();
  #status: RunStatus = 'running';
  #start: number | null = null;
  #lastEventAt: number | null = null;
  #lastSeq = 0;
  #events = 0;
  #version = 0;
  #silent: { state: 'stalled' | 'lost'; since: number } | null = null;

  constructor(id: string) {
    this.#id = id;
  }

  /** The run as it is now: a new object, the maps within are not copied. */
  view(): Run {
    return {
      id: this.#id,
      status: this.#status,
      spans: this.#spans,
      children: this.#children,
      start: this.#start,
      lastEventAt: this.#lastEventAt,
      events: this.#events,
      version: this.#version,
    };
  }

  get version(): number {
    return this.#version;
  }

  get lastSeq(): number {
    return this.#lastSeq;
  }

  /** Takes one event. Those that are known, by their number, do nothing: `false`. */
  apply(event: StreamEvent): boolean {
    if (event.seq <= this.#lastSeq) return false;
    this.#lastSeq = event.seq;
    this.#events += 1;
    this.#version += 1;
    const at = milliseconds(event.timestamp);
    if (at !== null && (this.#lastEventAt === null || at > this.#lastEventAt)) this.#lastEventAt = at;
    if (this.#status !== 'running') this.#status = 'running';
    if (this.#silent !== null) this.#wake();

    if (event.convention.startsWith('native')) this.needsTree = true;
    const told = toldBy(event, at);
    if (told !== null) this.#put(told, event.seq);
    return true;
  }

  /** How the run ended: what is still open then never ended. */
  end(status: RunStatus): void {
    this.#status = status;
    this.#version += 1;
    if (status !== 'running') this.#mark('lost', this.#lastEventAt ?? 0);
  }

  /** Nothing has come for long: open spans are shown as stalled, or given up, since then. */
  silence(state: 'stalled' | 'lost', since: number): void {
    if (this.#silent?.state === state || this.#status !== 'running') return;
    this.#silent = { state, since };
    this.#mark(state, since);
    this.#version += 1;
  }

  /**
   * Takes over the server's tree as of event `seq`: which spans there are, what they hang on, what is counted. A span that was told
   * of later than that keeps what it said itself.
   */
  adopt(rows: readonly Row[], seq: number): void {
    const known = new Set<string>();
    for (const row of rows) {
      known.add(row.span_id);
      const before = this.#spans.get(row.span_id);
      if (before !== undefined && before.lastSeq > seq) continue;
      const start = milliseconds(row.start_time);
      if (start === null) continue;
      const end = milliseconds(row.end_time);
      const told: Told = {
        id: row.span_id,
        parent: row.parent_span_id ?? null,
        name: row.name,
        kind: kindOf(row.kind),
        agent: row.agent_name ?? null,
        start,
        end,
        state: row.status === 'error' ? 'failed' : end === null && row.status === 'running' ? 'open' : 'ok',
        model: row.model ?? null,
        tool: before?.tool ?? (kindOf(row.kind) === 'tool' ? row.name : null),
        inputTokens: row.usage?.input_tokens ?? null,
        outputTokens: row.usage?.output_tokens ?? null,
        cost: row.cost_usd ?? null,
        error: row.error_type == null ? null : (before?.error ?? row.error_type),
      };
      const at = seqOf(row.span_id) ?? seq;
      this.#place({
        ...told,
        ghost: row.estimated,
        stalledSince: null,
        firstSeq: before?.firstSeq ?? at,
        lastSeq: before?.lastSeq ?? at,
      });
    }
    for (const [id, span] of this.#spans) if (!known.has(id) && span.lastSeq <= seq) this.#remove(span);
    if (seq >= this.#lastSeq) this.needsTree = false;
    if (this.#silent !== null) this.#mark(this.#silent.state, this.#silent.since);
    else if (this.#status !== 'running') this.#mark('lost', this.#lastEventAt ?? 0);
    this.#version += 1;
  }

  #put(told: Told, seq: number): void {
    const before = this.#spans.get(told.id);
    if (before === undefined || before.ghost) {
      this.#place({ ...told, ghost: false, stalledSince: null, firstSeq: seq, lastSeq: seq });
      return;
    }
    // A start that comes after its end, as exporters in parallel send them, takes nothing back.
    const late = before.end !== null && told.end === null;
    const span: Span = {
      ...before,
      ...(late ? {} : { name: told.name, state: told.state, end: told.end, error: told.error ?? before.error }),
      parent: told.parent ?? before.parent,
      kind: told.kind === 'other' ? before.kind : told.kind,
      agent: told.agent ?? before.agent,
      start: Math.min(told.start, before.start),
      model: told.model ?? before.model,
      tool: told.tool ?? before.tool,
      inputTokens: told.inputTokens ?? before.inputTokens,
      outputTokens: told.outputTokens ?? before.outputTokens,
      cost: told.cost ?? before.cost,
      stalledSince: null,
      lastSeq: seq,
    };
    if (!late && told.name === '') span.name = before.name;
    this.#place(span);
  }

  /** Sets a span where it belongs; its parent is made up when nobody has told of it yet. */
  #place(span: Span): void {
    const before = this.#spans.get(span.id);
    if (before !== undefined) this.#unlink(before);
    if (span.parent !== null && this.#isWithin(span.parent, span.id)) span = { ...span, parent: null };
    this.#spans.set(span.id, span);
    this.#link(span);
    if (span.state === 'open' && !span.ghost) this.#open.add(span.id);
    else this.#open.delete(span.id);
    if (this.#start === null || span.start < this.#start) this.#start = span.start;
    if (span.parent !== null) this.#reach(span.parent, span);
  }

  /** Sees to it that the parent is there, and that a made-up one holds what is in it. */
  #reach(parent: string, child: Span): void {
    const known = this.#spans.get(parent);
    if (known === undefined) {
      this.#place({
        id: parent,
        parent: null,
        name: 'not told yet',
        kind: 'other',
        agent: null,
        start: child.start,
        end: child.end,
        state: child.end === null ? 'open' : 'ok',
        ghost: true,
        stalledSince: null,
        model: null,
        tool: null,
        inputTokens: null,
        outputTokens: null,
        cost: null,
        error: null,
        firstSeq: child.firstSeq,
        lastSeq: child.lastSeq,
      });
      return;
    }
    if (!known.ghost) return;
    const start = Math.min(known.start, child.start);
    const end = child.end === null ? null : Math.max(known.end ?? child.end, child.end);
    this.#unlink(known);
    const grown: Span = { ...known, start, end, state: end === null ? 'open' : 'ok', lastSeq: child.lastSeq };
    this.#spans.set(parent, grown);
    this.#link(grown);
    if (grown.parent !== null) this.#reach(grown.parent, grown);
  }

  /** Whether `id` is `above`, or hangs on it. A leaf holds nothing, so this walks only where trees are joined. */
  #isWithin(id: string, above: string): boolean {
    if (id === above) return true;
    if ((this.#children.get(above)?.length ?? 0) === 0) return false;
    const seen = this.#spans.size + 1;
    let at: string | null = id;
    for (let steps = 0; at !== null && steps < seen; steps += 1) {
      if (at === above) return true;
      at = this.#spans.get(at)?.parent ?? null;
    }
    return false;
  }

  #link(span: Span): void {
    const siblings = this.#children.get(span.parent);
    if (siblings === undefined) this.#children.set(span.parent, [span.id]);
    else siblings.splice(this.#position(siblings, span), 0, span.id);
  }

  #unlink(span: Span): void {
    const siblings = this.#children.get(span.parent);
    if (siblings === undefined) return;
    const at = this.#position(siblings, span);
    if (siblings[at] !== span.id) return;
    if (siblings.length === 1) this.#children.delete(span.parent);
    else siblings.splice(at, 1);
  }

  /** Where a span stands, or would stand, among its siblings: by start, then by id. Most come last. */
  #position(siblings: readonly string[], span: Span): number {
    let [low, high] = [0, siblings.length];
    let middle = high - 1;
    while (low < high) {
      const id = siblings[middle] ?? '';
      const start = this.#spans.get(id)?.start ?? 0;
      if (start < span.start || (start === span.start && id < span.id)) low = middle + 1;
      else high = middle;
      middle = (low + high) >>> 1;
    }
    return low;
  }

  #remove(span: Span): void {
    this.#unlink(span);
    this.#spans.delete(span.id);
    this.#open.delete(span.id);
    // What hung on it hangs on nothing that is known: it is placed anew, and makes its parent up.
    for (const id of [...(this.#children.get(span.id) ?? [])]) {
      const child = this.#spans.get(id);
      if (child !== undefined) this.#place(child);
    }
  }

  #mark(state: 'stalled' | 'lost', since: number): void {
    for (const id of this.#open) {
      const span = this.#spans.get(id);
      if (span !== undefined) this.#spans.set(id, { ...span, state, stalledSince: since });
    }
  }

  #wake(): void {
    this.#silent = null;
    for (const id of this.#open) {
      const span = this.#spans.get(id);
      if (span !== undefined) this.#spans.set(id, { ...span, state: 'open', stalledSince: null });
    }
  }
}

/** The step that an event tells of; `null` when it names none, or only speaks of one (log records, remarks). */
function toldBy(event: StreamEvent, at: number | null): Told | null {
  const id = event.span_id;
  if (id == null || id === '') return null;
  const native = event.convention.startsWith('native');
  if (!native && event.start_time == null) return null;
  const ended = native ? !/_started$/.test(event.event_type) : event.end_time != null;
  const end = ended ? (milliseconds(event.end_time) ?? at) : null;
  const start = milliseconds(event.start_time) ?? (end !== null ? end - (event.duration_ms ?? 0) : at);
  if (start === null) return null;
  const failed = event.status === 'error' || event.error != null || /_failed$/.test(event.event_type);
  const kind = event.kind == null ? kindOfType(event.event_type) : kindOf(event.kind);
  const state: SpanState = failed ? 'failed' : end === null ? 'open' : 'ok';
  const calls = kind === 'llm' || kind === 'retrieval';
  return {
    id,
    parent: event.parent_span_id == null || event.parent_span_id === '' ? null : event.parent_span_id,
    name: event.name ?? event.tool?.name ?? event.model ?? (native ? event.agent_id : '') ?? '',
    kind,
    agent: event.agent_name ?? (native && event.agent_id !== '' ? event.agent_id : null),
    start,
    end: end === null ? null : Math.max(end, start),
    state,
    model: event.model ?? null,
    tool: event.tool?.name ?? null,
    // An agent's span repeats what the calls within it used.
    inputTokens: calls ? (event.usage?.input_tokens ?? null) : null,
    outputTokens: calls ? (event.usage?.output_tokens ?? null) : null,
    cost: calls ? (event.cost_usd ?? null) : null,
    error: failed ? event.error?.message || event.error?.type || 'failed' : null,
  };
}

/** The server names steps without an id by the event that told of them: `event:7`. */
function seqOf(id: string): number | null {
  const seq = /^event:(\d+)$/.exec(id)?.[1];
  return seq === undefined ? null : Number(seq);
}
