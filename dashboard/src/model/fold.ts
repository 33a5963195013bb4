// From the events of a run to the run: one event costs one look-up, one insertion, and a step per ancestor where a tree is joined.
//
// What is drawn here at once is what spans say of themselves. What only the whole run tells (events that name no span, calls that
// two spans tell of) is told by the server's tree: `adopt` takes it over, and `needsTree` says when it is wanted.

//
// Of a run that moves the page holds a bounded number of steps. Those that ended first leave their places to a row that counts them, and
// come back from the server's tree when there is room, or when somebody asks for them.

import { Leaving, isEarlierRow, rowId } from './earlier';
import { kindOf, kindOfType, milliseconds, type Row, type StreamEvent } from './event';
import { IdSet } from './idset';
import { Overview } from './overview';
import { UNTOLD, type Run, type RunStatus, type Span, type SpanState } from './run';

type Told = Omit<Span, 'firstSeq' | 'lastSeq' | 'stalledSince' | 'ghost' | 'earlier'>;

/** How many steps are held: of a run that moves, of one that stands still, and more each time that somebody asks for them. */
export interface Room {
  moving: number;
  resting: number;
  asked: number;
}

export const ROOM: Room = { moving: 5_000, resting: 20_000, asked: 50_000 };
export const ALL: Room = { moving: Infinity, resting: Infinity, asked: Infinity };
/** Names that are kept once however often they are told; and no longer ones than that. */
const MOST_NAMES = 10_000;
const MOST_LETTERS = 200;

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

  readonly #room: Room;
  readonly #overview = new Overview();
  readonly #names = new Map<string, string>();
  /** Steps that are not held any more, and the last event that told of one. */
  readonly #gone = new IdSet();
  #goneThrough = 0;
  /** Steps that stay whatever comes. */
  #kept: ReadonlySet<string> = new Set();
  #most: number;
  /** With so many it is looked for steps that may leave. */
  #trimAt: number;

  constructor(id: string, room: Room = ROOM) {
    this.#id = id;
    this.#room = room;
    this.#most = room.resting;
    this.#trimAt = slack(room.resting);
  }

  /** The run as it is now: a new object, the maps within are not copied. */
  view(): Run {
    return {
      id: this.#id,
      status: this.#status,
      spans: this.#spans,
      children: this.#children,
      overview: this.#overview,
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

  /** Steps that are counted and not held. */
  get goneCount(): number {
    return this.#gone.size;
  }

  isGone(id: string): boolean {
    return this.#gone.has(id) && !this.#spans.has(id);
  }

  /** These stay, and come back with the next tree: what somebody looks at. */
  keep(ids: ReadonlySet<string>): void {
    this.#kept = ids;
  }

  /** The page has caught up: from now on no more is held than a run that moves may have, or than there is already. */
  move(): void {
    this.#bound(Math.max(this.#room.moving, Math.min(this.#most, this.#spans.size)));
  }

  /** The run stands still: with the next tree those come back for which there is room then. Says whether any do. */
  rest(): boolean {
    if (this.#gone.size === 0 || this.#most >= this.#room.resting) return false;
    this.#bound(this.#room.resting);
    return true;
  }

  /** Somebody asks for those that are not held: they come back with the next tree, so many of them at once. */
  more(): void {
    this.#bound(this.#spans.size + Math.min(this.#gone.size, this.#room.asked));
  }

  /** Takes one event. Those that are known, by their number, do nothing: `false`. */
  apply(event: StreamEvent): boolean {
    if (event.seq <= this.#lastSeq) return false;
    this.#lastSeq = event.seq;
    this.#events += 1;
    this.#version += 1;
    const at = milliseconds(event.timestamp);
    if (at !== null && (this.#lastEventAt === null || at > this.#lastEventAt)) this.#lastEventAt = at;
    if (this.#status !== 'running') {
      this.#status = 'running';
      this.move();
    }
    if (this.#silent !== null) this.#wake();

    if (event.convention.startsWith('native')) this.needsTree = true;
    const told = toldBy(event, at);
    if (told !== null) this.#put(told, event.seq);
    if (this.#spans.size >= this.#trimAt) this.#trim();
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
    // All come back, and those leave again for which there is no room: what is counted of them is then what the server says. Not where
    // one has left since that this tree does not know of.
    const isWhole = this.#gone.size > 0 && this.#goneThrough <= seq;
    if (isWhole) this.#bring();
    for (const row of rows) {
      known.add(row.span_id);
      if (!isWhole && this.#gone.has(row.span_id) && !this.#spans.has(row.span_id)) continue;
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
      this.#place(made(told, row.estimated, before?.firstSeq ?? at, before?.lastSeq ?? at));
    }
    for (const [id, span] of this.#spans)
      if (!known.has(id) && span.lastSeq <= seq && span.earlier === null) this.#remove(span);
    if (isWhole || this.#gone.size === 0) {
      this.#overview.clear();
      for (const span of this.#spans.values()) this.#overview.tell(span, null);
    }
    this.#trim();
    if (seq >= this.#lastSeq) this.needsTree = false;
    if (this.#silent !== null) this.#mark(this.#silent.state, this.#silent.since);
    else if (this.#status !== 'running') this.#mark('lost', this.#lastEventAt ?? 0);
    this.#version += 1;
  }

  #put(told: Told, seq: number): void {
    const before = this.#spans.get(told.id);
    if (before === undefined || before.ghost) {
      // Told of once more, after it was let go: the server's tree says what is to be counted of it now.
      if (before === undefined && this.#gone.has(told.id)) {
        this.needsTree = true;
        this.#goneThrough = Math.max(this.#goneThrough, seq);
        return;
      }
      this.#place(made(told, false, seq, seq));
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
    this.#share(span);
    this.#spans.set(span.id, span);
    this.#link(span);
    this.#overview.tell(span, before ?? null);
    if (span.state === 'open' && !span.ghost) this.#open.add(span.id);
    else this.#open.delete(span.id);
    if (this.#start === null || span.start < this.#start) this.#start = span.start;
    if (span.parent !== null) this.#reach(span.parent, span);
  }

  /** Sees to it that the parent is there, and that a made-up one holds what is in it. */
  #reach(parent: string, child: Span): void {
    const known = this.#spans.get(parent);
    if (known === undefined) {
      // Something came into a step that was let go: the server's tree says where that belongs.
      if (this.#gone.has(parent)) this.needsTree = true;
      this.#place({
        ...UNTOLD,
        id: parent,
        name: 'not told yet',
        start: child.start,
        end: child.end,
        state: child.end === null ? 'open' : 'ok',
        ghost: true,
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

  /** Texts that many steps have are kept once. The step is not given out yet. */
  #share(span: Span): void {
    if (span.parent !== null) span.parent = this.#spans.get(span.parent)?.id ?? span.parent;
    span.name = this.#shared(span.name);
    if (span.agent !== null) span.agent = this.#shared(span.agent);
    if (span.model !== null) span.model = this.#shared(span.model);
    if (span.tool !== null) span.tool = this.#shared(span.tool);
    if (span.error !== null) span.error = this.#shared(span.error);
  }

  #shared(text: string): string {
    const known = this.#names.get(text);
    if (known !== undefined) return known;
    if (this.#names.size < MOST_NAMES && text.length <= MOST_LETTERS) this.#names.set(text, text);
    return text;
  }

  #bound(most: number): void {
    this.#most = most;
    this.#trimAt = slack(most);
  }

  /** Lets the steps go that ended first, where there are too many: whole branches, so that nothing hangs on what is not there. */
  #trim(): void {
    let excess = this.#spans.size - this.#most;
    this.#trimAt = slack(this.#most);
    if (excess <= 0) return;
    // The first root is the run's name.
    const first = this.#children.get(null)?.find((id) => !isEarlierRow(id));
    const ended: Span[] = [];
    let failed = 0;
    for (const span of this.#spans.values()) {
      if (span.end === null || span.ghost || span.earlier !== null) continue;
      if (span.id === first || this.#kept.has(span.id)) continue;
      ended.push(span);
      if (span.state === 'failed') failed += 1;
    }
    ended.sort((one, other) => (one.end ?? 0) - (other.end ?? 0) || one.lastSeq - other.lastSeq);
    // What failed is what is looked for: a quarter of the room is theirs.
    let spare = failed - Math.floor(this.#most / 4);
    const inside = new Map<string, number>();
    const places = new Map<string | null, Leaving>();
    const left = new Set<string>();
    for (const span of ended) {
      if (excess <= 0) break;
      const row = this.#spans.get(rowId(span.id));
      const held = inside.get(span.id) ?? (this.#children.get(span.id)?.length ?? 0) - (row === undefined ? 0 : 1);
      if (held > 0) continue;
      if (span.state === 'failed') {
        if (spare <= 0) continue;
        spare -= 1;
      }
      const place = span.parent;
      const leaving = places.get(place) ?? new Leaving(this.#spans.get(rowId(place)));
      leaving.add(span, places.get(span.id)?.row(span.id) ?? row);
      places.set(place, leaving);
      places.delete(span.id);
      if (place !== null) {
        const beside = (this.#children.get(place)?.length ?? 0) - (this.#spans.has(rowId(place)) ? 1 : 0);
        inside.set(place, (inside.get(place) ?? beside) - 1);
      }
      if (row !== undefined) {
        left.add(row.id);
        excess -= 1;
      }
      left.add(span.id);
      this.#gone.add(span.id);
      this.#goneThrough = Math.max(this.#goneThrough, span.lastSeq);
      excess -= 1;
    }
    if (left.size > 0) this.#clearOut(left, places);
    // Those that are open, or looked at, stay: it is not looked again for each that comes.
    this.#trimAt = slack(Math.max(this.#most, this.#spans.size));
  }

  #clearOut(left: ReadonlySet<string>, places: ReadonlyMap<string | null, Leaving>): void {
    for (const id of left) {
      this.#spans.delete(id);
      this.#children.delete(id);
    }
    for (const [place, leaving] of places) {
      const siblings = this.#children.get(place) ?? [];
      const row = leaving.row(place);
      // The row goes where the first of them stood.
      const others = siblings.filter((id) => !left.has(id) && id !== row.id);
      this.#spans.set(row.id, row);
      others.splice(this.#position(others, row), 0, row.id);
      this.#children.set(place, others);
    }
  }

  /** Forgets that steps were let go: the tree that is taken over has them all. */
  #bring(): void {
    const rows = [...this.#spans.values()].filter((span) => span.earlier !== null);
    for (const row of rows) {
      this.#unlink(row);
      this.#spans.delete(row.id);
    }
    this.#gone.clear();
    this.#goneThrough = 0;
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

/** With so many more than are to be held some are let go: not for each one that comes. */
function slack(most: number): number {
  return most + Math.max(8, Math.floor(most / 16));
}

/** All steps have the same fields in the same order: they are many. */
function made(told: Told, ghost: boolean, firstSeq: number, lastSeq: number): Span {
  return {
    id: told.id,
    parent: told.parent,
    name: told.name,
    kind: told.kind,
    agent: told.agent,
    start: told.start,
    end: told.end,
    state: told.state,
    ghost,
    stalledSince: null,
    model: told.model,
    tool: told.tool,
    inputTokens: told.inputTokens,
    outputTokens: told.outputTokens,
    cost: told.cost,
    error: told.error,
    firstSeq,
    lastSeq,
    earlier: null,
  };
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
