/**
 * The critical path: for every moment of a run the one step that it waited for.
 *
 * Read backwards, as the server's analysis does: what ended last is what its parent waited for at the end; before that began, the parent waited for what had ended last before;
 * where nothing had ended but something ran, for that; where nothing ran, for the parent itself. The server does it for runs that are stored, with its corrections of clocks; here it
 * is for the picture of a run that moves. Costs a sort of each step's children and one pass.
 */

import type { Run } from './run';

/** Some producers start their spans at whole milliseconds: steps that follow one another may seem to overlap by as much. */
const COARSE_CLOCK_MS = 1;

/** Stretches in which one step is on the path and is looked into; further ones are its own, so that a background task among thousands of steps costs no more than they. */
const MOST_WINDOWS = 64;

export interface Segment {
  readonly from: number;
  readonly to: number;
}

export interface CriticalPath {
  /** By span: the stretches that the run waited for this very step and none in it, by time. */
  readonly segments: ReadonlyMap<string, readonly Segment[]>;
  /** Milliseconds in which the run waited for a step. */
  readonly length: number;
}

export const NO_PATH: CriticalPath = { segments: new Map(), length: 0 };

interface Node {
  id: string | null;
  children: Node[];
  start: number;
  /** What the step itself says, or now. */
  ownEnd: number;
  /** With what was begun in it and outlived it. */
  end: number;
  windows: Segment[];
}

/** `now` is the end of open steps while the run goes on. */
export function criticalPath(run: Run, now: number): CriticalPath {
  const { root, ordered } = arranged(run, run.status === 'running' ? now : null);
  const found = new Map<string, Segment[]>();
  let length = 0;
  const keep = (node: Node, from: number, to: number): void => {
    // After its own end the time is nobody's.
    const end = Math.min(to, Math.max(from, node.ownEnd));
    if (node.id === null || end <= from) return;
    length += end - from;
    const list = found.get(node.id);
    if (list === undefined) found.set(node.id, [{ from, to: end }]);
    else list.push({ from, to: end });
  };
  root.windows.push({ from: root.start, to: root.end });
  for (const node of ordered) {
    sweep(node, keep);
    node.windows = [];
  }
  for (const [id, list] of found) found.set(id, joined(list));
  return { segments: found, length };
}

/** The tree, parents before what is in them, under a root of our own. */
function arranged(run: Run, horizon: number | null): { root: Node; ordered: Node[] } {
  const root: Node = { id: null, children: [], start: Infinity, ownEnd: -Infinity, end: -Infinity, windows: [] };
  const ordered = [root];
  const seen = new Set<string>();
  const above: number[] = [-1];
  for (let at = 0; at < ordered.length; at += 1) {
    const node = ordered[at];
    if (node === undefined) continue;
    for (const id of run.children.get(node.id) ?? []) {
      const span = run.spans.get(id);
      if (span === undefined || seen.has(id)) continue;
      seen.add(id);
      // A step does not begin before the one that called it.
      const start = node === root ? span.start : Math.max(span.start, node.start);
      const isOpen = span.end === null && !span.ghost && span.state !== 'lost';
      const ownEnd = Math.max(start, span.end ?? (isOpen && horizon !== null ? horizon : start));
      const child: Node = { id, children: [], start, ownEnd, end: ownEnd, windows: [] };
      node.children.push(child);
      ordered.push(child);
      above.push(at);
    }
  }
  for (let at = ordered.length - 1; at > 0; at -= 1) {
    const node = ordered[at];
    const parent = ordered[above[at] ?? 0];
    if (node === undefined || parent === undefined) continue;
    const isGhost = node.id !== null && run.spans.get(node.id)?.ghost === true;
    // A step that never came lasted as long as what is in it.
    if (isGhost) node.ownEnd = Math.max(node.ownEnd, node.end);
    parent.end = Math.max(parent.end, node.end);
    if (parent === root) root.start = Math.min(root.start, node.start);
  }
  return { root, ordered };
}

/** Deals the time in which a step is on the path out to the steps in it. Windows are dealt latest first. */
function sweep(owner: Node, keep: (node: Node, from: number, to: number) => void): void {
  const windows = owner.windows;
  if (windows.length === 0) return;
  const byEnd = [...owner.children].sort((one, other) => other.end - one.end || one.start - other.start);
  const running = new ByStart();
  const give = (node: Node, from: number, to: number): void => {
    if (node.windows.length < MOST_WINDOWS) node.windows.push({ from, to });
    else keep(node, from, to);
  };
  let next = 0;
  for (const { from: low, to: high } of windows) {
    let until = high;
    while (until > low) {
      for (let ran = byEnd[next]; ran !== undefined && ran.end > until + COARSE_CLOCK_MS; ran = byEnd[next]) {
        running.push(ran);
        next += 1;
      }
      const before = byEnd[next];
      const ended = before === undefined ? low : Math.min(Math.max(before.end, low), until);
      if (ended < until) {
        const beside = running.first;
        if (beside !== undefined && beside.start < until) {
          const from = Math.max(beside.start, ended);
          give(beside, from, until);
          until = from;
        }
        keep(owner, ended, until);
        until = ended;
      }
      if (before === undefined || until <= low) continue;
      next += 1;
      const from = Math.max(before.start, low);
      if (from < until) {
        give(before, from, until);
        until = from;
      }
      if (before.start < low) running.push(before);
    }
  }
}

/** Nodes, of which the one that started first can be had. */
class ByStart {
  #heap: Node[] = [];

  get first(): Node | undefined {
    return this.#heap[0];
  }

  push(node: Node): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(node);
    while (at > 0) {
      const above = (at - 1) >> 1;
      const holder = heap[above];
      if (holder === undefined || holder.start <= node.start) break;
      heap[at] = holder;
      heap[above] = node;
      at = above;
    }
  }
}

function joined(list: readonly Segment[]): Segment[] {
  const found: Segment[] = [];
  for (const segment of [...list].sort((one, other) => one.from - other.from)) {
    const last = found.at(-1);
    if (last !== undefined && segment.from - last.to < 1e-6)
      found[found.length - 1] = { from: last.from, to: segment.to };
    else found.push(segment);
  }
  return found;
}
