/**
 * What goes on in a run over its time, in a few hundred columns: how many model calls, tools and retrievals at once, and where something failed.
 *
 * A span that comes or ends changes two numbers, however long the run is. Columns become twice as wide when the run outgrows them.
 */

import type { Span } from './run';

export const COLUMNS = 256;
export const LANES = ['llm', 'tool', 'retrieval'] as const;
export type Lane = (typeof LANES)[number];

export interface Column {
  /** How many of each lane ran, on average. */
  readonly llm: number;
  readonly tool: number;
  readonly retrieval: number;
  readonly failed: number;
}

export class Overview {
  #from: number | null = null;
  #width = 4;
  /** By column: what its spans began (+) and ended (-), as parts of the column's length, and what is carried to those behind it. */
  #steps = new Map<Lane, { part: Float64Array; carry: Float64Array }>();
  #failed = new Float64Array(COLUMNS);

  constructor() {
    this.clear();
  }

  clear(): void {
    this.#from = null;
    this.#width = 4;
    this.#steps = new Map(
      LANES.map((lane) => [lane, { part: new Float64Array(COLUMNS), carry: new Float64Array(COLUMNS) }]),
    );
    this.#failed = new Float64Array(COLUMNS);
  }

  /** A span is new, or another than it was. */
  tell(span: Span, before: Span | null): void {
    const lane = laneOf(span);
    if (
      before !== null &&
      lane === laneOf(before) &&
      before.start === span.start &&
      before.end === span.end &&
      before.state === span.state
    )
      return;
    if (before !== null) this.#count(before, -1);
    this.#count(span, 1);
  }

  /** The columns from the run's start on, up to the one in which `until` lies, and how many milliseconds each stands for. */
  columns(until: number): { width: number; columns: Column[] } {
    if (this.#from === null) return { width: this.#width, columns: [] };
    const count = Math.min(COLUMNS, Math.max(1, Math.ceil((until - this.#from) / this.#width)));
    const now = (until - this.#from) / this.#width;
    const sums = { llm: 0, tool: 0, retrieval: 0 };
    const columns: Column[] = [];
    for (let at = 0; at < count; at += 1) {
      const here = { llm: 0, tool: 0, retrieval: 0 };
      for (const lane of LANES) {
        const steps = this.#steps.get(lane);
        here[lane] = sums[lane] + (steps?.part[at] ?? 0);
        sums[lane] += steps?.carry[at] ?? 0;
        // What has not ended runs to now, and no further.
        if (at + 1 > now) here[lane] -= sums[lane] * (at + 1 - now);
        if (here[lane] < 1e-6) here[lane] = 0;
      }
      columns.push({ ...here, failed: Math.round(this.#failed[at] ?? 0) });
    }
    return { width: this.#width, columns };
  }

  get from(): number | null {
    return this.#from;
  }

  #count(span: Span, by: 1 | -1): void {
    if (span.ghost) return;
    this.#makeRoom(span.start, span.end ?? span.start);
    if (span.state === 'failed') this.#add(this.#failed, this.#column(span.end ?? span.start), by);
    const steps = this.#steps.get(laneOf(span) ?? 'llm');
    if (laneOf(span) === null || steps === undefined) return;
    this.#edge(steps, span.start, by);
    if (span.end !== null) this.#edge(steps, Math.max(span.end, span.start), by === 1 ? -1 : 1);
  }

  /** From here on there is one more (or less): of its own column for the part that is left of it. */
  #edge(steps: { part: Float64Array; carry: Float64Array }, at: number, by: 1 | -1): void {
    const column = this.#column(at);
    const into = Math.min(1, Math.max(0, (at - (this.#from ?? at)) / this.#width - column));
    this.#add(steps.part, column, by * (1 - into));
    this.#add(steps.carry, column, by);
  }

  #column(at: number): number {
    return Math.min(COLUMNS - 1, Math.max(0, Math.floor((at - (this.#from ?? at)) / this.#width)));
  }

  #add(to: Float64Array, at: number, by: number): void {
    to[at] = (to[at] ?? 0) + by;
  }

  #makeRoom(start: number, end: number): void {
    this.#from ??= start;
    // Something began before what was taken for the start: whole columns are put in front.
    while (start < this.#from) {
      const missing = Math.ceil((this.#from - start) / this.#width);
      const used = this.#used();
      if (missing + used <= COLUMNS) {
        this.#shift(missing);
        this.#from -= missing * this.#width;
      } else this.#halve();
    }
    while (end - this.#from > this.#width * COLUMNS) this.#halve();
  }

  #used(): number {
    let last = COLUMNS;
    const all = [...this.#steps.values()].flatMap(({ part, carry }) => [part, carry]);
    all.push(this.#failed);
    while (last > 0 && all.every((each) => Math.abs(each[last - 1] ?? 0) < 1e-9)) last -= 1;
    return last;
  }

  #shift(by: number): void {
    for (const { part, carry } of this.#steps.values()) {
      for (const each of [part, carry]) {
        each.copyWithin(by, 0);
        each.fill(0, 0, by);
      }
    }
    this.#failed.copyWithin(by, 0);
    this.#failed.fill(0, 0, by);
  }

  #halve(): void {
    const pairs = (of: Float64Array, join: (first: number, second: number, at: number) => number): void => {
      for (let at = 0; at < COLUMNS / 2; at += 1) of[at] = join(of[2 * at] ?? 0, of[2 * at + 1] ?? 0, at);
      of.fill(0, COLUMNS / 2);
    };
    for (const { part, carry } of this.#steps.values()) {
      const carried = carry.slice();
      // What began in the first of two runs through the whole of the second.
      pairs(part, (first, second, at) => (first + second + (carried[2 * at] ?? 0)) / 2);
      pairs(carry, (first, second) => first + second);
    }
    pairs(this.#failed, (first, second) => first + second);
    this.#width *= 2;
  }
}

function laneOf(span: Span): Lane | null {
  return span.kind === 'llm' || span.kind === 'tool' || span.kind === 'retrieval' ? span.kind : null;
}
