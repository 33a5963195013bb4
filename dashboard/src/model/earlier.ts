// What is left of steps that the page does not hold any more: what is counted of them, for the row that stands in their place.

import { UNTOLD, type Calls, type Earlier, type NodeKind, type Span } from './run';

/** Beginning of the ids of such rows. No exporter's id has a control character. */
const MARK = '\u0001earlier ';
/** Different callers and called that are told apart in one place; further ones are counted together. */
const MOST_CALLS = 200;
const MOST_AGENTS = 1000;

export function rowId(place: string | null): string {
  return MARK + (place ?? '');
}

export function isEarlierRow(id: string): boolean {
  return id.startsWith(MARK);
}

/** What a step is in the graph of agents; `null`: it is passed through. A workflow only where nothing holds it. */
export function nodeOf(span: Span, isHeld: boolean): { kind: NodeKind; name: string } | null {
  if (span.kind === 'agent') return { kind: 'agent', name: span.agent ?? span.name };
  if (span.kind === 'workflow') return isHeld || span.ghost ? null : { kind: 'workflow', name: span.name };
  if (span.kind === 'other') return null;
  if (span.kind === 'llm') return { kind: 'llm', name: span.model ?? span.name };
  return { kind: span.kind, name: span.tool ?? span.name };
}

/** Whether a step goes on with the call that it is in: it repeats it, or is the request within a model call. */
export function continues(
  holder: { kind: NodeKind; name: string } | null,
  is: { kind: NodeKind; name: string },
): boolean {
  if (holder === null || holder.kind !== is.kind) return false;
  return is.kind === 'llm' || holder.name === is.name;
}

/** Counts the steps that leave one place. */
export class Leaving {
  #steps = 0;
  #failed = 0;
  #inputTokens = 0;
  #outputTokens = 0;
  #cost: number | null = null;
  #busy = 0;
  #start = Number.POSITIVE_INFINITY;
  #end = Number.NEGATIVE_INFINITY;
  #firstSeq = Number.POSITIVE_INFINITY;
  #lastSeq = 0;
  readonly #agents = new Set<string>();
  readonly #calls = new Map<string, Calls>();

  /** `before`: the row that stands there already. */
  constructor(before: Span | undefined) {
    if (before !== undefined) this.#take(before);
  }

  /** One more step, with the row of those that had left from within it. */
  add(span: Span, within: Span | undefined): void {
    const end = span.end ?? span.start;
    this.#steps += 1;
    if (span.state === 'failed') this.#failed += 1;
    this.#inputTokens += span.inputTokens ?? 0;
    this.#outputTokens += span.outputTokens ?? 0;
    if (span.cost !== null) this.#cost = (this.#cost ?? 0) + span.cost;
    if (span.agent !== null && this.#agents.size < MOST_AGENTS) this.#agents.add(span.agent);
    // They leave about in the order of their ends, so that this is the time in which any of them ran.
    this.#busy += Math.max(0, end - Math.max(span.start, this.#end));
    this.#reach(span);
    const is = nodeOf(span, span.parent !== null);
    const inner = within?.earlier ?? null;
    if (is !== null) {
      const length = end - span.start;
      this.#call({
        from: null,
        agent: span.agent,
        ...is,
        calls: 1,
        failed: span.state === 'failed' ? 1 : 0,
        total: length,
        self: Math.max(0, length - (inner?.busy ?? 0)),
      });
    }
    if (within === undefined || inner === null) return;
    this.#count(inner);
    this.#reach(within);
    for (const each of inner.calls) {
      if (each.from !== null || is === null) this.#call(each);
      else if (!continues(is, each)) this.#call({ ...each, from: `${is.kind}:${is.name}` });
    }
  }

  row(place: string | null): Span {
    return {
      ...UNTOLD,
      id: rowId(place),
      parent: place,
      name: `${this.#steps.toLocaleString('en')} earlier ${this.#steps === 1 ? 'step' : 'steps'}`,
      start: this.#start,
      end: this.#end,
      state: 'ok',
      firstSeq: this.#firstSeq,
      lastSeq: this.#lastSeq,
      earlier: {
        steps: this.#steps,
        failed: this.#failed,
        inputTokens: this.#inputTokens,
        outputTokens: this.#outputTokens,
        cost: this.#cost,
        busy: this.#busy,
        agents: this.#agents,
        calls: [...this.#calls.values()],
      },
    };
  }

  #take(row: Span): void {
    if (row.earlier === null) return;
    this.#count(row.earlier);
    this.#busy = row.earlier.busy;
    this.#reach(row);
    for (const each of row.earlier.calls) this.#call(each);
  }

  #count(of: Earlier): void {
    this.#steps += of.steps;
    this.#failed += of.failed;
    this.#inputTokens += of.inputTokens;
    this.#outputTokens += of.outputTokens;
    if (of.cost !== null) this.#cost = (this.#cost ?? 0) + of.cost;
    for (const agent of of.agents) if (this.#agents.size < MOST_AGENTS) this.#agents.add(agent);
  }

  #reach(span: Span): void {
    this.#start = Math.min(this.#start, span.start);
    this.#end = Math.max(this.#end, span.end ?? span.start);
    this.#firstSeq = Math.min(this.#firstSeq, span.firstSeq);
    this.#lastSeq = Math.max(this.#lastSeq, span.lastSeq);
  }

  #call(of: Calls): void {
    let key = JSON.stringify([of.from, of.kind, of.name, of.agent]);
    if (this.#calls.size >= MOST_CALLS && !this.#calls.has(key)) {
      of = { ...of, from: null, agent: null, name: 'others' };
      key = of.kind;
    }
    const known = this.#calls.get(key);
    this.#calls.set(
      key,
      known === undefined
        ? of
        : {
            ...known,
            calls: known.calls + of.calls,
            failed: known.failed + of.failed,
            total: known.total + of.total,
            self: known.self + of.self,
          },
    );
  }
}
